from __future__ import annotations

import ssl

import pytest
import trio
from trio.testing import check_two_way_stream

from appliance.tls.stream import Bios, TLSStream
from appliance.tls.transport import PlainStream
from tests.appliance.tls.connected import make_client_context, make_server_context, socket_pair, tls_pair


def are_empty(bios: Bios) -> bool:
    return bios.incoming.pending == bios.outgoing.pending == 0


async def test_it_is_a_proper_trio_stream() -> None:
    bios = Bios.make()

    async def make_pair() -> tuple[trio.abc.Stream, trio.abc.Stream]:
        return await tls_pair(bios)

    await check_two_way_stream(make_pair, None)  # clogging is below us: test_transport.py
    assert are_empty(bios)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_megabytes_pass_both_ways_on_many_connections_at_once(version: ssl.TLSVersion) -> None:
    bios = Bios.make()
    context = make_server_context()
    context.maximum_version = version

    async def echo(stream: TLSStream) -> None:
        while data := await stream.receive_some():
            await stream.send_all(data)
        await stream.aclose()

    async def exchange(number: int) -> None:
        ours, theirs = await tls_pair(bios, context)
        message = bytes([number]) * 400_000
        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo, ours)
            nursery.start_soon(theirs.send_all, message)
            received = b""
            while len(received) < len(message):
                received += await theirs.receive_some()
            assert received == message
            await theirs.aclose()

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(exchange, number)
    assert are_empty(bios)


async def test_all_records_of_one_socket_read_arrive_together() -> None:
    ours, theirs = await tls_pair(Bios.make())
    for _ in range(20):
        await theirs.send_all(b"record")
    received = await ours.receive_some()
    while len(received) < 120:
        received += await ours.receive_some()
        assert len(received) >= 120, "more than one wake-up after the first"
    assert received == b"record" * 20
    await ours.aclose()
    await theirs.aclose()


@pytest.mark.parametrize("ending", ["close_notify", "without", "reset"])
async def test_every_way_to_leave_is_an_end(ending: str) -> None:
    ours, theirs = await tls_pair(Bios.make())
    await theirs.send_all(b"last words")
    if ending == "close_notify":
        await theirs.aclose()
    else:
        if ending == "reset":
            socket = theirs.transport_stream.socket
            socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            assert await ours.receive_some() == b"last words"
        theirs.transport_stream.socket.close()
    if ending != "reset":
        assert await ours.receive_some() == b"last words"
    assert await ours.receive_some() == b""
    assert await ours.receive_some() == b""
    await ours.aclose()


async def test_closing_says_so_to_the_other_side() -> None:
    client, server = await socket_pair()
    bios = Bios.make()
    strict = trio.SSLStream(trio.SocketStream(client), make_client_context(), server_hostname="localhost")
    ours = TLSStream(PlainStream(server), bios, make_server_context())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(strict.do_handshake)
        nursery.start_soon(ours.do_handshake)
    await ours.aclose()
    assert await strict.receive_some() == b""  # a missing close_notify would raise here
    await trio.aclose_forcefully(strict)
    assert are_empty(bios)


async def test_garbage_breaks_one_connection_and_leaves_the_shared_bios_empty() -> None:
    bios = Bios.make()
    victim, attacker = await tls_pair(bios)
    ours, theirs = await tls_pair(bios)
    await attacker.transport_stream.send_all(b"\x17\x03\x03\x00\x20" + bytes(32) + b"\x17\x03\x03")
    with pytest.raises(trio.BrokenResourceError):
        await victim.receive_some()
    assert are_empty(bios)
    await theirs.send_all(b"unharmed")
    assert await ours.receive_some() == b"unharmed"
    for stream in (victim, attacker, ours, theirs):
        await trio.aclose_forcefully(stream)


async def test_a_failed_handshake_tells_the_client_why_and_leaves_the_shared_bios_empty() -> None:
    client, server = await socket_pair()
    bios = Bios.make()
    old = make_client_context()
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    context = make_server_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    theirs = trio.SSLStream(trio.SocketStream(client), old, server_hostname="localhost")
    ours = TLSStream(PlainStream(server), bios, context)

    async def fail() -> None:
        with pytest.raises(trio.BrokenResourceError, match="TLS handshake failed"):
            await ours.do_handshake()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail)
        with pytest.raises(trio.BrokenResourceError) as caught:
            await theirs.do_handshake()
    assert "alert protocol version" in str(caught.value.__cause__).lower()
    assert are_empty(bios)
    await trio.aclose_forcefully(ours)
    await trio.aclose_forcefully(theirs)


async def test_a_cancelled_write_leaves_no_stream_to_write_to() -> None:
    ours, theirs = await tls_pair(Bios.make())
    with trio.move_on_after(0.05):
        while True:
            await ours.send_all(bytes(1024 * 1024))
    with pytest.raises(trio.BrokenResourceError):
        await ours.send_all(b"more")
    await theirs.send_all(b"reading goes on")
    assert await ours.receive_some() == b"reading goes on"
    await trio.aclose_forcefully(ours)
    await trio.aclose_forcefully(theirs)


async def test_bytes_of_the_hello_that_was_read_before_are_not_lost() -> None:
    client, server = await socket_pair()
    theirs = trio.SSLStream(trio.SocketStream(client), make_client_context(), server_hostname="localhost")
    below = PlainStream(server)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(theirs.do_handshake)
        hello = await below.receive_some()
        ours = TLSStream(below, Bios.make(), make_server_context(), hello)
        await ours.do_handshake()
    await theirs.send_all(b"ok")
    assert await ours.receive_some() == b"ok"
    await trio.aclose_forcefully(ours)
    await trio.aclose_forcefully(theirs)


async def test_detach_hands_over_everything_that_came_in() -> None:
    bios = Bios.make()
    ours, theirs = await tls_pair(bios)
    await theirs.send_all(b"one")
    assert await ours.receive_some() == b"one"
    ours.unread(b"one")
    transport = ours.detach()
    assert ours.detached
    assert transport.plaintext == b"one"
    assert transport.incoming is bios.incoming
    assert transport.outgoing is bios.outgoing
    assert transport.ssl is not None
    with pytest.raises(trio.ClosedResourceError):
        await ours.receive_some()
    with pytest.raises(trio.ClosedResourceError):
        await ours.send_all(b"x")
    await ours.aclose()
    transport.ssl.write(b"by hand")
    transport.sock.send(bios.outgoing.read())
    assert await theirs.receive_some() == b"by hand"
    transport.sock.close()
    await trio.aclose_forcefully(theirs)


async def test_early_data_in_the_read_that_ends_the_handshake_reaches_the_detached_owner() -> None:
    """A client may send its request together with its Finished."""
    bios = Bios.make()
    client, server = await socket_pair()
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = make_client_context().wrap_bio(to_client, to_server, server_hostname="localhost")
    ours = TLSStream(PlainStream(server), bios, make_server_context())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.do_handshake)
        with pytest.raises(ssl.SSLWantReadError):
            theirs.do_handshake()
        await client.send(to_server.read())
        while True:
            to_client.write(await client.recv(65_536))
            try:
                theirs.do_handshake()
                break
            except ssl.SSLWantReadError:
                continue
        theirs.write(b"early")
        await client.send(to_server.read())
    transport = ours.detach()
    assert transport.ciphertext
    assert transport.plaintext == b""
    assert transport.ssl is not None
    bios.incoming.write(transport.ciphertext)
    assert transport.ssl.read() == b"early"
    transport.sock.close()
    client.close()


async def test_only_http_1_1_is_negotiated() -> None:
    for offered, chosen in ((["h2", "http/1.1"], "http/1.1"), (["h2"], None), ([], None)):
        client, server = await socket_pair()
        context = make_client_context()
        if offered:
            context.set_alpn_protocols(offered)
        theirs = trio.SSLStream(trio.SocketStream(client), context, server_hostname="localhost")
        ours = TLSStream(PlainStream(server), Bios.make(), make_server_context())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(theirs.do_handshake)
            nursery.start_soon(ours.do_handshake)
        assert theirs.selected_alpn_protocol() == chosen
        await trio.aclose_forcefully(ours)
        await trio.aclose_forcefully(theirs)
