"""One logged-in client: read, rewrite in place, write at once; queue only if blocked.

A session is driven by plain method calls from the engine; nothing here waits. One call of `on_readable` is
one turn:

    socket ──► ciphertext buffer ──► OpenSSL ──► plaintext buffer ──► runs ──► other sessions' sockets

The two buffers belong to the engine and are shared by all connections, and so are the two memory BIOs through
which OpenSSL is fed: a connection keeps only what is incomplete, a partial TLS record and a partial frame.
That is why an idle client costs so little. It is sound because a turn is synchronous, and as long as one rule
holds: *both BIOs are empty between two operations*. After reading, what OpenSSL did not take is taken back;
after writing, what it made is taken at once.

SendPacket becomes RecvPacket where it lies: type byte and key are overwritten. Neighbours for the same
destination form a *run*, looked up once, encrypted in one piece and sent with one call. If the kernel refuses,
the rest and whatever follows wait in a `Backlog`.

Source of the form and its measurements: the design notes of this project; of the rules, derp/frames.py.
"""

import socket
import ssl
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple, cast

from derp.backlog import Backlog
from derp.counters import CloseReason, DropReason
from derp.errors import ProtocolError
from derp.frames import (
    HEADER,
    HEADER_AND_KEY,
    HEADER_BYTES,
    KEY_BYTES,
    FrameType,
    GoneReason,
    check_client_frame,
    encode_peer_gone,
    encode_pong,
    looks_like_disco,
)
from derp.limits import (
    MAX_SEND_PACKET_BYTES,
    PEER_GONE_BURST,
    PEER_GONE_PER_S,
    READ_BYTES,
    WRITE_BYTES,
    TokenBucket,
)
from derp.relay import Peer

if TYPE_CHECKING:
    from derp.engine import Engine

ReadInto = Callable[[int, memoryview], int]  # SSLObject.read with a buffer; typeshed knows only the other

SEND_PACKET = int(FrameType.SEND_PACKET)
RECV_PACKET = int(FrameType.RECV_PACKET)
HEAD_BYTES = HEADER_BYTES + KEY_BYTES  # what a rewritten frame gets anew
RECORD_HEADER_BYTES = 5  # TLS: type, version, length (16, big-endian)
MAX_RECORD_BYTES = RECORD_HEADER_BYTES + (16 << 10) + 320  # header, most plaintext, most expansion
WRITES_PER_TURN = 4  # pieces of backlog sent before others get their turn


class Transport(NamedTuple):
    """A connection taken out of its stream. Whoever holds this owns the socket and closes it."""

    sock: socket.socket  # non-blocking
    ssl: ssl.SSLObject | None  # None: plain TCP
    incoming: ssl.MemoryBIO | None  # shared by all connections, and empty
    outgoing: ssl.MemoryBIO | None  # the same
    ciphertext: bytes  # received, not yet given to TLS
    plaintext: bytes  # decrypted, not yet consumed


class Buffers:
    """The two process-wide buffers, and ready-made views into the second one."""

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
            if len(self._strides) >= 8:  # traffic has few packet sizes at a time
                self._strides.clear()
            views = [self.plain_view[at:] for at in range(0, READ_BYTES, size)]
            self._strides[size] = views
        return views


class Repeat(NamedTuple):
    """The last frame of a connection: the next one probably looks the same."""

    size: int
    to: bytes
    sent_head: bytes  # SendPacket, length, destination
    new_head: bytes  # RecvPacket, length, source
    views: list[memoryview]


class Session:
    __slots__ = (
        "_engine",
        "_gone_bucket",
        "_incoming",
        "_outgoing",
        "_partial",
        "_repeat",
        "_tail",
        "_tls",
        "backlog",
        "bytes_received",
        "bytes_sent",
        "ended",
        "fd",
        "home",
        "joined",
        "joined_packets",
        "keep_alive_s",
        "key",
        "opened_at",
        "peer",
        "remote",
        "sock",
        "stalled_since",
    )

    peer: "Peer[Session]"  # set by the engine before anything arrives

    def __init__(
        self, engine: "Engine", transport: Transport, key: bytes, remote: str, keep_alive_s: float, now: float
    ) -> None:
        self._engine = engine
        self.sock = transport.sock
        self.fd = transport.sock.fileno()
        self._tls = transport.ssl
        self._incoming = transport.incoming
        self._outgoing = transport.outgoing
        self.key = key
        self.remote = remote
        self.keep_alive_s = keep_alive_s
        self.opened_at = now
        self.ended: CloseReason | None = None
        self.home = False
        self.backlog: Backlog | None = None  # not None: the kernel takes nothing at the moment
        self.stalled_since = 0.0
        self.joined: bytearray | None = None  # small runs of this round
        self.joined_packets = 0
        self.bytes_received = 0
        self.bytes_sent = 0
        self._tail = b""  # incomplete TLS record
        self._partial = b""  # incomplete frame
        self._repeat: Repeat | None = None
        self._gone_bucket: TokenBucket | None = None

    # --- reading -------------------------------------------------------------------------------------

    def on_readable(self, now: float) -> None:
        """One turn: at most one read of the socket and all that follows from it."""
        try:
            if self._tls is None:
                self._read_plain(now)
            else:
                self._read_tls(now)
        except (BlockingIOError, InterruptedError):
            pass
        except ProtocolError as exc:
            self._engine.log_violation(self, exc)
            self.end(CloseReason.PROTOCOL)
        except (OSError, EOFError):  # ssl.SSLError is an OSError
            self.end(CloseReason.CLIENT)

    def resume(self, transport: Transport, early: bytes, now: float) -> None:
        """Work off what the login read too far: frames, then ciphertext. The socket will not announce them."""
        buffers = self._engine.buffers
        early += transport.plaintext
        try:
            for at in range(0, len(early), READ_BYTES):
                piece = early[at : at + READ_BYTES]
                end = self._restore_partial(len(piece))
                buffers.plain[end - len(piece) : end] = piece
                self._consume(end, now)
            for at in range(0, len(transport.ciphertext), READ_BYTES):
                piece = self._tail + transport.ciphertext[at : at + READ_BYTES]
                buffers.cipher[: len(piece)] = piece
                self._decrypt(len(piece), now)
        except ProtocolError as exc:
            self._engine.log_violation(self, exc)
            self.end(CloseReason.PROTOCOL)
        except (OSError, EOFError):
            self.end(CloseReason.CLIENT)

    def _restore_partial(self, room: int) -> int:
        """Put the incomplete frame back to the start of the buffer. Returns where `room` more bytes would end."""
        partial = self._partial
        self._engine.buffers.plain[: len(partial)] = partial
        return len(partial) + room

    def _read_plain(self, now: float) -> None:
        start = self._restore_partial(0)
        got = self.sock.recv_into(self._engine.buffers.plain_view[start : start + READ_BYTES])
        if not got:
            raise EOFError
        self._consume(start + got, now)

    def _read_tls(self, now: float) -> None:
        buffers = self._engine.buffers
        tail = self._tail
        kept = len(tail)
        got = self.sock.recv_into(buffers.cipher_view[kept : kept + READ_BYTES])
        if not got:
            raise EOFError
        buffers.cipher[:kept] = tail
        self._decrypt(kept + got, now)

    def _decrypt(self, size: int, now: float) -> None:
        """Give the first `size` bytes of the ciphertext buffer to OpenSSL, and its plaintext to `_consume`."""
        assert self._tls is not None
        assert self._incoming is not None
        assert self._outgoing is not None
        assert not self._incoming.pending, "another connection left ciphertext behind"
        end = self._restore_partial(0)
        run_end = 0
        open_ended = True
        self._incoming.write(self._engine.buffers.cipher_view[:size])
        try:
            if not end and self._repeat is not None:
                end, run_end = self._read_repeats(size, self._repeat)
            end, open_ended = self._read_records(size, end)
        except ssl.SSLError:
            self._outgoing.read()  # an alert that nobody waits for
            raise
        finally:
            self._tail = self._incoming.read()
        if self._outgoing.pending:  # OpenSSL answered something by itself, such as a key update
            self._send_sealed(self._outgoing.read(), now)
        self._consume(end, now, run_end)
        if not open_ended:
            raise EOFError

    def _read_repeats(self, size: int, repeat: Repeat) -> tuple[int, int]:
        """The fast path: records that hold one frame each, of the same size and destination as the last one.

        Returns the end of all plaintext and the end of the part that is a finished run.
        """
        assert self._tls is not None
        buffers = self._engine.buffers
        plain = buffers.plain
        read = cast("ReadInto", self._tls.read)
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
        except ssl.SSLWantReadError:
            pass
        return at, at

    def _read_records(self, size: int, end: int) -> tuple[int, bool]:
        """Append the plaintext of all complete records at `end`. Returns the new end and whether more may come.

        OpenSSL would keep a 16 KiB buffer for a record it saw the start of; so we look at the header first
        and leave an incomplete one in the BIO.
        """
        assert self._tls is not None
        assert self._incoming is not None
        buffers = self._engine.buffers
        cipher = buffers.cipher
        read = cast("ReadInto", self._tls.read)
        while left := self._incoming.pending:
            if left < MAX_RECORD_BYTES:
                at = size - left
                if left < RECORD_HEADER_BYTES or left < RECORD_HEADER_BYTES + (
                    cipher[at + 3] << 8 | cipher[at + 4]
                ):
                    break
            try:
                got = read(READ_BYTES, buffers.plain_view[end:])
            except ssl.SSLWantReadError:  # the record was not for us, such as a key update
                continue
            if not got:
                return end, False
            end += got
        return end, True

    # --- frames --------------------------------------------------------------------------------------

    def _consume(self, end: int, now: float, at: int = 0) -> None:
        """Handle the frames in the first `end` bytes of the plaintext buffer.

        The first `at` bytes are a run that the fast path has rewritten already.
        """
        engine = self._engine
        plain = engine.buffers.plain
        unpack = HEADER_AND_KEY.unpack_from
        own_key = self.key
        if len(self.peer.connections) > 1:
            engine.relay.spoke(self.peer, self)
        self.bytes_received += end - len(self._partial)
        start, packets, to = 0, 0, b""
        if at and self._repeat is not None:
            to, packets = self._repeat.to, at // self._repeat.size
        frame = 0
        while end - at >= HEADER_BYTES:
            kind, length, key = unpack(plain, at)
            if kind == SEND_PACKET:
                if not KEY_BYTES <= length <= MAX_SEND_PACKET_BYTES:
                    check_client_frame(kind, length)
                frame = HEADER_BYTES + length
                if at + frame > end:
                    break
                if key != to:
                    if packets:
                        self._forward(to, start, at, packets, now)
                    start, packets, to = at, 0, key
                plain[at] = RECV_PACKET
                plain[at + HEADER_BYTES : at + HEAD_BYTES] = own_key
                packets += 1
                at += frame
                continue
            check_client_frame(kind, length)
            if at + HEADER_BYTES + length > end:
                break
            if packets:
                self._forward(to, start, at, packets, now)
            self._handle(kind, plain[at + HEADER_BYTES : at + HEADER_BYTES + length], now)
            at += HEADER_BYTES + length
            start, packets, to = at, 0, b""
        if packets:
            self._forward(to, start, at, packets, now)
            if frame and at == end and self._tls is not None:
                self._expect_repeat(frame, to)
        self._partial = bytes(plain[at:end])

    def _expect_repeat(self, frame: int, to: bytes) -> None:
        """The last frame had `frame` bytes and went to `to`: be ready for more of its kind."""
        if self._repeat is not None and self._repeat[:2] == (frame, to):
            return
        length = frame - HEADER_BYTES
        self._repeat = Repeat(
            frame,
            to,
            HEADER_AND_KEY.pack(SEND_PACKET, length, to),
            HEADER_AND_KEY.pack(RECV_PACKET, length, self.key),
            self._engine.buffers.strides(frame),
        )

    def _handle(self, kind: int, payload: bytearray, now: float) -> None:
        """Everything but SendPacket."""
        counters = self._engine.counters
        if kind == FrameType.PING:
            counters.pings += 1
            counters.pongs += 1
            self.write_urgent(encode_pong(bytes(payload[:8])), now)
        elif kind == FrameType.NOTE_PREFERRED:
            home = payload[0] != 0
            counters.home_connections += home - self.home
            self.home = home
        else:
            counters.unknown_frames += 1

    def _forward(self, to: bytes, start: int, end: int, packets: int, now: float) -> None:
        """Hand a run, which lies rewritten in the plaintext buffer, to its destination."""
        engine = self._engine
        counters = engine.counters
        counters.packets_received += packets
        counters.bytes_received += end - start
        peer = engine.relay.peers.get(to)
        if peer is None:
            self._nobody_there(to, start, end, packets, now)
            return
        active = peer.active
        if active not in self.peer.reached:
            engine.relay.delivered(self.peer, active)
        engine.deliver(active, engine.buffers.plain_view[start:end], packets, now)

    def _nobody_there(self, to: bytes, start: int, end: int, packets: int, now: float) -> None:
        """Drop a run; answer its NAT traversal messages, so that the client stops trying this relay."""
        counters = self._engine.counters
        counters.drop(DropReason.UNKNOWN_DEST, packets, end - start)
        for frame in split_frames(self._engine.buffers.plain_view[start:end]):
            if not looks_like_disco(frame[HEAD_BYTES:]):
                continue
            if self._gone_bucket is None:
                self._gone_bucket = TokenBucket(PEER_GONE_PER_S, PEER_GONE_BURST, now)
            if not self._gone_bucket.take(now):
                return
            counters.peer_gone_not_here += 1
            self.write_urgent(encode_peer_gone(to, GoneReason.NOT_HERE), now)

    # --- writing -------------------------------------------------------------------------------------

    def write(self, frames: memoryview | bytearray, packets: int, now: float) -> None:
        """Send RecvPacket frames now, or queue them if the kernel is full."""
        if self.ended is not None:
            self._engine.counters.drop(DropReason.GONE_DISCONNECTED, packets, len(frames))
        elif self.backlog is None:
            self._send(frames, packets, now)
        else:
            for frame in split_frames(frames):
                self.backlog.push(frame)
            self._engine.relieve()

    def write_urgent(self, frame: bytes, now: float) -> None:
        """Send a small frame of the relay's own."""
        if self.ended is not None:
            return
        if self.backlog is None:
            self._send(frame, 0, now)
        else:
            self.backlog.push_urgent(frame)

    def on_writable(self, now: float) -> None:
        """The kernel has room again: first what it refused, then what has waited."""
        for _ in range(WRITES_PER_TURN):
            backlog = self.backlog
            if backlog is None or self.ended is not None:
                return
            if backlog.rest:
                sent = self._try_send(backlog.rest)
                if sent:
                    self.stalled_since = now
                    backlog.rest_sent(sent)
                if backlog.rest or self.ended is not None:
                    return
            frames, packets = backlog.take(WRITE_BYTES)
            if not frames:
                self.backlog = None
                self._engine.unblock(self)
                return
            sealed = self._seal(frames)
            if sealed is None:
                self._engine.counters.drop(DropReason.WRITE_ERROR, packets, len(frames))
                return
            self._count_sent(packets, len(frames))
            backlog.keep_rest(sealed)

    def _send(self, frames: bytes | bytearray | memoryview, packets: int, now: float) -> None:
        sealed = self._seal(frames)
        if sealed is not None and self._send_sealed(sealed, now):
            self._count_sent(packets, len(frames))
        elif packets:
            self._engine.counters.drop(DropReason.WRITE_ERROR, packets, len(frames))

    def _seal(self, frames: bytes | bytearray | memoryview) -> bytes | bytearray | memoryview | None:
        if self._tls is None:
            return frames
        assert self._outgoing is not None
        try:
            self._tls.write(frames)
        except ssl.SSLError:
            self.end(CloseReason.CLIENT)
            return None
        finally:
            sealed = self._outgoing.read()
        return sealed

    def _send_sealed(self, sealed: bytes | bytearray | memoryview, now: float) -> bool:
        """Send, or keep what the kernel refuses. Whether the connection is still alive afterwards."""
        if self.backlog is not None:  # only what OpenSSL says by itself comes here while blocked
            self.backlog.keep_rest(sealed)
            self._engine.relieve()
            return True
        sent = self._try_send(sealed)
        if self.ended is not None:
            return False
        if sent < len(sealed):
            engine = self._engine
            self.stalled_since = now
            self.backlog = Backlog(engine.limits, engine.counters, self.peer.backlog, engine.backlogs)
            self.backlog.keep_rest(memoryview(sealed)[sent:])
            engine.block(self)
        return True

    def _try_send(self, data: bytes | bytearray | memoryview) -> int:
        try:
            return self.sock.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            self.end(CloseReason.CLIENT)
            return 0

    def _count_sent(self, packets: int, size: int) -> None:
        self.bytes_sent += size
        if packets:
            self._engine.counters.packets_sent += packets
            self._engine.counters.bytes_sent += size

    # --- the end -------------------------------------------------------------------------------------

    def end(self, reason: CloseReason) -> None:
        """Be dead from now on. The engine buries the dead when nobody is in the middle of using them."""
        if self.ended is None:
            self.ended = reason
            self._engine.mourn(self)


def split_frames(frames: memoryview | bytearray) -> Iterator[bytes]:
    """Whole frames, one by one, as bytes of their own."""
    at = 0
    while at < len(frames):
        end = at + HEADER_BYTES + HEADER.unpack_from(frames, at)[1]
        yield bytes(frames[at:end])
        at = end
