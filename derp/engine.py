"""The engine: one task that serves every logged-in client.

It owns an epoll of its own, sleeps until that becomes readable, and calls plain methods of the sessions:

    poll ──► round (one turn per ready session) ──► flush joined runs ──► bury the dead ──► checkpoint

A task per client would cost memory and a task switch per packet. In exchange the engine must never hog the
thread: one poll round, 64 KiB per connection and turn, then the rest of the process gets its chance.

*Moderation.* Going to sleep and waking costs more than relaying ten packets. Under load, after a small round,
the engine therefore sleeps some 60 µs so that the next round finds more. Single packets never wait for it.

A second small task looks at the clock twice a second: KeepAlives, and readers that have stalled.
"""

import logging
import select
import socket
import time
from contextlib import suppress
from pathlib import Path
from time import perf_counter

import trio

from derp.backlog import Budget
from derp.channel import Buffers, Detached
from derp.counters import CloseReason, Counters
from derp.frames import KEEP_ALIVE_FRAME, GoneReason, encode_peer_gone, encode_restarting
from derp.limits import EVENTS_PER_ROUND, JOIN_BYTES, KEEP_ALIVE_SPREAD_S, WRITE_BYTES, Limits
from derp.relay import Relay
from derp.session import Session
from derp.wheel import Wheel

log = logging.getLogger("derp")

TICK_S = 0.5
BUSY_PACKETS = 3  # a moving average above this many packets per round is load
FULL_ROUND_BYTES = 24 << 10  # a round that read this much needs no help in finding more
QUIET_CHECKPOINT_S = 30e-6  # a checkpoint that took longer means other tasks wanted the time
TIMER_SLACK_NS = "1000"  # else the kernel makes 105 µs of our 40
TRIM_TO = 7 / 8  # when the process is full, trim below the limit, so that it is not done for every packet
RECONNECT_IN_MS = 1_000  # told to clients when we restart
TRY_FOR_MS = 60_000

TCP_USER_TIMEOUT_MS = 15_000  # unacknowledged data; as the reference
TCP_KEEPALIVE_S = 600  # an idle peer that vanished; as the reference


class Engine:
    def __init__(self, limits: Limits, counters: Counters) -> None:
        self.limits = limits
        self.counters = counters
        self.buffers = Buffers()
        self.relay: Relay[Session] = Relay(limits.connections_per_key, limits.key_bytes)
        self.backlogs = Budget(limits.process_bytes)
        self.sessions: dict[int, Session] = {}
        self._epoll = select.epoll()
        self._blocked: set[Session] = set()
        self._dead: list[Session] = []
        self._joining = False
        self._joined: list[Session] = []
        self._wheel: Wheel[Session] | None = None
        self._serial = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; then every connection is closed."""
        with suppress(OSError):  # some kernels and sandboxes refuse; the pause is then longer
            Path("/proc/self/timerslack_ns").write_text(TIMER_SLACK_NS)  # noqa: ASYNC240  # not a disk
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_the_clock)
                nursery.start_soon(self._serve_sockets)
                task_status.started()
        finally:
            self.end_all(list(self.sessions.values()), CloseReason.SHUTDOWN)
            self._epoll.close()

    # --- life of a session ---------------------------------------------------------------------------

    def attach(self, transport: Detached, key: bytes, remote: str, greeting: bytes, early: bytes) -> None:
        """Take over a connection that has logged in: `greeting` goes out first, `early` has come in already."""
        now = trio.current_time()
        spread_s = self._serial % (2 * KEEP_ALIVE_SPREAD_S + 1) / 2
        self._serial += 1
        session = Session(self, transport, key, remote, self.limits.keep_alive_s + spread_s, now)
        _set_options(session.channel.sock)
        self.sessions[session.fd] = session
        self._epoll.register(session.fd, select.EPOLLIN)
        session.peer, surplus = self.relay.join(key, session)
        if surplus is not None:
            surplus.end(CloseReason.REPLACED)
        self.counters.logins += 1
        self._gauge()
        self._timers(now).add(session, now, session.keep_alive_s)
        log.info("session opened", extra=session.fields)
        session.write_urgent(greeting, now)
        session.resume(transport, early, now)
        self._finish_round(now)

    def end_all(self, sessions: list[Session], reason: CloseReason) -> None:
        """Close these at once."""
        for session in sessions:
            session.end(reason)
        self._bury()

    async def say_goodbye(self) -> None:
        """Tell every client that we restart, and close. Nobody is waited for."""
        frame = encode_restarting(RECONNECT_IN_MS, TRY_FOR_MS)
        while self.sessions:
            batch = list(self.sessions.values())[:EVENTS_PER_ROUND]
            now = trio.current_time()
            for session in batch:
                session.write_urgent(frame, now)
                with suppress(OSError):  # it may be gone already
                    session.channel.sock.shutdown(socket.SHUT_WR)
            self.end_all(batch, CloseReason.SHUTDOWN)
            await trio.lowlevel.checkpoint()

    def mourn(self, session: Session) -> None:
        """A session has ended: it holds nothing from now on. `_bury` does what may touch others."""
        self._blocked.discard(session)
        if session.backlog is not None:
            session.backlog.discard()
            session.backlog = None
        self._dead.append(session)

    def _bury(self) -> None:
        if not self._dead:
            return
        while self._dead:  # telling the others may find more dead
            session = self._dead.pop()
            del self.sessions[session.fd]
            with suppress(OSError):
                self._epoll.unregister(session.fd)
            session.channel.sock.close()
            counters = self.counters
            counters.home_connections -= session.home
            assert session.ended is not None
            counters.close(session.ended)
            now = trio.current_time()
            how = {"reason": session.ended, "seconds": round(now - session.opened_at)}
            size = {"received": session.bytes_received, "sent": session.bytes_sent}
            log.info("session closed", extra=session.fields | how | size)
            gone = self.relay.leave(session.peer, session)
            if gone:
                frame = encode_peer_gone(session.key, GoneReason.DISCONNECTED)
                counters.peer_gone_disconnected += len(gone)
                for other in gone:
                    other.write_urgent(frame, now)
        self._gauge()

    def _gauge(self) -> None:
        self.counters.connections = len(self.sessions)
        self.counters.keys = len(self.relay.peers)

    # --- delivery ------------------------------------------------------------------------------------

    def deliver(self, session: Session, frames: memoryview, packets: int, now: float) -> None:
        """Write a run to its destination; with several senders in this round, small runs are joined first."""
        joined = session.joined
        if self._joining and len(frames) < JOIN_BYTES:
            if joined is None:
                session.joined = bytearray(frames)
                session.joined_packets = packets
                self._joined.append(session)
                return
            joined += frames
            session.joined_packets += packets
            if len(joined) < WRITE_BYTES:
                return
            self._flush(session, now)
            return
        if joined is not None:  # order
            self._flush(session, now)
        session.write(frames, packets, now)

    def _flush(self, session: Session, now: float) -> None:
        joined, packets = session.joined, session.joined_packets
        session.joined = None
        if joined is not None:
            session.write(joined, packets, now)

    def block(self, session: Session) -> None:
        self._blocked.add(session)
        self._epoll.modify(session.fd, select.EPOLLIN | select.EPOLLOUT)
        self.relieve()

    def unblock(self, session: Session) -> None:
        self._blocked.discard(session)
        self._epoll.modify(session.fd, select.EPOLLIN)

    def relieve(self) -> None:
        """Over the limit of the process: the largest backlog gives way, and at last its connection."""
        if not self.backlogs.exceeded:
            return
        while self.backlogs.used > self.backlogs.limit * TRIM_TO:
            largest = max(self._blocked, key=_backlog_size)
            if largest.backlog is not None and largest.backlog.packets:
                largest.backlog.halve()
            else:
                largest.end(CloseReason.MEMORY)

    # --- the two tasks -------------------------------------------------------------------------------

    async def _serve_sockets(self) -> None:
        average = 0.0
        while True:
            events = self._epoll.poll(0, EVENTS_PER_ROUND)
            if not events:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
                continue
            packets, size = self.counters.packets_received, self.counters.bytes_received
            self._round(events)
            average += (self.counters.packets_received - packets - average) / 8
            size = self.counters.bytes_received - size
            started = perf_counter()
            await trio.lowlevel.checkpoint()
            busy = average > BUSY_PACKETS and size < FULL_ROUND_BYTES
            if busy and perf_counter() - started < QUIET_CHECKPOINT_S and self.limits.pause_s:
                # The whole thread sleeps, and that is the point: see Moderation above.
                time.sleep(self.limits.pause_s)  # noqa: TID251, ASYNC251

    def _round(self, events: list[tuple[int, int]]) -> None:
        now = trio.current_time()
        self._joining = len(events) > 1
        for fd, mask in events:
            session = self.sessions.get(fd)
            if session is None or session.ended is not None:
                continue
            try:
                if mask & select.EPOLLOUT:
                    session.on_writable(now)
                if mask & ~select.EPOLLOUT and session.ended is None:
                    session.on_readable(now)
            except Exception:  # the connection boundary of the relay: a bug ends one client, not all
                log.exception("bug in a session", extra=session.fields)
                session.end(CloseReason.BUG)
        self._finish_round(now)

    def _finish_round(self, now: float) -> None:
        self._joining = False
        if self._joined:
            joined, self._joined = self._joined, []
            for session in joined:
                self._flush(session, now)
        self._bury()

    async def _watch_the_clock(self) -> None:
        while True:
            await trio.sleep(TICK_S)
            now = trio.current_time()
            for session in [s for s in self._blocked if now - s.stalled_since >= self.limits.stall_s]:
                session.end(CloseReason.SLOW)
            for session in self._timers(now).advance(now):
                if session.ended is None:
                    if session.backlog is None:  # else it gets something before it gets bored, or is cut
                        session.write_urgent(KEEP_ALIVE_FRAME, now)
                    self._timers(now).add(session, now, session.keep_alive_s)
            self._bury()
            self.counters.backlog_bytes = self.backlogs.used

    def _timers(self, now: float) -> Wheel[Session]:
        if self._wheel is None:
            longest_s = self.limits.keep_alive_s + KEEP_ALIVE_SPREAD_S + TICK_S
            self._wheel = Wheel(TICK_S, longest_s, now)
        return self._wheel


def _backlog_size(session: Session) -> int:
    return session.backlog.size if session.backlog is not None else 0


def _set_options(sock: socket.socket) -> None:
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with suppress(OSError):  # the peer may have closed already; the first read will say so
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, TCP_USER_TIMEOUT_MS)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, TCP_KEEPALIVE_S)
