"""control/state/registration.py: the table of control.md §6.3 and §6.5, case by case."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from msgspec.structs import replace

from control.errors import Refused, WrongKey
from control.keys import NodePublic
from control.limits import Quotas
from control.model import Node, Tombstone
from control.secret import Secret
from control.state import registration
from control.state.changes import AuthKeyPut, NodeGone, NodePut
from control.state.commands import Decision, LoggedOut, NeedsLogin, NeedsNewKey, Register, Registered
from control.state.facts import Facts
from control.state.registration import INVALID_KEY, NODE_EXPIRY, decide_register
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

ANN, BOB = a_user(1), a_user(2)
KEY, TEXT = a_key(1)
BOBS_KEY, BOBS_TEXT = a_key(2, user_id=2)
TAGGED_KEY, TAGGED_TEXT = a_key(3, tags=("tag:web",))
EXPIRED = NOW - 1
ROOMY = Quotas()


def decided(facts: Facts, command: Register, now: float = NOW, quotas: Quotas = ROOMY) -> Decision:
    return decide_register(facts, command, now, PEPPER, quotas)


def admitted(facts: Facts, command: Register, now: float = NOW) -> Node:
    """The node that this login gives, in facts that follow it; checked to be consistent."""
    decision = decided(facts, command, now)
    assert isinstance(decision.result, Registered)
    facts.apply(decision.changes)
    again = facts_with(*facts.users.values(), *facts.nodes.values(), *facts.auth_keys.values())
    assert (facts.by_node_key, facts.by_machine_key) == (again.by_node_key, again.by_machine_key)
    assert len(facts.by_node_key) == len(facts.nodes), "two nodes have one key"
    node = decision.result.node
    assert facts.nodes[node.id] == node
    assert decision.result.user == facts.user_of(node)
    return node


def refusal(facts: Facts, command: Register, now: float = NOW) -> str:
    with pytest.raises(Refused) as caught:
        decided(facts, command, now)
    return caught.value.public_reason


# a first login


def test_a_key_admits_a_new_machine_and_is_spent_in_the_same_step() -> None:
    """K2."""
    facts = facts_with(ANN, KEY)
    node = admitted(facts, a_login(5, hostname="Laptop", auth_key=TEXT, advertised=("10.0.0.0/8",)))
    assert (node.id, node.name, node.hostname, node.user_id) == (1, "laptop", "Laptop", 1)
    assert (node.machine_key, node.node_key) == (machine_key(5), node_key(5))
    assert (node.ipv4, node.ipv6) == ("100.64.0.1", "fd7a:115c:a1e0::1")
    assert (node.expires_at, node.ephemeral, node.tags) == (NOW + NODE_EXPIRY, False, ())
    assert (node.advertised, node.approved, node.announced) == (("10.0.0.0/8",), (), False)
    assert facts.auth_keys[KEY.id].used_at == NOW
    assert refusal(facts, a_login(6, auth_key=TEXT)).startswith("this auth key was already used")


def test_a_reusable_key_admits_many() -> None:
    key, text = a_key(1, reusable=True)
    facts = facts_with(ANN, key)
    nodes = [admitted(facts, a_login(number, hostname="box", auth_key=text)) for number in (1, 2, 3)]
    assert [node.name for node in nodes] == ["box", "box-1", "box-2"]
    assert len({node.ipv4 for node in nodes}) == 3


def test_without_a_key_a_person_is_asked() -> None:
    assert decided(facts_with(ANN), a_login(1)) == Decision((), NeedsLogin())


def test_an_approved_login_is_the_named_users() -> None:
    node = admitted(facts_with(ANN, BOB), a_login(1, approved_by="bob"))
    assert (node.user_id, node.auth_key_id) == (2, "")


def test_an_approval_for_nobody_is_refused() -> None:
    assert "no user" in refusal(facts_with(ANN), a_login(1, approved_by="bob"))


@pytest.mark.parametrize(("by_key", "by_request"), list(itertools.product([False, True], repeat=2)))
def test_ephemeral_by_its_key_or_by_request(by_key: bool, by_request: bool) -> None:
    key, text = a_key(1, ephemeral=by_key)
    node = admitted(facts_with(ANN, key), a_login(1, auth_key=text, ephemeral=by_request))
    assert node.ephemeral == (by_key or by_request)


def test_a_tagged_key_makes_a_node_of_nobody_that_never_expires() -> None:
    node = admitted(facts_with(ANN, TAGGED_KEY), a_login(1, auth_key=TAGGED_TEXT, expiry=NOW + DAY))
    assert (node.user_id, node.tags, node.expires_at) == (None, ("tag:web",), None)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"revoked_at": NOW - 5}, "revoked"),
        ({"expires_at": NOW}, "expired"),
        ({"used_at": NOW - 5}, "already used"),
        ({"user_id": 77}, INVALID_KEY),
    ],
)
def test_bad_keys_say_what_is_wrong_to_their_holder(fields: dict[str, Any], reason: str) -> None:
    key, text = a_key(1, **fields)
    assert reason in refusal(facts_with(ANN, key), a_login(1, auth_key=text))


def test_wrong_and_unknown_key_same_answer() -> None:
    """K7: neither a wrong secret nor a revoked key's id can be told from a key that never was."""
    revoked, _ = a_key(4, revoked_at=NOW)
    facts = facts_with(ANN, KEY, revoked)
    guesses: list[dict[str, Any]] = [
        {"auth_key": (KEY.id, Secret("tskey-auth-wrong"))},
        {"auth_key": (revoked.id, Secret("tskey-auth-wrong"))},
        {"auth_key": ("nosuchkey", Secret("tskey-auth-wrong"))},
        {"bad_auth_key": True},
    ]
    for guess in guesses:
        with pytest.raises(WrongKey) as caught:
            decided(facts, a_login(1, **guess))
        assert caught.value.public_reason == INVALID_KEY


def test_a_request_without_a_node_key_is_refused() -> None:
    assert "no node key" in refusal(
        facts_with(ANN, KEY), a_login(1, node_key=NodePublic(bytes(32)), auth_key=TEXT)
    )


# who is who


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"auth_key": TEXT},
        {"expiry": 123.0},
        {"expiry": NOW + 5},
        {"approved_by": "ann"},
        {"request_tags": ("tag:x",)},
    ],
)
def test_another_machines_node_key_is_refused_whatever_comes_with_it(fields: dict[str, Any]) -> None:
    """K1, K3."""
    facts = facts_with(ANN, KEY, a_node(1))
    assert "different machine key" in refusal(facts, a_login(2, key=1, **fields))


@pytest.mark.parametrize("fields", [{}, {"auth_key": TEXT}, {"approved_by": "ann"}])
def test_the_key_of_a_deleted_node_is_refused_to_any_other_machine(fields: dict[str, Any]) -> None:
    """K3."""
    stone = Tombstone(node_key=node_key(1), machine_key=machine_key(1), node_id=1, deleted_at=NOW - DAY)
    facts = facts_with(ANN, KEY, stone)
    assert "different machine key" in refusal(facts, a_login(2, key=1, **fields))


def test_the_deleted_nodes_own_machine_may_come_back_as_a_new_node() -> None:
    facts = facts_with(ANN, KEY, a_node(1))
    facts.apply([NodeGone(id=1, node_key=node_key(1), machine_key=machine_key(1), at=NOW)])
    assert decided(facts, a_login(1)) == Decision((), NeedsLogin())  # and never NeedsNewKey
    node = admitted(facts, a_login(1, auth_key=TEXT))
    assert node.id == 2  # ids are never used again
    assert facts.tombstones == {}


# a known node without anything new


def test_a_restart_changes_nothing() -> None:
    node = a_node(1)
    decision = decided(facts_with(ANN, node), a_login(1))
    assert decision == Decision((), Registered(node, ANN))


def test_a_restart_tells_a_new_host_name_and_routes() -> None:
    node = admitted(facts_with(ANN, a_node(1)), a_login(1, hostname="Other", advertised=("10.0.0.0/8",)))
    assert (node.name, node.hostname, node.advertised) == ("other", "Other", ("10.0.0.0/8",))


def test_an_expired_node_is_told_to_make_a_new_key() -> None:
    facts = facts_with(ANN, a_node(1, expires_at=EXPIRED))
    assert decided(facts, a_login(1)) == Decision((), NeedsNewKey())


@pytest.mark.parametrize("end", [NOW + 1, NOW + DAY])
def test_a_device_may_shorten_its_login(end: float) -> None:
    """K8."""
    assert admitted(facts_with(ANN, a_node(1)), a_login(1, expiry=end)).expires_at == end


def test_a_device_may_not_extend_its_login() -> None:
    """K8."""
    assert "not extend" in refusal(facts_with(ANN, a_node(1)), a_login(1, expiry=NOW + 31 * DAY))


@pytest.mark.parametrize(
    "fields", [{}, {"approved_by": "ann"}, {"auth_key": TEXT}, {"auth_key": TAGGED_TEXT}]
)
def test_request_tags_need_ownership(fields: dict[str, Any]) -> None:
    """K8: until a policy says who owns a tag, only a key that carries it gives it."""
    facts = facts_with(ANN, KEY, TAGGED_KEY)
    assert "tag:other" in refusal(facts, a_login(1, request_tags=("tag:other",), **fields))
    assert facts.auth_keys[KEY.id].used_at is None


def test_request_tags_on_a_running_node_are_refused_and_not_silently_granted() -> None:
    """K8; tried.md trap 7: `up --advertise-tags` is this request."""
    facts = facts_with(ANN, a_node(1), a_node(2, tags=("tag:web",)))
    assert "tag:web" in refusal(facts, a_login(1, request_tags=("tag:web",)))
    assert admitted(facts, a_login(2, request_tags=("tag:web",))).tags == ("tag:web",)


def test_a_restart_may_ask_again_for_what_it_was_given_although_an_administrator_changed_it() -> None:
    """The device still has its `--advertise-tags`; what the administrator set stays."""
    facts = facts_with(TAGGED_KEY)
    node = admitted(facts, a_login(1, request_tags=("tag:web",), auth_key=TAGGED_TEXT))
    facts.apply([NodePut(node=replace(node, tags=("tag:db",)))])
    assert admitted(facts, a_login(1, request_tags=("tag:web",))).tags == ("tag:db",)
    assert "not permitted" in refusal(facts, a_login(1, request_tags=("tag:web", "tag:other")))


def test_a_key_gives_all_its_tags_whether_asked_for_or_not() -> None:
    key, text = a_key(3, tags=("tag:a", "tag:b"))
    assert admitted(facts_with(key), a_login(1, auth_key=text, request_tags=("tag:a",))).tags == (
        "tag:a",
        "tag:b",
    )


# a known node with an auth key


def test_a_container_restarts_with_its_spent_key() -> None:
    facts = facts_with(ANN, KEY)
    node = admitted(facts, a_login(1, auth_key=TEXT))
    for now in (NOW + 1, NOW + 100 * DAY):  # when the key has expired, too
        decision = decided(facts, a_login(1, auth_key=TEXT), now)
        assert decision == Decision((), Registered(node, ANN))


@pytest.mark.parametrize(
    "fields", [{"auth_key": ("gone", Secret("tskey-auth-gone"))}, {"bad_auth_key": True}]
)
def test_a_container_restarts_with_a_key_that_is_long_forgotten(fields: dict[str, Any]) -> None:
    node = a_node(1)
    assert decided(facts_with(ANN, node), a_login(1, **fields)) == Decision((), Registered(node, ANN))


def test_a_second_key_of_the_same_user_is_not_spent_by_a_running_node() -> None:
    facts = facts_with(ANN, KEY, a_node(1))
    assert decided(facts, a_login(1, auth_key=TEXT)).changes == ()


def test_an_expired_node_with_a_key_keeps_its_key_and_gets_a_new_end() -> None:
    facts = facts_with(ANN, KEY, a_node(1, expires_at=EXPIRED))
    node = admitted(facts, a_login(1, auth_key=TEXT))
    assert (node.id, node.node_key, node.expires_at) == (1, node_key(1), NOW + NODE_EXPIRY)
    assert facts.auth_keys[KEY.id].used_at == NOW


def test_an_expired_node_with_the_spent_key_that_brought_it_in_stays_out() -> None:
    key, text = a_key(1, used_at=NOW - DAY)
    facts = facts_with(ANN, key, a_node(1, expires_at=EXPIRED, auth_key_id=key.id))
    assert "already used" in refusal(facts, a_login(1, auth_key=text))


@pytest.mark.parametrize("expires_at", [NOW + DAY, EXPIRED])
def test_another_users_key_needs_a_new_node_key_and_makes_a_second_node(expires_at: float) -> None:
    facts = facts_with(ANN, BOB, BOBS_KEY, a_node(1, expires_at=expires_at))
    assert decided(facts, a_login(1, auth_key=BOBS_TEXT)) == Decision((), NeedsNewKey())
    assert facts.auth_keys[BOBS_KEY.id].used_at is None  # not spent by the question
    second = admitted(facts, a_login(1, key=9, auth_key=BOBS_TEXT))
    assert (second.id, second.user_id) == (2, 2)
    assert facts.nodes[1] == a_node(1, expires_at=expires_at)


def test_a_tagged_key_turns_a_persons_node_into_a_tagged_one() -> None:
    facts = facts_with(ANN, TAGGED_KEY, a_node(1))
    node = admitted(facts, a_login(1, auth_key=TAGGED_TEXT))
    assert (node.id, node.user_id, node.tags, node.expires_at) == (1, None, ("tag:web",), None)


def test_a_persons_login_takes_a_tagged_node_back() -> None:
    facts = facts_with(ANN, a_node(1, tags=("tag:web",)))
    node = admitted(facts, a_login(1, key=9, approved_by="ann"))
    assert (node.id, node.user_id, node.tags, node.expires_at) == (1, 1, (), NOW + NODE_EXPIRY)


# re-login


RICH = a_node(
    1, name="set-by-admin", name_frozen=True, announced=True, advertised=("10.0.0.0/8",), approved=("10.0.0.0/8",),
    auth_key_id="old",
)  # fmt: skip


@pytest.mark.parametrize("fields", [{"auth_key": TEXT}, {"approved_by": "ann"}])
@pytest.mark.parametrize("expires_at", [NOW + DAY, EXPIRED])
def test_a_new_login_keeps_id_addresses_routes_and_name(fields: dict[str, Any], expires_at: float) -> None:
    """control.md §12 no. 22, 39."""
    old = a_node(
        **{name: getattr(RICH, name) for name in RICH.__struct_fields__}
        | {"expires_at": expires_at, "number": 1}
    )
    facts = facts_with(ANN, KEY, old)
    node = admitted(facts, a_login(1, key=9, hostname="newname", **fields))
    kept = ("id", "ipv4", "ipv6", "name", "announced", "advertised", "approved", "created_at", "machine_key")
    assert [getattr(node, name) for name in kept] == [getattr(old, name) for name in kept]
    assert (node.node_key, node.expires_at) == (node_key(9), NOW + NODE_EXPIRY)
    assert decided(facts, a_login(1, key=1)) == Decision((), NeedsLogin())  # the old key is nobody's


def test_a_new_login_of_a_suffixed_node_keeps_its_suffix() -> None:
    facts = facts_with(
        ANN, KEY, a_node(1, name="box", hostname="box"), a_node(2, name="box-1", hostname="box")
    )
    assert admitted(facts, a_login(2, key=9, hostname="box", auth_key=TEXT)).name == "box-1"


def test_a_login_by_approval_does_not_make_a_node_ephemeral_for_ever() -> None:
    facts = facts_with(ANN, a_node(1, ephemeral=True))
    assert not admitted(facts, a_login(1, key=9, approved_by="ann")).ephemeral


# one machine, several nodes


@pytest.mark.parametrize("presented", [1, 2])
@pytest.mark.parametrize("fields", [{"auth_key": TAGGED_TEXT}, {"auth_key": TEXT}, {"auth_key": BOBS_TEXT}])
@pytest.mark.parametrize("expired", [False, True])
def test_a_login_with_a_known_key_never_gives_that_key_to_another_node(
    presented: int, fields: dict[str, Any], expired: bool
) -> None:
    """K3: node keys are unique, also among the nodes of one machine."""
    end = {"expires_at": EXPIRED if expired else NOW + DAY, "machine_key": machine_key(1)}
    facts = facts_with(ANN, BOB, KEY, BOBS_KEY, TAGGED_KEY, a_node(1, **end), a_node(2, user_id=2, **end))
    decision = decided(facts, a_login(1, key=presented, **fields))
    if isinstance(decision.result, Registered):
        assert decision.result.node.id == presented
        assert admitted(facts, a_login(1, key=presented, **fields)).id == presented
    else:
        assert decision == Decision((), NeedsNewKey())


def test_an_approval_cannot_give_one_persons_node_to_another() -> None:
    """K1: also when the node came to be while the login was waiting."""
    assert "another user" in refusal(facts_with(ANN, BOB, a_node(1)), a_login(1, approved_by="bob"))


def test_concurrent_registration_makes_one_node() -> None:
    """K3: whatever the order of decisions, a machine's logins for one user are one node."""
    key, text = a_key(1, reusable=True)
    for order in itertools.permutations([1, 2, 3]):
        facts = facts_with(ANN, key)
        for number in order:
            admitted(facts, a_login(1, key=number, auth_key=text))
        assert [node.node_key for node in facts.nodes.values()] == [node_key(order[-1])]


# logout


@pytest.mark.parametrize("auth", [{}, {"auth_key": TEXT}, {"bad_auth_key": True}])
def test_logout_comes_before_the_key(auth: dict[str, Any]) -> None:
    """control.md §12 no. 15, 16: the key logs nobody in again, and 1970 is not stored."""
    facts = facts_with(ANN, KEY, a_node(1))
    decision = decided(facts, a_login(1, expiry=123.0, **auth))
    assert decision.result == LoggedOut()
    assert decision.changes == (NodePut(node=a_node(1, expires_at=NOW)),)


@pytest.mark.parametrize("node", [None, a_node(1, expires_at=EXPIRED)])
def test_logout_of_who_is_out_already_changes_nothing(node: Node | None) -> None:
    facts = facts_with(ANN, *([node] if node else []))
    assert decided(facts, a_login(1, expiry=123.0)) == Decision((), LoggedOut())


def test_logout_removes_an_ephemeral_node() -> None:
    facts = facts_with(ANN, a_node(1, ephemeral=True))
    gone = NodeGone(id=1, node_key=node_key(1), machine_key=machine_key(1), at=NOW)
    assert decided(facts, a_login(1, expiry=123.0)) == Decision((gone,), LoggedOut())


def test_a_login_that_waited_past_its_own_end_is_still_an_approval() -> None:
    node = admitted(facts_with(ANN), a_login(1, approved_by="ann", expiry=NOW - 5))
    assert node.expires_at == NOW - 5


# limits and settings


def test_the_operators_default_and_the_devices_wish_are_both_upper_bounds() -> None:
    facts = facts_with(ANN, a_key(1, reusable=True)[0])
    facts.settings[registration.NODE_EXPIRY_SETTING] = "86400"
    for wish, end in ((None, NOW + DAY), (NOW + 60, NOW + 60), (NOW + 9 * DAY, NOW + DAY)):
        assert admitted(facts, a_login(1, key=9, auth_key=TEXT, expiry=wish)).expires_at == end
        facts = facts_with(ANN, a_key(1, reusable=True)[0])
        facts.settings[registration.NODE_EXPIRY_SETTING] = "86400"


@pytest.mark.parametrize(
    ("quotas", "of_the_crowd", "asks", "may"),
    [
        (Quotas(nodes=3), {}, {"auth_key": BOBS_TEXT}, None),
        (Quotas(nodes_per_user=3), {}, {"approved_by": "ann"}, {"approved_by": "bob"}),
        (Quotas(nodes_per_key=3), {"auth_key_id": KEY.id}, {"auth_key": TEXT}, {"auth_key": BOBS_TEXT}),
        (
            Quotas(ephemeral_nodes=3),
            {"ephemeral": True},
            {"approved_by": "ann", "ephemeral": True},
            {"approved_by": "ann"},
        ),
    ],
)
def test_limits_stop_a_new_node_and_never_an_old_ones_login(
    quotas: Quotas, of_the_crowd: dict[str, Any], asks: dict[str, Any], may: dict[str, Any] | None
) -> None:
    key, _ = a_key(1, reusable=True)
    crowd = [a_node(number, **of_the_crowd) for number in (1, 2, 3)]
    facts = facts_with(ANN, BOB, key, BOBS_KEY, *crowd)
    with pytest.raises(Refused, match="the most"):
        decided(facts, a_login(9, **asks), quotas=quotas)
    if may is not None:
        assert isinstance(decided(facts, a_login(9, **may), quotas=quotas).result, Registered)
    again = decided(facts, a_login(1, key=99, approved_by="ann", ephemeral=True), quotas=quotas).result
    assert isinstance(again, Registered)
    assert again.node.id == 1


def test_a_full_address_plan_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("control.prefixes._SIZE", 1)
    facts = facts_with(ANN, KEY, a_node(1))
    assert "no address is left" in refusal(facts, a_login(2, auth_key=TEXT))


def test_the_key_is_marked_used_by_the_same_changes_that_admit() -> None:
    """K2."""
    changes = decided(facts_with(ANN, KEY), a_login(1, auth_key=TEXT)).changes
    assert {type(change) for change in changes} == {NodePut, AuthKeyPut}
