"""One connection, from its first byte until it ends or belongs to somebody else.

    [PROXY header]  →  [ClientHello → TLS]  →  request head  →  answer it, and read the next
                                                             →  hand the stream to the control server (Noise)
                                                             →  hand the socket to the relay (DERP)

A refused upgrade ends the connection: what follows may be meant for whoever would have accepted.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

import trio

from appliance.config.kinds import Network
from appliance.door import limits
from appliance.door.answers import Answer, Answers, text
from appliance.door.asgi import PageServer
from appliance.door.head import Head, HeadReader, encode_response
from appliance.door.names import NameTable, Owner
from appliance.door.preauth import source_of
from appliance.door.proxy import ProxyHeaderReader, client_address, is_listed, plain_address
from appliance.door.routes import INSIDE_TLS, Destination, Listener, decide
from appliance.door.seldom import Seldom
from appliance.door.takeover import (
    CONTROL_PREFACE,
    CONTROL_PROTOCOL,
    check_take_over,
    initiation_of_upgrade,
    initiation_of_websocket,
    relay_preface,
)
from appliance.door.turns import FairTurns
from appliance.door.websocket import WebSocketStream, accept_websocket
from appliance.errors import ClientHelloError, HeadError
from appliance.tls.clienthello import ALERT, ClientHello, ClientHelloReader
from appliance.tls.current import CurrentCertificate
from appliance.tls.limits import CLIENT_HELLO_SECONDS, HANDSHAKE_SECONDS
from appliance.tls.stream import Bios, TLSStream
from appliance.tls.transport import PlainStream

log = logging.getLogger("appliance.door")

Stream = PlainStream | TLSStream
ServeControl = Callable[[trio.abc.Stream, bytes, str, bytes, Callable[[], None]], Awaitable[None]]
"""(stream, initiation, remote, preface, proven): speaks Noise until the connection ends; the door closes it.

`proven` is called once the machine is known to be a node's: until then the connection keeps its place among strangers."""
ServeRelay = Callable[[Stream, str, bytes], Awaitable[None]]
"""(stream, remote, preface): returns when login failed, or when it has detached the stream."""

_HTTP_METHODS = (b"GET ", b"POST ", b"HEAD ", b"PUT ", b"DELETE ", b"OPTIONS ", b"CONNECT ")


@dataclass(frozen=True, kw_only=True)
class House:
    """What lies behind the door: everything a connection needs to know, the same for all of them."""

    control: ServeControl
    relay: ServeRelay
    relay_public_key: bytes
    pages: PageServer
    answers: Answers
    names: NameTable
    server_url: str
    proxies: Sequence[Network]
    proxy_protocol: bool
    turns: FairTurns
    bios: Bios
    seldom: Seldom


@dataclass(frozen=True, slots=True)
class Port:
    """A listening socket's part in the matter."""

    certificate: CurrentCertificate | None
    """TLS is ended here."""
    plain: Listener
    """What a plain connection to it may reach, if it does not come from a listed proxy."""
    proxied: Listener
    """The same if it does."""


class Connection:
    """One accepted socket and what became of it."""

    def __init__(
        self, sock: trio.socket.SocketType, port: Port, house: House, proven: Callable[[Connection], None]
    ) -> None:
        """`proven` is called when the connection needs no place among strangers any more."""
        self.socket = PlainStream(sock)
        self.peer = plain_address(sock.getpeername()[0])
        self.local = plain_address(sock.getsockname()[0])
        self._local_port = sock.getsockname()[1]
        self._port = port
        self._house = house
        self._proven = partial(proven, self)
        self._idle: trio.CancelScope | None = None
        self._stopping = False
        self._listed = is_listed(self.peer, house.proxies)
        self._forwarded = self._listed and not house.proxy_protocol
        """An HTTP proxy: other people's requests may share this connection, and its headers say whose they are."""

    def kill(self) -> None:
        """Close at once, from any task; nothing happens if the socket was handed over."""
        self.socket.kill()

    def stop(self) -> None:
        """Take no further request."""
        self._stopping = True
        if self._idle is not None:
            self._idle.cancel()

    async def serve(self) -> None:
        """Until the end. Raises what the peer made happen, and bugs; the caller closes with `kill`."""
        if self._listed and self._house.proxy_protocol:
            await self._read_proxy_header()
        stream: Stream = self.socket
        if self._port.certificate is not None:
            stream = await self._end_tls(self._port.certificate)
        reaches = self._listener(stream)
        first = True
        while (head := await self._read_head(stream, first=first)) is not None:
            if not await self._answer(stream, head, reaches):
                return
            first = False
        await stream.aclose()

    async def _read_proxy_header(self) -> None:
        reader = ProxyHeaderReader()
        with trio.fail_after(limits.PROXY_HEADER_SECONDS):
            while not reader.feed(await _some(self.socket)):
                pass
        self.socket.unread(reader.rest)
        self.peer = reader.source or self.peer

    async def _end_tls(self, certificate: CurrentCertificate) -> TLSStream:
        hello, received = await self._read_client_hello()
        owner = self._house.names.owner(hello.server_name)
        assert owner is Owner.US  # others will get the socket and `received`, before any TLS
        stream = TLSStream(self.socket, self._house.bios, certificate.context_for(hello), received)
        with trio.fail_after(HANDSHAKE_SECONDS):
            await stream.do_handshake(partial(self._house.turns.do, source_of(self.peer)))
        return stream

    async def _read_client_hello(self) -> tuple[ClientHello, bytes]:
        reader = ClientHelloReader()
        with trio.fail_after(CLIENT_HELLO_SECONDS):
            hello = await self._collect_client_hello(reader)
        if isinstance(hello, ClientHello):
            return hello, reader.received
        if reader.received.startswith(_HTTP_METHODS):
            words = text(400, f"This port speaks HTTPS: use {self._house.server_url}")
            self.socket.offer(encode_response(400, words.fields(), words.body, close=True))
        else:
            self.socket.offer(ALERT)
        await self._linger(self.socket)
        raise hello

    async def _collect_client_hello(self, reader: ClientHelloReader) -> ClientHello | ClientHelloError:
        hello = None
        while hello is None:
            data = await _some(self.socket)
            try:
                hello = reader.feed(data)
            except ClientHelloError as exc:
                return exc
        return hello

    def _listener(self, stream: Stream) -> Listener:
        if isinstance(stream, TLSStream):
            return Listener.HTTPS
        return self._port.proxied if self._listed else self._port.plain

    async def _read_head(self, stream: Stream, *, first: bool) -> Head | None:
        """The next request, or None if there is none; None too for one that already got its refusal."""
        reader = HeadReader()
        try:
            if not first:
                data = await self._wait_idle(stream)
                if not data:
                    return None
                stream.unread(data)
            with trio.fail_after(limits.HEAD_SECONDS):
                while data := await stream.receive_some():
                    if (head := reader.feed(bytes(data))) is not None:
                        return head
        except HeadError as refusal:
            await self._refuse(stream, refusal)
        return None

    async def _wait_idle(self, stream: Stream) -> bytes:
        data = b""
        if not self._stopping:
            with trio.move_on_after(limits.IDLE_SECONDS) as self._idle:
                data = bytes(await stream.receive_some())
            self._idle = None
        return data

    async def _answer(self, stream: Stream, head: Head, reaches: Listener) -> bool:
        """Answer one request; True if the connection goes on to the next."""
        try:
            destination = decide(reaches, head.method, head.path, head.upgrade)
            if destination is Destination.CONTROL:
                return await self._hand_to_control(stream, head)
            if destination is Destination.CONTROL_WEBSOCKET:
                return await self._hand_websocket_to_control(stream, head)
            if destination is Destination.RELAY:
                return await self._hand_to_relay(stream, head, reaches)
            if destination is Destination.PAGES:
                return await self._serve_page(stream, head, reaches)
            return await self._answer_ourselves(stream, head, destination, reaches)
        except HeadError as refusal:
            await self._refuse(stream, refusal)
            return False

    # --- our own routes, and pages ---

    async def _answer_ourselves(
        self, stream: Stream, head: Head, destination: Destination, reaches: Listener
    ) -> bool:
        credential = head.get("authorization") or head.get("cookie")
        if reaches is Listener.HTTP and credential and self._house.seldom.now("credential"):
            hint = f"use {self._house.server_url}; replace the credential if strangers share the path"
            fields = {"remote": self._remote(head), "hint": hint}
            log.warning("a credential was sent over plain HTTP", extra=fields)
        answer = self._redirect(head) if destination is Destination.REDIRECT else None
        answer = answer or self._house.answers.answer(destination, head)
        close = answer.close or head.has_body or not head.keep_alive or self._stopping
        head_only = head.method == "HEAD"
        response = encode_response(
            answer.status, answer.fields(), answer.body, head_only=head_only, close=close
        )
        await stream.send_all(response)
        if close:
            await self._linger(stream)
            return False
        stream.unread(head.rest)
        return True

    def _redirect(self, head: Head) -> Answer:
        """To the same page under our own URL, whatever the request called us."""
        query = f"?{head.query}" if head.query else ""
        location = self._house.server_url.rstrip("/") + head.path + query
        return Answer(308, headers=(("Location", location),))

    async def _serve_page(self, stream: Stream, head: Head, reaches: Listener) -> bool:
        if not self._house.names.answers_host(head.get("host"), self.local):
            raise HeadError(421, "This server does not answer for that name.")
        if head.get("upgrade"):
            raise HeadError(400, "There is nothing to upgrade to here.")
        rest = await self._house.pages.serve(
            stream,
            head.raw + head.rest,
            client=(self._remote(head), 0),
            server=(self.local, self._local_port),
            https=bool(reaches & INSIDE_TLS),
        )
        if rest is None:
            return False
        stream.unread(rest)
        return True

    # --- take-overs ---

    async def _hand_to_control(self, stream: Stream, head: Head) -> bool:
        initiation = initiation_of_upgrade(head)
        stream.unread(head.rest)
        await self._house.control(stream, initiation, self._remote(head), CONTROL_PREFACE, self._proven)
        await stream.aclose()
        return False

    async def _hand_websocket_to_control(self, stream: Stream, head: Head) -> bool:
        check_take_over(head)
        opening = accept_websocket(head, CONTROL_PROTOCOL)
        initiation = initiation_of_websocket(head)
        stream.unread(head.rest)
        await stream.send_all(opening)
        websocket = WebSocketStream(stream)
        await self._house.control(websocket, initiation, self._remote(head), b"", self._proven)
        await websocket.aclose()
        return False

    async def _hand_to_relay(self, stream: Stream, head: Head, reaches: Listener) -> bool:
        check_take_over(head)
        if head.upgrade == "websocket" and "derp" in head.tokens("sec-websocket-protocol"):
            raise HeadError(501, "DERP over WebSocket is not served here")
        # Very old clients say websocket and mean plain DERP, like the reference server we believe them.
        fast = reaches is Listener.HTTPS and not self._forwarded and head.get("derp-fast-start") == "1"
        preface = b"" if fast else relay_preface(self._house.relay_public_key)
        stream.unread(head.rest)
        await self._house.relay(stream, self._remote(head), preface)
        if not stream.detached:
            await stream.aclose()
        return False

    # --- endings ---

    def _remote(self, head: Head) -> str:
        if not self._forwarded:
            return self.peer
        return client_address(self.peer, head.joined("x-forwarded-for"), self._house.proxies)

    async def _refuse(self, stream: Stream, refusal: HeadError) -> None:
        log.info("request refused", extra={"remote": self.peer, "reason": refusal.text})
        answer = text(refusal.status, refusal.text)
        await stream.send_all(encode_response(refusal.status, answer.fields(), answer.body, close=True))
        await self._linger(stream)

    async def _linger(self, stream: Stream) -> None:
        """Close so that our last words arrive: a close with unread bytes would reset the connection and destroy them."""
        if isinstance(stream, TLSStream):
            stream.say_goodbye()
        left = limits.LINGER_BYTES
        with trio.move_on_after(limits.LINGER_SECONDS):
            await self.socket.send_eof()
            while left > 0 and (data := await self.socket.receive_some()):
                left -= len(data)
        await self.socket.aclose()


async def _some(stream: PlainStream) -> bytes:
    """Some bytes; the end of the stream here is a broken connection."""
    data = await stream.receive_some()
    if not data:
        raise trio.BrokenResourceError("the other side left")
    return data
