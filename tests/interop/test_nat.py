"""Direct paths through NAT are found by way of our STUN, and the relay stays where there are none."""

from __future__ import annotations

import pytest

from tests.interop.netns import pause, wait_for
from tests.interop.trial import MB, PORT, Trial, move


@pytest.mark.main
def test_both_behind_easy_nat_find_a_direct_path(trial: Trial) -> None:
    routers = trial.lab.router("home"), trial.lab.router("cafe")
    ann, bob = trial.pair(behind=routers)
    assert ann.netcheck()["GlobalV4"].startswith(routers[0].address), "STUN tells the router's address"
    pong = ann.ping("bob", until_direct=True, count=20)
    assert pong.direct
    assert pong.via.startswith(routers[1].address)
    bob.host.serve(PORT)
    move(ann, bob, 10 * MB)


def test_both_behind_hard_nat_stay_on_the_relay(trial: Trial) -> None:
    ann, bob = trial.pair(behind=(trial.lab.router("hotel", "hard"), trial.lab.router("mobile", "hard")))
    assert ann.ping("bob", until_direct=True, count=6).via.startswith("DERP(")
    bob.host.serve(PORT)
    move(ann, bob, 10 * MB)


def test_behind_one_nat_they_talk_over_the_lan(trial: Trial) -> None:
    router = trial.lab.router("office", "hard")
    ann, _ = trial.pair(behind=(router, router))
    assert ann.ping("bob", until_direct=True, count=10).via.startswith("192.168.")


@pytest.mark.parametrize("ipv6", [True], indirect=True)
def test_direct_path_over_ipv6_where_ipv4_has_none(trial: Trial) -> None:
    ann, _ = trial.pair(behind=(trial.lab.router("home", "hard"), trial.lab.router("cafe", "hard")))
    assert ann.ping("bob", until_direct=True, count=20).via.startswith("[2001:db8:")


def test_cut_link_comes_back(trial: Trial) -> None:
    ann, bob = trial.pair()
    ann.ping("bob", until_direct=True)
    bob.host.wire.cut()
    pause(3)
    bob.host.wire.mend()
    wait_for(lambda: ann.pings("bob"), 25, "bob is reachable again", every=0.5)
