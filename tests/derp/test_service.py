"""The relay as its clients see it, over plain TCP and over TLS with shared memory BIOs."""

import secrets
import struct

import trio
from trio.testing import MockClock

from derp import Limits
from derp.frames import FrameType, GoneReason, encode_frame
from tests.derp.client import Client, disco, send_packet
from tests.derp.conftest import REMOTE, Rig


async def test_login_greets_with_server_key_then_server_info(rig: Rig) -> None:
    client = Client(await rig.connect())
    server_key = await client.read_server_key()
    assert server_key == rig.service.public_key
    await client.stream.send_all(client.client_info(server_key))
    await client.read_server_info(server_key)
    assert client.server_info == {"version": 2}
    assert rig.asked == [(client.key, REMOTE)]
    assert rig.service.counters.connections == 1


async def test_two_clients_exchange_packets(rig: Rig) -> None:
    a, b = await rig.client(), await rig.client()
    await a.send(b.key, b"from a")
    assert await b.packet() == (a.key, b"from a")
    await b.send(a.key, b"from b")
    assert await a.packet() == (b.key, b"from b")
    await a.send(a.key, b"to myself")
    assert await a.packet() == (a.key, b"to myself")


async def test_many_packets_arrive_whole_and_in_order(rig: Rig) -> None:
    """Sizes repeat, so that the fast path is taken and left again and again."""
    a, b, c = await rig.client(), await rig.client(), await rig.client()
    sizes = [1400] * 40 + [100] * 40 + [0, 1, 9000, 1400, 65536, 1400, 1400, 100] * 2
    packets = [struct.pack(">I", i) + bytes([i % 256]) * size for i, size in enumerate(sizes * 5)]
    packets = [packet[:65536] for packet in packets]
    to_c = [i for i in range(len(packets)) if i % 7 == 3]

    async def send() -> None:
        for i, packet in enumerate(packets):
            await a.send(c.key if i in set(to_c) else b.key, packet)

    async def check(who: Client, expected: list[bytes]) -> None:
        for packet in expected:
            assert await who.packet() == (a.key, packet)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        nursery.start_soon(check, b, [p for i, p in enumerate(packets) if i not in set(to_c)])
        nursery.start_soon(check, c, [packets[i] for i in to_c])
    assert rig.service.counters.packets_sent == len(packets)


async def test_frames_in_one_write_and_byte_by_byte(rig: Rig) -> None:
    a, b = await rig.client(), await rig.client()
    frames = [send_packet(b.key, b"x" * n) for n in (1, 1, 40, 40, 300)]
    await a.stream.send_all(b"".join(frames))
    for n in (1, 1, 40, 40, 300):
        assert await b.packet() == (a.key, b"x" * n)
    for byte in frames[2]:
        await a.stream.send_all(bytes((byte,)))
    assert await b.packet() == (a.key, b"x" * 40)


async def test_many_senders_to_one_destination_are_joined_in_order(rig: Rig) -> None:
    target = await rig.client()
    senders = [await rig.client() for _ in range(8)]

    async def send(sender: Client) -> None:
        for i in range(100):
            await sender.send(target.key, bytes([i]) * (200 if i % 5 else 20_000))

    seen: dict[bytes, int] = {sender.key: 0 for sender in senders}
    async with trio.open_nursery() as nursery:
        for sender in senders:
            nursery.start_soon(send, sender)
        for _ in range(800):
            source, packet = await target.packet()
            i = seen[source]
            assert packet == bytes([i]) * (200 if i % 5 else 20_000)
            seen[source] += 1


async def test_frames_sent_with_client_info_are_not_lost(rig: Rig) -> None:
    b = await rig.client()
    a = Client(await rig.connect())
    await a.login(and_then=encode_frame(FrameType.NOTE_PREFERRED, b"\1") + send_packet(b.key, b"early"))
    assert await b.packet() == (a.key, b"early")
    assert rig.service.counters.home_connections == 1


async def test_fast_start_needs_no_preface_and_upgrade_sends_it_first(rig: Rig) -> None:
    head = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
    stream = await rig.connect(preface=head)
    data = b""
    while len(data) < len(head) + 45:
        data += await stream.receive_some(1000)
    assert data.startswith(head + b"\x01\x00\x00\x00\x28DERP")
    # Fast start: the client knows the key and does not wait for it.
    client = Client(await rig.connect())
    await client.stream.send_all(client.client_info(rig.service.public_key))
    await client.read_server_key()
    await client.read_server_info(rig.service.public_key)


async def test_stranger_and_expired_not_admitted(rig: Rig) -> None:
    """R1: a stranger's login is closed without a word; an admitted key that is evicted is cut at once."""
    stranger = Client(await rig.connect())
    rig.refused.add(stranger.key)
    server_key = await stranger.read_server_key()
    await stranger.stream.send_all(stranger.client_info(server_key))
    assert await stranger.is_closed()
    assert rig.service.counters.login_not_admitted == 1

    node, other = await rig.client(), await rig.client()
    second = await rig.client(node.private_key)
    await node.send(other.key, b"hello")
    await other.packet()
    rig.refused.add(node.key)
    rig.service.evict(node.key)
    assert await node.is_closed()
    assert await second.is_closed()
    assert await other.frame() == (FrameType.PEER_GONE, node.key + bytes([GoneReason.DISCONNECTED]))
    assert rig.service.counters.closed_evicted == 2
    again = Client(await rig.connect(), node.private_key)
    await again.stream.send_all(again.client_info(await again.read_server_key()))
    assert await again.is_closed()


async def test_replayed_clientinfo_closed(rig: Rig) -> None:
    """R3: a recorded ClientInfo opens no second connection."""
    client = Client(await rig.connect())
    server_key = await client.read_server_key()
    recorded = client.client_info(server_key)
    await client.stream.send_all(recorded)
    await client.read_server_info(server_key)

    thief = Client(await rig.connect())
    await thief.read_server_key()
    await thief.stream.send_all(recorded)
    assert await thief.is_closed()
    assert rig.service.counters.login_replayed == 1
    await client.ping()  # undisturbed


async def test_silent_login_is_closed_after_ten_seconds(rig: Rig, autojump_clock: MockClock) -> None:
    client = Client(await rig.connect())
    await client.read_server_key()
    started = trio.current_time()
    assert await client.is_closed()
    assert 9 <= trio.current_time() - started <= 11
    assert rig.service.counters.login_protocol == 1


async def test_ping_is_answered_with_its_first_eight_bytes(rig: Rig) -> None:
    client = await rig.client()
    await client.ping(b"abcdefgh")
    await client.ping(b"abcdefgh" + b"x" * 992)
    assert rig.service.counters.pongs == 2


async def test_unknown_frames_are_skipped(rig: Rig) -> None:
    client = await rig.client()
    for kind in (FrameType.PONG, FrameType.KEEP_ALIVE, FrameType.CLIENT_INFO):
        await client.stream.send_all(encode_frame(kind, b"x" * 60))
    await client.stream.send_all(b"\x77" + struct.pack(">I", 65536) + bytes(65536))
    await client.ping()
    assert rig.service.counters.unknown_frames == 4


async def test_new_connection_of_a_key_is_active_until_the_old_one_speaks(rig: Rig) -> None:
    old, sender = await rig.client(), await rig.client()
    new = await rig.client(old.private_key)
    await sender.send(old.key, b"to the newest")
    assert await new.packet() == (sender.key, b"to the newest")
    await old.ping()
    await sender.send(old.key, b"to the last that spoke")
    assert await old.packet() == (sender.key, b"to the last that spoke")
    await old.stream.aclose()
    await sender.ping()
    await sender.send(old.key, b"to who remains")
    assert await new.packet() == (sender.key, b"to who remains")


async def test_ninth_connection_of_a_key_closes_the_first(rig: Rig) -> None:
    private_key = secrets.token_bytes(32)
    clients = [await rig.client(private_key) for _ in range(9)]
    assert await clients[0].is_closed()
    assert rig.service.counters.closed_replaced == 1
    await clients[8].ping()
    await clients[1].ping()


async def test_peer_gone_is_told_to_those_who_heard_from_it_each_time(rig: Rig) -> None:
    a, heard, deaf = await rig.client(), await rig.client(), await rig.client()
    for _ in range(2):
        await a.send(heard.key, b"hello")
        assert (await heard.packet())[0] == a.key
        await heard.send(a.key, b"hello")
        await a.packet()
        await a.stream.aclose()
        assert await heard.frame() == (FrameType.PEER_GONE, a.key + b"\0")
        a = await rig.client(a.private_key)
    await deaf.ping()  # and nothing before the pong


async def test_unreachable_peer_is_reported_for_disco_only_and_not_too_often(
    rig: Rig, autojump_clock: MockClock
) -> None:
    client, absent = await rig.client(), secrets.token_bytes(32)
    await client.send(absent, b"data is dropped without a word" * 10)
    for _ in range(5):
        await client.send(absent, disco())
    for _ in range(3):
        assert await client.frame() == (FrameType.PEER_GONE, absent + b"\1")
    await client.ping()  # burst 3
    await trio.sleep(1.1)
    await client.send(absent, disco())
    assert await client.frame() == (FrameType.PEER_GONE, absent + b"\1")
    counters = rig.service.counters
    assert counters.dropped_unknown_dest == 7
    assert counters.peer_gone_not_here == 4


async def test_keep_alive_comes_every_60_to_65_seconds(rig: Rig, autojump_clock: MockClock) -> None:
    client = await rig.client()
    for _ in range(3):
        before = trio.current_time()
        assert await client.frame() == (FrameType.KEEP_ALIVE, b"")
        assert 59 <= trio.current_time() - before <= 66


async def test_shutdown_says_restarting_and_closes(rig: Rig) -> None:
    client = await rig.client()
    await rig.service.shutdown()
    kind, payload = await client.frame()
    assert (kind, len(payload)) == (FrameType.RESTARTING, 8)
    assert await client.is_closed()
    late = Client(await rig.connect())
    await late.stream.send_all(late.client_info(await late.read_server_key()))
    assert await late.is_closed()
    assert rig.service.counters.connections == 0


async def test_connections_are_bounded(start) -> None:  # type: ignore[no-untyped-def]
    rig: Rig = await start(Limits(connections=2))
    clients = [await rig.client() for _ in range(2)]
    third = Client(await rig.connect())
    await third.stream.send_all(third.client_info(await third.read_server_key()))
    assert await third.is_closed()
    assert rig.service.counters.login_full == 1
    await clients[0].ping()
