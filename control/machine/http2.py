"""HTTP/2 inside Noise: requests in, responses and long polls out, on the sans-I/O h2 library.

One task reads. Each complete request gets a task of its own in the connection's nursery, which ends with its handler.
Everything leaves through one `Writer`. What an idle connection costs is one sleeping task, and one more for each long
poll: no timer of its own, no queue.

How a request ends:

- its handler returns: the response ends (END_STREAM);
- its handler fails: 500, or a reset if the response had begun; logged once; the connection and its other requests
  do not notice;
- the client resets it: the handler is cancelled;
- the connection ends, for one of the reasons that `serve` returns: all handlers are cancelled.

The client decides how fast it reads, and we keep nothing for it but the piece that its handler is trying to send. A
response that makes no way for a minute ends the connection. Limits for strangers, abuse budgets and times are in
`control/limits.py`.

Clients put anything into `:authority`, so requests are told apart by their path alone.

Source: RFC 9113; tailscale: control/ts2021/client.go (what the other end does).
"""

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TypeAlias

import trio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hpack.struct import Header
from hyperframe.frame import GoAwayFrame

from control import limits
from control.machine.abuse import RST_STREAM, FrameCounter
from control.machine.request import Request, Upload
from control.machine.writer import Reply, Writer

log = logging.getLogger("control.machine")

Handler: TypeAlias = Callable[[Request, Reply], Awaitable[None]]


class Connection:
    """One client's HTTP/2 connection.

    It starts as a stranger's, unless *registered*: few streams, small bodies, and thirty seconds to become more.
    *greeting* goes out in front of HTTP/2; *fields* tell in log lines whose connection it is.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        handler: Handler,
        *,
        registered: bool = False,
        greeting: bytes = b"",
        fields: Mapping[str, object] | None = None,
    ) -> None:
        now = trio.current_time()
        self._stream = stream
        self._handler = handler
        self._registered = registered
        self._pending_logins = 0
        self._stranger_until = now + limits.STRANGER_S
        self._h2 = _h2_server(limits.MAX_STREAMS if registered else limits.MAX_STREAMS_STRANGER)
        self._writer = Writer(stream, self._h2, self._end)
        self._writer.append(greeting)
        self._fields = dict(fields or {})
        self._frames = FrameCounter()
        self._uploads: dict[int, Upload] = {}  # by stream: requests whose body is not complete
        self._replies: dict[int, Reply] = {}  # by stream: requests whose handler runs
        self._bodies_bytes = 0  # of both
        self._heard_at = now
        self._pinged_at: float | None = None  # and nothing heard since
        self._draining = False
        self._close_at: float | None = None  # draining, and the last request is done
        self._ended: str | None = None  # why
        self._nursery: trio.Nursery
        self._reading: trio.CancelScope

    # --- what the service says ---------------------------------------------------------------------------------

    def registered(self) -> None:
        """The machine key belongs to a node: full limits, no deadline. Told to the client with the next write."""
        if not self._registered and self._ended is None:
            self._registered = True
            self._h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: limits.MAX_STREAMS})

    @contextmanager
    def hold(self) -> Iterator[None]:
        """While a login waits for a person a stranger may stay; afterwards its thirty seconds start again."""
        self._pending_logins += 1
        try:
            yield
        finally:
            self._pending_logins -= 1
            self._stranger_until = trio.current_time() + limits.STRANGER_S
            self._wake_by(self._stranger_until)

    def drain(self) -> None:
        """Take no more requests, let the running ones end, then close. The client opens a new connection."""
        if not self._draining and self._ended is None:
            self._draining = True
            # By hand: h2 would consider the connection closed, running requests and all.
            self._writer.append(GoAwayFrame(0, last_stream_id=self._h2.highest_inbound_stream_id).serialize())
            self._nursery.start_soon(self._writer.flush)
            self._close_when_drained()

    # --- life --------------------------------------------------------------------------------------------------

    async def serve(self) -> str:
        """Serve until the connection ends; returns why, for a log line. Raises only bugs and Cancelled."""
        try:
            async with trio.open_nursery() as self._nursery:
                try:
                    self._h2.initiate_connection()
                    self._h2.increment_flow_control_window(
                        limits.CONNECTION_WINDOW_BYTES - limits.STREAM_WINDOW_BYTES
                    )
                    await self._writer.flush()
                    await self._read_until_end()
                finally:
                    self._end("cancelled")
                    self._writer.abort()
        finally:
            await trio.aclose_forcefully(self._stream)
        assert self._ended is not None
        return self._ended

    def _end(self, reason: str) -> None:
        """Stop everything. The first reason is the one that counts."""
        self._ended = self._ended or reason
        for reply in self._replies.values():
            reply.scope.cancel()
        self._nursery.cancel_scope.cancel()

    async def _end_politely(self, reason: str) -> None:
        """Stop everything, and write what h2 has queued, which ends with a GOAWAY."""
        self._end(reason)
        await self._writer.last_words()

    async def _go_away(self, error: ErrorCodes, reason: str) -> None:
        self._h2.close_connection(error, additional_data=reason.encode())
        await self._end_politely(reason)

    async def _read_until_end(self) -> None:
        while self._ended is None:
            data: bytes | None = None
            # Only the reading is under this deadline: it must not tear a write.
            with trio.CancelScope(deadline=self._next_deadline()) as self._reading:
                try:
                    data = bytes(await self._stream.receive_some())
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    self._end("connection lost")
            if data is not None:
                await self._receive_data(data, trio.current_time())
            elif self._ended is None:
                await self._handle_deadline(trio.current_time())

    async def _receive_data(self, data: bytes, now: float) -> None:
        if not data:
            return self._end("closed by the client")
        self._heard_at, self._pinged_at = now, None
        if over := self._frames.receive_data(data, self._writer.sent_bytes, now):
            return await self._go_away(ErrorCodes.ENHANCE_YOUR_CALM, f"too many {over} frames")
        try:
            events = self._h2.receive_data(data)
        except ProtocolError as exc:
            return await self._end_politely(f"HTTP/2 error: {exc}")
        for event in events:
            self._receive(event, now)
        if over := self._frames.over_budget:
            return await self._go_away(ErrorCodes.ENHANCE_YOUR_CALM, f"too many {over} frames")
        return await self._writer.flush()

    # --- time --------------------------------------------------------------------------------------------------

    @property
    def _is_stranger(self) -> bool:
        return not self._registered and not self._pending_logins

    def _next_deadline(self) -> float:
        deadlines = [upload.deadline for upload in self._uploads.values()]
        if self._pinged_at is None:
            deadlines.append(self._heard_at + limits.SILENCE_BEFORE_PING_S)
        else:
            deadlines.append(self._pinged_at + limits.PING_ANSWER_S)
        if self._is_stranger:
            deadlines.append(self._stranger_until)
        if self._close_at is not None:
            deadlines.append(self._close_at)
        return min(deadlines)

    def _wake_by(self, deadline: float) -> None:
        if deadline < self._reading.deadline:
            self._reading.deadline = deadline

    async def _handle_deadline(self, now: float) -> None:
        if self._close_at is not None and now >= self._close_at:
            return self._end("drained")
        if self._is_stranger and now >= self._stranger_until:
            return await self._go_away(ErrorCodes.NO_ERROR, "a stranger without a login")
        if self._pinged_at is not None and now >= self._pinged_at + limits.PING_ANSWER_S:
            return self._end("the client does not answer")
        for stream_id in [i for i, upload in self._uploads.items() if now >= upload.deadline]:
            self._drop_upload(stream_id)
            self._h2.reset_stream(stream_id, ErrorCodes.CANCEL)
        if self._pinged_at is None and now >= self._heard_at + limits.SILENCE_BEFORE_PING_S:
            self._h2.ping(b"homeport")
            self._pinged_at = now
        return await self._writer.flush()

    # --- requests ----------------------------------------------------------------------------------------------

    def _receive(self, event: Event, now: float) -> None:
        match event:
            case RequestReceived(stream_id=int() as stream_id):
                self._receive_headers(stream_id, event.headers, now)
            case DataReceived():
                self._receive_body(event)
            case StreamEnded(stream_id=int() as stream_id):
                self._start(stream_id)
            case StreamReset(stream_id=stream_id):
                self._drop_upload(stream_id)
                if reply := self._replies.get(stream_id):
                    reply.scope.cancel()
                if not event.remote_reset:  # a client can make h2 reset a stream; it costs us the same
                    self._frames.charge(RST_STREAM, now)
            case WindowUpdated() | RemoteSettingsChanged():
                self._writer.window_changed()
            case ConnectionTerminated():
                self._end("closed by the client (GOAWAY)")

    def _receive_headers(self, stream_id: int, headers: list[Header], now: float) -> None:
        if self._draining:
            # h2 is ahead of its events, here and below: stream and connection may be over by now.
            with suppress(ProtocolError):
                self._h2.reset_stream(stream_id, ErrorCodes.REFUSED_STREAM)
            return
        self._uploads[stream_id] = Upload(headers, now + limits.BODY_S)

    def _receive_body(self, event: DataReceived) -> None:
        assert event.stream_id is not None
        self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        upload = self._uploads.get(event.stream_id)
        if upload is None:
            return  # refused
        upload.body += event.data
        self._bodies_bytes += len(event.data)
        most = limits.MAX_BODY_BYTES if self._registered else limits.MAX_BODY_BYTES_STRANGER
        if len(upload.body) > most or self._bodies_bytes > limits.MAX_BODIES_BYTES:
            fields = self._fields | {"path": upload.path, "limit": most}
            log.info("a request body was too large", extra=fields)
            self._drop_upload(event.stream_id)
            text = b"The request's body is too large: at most %d bytes are taken.\n" % most
            with suppress(ProtocolError):  # a response may overtake its request (RFC 9113 §8.1)
                lines = [(b":status", b"413"), (b"content-length", b"%d" % len(text))]
                self._h2.send_headers(event.stream_id, lines)
                self._h2.send_data(event.stream_id, text, end_stream=True)
                self._h2.reset_stream(event.stream_id, ErrorCodes.NO_ERROR)

    def _drop_upload(self, stream_id: int) -> None:
        if upload := self._uploads.pop(stream_id, None):
            self._bodies_bytes -= len(upload.body)

    def _start(self, stream_id: int) -> None:
        if upload := self._uploads.pop(stream_id, None):
            reply = self._replies[stream_id] = Reply(self._writer, stream_id)
            self._nursery.start_soon(self._run, upload.complete(), reply)

    async def _run(self, request: Request, reply: Reply) -> None:
        """One request, from its last byte to the end of its response."""
        with reply.scope:
            try:
                await self._handler(request, reply)
                if not reply.started:
                    raise RuntimeError("the handler has not answered")
            except Exception:  # the bug of one handler is not to end the other requests
                log.exception("bug in a request's handler", extra=self._fields | {"path": request.path})
                await reply.fail()
            else:
                await reply.end()
        del self._replies[reply.stream_id]
        self._bodies_bytes -= len(request.body)
        self._h2.open_inbound_streams  # noqa: B018  # by the way, h2 then forgets the streams that have ended
        self._close_when_drained()

    def _close_when_drained(self) -> None:
        if self._draining and not self._replies and not self._uploads and self._close_at is None:
            self._close_at = trio.current_time() + limits.LINGER_S
            self._wake_by(self._close_at)


class _H2Connection(H2Connection):
    MAX_CLOSED_STREAMS = limits.MAX_CLOSED_STREAMS
    DEFAULT_MAX_HEADER_LIST_SIZE = limits.MAX_HEADER_LIST_BYTES


_CONFIG = H2Configuration(
    client_side=False,
    header_encoding=None,
    validate_outbound_headers=False,  # ours come from `Reply` alone, in lower case
    normalize_outbound_headers=False,
)


def _h2_server(max_streams: int) -> H2Connection:
    h2 = _H2Connection(_CONFIG)
    # As initial values they bind the client at once; as an update they would only after it has acknowledged them.
    h2.local_settings = Settings(
        client=False,
        initial_values={
            SettingCodes.MAX_CONCURRENT_STREAMS: max_streams,
            SettingCodes.MAX_HEADER_LIST_SIZE: limits.MAX_HEADER_LIST_BYTES,
            SettingCodes.MAX_FRAME_SIZE: limits.MAX_FRAME_BYTES,
            SettingCodes.INITIAL_WINDOW_SIZE: limits.STREAM_WINDOW_BYTES,
        },
    )
    return h2
