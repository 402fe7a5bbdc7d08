"""The sending half of an HTTP/2 connection: one way out for everybody, and no faster than the client reads.

Frames are queued in h2, in the order in which they must leave. Whoever queued some writes, holding the lock; one write
takes everything that is queued by then, and the writer looks again before it lets go of the lock. So a task that finds
the lock taken may leave its frames to the holder.

A write is shielded from the cancellation of the handler that happens to do it: the stream below is lost if a record
leaves by half, and other requests live on it. It has a deadline instead, and the end of the connection ends it.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import trio
from h2.connection import H2Connection
from h2.errors import ErrorCodes

from control import limits

Headers: TypeAlias = Sequence[tuple[str, str]]


class Writer:
    """What leaves one connection. *end* is called, with a reason, when nothing can leave any more."""

    __slots__ = ("_end", "_lock", "_stream", "_unsent", "_window_changed", "_writing", "h2", "sent_bytes")

    def __init__(self, stream: trio.abc.Stream, h2: H2Connection, end: Callable[[str], None]) -> None:
        self._stream = stream
        self.h2 = h2
        self.sent_bytes = 0  # of bodies, since the beginning
        self._end = end
        self._lock = trio.Lock()
        self._unsent = bytearray()  # out of h2, not yet given to the stream
        self._window_changed: trio.Event | None = None  # exists only while somebody waits for it
        self._writing: trio.CancelScope | None = None

    def append(self, frame: bytes) -> None:
        """Queue a frame that h2 does not know of, behind those that it does."""
        self._collect()
        self._unsent += frame

    def _collect(self) -> int:
        self._unsent += self.h2.data_to_send()
        return len(self._unsent)

    async def flush(self) -> None:
        """Write what is queued, or leave it to the task that is writing. For the reader: it should read on.

        Cancelling it may tear a write: only for tasks whose cancellation is the end of the connection.
        """
        size = self._collect()
        if size and (size > limits.MAX_UNSENT_CONTROL_BYTES or not self._lock.locked()):
            async with self._lock:
                await self._write(shield=False)

    async def last_words(self) -> None:
        """Write what is queued although the connection is ending, if the client still reads."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + limits.LAST_WORDS_S):
            async with self._lock:
                await self._write(shield=False)

    def abort(self) -> None:
        """Give up a write that is under way. The stream is of no more use."""
        if self._writing is not None:
            self._writing.cancel()

    async def _write(self, *, shield: bool) -> None:
        """Write until nothing is queued. The caller holds the lock."""
        while self._collect():
            data, self._unsent = self._unsent, bytearray()
            deadline = trio.current_time() + limits.WRITE_S
            with trio.CancelScope(shield=shield, deadline=deadline) as self._writing:
                try:
                    await self._stream.send_all(data)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    self._end("connection lost")
            if self._writing.cancelled_caught:
                self._end("the client does not read")
            self._writing = None

    async def send_data(self, reply: "Reply", data: bytes, *, end_stream: bool) -> None:
        """Send *data* on the stream of *reply*, in pieces, as flow control permits."""
        rest = memoryview(data)
        deadline = trio.current_time() + limits.BLOCKED_S + len(rest) / limits.SLOWEST_BYTES_PER_S
        while True:
            async with self._lock:
                if not reply.cancelled:
                    rest = self._queue_data(reply.stream_id, rest, end_stream)
                await self._write(shield=True)  # always: others may have left frames to us
            if not rest:
                return
            await self.wait_for_window(reply, deadline)

    def _queue_data(self, stream_id: int, data: memoryview, end_stream: bool) -> memoryview:
        """Queue the frames that fit the window, at most one write's worth; return the rest."""
        if not data:  # the head may have ended the stream, and h2 forgotten it: do not ask for its window
            if end_stream:
                self.h2.end_stream(stream_id)
            return data
        room = min(self.h2.local_flow_control_window(stream_id), limits.SEAL_PIECE_BYTES)
        while data and room > 0:
            frame = data[: min(room, limits.MAX_FRAME_BYTES)]
            data = data[len(frame) :]
            room -= len(frame)
            self.sent_bytes += len(frame)
            self.h2.send_data(stream_id, bytes(frame), end_stream=end_stream and not data)
        return data

    async def wait_for_window(self, reply: "Reply", deadline: float) -> None:
        """Wait until the client takes more of this stream. At *deadline* the connection ends."""
        with trio.CancelScope(deadline=deadline) as waiting:
            while not reply.cancelled and self.h2.local_flow_control_window(reply.stream_id) <= 0:
                if self._window_changed is None:
                    self._window_changed = trio.Event()
                await self._window_changed.wait()
        if waiting.cancelled_caught:
            self._end("a stream is blocked")
        await trio.lowlevel.checkpoint()  # where a handler learns that it is cancelled

    def window_changed(self) -> None:
        """The client has opened a window: whoever waits for one should look."""
        if self._window_changed is not None:
            self._window_changed.set()
            self._window_changed = None


class Reply:
    """The response to one request. When its handler returns, the response ends."""

    __slots__ = ("_ended", "_writer", "scope", "started", "stream_id")

    def __init__(self, writer: Writer, stream_id: int) -> None:
        self._writer = writer
        self.stream_id = stream_id
        self.scope = trio.CancelScope()  # of the handler; cancelled when the client resets the stream
        self.started = False
        self._ended = False

    @property
    def cancelled(self) -> bool:
        """Whether nothing may be sent any more."""
        return self.scope.cancel_called

    async def respond(self, status: int, body: bytes = b"", headers: Headers = ()) -> None:
        """The whole response, with its length."""
        self._queue_headers(status, [("content-length", str(len(body))), *headers], end_stream=not body)
        self._ended = True
        await self._writer.send_data(self, body, end_stream=bool(body))

    async def start(self, status: int, headers: Headers = ()) -> None:
        """The head of a response without a known length; `send` goes on."""
        self._queue_headers(status, headers, end_stream=False)
        await self._writer.send_data(self, b"", end_stream=False)

    async def send(self, data: bytes) -> None:
        """More of the body. Waits for flow control: at any time one piece of 64 KiB is in our memory twice."""
        await self._writer.send_data(self, data, end_stream=False)

    async def wait_writable(self) -> None:
        """Return when `send` would not wait for the client, so that what is sent can be made late."""
        await self._writer.send_data(self, b"", end_stream=False)  # after whoever is writing now
        await self._writer.wait_for_window(self, trio.current_time() + limits.BLOCKED_S)

    async def end(self) -> None:
        """The end of the response, if it has not been sent."""
        if not self._ended:
            self._ended = True
            await self._writer.send_data(self, b"", end_stream=True)

    async def fail(self) -> None:
        """For a handler that failed: 500 if that can still be said, else a reset."""
        if not self.started:
            await self.respond(500, b"internal error\n")
        elif not self._ended and not self.cancelled:
            self._ended = True
            self._writer.h2.reset_stream(self.stream_id, ErrorCodes.INTERNAL_ERROR)
            await self._writer.flush()

    def _queue_headers(self, status: int, headers: Headers, *, end_stream: bool) -> None:
        self.started = True
        if not self.cancelled:
            lines = [(b":status", b"%d" % status)]
            lines += [(name.encode(), value.encode()) for name, value in headers]
            self._writer.h2.send_headers(self.stream_id, lines, end_stream=end_stream)
