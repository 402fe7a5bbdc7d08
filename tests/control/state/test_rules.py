"""control/state/rules.py: what each command comes to, who may give it, and that histories of them keep the world whole."""

from __future__ import annotations

import typing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.errors import NotFound, Refused
from control.model import AuthKey, Node, Tombstone, User
from control.secret import Secret
from control.state import commands as ask
from control.state import rules
from control.state.commands import SYSTEM, Actor, AnyCommand, Registered
from control.state.facts import Facts
from control.state.rules import decide
from control.state.store import decode_changes, encode_changes
from tests.support.builders import (
    DAY,
    NOW,
    PEPPER,
    a_key,
    a_login,
    a_node,
    a_user,
    facts_with,
    machine_key,
    node_key,
)

ADMIN = Actor(kind="local", id="uid:0")
MACHINE = Actor(kind="machine", id="mkey:00000000")


def done(facts: Facts, command: AnyCommand, by: Actor = ADMIN, now: float = NOW) -> Any:
    """The result of this command, in facts that follow it."""
    decision = decide(facts, command, by, now, PEPPER)
    facts.apply(decision.changes)
    return decision.result


def refusal(facts: Facts, command: AnyCommand, by: Actor = ADMIN, now: float = NOW) -> Refused:
    before = facts.copy()
    with pytest.raises(Refused) as caught:
        decide(facts, command, by, now, PEPPER)
    assert facts == before, "a refusal changed something"
    return caught.value


# who may what


EXAMPLES: dict[type, AnyCommand] = {
    type(command): command
    for command in (
        ask.CreateUser(name="zoe"),
        ask.RenameUser(user="ann", name="anna"),
        ask.DeleteUser(user="ann"),
        ask.CreateAuthKey(id="k", mac=bytes(32), expiry_s=60, user="ann"),
        ask.RevokeAuthKey(id="key1xxxxxxxx"),
        a_login(1),
        ask.ReportHostinfo(node_id=1, hostname="x"),
        ask.AnnounceNode(node_id=1),
        ask.RenameNode(node="1", name="x"),
        ask.TagNode(node="1", tags=("tag:x",)),
        ask.ExpireNode(node="1"),
        ask.ExtendNode(node="1", expiry_s=60),
        ask.DeleteNode(node="1"),
        ask.ApproveRoutes(node="1", routes=("10.0.0.0/8",)),
        ask.RevokeRoutes(node="1", routes=("10.0.0.0/8",)),
        ask.RemoveStale(node_ids=(1,)),
        ask.SetSetting(name="node_expiry_s", value="60"),
    )
}
MAY_A_MACHINE = {ask.Register, ask.ReportHostinfo, ask.AnnounceNode}


def test_every_command_has_an_example_here() -> None:
    assert set(EXAMPLES) == set(typing.get_args(AnyCommand))


@pytest.mark.parametrize("command", EXAMPLES.values(), ids=lambda command: type(command).__name__)
def test_authorisation(command: AnyCommand) -> None:
    """W3: a device logs in and reports, and nothing else; administrators and duties may all."""
    facts = facts_with(a_user(1), a_key(1)[0], a_node(1, approved=("10.0.0.0/8",), user_id=None))
    for by in (ADMIN, SYSTEM):
        decide(facts, command, by, NOW, PEPPER)
    if type(command) in MAY_A_MACHINE:
        decide(facts, command, MACHINE, NOW, PEPPER)
    else:
        assert "a device may not" in refusal(facts, command, MACHINE).public_reason


def test_a_device_cannot_approve_its_own_login() -> None:
    """K4."""
    assert "may not" in refusal(facts_with(a_user()), a_login(1, approved_by="ann"), MACHINE).public_reason


# users


def test_the_first_user_owns_the_server() -> None:
    facts = Facts()
    users = [done(facts, ask.CreateUser(name=name)) for name in ("ann", "bob")]
    assert [(user.id, user.role, user.login_name) for user in users] == [
        (1, "owner", "ann@"),
        (2, "member", "bob@"),
    ]


@pytest.mark.parametrize(
    "name", ["", "Ann", "a b", "a@b", "12", "-a", "a-", "a/b", "..", "x" * 64, "é", "a\n", "<b>"]
)
def test_names_that_nobody_can_have(name: str) -> None:
    refusal(facts_with(a_user(1)), ask.CreateUser(name=name))
    refusal(facts_with(a_user(1)), ask.RenameUser(user="ann", name=name))


@pytest.mark.parametrize(
    "email", ["ann", "ann@", "@x", "a b@x.y", "ann@x_y", '"a"@x.y', "a@x.y\n", "a@" + "x" * 300]
)
def test_addresses_that_are_none(email: str) -> None:
    refusal(Facts(), ask.CreateUser(name="ann", email=email))


def test_names_and_addresses_are_one_persons() -> None:
    facts = facts_with(a_user(1, email="ann@x.example"), a_user(2))
    refusal(facts, ask.CreateUser(name="ann"))
    refusal(facts, ask.CreateUser(name="zoe", email="ANN@x.example"))
    refusal(facts, ask.RenameUser(user="bob", name="ann"))


def test_a_display_name_is_one_printable_line() -> None:
    user = done(Facts(), ask.CreateUser(name="ann", display_name=" Ann\x1b[31m\n Ä " + "x" * 200))
    assert user.display_name == ("Ann[31m Ä " + "x" * 200)[:99]


def test_renaming_keeps_the_person() -> None:
    facts = facts_with(a_user(1), a_node(1))
    assert done(facts, ask.RenameUser(user="ann", name="anna")).id == 1
    assert facts.user_of(facts.nodes[1]) == facts.users[1]
    assert decide(facts, ask.RenameUser(user="1", name="anna"), ADMIN, NOW, PEPPER).changes == ()


def test_a_user_with_nodes_is_deleted_only_with_them() -> None:
    key, _ = a_key(1)
    facts = facts_with(a_user(1), a_user(2), key, a_node(1), a_node(2, user_id=2))
    assert "node1" in refusal(facts, ask.DeleteUser(user="ann")).public_reason
    done(facts, ask.DeleteUser(user="ann", with_nodes=True))
    assert (set(facts.users), set(facts.nodes), facts.auth_keys) == ({2}, {2}, {})
    assert node_key(1) in facts.tombstones
    assert done(facts, ask.CreateUser(name="zoe")).id == 3


@pytest.mark.parametrize("text", ["ann", "1", "ann@x.example", "ANN@x.example"])
def test_a_user_is_found_by_name_id_or_address(text: str) -> None:
    facts = facts_with(a_user(1, email="ann@x.example"))
    assert done(facts, ask.RenameUser(user=text, name="new")).id == 1
    for other in ("nobody", "2", "9" * 400, "", "²", "bob@"):
        assert isinstance(refusal(facts, ask.DeleteUser(user=other)), NotFound)


# keys


@pytest.mark.parametrize("expiry_s", [0, -1, 59.9, 90 * DAY + 1, float("inf"), float("nan")])
def test_a_key_lives_between_a_minute_and_90_days(expiry_s: float) -> None:
    refusal(facts_with(a_user()), ask.CreateAuthKey(id="k", mac=bytes(32), expiry_s=expiry_s, user="ann"))


def test_a_key_is_for_a_user_or_for_tags() -> None:
    facts = facts_with(a_user())
    refusal(facts, ask.CreateAuthKey(id="k", mac=bytes(32), expiry_s=60))
    tags = ("tag:b", "tag:a", "tag:b")
    assert done(facts, ask.CreateAuthKey(id="k", mac=bytes(32), expiry_s=60, tags=tags)).tags == (
        "tag:a",
        "tag:b",
    )


@pytest.mark.parametrize(
    "tag", ["", "x", "tag:", "tag:1", "tag:a b", "tag:a\n", "tag:-a", "tag:" + "a" * 51, "tag:é"]
)
def test_tags_have_a_form(tag: str) -> None:
    facts = facts_with(a_node(1))
    refusal(facts, ask.CreateAuthKey(id="k", mac=bytes(32), expiry_s=60, tags=(tag,)))
    refusal(facts, ask.TagNode(node="1", tags=(tag,)))


def test_a_revoked_key_stays_revoked_at_its_time() -> None:
    key, _ = a_key(1)
    facts = facts_with(a_user(), key)
    done(facts, ask.RevokeAuthKey(id=key.id))
    assert done(facts, ask.RevokeAuthKey(id=key.id), now=NOW + 5).revoked_at == NOW
    assert isinstance(refusal(facts, ask.RevokeAuthKey(id="nosuch")), NotFound)


# nodes


@pytest.mark.parametrize("text", ["7", "web", "WEB", "100.64.0.7", "fd7a:115c:a1e0::7"])
def test_a_node_is_found_by_id_name_or_address(text: str) -> None:
    facts = facts_with(a_user(), a_node(7, name="web"))
    assert done(facts, ask.ExpireNode(node=text)).id == 7
    for other in ("8", "we", "100.64.0.8", "", "²"):
        assert isinstance(refusal(facts, ask.DeleteNode(node=other)), NotFound)


def test_a_name_given_by_an_administrator_outlives_host_names() -> None:
    facts = facts_with(a_user(), a_node(1), a_node(2, name="box", hostname="box"))
    assert done(facts, ask.RenameNode(node="1", name="gate")).name == "gate"
    assert done(facts, ask.ReportHostinfo(node_id=1, hostname="Box"), MACHINE).name == "gate"
    freed = done(facts, ask.RenameNode(node="gate", name=""))
    assert (freed.name, freed.hostname, freed.name_frozen) == ("box-1", "Box", False)
    assert done(facts, ask.RenameNode(node="1", name="")).name == "box-1"  # freed again: the suffix stays
    assert "already has" in refusal(facts, ask.RenameNode(node="1", name="box")).public_reason


@pytest.mark.parametrize("name", ["Web", "a.b", "-a", "localhost", "wpad", "17", "x" * 64, "a_b", "é"])
def test_names_that_no_node_can_be_given(name: str) -> None:
    """M3."""
    refusal(facts_with(a_node(1)), ask.RenameNode(node="1", name=name))


def test_node_cannot_take_the_servers_name() -> None:
    """M3: every name of a node is one label below the base domain, whatever a client or an administrator says. That the
    base domain and the server's host are never equal, parent or child of one another is the configuration's rule."""
    facts = facts_with(a_user(), a_node(1), a_node(2, name="vpn", hostname="vpn"))
    taken = done(facts, ask.ReportHostinfo(node_id=1, hostname="vpn.example.com"), MACHINE)
    assert taken.name == "vpn-1"
    refusal(facts, ask.RenameNode(node="1", name="vpn.example.com"))


def test_a_host_name_that_comes_back_keeps_the_name() -> None:
    facts = facts_with(a_node(1, name="box-3", hostname="box"))
    assert done(facts, ask.ReportHostinfo(node_id=1, hostname="BOX.local"), MACHINE).name == "box-3"


def test_a_report_says_only_what_it_says() -> None:
    facts = facts_with(a_node(1, advertised=("10.0.0.0/8",)))
    assert done(facts, ask.ReportHostinfo(node_id=1, hostname="new"), MACHINE).advertised == ("10.0.0.0/8",)
    assert done(facts, ask.ReportHostinfo(node_id=1, advertised=()), MACHINE).hostname == "new"
    assert decide(facts, ask.ReportHostinfo(node_id=1), MACHINE, NOW, PEPPER).changes == ()
    assert isinstance(refusal(facts, ask.ReportHostinfo(node_id=9), MACHINE), NotFound)


def test_a_node_is_announced_once() -> None:
    facts = facts_with(a_node(1))
    assert done(facts, ask.AnnounceNode(node_id=1), SYSTEM).announced
    assert decide(facts, ask.AnnounceNode(node_id=1), SYSTEM, NOW, PEPPER).changes == ()


def test_expiry_is_now_and_extension_from_now() -> None:
    facts = facts_with(a_user(), a_node(1))
    assert done(facts, ask.ExpireNode(node="1")).expires_at == NOW
    assert done(facts, ask.ExpireNode(node="1"), now=NOW + 5).expires_at == NOW
    assert done(facts, ask.ExtendNode(node="1", expiry_s=DAY), now=NOW + 5).expires_at == NOW + 5 + DAY
    assert done(facts, ask.ExtendNode(node="1", expiry_s=None)).expires_at is None
    for wrong in (0.0, -1.0, 59.0, 1e17, float("nan"), float("inf")):
        refusal(facts, ask.ExtendNode(node="1", expiry_s=wrong))


def test_a_tagged_node_is_nobodys_and_never_expires() -> None:
    facts = facts_with(a_user(), a_node(1))
    node = done(facts, ask.TagNode(node="1", tags=("tag:web",)))
    assert (node.user_id, node.tags, node.expires_at) == (None, ("tag:web",), None)
    assert facts.nodes_of_user(None) == [node]
    refusal(facts, ask.TagNode(node="1", tags=()))


def test_routes_are_approved_as_prefixes_before_or_after_they_are_advertised() -> None:
    facts = facts_with(a_node(1, advertised=("10.1.0.0/16",)))
    node = done(facts, ask.ApproveRoutes(node="1", routes=("10.1.2.3/16", "0.0.0.0/0", "::/0")))
    assert node.approved == ("10.1.0.0/16", "0.0.0.0/0", "::/0")
    assert node.routes == ("10.1.0.0/16",)
    assert done(facts, ask.RevokeRoutes(node="1", routes=("10.1.0.0/16",))).approved == ("0.0.0.0/0", "::/0")
    assert isinstance(refusal(facts, ask.RevokeRoutes(node="1", routes=("10.1.0.0/16",))), NotFound)


@pytest.mark.parametrize("routes", [(), ("x",), ("100.64.0.0/10",), ("10.0.0.0/8", "127.0.0.1")])
def test_route_over_tailnet_range_refused(routes: tuple[str, ...]) -> None:
    """M4: an administrator cannot approve one either."""
    refusal(facts_with(a_node(1)), ask.ApproveRoutes(node="1", routes=routes))


# clean-up and settings


def test_only_ephemeral_nodes_are_removed_as_stale() -> None:
    facts = facts_with(a_user(), a_node(1, ephemeral=True), a_node(2), a_node(3, ephemeral=True))
    done(facts, ask.RemoveStale(node_ids=(1, 2, 99)), SYSTEM)
    assert set(facts.nodes) == {2, 3}


def test_what_has_ended_is_kept_for_30_days() -> None:
    old = NOW - 30 * DAY
    keys = [
        a_key(1, expires_at=old - 1)[0],
        a_key(2, revoked_at=old - 1)[0],
        a_key(3, used_at=old - 1)[0],
        a_key(4, used_at=old - 1, reusable=True)[0],
        a_key(5, expires_at=old + 1)[0],
    ]
    stones = [
        Tombstone(node_key=node_key(n), machine_key=machine_key(n), node_id=n, deleted_at=old + n - 1.5)
        for n in (1, 2)
    ]
    facts = facts_with(a_user(), *keys, *stones)
    done(facts, ask.RemoveStale(), SYSTEM)
    assert set(facts.auth_keys) == {keys[3].id, keys[4].id}
    assert set(facts.tombstones) == {node_key(2)}


def test_tombstones_are_bounded_and_the_oldest_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "TOMBSTONES_MAX", 3)
    stones = [
        Tombstone(node_key=node_key(n), machine_key=machine_key(n), node_id=n, deleted_at=NOW + n)
        for n in (3, 1, 4, 2, 5)
    ]
    facts = facts_with(*stones)
    done(facts, ask.RemoveStale(), SYSTEM)
    assert set(facts.tombstones) == {node_key(3), node_key(4), node_key(5)}


@pytest.mark.parametrize("value", ["", "abc", "nan", "1e9", "-60", "59", "9" * 40])
def test_a_setting_that_would_break_logins_is_refused(value: str) -> None:
    refusal(Facts(), ask.SetSetting(name="node_expiry_s", value=value))
    assert isinstance(refusal(Facts(), ask.SetSetting(name="nosuch", value=value)), NotFound)


# histories

NUMBERS = st.integers(1, 4)
NODES = NUMBERS.map(str)
HOSTS = st.sampled_from(["box", "Box.local", "localhost", "7", "", "web-1", "web"])
ROUTES = st.sampled_from([("10.0.0.0/8",), ("0.0.0.0/0", "::/0"), ("100.64.0.0/10",)])
KEYS: dict[str, tuple[AuthKey, tuple[str, Secret]]] = {
    key[0].id: key
    for key in (
        a_key(1), a_key(2, reusable=True), a_key(3, tags=("tag:x",), reusable=True), a_key(4, ephemeral=True),
        a_key(5, user_id=2, reusable=True),
    )
}  # fmt: skip
LOGINS = st.builds(
    a_login,
    NUMBERS,
    st.integers(1, 6),
    hostname=HOSTS,
    auth_key=st.none() | st.sampled_from([text for _, text in KEYS.values()]),
    approved_by=st.none() | st.sampled_from(["ann", "2", "3"]),
    expiry=st.sampled_from([None, None, None, 123.0, NOW + 100, NOW + 400 * DAY]),
    ephemeral=st.booleans(),
    advertised=st.none() | st.sampled_from([(), ("10.0.0.0/8",)]),
)
COMMANDS = st.one_of(
    LOGINS,
    LOGINS,
    st.builds(ask.CreateUser, name=st.sampled_from(["ann", "bob", "cid"])),
    st.builds(ask.DeleteUser, user=NODES, with_nodes=st.booleans()),
    st.builds(
        ask.ReportHostinfo,
        node_id=NUMBERS,
        hostname=HOSTS,
        advertised=st.sampled_from([None, ("10.0.0.0/8",)]),
    ),
    st.builds(ask.RenameNode, node=NODES, name=st.sampled_from(["", "box", "box-1", "gate"])),
    st.builds(ask.TagNode, node=NODES, tags=st.just(("tag:x",))),
    st.builds(ask.ExpireNode, node=NODES),
    st.builds(ask.ExtendNode, node=NODES, expiry_s=st.sampled_from([None, 60.0])),
    st.builds(ask.DeleteNode, node=NODES),
    st.builds(ask.ApproveRoutes, node=NODES, routes=ROUTES),
    st.builds(ask.RevokeAuthKey, id=st.sampled_from(list(KEYS))),
    st.builds(ask.RemoveStale, node_ids=st.tuples(NUMBERS)),
)


@given(st.lists(st.tuples(COMMANDS, st.sampled_from([0.0, 1.0, 200.0, 40 * DAY])), max_size=40))
def test_no_history_of_commands_breaks_the_world(history: list[tuple[AnyCommand, float]]) -> None:
    """Two copies that follow the changes are equal, one of them through the log's text; indexes say what the records say;
    names, addresses and keys are one node's; ids are not used twice; one-off keys admit one machine."""
    head = facts_with(a_user(1), a_user(2), *(key for key, _ in KEYS.values()))
    durable, now, admitted_by = head.copy(), NOW, dict[str, set[int]]()
    seen: dict[int, tuple[object, ...]] = {}
    for command, pause in history:
        now += pause
        try:
            decision = decide(head, command, ADMIN, now, PEPPER)
        except Refused:
            continue
        changes = decode_changes(encode_changes(decision.changes))
        assert changes == tuple(decision.changes)
        head.apply(decision.changes)
        durable.apply(changes)
        assert head == durable
        _check_whole(head)
        for node in head.nodes.values():
            constant = (node.machine_key, node.ipv4, node.ipv6, node.created_at)
            assert seen.setdefault(node.id, constant) == constant, "a node became another"
        if isinstance(decision.result, Registered) and decision.changes and decision.result.node.auth_key_id:
            node = decision.result.node
            admitted_by.setdefault(node.auth_key_id, set()).add(node.id)
    for key_id, ids in admitted_by.items():
        assert KEYS[key_id][0].reusable or len(ids) == 1, "a one-off key admitted two"


def _check_whole(facts: Facts) -> None:
    nodes = list(facts.nodes.values())
    for field in ("node_key", "name", "ipv4", "ipv6"):
        assert len({getattr(node, field) for node in nodes}) == len(nodes), f"two nodes have one {field}"
    per_owner = [(n.machine_key, n.user_id) for n in nodes if n.user_id is not None]
    assert len(set(per_owner)) == len(per_owner), "a machine has two nodes of one user"
    assert all(n.user_id in facts.users for n in nodes if n.user_id is not None)
    assert all((n.user_id is None) == bool(n.tags) for n in nodes)
    assert not facts.tombstones.keys() & facts.by_node_key.keys()
    records: list[User | Node | AuthKey] = [*facts.users.values(), *nodes, *facts.auth_keys.values()]
    again = facts_with(*records)
    again.last_id, again.tombstones = facts.last_id, facts.tombstones
    assert again == facts, "the indexes do not follow from the records"
