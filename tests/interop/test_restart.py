"""The server's troubles: restarted, killed, gone. What was acknowledged stays; clients come back by themselves."""

from __future__ import annotations

import threading

import pytest

from tests.interop.client import Client
from tests.interop.netns import LabError, pause, wait_for
from tests.interop.trial import MB, PORT, Trial, move, see_each_other


@pytest.mark.main
def test_clients_come_back_after_a_restart_and_changes_flow(trial: Trial) -> None:
    ann, bob = trial.pair()
    before = ann.addresses, bob.addresses
    trial.server.restart()
    trial.server.wait_online("ann", "bob")
    assert (ann.addresses, bob.addresses) == before
    bob.set(hostname="robert")
    ann.wait_peer("robert", timeout=15)
    ann.ping("robert", until_direct=True)


@pytest.mark.timeout(300)
def test_kill_9_while_clients_join_loses_nothing_acknowledged(trial: Trial) -> None:
    """Whoever was told "registered" is on the server afterwards with its address; everybody gets in at the end."""
    names = [f"c{number}" for number in range(6)]
    key = trial.key()
    clients = {name: trial.client(name, tun="userspace-networking") for name in names}

    def login(client: Client) -> None:
        words = (f"--login-server={trial.server.url}", f"--auth-key={key}", "--timeout=40s")
        client.cli("up", *words, check=False, timeout=45)

    def acknowledged() -> dict[str, frozenset[str]]:
        known = {name: client.addresses for name, client in clients.items()}
        return {name: addresses for name, addresses in known.items() if addresses}

    threads = [threading.Thread(target=login, args=(client,)) for client in clients.values()]
    for thread in threads:
        thread.start()
        pause(0.3)
    wait_for(lambda: len(acknowledged()) >= 2, 15, "two have joined", every=0.02)
    trial.server.kill9()  # the others are in the middle
    promised = acknowledged()
    trial.server.start()
    nodes = {node.name: node for node in trial.server.nodes()}
    for name, addresses in promised.items():
        assert name in nodes, f"{name} had been registered as {addresses}, now unknown"
        assert addresses == nodes[name].addresses
    for thread in threads:
        thread.join(45)
    trial.server.wait_online(*names, timeout=30)
    everyone = [address for node in trial.server.nodes() for address in node.addresses]
    assert len(everyone) == len(set(everyone)) == 2 * len(names), "no address twice, no node twice"


@pytest.mark.main
def test_kill_9_under_traffic_changes_no_address_and_no_route(trial: Trial) -> None:
    """A transfer over the direct path runs on through the kill; an approved route and its router stay what they are."""
    office = trial.lab.router("office")
    gate = trial.join("gate", office, advertise_routes=office.subnet)
    gate.host.forward()
    ann, bob = trial.pair()
    ann.set(accept_routes=True)
    trial.server.approve_routes("gate", office.subnet)
    wait_for(lambda: primary(ann) == "gate", 15, "ann has the route")
    assert ann.ping("bob", until_direct=True).direct
    bob.host.serve(PORT)
    before = {node.name: (node.id, node.addresses, node.approved) for node in trial.server.nodes()}

    routes: set[str | None] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            routes.add(primary(ann))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        errors: list[BaseException] = []
        traffic = threading.Thread(target=lambda: collect(errors, ann, bob))
        traffic.start()
        pause(0.5)
        trial.server.kill9()
        pause(1)
        trial.server.start()
        trial.server.wait_online("ann", "bob", "gate")
        traffic.join(60)
    finally:
        done.set()
        watcher.join(10)
    assert not errors
    assert {node.name: (node.id, node.addresses, node.approved) for node in trial.server.nodes()} == before
    assert routes == {"gate"}, "the route flapped"


def collect(errors: list[BaseException], source: Client, target: Client) -> None:
    try:
        for _ in range(3):
            move(source, target, 20 * MB)
    except (AssertionError, LabError) as error:
        errors.append(error)


def primary(client: Client) -> str | None:
    """Which peer carries a subnet route, as this client sees it."""
    peers = (client.status().get("Peer") or {}).values()
    found = [peer["DNSName"].split(".")[0] for peer in peers if peer.get("PrimaryRoutes")]
    return ",".join(sorted(found)) or None


@pytest.mark.main
def test_with_the_server_gone_clients_keep_talking_directly(trial: Trial) -> None:
    ann, bob = trial.pair()
    assert ann.ping("bob", until_direct=True).direct
    bob.host.serve(PORT)
    trial.server.stop()
    pause(5)
    move(ann, bob, 10 * MB)
    assert ann.ping("bob").direct
    trial.server.start()
    trial.server.wait_online("ann", "bob")
    see_each_other(ann, bob)


def test_sigterm_ends_the_server_within_seconds_and_cleanly(trial: Trial) -> None:
    trial.pair()
    assert trial.server.process
    trial.server.process.terminate()
    assert trial.server.process.wait(10) == 0
    assert "Traceback" not in trial.server.said()
