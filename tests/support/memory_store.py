"""A store in memory that fails on demand, and a writer without a thread.

`InlineWriter` runs each job at once on the loop: with it a test may use a virtual clock, which a thread cannot see.
"""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import trio

from control.state.facts import Facts
from control.state.state import State
from control.state.store import Commit, Loaded, Store, WriteRefused, decode_changes
from control.state.volatile import Volatile
from control.state.writer import Job

NOW = 1_750_000_000.0


class Fault(NamedTuple):
    """What the next transaction comes to: `error`, when it had happened (`after`) or not."""

    error: BaseException
    after: bool = False


FULL = Fault(WriteRefused("disk full", "free some space"))


class MemoryStore:
    """`control.state.store.Store`. Its `disk` outlives `close`, so `load` is a restart."""

    def __init__(self) -> None:
        self.disk = Loaded(Facts(), {}, {}, 0.0)
        self.log: list[Commit] = []
        self.faults: deque[Fault | None] = deque()  # of the next transactions; None: it succeeds
        self.batches: list[int] = []  # sizes of the batches that were written
        self.flushes = 0
        self.journal: list[str | int] = []  # what was written, in order: the seq of a commit, or "flush"
        self.open = threading.Event()  # cleared: appends wait here
        self.open.set()
        self.closed = False
        self.nearly_full: str | None = None

    def load(self) -> Loaded:
        facts, volatile, primaries, newest = self.disk
        return Loaded(facts.copy(), copy.deepcopy(volatile), dict(primaries), newest)

    def append(self, batch: Sequence[Commit]) -> int:
        self.open.wait()
        fault = self._fault()
        for commit in batch:
            # Through the text, as a database would.
            again = msgspec.structs.replace(commit, changes=decode_changes(commit.payload))
            self.log.append(again)
            self.disk.facts.apply(again.changes)
            self.disk.facts.seq = commit.seq
        self.disk = self.disk._replace(newest_at=max(self.disk.newest_at, *(commit.at for commit in batch)))
        for gone in self.disk.volatile.keys() - self.disk.facts.nodes.keys():
            del self.disk.volatile[gone]
        self.batches.append(len(batch))
        self.journal += [commit.seq for commit in batch]
        if fault is not None:
            raise fault.error
        return batch[-1].seq

    def flush_volatile(self, records: Mapping[int, Volatile], primaries: Mapping[str, int] | None) -> None:
        fault = self._fault()
        assert records.keys() <= self.disk.facts.nodes.keys(), "a flush ran ahead of its nodes"
        for ident, record in records.items():
            self.disk.volatile[ident] = copy.copy(record)
            self.disk.volatile[ident].confirmed = False
        if primaries is not None:
            self.disk = self.disk._replace(primaries=dict(primaries))
        self.flushes += 1
        self.journal.append("flush")
        if fault is not None:
            raise fault.error

    def changes_since(self, seq: int) -> list[Commit] | None:
        return [commit for commit in self.log if commit.seq > seq] if seq <= len(self.log) else None

    def history(self, kind: str | None, before_seq: int | None, limit: int) -> list[Commit]:
        found = [
            commit
            for commit in reversed(self.log)
            if (kind is None or commit.kind == kind) and (before_seq is None or commit.seq < before_seq)
        ]
        return found[:limit]

    def backup(self, path: Path) -> None:
        raise WriteRefused("memory has no copies", "")

    def shortage(self) -> str | None:
        return self.nearly_full

    def close(self) -> None:
        self.closed = True

    def _fault(self) -> Fault | None:
        fault = self.faults.popleft() if self.faults else None
        if fault is not None and not fault.after:
            raise fault.error
        return fault


class InlineWriter:
    """`control.state.writer.Writer`, for stores that do not block."""

    def start(self, job: Job) -> None:
        job.run()
        job.done.set()

    def stop(self) -> None:
        pass


class WallClock:
    """Seconds since 1970 that a test sets."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def running_state(
    store: Store, decide: Any, *, inline: bool = True, clock: Callable[[], float] | None = None, **more: Any
) -> AsyncIterator[State]:
    """A loaded `State` over `store`, stopped in good order at the end."""
    if inline:
        more["make_writer"] = InlineWriter
    state = State(store, decide=decide, pepper=b"pepper", clock=clock or WallClock(), **more)
    async with trio.open_nursery() as nursery:
        await nursery.start(state.run)
        yield state
        nursery.cancel_scope.cancel()
