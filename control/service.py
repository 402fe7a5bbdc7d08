"""Coordination, put together: what `appliance/main.py` builds, starts and hands connections to.

service = ControlService(store, noise_key=…, pepper=…, settings=…, server_url=…, evict=relay.evict, …)
await nursery.start(service.state.run)                        # loads; from here on `open` works
service.open()
await nursery.start(service.run)                              # duties, keep-alives
await service.serve(stream, initiation, remote, preface)      # one upgraded connection, until it ends
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import trio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from control.admission import Admission
from control.api.handlers import Api
from control.duties import EPHEMERAL_GRACE_S, Duties
from control.keys import MachinePublic
from control.limits import NOISE_PER_MACHINE, Quotas
from control.login.failures import FailedKeys
from control.login.pending import PendingLogins
from control.machine.homes import LastHomes
from control.machine.http2 import Connection
from control.machine.map import MapPolls
from control.machine.presence import Presence
from control.machine.register import Registration
from control.machine.session import Machine, MachineHandler, handler_for, table
from control.mapper.fanout import Fanout
from control.mapper.settings import NetmapSettings
from control.mapper.world import World
from control.noise import NoiseError
from control.noise.early import encode_early_payload
from control.noise.handshake import Accepted
from control.noise.stream import accept
from control.prefixes import source_of
from control.state.rules import decide
from control.state.state import State
from control.state.store import Store
from control.tailcfg.codec import encode
from control.troubles import Troubles

log = logging.getLogger("control")


# How connections end in ordinary life; the other reasons are a client's that broke the rules.
ORDINARY_ENDS = {
    "cancelled",
    "closed by the client",
    "closed by the client (GOAWAY)",
    "connection lost",
    "drained",
    "the client does not answer",
}


class FairTurn(Protocol):
    """Does a handshake's work when it is the turn of its source."""

    async def __call__(self, source: str, work: Callable[[], Accepted]) -> Accepted: ...


class ControlService:
    """`evict(node key)` is the relay's, `relay_region` its region (0: none beside us); `overview()` gives the parts of `status` that only the program knows."""

    def __init__(
        self,
        store: Store,
        *,
        noise_key: X25519PrivateKey,
        pepper: bytes,
        settings: NetmapSettings,
        server_url: str,
        evict: Callable[[bytes], None],
        overview: Callable[[], dict[str, Any]],
        wall: Callable[[], float],
        ephemeral_grace_s: float = EPHEMERAL_GRACE_S,
        quotas: Quotas = Quotas(),  # noqa: B008  (immutable)
        turn: FairTurn | None = None,
        relay_region: int = 0,
    ) -> None:
        self._noise_key, self._pepper, self._fair_turn = noise_key, pepper, turn
        self._relay_region = relay_region
        self._settings, self._server_url, self._overview = settings, server_url, overview
        self._wall, self._ephemeral_grace_s = wall, ephemeral_grace_s
        self.state = State(store, decide=partial(decide, quotas=quotas), pepper=pepper, clock=wall)
        self.admission = Admission(evict, wall)
        self._early_payload = encode_early_payload(
            X25519PrivateKey.generate().public_key().public_bytes_raw()
        )
        self.pending = PendingLogins(quotas)
        self.troubles = Troubles(wall)
        self.presence = Presence(self._set_online)
        self._connections: dict[MachinePublic, dict[Connection, trio.CancelScope]] = {}
        self._routes: dict[tuple[str, str], MachineHandler] = {}

    def open(self) -> None:
        """Build everything that needs the loaded state. Call once, after `state.run` has started."""
        state, regions = self.state, {int(ident) for ident in self._settings.derp_map.regions}
        self.admission.load(state.durable)
        presumed = [ident for ident, record in state.volatile.items() if record.online]
        self.presence.presume(presumed, trio.current_time())
        self.world = World(
            facts=state.durable,
            volatile=state.volatile,
            settings=self._settings,
            primaries=state.primaries,
            now=self._wall(),
        )
        self.fanout = Fanout(self.world, clock=self._wall)
        self.duties = Duties(
            state,
            self.world,
            self.presence,
            self.pending,
            self.admission,
            wall=self._wall,
            monotonic=trio.current_time,
            ephemeral_grace_s=self._ephemeral_grace_s,
        )
        state.primaries_source = lambda: self.world.primaries
        homes = LastHomes(state.volatile)
        for subscriber in (self.world, self.admission, self.duties, homes):
            state.subscribe(subscriber)
        registration = Registration(
            state=state,
            pending=self.pending,
            server_url=self._server_url,
            failures=FailedKeys(),
            regions=regions,
            homes=homes,
            troubles=self.troubles,
        )
        polls = MapPolls(
            state=state,
            fanout=self.fanout,
            presence=self.presence,
            regions=regions,
            announce_later=self.duties.announce_later,
            troubles=self.troubles,
        )
        self._routes = table(registration.handle, polls.handle)
        self.api = Api(
            state,
            self.world,
            self.presence,
            self.pending,
            pepper=self._pepper,
            wall=self._wall,
            overview=self._overview,
            troubles=self.troubles,
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Duties and keep-alives, until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.duties.run)
            await nursery.start(self.fanout.run)
            task_status.started()

    async def serve(
        self,
        stream: trio.abc.Stream,
        initiation: bytes,
        remote: str,
        preface: bytes,
        proven: Callable[[], None] = lambda: None,
    ) -> None:
        """Serve one upgraded connection until it ends. `preface` (the 101) leaves in the same write as our answer.

        `proven` is called when the machine turns out to be a node's; until then its connection is a stranger's.
        """
        try:
            turn = partial(self._fair_turn, source_of(remote)) if self._fair_turn else None
            session = await accept(stream, self._noise_key, initiation, preface, turn)
        except NoiseError as exc:
            self.troubles.note(f"somebody at {remote}", f"Noise handshake: {exc}")
            log.info("handshake failed", extra={"remote": remote, "reason": exc})
            return
        machine = Machine(
            key=session.machine_key,
            version=session.version,
            remote=remote,
            wall=self._wall,
            monotonic=trio.current_time,
            proven=proven,
        )
        early = self._early_payload if preface else b""  # browsers' clients, without a preface, expect none
        handler = handler_for(machine, self._routes)
        machine.connection = Connection(session.stream, handler, greeting=early, fields=machine.fields)
        with self._present(machine.key, machine.connection) as scope, scope:
            reason = await machine.connection.serve()
            level = logging.DEBUG if reason in ORDINARY_ENDS else logging.INFO
            log.log(level, "connection ended", extra=machine.fields | {"reason": reason})

    @contextmanager
    def _present(self, key: MachinePublic, connection: Connection) -> Iterator[trio.CancelScope]:
        """Count the machine's connections: clients hold two or three, and beyond eight the oldest goes."""
        scope = trio.CancelScope()
        mine = self._connections.setdefault(key, {})
        if len(mine) >= NOISE_PER_MACHINE:
            next(iter(mine.values())).cancel()
        mine[connection] = scope
        try:
            yield scope
        finally:
            del mine[connection]
            if not mine:
                self._connections.pop(key, None)

    def drain(self) -> None:
        """Shutting down: requests that run are finished, new ones go elsewhere; map streams end."""
        for connection in [one for each in self._connections.values() for one in each]:
            connection.drain()
        self.fanout.end_all()

    def admit(self, node_key: bytes, remote: str) -> bool:
        """Whether this key (32 bytes) may use our relay now: asked at each of its logins."""
        node = self.admission.admitted(node_key)
        if node is not None and self._relay_region:
            self.duties.joined_relay(node.id, self._relay_region)
        return node is not None

    def key_body(self) -> bytes:
        """The answer to `GET /key`: our Noise key, and as the legacy one the same (a zero makes clients ask again)."""
        public = str(MachinePublic(self._noise_key.public_key().public_bytes_raw()))
        return encode({"legacyPublicKey": public, "publicKey": public})

    def healthy(self) -> bool:
        return self.state.read_only is None

    def _set_online(self, node_id: int, online: bool) -> None:
        if online:
            self.state.touch(node_id, online=True)
            return
        known = self.state.volatile.get(node_id)
        self.state.touch(
            node_id, online=False, last_seen=known.last_seen if known and known.last_seen else self._wall()
        )
        self.duties.went_offline(node_id)
