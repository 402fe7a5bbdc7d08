"""The world in memory: whatever happened, the indexes say what the records say, and the log's text says the same."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from control.errors import Refused
from control.state.changes import AnyChange, NodeGone, TombstoneGone
from control.state.commands import AnyCommand, CreateUser, DeleteNode, DeleteUser
from control.state.facts import Facts
from control.state.store import decode_changes, encode_changes
from tests.control.state.histories import COMMANDS
from tests.control.state.toy import ADMIN, decide, machine_key, node_key, register


def played(commands: list[AnyCommand]) -> tuple[Facts, list[AnyChange]]:
    facts = Facts()
    changes: list[AnyChange] = []
    for command in commands:
        with contextlib.suppress(Refused):
            decision = decide(facts, command, ADMIN, 1.0, b"")
            facts.apply(decision.changes)
            changes += decision.changes
    return facts, changes


@given(st.lists(COMMANDS, max_size=40))
def test_indexes_say_what_the_records_say(commands: list[AnyCommand]) -> None:
    facts, _ = played(commands)
    nodes = facts.nodes
    assert facts.users_by_name == {user.name: ident for ident, user in facts.users.items()}
    assert facts.by_node_key == {node.node_key: ident for ident, node in nodes.items()}
    assert facts.by_name == {node.name: ident for ident, node in nodes.items()}
    assert facts.by_address == {address: ident for ident, node in nodes.items() for address in node.addresses}
    for index, attribute in ((facts.by_machine_key, "machine_key"), (facts.by_user, "user_id")):
        expected: dict[object, tuple[int, ...]] = {}
        for ident in sorted(nodes):
            key = getattr(nodes[ident], attribute)
            expected[key] = (*expected.get(key, ()), ident)
        assert index == expected


@given(st.lists(COMMANDS, max_size=20), st.lists(COMMANDS, max_size=20))
def test_copy_knows_nothing_of_what_follows(before: list[AnyCommand], after: list[AnyCommand]) -> None:
    facts, _ = played(before)
    copy = facts.copy()
    assert copy == facts
    again, _ = played(before)
    for command in after:
        with contextlib.suppress(Refused):
            facts.apply(decide(facts, command, ADMIN, 2.0, b"").changes)
    assert copy == again


@given(st.lists(COMMANDS, max_size=40))
def test_changes_as_text_make_the_same_world(commands: list[AnyCommand]) -> None:
    facts, changes = played(commands)
    replayed = Facts()
    replayed.apply(decode_changes(encode_changes(changes)))
    assert replayed == facts


def test_ids_are_never_given_again() -> None:
    facts, _ = played([CreateUser(name="anna"), register(1), DeleteNode(node="1"), DeleteUser(user="anna")])
    facts.apply(decide(facts, register(2), ADMIN, 1.0, b"").changes)
    facts.apply(decide(facts, CreateUser(name="anna"), ADMIN, 1.0, b"").changes)
    assert (set(facts.nodes), set(facts.users)) == ({2}, {2})


def test_tombstone_stays_until_it_is_removed_or_its_key_comes_back() -> None:
    gone = NodeGone(id=1, node_key=node_key(1), machine_key=machine_key(1), at=7.0)
    facts, _ = played([register(1), register(2)])
    facts.apply([gone])
    assert facts.tombstones[node_key(1)].deleted_at == 7.0
    other = facts.copy()
    other.apply([TombstoneGone(node_key=node_key(1))])
    assert other.tombstones == {}
    facts.apply(decide(facts, register(1), ADMIN, 1.0, b"").changes)
    assert facts.tombstones == {}
    assert set(facts.nodes) == {2, 3}
