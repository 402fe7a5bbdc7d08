"""A connected TCP socket as a trio stream that can be given away.

Three owners may follow one another on a connection: our HTTP loop, a service that speaks another protocol over the same
stream, and the relay's engine, which wants the bare socket. So this stream can take bytes back (`unread`: what an HTTP
parser read beyond its head), and let go of everything at once (`detach`).

A write that makes no progress for `WRITE_SECONDS` closes the connection, inside `send_all`: that holds even where a caller
shields its writes from cancellation.
"""

from __future__ import annotations

import operator
import os
import socket
import ssl
from contextlib import suppress
from typing import NamedTuple

import trio

from appliance.tls.limits import READ_CHUNK, WRITE_CHUNK, WRITE_SECONDS


class Transport(NamedTuple):
    """Everything of a connection, for an owner who drives it by hand. All of it is his now, closing included."""

    sock: socket.socket
    """Non-blocking."""
    ssl: ssl.SSLObject | None
    """None on a plain connection; so are the BIOs then."""
    incoming: ssl.MemoryBIO | None
    """Shared by all connections of the process, like `outgoing`: empty between two operations, no await while it is not."""
    outgoing: ssl.MemoryBIO | None
    ciphertext: bytes
    """Received, not yet given to TLS."""
    plaintext: bytes
    """Decrypted (or received plain), not yet consumed."""


class PlainStream(trio.abc.HalfCloseableStream):
    """A trio stream over a connected socket."""

    def __init__(self, sock: trio.socket.SocketType, unread: bytes = b"") -> None:
        self.socket = sock
        self.detached = False
        self._stream = trio.SocketStream(sock)
        self._unread = unread

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        check_max_bytes(max_bytes)
        if not self._unread:
            return bytes(await self._stream.receive_some(READ_CHUNK if max_bytes is None else max_bytes))
        if self.socket.fileno() < 0:
            raise trio.ClosedResourceError
        await trio.lowlevel.checkpoint()
        data, self._unread = split(self._unread, max_bytes)
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with memoryview(data) as view:
            for start in range(0, len(view) or 1, WRITE_CHUNK):
                with trio.move_on_after(WRITE_SECONDS) as scope:
                    await self._stream.send_all(view[start : start + WRITE_CHUNK])
                if scope.cancelled_caught:
                    self.kill()
                    raise trio.BrokenResourceError("the other side stopped reading")

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()

    def unread(self, data: bytes) -> None:
        """Give bytes back: they come first at the next `receive_some`."""
        self._unread = data + self._unread

    def offer(self, data: bytes) -> None:
        """Send what the kernel takes without waiting: parting words that nobody depends on."""
        if data and self.socket.fileno() >= 0:
            with suppress(OSError):
                os.write(self.socket.fileno(), data)

    def kill(self) -> None:
        """Close at once, from any task: whoever waits on the stream gets `ClosedResourceError`."""
        self.socket.close()

    def detach(self) -> Transport:
        """Hand the connection over; this stream is closed from here on, the socket is not."""
        self.detached = True
        family, kind, proto = self.socket.family, self.socket.type, self.socket.proto
        sock = socket.socket(family, kind, proto, fileno=self.socket.detach())
        sock.setblocking(False)
        plaintext, self._unread = self._unread, b""
        return Transport(sock, None, None, None, b"", plaintext)


def check_max_bytes(max_bytes: int | None) -> None:
    """The checks that trio streams make of `receive_some`'s argument."""
    if max_bytes is not None and operator.index(max_bytes) < 1:
        raise ValueError("max_bytes must be at least 1")


def split(data: bytes, max_bytes: int | None) -> tuple[bytes, bytes]:
    """At most `max_bytes` from the front, and the rest."""
    return (data, b"") if max_bytes is None else (data[:max_bytes], data[max_bytes:])
