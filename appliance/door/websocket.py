"""A WebSocket as a byte stream, for clients that live in browsers and cannot upgrade to anything else.

They speak Noise in binary messages whose boundaries carry no meaning. We send at most `WEBSOCKET_MESSAGE` bytes in one, offer
no compression (what is inside is encrypted), answer pings, and close with 1008 on anything that does not belong here.

Source: RFC 6455 §1.3, §4.2.2, §5; tailscale: control/controlhttp/controlhttpserver/controlhttpserver.go.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from contextlib import suppress

import trio
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.utilities import LocalProtocolError

from appliance.door.head import Head, encode_head
from appliance.door.limits import WEBSOCKET_MESSAGE
from appliance.errors import HeadError
from appliance.tls.limits import WRITE_CHUNK
from appliance.tls.transport import check_max_bytes, split

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # fixed by RFC 6455
NORMAL_CLOSURE = 1000
POLICY_VIOLATION = 1008


def accept_websocket(head: Head, protocol: str) -> bytes:
    """The response head that opens the WebSocket; raises `HeadError` if the request does not ask for one properly."""
    key = head.get("sec-websocket-key")
    if head.upgrade != "websocket" or head.get("sec-websocket-version") != "13":
        raise HeadError(400, "a WebSocket of version 13 is expected here")
    if protocol not in head.tokens("sec-websocket-protocol"):
        raise HeadError(400, f"the WebSocket protocol {protocol} is expected here")
    try:
        proper = len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        proper = False
    if not proper:
        raise HeadError(400, "the WebSocket key is malformed")
    accept = base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()
    fields = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept)]
    return encode_head(101, [*fields, ("Sec-WebSocket-Protocol", protocol)])


class WebSocketStream(trio.abc.Stream):
    """The bytes of binary messages, after the opening handshake."""

    def __init__(self, below: trio.abc.Stream) -> None:
        self._below = below
        self._ws = Connection(ConnectionType.SERVER, extensions=[])
        self._received = b""
        self._eof = False
        self._closed = False
        self._sending = False
        self._order = trio.Lock()  # pongs are sent by the reader

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        check_max_bytes(max_bytes)
        if self._closed:
            raise trio.ClosedResourceError
        if self._received or self._eof:
            await trio.lowlevel.checkpoint()
        while not self._received and not self._eof:
            data = await self._below.receive_some()
            self._ws.receive_data(bytes(data) or None)
            await self._handle_events()
            self._eof = self._eof or not data
        data, self._received = split(self._received, max_bytes)
        return data

    async def _handle_events(self) -> None:
        for event in self._ws.events():
            if isinstance(event, BytesMessage):
                self._received += bytes(event.data)
            elif isinstance(event, Ping):
                await self._send(self._ws.send(event.response()))
            elif isinstance(event, TextMessage):
                self._eof = True
                await self._say_goodbye(POLICY_VIOLATION)
                return
            elif isinstance(event, CloseConnection):
                self._eof = True
                await self._say_goodbye(event.code)
                return

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._closed:
            raise trio.ClosedResourceError
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            for start in range(0, len(data), WRITE_CHUNK):
                await self._send(self._messages(bytes(data[start : start + WRITE_CHUNK])))
        finally:
            self._sending = False

    def _messages(self, data: bytes) -> bytes:
        try:
            return b"".join(
                self._ws.send(BytesMessage(data=data[start : start + WEBSOCKET_MESSAGE]))
                for start in range(0, len(data), WEBSOCKET_MESSAGE)
            )
        except LocalProtocolError as exc:
            raise trio.BrokenResourceError("the WebSocket is closing") from exc

    async def _send(self, data: bytes) -> None:
        async with self._order:
            await self._below.send_all(data)

    async def _say_goodbye(self, code: int) -> None:
        if self._ws.state in (ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING):
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # gone: nobody to say it to
                await self._send(self._ws.send(CloseConnection(code=code)))

    async def wait_send_all_might_not_block(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        await self._below.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        already, self._closed = self._closed, True
        try:
            if not already and not self._sending and not self._order.locked():
                await self._say_goodbye(NORMAL_CLOSURE)
        finally:
            await self._below.aclose()
