"""Who may use the relay: the nodes of this moment, and nobody whose login ended (security.md R1, K9).

The relay asks (`ControlService.admit`) at a login; `evict` tells it of a key that has just lost its place, once that is on disk.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Sequence

from control.keys import NodePublic
from control.model import Node
from control.state.changes import AnyChange, NodeGone, NodePut
from control.state.facts import Facts
from control.state.volatile import Group


class Admission:
    """Subscribes to commits. Node keys are 32 raw bytes on the relay's side.

    The clock ends a login in `tick` alone, which is not called while the clock cannot be trusted.
    """

    def __init__(self, evict: Callable[[bytes], None], wall: Callable[[], float]) -> None:
        self._evict, self._wall = evict, wall
        self._facts = Facts()
        self._keys: dict[int, NodePublic] = {}
        self._ended: set[int] = set()  # ids of nodes whose login is over
        self._expiries: list[tuple[float, int]] = []  # heap of (wall-clock time, node id)

    def load(self, facts: Facts) -> None:
        self._facts = facts
        self._keys = {node.id: node.node_key for node in facts.nodes.values()}
        for node in facts.nodes.values():
            self._watch(node, self._wall())

    def admitted(self, node_key: bytes) -> Node | None:
        """The node with this key (32 bytes), if its login is valid now."""
        node = self._facts.node_by_key(NodePublic(node_key))
        return node if node is not None and node.id not in self._ended else None

    def on_commit(self, changes: Sequence[AnyChange], facts: Facts, now: float) -> None:
        self._facts = facts
        for change in changes:
            if isinstance(change, NodeGone):
                self._keys.pop(change.id, None)
                self._ended.discard(change.id)
                self._evict(bytes(change.node_key))
            elif isinstance(change, NodePut):
                node = change.node
                old = self._keys.get(node.id)
                self._keys[node.id] = node.node_key
                if old is not None and old != node.node_key:
                    self._evict(bytes(old))
                self._watch(node, now)
                if node.id in self._ended:
                    self._evict(bytes(node.node_key))

    def on_touch(self, node_id: int, groups: Collection[Group], now: float) -> None:
        """Nothing volatile decides who may use the relay."""

    def tick(self, now: float) -> None:
        """End the relay connections of logins that the clock has ended. The cost follows what is due."""
        while self._expiries and self._expiries[0][0] <= now:
            node = self._facts.nodes.get(heapq.heappop(self._expiries)[1])
            if node is not None and node.expired(now) and node.id not in self._ended:
                self._ended.add(node.id)
                self._evict(bytes(node.node_key))

    def _watch(self, node: Node, now: float) -> None:
        if node.expired(now):
            self._ended.add(node.id)
            return
        self._ended.discard(node.id)
        if node.expires_at is not None:
            heapq.heappush(self._expiries, (node.expires_at, node.id))
