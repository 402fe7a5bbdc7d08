"""The lab itself, by plain programs: what the other tests take for granted."""

from __future__ import annotations

import pytest

from tests.interop.lab import Lab
from tests.interop.netns import LabError, namespaces


def test_hosts_reach_each_other_and_know_names(lab: Lab) -> None:
    ann, bob = lab.host("ann"), lab.host("bob")
    lab.name("bob.test", bob.address)
    bob.serve(7000)
    assert ann.probe("put", "bob.test", "7000", "1000000")["ok"]
    assert ann.probe("resolve", "bob.test")["addresses"] == [bob.address]
    assert ann.run("hostname").stdout.strip() == "ann"


def test_nat_hides_hosts_and_lets_them_out(lab: Lab) -> None:
    home = lab.router("home")
    ann, web = lab.host("ann", behind=home), lab.host("web")
    log = web.serve(7000)
    ann.serve(7000)
    assert ann.probe("put", web.address, "7000", "1000")["ok"]
    assert log.read_text().split()[0].endswith(home.address)
    assert web.probe("connect", home.address, "7000", "0.5")["result"] == "timeout"
    assert web.probe("connect", ann.address, "7000", "0.5")["result"] in {"timeout", "unreachable"}


def test_wire_faults_come_and_go(lab: Lab) -> None:
    ann, bob = lab.host("ann"), lab.host("bob")
    bob.serve(7000)

    def opens() -> bool:
        return bool(ann.probe("connect", bob.address, "7000", "0.5")["result"] == "open")

    assert opens()
    for fault in (bob.wire.blackhole, ann.wire.blackhole):
        fault(True)
        assert not opens()
        fault(False)
        assert opens()
    ann.wire.only_tcp(bob.address, 7001)
    assert not opens()
    ann.wire.only_tcp(bob.address, 7001, on=False)
    bob.wire.cut()
    assert not opens()
    bob.wire.mend()
    assert opens()


def test_failing_command_says_where_and_why(lab: Lab) -> None:
    with pytest.raises(LabError, match="ann: ls /nonexistent: exit 2"):
        lab.host("ann").run("ls", "/nonexistent")


def test_closed_lab_leaves_nothing(machine: None) -> None:
    with Lab() as lab:
        lab.host("ann", behind=lab.router("home"))
    assert not list(namespaces(lab.prefix))
    assert not lab.dir.exists()
