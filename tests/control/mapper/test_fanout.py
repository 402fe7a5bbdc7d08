"""Streams under a virtual clock: who is woken when, keep-alives, and which stream of a node stays."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from control.errors import NotFound
from control.mapper.fanout import KEEP_ALIVE_JITTER_S, KEEP_ALIVE_S, STALLED_S, WINDOW_MAX_S, Fanout, Stream
from tests.control.mapper.client import Client
from tests.control.mapper.tailnet import Tailnet


class Reader:
    """A map handler with a client at its other end."""

    def __init__(self, fanout: Fanout, stream: Stream, *, compressed: bool = True) -> None:
        self.fanout, self.stream = fanout, stream
        self.client = Client(modern=True, compressed=compressed)
        self.times: list[float] = []
        self.open = True
        self.sending: Callable[[], Awaitable[object]] = trio.lowlevel.checkpoint

    async def run(self, room: Callable[[], Awaitable[object]] | None = None) -> None:
        try:
            while (data := await self.stream.next(room)) is not None:
                self.times.append(trio.current_time())
                self.client.receive(data)
                await self.sending()
        finally:
            self.fanout.close(self.stream)
            self.open = False


class Office:
    """A tailnet, its fan-out, and readers in one nursery."""

    def __init__(self, nursery: trio.Nursery, nodes: int) -> None:
        self.nursery = nursery
        self.tailnet = Tailnet(nodes=nodes)
        self.fanout = Fanout(
            self.tailnet.world,
            clock=lambda: self.tailnet.now + trio.current_time(),
            randbelow=lambda n: n - 1,
        )

    async def connect(self, ident: int, *, compressed: bool = True) -> Reader:
        stream = self.fanout.open(ident, zstd=compressed)
        reader = Reader(self.fanout, stream, compressed=compressed)
        self.nursery.start_soon(reader.run)
        await wait_all_tasks_blocked()
        return reader


@pytest.fixture
async def office(nursery: trio.Nursery) -> Office:
    office = Office(nursery, nodes=3)
    await nursery.start(office.fanout.run)
    return office


async def test_change_reaches_all_streams_at_once_when_quiet(
    autojump_clock: MockClock, office: Office
) -> None:
    readers = [await office.connect(ident, compressed=ident == 1) for ident in (1, 2, 3)]
    began = trio.current_time()
    office.tailnet.online(3, True)
    await wait_all_tasks_blocked()
    assert [reader.client.messages for reader in readers] == [2, 2, 1]
    assert readers[0].times[-1] == began
    assert readers[0].client.peers[3]["Online"]


async def test_slow_client_delays_nobody_and_gets_one_larger_step(
    autojump_clock: MockClock, office: Office
) -> None:
    slow, fast = await office.connect(1), await office.connect(2)
    gate = trio.Event()
    slow.sending = gate.wait
    for change in range(5):
        office.tailnet.online(3, change % 2 == 0)
        office.tailnet.touch(3, "cap", capver=130 + change)
        await trio.sleep(0.01)
    assert fast.client.messages == 6
    assert slow.client.messages == 2
    slow.sending = trio.lowlevel.checkpoint
    gate.set()
    await wait_all_tasks_blocked()
    assert slow.client.messages == 3
    assert slow.client.state()["peers"][3] == fast.client.state()["peers"][3]


async def test_busy_loop_makes_fewer_rounds(
    nursery: trio.Nursery, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round that costs 100 ms is followed by a pause of 200 ms, one of a second by no more than the maximum."""
    office = Office(nursery, nodes=3)
    await nursery.start(office.fanout.run)
    reader = await office.connect(1)
    cost = 0.1
    receive = reader.client.receive

    def slow(data: bytes) -> None:
        receive(data)
        mock_clock.jump(cost)

    monkeypatch.setattr(reader.client, "receive", slow)
    for cost, pause in ((0.1, 0.2), (1.0, WINDOW_MAX_S)):
        office.tailnet.touch(2, "cap", capver=int(131 + cost))
        await wait_all_tasks_blocked()
        told = reader.client.messages
        office.tailnet.touch(2, "cap", capver=int(231 + cost))
        await wait_all_tasks_blocked()
        mock_clock.jump(pause - 0.01)
        await wait_all_tasks_blocked()
        assert reader.client.messages == told
        mock_clock.jump(0.02)
        await wait_all_tasks_blocked()
        assert reader.client.messages == told + 1
        mock_clock.jump(1)
        await wait_all_tasks_blocked()


@pytest.mark.parametrize("compressed", [False, True])
async def test_quiet_session_gets_keep_alives_only(
    autojump_clock: MockClock, office: Office, compressed: bool
) -> None:
    reader = await office.connect(1, compressed=compressed)
    await trio.sleep(3600)
    assert reader.client.messages == 1
    gaps = [after - before for before, after in zip(reader.times, reader.times[1:], strict=False)]
    assert all(KEEP_ALIVE_S <= gap <= KEEP_ALIVE_S + KEEP_ALIVE_JITTER_S for gap in gaps)
    assert len(gaps) == reader.client.keep_alives >= 3600 // 59


async def test_message_postpones_the_keep_alive(autojump_clock: MockClock, office: Office) -> None:
    reader = await office.connect(1)
    await trio.sleep(40)
    office.tailnet.online(3, True)
    await trio.sleep(45)
    assert reader.client.keep_alives == 0
    await trio.sleep(15)
    assert reader.client.keep_alives == 1


async def test_keep_alive_is_encoded_once_a_second(autojump_clock: MockClock, office: Office) -> None:
    first, second = (office.fanout.keep_alive_message(True) for _ in range(2))
    assert first is second
    await trio.sleep(1.5)
    assert office.fanout.keep_alive_message(True) != first


async def test_older_stream_ends_after_the_first_message_of_the_newer(
    autojump_clock: MockClock, office: Office
) -> None:
    older = await office.connect(1)
    stream = office.fanout.open(1, zstd=True)
    newer = Reader(office.fanout, stream)
    gate = trio.Event()
    newer.sending = gate.wait
    office.nursery.start_soon(newer.run)
    await wait_all_tasks_blocked()
    assert newer.client.messages == 1
    assert older.open
    assert office.fanout.streams(1) == 2
    newer.sending = trio.lowlevel.checkpoint
    gate.set()
    await wait_all_tasks_blocked()
    assert newer.open
    assert not older.open
    assert office.fanout.streams(1) == 1


async def test_newer_stream_that_fails_leaves_the_older(autojump_clock: MockClock, office: Office) -> None:
    older = await office.connect(1)
    stream = office.fanout.open(1, zstd=True)
    assert await stream.next() is not None
    office.fanout.close(stream)
    await trio.sleep(5)
    assert older.open


async def test_deleted_node_gets_its_last_message_and_the_stream_ends(
    autojump_clock: MockClock, office: Office
) -> None:
    """K9"""
    reader = await office.connect(2)
    office.tailnet.remove(2)
    await wait_all_tasks_blocked()
    assert reader.client.node["Expired"]
    assert not reader.open
    assert office.fanout.streams(2) == 0


async def test_stream_of_a_deleted_node_is_held_open(autojump_clock: MockClock, office: Office) -> None:
    node_key = office.tailnet.facts.nodes[2].node_key
    office.tailnet.remove(2)
    stone = office.tailnet.facts.tombstones[node_key]
    reader = Reader(office.fanout, office.fanout.open_deleted(stone, zstd=True))
    office.nursery.start_soon(reader.run)
    await trio.sleep(600)
    assert reader.open
    assert reader.client.messages == 1
    assert reader.client.keep_alives >= 10


def test_unknown_node_is_refused() -> None:
    fanout = Fanout(Tailnet().world, clock=lambda: 0.0)
    with pytest.raises(NotFound):
        fanout.open(99, zstd=True)
    with pytest.raises(NotFound):
        fanout.full_map(99, zstd=True)


def test_one_shot_map_leaves_nothing_behind() -> None:
    tailnet = Tailnet(nodes=3)
    fanout = Fanout(tailnet.world, clock=lambda: tailnet.now)
    client = Client(modern=True, compressed=False)
    client.receive(fanout.full_map(1, zstd=False))
    assert len(client.peers) == 2
    assert fanout.streams(1) == 0
    assert tailnet.world._audience.everybody() == []


async def test_message_is_built_when_there_is_room(autojump_clock: MockClock, office: Office) -> None:
    """What happens while the connection is full goes into the same message."""
    stream = office.fanout.open(1, zstd=True)
    reader = Reader(office.fanout, stream)
    room = trio.Event()
    room.set()
    waits: list[trio.Event] = [room]

    async def has_room() -> None:
        await waits[-1].wait()

    office.nursery.start_soon(reader.run, has_room)
    await wait_all_tasks_blocked()
    waits.append(trio.Event())
    office.tailnet.online(2, True)
    await trio.sleep(1)
    office.tailnet.online(3, True)
    await trio.sleep(1)
    assert reader.client.messages == 1
    waits[-1].set()
    await wait_all_tasks_blocked()
    assert reader.client.messages == 2
    assert reader.client.peers[2]["Online"]
    assert reader.client.peers[3]["Online"]


async def test_tightening_reaches_or_ends_every_session(autojump_clock: MockClock, office: Office) -> None:
    """M2: a stream whose client takes nothing ends within 60 s of a change."""
    stuck, well = office.fanout.open(1, zstd=True), await office.connect(2)
    assert await stuck.next() is not None
    reader = Reader(office.fanout, stuck)
    office.nursery.start_soon(reader.run, trio.sleep_forever)
    await wait_all_tasks_blocked()
    office.tailnet.remove(3)
    await trio.sleep(STALLED_S - 1)
    assert reader.open
    assert 3 not in well.client.peers
    await trio.sleep(2)
    assert not reader.open


async def test_shutdown_ends_all_streams(autojump_clock: MockClock, office: Office) -> None:
    readers = [await office.connect(ident) for ident in (1, 2)]
    node_key = office.tailnet.facts.nodes[3].node_key
    office.tailnet.remove(3)
    stone = office.tailnet.facts.tombstones[node_key]
    readers.append(Reader(office.fanout, office.fanout.open_deleted(stone, zstd=True)))
    office.nursery.start_soon(readers[-1].run)
    await wait_all_tasks_blocked()
    office.fanout.end_all()
    await wait_all_tasks_blocked()
    assert not any(reader.open for reader in readers)
    assert office.fanout._streams == {}


async def test_peer_that_is_added_again_needs_no_further_change(
    autojump_clock: MockClock, office: Office
) -> None:
    office.tailnet.touch(3, "derp", home_derp=900)
    reader = await office.connect(1)
    office.tailnet.touch(3, "derp", home_derp=0)
    await trio.sleep(1)
    assert reader.client.messages == 3
    assert "HomeDERP" not in reader.client.peers[3]


async def test_cancelled_reader_leaves_no_trace(autojump_clock: MockClock, office: Office) -> None:
    async with trio.open_nursery() as nursery:
        reader = Reader(office.fanout, office.fanout.open(1, zstd=True))
        nursery.start_soon(reader.run)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert office.fanout.streams(1) == 0
    assert not any(office.fanout._wheel)
