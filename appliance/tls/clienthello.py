"""The ClientHello, read before TLS starts: which name is asked for, and which protocol.

    record      type (1) = 22 | version (2) | length (2) | fragment           a hello may span several
    handshake   type (1) = 1 | length (3) | body
    body        version (2) | random (32) | session id <0..32> | cipher suites <2..> | compression <1..>
                | extensions <0..2^16-1>, each: type (2) | length (2) | data
    server_name (0)    list length (2) | entry: type (1) = 0 | length (2) | name
    ALPN (16)          list length (2) | entries: length (1) | protocol

Fed piece by piece, it answers once the hello is whole; everything it was fed stays in `received` and goes to whoever
ends TLS. Limits: 16 KiB in 4 records. A name must be one that DNS could hold: letters, digits, hyphens and dots.

Source: RFC 8446 §4.1.2, §5.1; RFC 6066 §3; RFC 7301 §3.1.
"""

from __future__ import annotations

from dataclasses import dataclass

from appliance.config.kinds import is_domain
from appliance.errors import ClientHelloError
from appliance.tls.limits import CLIENT_HELLO_BYTES, CLIENT_HELLO_RECORDS

HANDSHAKE = 22
CLIENT_HELLO = 1
SERVER_NAME = 0
ALPN = 16
HOST_NAME = 0

# A fatal decode_error, for a client that sent something else: version, length 2, level, description.
ALERT = bytes([21, 3, 1, 0, 2, 2, 50])


@dataclass(frozen=True, slots=True)
class ClientHello:
    """What the hello asks for."""

    server_name: str | None
    """Lower case, without a trailing dot; None when the client named nobody."""
    alpn: tuple[str, ...]


class ClientHelloReader:
    """Collects records until the hello is whole."""

    def __init__(self) -> None:
        self.received = b""

    def feed(self, data: bytes) -> ClientHello | None:
        """The hello, once it is complete. Raises `ClientHelloError`, and nothing else."""
        self.received += data
        message = b""
        position = 0
        for _ in range(CLIENT_HELLO_RECORDS):
            header = self.received[position : position + 5]
            if header[:1] not in (b"", bytes([HANDSHAKE])) or header[1:2] not in (b"", b"\x03"):
                raise ClientHelloError("these bytes are no TLS handshake")
            if len(header) < 5:
                return None
            length = int.from_bytes(header[3:], "big")
            if not length or len(message) + length > CLIENT_HELLO_BYTES:
                raise ClientHelloError("a ClientHello of this size is not accepted")
            message += self.received[position + 5 : position + 5 + length]
            position += 5 + length
            if (hello := _whole(message)) is not None:
                return parse_client_hello(hello)
            if len(self.received) < position:
                return None
        raise ClientHelloError(f"a ClientHello in more than {CLIENT_HELLO_RECORDS} records")


def _whole(message: bytes) -> bytes | None:
    """The body of the handshake message, if all of it is there."""
    if message[:1] not in (b"", bytes([CLIENT_HELLO])):
        raise ClientHelloError("the first handshake message is no ClientHello")
    if len(message) < 4:
        return None
    length = int.from_bytes(message[1:4], "big")
    if length > CLIENT_HELLO_BYTES - 4:
        raise ClientHelloError("a ClientHello of this size is not accepted")
    return message[4 : 4 + length] if len(message) >= 4 + length else None


def parse_client_hello(body: bytes) -> ClientHello:
    """Raises `ClientHelloError` for anything malformed."""
    cursor = _Cursor(body)
    cursor.take(2 + 32)
    cursor.vector(1)
    cursor.vector(2)
    cursor.vector(1)
    server_name: str | None = None
    alpn: tuple[str, ...] = ()
    extensions = _Cursor(cursor.vector(2) if cursor.left else b"")
    while extensions.left:
        kind, data = extensions.number(2), _Cursor(extensions.vector(2))
        if kind == SERVER_NAME:
            server_name = _server_name(data)
        elif kind == ALPN:
            alpn = _protocols(data)
    return ClientHello(server_name, alpn)


def _server_name(data: _Cursor) -> str | None:
    entries = _Cursor(data.vector(2))
    while entries.left:
        kind, raw = entries.number(1), entries.vector(2)
        if kind == HOST_NAME:
            name = raw.decode("latin-1").lower().removesuffix(".")
            if not is_domain(name):
                raise ClientHelloError("the server name is no host name")
            return name
    return None


def _protocols(data: _Cursor) -> tuple[str, ...]:
    entries = _Cursor(data.vector(2))
    protocols = []
    while entries.left:
        protocols.append(entries.vector(1).decode("latin-1"))
    return tuple(protocols)


class _Cursor:
    """Reads numbers and length-prefixed vectors off the front of some bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise ClientHelloError("the ClientHello ends in the middle of a field")
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, prefix: int) -> bytes:
        return self.take(self.number(prefix))
