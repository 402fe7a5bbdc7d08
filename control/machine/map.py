"""POST /machine/map: lite updates, and the long poll that carries a node's view of the world (control.md §7).

| Stream | OmitPeers | what |
| ------ | --------- | ---- |
| true   | false     | the long poll: a complete first message, then differences, until either side ends it |
| false  | true      | a lite update: endpoints, host information, disco key; answered once it is kept |
| false  | false     | one complete message |

A stream is never ended for a reason that still holds at the next request: the client would come back 80 times a second
(tried.md). A node that was deleted meanwhile is told so on a stream that is held open.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Container
from dataclasses import dataclass

from control import capver
from control.errors import NotFound, TryLater
from control.limits import MAP_OPENS, MAP_UPDATES
from control.machine.identity import node_for, tombstone_for
from control.machine.presence import Presence
from control.machine.reports import stream_fields, update_fields
from control.machine.request import Request
from control.machine.session import Machine
from control.machine.writer import Reply
from control.mapper.fanout import Fanout
from control.model import Node, Tombstone
from control.prefixes import routable
from control.state.commands import AnnounceNode, ReportHostinfo
from control.state.state import State
from control.state.volatile import Volatile
from control.tailcfg.codec import DecodeError, decode
from control.tailcfg.hostinfo import Hostinfo, parse_hostinfo
from control.tailcfg.map import MapRequest
from control.troubles import Troubles

log = logging.getLogger("control.map")

RETRY_AFTER = (("retry-after", "2"),)


@dataclass(frozen=True, slots=True)
class MapPolls:
    """What the handler works with. `announce_later(node_id)`: show the node to others in 10 s, home relay or not."""

    state: State
    fanout: Fanout
    presence: Presence
    regions: Container[int]
    announce_later: Callable[[int], None]
    troubles: Troubles

    async def handle(self, machine: Machine, request: Request, reply: Reply) -> None:
        """Answer one map request; a long poll is answered until it ends."""
        try:
            wanted = decode(request.body, MapRequest)
            hostinfo = parse_hostinfo(wanted.reported)
        except DecodeError as exc:
            log.info("bad request", extra=machine.fields | {"reason": exc})
            await reply.respond(400, f"bad map request: {exc}".encode())
            return
        if capver.too_old(wanted.version):
            text = f"this client is too old; {capver.MINIMUM_RELEASE} or newer is needed"
            await reply.respond(400, text.encode())
            return
        if not machine.budget(MAP_UPDATES if wanted.omit_peers else MAP_OPENS):  # updates are the cheap ones
            await reply.respond(429, b"too many map requests", RETRY_AFTER)
            return
        node = node_for(self.state.durable, machine.key, wanted.node_key)
        if node is None:
            await self._unknown(machine, wanted, reply)
            return
        machine.registered()
        try:
            await self._serve(machine, node, wanted, hostinfo, reply)
        except NotFound:
            await reply.respond(404, b"node not found")  # deleted while we wrote
        except TryLater as exc:
            await reply.respond(503, exc.reason.encode(), RETRY_AFTER)

    async def _serve(
        self, machine: Machine, node: Node, wanted: MapRequest, hostinfo: Hostinfo, reply: Reply
    ) -> None:
        if wanted.stream and not wanted.omit_peers:
            await self._stream(machine, node, wanted, hostinfo, reply)
        elif wanted.omit_peers:
            if not wanted.read_only:
                await self._update(machine, node, wanted, hostinfo)
            await reply.respond(200)
        else:
            zstd = wanted.compress == "zstd"
            await reply.respond(200, self.fanout.full_map(node.id, zstd=zstd))

    async def _update(self, machine: Machine, node: Node, wanted: MapRequest, hostinfo: Hostinfo) -> None:
        """A lite update. What is durable of it is on disk before it is acknowledged; the rest counts even if the disk is full."""
        known = self.state.volatile[node.id]
        self.state.touch(node.id, **update_fields(known, wanted, hostinfo, self.regions))
        await self._keep(machine, node, wanted, hostinfo)
        await self._announce(machine, node.id, known)

    async def _keep(self, machine: Machine, node: Node, wanted: MapRequest, hostinfo: Hostinfo) -> None:
        if not wanted.reported:
            return
        advertised = routable(hostinfo.routable_ips or [])
        if (hostinfo.hostname, advertised) != (node.hostname, node.advertised):
            report = ReportHostinfo(node_id=node.id, hostname=hostinfo.hostname, advertised=advertised)
            await self.state.submit(report, machine.actor)

    async def _announce(self, machine: Machine, node_id: int, known: Volatile) -> None:
        """Others learn of a node together with its home relay, or their first packets to it are lost (tried.md)."""
        node = self.state.durable.nodes.get(node_id)
        if node is not None and not node.announced and known.home_derp and self.presence.has_stream(node_id):
            await self.state.submit(AnnounceNode(node_id=node_id), machine.actor)

    async def _stream(
        self, machine: Machine, node: Node, wanted: MapRequest, hostinfo: Hostinfo, reply: Reply
    ) -> None:
        known = self.state.volatile[node.id]
        if not wanted.read_only:
            first = not known.confirmed
            self.state.touch(node.id, **stream_fields(known, wanted, hostinfo, self.regions))
            if first:
                await self._if_possible(self._keep(machine, node, wanted, hostinfo))
        began = machine.monotonic()
        stream = self.fanout.open(node.id, zstd=wanted.compress == "zstd")
        self.presence.connected(node.id)
        who = {"node": node.id, "node_name": node.name, "remote": machine.remote}
        log.info("session opened", extra=who)
        sent = 0
        try:
            if not node.announced:
                self.announce_later(node.id)
                await self._if_possible(self._announce(machine, node.id, known))
            await reply.start(200)
            while (data := await stream.next(reply.wait_writable)) is not None:
                await reply.send(data)
                sent += len(data)
        finally:
            self.fanout.close(stream)
            self.presence.disconnected(node.id, machine.monotonic())
            self.state.touch(node.id, last_seen=machine.wall())
            seconds = round(machine.monotonic() - began)
            log.info("session closed", extra=who | {"seconds": seconds, "sent": sent})

    async def _if_possible(self, commit: Awaitable[None]) -> None:
        """A stream is served although the disk takes nothing (state.md A.11); what it had to say is said again."""
        try:
            await commit
        except TryLater as exc:
            log.info("a report was not kept", extra={"reason": exc})

    async def _unknown(self, machine: Machine, wanted: MapRequest, reply: Reply) -> None:
        stone = tombstone_for(self.state.durable, machine.key, wanted.node_key)
        if stone is None or not wanted.stream or wanted.omit_peers:
            why = "asks for the map of a node that does not exist, or is not its own"
            self.troubles.note(machine.who, why)
            log.info("unknown node", extra=machine.fields)
            await reply.respond(404, b"node not found")
            return
        with machine.hold():
            await self._hold_deleted(machine, stone, wanted, reply)

    async def _hold_deleted(
        self, machine: Machine, stone: Tombstone, wanted: MapRequest, reply: Reply
    ) -> None:
        """Tell a deleted node's client that its login has ended, and keep the stream: it asks a person, not us again."""
        log.info("told a deleted node", extra=machine.fields | {"node": stone.node_id})
        stream = self.fanout.open_deleted(stone, zstd=wanted.compress == "zstd")
        try:
            await reply.start(200)
            while (data := await stream.next(reply.wait_writable)) is not None:
                await reply.send(data)
        finally:
            self.fanout.close(stream)
