"""One primary per prefix, and what it does to AllowedIPs."""

from __future__ import annotations

import pytest

from control.mapper.routes import NO_ROUTES, Routes, RouteTable, elect
from control.prefixes import EXIT_ROUTES
from tests.control.mapper.tailnet import Tailnet

NET = "10.0.0.0/24"


@pytest.mark.parametrize(
    ("candidates", "current", "expected"),
    [
        ({}, None, None),
        ({}, 1, None),
        ({1: False, 2: False}, None, 1),
        ({1: False, 2: True}, None, 2),
        ({1: True, 2: True}, 2, 2),  # the current one stays while it is online
        ({1: True, 2: False}, 2, 1),
        ({1: False, 2: False}, 2, 2),  # all offline: nothing moves
        ({3: True, 2: True, 4: True}, 9, 2),  # the earliest that is online
        ({1: False, 2: False}, 9, 1),
    ],
)
def test_election(candidates: dict[int, bool], current: int | None, expected: int | None) -> None:
    assert elect(candidates, current) == expected


def test_settle_names_old_and_new_primary() -> None:
    table = RouteTable({})
    table.offer(1, [NET], online=True)
    table.offer(2, [NET], online=True)
    assert table.settle() == {1}
    table.offer(1, [NET], online=False)
    assert table.settle() == {1, 2}
    assert (table.routes_of(1), table.routes_of(2)) == (NO_ROUTES, Routes((NET,), (NET,)))
    table.offer(1, [NET], online=True)
    assert table.settle() == set()


def test_exit_routes_are_never_elected() -> None:
    table = RouteTable({})
    for ident in (1, 2):
        table.offer(ident, EXIT_ROUTES, online=True)
    assert table.settle() == {1, 2}
    assert table.primaries == {}
    assert table.routes_of(1) == table.routes_of(2) == Routes(EXIT_ROUTES, ())


def test_half_an_exit_node_is_none() -> None:
    table = RouteTable({})
    table.offer(1, EXIT_ROUTES[:1], online=True)
    assert table.settle() == set()


def test_withdrawn_prefix_has_no_primary() -> None:
    table = RouteTable({})
    table.offer(1, [NET], online=True)
    table.settle()
    table.offer(1, [], online=True)
    assert table.settle() == {1}
    assert table.primaries == {}


def routers(tailnet: Tailnet) -> tuple[int, int]:
    first, second = (
        tailnet.add_node(advertised=(NET, *EXIT_ROUTES), approved=(NET, *EXIT_ROUTES)) for _ in range(2)
    )
    for ident in (first, second):
        tailnet.online(ident, True)
    return first, second


def test_failover_moves_the_prefix_in_one_message() -> None:
    tailnet = Tailnet(nodes=1)
    first, second = routers(tailnet)
    watcher = tailnet.open(1)
    client = watcher.read_all()
    assert client.peers[first]["PrimaryRoutes"] == [NET]
    assert "PrimaryRoutes" not in client.peers[second]
    tailnet.online(first, False)
    assert watcher.read()
    assert client.peers[second]["PrimaryRoutes"] == [NET]
    assert "PrimaryRoutes" not in client.peers[first]
    assert NET not in client.peers[first]["AllowedIPs"]
    assert not client.peers[first]["Online"]
    assert set(EXIT_ROUTES) <= set(client.peers[first]["AllowedIPs"]) & set(
        client.peers[second]["AllowedIPs"]
    )


def test_restart_moves_no_route() -> None:
    tailnet = Tailnet(nodes=1)
    first, second = routers(tailnet)
    tailnet.online(first, False)
    tailnet.online(first, True)
    assert tailnet.world.primaries == {NET: second}
    assert tailnet.fresh_world(tailnet.world.primaries).primaries == {NET: second}
    assert tailnet.fresh_world().primaries == {NET: first}


@pytest.mark.parametrize("fields", [{"announced": False}, {"expires_at": 0.0}])
def test_router_that_peers_cannot_use_is_not_elected(fields: dict[str, object]) -> None:
    tailnet = Tailnet(nodes=1)
    first, second = routers(tailnet)
    tailnet.change(first, **fields)
    assert tailnet.world.primaries == {NET: second}


def test_router_sees_its_own_routes() -> None:
    tailnet = Tailnet(nodes=1)
    ident = tailnet.add_node()
    watcher = tailnet.open(ident)
    client = watcher.read_all()
    tailnet.change(ident, advertised=(NET,))
    assert not watcher.read()  # not approved: nothing changed
    tailnet.change(ident, approved=(NET,))
    assert watcher.read()
    assert client.node["PrimaryRoutes"] == [NET]
    assert client.node["AllowedIPs"][-1] == NET
