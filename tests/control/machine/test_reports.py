"""control/machine/reports.py: what a report changes, and what it may not."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.keys import DiscoPublic, NodePublic
from control.machine.reports import (
    ENDPOINTS_MAX,
    hostinfo_fields,
    stream_fields,
    update_fields,
    usable_endpoints,
)
from control.state.volatile import Volatile
from control.tailcfg.codec import decode, encode
from control.tailcfg.hostinfo import parse_hostinfo
from control.tailcfg.map import MapRequest

DISCO, OTHER = DiscoPublic(b"d" * 32), DiscoPublic(b"e" * 32)
REGIONS = {900, 901}


def a_request(**fields: Any) -> MapRequest:
    return decode(encode({"Version": 142, "NodeKey": NodePublic(b"n" * 32)} | fields), MapRequest)


def a_record(**fields: Any) -> Volatile:
    raw = json.dumps({"Hostname": "old", "NetInfo": {"PreferredDERP": 900}, "Services": []}).encode()
    known: dict[str, Any] = {
        "endpoints": ("192.0.2.1:1",),
        "disco_key": DISCO,
        "home_derp": 900,
        "capver": 113,
    }
    return Volatile(**(known | {"hostinfo": parse_hostinfo(raw), "hostinfo_raw": raw} | fields))


def updated(known: Volatile, request: MapRequest) -> Any:
    return update_fields(known, request, parse_hostinfo(bytes(request.hostinfo)), REGIONS)


def streamed(known: Volatile, request: MapRequest) -> Any:
    return stream_fields(known, request, parse_hostinfo(bytes(request.hostinfo)), REGIONS)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("192.0.2.1:41641", "192.0.2.1:41641"),
        ("[2001:DB8::1]:41641", "[2001:db8::1]:41641"),
        ("[::ffff:192.0.2.1]:5", "192.0.2.1:5"),
        ("192.0.2.1:0041", "192.0.2.1:41"),
        ("10.0.0.1:1", "10.0.0.1:1"),
        ("100.70.0.1:1", "100.70.0.1:1"),
        ("192.0.2.1:0", None),
        ("192.0.2.1:65536", None),
        ("192.0.2.1:0000080", None),
        ("192.0.2.1:00000199999", None),
        ("192.0.2.1", None),
        ("192.0.2.1:", None),
        ("192.0.2.1:٣", None),
        ("192.0.2.1:+1", None),
        ("192.0.2.1:1\n", None),
        ("[192.0.2.1]:1", None),
        ("2001:db8::1:41641", None),
        ("[fe80::1]:1", None),
        ("[2001:db8::1%eth0]:1", None),
        ("127.0.0.1:1", None),
        ("[::1]:1", None),
        ("[::ffff:127.0.0.1]:1", None),
        ("0.0.0.0:1", None),
        ("[::]:1", None),
        ("224.0.0.1:1", None),
        ("[ff02::1]:1", None),
        ("255.255.255.255:1", None),
        ("169.254.1.1:1", None),
        ("example.com:1", None),
        ("", None),
    ],
)
def test_endpoints_that_peers_may_send_to(text: str, kept: str | None) -> None:
    """M5."""
    assert usable_endpoints([text]) == ((kept,) if kept else ())


@given(st.lists(st.text() | st.from_regex(r"\[?[0-9a-f:.%]{0,20}\]?:[0-9]{1,12}"), max_size=5))
def test_any_bytes_decode_or_documented_error(texts: list[str]) -> None:
    """F8: what is kept, every client can parse."""
    for endpoint in usable_endpoints(texts):
        host, _, port = endpoint.rpartition(":")
        ip = ipaddress.ip_address(host.strip("[]"))
        assert endpoint == (f"[{ip}]:{port}" if ip.version == 6 else f"{ip}:{port}")
        assert 0 < int(port) < 65536
        assert str(int(port)) == port


def test_endpoints_keep_their_order_once_each_and_the_first_64() -> None:
    """M5."""
    many = [f"192.0.2.{number}:1" for number in range(1, 100)]
    assert usable_endpoints(["127.0.0.1:1", "192.0.2.1:01", *many]) == tuple(many[:ENDPOINTS_MAX])


@pytest.mark.parametrize("home", [0, 902, -1])
def test_unknown_home_keeps_old(home: int) -> None:
    """M6: also when there is none."""
    assert "home_derp" not in updated(a_record(), a_request(Hostinfo={"NetInfo": {"PreferredDERP": home}}))
    assert "home_derp" not in updated(a_record(), a_request(Hostinfo={}))


def test_a_lite_update_counts_whole() -> None:
    known = a_record()
    request = a_request(
        DiscoKey=OTHER,
        Endpoints=["192.0.2.9:9"],
        Hostinfo={"Hostname": "new", "NetInfo": {"PreferredDERP": 901}},
    )
    fields = updated(known, request)
    assert (fields["disco_key"], fields["endpoints"]) == (OTHER, ("192.0.2.9:9",))
    assert (fields["home_derp"], fields["capver"], fields["confirmed"]) == (901, 142, True)
    assert fields["hostinfo"].hostname == "new"
    assert fields["hostinfo"].services == []  # kept: the new one has none (tried.md trap 6)


def test_a_zero_disco_key_is_no_disco_key() -> None:
    assert "disco_key" not in updated(a_record(), a_request(DiscoKey=DiscoPublic(bytes(32))))


def test_endpoints_can_be_gone() -> None:
    assert updated(a_record(), a_request())["endpoints"] == ()


def test_the_same_hostinfo_is_no_news() -> None:
    known = a_record()
    assert hostinfo_fields(known, known.hostinfo_raw, known.hostinfo, REGIONS) == {"home_derp": 900}


SAYS_ALL = {
    "DiscoKey": OTHER,
    "Endpoints": ["192.0.2.9:9"],
    "Hostinfo": {"Hostname": "new", "NetInfo": {"PreferredDERP": 901}},
}


def test_the_first_stream_of_a_process_overwrites_what_the_disk_had() -> None:
    """state.md A.10: after a mere reconnect there is no lite update."""
    fields = streamed(a_record(confirmed=False), a_request(**SAYS_ALL))
    assert (fields["disco_key"], fields["endpoints"], fields["home_derp"]) == (OTHER, ("192.0.2.9:9",), 901)
    assert fields["hostinfo"].hostname == "new"
    assert fields["confirmed"]


def test_the_first_stream_overwrites_nothing_with_zeros() -> None:
    """state.md A.10."""
    fields = streamed(a_record(confirmed=False), a_request(DiscoKey=DiscoPublic(bytes(32)), Hostinfo={}))
    assert not {"disco_key", "endpoints", "home_derp"} & fields.keys()
    assert fields["hostinfo"].net_info is not None


def test_later_streams_change_nothing_that_is_known() -> None:
    """control.md §12 no. 53: it may be older than the update beside it."""
    assert streamed(a_record(confirmed=True), a_request(**SAYS_ALL)) == {"capver": 142, "confirmed": True}


def test_later_streams_fill_gaps() -> None:
    known = Volatile(confirmed=True)
    fields = streamed(known, a_request(**SAYS_ALL))
    assert (fields["disco_key"], fields["endpoints"], fields["home_derp"]) == (OTHER, ("192.0.2.9:9",), 901)
    assert fields["hostinfo"].hostname == "new"
