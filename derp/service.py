"""DerpService: logs clients in, then hands them to the engine.

The login is ordinary trio code on an ordinary stream, under one deadline. Then the connection is taken out of
its stream and `serve` returns: no task, no stream and no timer of its own remain for a connected client.
"""

import logging
from collections.abc import Callable
from typing import Protocol

import trio

from derp.channel import Detached
from derp.counters import CloseReason, Counters
from derp.engine import Engine
from derp.errors import DerpError, LoginError
from derp.frames import HEADER_BYTES, encode_server_key, parse_login_header, short_key
from derp.handshake import Identity, Login, NonceMemory
from derp.limits import MAX_CLIENT_INFO_BYTES, Limits

log = logging.getLogger("derp")


class DetachableStream(Protocol):
    """A trio stream that can give its connection away, after which the stream itself is dead."""

    async def send_all(self, data: bytes) -> None: ...

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray: ...

    def detach(self) -> Detached: ...


class DerpService:
    """The relay of one region.

    `private_key` is the relay's own, 32 bytes. `admit(node_key, remote)` says whether a proven node key may
    use the relay; it is asked once per login, so call `evict` when its answer changes.
    """

    def __init__(
        self, private_key: bytes, *, admit: Callable[[bytes, str], bool], limits: Limits | None = None
    ) -> None:
        self.limits = limits or Limits()
        self.counters = Counters()
        self._identity = Identity(private_key)
        self._admit = admit
        self._nonces = NonceMemory()
        self._engine = Engine(self.limits, self.counters)
        self._closing = False

    @property
    def public_key(self) -> bytes:
        return self._identity.public_key

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve logged-in clients until cancelled."""
        await self._engine.run(task_status=task_status)

    async def serve(self, stream: DetachableStream, remote: str, preface: bytes) -> None:
        """Log one client in. Returns when it is in the engine's hands, or is not to be served.

        Either way the caller closes the stream; after a login that does nothing, as the connection has left
        it. `preface` goes out in one write with our first frame.
        """
        try:
            with trio.fail_after(self.limits.login_s):
                await stream.send_all(preface + encode_server_key(self.public_key))
                payload, early = await _read_client_info(stream)
            login = self._check(payload, remote)
        except (DerpError, trio.TooSlowError) as exc:
            self.counters.login_protocol += not isinstance(exc, _Refused)
            log.debug("login failed", extra={"remote": remote, "reason": repr(exc)})
            return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        # No await from here on: admission, registration and the first frame are one step.
        self._engine.attach(stream.detach(), login.node_key, remote, login.server_info, early)

    def evict(self, node_key: bytes) -> None:
        """This key is no longer admitted: close its connections now."""
        peer = self._engine.relay.peers.get(node_key)
        if peer is not None:
            self._engine.end_all(list(peer.connections), CloseReason.EVICTED)

    async def shutdown(self) -> None:
        """Take no more logins, tell every client that we restart, and close."""
        self._closing = True
        await self._engine.say_goodbye()

    def _check(self, payload: bytes, remote: str) -> Login:
        """Raises LoginError unless this client may come in."""
        login = self._identity.open_client_info(payload)
        if self._closing or len(self._engine.sessions) >= self.limits.connections:
            self.counters.login_full += 1
            raise _Refused("no more connections")
        if not self._admit(login.node_key, remote):
            self.counters.login_not_admitted += 1
            raise _Refused(f"{short_key(login.node_key)} is not admitted")
        try:
            self._nonces.remember(login.node_key, login.nonce)
        except LoginError as exc:
            self.counters.login_replayed += 1
            raise _Refused(str(exc)) from exc
        return login


class _Refused(LoginError):
    """The client did everything right, as far as the wire is concerned; already counted."""


async def _read_client_info(stream: DetachableStream) -> tuple[bytes, bytes]:
    """The payload of the first frame, and what came after it. Raises ProtocolError if it is anything else."""
    data = bytearray()
    need = HEADER_BYTES
    while True:
        if len(data) >= HEADER_BYTES:
            need = HEADER_BYTES + parse_login_header(bytes(data[:HEADER_BYTES]))
        if len(data) >= need > HEADER_BYTES:
            return bytes(data[HEADER_BYTES:need]), bytes(data[need:])
        # Not more than asked for: what follows ClientInfo may as well stay where it is.
        chunk = await stream.receive_some(MAX_CLIENT_INFO_BYTES)
        if not chunk:
            raise LoginError("closed before ClientInfo")
        data += chunk
