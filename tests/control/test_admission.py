"""control/admission.py: who may use the relay, and who has just lost that."""

from __future__ import annotations

from typing import Any

import pytest

from control.admission import Admission
from control.keys import NodePublic
from control.model import Node
from control.state.changes import AnyChange, NodeGone, NodePut, UserPut
from control.state.facts import Facts
from tests.support.builders import DAY, NOW, a_node, a_user, facts_with, machine_key, node_key


class Relay:
    """An admission with a clock that a test moves, and what it evicted."""

    def __init__(self, *nodes: Node) -> None:
        self.now, self.evicted = NOW, list[NodePublic]()
        self.facts = facts_with(a_user(), *nodes)
        self.admission = Admission(lambda raw: self.evicted.append(NodePublic(raw)), lambda: self.now)
        self.admission.load(self.facts)

    def admits(self, number: int) -> bool:
        return self.admission.admitted(bytes(node_key(number))) is not None

    def commit(self, *changes: AnyChange) -> None:
        self.facts = self.facts.copy()
        self.facts.apply(changes)
        self.admission.on_commit(changes, self.facts, self.now)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.admission.tick(self.now)


def test_stranger_and_expired_not_admitted() -> None:
    """R1."""
    relay = Relay(a_node(1), a_node(2, expires_at=NOW), a_node(3, tags=("tag:x",)))
    assert [relay.admits(number) for number in (1, 2, 3, 4)] == [True, False, True, False]
    assert not Relay().admits(1)


def test_a_new_node_is_admitted_once_it_is_on_disk() -> None:
    relay = Relay()
    relay.commit(UserPut(user=a_user()), NodePut(node=a_node(1)))
    assert relay.admits(1)
    assert relay.evicted == []


CHANGES: dict[str, tuple[AnyChange, list[NodePublic]]] = {
    "deleted": (NodeGone(id=1, node_key=node_key(1), machine_key=machine_key(1), at=NOW), [node_key(1)]),
    "expired": (NodePut(node=a_node(1, expires_at=NOW)), [node_key(1)]),
    "new key": (NodePut(node=a_node(1, node_key=node_key(9))), [node_key(1)]),
    "new key, expired": (
        NodePut(node=a_node(1, node_key=node_key(9), expires_at=NOW)),
        [node_key(1), node_key(9)],
    ),
    "renamed": (NodePut(node=a_node(1, name="x")), []),
    "extended": (NodePut(node=a_node(1, expires_at=NOW + 99 * DAY)), []),
}


@pytest.mark.parametrize("case", CHANGES)
def test_revoked_node_is_off_map_and_relay_within_1s(case: str) -> None:
    """K9, the relay's part: evicted by the commit itself, and not let in again."""
    change, evicted = CHANGES[case]
    relay = Relay(a_node(1), a_node(2))
    relay.commit(change)
    assert relay.evicted == evicted
    assert relay.admits(1) == (not evicted)
    assert relay.admits(2)


def test_the_clock_ends_a_login_once() -> None:
    """K9."""
    relay = Relay(a_node(1, expires_at=NOW + 10), a_node(2))
    relay.commit(NodePut(node=a_node(3, expires_at=NOW + 20)))
    relay.pass_time(9)
    assert relay.evicted == []
    relay.pass_time(1)
    assert relay.evicted == [node_key(1)]
    assert not relay.admits(1)
    relay.pass_time(60)
    assert relay.evicted == [node_key(1), node_key(3)]


@pytest.mark.parametrize("fields", [{"expires_at": NOW + 30}, {"expires_at": None}, {"expires_at": NOW + 5}])
def test_an_extension_or_shortening_moves_the_end(fields: dict[str, Any]) -> None:
    relay = Relay(a_node(1, expires_at=NOW + 10))
    relay.commit(NodePut(node=a_node(1, **fields)))
    end = fields["expires_at"]
    for second in range(1, 40):
        relay.pass_time(1)
        assert bool(relay.evicted) == (end is not None and second >= end - NOW)


def test_a_node_deleted_before_its_end_is_not_evicted_twice() -> None:
    relay = Relay(a_node(1, expires_at=NOW + 10))
    relay.commit(NodeGone(id=1, node_key=node_key(1), machine_key=machine_key(1), at=NOW))
    relay.pass_time(20)
    assert relay.evicted == [node_key(1)]


def test_nothing_is_admitted_before_the_facts_are_loaded() -> None:
    admission = Admission(lambda raw: None, lambda: NOW)
    assert not admission.admitted(bytes(node_key(1)))
    admission.load(Facts())
    assert not admission.admitted(bytes(32))
