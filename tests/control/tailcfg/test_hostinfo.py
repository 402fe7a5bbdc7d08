"""control/tailcfg/hostinfo.py: claims cut to size, merged with what is known, and what others may learn of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from control.tailcfg import hostinfo as module
from control.tailcfg.codec import DecodeError, encode
from control.tailcfg.hostinfo import EMPTY, HOSTINFO_MAX, Hostinfo, for_peers, merge_raw, parse_hostinfo


def parsed(**fields: Any) -> Hostinfo:
    return parse_hostinfo(json.dumps(fields).encode())


@pytest.mark.parametrize(
    ("field", "attribute", "limit"),
    [
        ("RoutableIPs", "routable_ips", module.ROUTABLE_IPS_MAX),
        ("RequestTags", "request_tags", module.REQUEST_TAGS_MAX),
        ("sshHostKeys", "ssh_host_keys", module.SSH_HOST_KEYS_MAX),
    ],
)
def test_lists_are_cut(field: str, attribute: str, limit: int) -> None:
    texts = [f"{number}" for number in range(limit + 5)]
    assert getattr(parsed(**{field: texts}), attribute) == texts[:limit]


def test_services_are_cut() -> None:
    services = [{"Proto": "tcp", "Port": 1}] * (module.SERVICES_MAX + 5)
    assert len(parsed(Services=services).services or ()) == module.SERVICES_MAX


def test_texts_are_cut_and_lose_what_a_terminal_would_obey() -> None:
    host = parsed(Hostname="a\x1b[31m\0\n" + "é" * 2000, OS="linux\r", IPNVersion="1.2\u202e3")
    assert host.hostname == "a[31m" + "é" * (module.STRING_MAX - 8)
    assert (host.os, host.ipn_version) == ("linux", "1.23")


def test_more_than_64_kib_is_refused() -> None:
    with pytest.raises(DecodeError):
        parsed(Env="x" * HOSTINFO_MAX)


@pytest.mark.parametrize("raw", [b"null", b"{}"])
def test_nothing_said_is_nothing_known(raw: bytes) -> None:
    assert parse_hostinfo(raw) == EMPTY


@pytest.mark.parametrize(
    ("old", "new", "merged"),
    [
        ({}, {"OS": "linux"}, {"OS": "linux"}),
        (
            {"NetInfo": {"PreferredDERP": 9}},
            {"OS": "linux"},
            {"OS": "linux", "NetInfo": {"PreferredDERP": 9}},
        ),
        ({"NetInfo": {"PreferredDERP": 9}}, {"NetInfo": None}, {"NetInfo": {"PreferredDERP": 9}}),
        (
            {"NetInfo": {"PreferredDERP": 9}},
            {"NetInfo": {"PreferredDERP": 0}},
            {"NetInfo": {"PreferredDERP": 0}},
        ),
        ({"Services": [1]}, {"Services": []}, {"Services": []}),
        ({"Services": [1], "OS": "old"}, {}, {"Services": [1]}),
        ({"Services": None}, {"Future": 2**70}, {"Future": 2**70}),
    ],
)
def test_netinfo_and_services_outlive_a_hostinfo_without_them(
    old: dict[str, Any], new: dict[str, Any], merged: dict[str, Any]
) -> None:
    assert json.loads(merge_raw(json.dumps(old).encode(), json.dumps(new).encode())) == merged


def test_what_is_kept_never_makes_a_good_hostinfo_too_large() -> None:
    old = json.dumps({"Services": [{"Description": "x" * 40_000}]}).encode()
    new = json.dumps({"Env": "y" * 40_000}).encode()
    assert parse_hostinfo(merge_raw(old, new)) == EMPTY


def test_others_learn_only_what_is_on_the_list() -> None:
    """M1."""
    host = parsed(
        OS="linux",
        Hostname="web",
        OSVersion="6.1",
        Distro="debian",
        BackendLogID="secret-log-id",
        RequestTags=["tag:x"],
        RoutableIPs=["10.0.0.0/8"],
        NetInfo={"PreferredDERP": 900},
        Services=[
            {"Proto": "peerapi4", "Port": 4000},
            {"Proto": "tcp", "Port": 22, "Description": "sshd"},
            {"Proto": "peerapi6", "Port": 70000},
            {"Proto": "peerapi-dns-proxy", "Port": 1, "Description": "d\0" * 5000},
        ],
        sshHostKeys=["ssh-ed25519 AAAA"],
        Location={"City": "Oslo", "Latitude": 59.9, "Secret": "x"},
        AppConnector=False,
    )
    assert json.loads(encode(for_peers(host))) == {
        "OS": "linux",
        "Hostname": "web",
        "Services": [
            {"Proto": "peerapi4", "Port": 4000},
            {"Proto": "peerapi-dns-proxy", "Port": 1, "Description": "d" * 512},
        ],
        "sshHostKeys": ["ssh-ed25519 AAAA"],
        "Location": {"City": "Oslo", "Latitude": 59.9},
        "AppConnector": False,
    }
    assert encode(for_peers(EMPTY)) == b"{}"


@pytest.mark.parametrize(
    "location", [{"Latitude": "north"}, {"City": 5}, {"Priority": 1.5}, {"Priority": 2**40}, [], "Oslo"]
)
def test_a_location_that_no_client_could_decode_goes_nowhere(location: object) -> None:
    """One wrong type in a peer ends the whole map stream of everybody who sees it."""
    with pytest.raises(DecodeError):
        parsed(Location=location)
