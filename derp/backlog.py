"""What a blocked connection still has to be sent, and how much of it there may be.

A backlog exists only while the kernel refuses to take more for a connection; then, in the order of sending:

    rest     bytes already encrypted and refused in part: they can only be sent, never dropped
    urgent   Pong, PeerGone, KeepAlive: small, and dropped when there is no room
    disco    NAT traversal, at most 32 packets: it has its own room so that bulk data does not drive it out
    data     everything else: 32 packets of any size, else 512 packets and 256 KiB

Plaintext frames wait, not ciphertext, since a TLS record once sealed must be sent. A full queue drops its
oldest: a late packet is worth less than a new one. Each byte also counts for its node key and for the
process (`Budget`).
"""

from collections import deque

from derp.counters import Counters, DropReason
from derp.frames import HEADER_BYTES, KEY_BYTES, looks_like_disco
from derp.limits import DISCO_FRAME_BYTES, URGENT_BYTES, Limits


class Budget:
    """So many bytes may wait, counted over several backlogs."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    @property
    def exceeded(self) -> bool:
        return self.used > self.limit


class Backlog:
    __slots__ = (
        "_counters",
        "_data",
        "_data_bytes",
        "_disco",
        "_key",
        "_limits",
        "_process",
        "_urgent",
        "rest",
    )

    def __init__(self, limits: Limits, counters: Counters, key: Budget, process: Budget) -> None:
        self._limits = limits
        self._counters = counters
        self._key = key
        self._process = process
        self.rest: bytes | memoryview = b""
        self._urgent = bytearray()
        self._disco: deque[bytes] = deque()
        self._data: deque[bytes] = deque()
        self._data_bytes = 0

    @property
    def packets(self) -> int:
        return len(self._disco) + len(self._data)

    @property
    def size(self) -> int:
        return len(self.rest) + len(self._urgent) + self._data_bytes + sum(map(len, self._disco))

    def push(self, frame: bytes) -> None:
        """Queue one RecvPacket frame, dropping the oldest for it if there is no room."""
        self._count(len(frame))
        packet = frame[HEADER_BYTES + KEY_BYTES : DISCO_FRAME_BYTES]
        if len(frame) <= DISCO_FRAME_BYTES and looks_like_disco(packet):
            self._disco.append(frame)
            if len(self._disco) > self._limits.queue_packets_any_size:
                self._drop(self._disco, DropReason.QUEUE_HEAD)
        else:
            self._data.append(frame)
            self._data_bytes += len(frame)
            while not self._data_fits():
                self._drop(self._data, DropReason.QUEUE_HEAD)
        while self._key.exceeded and self.packets:
            self._drop(self._data or self._disco, DropReason.QUEUE_KEY)

    def push_urgent(self, frame: bytes) -> None:
        """Queue a small frame of our own; without room it is left out, and the client copes."""
        if len(self._urgent) + len(frame) <= URGENT_BYTES:
            self._urgent += frame
            self._count(len(frame))

    def keep_rest(self, rest: bytes | bytearray | memoryview) -> None:
        """Keep what the kernel did not take, behind what is kept already."""
        self.rest = b"".join((self.rest, rest))
        self._count(len(rest))

    def rest_sent(self, size: int) -> None:
        self.rest = memoryview(self.rest)[size:] if size < len(self.rest) else b""
        self._count(-size)

    def take(self, most: int) -> tuple[bytes, int]:
        """Remove and return frames of about `most` bytes (at least one frame), and how many are packets."""
        frames = [bytes(self._urgent)]
        size = len(self._urgent)
        self._urgent.clear()
        packets = 0
        for queue in (self._disco, self._data):
            while queue and (size == 0 or size + len(queue[0]) <= most):
                frame = queue.popleft()
                size += len(frame)
                packets += 1
                frames.append(frame)
                if queue is self._data:
                    self._data_bytes -= len(frame)
        self._count(-size)
        return b"".join(frames), packets

    def halve(self) -> None:
        """Drop the older half of the packets: the process is full, and this backlog is the largest."""
        for _ in range((self.packets + 1) // 2):
            self._drop(self._data or self._disco, DropReason.QUEUE_PROCESS)

    def discard(self) -> None:
        """The connection has ended: give everything back."""
        while self.packets:
            self._drop(self._data or self._disco, DropReason.GONE_DISCONNECTED)
        self._count(-len(self._urgent) - len(self.rest))
        self._urgent.clear()
        self.rest = b""

    def _data_fits(self) -> bool:
        limits = self._limits
        waiting = len(self._data)
        return waiting <= limits.queue_packets_any_size or (
            waiting <= limits.queue_packets and self._data_bytes <= limits.queue_bytes
        )

    def _drop(self, queue: deque[bytes], reason: DropReason) -> None:
        frame = queue.popleft()
        if queue is self._data:
            self._data_bytes -= len(frame)
        self._count(-len(frame))
        self._counters.drop(reason, 1, len(frame))

    def _count(self, size: int) -> None:
        self._key.used += size
        self._process.used += size
