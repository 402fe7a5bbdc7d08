"""THE ONE WRITER. Whoever wants the world to be different says so here, and hears back when it is.

    submit ─► _commit ─► _head, _pending ─► writer thread ─► Store
                                                 │
    ticket ◄── subscribers ◄── durable ◄─────────┘

`_commit` has no `await`, so under trio nothing else runs in between: it is the transaction, and there is no lock. It
decides on `_head`, which is ahead of the disk and which nobody else may read; everybody reads `durable`, which is what
is on the disk. Whatever leaves the process is built from `durable` and `volatile`: what the disk then refuses was
never seen by anyone, and can be forgotten.

All of it runs in one task, `run`: it hands one job at a time to the writer thread, a batch of commits or the volatile
records that changed, and takes the outcome in. See `store.py` for the three ways in which a store says no.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, Protocol

import trio

from control.errors import Busy, StorageFailed, Unavailable
from control.model import AuthKey, Node, User
from control.state.changes import AnyChange, AuthKeyPut, NodeGone, NodePut, UserPut
from control.state.commands import Actor, AnyCommand, Decision, LoggedOut, Registered, Result
from control.state.facts import Facts
from control.state.store import Commit, Loaded, Store, WriteRefused, encode_changes
from control.state.volatile import Group, Volatile
from control.state.writer import Job, Writer, WriterThread

log = logging.getLogger("control.state")

# A transaction costs one fsync, whatever is in it; more than this only makes the first of a batch wait for the last.
BATCH = 256
# What may wait for the disk. At 256 commits in 10 ms (a cheap server's fsync) this is 20 ms of patience.
PENDING_COMMITS = 512
PENDING_BYTES = 8 * 1024 * 1024
# Volatile facts may be lost for this long; while read-only the same transaction asks whether the disk is back.
FLUSH_EVERY_S = 5.0
# The disk's time at the end. What it has not taken by then is not acknowledged to anybody.
SHUTDOWN_S = 10.0
CLOSE_S = 2.0
EXIT_BUG = 70  # EX_SOFTWARE: systemd starts us again, and we read what is really on the disk


class Decide(Protocol):
    def __call__(
        self, facts: Facts, command: AnyCommand, by: Actor, now: float, pepper: bytes
    ) -> Decision: ...


class Subscriber(Protocol):
    """Told on the loop, in the order of subscription, before the caller of `submit` is. Neither may block or raise."""

    def on_commit(self, changes: Sequence[AnyChange], facts: Facts, now: float) -> None:
        """These are on the disk, and `facts` is the world with them."""

    def on_touch(self, node_id: int, groups: Collection[Group], now: float) -> None:
        """The volatile record of the node changed in these groups."""


class Ticket:
    """A commit on its way to the disk."""

    __slots__ = ("_done", "_failure", "commit")

    def __init__(self, commit: Commit) -> None:
        self.commit = commit
        self._done = trio.Event()
        self._failure: WriteRefused | None = None

    def settle(self, failure: WriteRefused | None = None) -> None:
        self._failure = failure
        self._done.set()

    async def wait(self) -> None:
        """Until it is durable. Raises StorageFailed."""
        await self._done.wait()
        if self._failure is not None:
            raise StorageFailed(self._failure.reason, self._failure.hint)


def exit_at_once(error: BaseException) -> None:
    """Nobody may be told anything more: it is unknown what is on the disk."""
    log.critical("the database failed in a way that must not happen; restarting", exc_info=error)
    logging.shutdown()
    os._exit(EXIT_BUG)


class State:
    """`clock`: seconds since 1970. `decide`: the rules (`rules.decide`). `fatal`, `make_writer`: for tests."""

    def __init__(
        self,
        store: Store,
        *,
        decide: Decide,
        pepper: bytes,
        clock: Callable[[], float],
        fatal: Callable[[BaseException], None] = exit_at_once,
        make_writer: Callable[[], Writer] = WriterThread,
    ) -> None:
        self.durable = Facts()  # replaced, never changed
        self.volatile: dict[int, Volatile] = {}  # a record for every node of `durable`
        self.primaries: dict[str, int] = {}  # as on the disk
        self.primaries_source: Callable[[], dict[str, int]] = lambda: self.primaries
        self.read_only: str | None = None  # why nothing can be changed, while that is so
        self.storage_hint = ""  # and what the operator can do about it
        self.newest_at = 0.0  # the newest time that was ever stored: a wall clock behind it has gone wrong
        self.transactions = 0  # batches written since the start
        self._store, self._decide, self._pepper, self._clock = store, decide, pepper, clock
        self._fatal, self._make_writer = fatal, make_writer
        self._subscribers: list[Subscriber] = []
        self._head = Facts()
        self._pending: deque[Ticket] = deque()
        self._pending_bytes = 0
        self._unflushed: set[int] = set()
        self._running = False
        self._wake = trio.Event()
        self._job: tuple[Job, Callable[[Job], None]] | None = None  # in the writer's hands
        self._flush_at = 0.0
        self._flush_behind: int | None = None  # a flush is due once this seq is on the disk

    # what others call

    @property
    def backlog(self) -> int:
        """Commits that wait for the disk."""
        return len(self._pending)

    def subscribe(self, subscriber: Subscriber) -> None:
        self._subscribers.append(subscriber)

    async def submit(self, command: AnyCommand, by: Actor) -> Result:
        """Ask for a change; returns when it is on the disk and everybody who must know does.

        The records in the result are as they are on the disk by then. A caller that is cancelled while it waits does
        not undo the change. Raises Refused, or TryLater.
        """
        ticket, result = self._commit(command, by, self._clock())
        if ticket is None:
            await trio.lowlevel.checkpoint()
        else:
            await ticket.wait()
        return self._reread(result)

    def touch(self, node_id: int, **fields: Any) -> frozenset[Group]:
        """Set these fields of the node's volatile record; answers the groups in which peers see a difference.

        A node that is gone has no record: nothing happens.
        """
        record = self.volatile.get(node_id)
        if record is None:
            return frozenset()
        stored, groups = record.update(fields)
        if stored:
            self._unflushed.add(node_id)
        if groups:
            now = self._clock()
            for subscriber in self._subscribers:
                subscriber.on_touch(node_id, groups, now)
        return groups

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Load, then write until cancelled; what was accepted by then is still written. Raises StoreUnusable."""
        writer = self._make_writer()
        try:
            loading = Job(self._store.load)
            writer.start(loading)
            await loading.done.wait()
            self._loaded(loading)
            self._running = True
            task_status.started()
            await self._write(writer)
        except trio.Cancelled:
            self._running = False
            with trio.move_on_after(SHUTDOWN_S, shield=True) as patience:
                await self._drain(writer)
            if patience.cancelled_caught:
                fields = {"changes": self.backlog, "hint": "none was acknowledged; look at the disk"}
                log.warning("the disk took too long, and changes were given up", extra=fields)
            raise
        finally:
            self._running = False
            await self._close(writer)  # noqa: ASYNC102  (shielded, with a deadline, in there)

    # the writing task

    def _loaded(self, job: Job) -> None:
        if job.error is not None:
            raise job.error
        assert isinstance(job.value, Loaded)
        self.durable, self.volatile, self.primaries, self.newest_at = job.value
        for ident in self.durable.nodes:
            self.volatile.setdefault(ident, Volatile())
        self._head = self.durable.copy()
        self._flush_at = trio.current_time() + FLUSH_EVERY_S

    async def _write(self, writer: Writer, *, until_idle: bool = False) -> None:
        while True:
            if self._job is None and (begun := self._next_job()) is not None:
                self._job = begun
                writer.start(begun[0])
            if self._job is not None:
                job, finish = self._job
                await job.done.wait()  # cancelled here: `_drain` takes the same job up again
                self._job = None
                finish(job)
            elif until_idle:
                return
            else:
                with trio.move_on_at(self._flush_at):
                    await self._wake.wait()
                self._wake = trio.Event()

    async def _drain(self, writer: Writer) -> None:
        self._flush_behind = self._head.seq
        await self._write(writer, until_idle=True)

    async def _close(self, writer: Writer) -> None:
        closing = Job(self._store.close)
        writer.start(closing)
        with trio.move_on_after(CLOSE_S, shield=True):
            await closing.done.wait()
        writer.stop()
        if closing.error is not None:
            hint = "look at the disk; the next start repairs what SQLite can"
            log.warning("the database did not close cleanly", extra={"reason": closing.error, "hint": hint})

    def _next_job(self) -> tuple[Job, Callable[[Job], None]] | None:
        """A flush that is due and not ahead of commits that were there before it; else a batch of commits."""
        now = trio.current_time()
        if now >= self._flush_at:
            self._flush_at = now + FLUSH_EVERY_S
            self._flush_behind = self._head.seq
        if self._flush_behind is not None and self.durable.seq >= self._flush_behind:
            self._flush_behind = None
            primaries = dict(self.primaries_source())
            moved = primaries if primaries != self.primaries else None
            if self._unflushed or moved is not None or self.read_only is not None:
                # The records themselves, not copies: one that changes while the thread reads it is flushed again.
                records = {ident: self.volatile[ident] for ident in self._unflushed}
                self._unflushed = set()
                flush = Job(partial(self._store.flush_volatile, records, moved))
                return flush, partial(self._flushed, records, moved)
        if self._pending:
            batch = list(islice(self._pending, BATCH))
            append = Job(partial(self._store.append, [ticket.commit for ticket in batch]))
            return append, partial(self._appended, batch)
        return None

    def _appended(self, batch: Sequence[Ticket], job: Job) -> None:
        """The batch is on the disk, or not: the world moves, or forgets it. No `await` in here."""
        if job.error is not None:
            self._failed(job.error)
            return
        changes = [change for ticket in batch for change in ticket.commit.changes]
        facts = self.durable.copy()
        facts.apply(changes)
        facts.seq = batch[-1].commit.seq
        self.durable = facts
        self.transactions += 1
        for ticket in batch:
            self._pending.popleft()
            self._pending_bytes -= len(ticket.commit.payload)
        for change in changes:
            if isinstance(change, NodePut):
                self.volatile.setdefault(change.node.id, Volatile())
            elif isinstance(change, NodeGone):
                self.volatile.pop(change.id, None)
                self._unflushed.discard(change.id)
        now = self._clock()
        for subscriber in self._subscribers:
            subscriber.on_commit(changes, facts, now)
        for ticket in batch:
            ticket.settle()

    def _flushed(self, records: Mapping[int, Volatile], moved: dict[str, int] | None, job: Job) -> None:
        if job.error is not None:
            self._unflushed |= records.keys()
            self._failed(job.error)
            return
        if moved is not None:
            self.primaries = moved
        if self.read_only is not None:
            log.info("the database takes changes again")
            self.read_only, self.storage_hint = None, ""

    def _failed(self, error: BaseException) -> None:
        """Definite: forget what waits, which nobody has seen, and take no more. Anything else: the end."""
        if not isinstance(error, WriteRefused):
            self._running = False
            self._fatal(error)
            raise error  # with no ticket settled: it is unknown what is true
        if self.read_only is None:
            log.warning("nothing can be changed for now", extra={"reason": error.reason, "hint": error.hint})
        self.read_only, self.storage_hint = error.reason, error.hint
        dropped, self._pending, self._pending_bytes = self._pending, deque(), 0
        self._head = self.durable.copy()
        for ticket in dropped:
            ticket.settle(error)

    # the commit

    def _commit(self, command: AnyCommand, by: Actor, now: float) -> tuple[Ticket | None, Result]:
        """Decide on `_head`; queue the changes. The ticket is None when the answer is on the disk already."""
        if not self._running:
            raise Unavailable("the server is starting or stopping", "try again in a moment")
        if self.read_only is not None:
            raise StorageFailed(self.read_only, self.storage_hint)
        if len(self._pending) >= PENDING_COMMITS or self._pending_bytes >= PENDING_BYTES:
            raise Busy(
                "too many changes are waiting for the disk", "the disk is slow: see `appliance status`"
            )
        decision = self._decide(self._head, command, by, now, self._pepper)
        result: Result = decision.result  # type: ignore[assignment]  # typed as object for msgspec's sake
        if not decision.changes:
            # It was so before; but perhaps only since a commit that is still on its way.
            return (self._pending[-1] if self._pending else None), result
        self._refuse_growth(decision, by)
        commit = Commit(
            seq=self._head.seq + 1,
            at=now,
            by=f"{by.kind}:{by.id}",
            kind=type(command).__name__,
            changes=tuple(decision.changes),
            payload=encode_changes(decision.changes),
        )
        try:
            self._head.apply(commit.changes)
        except BaseException:  # a bug in the rules; it must not cost the commits before it
            self._head = self._rebuilt()
            raise
        self._head.seq = commit.seq
        self.newest_at = max(self.newest_at, now)
        ticket = Ticket(commit)
        self._pending.append(ticket)
        self._pending_bytes += len(commit.payload)
        self._wake.set()
        return ticket, result

    def _refuse_growth(self, decision: Decision, by: Actor) -> None:
        """On a nearly full disk machines write nothing and nobody adds records, so that revoking still works."""
        if isinstance(decision.result, LoggedOut):
            return
        if by.kind != "machine" and not any(_adds(self._head, change) for change in decision.changes):
            return
        shortage = self._store.shortage()
        if shortage is not None:
            raise StorageFailed(shortage, "free some space; revoking and deleting still work")

    def _reread(self, result: Result) -> Result:
        """The same records as they are on the disk now; one that is gone again, as it was."""
        match result:
            case Registered(node=node, user=user):
                return Registered(
                    self.durable.nodes.get(node.id, node), user and self.durable.users.get(user.id, user)
                )
            case Node():
                return self.durable.nodes.get(result.id, result)
            case User():
                return self.durable.users.get(result.id, result)
            case AuthKey():
                return self.durable.auth_keys.get(result.id, result)
        return result

    def _rebuilt(self) -> Facts:
        """The working set again, from what is on the disk and what waits for it."""
        head = self.durable.copy()
        for ticket in self._pending:
            head.apply(ticket.commit.changes)
            head.seq = ticket.commit.seq
        return head


def _adds(facts: Facts, change: AnyChange) -> bool:
    match change:
        case UserPut(user=user):
            return user.id not in facts.users
        case NodePut(node=node):
            return node.id not in facts.nodes
        case AuthKeyPut(auth_key=key):
            return key.id not in facts.auth_keys
    return False
