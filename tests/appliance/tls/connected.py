"""Connected loopback sockets, and certificates for both ends."""

from __future__ import annotations

import functools
import ssl

import trio
import trustme

from appliance.tls.current import server_context
from appliance.tls.stream import Bios, TLSStream
from appliance.tls.transport import PlainStream

NAME = "vpn.example.com"


@functools.cache
def authority() -> trustme.CA:
    return trustme.CA()


@functools.cache
def certificate() -> trustme.LeafCert:
    return authority().issue_cert(NAME, "127.0.0.1", "localhost")


def make_server_context() -> ssl.SSLContext:
    context = server_context()
    certificate().configure_cert(context)
    return context


def make_client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority().configure_trust(context)
    return context


async def socket_pair() -> tuple[trio.socket.SocketType, trio.socket.SocketType]:
    """(client, server), over TCP: what the code under test sets are TCP options."""
    with trio.socket.socket() as listening:
        await listening.bind(("127.0.0.1", 0))
        listening.listen(1)
        client = trio.socket.socket()
        await client.connect(listening.getsockname())
        server, _ = await listening.accept()
    return client, server


async def tls_pair(
    bios: Bios, context: ssl.SSLContext | None = None
) -> tuple[TLSStream, trio.SSLStream[trio.SocketStream]]:
    """(our stream, trio's stream), hands shaken."""
    client, server = await socket_pair()
    theirs = trio.SSLStream(
        trio.SocketStream(client), make_client_context(), server_hostname=NAME, https_compatible=True
    )
    ours = TLSStream(PlainStream(server), bios, context or make_server_context())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(theirs.do_handshake)
        nursery.start_soon(ours.do_handshake)
    return ours, theirs
