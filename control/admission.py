"""Who may use the relay: the nodes of this moment, and nobody whose login ended (security.md R1, K9).

The relay asks `admit` at a login; `evict` tells it of a key that has just lost its place, once that is on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from control.keys import NodePublic
from control.state.changes import AnyChange, NodeGone, NodePut
from control.state.facts import Facts
from control.state.volatile import Group


class Admission:
    """Subscribes to commits. Node keys are 32 raw bytes on the relay's side."""

    def __init__(self, evict: Callable[[bytes], None], wall: Callable[[], float]) -> None:
        self._evict, self._wall = evict, wall
        self._facts = Facts()
        self._keys: dict[int, NodePublic] = {}

    def load(self, facts: Facts) -> None:
        self._facts = facts
        self._keys = {node.id: node.node_key for node in facts.nodes.values()}

    def admit(self, node_key: bytes, remote: str) -> bool:
        """Whether this key is a node's whose login is valid now."""
        node = self._facts.node_by_key(NodePublic(node_key))
        return node is not None and not node.expired(self._wall())

    def on_commit(self, changes: Sequence[AnyChange], facts: Facts, now: float) -> None:
        self._facts = facts
        for change in changes:
            if isinstance(change, NodeGone):
                self._keys.pop(change.id, None)
                self._evict(bytes(change.node_key))
            elif isinstance(change, NodePut):
                node = change.node
                old = self._keys.get(node.id)
                self._keys[node.id] = node.node_key
                if old is not None and old != node.node_key:
                    self._evict(bytes(old))
                if node.expired(now):
                    self._evict(bytes(node.node_key))

    def on_touch(self, node_id: int, groups: Collection[Group], now: float) -> None:
        """Nothing volatile decides who may use the relay."""

    def expired(self, node_ids: Iterable[int]) -> None:
        """The clock ended these nodes' logins."""
        for node_id in node_ids:
            if node_id in self._keys:
                self._evict(bytes(self._keys[node_id]))
