"""Two official clients log in, see each other, resolve each other's names, and pass traffic."""

from __future__ import annotations

import re

import pytest

from tests.interop.client import Client
from tests.interop.netns import wait_for
from tests.interop.trial import MB, PORT, Trial, move, reach, resolve, see_each_other


@pytest.mark.main
def test_two_clients_with_a_key_see_resolve_and_reach_each_other(trial: Trial) -> None:
    ann, bob = trial.pair()
    nodes = {node.name: node for node in trial.server.nodes()}
    assert set(nodes) == {"ann", "bob"}
    for client in (ann, bob):
        assert client.state == "Running"
        assert len(client.addresses) == 2
        assert nodes[client.name].addresses == client.addresses
        assert nodes[client.name].user == "alice"
    shown = ann.cli("status").stdout
    assert all(address in shown for address in (ann.address, bob.address)), shown

    assert wait_for(lambda: resolve(ann, bob.dns_name), 5, "MagicDNS, full name") == [bob.address]
    assert resolve(ann, "bob") == [bob.address], "the short name, by the search domain"
    assert resolve(ann, "nobody." + bob.dns_name.partition(".")[2]) == [], "a name that nobody has"
    assert resolve(ann, "resolver.test") == ["192.0.2.53"], "a name outside the tailnet"

    ann.host.run("ping", "-c2", "-i0.2", "-W2", bob.dns_name)
    bob.host.serve(PORT)
    move(ann, bob, 10 * MB)


@pytest.mark.main
def test_first_pong_comes_by_relay_and_later_ones_directly(trial: Trial) -> None:
    """Behind NAT, where nothing but the relay can carry the first packet."""
    ann, _ = trial.pair(behind=(trial.lab.router("home"), trial.lab.router("cafe")))
    output = ann.cli("ping", "--until-direct=true", "--c=20", "--timeout=3s", "bob", timeout=70).stdout
    ways = re.findall(r"pong from bob .* via (\S+) in", output)
    assert ways[0].startswith("DERP("), output
    assert not ways[-1].startswith("DERP("), output


@pytest.mark.main
def test_first_ping_after_up_needs_no_retry(trial: Trial) -> None:
    """A node is announced together with its home relay: whoever sees it can reach it."""
    ann = trial.join("ann")
    bob = trial.join("bob")
    peer = wait_for(lambda: ann.peer("bob"), 15, "ann is told of bob", every=0.02)
    assert peer["Relay"], "announced without a home relay"
    answered_at_once(ann, bob)
    cid = trial.join("cid")
    wait_for(lambda: cid.peer("ann"), 15, "cid is told of ann", every=0.02)
    answered_at_once(cid, ann)


def answered_at_once(source: Client, target: Client) -> None:
    """One real packet, no second try; WireGuard would need 5 s for one if the first handshake were lost."""
    source.host.run("ping", "-c1", "-W2", target.address)


def test_client_logs_in_by_bare_address(trial: Trial) -> None:
    ann = trial.client("ann")
    ann.up(f"https://{trial.server.host.address}", trial.key())
    bob = trial.join("bob")
    see_each_other(ann, bob)
    ann.ping("bob")


def test_machines_of_one_hostname_get_different_names(trial: Trial) -> None:
    ann = trial.join("ann", hostname="twin")
    bob = trial.join("bob", hostname="twin")
    names = {ann.dns_name, bob.dns_name}
    assert len(names) == 2
    assert all(name.startswith("twin") for name in names)


@pytest.mark.main
def test_down_shows_offline_and_up_brings_the_same_address_back(trial: Trial) -> None:
    ann, bob = trial.pair()
    address = ann.address
    ann.cli("down")
    wait_for(lambda: not (bob.peer("ann") or {}).get("Online"), 20, "bob sees ann offline")
    ann.cli("up", f"--login-server={trial.server.url}", "--timeout=15s")
    see_each_other(ann, bob)
    assert ann.address == address


def test_client_without_tun_is_reached(trial: Trial) -> None:
    ann = trial.join("ann")
    bob = trial.client("bob", tun="userspace-networking")
    bob.up(trial.server.url, trial.key())
    see_each_other(ann, bob)
    bob.host.serve(PORT, "127.0.0.1")
    assert wait_for(lambda: reach(ann, bob.address) == "open", 10, "bob's port")
    move(ann, bob, 2 * MB)
