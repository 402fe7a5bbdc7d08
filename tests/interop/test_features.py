"""What a tailnet is for beyond pinging: subnet routes, exit nodes, fail-over, files."""

from __future__ import annotations

import re

import pytest

from tests.interop.netns import wait_for
from tests.interop.test_restart import primary
from tests.interop.trial import Trial, reach, see_each_other


@pytest.mark.main
def test_approved_subnet_route_carries_traffic(trial: Trial) -> None:
    office = trial.lab.router("office")
    printer = trial.lab.host("printer", behind=office)
    printer.serve(9100)
    gate = trial.join("gate", office, advertise_routes=office.subnet)
    gate.host.forward()
    ann = trial.join("ann", accept_routes=True)
    see_each_other(ann, gate)
    assert reach(ann, printer.address, 9100, 1) != "open", "not before approval"
    trial.server.approve_routes("gate", office.subnet)
    wait_for(lambda: reach(ann, printer.address, 9100, 2) == "open", 15, "the printer through the route")
    node = trial.server.node("gate")
    assert node.approved == node.serving == {office.subnet}
    trial.server.ask("nodes", "routes", "revoke", "gate", office.subnet)
    wait_for(
        lambda: reach(ann, printer.address, 9100, 1) != "open", 15, "closed after the approval is taken back"
    )


@pytest.mark.main
def test_two_routers_for_one_prefix_fail_over_and_do_not_flap_back(trial: Trial) -> None:
    office = trial.lab.router("office")
    printer = trial.lab.host("printer", behind=office)
    printer.serve(9100)
    gates = {}
    for number, name in enumerate(("gate", "spare")):
        gates[name] = trial.join(name, office, port=41641 + number, advertise_routes=office.subnet)
        gates[name].host.forward()
    ann = trial.join("ann", accept_routes=True)
    see_each_other(ann, *gates.values())
    for name in gates:
        trial.server.approve_routes(name, office.subnet)
    wait_for(lambda: primary(ann) == "gate", 15, "the earliest registered serves")
    wait_for(lambda: reach(ann, printer.address, 9100, 2) == "open", 15, "the printer by the first router")
    assert trial.server.node("spare").serving == frozenset()

    gates["gate"].host.wire.blackhole()
    gates["gate"].kill()
    wait_for(lambda: primary(ann) == "spare", 120, "the other router takes over")
    wait_for(lambda: reach(ann, printer.address, 9100, 2) == "open", 20, "the printer by the second router")

    gates["gate"].host.wire.blackhole(False)
    gates["gate"].start()
    ann.wait_peer("gate", timeout=30)
    assert primary(ann) == "spare", "who serves keeps serving"
    assert reach(ann, printer.address, 9100, 2) == "open"


@pytest.mark.main
def test_approved_exit_node_carries_traffic(trial: Trial) -> None:
    web = trial.lab.host("web")
    log = web.serve(8000)
    gate = trial.join("gate", advertise_exit_node=True)
    gate.host.forward()
    ann = trial.join("ann")
    see_each_other(ann, gate)
    assert not (ann.peer("gate") or {})["ExitNodeOption"], "not before approval"
    trial.server.approve_routes("gate", "0.0.0.0/0", "::/0")
    wait_for(lambda: (ann.peer("gate") or {})["ExitNodeOption"], 10, "offered as exit node")
    ann.host.probe("put", web.address, "8000", "1000")
    ann.set(exit_node=gate.address)
    wait_for(lambda: reach(ann, web.address, 8000, 1) == "open", 10, "the web through the exit")
    ann.host.probe("put", web.address, "8000", "2000")
    seen = re.findall(r"(\d+\.\d+\.\d+\.\d+) put (\d+)", log.read_text())
    assert seen == [(ann.host.address, "1000"), (gate.host.address, "2000")]


@pytest.mark.main
def test_file_arrives_by_taildrop(trial: Trial) -> None:
    ann, bob = trial.pair()
    sent = trial.lab.dir / "photo.bin"
    sent.write_bytes(bytes(range(256)) * 12_000)
    inbox = trial.lab.dir / "inbox"
    inbox.mkdir()
    wait_for(lambda: "bob" in ann.cli("file", "cp", "--targets", check=False).stdout, 10, "bob is a target")
    ann.cli("file", "cp", str(sent), "bob:", timeout=30)
    bob.cli("file", "get", "--wait", str(inbox), timeout=15)
    assert (inbox / "photo.bin").read_bytes() == sent.read_bytes()


def test_router_going_down_orderly_hands_over_within_seconds(trial: Trial) -> None:
    office = trial.lab.router("office")
    for number, name in enumerate(("gate", "spare")):
        trial.join(name, office, port=41641 + number, advertise_routes=office.subnet).host.forward()
        trial.server.approve_routes(name, office.subnet)
    ann = trial.join("ann", accept_routes=True)
    wait_for(lambda: primary(ann) == "gate", 15, "the first router serves")
    trial.server.ask("nodes", "delete", "gate", "--yes")
    wait_for(lambda: primary(ann) == "spare", 10, "the second router serves")
