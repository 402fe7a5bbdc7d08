"""control/machine/identity.py: from proof to node, and no other way."""

from __future__ import annotations

import ast
from pathlib import Path

from control.machine.identity import node_for, tombstone_for
from control.model import Tombstone
from tests.support.builders import NOW, a_node, a_user, facts_with, machine_key, node_key

FACTS = facts_with(
    a_user(),
    a_node(1),
    Tombstone(node_key=node_key(3), machine_key=machine_key(3), node_id=3, deleted_at=NOW),
)


def test_a_node_is_found_by_its_own_machine_alone() -> None:
    """K1: somebody else's is the same as none."""
    assert node_for(FACTS, machine_key(1), node_key(1)) == a_node(1)
    assert node_for(FACTS, machine_key(2), node_key(1)) is None
    assert node_for(FACTS, machine_key(1), node_key(2)) is None
    assert node_for(FACTS, machine_key(1), None) is None


def test_a_tombstone_is_found_by_its_own_machine_alone() -> None:
    """K1."""
    assert tombstone_for(FACTS, machine_key(3), node_key(3)) is not None
    assert tombstone_for(FACTS, machine_key(1), node_key(3)) is None
    assert tombstone_for(FACTS, machine_key(3), node_key(1)) is None
    assert tombstone_for(FACTS, machine_key(3), None) is None


def test_no_other_module_looks_nodes_up_by_their_key() -> None:
    """K1: a handler cannot forget to compare the machine key."""
    folder = Path(__file__).parents[3] / "control" / "machine"
    users = {
        path.name
        for path in folder.glob("*.py")
        for item in ast.walk(ast.parse(path.read_text()))
        if isinstance(item, ast.Attribute) and item.attr in {"node_by_key", "by_node_key", "tombstones"}
    }
    assert users == {"identity.py"}
