"""The real rules over a real database: no history of commands makes a change that the tables refuse.

A broken constraint ends the process (state.md A.12), so a command that could cause one would be a way to stop the server.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control.errors import Refused
from control.secret import AUTH_KEY, mint
from control.state.changes import AnyChange
from control.state.commands import (
    AnnounceNode,
    AnyCommand,
    ApproveRoutes,
    CreateAuthKey,
    CreateUser,
    DeleteNode,
    DeleteUser,
    ExpireNode,
    ExtendNode,
    Register,
    RemoveStale,
    RenameNode,
    RenameUser,
    ReportHostinfo,
    RevokeAuthKey,
    RevokeRoutes,
    TagNode,
)
from control.state.facts import Facts
from control.state.rules import decide
from control.state.sqlite import SqliteStore
from control.state.store import Commit, encode_changes
from tests.control.state.toy import ADMIN, machine_key, node_key

PEPPER = b"p" * 32
DAY = 86400.0
MINTED = [mint(AUTH_KEY, PEPPER) for _ in range(3)]

users = st.sampled_from(["anna", "berta", "1", "2"])
hosts = st.sampled_from(["laptop", "laptop-1", "Phone", "", "anna", "x" * 70])
nodes = st.sampled_from(["1", "2", "3", "laptop", "phone"])
idents = st.integers(1, 4)
keys = st.sampled_from(MINTED)
routes = st.lists(st.sampled_from(["10.0.0.0/8", "0.0.0.0/0", "::/0"]), max_size=2, unique=True).map(tuple)
tags = st.lists(st.sampled_from(["tag:a", "tag:b"]), max_size=2, unique=True).map(tuple)

logins = st.builds(
    Register,
    machine_key=st.integers(1, 2).map(machine_key),
    node_key=st.integers(1, 4).map(node_key),
    hostname=hosts,
    ephemeral=st.booleans(),
    advertised=st.none() | routes,
    request_tags=st.just(()) | tags,
    expiry=st.sampled_from([None, None, None, 1.0, 150 * DAY]),
    auth_key=st.none() | keys.map(lambda minted: (minted.id, minted.secret)),
    approved_by=st.none() | users,
)
commands: st.SearchStrategy[AnyCommand] = st.one_of(
    st.builds(CreateUser, name=users),
    st.builds(RenameUser, user=users, name=users),
    st.builds(DeleteUser, user=users, with_nodes=st.booleans()),
    st.builds(
        lambda minted, **more: CreateAuthKey(id=minted.id, mac=minted.mac, expiry_s=5 * DAY, **more),
        keys,
        user=st.none() | users,
        reusable=st.booleans(),
        ephemeral=st.booleans(),
        tags=tags,
    ),
    st.builds(RevokeAuthKey, id=keys.map(lambda minted: minted.id)),
    logins,
    logins,
    logins,
    st.builds(ReportHostinfo, node_id=idents, hostname=hosts, advertised=st.none() | routes),
    st.builds(AnnounceNode, node_id=idents),
    st.builds(RenameNode, node=nodes, name=hosts),
    st.builds(TagNode, node=nodes, tags=tags),
    st.builds(ExpireNode, node=nodes),
    st.builds(ExtendNode, node=nodes, expiry_s=st.none() | st.just(DAY)),
    st.builds(DeleteNode, node=nodes),
    st.builds(ApproveRoutes, node=nodes, routes=routes),
    st.builds(RevokeRoutes, node=nodes, routes=routes),
    st.builds(RemoveStale, node_ids=st.lists(idents, max_size=3).map(tuple)),
)
# Something to act on: two people with a login each on one machine, and a tagged node on another.
PRELUDE: list[AnyCommand] = [
    CreateUser(name="anna"),
    CreateUser(name="berta"),
    CreateAuthKey(id=MINTED[0].id, mac=MINTED[0].mac, expiry_s=50 * DAY, user="anna", reusable=True),
    CreateAuthKey(id=MINTED[1].id, mac=MINTED[1].mac, expiry_s=50 * DAY, tags=("tag:a",), reusable=True),
    Register(machine_key=machine_key(1), node_key=node_key(1), hostname="laptop", approved_by="anna"),
    Register(machine_key=machine_key(1), node_key=node_key(2), hostname="phone", approved_by="berta"),
    Register(
        machine_key=machine_key(2),
        node_key=node_key(3),
        hostname="laptop",
        auth_key=(MINTED[1].id, MINTED[1].secret),
    ),
]


def changes_of(facts: Facts, command: AnyCommand, now: float) -> tuple[AnyChange, ...]:
    with contextlib.suppress(Refused):
        return tuple(decide(facts, command, ADMIN, now, PEPPER).changes)
    return ()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    history=st.lists(st.tuples(commands, st.sampled_from([0.0, 0.0, 1.0, 20 * DAY])), min_size=5, max_size=30)
)
def test_no_history_breaks_a_constraint(tmp_path: Path, history: list[tuple[AnyCommand, float]]) -> None:
    for old in tmp_path.iterdir():
        old.unlink()
    store = SqliteStore(tmp_path / "state.db")
    facts = store.load().facts
    now = 100 * DAY
    batch: list[Commit] = []
    try:
        for command, later in [*((each, 0.0) for each in PRELUDE), *history]:
            now += later
            changes = changes_of(facts, command, now)
            if changes:
                facts.apply(changes)
                facts.seq += 1
                batch.append(Commit(facts.seq, now, "x", "Test", changes, encode_changes(changes)))
        store.append(batch)
        store.close()
        assert store.load().facts == facts
    finally:
        store.close()


def test_prelude_gives_the_histories_something_to_act_on() -> None:
    facts = Facts()
    for command in PRELUDE:
        facts.apply(changes_of(facts, command, 0.0))
    assert (len(facts.users), len(facts.nodes), len(facts.auth_keys)) == (2, 3, 2)
