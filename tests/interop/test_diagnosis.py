"""The clients' own instruments report our region healthy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.interop.netns import wait_for
from tests.interop.trial import Trial


@pytest.mark.main
def test_netcheck_finds_the_region_and_the_client_makes_it_home(trial: Trial) -> None:
    ann = trial.join("ann")
    report = ann.netcheck()
    assert report["UDP"]
    assert report["RegionLatency"]
    assert report["GlobalV4"].startswith(ann.host.address)
    regions = json.loads(ann.cli("debug", "derp-map").stdout)["Regions"]
    region = regions[str(report["PreferredDERP"])]
    wait_for(lambda: ann.status()["Self"]["Relay"] == region["RegionCode"], 10, "home relay")


def test_netcheck_without_udp_still_finds_the_region(trial: Trial) -> None:
    host = trial.lab.host("ann")
    host.wire.block_udp()
    ann = trial.join("ann")
    report = ann.netcheck()
    assert not report["UDP"]
    assert report["PreferredDERP"]
    assert report["RegionLatency"]


@pytest.mark.main
@pytest.mark.parametrize("ipv6", [True], indirect=True)  # it looks at the region over both
def test_debug_derp_reports_no_errors(trial: Trial) -> None:
    ann = trial.join("ann")
    (region,) = json.loads(ann.cli("debug", "derp-map").stdout)["Regions"].values()
    report = json.loads(ann.cli("debug", "derp", region["RegionCode"]).stdout)
    assert not report["Errors"], report
    assert all("single DERP region" in warning for warning in report["Warnings"] or ()), report  # we have one
    info = "\n".join(report["Info"])
    assert "Successfully established a DERP connection" in info
    assert f"returned IPv4 STUN response: {ann.host.address}:" in info


def test_health_is_silent(trial: Trial) -> None:
    """No warning that only our answers could have caused."""
    ann, _ = trial.pair()
    assert ann.ping("bob", until_direct=True).direct
    wait_for(lambda: not ann.status().get("Health"), 15, "ann has nothing to complain about")


def test_stunc_gets_the_mapped_address(trial: Trial, tools: Path) -> None:
    home = trial.lab.router("home")
    host = trial.lab.host("ann", behind=home)
    answer = host.run(str(tools / "stunc"), trial.server.host.address, "3478")
    assert home.address in answer.stdout + answer.stderr
