"""Pages: one request at a time through Hypercorn to a Quart application.

Our own loop reads every request head (`connection.py`) and enters here only for a page, with the bytes as they came. One
exchange runs through Hypercorn's `H11Protocol`; when it is answered, the bytes that follow come back and our loop goes on.
So an upgrade works on a connection that has served pages before, and no connection of a node or the relay pays for ASGI.

**The only file that knows Hypercorn's inside.** It leans on these private names of 0.18, which is why the dependency is
pinned: `H11Protocol.connection`, `_check_protocol`, `_send_error_response`; `TaskGroup`; the order of `Updated(idle=True)`
after the last byte of an exchange. What of Hypercorn is fenced, each with a test in tests/appliance/door/test_asgi.py:

- HTTP/2 buffers without bound when a client keeps its window closed. It cannot be reached: not by ALPN, and prior
  knowledge and `Upgrade: h2c` are refused in `_OneExchange` (and before, in `head.py`).
- Its writes are shielded, so that a client which stops reading cannot be cancelled. Ours are not, and have a deadline.
- Responses that stream for ever do not hear of a shutdown. The door ends them by closing sockets after its grace.
"""

from __future__ import annotations

import logging

import h11
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from quart_trio import QuartTrio

from appliance.door.limits import HEAD_BYTES, PAGE_BODY_BYTES

Address = tuple[str, int]


class _Refused(Exception):
    """The request asked for HTTP/2; it has its answer."""


class PageServer:
    """Serves a Quart application, exchange by exchange."""

    def __init__(self, app: QuartTrio) -> None:
        app.config["MAX_CONTENT_LENGTH"] = PAGE_BODY_BYTES
        self._app = ASGIWrapper(app)
        self._config = _config()
        self._context = WorkerContext(None)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the application's lifespan open: its start-up before, its background tasks meanwhile."""
        lifespan = Lifespan(self._app, self._config, {})
        async with trio.open_nursery() as nursery:
            await nursery.start(lifespan.handle_lifespan)
            await lifespan.wait_for_startup()
            task_status.started()
            await trio.sleep_forever()

    async def serve(
        self, stream: trio.abc.Stream, received: bytes, *, client: Address, server: Address, https: bool
    ) -> bytes | None:
        """Answer the request that `received` begins with.

        Returns the bytes that were read beyond it if the connection can go on; None if it is over.
        """
        exchange = _Exchange(self, stream, received)
        return await exchange.run(client, server, https)


class _Exchange:
    """One request and its answer."""

    def __init__(self, server: PageServer, stream: trio.abc.Stream, received: bytes) -> None:
        self._server = server
        self._stream = stream
        self._received = received
        self._order = trio.Lock()
        self._reading = trio.CancelScope()
        self._rest: bytes | None = None

    async def run(self, client: Address, server: Address, https: bool) -> bytes | None:
        page_server = self._server
        async with TaskGroup() as group:
            self._protocol = _OneExchange(
                page_server._app, page_server._config, page_server._context, group,
                ConnectionState({}), https, client, server, self._send,
            )  # fmt: skip
            with self._reading:
                await self._read()
        return self._rest

    async def _read(self) -> None:
        data = self._received
        while True:
            try:
                await self._protocol.handle(RawData(data))
            except _Refused:
                break
            if not data:
                break
            try:
                data = bytes(await self._stream.receive_some())
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                break
            if self._rest is not None:  # answered in the very moment that more came in
                self._rest += data
                return
        await self._protocol.handle(Closed())

    async def _send(self, event: Event) -> None:
        """What the protocol wants done, from the reader's task and from the application's."""
        if self._rest is not None:
            await trio.sleep_forever()  # the reader went on to a pipelined request: it is cancelled here
        if isinstance(event, RawData):
            try:
                async with self._order:
                    await self._stream.send_all(event.data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                await self._protocol.handle(Closed())
        elif isinstance(event, Closed):
            await self._stream.aclose()
            await self._protocol.handle(Closed())
        elif isinstance(event, Updated) and event.idle:
            self._rest = bytes(self._protocol.connection.trailing_data[0])
            self._reading.cancel()


class _OneExchange(H11Protocol):
    """Hypercorn's HTTP/1.1, without its ways into HTTP/2."""

    async def _check_protocol(self, event: h11.Request) -> None:
        upgrades = [value.lower() for name, value in event.headers if name.lower() == b"upgrade"]
        if event.http_version not in (b"1.0", b"1.1") or any(b"h2c" in value for value in upgrades):
            await self._send_error_response(505)
            await self.send(Closed())
            raise _Refused


def _config() -> Config:
    config = Config()
    config.accesslog = None
    config.errorlog = logging.getLogger("appliance.pages")
    config.h11_max_incomplete_size = HEAD_BYTES
    config.include_server_header = False
    return config
