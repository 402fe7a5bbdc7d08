"""What all map sessions are built from: the durable facts and the volatile ones, as records that sessions share.

    state ── on_commit, on_touch ──► World ── mark ──► Session (dirty) ── next_message ──► its client
                                     peers, views, routes, sections

`rev` counts everything that any client can see. A change stamps the record it concerns with the new `rev` and marks the
sessions whose view holds it; nobody computes a message until a session can send one. All methods are synchronous and
run on the loop, so a session always reads one consistent world.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from control.limits import ENDPOINT_CHANGES, Budget
from control.mapper.audience import Audience
from control.mapper.blocks import SIZE, Blocks
from control.mapper.peers import Part, Peer, encode_self, self_attributes
from control.mapper.routes import RouteTable
from control.mapper.settings import NetmapSettings
from control.mapper.users import Users
from control.mapper.view import EXPIRED, AllowAll, View, ViewFunction, Views
from control.model import Node
from control.state.changes import AnyChange, NodeGone, NodePut, UserGone, UserPut
from control.state.facts import Facts
from control.state.volatile import Group, Volatile
from control.tailcfg import map as wire
from control.tailcfg.codec import encode

if TYPE_CHECKING:
    from control.mapper.session import Session

UNKNOWN = Volatile()

# Sections that a delta may carry; the last two of them are the class's, and come from its View.
SECTIONS = (wire.DOMAIN, wire.DERP_MAP, wire.DNS_CONFIG, wire.PACKET_FILTERS, wire.SSH_POLICY)
Sections = tuple[bytes, ...]


class World:
    """`volatile` is read when `on_touch` says so, never in between. `primaries`: the elected routers of the last run."""

    def __init__(
        self,
        *,
        facts: Facts,
        volatile: Mapping[int, Volatile],
        settings: NetmapSettings,
        now: float,
        primaries: Mapping[str, int] | None = None,
        view_function: ViewFunction | None = None,
    ) -> None:
        self.rev = 1
        self.facts, self.volatile, self.settings, self.now = facts, volatile, settings, now
        self.peers: dict[int, Peer] = {}
        self.by_slot: dict[int, Peer] = {}
        self.slot_ids: list[int] = []  # those of the gone too: slots are not used twice
        self.blocks = Blocks(self.by_slot)
        self.users = Users(self.by_slot)
        self.deltas: dict[Hashable, bytes] = {}  # messages made at this rev, for sessions that need the same
        self._routes = RouteTable(primaries or {})
        self._views = Views(view_function or AllowAll(), self.peers, self._routes, SIZE)
        self._audience = Audience()
        self._expiries: list[tuple[float, int]] = []  # heap; outdated entries stay until their time
        self._postponed: dict[int, float] = {}  # node → when its new endpoints may be told
        self._endpoint_budgets: dict[int, Budget] = {}  # of nodes whose endpoints have changed
        self._stamped: set[Peer] = set()  # whose sessions are to be told
        self._review: dict[int, Peer] = {}  # whose visibility or routes may have changed
        self._sections = self._encode_sections()
        for user in facts.users.values():
            self.users.put(user.id, user)
        for ident in sorted(facts.nodes):
            self._add(facts.nodes[ident])
        self._settle()

    # what sessions read

    @property
    def primaries(self) -> dict[str, int]:
        """prefix → id of its elected router; to be kept, so that a restart moves no route."""
        return dict(self._routes.primaries)

    def view_of(self, viewer_id: int) -> View:
        return self._views.view(self.peers[viewer_id].viewers, self.facts)

    def sections(self, view: View) -> Sections:
        return (*self._sections, view.packet_filter, view.ssh_policy)

    def self_json(self, peer: Peer) -> bytes:
        return encode_self(peer, self._routes.routes_of(peer.id))

    def attach(self, session: Session) -> None:
        """Raises KeyError when the session's node does not exist."""
        self._audience.add(session, self.peers[session.node_id].viewers)

    def detach(self, session: Session) -> None:
        peer = self.peers.get(session.node_id)
        self._audience.remove(session, None if peer is None else peer.viewers)

    # what happens

    def on_commit(self, changes: Sequence[AnyChange], facts: Facts, now: float) -> None:
        """These changes are on disk; `facts` is the world with them. Batches may change one record several times."""
        self._begin(now)
        self.facts = facts
        nodes: set[int] = set()
        for change in changes:
            match change:
                case UserPut(user=user):
                    nodes.update(self._user_changed(user.id))
                case UserGone(id=ident):
                    nodes.update(self._user_changed(ident))
                case NodePut(node=node):
                    nodes.add(node.id)
                case NodeGone(id=ident):
                    nodes.add(ident)
                case _:
                    pass  # nothing that a client sees
        for ident in sorted(nodes):
            self._node_changed(ident)
        self._settle()

    def on_touch(self, node_id: int, groups: Collection[Group], now: float) -> None:
        """The volatile record changed in these groups."""
        peer = self.peers.get(node_id)
        if peer is None:
            return  # its commit is not on disk yet; the record is read when it is
        self._begin(now)
        volatile = self.volatile.get(node_id, UNKNOWN)
        for group in groups:
            if group == "endpoints":
                self._read_endpoints(peer, volatile)
            elif (part := peer.read(group, volatile)) is not None:
                self._stamp(peer, part)
                self._offer(peer)
        self._settle()

    def tick(self, now: float, *, expire: bool = True) -> None:
        """Once a second: nodes whose time is over, endpoints that waited. The cost follows what is due."""
        self._begin(now)
        while expire and self._expiries and self._expiries[0][0] <= now:
            peer = self.peers.get(heappop(self._expiries)[1])
            if peer is not None and not peer.expired:
                peer.watched = None  # should the clock step back, it is watched again
                self._node_changed(peer.id)
        for ident in [ident for ident, ready_at in self._postponed.items() if ready_at <= now]:
            self._read_endpoints(self.peers[ident], self.volatile.get(ident, UNKNOWN))
        self._settle()

    def update_settings(self, settings: NetmapSettings, now: float) -> None:
        self._begin(now)
        renamed = settings.domain != self.settings.domain
        self.settings = settings
        self._sections = self._encode_sections()
        for peer in self.peers.values() if renamed else ():
            peer.fqdn = f"{peer.node.name}.{settings.domain}."
            self._touch(peer, "body")
            peer.self_rev = self.rev
        for session in self._audience.everybody():
            session.mark_all() if renamed else session.mark()

    def set_view_function(self, function: ViewFunction, now: float) -> None:
        """The rules are others now: everything is asked anew."""
        self._begin(now)
        self._views.function = function
        for peer in self.peers.values():
            self._read_attributes(peer)
            self._classify(peer)
            self._review[peer.id] = peer
        self._settle()

    # how it is kept

    def _begin(self, now: float) -> None:
        self.rev += 1
        self.now = now
        self.deltas.clear()

    def _settle(self) -> None:
        """Tell the sessions. Elections, then views: a prefix moves from one router to the next in one revision."""
        if self._stamped:
            for viewers, view in self._views:
                if ids := [peer.id for peer in self._stamped if peer.bit & view.visible]:
                    for session in self._audience.of_class(viewers):
                        session.mark_peers(ids)
            self._stamped.clear()
        for ident in self._routes.settle():
            if ident in self.peers:
                self._stamp_self(self.peers[ident])
                self._review[ident] = self.peers[ident]
        if self._review:
            for viewers, gained in self._views.refresh(self.facts, self._review.values()):
                for session in self._audience.of_class(viewers):
                    session.mark_view(gained)
            self._review.clear()

    def _touch(self, peer: Peer, part: Part) -> None:
        peer.revs[part] = self.rev
        peer.fragments.clear()
        self.blocks.touch(peer.slot, self.rev)

    def _stamp(self, peer: Peer, part: Part) -> None:
        self._touch(peer, part)
        self._stamped.add(peer)

    def _stamp_self(self, peer: Peer) -> None:
        peer.self_rev = self.rev
        for session in self._audience.of_node(peer.id):
            session.mark()

    def _add(self, node: Node) -> None:
        volatile = self.volatile.get(node.id, UNKNOWN)
        peer = Peer(node, volatile, len(self.slot_ids), self.rev, self.settings.domain)
        self.peers[node.id] = self.by_slot[peer.slot] = peer
        self.slot_ids.append(node.id)
        self.blocks.touch(peer.slot, self.rev)
        self.users.own(peer.wire_user, peer.bit)
        self._read_expiry(peer)
        self._read_attributes(peer)
        self._offer(peer)
        self._classify(peer)
        self._review[node.id] = peer

    def _remove(self, peer: Peer) -> None:
        final = encode_self(peer, self._routes.routes_of(peer.id), expired_at=self.now)
        for session in self._audience.drop_node(peer.id, peer.viewers):
            session.finish(final, peer.wire_user)
        self._views.leave(peer.viewers)
        del self.peers[peer.id], self.by_slot[peer.slot]
        self._endpoint_budgets.pop(peer.id, None)
        self._routes.offer(peer.id, (), online=False)
        self._postponed.pop(peer.id, None)
        self.users.disown(peer.wire_user, peer.bit)
        peer.gone = True
        self._review[peer.id] = peer

    def _node_changed(self, ident: int) -> None:
        node, peer = self.facts.nodes.get(ident), self.peers.get(ident)
        if node is None:
            if peer is not None:
                self._remove(peer)
            return
        if peer is None:
            self._add(node)
            return
        old, old_user, peer.node = peer.node, peer.wire_user, node
        peer.fqdn = f"{node.name}.{self.settings.domain}."
        if (old.node_key, old.expires_at) != (node.node_key, node.expires_at):
            self._stamp(peer, "key")
            self._stamp_self(peer)
        if self._read_expiry(peer) or _body(old) != _body(node):
            self._stamp(peer, "body")
            self._stamp_self(peer)
        if peer.wire_user != old_user:
            self.users.disown(old_user, peer.bit)
            self.users.own(peer.wire_user, peer.bit)
        self._read_attributes(peer)
        self._offer(peer)
        self._classify(peer)
        self._review[ident] = peer

    def _user_changed(self, ident: int) -> Iterable[int]:
        """Returns the nodes to look at again: what they may do can depend on their user."""
        if self.users.put(ident, self.facts.users.get(ident)):
            for session in self._audience.everybody():
                session.mark_user(ident)
        return self.facts.by_user.get(ident, ())

    def _read_expiry(self, peer: Peer) -> bool:
        """Whether it expired, or came back."""
        before, peer.expired = peer.expired, peer.node.expired(self.now)
        if not peer.expired and peer.node.expires_at != peer.watched:
            peer.watched = peer.node.expires_at
            if peer.watched is not None:
                heappush(self._expiries, (peer.watched, peer.id))
        return before != peer.expired

    def _read_attributes(self, peer: Peer) -> None:
        function, node = self._views.function, peer.node
        own = self_attributes(self.facts.user_of(node), function.self_attributes(self.facts, node))
        if own != peer.self_attributes:
            peer.self_attributes = own
            self._stamp_self(peer)
        shown = function.peer_attributes(self.facts, node)
        if shown != peer.attributes:
            peer.attributes = shown
            self._stamp(peer, "capmap")

    def _offer(self, peer: Peer) -> None:
        # Nobody may be sent to a router that its peers do not see, or whose key they have broken.
        serves = peer.node.announced and not peer.expired
        self._routes.offer(peer.id, peer.node.routes if serves else (), peer.online)

    def _classify(self, peer: Peer) -> None:
        viewers = EXPIRED if peer.expired else self._views.function.class_of(self.facts, peer.node)
        if viewers == peer.viewers:
            return
        sessions = self._audience.of_node(peer.id)
        if sessions:
            seen = self._views.current(peer.viewers).visible
            gained = self._views.view(viewers, self.facts).visible & ~seen
            for session in sessions:
                session.mark_view(gained)
        self._audience.move(peer.id, peer.viewers, viewers)
        self._views.enter(viewers)
        if peer.viewers is not None:
            self._views.leave(peer.viewers)
        peer.viewers = viewers

    def _read_endpoints(self, peer: Peer, volatile: Volatile) -> None:
        self._postponed.pop(peer.id, None)
        if sorted(volatile.endpoints) == sorted(peer.endpoints):
            return  # another order of the same is no news
        budget = self._endpoint_budgets.get(peer.id)
        if budget is None:
            budget = self._endpoint_budgets[peer.id] = Budget(ENDPOINT_CHANGES, self.now)
        if budget.spend(1, self.now):
            peer.endpoints = volatile.endpoints
            self._stamp(peer, "endpoints")
        else:
            self._postponed[peer.id] = budget.ready_at

    def _encode_sections(self) -> Sections:
        settings = self.settings
        return tuple(map(encode, (settings.domain, settings.derp_map, settings.dns_config())))


def _body(node: Node) -> tuple[object, ...]:
    """The durable fields that have no patch of their own."""
    return node.name, node.user_id, node.tags, node.ipv4, node.ipv6, node.created_at
