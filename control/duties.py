"""What nobody asks for and has to be done: loops that only commit, touch and sweep.

- a node that has said nothing for its grace is offline;
- a new node is announced to the others when it logs in to our relay, which is before its user is told that it runs; one that
  goes elsewhere is announced with its first report of a home relay (machine/map.py), or after 10 s;
- logins expire by the clock, unless the clock has gone wrong (state.md A.13);
- ephemeral nodes are removed some minutes after their last stream;
- keys and tombstones are forgotten after a month.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable, Collection, Sequence

import trio

from control.admission import Admission
from control.errors import Refused, TryLater
from control.login.pending import PendingLogins
from control.machine.presence import Presence
from control.mapper.world import World
from control.state.changes import AnyChange, NodePut
from control.state.commands import SYSTEM, AnnounceNode, AnyCommand, RemoveStale
from control.state.facts import Facts
from control.state.state import State
from control.state.volatile import Group

log = logging.getLogger("control.duties")

TICK_S = 1.0
ANNOUNCE_AFTER_S = 10.0  # a node whose home relay is still unknown is shown to others all the same
EPHEMERAL_GRACE_S = 5 * 60.0  # long enough for a reboot or a train tunnel, short enough for a tidy list
STALE_EVERY_S = 3600.0
RETRY_S = 60.0  # a duty that the disk refused
CLOCK_JUMP_S = 300.0


class Duties:
    """`wall` and `monotonic` are the clocks; `ephemeral_grace_s` may be shortened by tests."""

    def __init__(
        self,
        state: State,
        world: World,
        presence: Presence,
        pending: PendingLogins,
        admission: Admission,
        *,
        wall: Callable[[], float],
        monotonic: Callable[[], float],
        ephemeral_grace_s: float = EPHEMERAL_GRACE_S,
    ) -> None:
        self.state, self.world, self.presence = state, world, presence
        self.pending, self.admission = pending, admission
        self.wall, self.monotonic, self.ephemeral_grace_s = wall, monotonic, ephemeral_grace_s
        self._announcements: list[tuple[float, int]] = []  # heaps of (monotonic time, node id)
        self._ephemerals: list[tuple[float, int]] = []
        self._clock = ClockGuard()
        self._announcing: trio.Nursery
        now = monotonic()
        for node in state.durable.nodes.values():
            if node.ephemeral:
                heapq.heappush(self._ephemerals, (now + ephemeral_grace_s, node.id))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as self._announcing:
            task_status.started()
            await self._run()

    async def _run(self) -> None:
        next_stale = self.monotonic() + STALE_EVERY_S
        while True:
            await trio.sleep(TICK_S)
            now = self.monotonic()
            self.presence.tick(now)
            self.pending.sweep(self.wall())
            self._tick(now)
            await self._announce(now)
            await self._remove_ephemerals(now)
            if now >= next_stale:
                next_stale = now + STALE_EVERY_S
                await self._submit(RemoveStale())

    def joined_relay(self, node_id: int, region: int) -> None:
        """The node has logged in to our relay of this region; its own report will follow, and may be late for others."""
        volatile = self.state.volatile.get(node_id)
        node = self.state.durable.nodes.get(node_id)
        if node is None or volatile is None or node.announced or not self.presence.has_stream(node_id):
            return
        if not volatile.home_derp:
            self.state.touch(node_id, home_derp=region)
        # A task each: a thousand that come at once share a few transactions.
        self._announcing.start_soon(self._submit, AnnounceNode(node_id=node_id))

    def announce_later(self, node_id: int) -> None:
        """The node's first stream has begun."""
        heapq.heappush(self._announcements, (self.monotonic() + ANNOUNCE_AFTER_S, node_id))

    def went_offline(self, node_id: int) -> None:
        """The node has no stream any more."""
        node = self.state.durable.nodes.get(node_id)
        if node is not None and node.ephemeral:
            heapq.heappush(self._ephemerals, (self.monotonic() + self.ephemeral_grace_s, node_id))

    def on_commit(self, changes: Sequence[AnyChange], facts: Facts, now: float) -> None:
        """An ephemeral node that never opens a stream is removed too."""
        for change in changes:
            if (
                isinstance(change, NodePut)
                and change.node.ephemeral
                and not self.presence.has_stream(change.node.id)
            ):
                heapq.heappush(self._ephemerals, (self.monotonic() + self.ephemeral_grace_s, change.node.id))

    def on_touch(self, node_id: int, groups: Collection[Group], now: float) -> None:
        """Nothing to do: `went_offline` tells."""

    def _tick(self, now: float) -> None:
        wall = self.wall()
        trusted = self._clock.trusted(wall, now, self.state.newest_at)
        self.world.tick(wall, expire=trusted)
        if trusted:
            self.admission.tick(wall)

    async def _announce(self, now: float) -> None:
        for node_id in _due(self._announcements, now):
            node = self.state.durable.nodes.get(node_id)
            if node is None or node.announced or not self.presence.has_stream(node_id):
                continue
            if not await self._submit(AnnounceNode(node_id=node_id)):
                heapq.heappush(self._announcements, (now + RETRY_S, node_id))

    async def _remove_ephemerals(self, now: float) -> None:
        gone = []
        for node_id in _due(self._ephemerals, now):
            volatile = self.state.volatile.get(node_id)
            if volatile is None or volatile.online or self.presence.has_stream(node_id):
                continue
            idle = self.wall() - volatile.last_seen
            if volatile.last_seen and 0 <= idle < self.ephemeral_grace_s - TICK_S:  # it was back meanwhile
                heapq.heappush(self._ephemerals, (now + self.ephemeral_grace_s - idle, node_id))
            else:
                gone.append(node_id)
        if gone:
            if await self._submit(RemoveStale(node_ids=tuple(gone))):
                log.info("ephemeral nodes removed", extra={"nodes": gone})
                return
            for node_id in gone:
                heapq.heappush(self._ephemerals, (now + RETRY_S, node_id))

    async def _submit(self, command: AnyCommand) -> bool:
        """Whether it was done."""
        try:
            await self.state.submit(command, SYSTEM)
        except (Refused, TryLater) as exc:
            fields = {"command": type(command).__name__, "reason": exc, "hint": exc.hint}
            log.warning("a duty could not be done", extra=fields)
            return False
        return True


class ClockGuard:
    """Whether the wall clock may decide that somebody's login is over."""

    def __init__(self) -> None:
        self._last: tuple[float, float] | None = None
        self._distrusted_until = 0.0

    def trusted(self, wall: float, monotonic: float, newest_stored: float) -> bool:
        """Not while it is behind what was stored, nor for five minutes after it jumped by more than that."""
        if self._last is not None:
            jump = (wall - self._last[0]) - (monotonic - self._last[1])
            if abs(jump) > CLOCK_JUMP_S:
                hint = "check the time service; logins do not expire for the next five minutes"
                log.warning("the clock jumped", extra={"seconds": round(jump), "hint": hint})
                self._distrusted_until = monotonic + CLOCK_JUMP_S
        self._last = (wall, monotonic)
        return monotonic >= self._distrusted_until and wall >= newest_stored


def _due(heap: list[tuple[float, int]], now: float) -> list[int]:
    """Take what is due off the heap, each id once."""
    due: dict[int, None] = {}
    while heap and heap[0][0] <= now:
        due[heapq.heappop(heap)[1]] = None
    return list(due)
