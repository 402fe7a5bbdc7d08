"""What people read: tables on stdout, talk on stderr, relative times.

Data goes to stdout and nothing else does, so that it can be piped. Names, operating systems and versions come from clients:
no control character of theirs reaches a terminal.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import click

from appliance.errors import OperatorError
from appliance.printable import printable

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
Column = tuple[str, Callable[[dict[str, Any]], Any]]


def talk(text: str) -> None:
    """Something a person may want to know; `--quiet` silences it at the caller."""
    for line in text.splitlines():
        click.echo(printable(line), err=True)


def say_error(error: OperatorError) -> None:
    """`error:` and `hint:` lines; `--quiet` does not silence them."""
    for kind, text in error.lines():
        click.echo(f"{kind}: {printable(text)}", err=True)


def cell(value: Any) -> str:
    """A value in a table; nothing is a dash."""
    if value is None or value == "" or value == []:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ",".join(map(cell, value))
    return printable(str(value))


def table(columns: Sequence[Column], records: Sequence[dict[str, Any]]) -> str:
    """Aligned columns under headings."""
    rows = [[name for name, _ in columns]]
    rows += [[cell(value(record)) for _, value in columns] for record in records]
    widths = [max(len(row[index]) for row in rows) for index in range(len(columns))]
    lines = (
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
    return "\n".join(lines)


def pairs(items: Sequence[tuple[str, Any]]) -> str:
    """One name and value a line."""
    width = max(len(name) for name, _ in items)
    return "\n".join(f"{name.ljust(width)}  {cell(value)}" for name, value in items)


def ago(stamp: str | None, now: datetime) -> str:
    """An RFC 3339 time as people say it: `5m ago`, `in 12d`, `never`."""
    if not stamp:
        return "never"
    seconds = (now - datetime.fromisoformat(stamp)).total_seconds()
    return f"{span(seconds)} ago" if seconds >= 0 else f"in {span(-seconds)}"


def span(seconds: float) -> str:
    """A duration in its largest unit up to days; the next smaller one too while the number is small."""
    whole = int(seconds)
    for unit, below in (("d", "h"), ("h", "m"), ("m", "s")):
        count, rest = divmod(whole, UNITS_S[unit])
        if count:
            part = rest // UNITS_S[below]
            return f"{count}{unit}{part}{below}" if count < 3 and part else f"{count}{unit}"
    return f"{whole}s"


def size(count: int) -> str:
    """Bytes as people say them: `1.4 MiB`."""
    number = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


class Duration(click.ParamType[Any]):
    """`1h`, `90d`, `1h30m` → seconds; with `never=True` also the word, which becomes None."""

    name = "duration"

    def __init__(self, *, never: bool = False) -> None:
        self.never = never

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        if self.never and value == "never":
            return NEVER
        if not re.fullmatch(r"([0-9]{1,6}[smhdw])+", value, re.ASCII):
            words = "30m, 12h, 90d or 1h30m" + (", or never" if self.never else "")
            self.fail(f"expected a duration such as {words}, got {value!r}", param, ctx)
        seconds = sum(int(count) * UNITS_S[unit] for count, unit in re.findall(r"([0-9]+)([smhdw])", value))
        if not seconds:
            self.fail("expected more than nothing", param, ctx)
        return seconds


NEVER = "never"


def on_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirm(question: str, *, yes: bool) -> None:
    """Ask on a terminal unless `--yes` was given; a no ends the command. Scripts are not asked."""
    if not yes and on_terminal() and not click.confirm(printable(question), err=True):
        raise click.Abort
