"""Where nothing but TCP 443 to the server gets through, traffic stays on our relay and arrives intact."""

from __future__ import annotations

import pytest

from tests.interop.trial import MB, PORT, Trial, move, see_each_other


@pytest.mark.main
def test_without_udp_100_mb_arrive_intact_both_ways(trial: Trial) -> None:
    ann, bob = trial.pair(prepare=lambda host: host.wire.block_udp())
    assert not ann.netcheck()["UDP"]
    assert ann.ping("bob", until_direct=True, count=3).via.startswith("DERP(")
    bob.host.serve(PORT)
    move(ann, bob, 100 * MB)
    assert bob.ping("ann").via.startswith("DERP(")


def test_with_tcp_443_alone_clients_join_and_talk(trial: Trial) -> None:
    ann, bob = trial.pair(prepare=lambda host: host.wire.only_tcp(trial.server.host.address, 443))
    assert ann.ping("bob", until_direct=True, count=3).via.startswith("DERP(")
    bob.host.serve(PORT)
    move(ann, bob, 10 * MB)


def test_lossy_link_still_joins_and_talks(trial: Trial) -> None:
    ann = trial.join("ann")
    host = trial.lab.host("bob")
    host.wire.loss(5)
    host.wire.block_udp()
    bob = trial.join("bob")
    see_each_other(ann, bob)
    bob.host.serve(PORT)
    move(ann, bob, 5 * MB)
