"""The work of handshakes, in fair turns.

A handshake is a few hundred microseconds of computing that anybody can ask for. Whoever wants some joins the queue of his
source; each turn takes at most `HANDSHAKES_A_TURN` pieces, one from each source in rotation, and then lets all other tasks
run for as long as the turn took, if they want to. A thousand connections from one place so delay one from elsewhere by a
piece or two, and nobody's handshakes take more than half of the time that others need.

Waiting for a client's bytes takes no turn: only work does.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import outcome
import trio

from appliance.door.limits import HANDSHAKES_A_TURN

T = TypeVar("T")

NOBODY_WAITS = 100e-6  # seconds: a pass of the scheduler this short ran no other task


class _Piece:
    """One piece of work and who waits for it."""

    __slots__ = ("done", "result", "work")

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work
        self.done = trio.Event()
        self.result: outcome.Maybe[Any] | None = None


class FairTurns:
    """A queue per source, served in rotation by one task."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[_Piece]] = {}
        self._wanted = trio.Event()

    async def do(self, source: str, work: Callable[[], T]) -> T:
        """Run `work` when it is the turn of `source`; returns or raises what it does."""
        piece = _Piece(work)
        self._queues.setdefault(source, deque()).append(piece)
        self._wanted.set()
        try:
            await piece.done.wait()
        except trio.Cancelled:
            self._forget(source, piece)
            raise
        assert piece.result is not None
        result: T = piece.result.unwrap()
        return result

    def _forget(self, source: str, piece: _Piece) -> None:
        queue = self._queues.get(source)
        if queue is not None and piece in queue:
            queue.remove(piece)
            if not queue:
                del self._queues[source]

    def turn(self, pieces: int = HANDSHAKES_A_TURN) -> None:
        """Do up to `pieces` pieces, one from each source in rotation."""
        for _ in range(pieces):
            if not self._queues:
                return
            source = next(iter(self._queues))
            queue = self._queues.pop(source)
            piece = queue.popleft()
            if queue:
                self._queues[source] = queue  # at the end of the rotation
            piece.result = outcome.capture(piece.work)
            piece.done.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Give turns for ever."""
        task_status.started()
        while True:
            while not self._queues:
                self._wanted = trio.Event()
                await self._wanted.wait()
            began = time.perf_counter()
            self.turn()
            await _let_others_run(time.perf_counter() - began)


async def _let_others_run(seconds: float) -> None:
    while seconds > 0:
        began = time.perf_counter()
        await trio.lowlevel.checkpoint()
        passed = time.perf_counter() - began
        if passed < NOBODY_WAITS:
            return
        seconds -= passed
