"""Who is streaming, and when their sessions build a message: the trio shell of this package.

Map handlers sleep in `Stream.next`. One task lets them go: at once when it was quiet; else after a pause of twice what
the last round cost, so that a busy time makes fewer, larger rounds, and fan-out takes no more than a third of the loop.
Another one looks once a second for streams that have long been silent, and gives them a keep-alive: no timer for each.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

from control.errors import NotFound
from control.mapper.encode import encode_message, encode_object
from control.mapper.peers import timestamp
from control.mapper.session import Session, deleted_message
from control.mapper.world import World
from control.model import Tombstone
from control.tailcfg import map as wire
from control.tailcfg.codec import encode

# A client gives up after 120 s of silence. Upstream sends after 50 s and up to 8 s more, so that streams spread.
KEEP_ALIVE_S = 50
KEEP_ALIVE_JITTER_S = 8
WINDOW_MAX_S = 0.5  # a person waits for this; a fixed tick of 0.8 s is what others have
# A client that takes nothing for so long may live on permissions that it has lost (security.md M2).
STALLED_S = 60
_WHEEL = 64  # seconds, more than any interval
# Scheduler rounds until all who were woken have built their message, and it has passed the writers below them.
_STEPS = 4

Room = Callable[[], Awaitable[object]]


class Source(Protocol):
    """Where a stream's messages come from: a `Session`, or one message for the client of a deleted node."""

    zstd: bool
    stale: bool
    ended: bool

    def next_message(self, now: float) -> bytes | None: ...

    def close(self) -> None: ...


class OneMessage:
    """The source of a stream that is held open: its message, and nothing more."""

    def __init__(self, message: bytes, zstd: bool) -> None:
        self._message, self.zstd = message, zstd
        self.stale = True
        self.ended = False

    def next_message(self, now: float) -> bytes | None:
        self.stale = False
        return self._message

    def close(self) -> None:
        self.ended = True


class Stream:
    """One open map stream. Made by `Fanout.open`; `next` is called by one task."""

    __slots__ = (
        "_asleep",
        "_fanout",
        "_keep_alive_due",
        "due",
        "ended",
        "node_id",
        "pause",
        "released",
        "sent_at",
        "source",
    )

    def __init__(self, fanout: Fanout, source: Source, node_id: int | None, pause: int) -> None:
        self._fanout, self.source, self.node_id = fanout, source, node_id
        self._asleep: trio.Event | None = None
        self._keep_alive_due = False
        self.pause = pause  # seconds of silence until a keep-alive
        self.sent_at: int | None = None  # in seconds of the wheel
        self.due = 0  # when the wheel looks at it again
        self.released = True  # may build a message; the first one waits for nobody
        self.ended = False

    async def next(self, room: Room | None = None) -> bytes | None:
        """The next bytes to send, or None: end the stream.

        `room` waits until the connection can take something; what happens until then is in the message.
        """
        await trio.lowlevel.checkpoint()
        if self.sent_at is not None:
            self._fanout.established(self)
        while not (self.ended or self.source.ended):
            if not self._ready:
                self._asleep = trio.Event()
                await self._asleep.wait()
                self._asleep = None
            elif room is not None and not await self._has_room(room):
                return None
            elif (data := self._take()) is not None:
                return data
        return None

    def end(self) -> None:
        self.ended = True
        self._wake()

    def release(self) -> None:
        self.released = True
        self._wake()

    def keep_alive(self) -> None:
        self._keep_alive_due = True
        self._wake()

    @property
    def _ready(self) -> bool:
        return self._keep_alive_due or (self.released and self.source.stale)

    async def _has_room(self, room: Room) -> bool:
        with trio.move_on_after(STALLED_S):
            await room()
            return not self.ended
        return False

    def _take(self) -> bytes | None:
        data = None
        if self.released and self.source.stale:
            self.released = False
            data = self.source.next_message(self._fanout.clock())
            if self.source.stale:
                self._fanout.dirty(self)  # it owes another message
        if data is None and self._keep_alive_due:
            data = self._fanout.keep_alive_message(self.source.zstd)
        if data is not None:
            self._keep_alive_due = False  # any message is as good
            self.sent_at = self._fanout.second
        return data

    def _wake(self) -> None:
        if self._asleep is not None:
            self._asleep.set()


class Fanout:
    """`clock`: seconds since 1970, for clients. `run` must be running."""

    def __init__(
        self, world: World, *, clock: Callable[[], float], randbelow: Callable[[int], int] = secrets.randbelow
    ) -> None:
        self.world = world
        self.clock = clock
        self.second = 0  # of the wheel
        self._randbelow = randbelow
        self._streams: dict[int, list[Stream]] = {}  # by node, oldest first
        self._dirty: dict[Stream, None] = {}
        self._someone_dirty = trio.Event()
        self._wheel: list[dict[Stream, None]] = [{} for _ in range(_WHEEL)]
        self._keep_alives: dict[bool, bytes] = {}  # of this second

    # for map handlers

    def open(self, node_id: int, *, zstd: bool) -> Stream:
        """Older streams of the node end when this one's first message is written. Raises NotFound."""
        session = self._session(node_id, zstd)
        stream = self._stream(session, node_id)
        session.wake = lambda: self.dirty(stream)
        self._streams.setdefault(node_id, []).append(stream)
        return stream

    def open_deleted(self, stone: Tombstone, *, zstd: bool) -> Stream:
        """For the client of a deleted node: log in again. Then keep-alives (control.md §6.7)."""
        message = deleted_message(self.world, stone, zstd=zstd, now=self.clock())
        return self._stream(OneMessage(message, zstd), None)

    def full_map(self, node_id: int, *, zstd: bool) -> bytes:
        """One complete message, for a request that is no stream. Raises NotFound."""
        session = self._session(node_id, zstd)
        message = session.next_message(self.clock())
        session.close()
        assert message is not None, "there is always a first message"
        return message

    def close(self, stream: Stream) -> None:
        """The handler is done with it."""
        stream.ended = True
        stream.source.close()
        self._dirty.pop(stream, None)
        self._wheel[stream.due % _WHEEL].pop(stream, None)
        if stream.node_id is not None:
            streams = self._streams.get(stream.node_id, [])
            if stream in streams:
                streams.remove(stream)
                if not streams:
                    del self._streams[stream.node_id]

    def streams(self, node_id: int) -> int:
        """How many streams this node has: two for a moment when it reconnects."""
        return len(self._streams.get(node_id, ()))

    def end_all(self) -> None:
        """Shutdown: every stream ends after the message that it is writing."""
        for streams in self._wheel:
            for stream in streams:
                stream.end()

    # for streams

    def established(self, stream: Stream) -> None:
        """Its first message is written: it is the node's only stream from now on."""
        if stream.node_id is None:
            return
        streams = self._streams.get(stream.node_id, [stream])
        for older in streams[: streams.index(stream)]:
            older.end()

    def dirty(self, stream: Stream) -> None:
        self._dirty[stream] = None
        self._someone_dirty.set()

    def keep_alive_message(self, zstd: bool) -> bytes:
        """Never the bare form: newer clients then lose messages of the same length (control.md §7.4)."""
        message = self._keep_alives.get(zstd)
        if message is None:
            now = encode(timestamp(self.clock()))
            document = encode_object([("KeepAlive", b"true"), (wire.CONTROL_TIME, now)])
            message = self._keep_alives[zstd] = encode_message(document, zstd)
        return message

    # the two tasks

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run_rounds)
            nursery.start_soon(self._run_wheel)
            task_status.started()

    async def _run_rounds(self) -> None:
        while True:
            await self._someone_dirty.wait()
            self._someone_dirty = trio.Event()
            began = trio.current_time()
            released, self._dirty = self._dirty, {}
            for stream in released:
                stream.release()
            for _ in range(_STEPS):
                await trio.lowlevel.checkpoint()
            # Whatever else the loop had to do is part of the cost: under load, windows grow.
            await trio.sleep(min(2 * (trio.current_time() - began), WINDOW_MAX_S))

    async def _run_wheel(self) -> None:
        while True:
            await trio.sleep(1)
            self.second += 1
            self._keep_alives.clear()
            for stream in list(self._wheel[self.second % _WHEEL]):
                self._visit(stream)

    def _visit(self, stream: Stream) -> None:
        """It was due now, unless it has sent something meanwhile."""
        last = self.second if stream.sent_at is None else stream.sent_at
        if last + stream.pause <= self.second:
            stream.keep_alive()
            last = self.second
        self._schedule(stream, last + stream.pause)

    def _schedule(self, stream: Stream, due: int) -> None:
        self._wheel[stream.due % _WHEEL].pop(stream, None)
        stream.due = due
        self._wheel[due % _WHEEL][stream] = None

    def _session(self, node_id: int, zstd: bool) -> Session:
        try:
            return Session(self.world, node_id, zstd=zstd)
        except KeyError:
            raise NotFound("node not found") from None

    def _stream(self, source: Source, node_id: int | None) -> Stream:
        # A message is sent somewhere within its second of the wheel: one more, so as not to be early.
        pause = KEEP_ALIVE_S + 1 + self._randbelow(KEEP_ALIVE_JITTER_S)
        stream = Stream(self, source, node_id, pause)
        self._schedule(stream, self.second + pause)
        return stream
