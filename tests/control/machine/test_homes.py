"""control/machine/homes.py: the home relay survives the deletion of a node."""

from __future__ import annotations

from control.machine.homes import LastHomes
from control.state.changes import NodeGone
from control.state.facts import Facts
from control.state.volatile import Volatile
from tests.support.builders import a_node, machine_key


def gone(number: int) -> NodeGone:
    node = a_node(number)
    return NodeGone(id=node.id, node_key=node.node_key, machine_key=node.machine_key, at=1.0)


def test_the_home_of_a_deleted_node_is_its_machines() -> None:
    loaded, joined = a_node(1), a_node(2)
    volatile = {loaded.id: Volatile(home_derp=900), joined.id: Volatile()}
    homes = LastHomes(volatile)
    volatile[joined.id].home_derp = 901
    homes.on_touch(joined.id, {"derp"}, 1.0)
    assert homes.of(loaded.machine_key) == 0  # its node is there and knows
    homes.on_commit([gone(1), gone(2)], Facts(), 1.0)
    assert (homes.of(loaded.machine_key), homes.of(joined.machine_key)) == (900, 901)
    assert homes.of(machine_key(3)) == 0


def test_a_node_without_a_home_leaves_none() -> None:
    node = a_node(1)
    homes = LastHomes({node.id: Volatile()})
    homes.on_commit([gone(1)], Facts(), 1.0)
    assert homes.of(node.machine_key) == 0
