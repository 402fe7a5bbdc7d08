"""The storage seam: what `State` needs from a disk. No SQL above it; `sqlite.py` is behind it.

All methods block. `load`, `append`, `flush_volatile` and `close` are called one at a time, by the writer; the rest may be
called from any thread at any time after `load`.

How a store says no decides what `State` does about it:

| raised             | means                                              | then                                        |
| ------------------ | -------------------------------------------------- | ------------------------------------------- |
| `StoreUnusable`    | by `load` alone: this is no database of ours       | the program does not start                  |
| `WriteRefused`     | nothing of it happened, for certain                | read-only until a transaction succeeds      |
| anything else      | unknown whether it happened, or a bug              | exit at once; a restart reads what is there |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from control.errors import ControlError
from control.state.changes import AnyChange
from control.state.facts import Facts
from control.state.volatile import Volatile
from control.tailcfg.codec import decode, encode


class StoreUnusable(ControlError):
    """The database cannot be used; `hint` says what the operator can do."""

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


class WriteRefused(ControlError):
    """Definite: the transaction was rolled back whole. `hint` says what the operator can do."""

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


class Commit(msgspec.Struct, frozen=True, gc=False):
    """One command that came to something: a row of the log. `by` is `kind:id` of the actor, `kind` the command's name."""

    seq: int
    at: float
    by: str
    kind: str
    changes: tuple[AnyChange, ...]
    payload: bytes  # the changes as JSON: what the log keeps


class Loaded(NamedTuple):
    """What was on the disk. `newest_at`: the newest time that any of it carries, 0 for none."""

    facts: Facts
    volatile: dict[int, Volatile]
    primaries: dict[str, int]
    newest_at: float


class Store(Protocol):
    def load(self) -> Loaded:
        """Open, bring up to date, read. Raises StoreUnusable."""

    def append(self, batch: Sequence[Commit]) -> int:
        """Write these, all or nothing, durable on return. Answers the last seq."""

    def flush_volatile(self, records: Mapping[int, Volatile], primaries: Mapping[str, int] | None) -> None:
        """Write these over what is there; `primaries` None: unchanged. A real transaction even when there is nothing."""

    def changes_since(self, seq: int) -> list[Commit] | None:
        """What was committed after `seq`, in order; None when the log does not reach back so far: load again."""

    def history(self, kind: str | None, before_seq: int | None, limit: int) -> list[Commit]:
        """The newest commits before `before_seq`, newest first; `kind` None: of every kind."""

    def backup(self, path: Path) -> None:
        """A consistent copy at `path`, which must not exist yet; it holds secrets, so only the owner may read it."""

    def shortage(self) -> str | None:
        """Why the data must not grow now (the disk is nearly full), or None. Costs microseconds."""

    def close(self) -> None:
        """Let go of everything; also after a `load` that failed."""


def encode_changes(changes: Sequence[AnyChange]) -> bytes:
    return encode(changes)


def decode_changes(payload: bytes) -> tuple[AnyChange, ...]:
    """Raises control.tailcfg.codec.DecodeError."""
    return decode(payload, tuple[AnyChange, ...])
