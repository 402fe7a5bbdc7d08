"""From proof to node: the one function through which a handler reaches one (security.md K1)."""

from __future__ import annotations

from control.keys import MachinePublic, NodePublic
from control.model import Node, Tombstone
from control.state.facts import Facts


def node_for(facts: Facts, machine_key: MachinePublic, node_key: NodePublic | None) -> Node | None:
    """The node with this key, if it is this machine's; somebody else's is the same as none."""
    if node_key is None:
        return None
    node = facts.node_by_key(node_key)
    return node if node is not None and node.machine_key == machine_key else None


def tombstone_for(facts: Facts, machine_key: MachinePublic, node_key: NodePublic | None) -> Tombstone | None:
    """What is left of a deleted node of this machine."""
    stone = facts.tombstones.get(node_key) if node_key is not None else None
    return stone if stone is not None and stone.machine_key == machine_key else None
