"""The command line's way in: HTTP/1.1 and JSON over a Unix socket, for root and for the user we run as.

    appliance ──connect──► STATE/appliance.sock (0600, in a folder that others cannot write)
              GET /api/v1/nodes HTTP/1.1
              ◄── 200, one JSON document; refusals are {"error": what, "hint": what to do}

Who connects is told by the kernel (SO_PEERCRED), not by the request: that the caller reached the socket proves nothing
by itself. A request with an `Origin` comes from a browser that was led here, and is refused; so is HTTP/2, for which nothing
here is bounded.
(security.md L1, F3)
"""

from __future__ import annotations

import json
import logging
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import h11
import trio

from appliance.errors import OperatorError
from appliance.socket_path import NOBODY, peer_uid, short_name

CONNECTIONS = 16  # one person, a few scripts
BODY_MAX = 1024 * 1024  # a policy text is the largest thing sent
HEAD_MAX = 16 * 1024
HEAD_S = 10.0
IDLE_S = 60.0
BODY_S = 60.0
WRITE_S = 30.0
LINGER_S = 1.0  # a close with unread bytes would take the refusal away from who is still sending
READ_SIZE = 64 * 1024
BACKLOG = 64

Answer = tuple[int, dict[str, Any] | list[Any]]
Handler = Callable[[str, str, dict[str, str], bytes, int], Awaitable[Answer]]

log = logging.getLogger("appliance.socket")


class _Refused(Exception):
    """Answer this and close."""

    def __init__(self, status: int, error: str, hint: str = "") -> None:
        super().__init__(error)
        self.answer: Answer = status, {"error": error, "hint": hint}


def bind_socket(path: Path) -> socket.socket:
    """Listen on `path`, mode 0600 from the first moment. The caller holds the state's lock, so a file there is a leftover."""
    _check_folder(path.parent)
    try:
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
    except FileNotFoundError:
        pass
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        with short_name(path) as name:
            listener.bind(name)
        listener.listen(BACKLOG)
    except OSError as exc:
        listener.close()
        raise OperatorError(f"cannot listen on {path}: {exc.strerror}", "remove what is there") from exc
    finally:
        os.umask(before)
    return listener


def _check_folder(folder: Path) -> None:
    """The folder decides who can put another socket in our place."""
    try:
        folder.mkdir(mode=0o750, exist_ok=True)
        status = folder.lstat()
    except OSError as exc:
        hint = "start with --state DIR, or let systemd make it (RuntimeDirectory=appliance)"
        raise OperatorError(f"cannot use {folder} for the socket: {exc.strerror}", hint) from exc
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o027:
        raise OperatorError(
            f"{folder} is not safe for the socket: others could replace it",
            f"it must be a folder of user {os.geteuid()} with mode 0700 or 0750",
        )


async def serve_socket(
    listener: socket.socket,
    handle: Handler,
    *,
    connections: int = CONNECTIONS,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled. The path of the socket stays: the next start replaces it under the lock."""
    server = _Server(handle, connections)
    with trio.socket.from_stdlib_socket(listener) as accepting:
        async with trio.open_nursery() as connections_nursery:
            task_status.started()
            while True:
                accepted, _ = await accepting.accept()
                connections_nursery.start_soon(server.serve, accepted)


def may_connect(uid: int) -> bool:
    return uid in (0, os.geteuid()) and uid != NOBODY


class _Server:
    def __init__(self, handle: Handler, connections: int) -> None:
        self.handle = handle
        self.connections = connections
        self.active = 0

    async def serve(self, accepted: trio.socket.SocketType) -> None:
        """One connection, from its credentials to its end; nothing that happens in it reaches another."""
        stream = trio.SocketStream(accepted)
        self.active += 1
        try:
            uid = peer_uid(accepted)
            connection = _Connection(stream, self.handle, uid)
            if not may_connect(uid):
                hint = "run it as root or as the server's user"
                log.warning("refused a user at the command line's socket", extra={"uid": uid, "hint": hint})
                await connection.refuse(_Refused(403, f"user {uid} may not use this socket", hint))
            elif self.active > self.connections:
                await connection.refuse(_Refused(503, "too many commands at once", "try again"))
            else:
                await connection.serve()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            log.debug("a command went away")
        except Exception:
            log.exception("bug in a command's connection")
        finally:
            self.active -= 1
            await trio.aclose_forcefully(stream)


class _Connection:
    def __init__(self, stream: trio.abc.HalfCloseableStream, handle: Handler, uid: int) -> None:
        self.stream = stream
        self.handle = handle
        self.uid = uid
        self.http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_MAX)

    async def serve(self) -> None:
        """Request after request; the first one has less time than an idle connection between two."""
        wait_s = HEAD_S
        try:
            while await self._one_request(wait_s):
                wait_s = IDLE_S
        except _Refused as exc:
            await self.refuse(exc)
        except h11.RemoteProtocolError as exc:
            await self.refuse(_Refused(exc.error_status_hint, f"not a request: {exc}"))

    async def refuse(self, refusal: _Refused) -> None:
        if self.http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            await self._answer(*refusal.answer, close=True)
            with trio.move_on_after(LINGER_S):
                await self.stream.send_eof()
                while await self.stream.receive_some(READ_SIZE):
                    pass

    async def _one_request(self, wait_s: float) -> bool:
        """Read, handle and answer one request; False when the connection is over."""
        with trio.move_on_after(wait_s) as head_scope:
            request = await self._next_event()
        if head_scope.cancelled_caught or not isinstance(request, h11.Request):
            return False
        _check_head(request)
        body = await self._body()
        path, _, query = request.target.decode("ascii").partition("?")
        fields = dict(parse_qsl(query, keep_blank_values=True, max_num_fields=50))
        try:
            status, document = await self.handle(request.method.decode("ascii"), path, fields, body, self.uid)
        except Exception:
            log.exception("bug in a command's handler")
            status, document = 500, {"error": "internal error", "hint": "the server's log says more"}
        await self._answer(status, document)
        if self.http.our_state is h11.MUST_CLOSE:
            return False
        self.http.start_next_cycle()
        return True

    async def _body(self) -> bytes:
        body = bytearray()
        with trio.move_on_after(BODY_S) as scope:
            while isinstance(event := await self._next_event(), h11.Data):
                body += event.data
                if len(body) > BODY_MAX:
                    raise _Refused(413, f"larger than {BODY_MAX} bytes")
            if isinstance(event, h11.ConnectionClosed):
                raise _Refused(400, "the body ended early")
        if scope.cancelled_caught:
            raise _Refused(408, f"no whole body within {BODY_S:.0f} s")
        return bytes(body)

    async def _next_event(self) -> h11.Event:
        while True:
            event = self.http.next_event()
            if event is h11.NEED_DATA:
                self.http.receive_data(bytes(await self.stream.receive_some(READ_SIZE)))
            elif isinstance(event, h11.Event):
                return event
            else:  # PAUSED: asked for no more than one request at a time
                raise _Refused(400, "this protocol is not spoken here")

    async def _answer(
        self, status: int, document: dict[str, Any] | list[Any], *, close: bool = False
    ) -> None:
        body = json.dumps(document, ensure_ascii=False).encode()
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
        ]
        if close:
            headers.append(("Connection", "close"))
        events = (h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage())
        data = b"".join(self.http.send(event) or b"" for event in events)
        with trio.move_on_after(WRITE_S) as scope:
            await self.stream.send_all(data)
        if scope.cancelled_caught:
            raise trio.BrokenResourceError("the command does not read its answer")


def _check_head(request: h11.Request) -> None:
    names = {name for name, _ in request.headers}
    if (
        request.http_version not in (b"1.0", b"1.1")
        or b"upgrade" in names
        or request.method in (b"PRI", b"CONNECT")
    ):
        raise _Refused(505, "HTTP/1.1 and no upgrade, please")
    if b"origin" in names:
        raise _Refused(403, "requests from browsers are refused here", "use the console or the API")
