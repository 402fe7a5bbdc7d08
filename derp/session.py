"""One logged-in client: read, rewrite in place, write at once; queue only if blocked.

A session is driven by plain method calls from the engine; nothing here waits. One call of `on_readable` is
one turn:

    channel ──► plaintext buffer ──► frames ──► runs ──► other sessions' channels

SendPacket becomes RecvPacket where it lies: type byte and key are overwritten. Neighbours for the same
destination form a *run*, looked up once, encrypted in one piece and sent with one call. If the kernel refuses,
the rest and whatever follows wait in a `Backlog`.

A session keeps of its own only what is incomplete. That is why an idle client costs so little.
"""

import logging
import ssl
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from derp.backlog import Backlog
from derp.channel import HEAD_BYTES, Channel, Data, Detached, Repeat
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
    short_key,
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

log = logging.getLogger("derp")

SEND_PACKET = int(FrameType.SEND_PACKET)
RECV_PACKET = int(FrameType.RECV_PACKET)
WRITES_PER_TURN = 4  # pieces of backlog sent before others get their turn


class Session:
    __slots__ = (
        "_engine",
        "_gone_bucket",
        "_partial",
        "_repeat",
        "backlog",
        "bytes_received",
        "bytes_sent",
        "channel",
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
        "stalled_since",
    )

    peer: "Peer[Session]"  # set by the engine before anything arrives

    def __init__(
        self, engine: "Engine", transport: Detached, key: bytes, remote: str, keep_alive_s: float, now: float
    ) -> None:
        self._engine = engine
        self.channel = Channel(transport, engine.buffers)
        self.fd = transport.sock.fileno()
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
        self._partial = b""  # incomplete frame
        self._repeat: Repeat | None = None
        self._gone_bucket: TokenBucket | None = None

    @property
    def fields(self) -> dict[str, object]:
        """For a log line."""
        return {"conn": self.fd, "node_key": short_key(self.key), "remote": self.remote}

    # --- reading -------------------------------------------------------------------------------------

    def on_readable(self, now: float) -> None:
        """One turn: at most one read of the socket and all that follows from it."""
        self._guarded(self._read, now)

    def resume(self, transport: Detached, early: bytes, now: float) -> None:
        """Work off what the login read too far: frames, then ciphertext. The socket will not announce them."""
        early += transport.plaintext
        for at in range(0, len(early), READ_BYTES):
            self._guarded(self._read_early, early[at : at + READ_BYTES], now)
        for at in range(0, len(transport.ciphertext), READ_BYTES):
            self._guarded(self._decrypt_early, transport.ciphertext[at : at + READ_BYTES], now)

    def _guarded(self, read: Callable[..., None], *args: object) -> None:
        """Whatever is wrong with what the client sent ends this connection and nothing else."""
        if self.ended is not None:
            return
        try:
            read(*args)
        except (BlockingIOError, InterruptedError):
            pass
        except ProtocolError as exc:
            log.debug("violation", extra=self.fields | {"reason": exc})
            self.end(CloseReason.PROTOCOL)
        except (OSError, EOFError):  # ssl.SSLError is an OSError
            self.end(CloseReason.CLIENT)

    def _read(self, now: float) -> None:
        channel = self.channel
        end, run_end = channel.receive(self._restore_partial(), self._repeat)
        self._digest(end, run_end, now)

    def _read_early(self, plaintext: bytes, now: float) -> None:
        start = self._restore_partial()
        end = start + len(plaintext)
        self._engine.buffers.plain[start:end] = plaintext
        self._consume(end, now)

    def _decrypt_early(self, ciphertext: bytes, now: float) -> None:
        end, run_end = self.channel.receive_early(ciphertext, self._restore_partial())
        self._digest(end, run_end, now)

    def _digest(self, end: int, run_end: int, now: float) -> None:
        output = self.channel.take_output()
        if output:
            self._send_sealed(output, now)
        self._consume(end, now, run_end)
        if self.channel.ended:
            raise EOFError

    def _restore_partial(self) -> int:
        """Put the incomplete frame back to the start of the buffer; its length."""
        partial = self._partial
        if partial:
            self._engine.buffers.plain[: len(partial)] = partial
        return len(partial)

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
            if frame and at == end and self.channel.is_tls:
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

    def _send(self, frames: Data, packets: int, now: float) -> None:
        sealed = self._seal(frames)
        if sealed is not None and self._send_sealed(sealed, now):
            self._count_sent(packets, len(frames))
        elif packets:
            self._engine.counters.drop(DropReason.WRITE_ERROR, packets, len(frames))

    def _seal(self, frames: Data) -> Data | None:
        try:
            return self.channel.seal(frames)
        except ssl.SSLError:
            self.end(CloseReason.CLIENT)
            return None

    def _send_sealed(self, sealed: Data, now: float) -> bool:
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

    def _try_send(self, data: Data) -> int:
        try:
            return self.channel.send(data)
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
