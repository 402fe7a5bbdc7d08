from __future__ import annotations

import pytest
import trio
from trio.testing import check_two_way_stream

from appliance.tls.limits import WRITE_SECONDS
from appliance.tls.transport import PlainStream
from tests.appliance.tls.connected import socket_pair


async def make_pair() -> tuple[PlainStream, trio.SocketStream]:
    client, server = await socket_pair()
    return PlainStream(server), trio.SocketStream(client)


async def make_clogged_pair() -> tuple[PlainStream, trio.SocketStream]:
    ours, theirs = await make_pair()
    for stream in (ours, theirs):
        with trio.move_on_after(0.05):
            while True:
                await stream.send_all(bytes(64 * 1024))
    return ours, theirs


async def test_it_is_a_proper_trio_stream() -> None:
    await check_two_way_stream(make_pair, make_clogged_pair)


async def test_unread_bytes_come_first_and_in_pieces() -> None:
    ours, theirs = await make_pair()
    async with ours, theirs:
        await theirs.send_all(b"-later")
        ours.unread(b"two")
        ours.unread(b"one")
        assert await ours.receive_some(4) == b"onet"
        assert await ours.receive_some() == b"wo"
        assert await ours.receive_some() == b"-later"


async def test_a_reader_that_stops_breaks_the_write_even_inside_a_shield(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ours, theirs = await make_pair()
    async with theirs:
        began = trio.current_time()
        with trio.CancelScope(shield=True), pytest.raises(trio.BrokenResourceError):
            await ours.send_all(bytes(64 * 1024 * 1024))
        assert trio.current_time() - began == pytest.approx(WRITE_SECONDS)
        assert ours.socket.fileno() < 0


async def test_detach_hands_over_socket_and_leftover_and_the_stream_is_dead() -> None:
    ours, theirs = await make_pair()
    ours.unread(b"leftover")
    transport = ours.detach()
    assert ours.detached
    assert (transport.ssl, transport.incoming, transport.outgoing) == (None, None, None)
    assert (transport.ciphertext, transport.plaintext) == (b"", b"leftover")
    await ours.aclose()
    ours.kill()
    with pytest.raises(trio.ClosedResourceError):
        await ours.receive_some()
    with transport.sock as sock:
        assert not sock.getblocking()
        sock.send(b"still open")
        assert await theirs.receive_some() == b"still open"
    await theirs.aclose()


async def test_kill_wakes_whoever_waits() -> None:
    ours, theirs = await make_pair()
    async with theirs:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def wait() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await ours.receive_some()

            await trio.testing.wait_all_tasks_blocked()
            ours.kill()
