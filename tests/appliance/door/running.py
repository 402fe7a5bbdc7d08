"""A door on loopback with fakes behind it, and a client that speaks HTTP/1.1 by hand."""

from __future__ import annotations

import base64
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import trio
import trio.testing
from quart import request
from quart_trio import QuartTrio

from appliance.config.kinds import Address
from appliance.door.answers import Answers
from appliance.door.names import NameTable
from appliance.door.service import Door
from appliance.door.sockets import open_tcp
from appliance.door.turns import FairTurns
from appliance.tls.current import CurrentCertificate
from appliance.tls.transport import Transport
from tests.appliance.tls.connected import NAME, certificate, make_client_context

RELAY_KEY = bytes(range(32))
INITIATION = bytes(101)
TS2021 = (
    b"POST /ts2021 HTTP/1.1\r\nHost: unused\r\nUpgrade: tailscale-control-protocol\r\nConnection: upgrade\r\n"
    b"X-Tailscale-Handshake: " + b"A" * 134 + b"A=\r\nContent-Length: 0\r\n\r\n"
)
TS2021_OF_A_NODE = TS2021.replace(b"A" * 134 + b"A=", base64.b64encode(b"node" + bytes(97)))
DERP = b"GET /derp HTTP/1.1\r\nHost: relay\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n"


@dataclass
class Fakes:
    """What the door handed over."""

    control: list[tuple[bytes, str, bytes]] = field(default_factory=list)
    """(initiation, remote, preface)"""
    relay: list[tuple[str, bytes]] = field(default_factory=list)
    """(remote, preface)"""
    detached: list[Transport] = field(default_factory=list)
    pings: list[str] = field(default_factory=list)
    healthy: bool = True
    bug: Exception | None = None
    """Raised by the control server instead of serving."""

    async def serve_control(
        self,
        stream: trio.abc.Stream,
        initiation: bytes,
        remote: str,
        preface: bytes,
        proven: Callable[[], None],
    ) -> None:
        """Echoes. An initiation that begins with `node` is a node's."""
        self.control.append((initiation, remote, preface))
        if initiation.startswith(b"node"):
            proven()
        if self.bug:
            raise self.bug
        await stream.send_all(preface + b"noise:")
        while data := await stream.receive_some():
            await stream.send_all(data)

    async def serve_relay(self, stream: trio.abc.Stream, remote: str, preface: bytes) -> None:
        """Greets, and takes the connection."""
        self.relay.append((remote, preface))
        await stream.send_all(preface + b"serverkey")
        self.detached.append(stream.detach())  # type: ignore[attr-defined]

    def answer_ping(self, ping: str) -> bool:
        self.pings.append(ping)
        return ping == "known"


@dataclass
class Response:
    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """One connection to the door."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.received = b""

    async def ask(self, head: bytes | str) -> Response:
        """Send a request and read its response; a bare `GET /path` is completed."""
        if isinstance(head, str):
            head = f"{head} HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode()
        await self.stream.send_all(head)
        return await self.response(no_body=head.startswith(b"HEAD "))

    async def response(self, *, no_body: bool = False) -> Response:
        head = await self.until(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").rstrip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        status = int(first.split()[1])
        length = 0 if no_body or status in (101, 204, 304) else int(headers.get("content-length", 0))
        return Response(status, headers, await self.exactly(length))

    async def until(self, end: bytes) -> bytes:
        while end not in self.received:
            await self.more()
        head, _, self.received = self.received.partition(end)
        return head + end

    async def exactly(self, count: int) -> bytes:
        while len(self.received) < count:
            await self.more()
        data, self.received = self.received[:count], self.received[count:]
        return data

    async def more(self) -> None:
        data = bytes(await self.stream.receive_some())
        if not data:
            raise EOFError(f"the door closed after {self.received!r}")
        self.received += data

    async def drain(self) -> bytes:
        """Everything until the door closes."""
        while True:
            try:
                await self.more()
            except (EOFError, trio.BrokenResourceError):
                return self.received

    async def ends(self) -> bool:
        """The door closes, having sent nothing more."""
        try:
            return not self.received and await self.stream.receive_some() == b""
        except trio.BrokenResourceError:
            return True


@dataclass
class Running:
    door: Door
    fakes: Fakes
    https: tuple[str, int]
    http: tuple[str, int]

    async def empty(self) -> None:
        """Until no connection is left."""
        await self.door._reception.wait_empty()

    async def detached(self) -> Transport:
        """The connection that the relay took."""
        await trio.testing.wait_all_tasks_blocked()
        [transport] = self.fakes.detached
        return transport

    @asynccontextmanager
    async def tls(self, name: str = NAME) -> AsyncIterator[Client]:
        stream = trio.SSLStream(
            await trio.open_tcp_stream(*self.https),
            make_client_context(),
            server_hostname=name,
            https_compatible=True,
        )
        try:
            with trio.fail_after(20):
                await stream.do_handshake()
            yield Client(stream)
        finally:
            await trio.aclose_forcefully(stream)

    @asynccontextmanager
    async def plain(self, *, to_https: bool = False) -> AsyncIterator[Client]:
        stream = await trio.open_tcp_stream(*(self.https if to_https else self.http))
        try:
            yield Client(stream)
        finally:
            await trio.aclose_forcefully(stream)


def make_pages() -> QuartTrio:
    """Pages that tests ask for things."""
    app = QuartTrio(__name__)

    @app.route("/")
    async def front() -> str:
        return f"{request.scheme} {request.remote_addr}"

    @app.post("/echo")
    async def echo() -> Any:
        return await request.get_data()

    @app.get("/bug")
    async def bug() -> str:
        raise RuntimeError("this page has a bug")

    @app.get("/long")
    async def long() -> Any:
        async def stream() -> AsyncIterator[bytes]:
            while True:
                yield bytes(64 * 1024)

        response: Any = await app.make_response(cast("Any", stream()))
        response.timeout = None
        return response

    @app.get("/slow")
    async def slow() -> str:
        await trio.sleep(20)
        return "slept"

    return app


def write_certificate(folder: Path) -> CurrentCertificate:
    path = folder / "tls.pem"
    certificate().private_key_and_cert_chain_pem.write_to_path(path)
    return CurrentCertificate(path)


@asynccontextmanager
async def running_door(folder: Path, *, http_host: str = "", **changes: Any) -> AsyncIterator[Running]:
    """A door with TLS on loopback and plain HTTP on all addresses: a public one, as far as the table of routes knows."""
    fakes = changes.pop("fakes", None) or Fakes()
    https = open_tcp(Address("127.0.0.1", 0), "listen.https")
    http = open_tcp(Address(http_host, 0), "listen.http")
    arguments: dict[str, Any] = {
        "https": https,
        "http": http,
        "certificate": write_certificate(folder),
        "server_url": f"https://{NAME}",
        "names": NameTable([NAME], ["192.0.2.1"]),
        "control": fakes.serve_control,
        "relay": fakes.serve_relay,
        "relay_public_key": RELAY_KEY,
        "pages": make_pages(),
        "answers": Answers(
            server_key=lambda: b'{"publicKey":"mkey:00"}',
            healthy=lambda: fakes.healthy,
            version="1.2.3",
            bootstrap_dns=lambda: {NAME: ["192.0.2.1"]},
            ping_response=fakes.answer_ping,
        ),
        "turns": FairTurns(),
    }
    door = Door(**(arguments | changes))
    async with trio.open_nursery() as nursery:
        running = Running(door, fakes, _address(https[0]), _address(http[0]))
        await nursery.start(door.run)
        try:
            yield running
        finally:
            for transport in fakes.detached:
                transport.sock.close()
            nursery.cancel_scope.cancel()


def _address(sock: socket.socket) -> tuple[str, int]:
    return "127.0.0.1", sock.getsockname()[1]
