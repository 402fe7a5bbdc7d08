"""The bytes of one connection: socket and TLS by hand, through buffers that all connections share.

    socket ──► ciphertext buffer ──► incoming BIO ─ OpenSSL ─► plaintext buffer
    socket ◄── bytes ◄────────────── outgoing BIO ─ OpenSSL ◄─ plaintext

The two buffers belong to the engine. The two memory BIOs are one pair for the whole process: a BIO never gives
its memory back, so a pair per connection would cost more than everything else of it. Sharing is sound because
nothing here waits, and as long as one rule holds: *both BIOs are empty between two operations*. After reading,
what OpenSSL did not take is taken back; after writing, what it made is taken at once. (Were the rule broken,
one client's ciphertext would fail another's integrity check: a lost connection, not a leak.)

What a channel keeps of its own is the beginning of a TLS record that has not arrived whole.
"""

import socket
import ssl
from collections.abc import Callable
from ssl import MemoryBIO, SSLObject
from typing import NamedTuple, Protocol, cast

from derp.frames import HEADER_BYTES, KEY_BYTES
from derp.limits import MAX_SEND_PACKET_BYTES, READ_BYTES

# SSLObject.read with a buffer returns a count; typeshed knows only the other form.
ReadInto = Callable[[int, memoryview], int]
Data = bytes | bytearray | memoryview

HEAD_BYTES = HEADER_BYTES + KEY_BYTES  # what a rewritten frame gets anew
RECORD_HEADER_BYTES = 5  # TLS: type, version, length (16, big-endian)
MAX_RECORD_BYTES = RECORD_HEADER_BYTES + (16 << 10) + 320  # header, most plaintext, most expansion
STRIDES = 8  # packet sizes with ready-made views; traffic has few at a time


class Detached(Protocol):
    """A connection taken out of its stream, however the stream's owner spells it; see Transport."""

    @property
    def sock(self) -> socket.socket: ...
    @property
    def ssl(self) -> SSLObject | None: ...
    @property
    def incoming(self) -> MemoryBIO | None: ...
    @property
    def outgoing(self) -> MemoryBIO | None: ...
    @property
    def ciphertext(self) -> bytes: ...
    @property
    def plaintext(self) -> bytes: ...


class Transport(NamedTuple):
    """A connection taken out of its stream. Whoever holds this owns the socket and closes it."""

    sock: socket.socket  # non-blocking
    ssl: SSLObject | None  # None: plain TCP
    incoming: MemoryBIO | None  # shared by all connections, and empty
    outgoing: MemoryBIO | None  # the same
    ciphertext: bytes  # received, not yet given to TLS
    plaintext: bytes  # decrypted, not yet consumed


class Buffers:
    """The two shared buffers, and ready-made views into the second one."""

    def __init__(self) -> None:
        self.cipher = bytearray(MAX_RECORD_BYTES + READ_BYTES)
        self.cipher_view = memoryview(self.cipher)
        # An incomplete frame, one read behind it, and room to unpack a header at the very end.
        self.plain = bytearray(HEADER_BYTES + MAX_SEND_PACKET_BYTES + READ_BYTES + MAX_RECORD_BYTES)
        self.plain_view = memoryview(self.plain)
        self._strides: dict[int, list[memoryview]] = {}

    def strides(self, size: int) -> list[memoryview]:
        """Views at 0, size, 2 × size …: slicing one per packet would cost more than the packet's look-up."""
        views = self._strides.get(size)
        if views is None:
            if len(self._strides) >= STRIDES:
                self._strides.clear()
            views = [self.plain_view[at:] for at in range(0, READ_BYTES, size)]
            self._strides[size] = views
        return views


class Repeat(NamedTuple):
    """What the last frame of a connection looked like: the next one is probably of its kind."""

    size: int
    to: bytes
    sent_head: bytes  # SendPacket, length, destination
    new_head: bytes  # RecvPacket, length, source
    views: list[memoryview]


class Channel:
    __slots__ = ("_aligned", "_buffers", "_incoming", "_outgoing", "_tail", "_tls", "ended", "sock")

    def __init__(self, transport: Detached, buffers: Buffers) -> None:
        self.sock = transport.sock
        self.ended = False  # the peer said so, inside TLS
        self._tls = transport.ssl
        self._incoming = transport.incoming
        self._outgoing = transport.outgoing
        self._buffers = buffers
        self._tail = b""
        # Whether OpenSSL holds no part of a record, so that what comes next begins with a record's header.
        # After the login nobody knows.
        self._aligned = False

    @property
    def is_tls(self) -> bool:
        return self._tls is not None

    def receive(self, start: int, repeat: Repeat | None) -> tuple[int, int]:
        """Read once, and put the plaintext into the shared buffer at `start`.

        Returns where the plaintext ends, and where the part ends that needs no parsing any more, because its
        frames are like `repeat` and have been rewritten. Raises BlockingIOError if there is nothing, EOFError
        at the end, OSError (of which ssl.SSLError is one) if the connection is broken.
        """
        buffers = self._buffers
        if self._tls is None:
            got = self.sock.recv_into(buffers.plain_view[start : start + READ_BYTES])
            if not got:
                raise EOFError
            return start + got, 0
        tail = self._tail
        kept = len(tail)
        got = self.sock.recv_into(buffers.cipher_view[kept : kept + READ_BYTES])
        if not got:
            raise EOFError
        buffers.cipher[:kept] = tail
        return self._decrypt(kept + got, start, repeat)

    def receive_early(self, ciphertext: bytes, start: int) -> tuple[int, int]:
        """The same for at most READ_BYTES of ciphertext that someone else has read from the socket."""
        ciphertext = self._tail + ciphertext
        self._buffers.cipher[: len(ciphertext)] = ciphertext
        return self._decrypt(len(ciphertext), start, None)

    def _decrypt(self, size: int, start: int, repeat: Repeat | None) -> tuple[int, int]:
        """Give the first `size` bytes of the ciphertext buffer to OpenSSL."""
        assert self._tls is not None
        assert self._incoming is not None
        assert self._outgoing is not None
        assert not self._incoming.pending, "another connection left ciphertext behind"
        end, run_end = start, 0
        self._incoming.write(self._buffers.cipher_view[:size])
        try:
            if repeat is not None and self._aligned and not start:
                end, run_end = self._read_repeats(size, repeat)
            end = self._read_records(size, end)
        except ssl.SSLError:
            self._outgoing.read()  # an alert that nobody waits for
            raise
        finally:
            self._tail = self._incoming.read()
        return end, run_end

    def _read_repeats(self, size: int, repeat: Repeat) -> tuple[int, int]:
        """The fast path: records that hold one frame each, of the size and destination of the last one."""
        buffers = self._buffers
        plain = buffers.plain
        read = cast("ReadInto", self._tls.read)  # type: ignore[union-attr]  # the caller has TLS
        frame, _, sent_head, new_head, views = repeat
        record = RECORD_HEADER_BYTES + (buffers.cipher[3] << 8 | buffers.cipher[4])
        at = 0
        try:
            # Equal frames make equal records, so this many are there, or the first odd one ends the loop.
            for view in views[: size // record]:
                got = read(READ_BYTES, view)
                if got != frame or not plain.startswith(sent_head, at):
                    return at + got, at
                plain[at : at + HEAD_BYTES] = new_head
                at += frame
        except ssl.SSLWantReadError:  # it was an odd one, and has not arrived whole
            self._aligned = False
        return at, at

    def _read_records(self, size: int, end: int) -> int:
        """Append the plaintext of all complete records at `end`; the new end.

        OpenSSL would keep a 16 KiB buffer for a record of which it saw the start; so we look at the header
        first and leave an incomplete one in the BIO.
        """
        assert self._tls is not None
        assert self._incoming is not None
        cipher = self._buffers.cipher
        view = self._buffers.plain_view
        read = cast("ReadInto", self._tls.read)
        while left := self._incoming.pending:
            if self._aligned and left < MAX_RECORD_BYTES:
                if left < RECORD_HEADER_BYTES:
                    break
                at = size - left
                if left < RECORD_HEADER_BYTES + (cipher[at + 3] << 8 | cipher[at + 4]):
                    break
            try:
                got = read(READ_BYTES, view[end:])
            except ssl.SSLWantReadError:  # the end is missing, or the record was not for us (a key update)
                self._aligned = False
                continue
            if not got:
                self.ended = True
                break
            self._aligned = True
            end += got
        return end

    def take_output(self) -> bytes:
        """What OpenSSL wants to say by itself after a read, such as the answer to a key update."""
        return self._outgoing.read() if self._outgoing is not None and self._outgoing.pending else b""

    def seal(self, data: Data) -> Data:
        """Encrypt in one piece; plain TCP gets the data back. Raises ssl.SSLError."""
        if self._tls is None:
            return data
        assert self._outgoing is not None
        try:
            self._tls.write(data)
        finally:
            sealed = self._outgoing.read()
        return sealed

    def send(self, data: Data) -> int:
        """How much of it the kernel takes. Raises OSError if the connection is broken."""
        try:
            return self.sock.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
