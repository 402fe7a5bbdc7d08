"""StunService: UDP sockets in, answers out.

One task per socket: wait until it is readable, then take up to 64 datagrams without waiting, then let the rest
of the process run. An answer leaves through the socket that was asked, because NATs insist on it; a host with
several public addresses therefore gets one socket per address.
"""

import os
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass

import trio

from stun.errors import ParseError
from stun.limits import DATAGRAMS_PER_WAKE_UP, MAX_REQUEST_BYTES, SourceLimit
from stun.message import encode_binding_response, parse_binding_request


@dataclass(slots=True)
class Counters:
    answered_v4: int = 0
    answered_v6: int = 0
    not_stun: int = 0  # not a request of a Tailscale client
    limited_source: int = 0
    limited_all: int = 0
    send_errors: int = 0  # no route, a full buffer, an ICMP answer to an earlier datagram
    receive_errors: int = 0


class StunService:
    """Answers Binding requests on the given UDP sockets, which stay the caller's to close."""

    def __init__(self, sockets: Sequence[trio.socket.SocketType]) -> None:
        self._sockets = sockets
        self.counters = Counters()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer until cancelled."""
        limit = SourceLimit(secrets.token_bytes(16), trio.current_time())
        async with trio.open_nursery() as nursery:
            for sock in self._sockets:
                nursery.start_soon(self._serve_socket, sock, limit)
            task_status.started()

    async def _serve_socket(self, sock: trio.socket.SocketType, limit: SourceLimit) -> None:
        # The same socket without trio round it: trio's calls have a checkpoint each.
        with socket.socket(fileno=os.dup(sock.fileno())) as raw:
            raw.setblocking(False)
            while True:
                await trio.lowlevel.wait_readable(raw)
                self._drain(raw, limit, trio.current_time())

    def _drain(self, raw: socket.socket, limit: SourceLimit, now: float) -> None:
        """Answer what is there, up to one helping."""
        for _ in range(DATAGRAMS_PER_WAKE_UP):
            try:
                datagram, source = raw.recvfrom(MAX_REQUEST_BYTES + 1)
            except BlockingIOError:
                return
            except OSError:  # an error of an earlier answer is reported here
                self.counters.receive_errors += 1
                continue
            self._answer(raw, datagram, source, limit, now)

    def _answer(
        self, raw: socket.socket, datagram: bytes, source: tuple[str, int], limit: SourceLimit, now: float
    ) -> None:
        counters = self.counters
        try:
            transaction_id = parse_binding_request(datagram)
        except ParseError:
            counters.not_stun += 1
            return
        host = source[0].partition("%")[0]  # fe80::1%eth0
        address = socket.inet_pton(raw.family, host)
        if not limit.admit_source(address, now):
            counters.limited_source += 1
            return
        if not limit.admit_any(now):
            counters.limited_all += 1
            return
        try:
            raw.sendto(encode_binding_response(transaction_id, address, source[1]), source)
        except OSError:  # also a full send buffer: the client asks again
            counters.send_errors += 1
            return
        if raw.family == socket.AF_INET:
            counters.answered_v4 += 1
        else:
            counters.answered_v6 += 1
