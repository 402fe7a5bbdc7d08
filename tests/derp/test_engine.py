"""The relay under pressure: rule breakers, readers that do not read, memory."""

import secrets
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from derp import Limits
from derp.frames import FrameType, encode_frame
from tests.derp.client import Client, send_packet
from tests.derp.conftest import Rig

Start = Callable[..., Awaitable[Rig]]

VIOLATIONS = [
    encode_frame(FrameType.SEND_PACKET, bytes(31)),
    b"\x04" + struct.pack(">I", 65_569),
    encode_frame(FrameType.PING, bytes(7)),
    b"\x12" + struct.pack(">I", 1_001),
    encode_frame(FrameType.NOTE_PREFERRED),
    encode_frame(FrameType.NOTE_PREFERRED, b"\1\1"),
    b"\x77" + struct.pack(">I", 65_537),
    b"\x77\xff\xff\xff\xff",
    encode_frame(FrameType.FORWARD_PACKET, bytes(64)),
    encode_frame(FrameType.WATCH_CONNS),
    encode_frame(FrameType.CLOSE_PEER, bytes(32)),
]


@pytest.mark.parametrize("violation", VIOLATIONS, ids=lambda frame: frame[:5].hex())
async def test_frame_limits(rig: Rig, violation: bytes) -> None:
    """R4: the header alone closes the connection; nobody else notices."""
    client, bystander = await rig.client(), await rig.client()
    await client.stream.send_all(violation)
    assert await client.is_closed()
    assert rig.service.counters.closed_protocol == 1
    await bystander.ping()


@pytest.mark.parametrize(
    "first", [b"\x04\0\0\0\x40", b"\x02\0\0\x10\x01", b"\x02\0\0\0\x37", b"\x02\xff\xff\xff\xff", b"GET / "]
)
async def test_first_frame_that_is_no_client_info_is_closed(rig: Rig, first: bytes) -> None:
    """R4, before the login."""
    client = Client(await rig.connect())
    await client.stream.send_all(first)
    assert await client.is_closed()
    assert rig.service.counters.login_protocol == 1


async def test_garbage_instead_of_tls_records_closes_only_its_sender(start: Start) -> None:
    rig = await start(Limits(), tls=True)
    client, bystander = await rig.client(), await rig.client()
    assert isinstance(client.stream, trio.SSLStream)
    await client.stream.transport_stream.send_all(b"\x17\x03\x03\x00\x20" + secrets.token_bytes(32))
    await wait_all_tasks_blocked()
    assert rig.service.counters.closed_client == 1
    await bystander.ping()


async def test_half_a_tls_record_waits_outside_openssl(start: Start) -> None:
    """While one connection waits for the rest of its record, others use the shared BIOs."""
    rig = await start(Limits(), tls=True)
    a, b, c = await rig.client(), await rig.client(), await rig.client()
    assert isinstance(a.stream, trio.SSLStream)
    raw = a.stream.transport_stream
    a.stream._ssl_object.write(send_packet(b.key, b"in pieces" * 100))
    record = a.stream._outgoing.read()
    for piece in (record[:3], record[3:7], record[7:500], record[500:]):
        await raw.send_all(piece)
        await c.ping()
    assert await b.packet() == (a.key, b"in pieces" * 100)
    await a.send(b.key, b"next")
    assert await b.packet() == (a.key, b"next")


@pytest.mark.parametrize("cut", [1, 4, 6, 700])
async def test_odd_record_cut_off_behind_repeated_ones_is_not_lost(start: Start, cut: int) -> None:
    """The fast path reads on where it expects one more record of the size it knows; then OpenSSL holds a part."""
    rig = await start(Limits(), tls=True)
    a, b = await rig.client(), await rig.client()
    assert isinstance(a.stream, trio.SSLStream)
    small, large = send_packet(b.key, b"s" * 100), send_packet(b.key, b"L" * 1400)
    for _ in range(2):
        await a.stream.send_all(small)
        assert await b.packet() == (a.key, b"s" * 100)
    for frame in (small, small, large, small):
        a.stream._ssl_object.write(frame)
    records = a.stream._outgoing.read()
    split = len(records) - (len(small) + 22) - (len(large) + 22) + cut
    raw = a.stream.transport_stream
    await raw.send_all(records[:split])
    for _ in range(2):
        assert await b.packet() == (a.key, b"s" * 100)
    await raw.send_all(records[split:])
    with trio.fail_after(2):
        assert await b.packet() == (a.key, b"L" * 1400)
        assert await b.packet() == (a.key, b"s" * 100)


@pytest.mark.parametrize("cut", [1, 6, 100])
async def test_record_cut_off_by_the_login_is_not_lost(start: Start, cut: int) -> None:
    """At the hand-over OpenSSL may hold the beginning of a record already."""
    rig = await start(Limits(), tls=True)
    b = await rig.client()
    a = Client(await rig.connect())
    assert isinstance(a.stream, trio.SSLStream)
    a.stream._ssl_object.write(a.client_info(await a.read_server_key()))
    login = a.stream._outgoing.read()
    a.stream._ssl_object.write(send_packet(b.key, b"x" * 1000))
    packet = a.stream._outgoing.read()
    raw = a.stream.transport_stream
    await raw.send_all(login + packet[:cut])
    await a.read_server_info(rig.service.public_key)
    await raw.send_all(packet[cut:])
    with trio.fail_after(2):
        assert await b.packet() == (a.key, b"x" * 1000)


async def flood(sender: Client, to: bytes, count: int, size: int = 60_000) -> None:
    for _ in range(count):
        await sender.send(to, bytes(size))


async def test_reader_that_stops_is_cut_after_two_seconds(rig: Rig, autojump_clock: MockClock) -> None:
    """The sender keeps its pace: nothing waits for the slow one."""
    sender, slow, good = await rig.client(), await rig.client(small_buffers=True), await rig.client()
    await flood(sender, slow.key, 200)
    await sender.ping()
    counters = rig.service.counters
    assert counters.dropped_queue_head > 0
    assert counters.connections == 3
    await trio.sleep(1.4)
    assert counters.closed_slow == 0
    await trio.sleep(1.3)
    assert counters.closed_slow == 1
    assert rig.service._engine.backlogs.used == 0
    await sender.send(good.key, b"still here")
    assert await good.packet() == (sender.key, b"still here")


async def test_reader_that_is_slow_but_reads_is_kept_and_gets_the_newest(
    rig: Rig, mock_clock: MockClock
) -> None:
    sender, slow = await rig.client(), await rig.client(small_buffers=True)
    for i in range(200):
        await sender.send(slow.key, struct.pack(">I", i) * 10_000)
    await sender.ping()
    numbers: list[int] = []
    while not numbers or numbers[-1] != 199:
        mock_clock.jump(0.5)
        _, packet = await slow.packet()
        numbers.append(struct.unpack(">I", packet[:4])[0])
        assert packet == struct.pack(">I", numbers[-1]) * 10_000
    assert numbers == sorted(numbers)
    counters = rig.service.counters
    assert counters.closed_slow == 0
    assert len(numbers) + counters.dropped_queue_head == 200
    assert rig.service._engine.backlogs.used == 0
    await slow.ping()


async def test_derpprobe_keeps_thirty_large_packets_in_flight(rig: Rig) -> None:
    """None is lost or reordered while nobody reads for a moment. tailscale: prober/derp.go"""
    sender, receiver = await rig.client(), await rig.client(small_buffers=True)
    for i in range(30):
        await sender.send(receiver.key, bytes([i]) * 65_536)
    await sender.ping()
    for i in range(30):
        assert await receiver.packet() == (sender.key, bytes([i]) * 65_536)


@pytest.mark.slow
async def test_500_stalled_readers_stay_under_cap(start: Start, mock_clock: MockClock) -> None:
    """R2: 500 readers stop, each is promised 32 large packets; the process keeps to its 8 MiB.

    An eighth of the real limit, so that the test is quick; the arithmetic is the same.
    """
    cap = 8 << 20
    rig = await start(Limits(process_bytes=cap))
    sender, bystander = await rig.client(), await rig.client()
    stalled = [await rig.client(small_buffers=True) for _ in range(500)]
    budget = rig.service._engine.backlogs
    highest = 0
    for round_ in range(6):
        for reader in stalled:
            await sender.send(reader.key, bytes(60_000))
            highest = max(highest, budget.used)
        if round_ == 3:
            for reader in stalled:
                for _ in range(20):
                    await sender.send(reader.key, bytes(1_400))
    await sender.ping()
    assert cap // 2 < highest <= cap
    counters = rig.service.counters
    assert counters.dropped_queue_process > 0
    held = sum(s.backlog.size for s in rig.service._engine.sessions.values() if s.backlog)
    assert held == budget.used <= cap
    await sender.send(bystander.key, b"unharmed")
    assert await bystander.packet() == (sender.key, b"unharmed")
    rig.service.evict(sender.key)
    for reader in stalled:
        rig.service.evict(reader.key)
    assert budget.used == 0


async def test_full_process_closes_who_holds_most_when_nothing_can_be_dropped(start: Start) -> None:
    """R2: ciphertext that the kernel refused cannot be dropped, only its connection can."""
    rig = await start(Limits(process_bytes=50_000))
    sender = await rig.client()
    stalled = [await rig.client(small_buffers=True) for _ in range(5)]
    for _ in range(5):
        for reader in stalled:
            await sender.send(reader.key, bytes(60_000))
    await sender.ping()
    counters = rig.service.counters
    assert counters.closed_memory > 0
    assert rig.service._engine.backlogs.used <= 50_000


async def test_heavy_pair_does_not_starve_another(rig: Rig) -> None:
    """R7: while one pair takes all it can get, every packet of another passes within a few turns."""
    heavy, sink, light, peer = [await rig.client() for _ in range(4)]
    moved = 0

    async def drain() -> None:
        while True:
            await sink.packet()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain)
        nursery.start_soon(flood, heavy, sink.key, 10**9)
        counters = rig.service.counters
        for i in range(50):
            before = counters.bytes_received
            await light.send(peer.key, b"%d" % i)
            assert await peer.packet() == (light.key, b"%d" % i)
            moved += counters.bytes_received - before
        nursery.cancel_scope.cancel()
    assert 0 < moved < 50 * (1 << 20)


async def test_small_rounds_under_load_are_followed_by_a_pause_and_single_packets_are_not(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("derp.engine.time.sleep", pauses.append)
    monkeypatch.setattr("derp.engine.QUIET_CHECKPOINT_S", 10.0)  # whatever this machine is busy with
    a, b = await rig.client(), await rig.client()
    for _ in range(50):
        await a.send(b.key, b"one at a time")
        await b.packet()
    assert pauses == []
    for _ in range(50):
        await a.stream.send_all(send_packet(b.key, b"sixteen at a time") * 16)
        for _ in range(16):
            await b.packet()
    assert set(pauses) == {rig.service.limits.pause_s}


async def test_farewell_inside_tls_comes_after_the_last_packets(start: Start) -> None:
    rig = await start(Limits(), tls=True)
    a, b = await rig.client(), await rig.client()
    assert isinstance(a.stream, trio.SSLStream)
    a.stream._ssl_object.write(send_packet(b.key, b"last words"))
    with pytest.raises(ssl.SSLWantReadError):
        a.stream._ssl_object.unwrap()
    await a.stream.transport_stream.send_all(a.stream._outgoing.read())
    assert await b.packet() == (a.key, b"last words")
    assert await b.frame() == (FrameType.PEER_GONE, a.key + b"\0")
    assert rig.service.counters.closed_client == 1


async def test_connection_reset_in_the_middle_is_survived(rig: Rig) -> None:
    sender, victim = await rig.client(), await rig.client()
    raw = victim.stream.transport_stream if isinstance(victim.stream, trio.SSLStream) else victim.stream
    assert isinstance(raw, trio.SocketStream)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await sender.send(victim.key, bytes(1000))
    raw.socket.close()  # an RST
    await flood(sender, victim.key, 5)
    await sender.stream.send_all(encode_frame(FrameType.PING, b"12345678"))
    kinds = [(await sender.frame())[0]]
    assert kinds == [FrameType.PONG]
    assert rig.service.counters.connections == 1


async def test_bug_in_a_session_closes_it_and_nobody_else(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """F9, for the relay: a traceback once, one connection less."""
    client, bystander = await rig.client(), await rig.client()
    monkeypatch.setattr("derp.session.encode_pong", lambda data: 1 / 0)
    await client.stream.send_all(encode_frame(FrameType.PING, b"12345678"))
    assert await client.is_closed()
    monkeypatch.undo()
    assert rig.service.counters.closed_bug == 1
    assert "ZeroDivisionError" in caplog.text
    await bystander.ping()


async def test_end_of_the_service_closes_every_connection(start: Start) -> None:
    rig = await start(Limits())
    client = await rig.client()
    async with trio.open_nursery() as nursery:
        service = rig.make_service()
        await nursery.start(service.run)
        other = await rig.client()
        nursery.cancel_scope.cancel()
    assert await other.is_closed()
    assert service.counters.connections == 0
    await client.ping()
