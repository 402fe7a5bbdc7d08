"""A running relay, and clients that reach it over plain TCP or TLS on loopback."""

import secrets
import socket
import ssl
from collections.abc import AsyncIterator, Callable

import pytest
import trio
import trustme

from derp import DerpService, Limits
from tests.derp.client import Client
from tests.derp.streams import PlainStream, TlsStream

REMOTE = "192.0.2.7"


class Rig:
    """One relay and a nursery in which its logins run."""

    def __init__(self, nursery: trio.Nursery, *, tls: bool, authority: trustme.CA) -> None:
        self.nursery = nursery
        self.tls = tls
        self.refused: set[bytes] = set()
        self.streams: list[trio.SocketStream] = []
        self.asked: list[tuple[bytes, str]] = []
        self.server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server_context.num_tickets = 0
        authority.issue_cert("relay.example").configure_cert(self.server_context)
        self.client_context = ssl.create_default_context()
        authority.configure_trust(self.client_context)
        self.service = self.make_service()

    def make_service(self, limits: Limits | None = None) -> DerpService:
        self.service = DerpService(secrets.token_bytes(32), admit=self._admit, limits=limits)
        return self.service

    def _admit(self, key: bytes, remote: str) -> bool:
        self.asked.append((key, remote))
        return key not in self.refused

    async def connect(self, *, preface: bytes = b"", small_buffers: bool = False) -> trio.abc.Stream:
        """A connection in its login phase; the stream is the client's end."""
        near, far = tcp_pair(small_buffers)
        self.nursery.start_soon(self._serve, far, preface)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(near))
        self.streams.append(stream)
        if not self.tls:
            return stream
        secure = trio.SSLStream(
            stream, self.client_context, server_hostname="relay.example", https_compatible=True
        )
        await secure.do_handshake()
        return secure

    async def _serve(self, sock: socket.socket, preface: bytes) -> None:
        stream: PlainStream | TlsStream
        if self.tls:
            stream = TlsStream(sock, self.server_context)
            await stream.handshake()
        else:
            stream = PlainStream(sock)
        try:
            await self.service.serve(stream, REMOTE, preface)
        finally:
            if not stream.detached:
                sock.close()

    def close(self) -> None:
        """Close every client's end."""
        for stream in self.streams:
            stream.socket.close()

    async def client(self, private_key: bytes | None = None, *, small_buffers: bool = False) -> Client:
        """A client that has logged in."""
        client = Client(await self.connect(small_buffers=small_buffers), private_key)
        await client.login()
        return client


def tcp_pair(small_buffers: bool = False) -> tuple[socket.socket, socket.socket]:
    with socket.socket() as listener:
        if small_buffers:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        near = socket.socket()
        if small_buffers:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        near.connect(listener.getsockname())
        far, _ = listener.accept()
    near.setblocking(False)
    return near, far


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(params=["plain", "tls"])
async def rig(request: pytest.FixtureRequest, authority: trustme.CA) -> AsyncIterator[Rig]:
    async with trio.open_nursery() as nursery:
        rig = Rig(nursery, tls=request.param == "tls", authority=authority)
        await nursery.start(rig.service.run)
        yield rig
        rig.close()
        nursery.cancel_scope.cancel()


@pytest.fixture
async def start(authority: trustme.CA) -> AsyncIterator[Callable[..., object]]:
    """Start a plain relay with limits of the test's own."""
    rigs: list[Rig] = []
    async with trio.open_nursery() as nursery:

        async def start_rig(limits: Limits, *, tls: bool = False) -> Rig:
            rig = Rig(nursery, tls=tls, authority=authority)
            rigs.append(rig)
            await nursery.start(rig.make_service(limits).run)
            return rig

        yield start_rig
        for rig in rigs:
            rig.close()
        nursery.cancel_scope.cancel()
