"""security.md M5: a node whose endpoints churn does not make the whole tailnet work."""

from __future__ import annotations

from control.mapper.damper import BURST, INTERVAL_S, Damper
from tests.control.mapper.tailnet import Tailnet


def test_burst_passes_then_one_per_interval() -> None:
    damper = Damper(0.0)
    assert [damper.take(0.0) for _ in range(BURST + 1)] == [True] * BURST + [False]
    assert damper.ready_at == INTERVAL_S
    assert not damper.take(INTERVAL_S - 0.1)
    assert damper.take(damper.ready_at)
    assert not damper.take(INTERVAL_S)


def test_clock_that_steps_back_refills_nothing() -> None:
    damper = Damper(1000.0)
    for _ in range(BURST):
        damper.take(1000.0)
    assert not damper.take(0.0)
    assert not damper.take(INTERVAL_S - 0.1)
    assert damper.take(INTERVAL_S)


def test_endpoint_churn_is_damped() -> None:
    """M5: after a burst of 5, peers hear of a node's endpoints at most once in 5 s; the last state arrives."""
    tailnet = Tailnet(nodes=2)
    watcher = tailnet.open(1)
    client = watcher.read_all()
    for change in range(600):  # ten changes a second for a minute
        tailnet.endpoints(2, f"192.0.2.1:{change + 1}")
        tailnet.pass_time(0.1)
        watcher.read()
    assert BURST < client.messages - 1 <= BURST + 60 / INTERVAL_S + 1
    tailnet.pass_time(INTERVAL_S)
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
