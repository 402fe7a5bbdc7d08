"""The reception: accepts connections, knows every one of them, and survives each.

An exception that left a connection's task would end the server, so `_attend` is the boundary: what the other side caused
is one line (a broken connection's at DEBUG), anything else is a bug of ours, logged once with its traceback. Either way
that connection ends, and nobody else notices.
"""

from __future__ import annotations

import errno
import logging
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

import trio

from appliance.door import limits
from appliance.door.connection import Connection, House, Port
from appliance.door.preauth import PreAuthTable, groups_of
from appliance.door.proxy import is_listed
from appliance.errors import PeerError

log = logging.getLogger("appliance.door")

OUT_OF_FILES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


@dataclass
class DoorCounters:
    """What came and went, since the start."""

    accepted: int = 0
    dropped: int = 0
    """Closed unproven, to make room."""
    refused: int = 0
    """Not taken at all: every place was taken."""
    failed: int = 0
    """Ended by the other side's doing: broken off, too slow, or not what we speak."""
    bugs: int = 0


class Reception:
    """Every connection of every listening socket."""

    def __init__(self, house: House, strangers: PreAuthTable[Connection]) -> None:
        self.counters = DoorCounters()
        self.connections: set[Connection] = set()
        self._house = house
        self._strangers = strangers
        self._empty = trio.Event()

    async def accept(self, listening: socket.socket, port: Port, nursery: trio.Nursery) -> None:
        """Accept until cancelled, then close the socket; connections run in `nursery`."""
        with trio.socket.from_stdlib_socket(listening) as trio_socket:
            while True:
                try:
                    sock, _ = await trio_socket.accept()
                except OSError as exc:
                    if trio_socket.fileno() < 0:
                        raise
                    failure = exc
                else:
                    self._admit(sock, port, nursery)
                    continue
                if failure.errno in OUT_OF_FILES:
                    await self._make_room(failure)
                # Anything else is about a connection that ended before we took it (accept(2), "Error handling").

    def _admit(self, sock: trio.socket.SocketType, port: Port, nursery: trio.Nursery) -> None:
        if len(self.connections) >= limits.CONNECTIONS:
            self.counters.refused += 1
            sock.close()
            return
        try:
            _tune(sock)
            connection = Connection(sock, port, self._house, self._strangers.leave)
        except (OSError, ValueError):  # gone already
            sock.close()
            return
        self.counters.accepted += 1
        self.connections.add(connection)
        weight = limits.PROXY_WEIGHT if is_listed(connection.peer, self._house.proxies) else 1
        victim = self._strangers.enter(connection, groups_of(connection.peer, weight))
        self._drop(victim)
        nursery.start_soon(self._attend, connection)

    def _drop(self, victim: Connection | None) -> None:
        if victim is not None:
            self.counters.dropped += 1
            victim.kill()

    async def _make_room(self, exc: OSError) -> None:
        """No descriptor left: whoever has proven nothing pays for it."""
        if self._house.seldom.now("out of files"):
            hint = "raise LimitNOFILE if this lasts"
            log.warning("cannot accept connections", extra={"reason": exc.strerror, "hint": hint})
        victim = self._strangers.oldest_of_the_biggest()
        if victim is not None:
            self._strangers.leave(victim)
            self._drop(victim)
        await trio.sleep(limits.OUT_OF_FILES_SECONDS)

    async def _attend(self, connection: Connection) -> None:
        try:
            await connection.serve()
        except* (
            OSError,
            PeerError,
            trio.BrokenResourceError,
            trio.ClosedResourceError,
            trio.TooSlowError,
        ) as group:
            self.counters.failed += 1
            fields = {"remote": connection.peer, "reason": _reason(group)}
            log.log(logging.INFO if _broke_rules(group) else logging.DEBUG, "connection failed", extra=fields)
        except* Exception:
            self.counters.bugs += 1
            log.exception("bug in a connection", extra={"remote": connection.peer})
        finally:
            self._strangers.leave(connection)
            self.connections.discard(connection)
            connection.kill()
            if not self.connections:
                self._empty.set()

    def stop(self) -> None:
        """Serve what was asked, take no further request."""
        for connection in list(self.connections):
            connection.stop()

    async def wait_empty(self) -> None:
        """Until the last connection has ended; nothing may be accepting any more."""
        while self.connections:
            if self._empty.is_set():
                self._empty = trio.Event()
            await self._empty.wait()

    def kill_all(self) -> None:
        """Close every socket: this wakes tasks that a cancellation does not reach."""
        for connection in list(self.connections):
            connection.kill()


def _tune(sock: trio.socket.SocketType) -> None:
    """Notice the dead: peers that vanish leave no other trace on a connection we only read from."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, limits.KEEPALIVE_IDLE_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, limits.KEEPALIVE_INTERVAL_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limits.USER_TIMEOUT_MS)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for inner in group.exceptions:
        if isinstance(inner, BaseExceptionGroup):
            yield from _leaves(inner)
        else:
            yield inner


def _broke_rules(group: BaseExceptionGroup[BaseException]) -> bool:
    """Worth a line: not what we speak, or a client that does not take our certificate. A broken line is daily life."""
    return any(isinstance(leaf, PeerError | ssl.SSLError) for leaf in _leaves(group))


def _reason(group: BaseExceptionGroup[BaseException]) -> str:
    return "; ".join(str(leaf) or type(leaf).__name__ for leaf in _leaves(group))
