"""Records to rows and back, made once from the fields of the record types.

| field               | column                  |
| ------------------- | ----------------------- |
| int, float, str     | INTEGER, REAL, TEXT     |
| bool                | INTEGER, 0 or 1         |
| keys, bytes         | BLOB                    |
| tuple of texts      | TEXT, a JSON array      |
| anything or None    | the same, or NULL       |

The column has the field's name. Every table has `tailnet_id` besides.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, Generic, TypeVar, get_args, get_origin

import msgspec

from control.keys import PublicKey
from control.model import TAILNET, Record

R = TypeVar("R", bound=Record)

Converter = Callable[[Any], Any]


class Table(Generic[R]):
    """The statements and converters for one record type. `key` is the primary key; table and field names are ours."""

    def __init__(self, name: str, kind: type[R], key: str) -> None:
        self._kind = kind
        fields = msgspec.structs.fields(kind)
        self._names = [field.name for field in fields]
        converters = [_converters(field.type) for field in fields]
        self._outward = [(at, pair[0]) for at, pair in enumerate(converters) if pair]
        self._inward = [(at, pair[1]) for at, pair in enumerate(converters) if pair]
        columns = ", ".join(self._names)
        holes = ", ".join("?" * (len(fields) + 1))
        updates = ", ".join(f"{column} = excluded.{column}" for column in self._names if column != key)
        self.put = (
            f"INSERT INTO {name} (tailnet_id, {columns}) VALUES ({holes}) "  # noqa: S608
            f"ON CONFLICT ({key}) DO UPDATE SET {updates}"
        )
        self.delete = f"DELETE FROM {name} WHERE {key} = ?"  # noqa: S608
        self.select = f"SELECT {columns} FROM {name} WHERE tailnet_id = {TAILNET} ORDER BY {key}"  # noqa: S608

    def row(self, record: R) -> list[Any]:
        """The parameters of `put`."""
        values = [getattr(record, name) for name in self._names]
        for at, convert in self._outward:
            if values[at] is not None:
                values[at] = convert(values[at])
        return [TAILNET, *values]

    def record(self, row: tuple[Any, ...]) -> R:
        """The record in a row of `select`. Raises ValueError or TypeError when it is none."""
        values = list(row)
        for at, convert in self._inward:
            if values[at] is not None:
                values[at] = convert(values[at])
        return self._kind(**dict(zip(self._names, values, strict=True)))


def texts_to_json(texts: tuple[str, ...]) -> str:
    return msgspec.json.encode(texts).decode() if texts else "[]"


def texts_from_json(text: str) -> tuple[str, ...]:
    return () if text == "[]" else msgspec.json.decode(text, type=tuple[str, ...])


def _converters(kind: Any) -> tuple[Converter, Converter] | None:
    """To the column and from it; None where SQLite takes and gives the very thing."""
    if isinstance(kind, types.UnionType):
        (kind,) = (part for part in get_args(kind) if part is not types.NoneType)
    if kind is bool:
        return int, bool
    if get_origin(kind) is tuple:
        return texts_to_json, texts_from_json
    if isinstance(kind, type) and issubclass(kind, PublicKey):
        return bytes, kind
    return None
