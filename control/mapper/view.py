"""What one class of viewers sees: the seam where the policy engine plugs in.

Viewers whom the rules cannot tell apart form a class, and share one immutable `View`. A change of one node costs one
question per class, and only the sessions of a class whose View differs are woken. Before there is a policy there is one
class, `AllowAll`. A viewer that is expired sees itself alone (security.md K9, M1).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from control.mapper.peers import CapMap, Peer
from control.mapper.routes import NO_ROUTES, Routes, RouteTable
from control.model import Node
from control.state.facts import Facts
from control.tailcfg.codec import encode
from control.tailcfg.filter import ALLOW_ALL, FilterRule

EXPIRED = "expired"  # the class of all viewers whose key has run out; no view function names it


class ViewFunction(Protocol):
    """The rules. Pure: the same facts give the same answers.

    Each answer may depend on the node named and its user only, so that a commit asks about what it touched. When the
    rules themselves change, `World.set_view_function` asks about everything.
    """

    def class_of(self, facts: Facts, node: Node) -> Hashable:
        """Viewers of one class see the same."""

    def sees(self, viewers: Hashable, facts: Facts, node: Node) -> bool:
        """Whether viewers of this class get `node` as a peer."""

    def routes(self, viewers: Hashable, facts: Facts, node: Node, routes: Routes) -> Routes:
        """Of what `node` routes, what viewers of this class get."""

    def packet_filter(self, viewers: Hashable, facts: Facts) -> Sequence[FilterRule]:
        """Who may reach a node of this class. Empty: nobody."""

    def ssh_policy(self, viewers: Hashable, facts: Facts) -> Mapping[str, Any]:
        """SSHPolicy for a node of this class."""

    def peer_attributes(self, facts: Facts, node: Node) -> CapMap:
        """CapMap of `node` as others see it."""

    def self_attributes(self, facts: Facts, node: Node) -> CapMap:
        """CapMap of `node` as it sees itself, besides what every node has."""


class AllowAll:
    """Everybody sees and reaches everybody; no SSH."""

    def class_of(self, facts: Facts, node: Node) -> Hashable:
        return "all"

    def sees(self, viewers: Hashable, facts: Facts, node: Node) -> bool:
        return True

    def routes(self, viewers: Hashable, facts: Facts, node: Node, routes: Routes) -> Routes:
        return routes

    def packet_filter(self, viewers: Hashable, facts: Facts) -> Sequence[FilterRule]:
        return ALLOW_ALL

    def ssh_policy(self, viewers: Hashable, facts: Facts) -> Mapping[str, Any]:
        return {"rules": []}

    def peer_attributes(self, facts: Facts, node: Node) -> CapMap:
        return {}

    def self_attributes(self, facts: Facts, node: Node) -> CapMap:
        return {}


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """Compared by identity: equal content keeps the old object."""

    visible: int  # bitset over slots; the viewer's own may be in it
    routes: Mapping[int, Routes]  # peer id → what it routes for this class, where that is anything
    block_routes: Mapping[int, tuple[tuple[int, Routes], ...]]  # the same by block of slots
    packet_filter: bytes  # JSON of PacketFilters
    ssh_policy: bytes  # JSON of SSHPolicy


def encode_filter(rules: Sequence[FilterRule]) -> bytes:
    """As the chunk `base`, always with its list: an empty one is a message, a missing one is none (control.md §7.7)."""
    return encode({"base": list(rules)})


NOTHING = View(0, {}, {}, encode_filter(()), encode({"rules": []}))


@lru_cache(maxsize=32)
def rerouted(old: View, new: View) -> frozenset[int]:
    """Peers that route something else in `new`. Asked by each session of the class, hence remembered."""
    if old is new:
        return frozenset()
    ids = old.routes.keys() | new.routes.keys()
    return frozenset(ident for ident in ids if old.routes.get(ident) != new.routes.get(ident))


class Views:
    """The current View of each class that has members. `block`: how many slots make one (blocks.py)."""

    def __init__(
        self, function: ViewFunction, peers: Mapping[int, Peer], routes: RouteTable, block: int
    ) -> None:
        self.function = function
        self._peers, self._routes, self._block = peers, routes, block
        self._views: dict[Hashable, View] = {}
        self._members: dict[Hashable, int] = {}

    def __iter__(self) -> Iterator[tuple[Hashable, View]]:
        return iter(self._views.items())

    def view(self, viewers: Hashable, facts: Facts) -> View:
        if viewers == EXPIRED:
            return NOTHING
        view = self._views.get(viewers)
        if view is None:
            view = self._views[viewers] = self._changed(viewers, NOTHING, facts, self._peers.values())
        return view

    def current(self, viewers: Hashable) -> View:
        """The View as it is, without asking anybody: `NOTHING` while no session has needed it."""
        return self._views.get(viewers, NOTHING)

    def enter(self, viewers: Hashable) -> None:
        """One more node is a viewer of this class."""
        self._members[viewers] = self._members.get(viewers, 0) + 1

    def leave(self, viewers: Hashable) -> None:
        self._members[viewers] -= 1
        if not self._members[viewers]:
            del self._members[viewers]
            self._views.pop(viewers, None)

    def refresh(self, facts: Facts, touched: Iterable[Peer]) -> list[tuple[Hashable, int]]:
        """Ask about these nodes anew. Returns the classes that see something else now, and the peers they gained."""
        peers = list(touched)
        changed = []
        for viewers, old in list(self._views.items()):
            new = self._changed(viewers, old, facts, peers)
            if new is not old:
                self._views[viewers] = new
                changed.append((viewers, new.visible & ~old.visible))
        return changed

    def _changed(self, viewers: Hashable, old: View, facts: Facts, peers: Iterable[Peer]) -> View:
        """`old` after these nodes were touched; `old` itself when nothing differs."""
        visible, routes = old.visible, dict(old.routes)
        for peer in peers:
            node = peer.node
            seen = not peer.gone and node.announced and self.function.sees(viewers, facts, node)
            visible = visible | peer.bit if seen else visible & ~peer.bit
            given = self._routes.routes_of(node.id) if seen else NO_ROUTES
            if given != NO_ROUTES:
                given = self.function.routes(viewers, facts, node, given)
            if given != NO_ROUTES:
                routes[node.id] = given
            else:
                routes.pop(node.id, None)
        packet_filter = encode_filter(self.function.packet_filter(viewers, facts))
        ssh_policy = encode(self.function.ssh_policy(viewers, facts))
        same = (visible, routes, packet_filter, ssh_policy)
        if same == (old.visible, old.routes, old.packet_filter, old.ssh_policy) and old is not NOTHING:
            return old
        return View(visible, routes, self._by_block(routes), packet_filter, ssh_policy)

    def _by_block(self, routes: Mapping[int, Routes]) -> dict[int, tuple[tuple[int, Routes], ...]]:
        blocks: dict[int, tuple[tuple[int, Routes], ...]] = {}
        for ident, given in sorted(routes.items()):
            block = self._peers[ident].slot // self._block
            blocks[block] = (*blocks.get(block, ()), (ident, given))
        return blocks
