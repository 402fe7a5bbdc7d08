"""Who sees what, with a toy view function in the place of a policy."""

from __future__ import annotations

from typing import Any

import pytest

from control.mapper.view import NOTHING, AllowAll
from control.state.changes import NodePut
from control.tailcfg.filter import FilterRule
from tests.control.mapper.client import Client
from tests.control.mapper.histories import STEPS, History
from tests.control.mapper.tailnet import Tailnet, ToyView


class Strict(AllowAll):
    """Nobody reaches anybody."""

    def packet_filter(self, *args: Any) -> tuple[FilterRule, ...]:
        return ()


def assert_only_visible(tailnet: Tailnet, viewer: int, client: Client) -> None:
    """From the rules alone, without the mapper."""
    facts, rules, node = tailnet.facts, tailnet.view_function, tailnet.facts.nodes[viewer]
    viewers = rules.class_of(facts, node)
    visible = {
        other.id
        for other in facts.nodes.values()
        if other is not node and other.announced and rules.sees(viewers, facts, other)
    }
    if node.expired(tailnet.now):
        visible = set()
    assert client.peers.keys() == visible
    users = {peer["User"] for peer in client.peers.values()} | {client.node["User"]}
    assert client.users.keys() <= users
    for peer in client.peers.values():
        assert peer["Hostinfo"].keys() <= {
            "OS",
            "Hostname",
            "Services",
            "sshHostKeys",
            "Location",
            "AppConnector",
        }
        assert {service["Proto"] for service in peer["Hostinfo"].get("Services", ())} <= {"peerapi4"}


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(4))
def test_map_contains_only_visible(chunk: int) -> None:
    """M1, for all viewers at the end of 400 random histories."""
    for seed in range(chunk * 100, chunk * 100 + 100):
        history = History(seed)
        for _ in range(30):
            history.random.choice(STEPS)(history)
        for viewer in history.net.facts.nodes:
            assert_only_visible(history.net, viewer, history.net.open(viewer).read_all())


def test_tightened_filter_reaches_an_open_session_as_an_empty_list() -> None:
    """M2: an absent filter would leave the old permissions in place."""
    tailnet = Tailnet(nodes=2)
    watcher = tailnet.open(1)
    client = watcher.read_all()
    assert client.filters["base"]
    tailnet.set_view_function(Strict())
    assert watcher.read()
    assert client.filters == {"base": []}


def test_same_rules_again_wake_nobody() -> None:
    tailnet = Tailnet(view_function=ToyView(3), users=3, nodes=3)
    watcher = tailnet.open(1)
    watcher.read()
    before = tailnet.world.view_of(1)
    tailnet.set_view_function(ToyView(3))
    assert not watcher.session.stale
    assert tailnet.world.view_of(1) is before


def test_only_the_class_that_sees_a_node_is_woken() -> None:
    class ByUser(AllowAll):
        def class_of(self, facts: object, node: Any) -> Any:
            return node.user_id

        def sees(self, viewers: Any, facts: object, node: Any) -> bool:
            return bool(node.user_id == viewers)

    tailnet = Tailnet(view_function=ByUser(), users=2)
    ann, ann2, bob = (tailnet.add_node(user_id=user) for user in (1, 1, 2))
    watchers = {ident: tailnet.open(ident) for ident in (ann, bob)}
    for watcher in watchers.values():
        watcher.read()
    tailnet.endpoints(ann2, "192.0.2.1:1")
    assert watchers[ann].session.stale
    assert not watchers[bob].session.stale
    tailnet.add_node(user_id=1)
    assert not watchers[bob].session.stale
    tailnet.change(bob, user_id=1)  # moves into the other class
    assert set(watchers[bob].read_all().peers) == {ann, ann2, 4}


def test_view_of_a_class_nobody_is_in_is_dropped() -> None:
    tailnet = Tailnet(view_function=ToyView(1), users=2, nodes=2)
    tailnet.open(1).read()
    tailnet.remove(1)
    tailnet.remove(2)
    assert list(tailnet.world._views) == []


def test_expired_viewers_share_the_empty_view() -> None:
    tailnet = Tailnet(nodes=2)
    tailnet.change(1, expires_at=0.0)
    assert tailnet.world.view_of(1) is NOTHING
    assert tailnet.world.view_of(2) is not NOTHING


def test_changes_of_one_batch_are_one_revision() -> None:
    tailnet = Tailnet(nodes=1)
    watcher = tailnet.open(1)
    watcher.read()
    before = tailnet.world.rev
    tailnet.commit(NodePut(node=tailnet.new_node()))
    assert tailnet.world.rev == before + 1
