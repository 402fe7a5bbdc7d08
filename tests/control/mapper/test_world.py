"""Time, touches, endpoints that churn, and what is left of a deleted node."""

from __future__ import annotations

from control.state.volatile import Volatile
from tests.control.mapper.tailnet import NOW, Tailnet


def test_node_expires_when_its_time_has_come() -> None:
    tailnet = Tailnet(nodes=2)
    tailnet.change(2, expires_at=NOW + 10)
    watcher = tailnet.open(1)
    client = watcher.read_all()
    tailnet.pass_time(9)
    assert not watcher.session.stale
    tailnet.pass_time(1)
    assert watcher.read()
    assert client.peers[2]["Expired"]
    tailnet.change(2, expires_at=NOW + 1000)
    assert watcher.read()
    assert "Expired" not in client.peers[2]


def test_extended_node_outlives_its_old_expiry() -> None:
    tailnet = Tailnet(nodes=2)
    tailnet.change(2, expires_at=NOW + 10)
    tailnet.change(2, expires_at=NOW + 100)
    tailnet.pass_time(50)
    assert not tailnet.world.peers[2].expired
    tailnet.pass_time(50)
    assert tailnet.world.peers[2].expired


def test_paused_sweep_expires_nobody() -> None:
    tailnet = Tailnet(nodes=2)
    tailnet.change(2, expires_at=NOW + 10)
    tailnet.world.tick(NOW + 1e6, expire=False)
    assert not tailnet.world.peers[2].expired
    tailnet.world.tick(NOW + 11)
    assert tailnet.world.peers[2].expired


def test_clock_that_steps_back_expires_again() -> None:
    tailnet = Tailnet(nodes=2)
    tailnet.change(2, expires_at=NOW + 10)
    tailnet.pass_time(20)
    tailnet.now = NOW
    tailnet.change(2, name="other")
    assert not tailnet.world.peers[2].expired
    tailnet.pass_time(10)
    assert tailnet.world.peers[2].expired


def test_expiry_that_stays_is_watched_once() -> None:
    tailnet = Tailnet(nodes=2)
    tailnet.change(2, expires_at=NOW + 10)
    for number in range(100):
        tailnet.change(2, name=f"name{number}")
    assert len(tailnet.world._expiries) == 1


def test_touch_before_the_commit_is_ignored_and_read_with_it() -> None:
    tailnet = Tailnet(nodes=1)
    rev = tailnet.world.rev
    tailnet.volatile[2] = Volatile(online=True)
    tailnet.world.on_touch(2, {"online"}, NOW)
    assert tailnet.world.rev == rev
    assert tailnet.add_node() == 2
    assert tailnet.open(1).read_all().peers[2]["Online"]


def test_touch_without_news_wakes_nobody() -> None:
    tailnet = Tailnet(nodes=2)
    watcher = tailnet.open(1)
    watcher.read()
    for group in ("body", "disco", "endpoints", "derp", "cap", "online"):
        tailnet.world.on_touch(2, {group}, NOW)
    assert not watcher.session.stale


def test_last_seen_of_an_online_node_moves_silently() -> None:
    tailnet = Tailnet(nodes=2)
    tailnet.online(2, True)
    watcher = tailnet.open(1)
    watcher.read()
    tailnet.touch(2, "online", last_seen=NOW + 500)
    assert not watcher.session.stale


def test_deleted_node_leaves_nothing_but_its_slot() -> None:
    tailnet = Tailnet(nodes=1, users=2)
    for _ in range(10):
        ident = tailnet.add_node(user_id=2, advertised=("10.0.0.0/24",), approved=("10.0.0.0/24",))
        for port in range(1, 9):
            tailnet.endpoints(ident, f"192.0.2.1:{port}")
        watcher = tailnet.open(ident)
        watcher.read()
        tailnet.remove(ident)
        watcher.session.close()
    world = tailnet.world
    assert (len(world.peers), len(world.by_slot), len(world._endpoint_budgets), len(world._postponed)) == (
        1,
        1,
        0,
        0,
    )
    assert len(world.slot_ids) == 11
    assert world.primaries == {}
    assert world._audience.everybody() == []
    assert not world.users.owns_any(2, -1)


def test_endpoint_churn_is_damped() -> None:
    """M5: after a burst of 5, peers hear of a node's endpoints at most once in 5 s; the last state arrives."""
    tailnet = Tailnet(nodes=2)
    watcher = tailnet.open(1)
    client = watcher.read_all()
    for change in range(600):  # ten changes a second for a minute
        tailnet.endpoints(2, f"192.0.2.1:{change + 1}")
        tailnet.pass_time(0.1)
        watcher.read()
    assert 5 < client.messages - 1 <= 5 + 60 / 5 + 1
    tailnet.pass_time(5)
    watcher.read()
    assert client.peers[2]["Endpoints"] == ["192.0.2.1:600"]
    told = client.messages
    for _ in range(100):
        tailnet.pass_time(1)
        watcher.read()
    assert client.messages == told


def test_damped_node_is_free_again_after_silence() -> None:
    tailnet = Tailnet(nodes=2)
    watcher = tailnet.open(1)
    client = watcher.read_all()
    for change in range(20):
        tailnet.endpoints(2, f"192.0.2.1:{change + 1}")
    tailnet.pass_time(60)
    for change in range(3):
        tailnet.endpoints(2, f"192.0.2.2:{change + 1}")
        watcher.read_all()
        assert client.peers[2]["Endpoints"] == [f"192.0.2.2:{change + 1}"]


def test_other_order_of_endpoints_is_no_news() -> None:
    tailnet = Tailnet(nodes=2)
    tailnet.endpoints(2, "192.0.2.1:1", "192.0.2.2:2")
    watcher = tailnet.open(1)
    watcher.read()
    tailnet.endpoints(2, "192.0.2.2:2", "192.0.2.1:1")
    assert not watcher.session.stale
