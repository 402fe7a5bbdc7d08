"""control/prefixes.py: the address plan, and which routes may exist."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control import prefixes
from control.prefixes import (
    CGNAT,
    RESERVED,
    ULA,
    allocate,
    parse_prefix,
    routable,
    source_of,
    why_not_routable,
)


def test_the_first_node_gets_the_first_addresses() -> None:
    assert allocate(1, set()) == ("100.64.0.1", "fd7a:115c:a1e0::1")


@given(st.integers(1, 2**40))
def test_addresses_lie_in_the_plan_and_outside_of_what_is_reserved(node_id: int) -> None:
    ipv4, ipv6 = (ipaddress.ip_address(text) for text in allocate(node_id, set()))
    assert isinstance(ipv4, ipaddress.IPv4Address)
    assert isinstance(ipv6, ipaddress.IPv6Address)
    assert ipv4 in CGNAT
    assert ipv6 in ULA
    assert not any(ipv4 in network for network in RESERVED)
    assert ipv6 != ipaddress.IPv6Address("fd7a:115c:a1e0::53")
    assert int(ipv4) - int(CGNAT.network_address) == int(ipv6) - int(ULA.network_address)


def test_a_taken_address_and_the_reserved_ones_are_stepped_over() -> None:
    assert allocate(1, {"100.64.0.1"})[0] == "100.64.0.2"
    assert allocate(0x53, set())[0] == "100.64.0.84"
    assert allocate(1, {"100.64.0.1", *(f"100.64.0.{n}" for n in range(2, 9))})[0] == "100.64.0.9"
    chromeos = int(ipaddress.IPv4Address("100.115.92.0")) - int(CGNAT.network_address)
    assert allocate(chromeos, set())[0] == "100.115.94.0"


def test_a_full_range_is_an_error_and_not_a_search_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefixes, "_SIZE", 5)
    with pytest.raises(LookupError):
        allocate(3, {f"100.64.0.{number}" for number in range(1, 6)})


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("192.168.1.77/24", "192.168.1.0/24"),
        (" 10.0.0.1 ", "10.0.0.1/32"),
        ("2001:DB8::1/64", "2001:db8::/64"),
        ("10.0.0.0/255.0.0.0", "10.0.0.0/8"),
    ],
)
def test_a_prefix_is_made_canonical(text: str, canonical: str) -> None:
    assert str(parse_prefix(text)) == canonical


@given(st.text())
def test_any_bytes_decode_or_documented_error(text: str) -> None:
    """F8."""
    try:
        parse_prefix(text)
    except ValueError:
        assert routable([text]) == ()


@pytest.mark.parametrize(
    "text",
    [
        "100.64.0.0/10",
        "100.64.0.1/32",
        "100.100.100.100",
        "100.0.0.0/8",
        "0.0.0.0/1",
        "fd7a:115c:a1e0::/48",
        "fd7a:115c:a1e0::53",
        "fd7a:115c:a1e0:b1a::/63",
        "fd00::/8",
        "127.0.0.1",
        "::1",
        "169.254.169.254",
        "fe80::/10",
        "224.0.0.0/4",
        "239.1.2.3",
        "ff02::1",
        "0.0.0.0/32",
        "0.0.0.0/8",
        "255.255.255.255",
        "::/128",
        "::ffff:100.64.0.1",
    ],
)
def test_route_over_tailnet_range_refused(text: str) -> None:
    """M4: nor one to where nobody routes."""
    assert why_not_routable(parse_prefix(text)) is not None
    assert routable([text, "10.0.0.0/8"]) == ("10.0.0.0/8",)


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0/0",
        "::/0",
        "10.0.0.0/8",
        "8.8.8.8",
        "128.0.0.0/1",
        "2000::/3",
        "fd7a:115c:a1e0:b1a:0:7:a00:0/120",
    ],
)
def test_exit_routes_subnets_and_4via6_may_be_routed(text: str) -> None:
    assert why_not_routable(parse_prefix(text)) is None


def test_of_what_a_client_advertises_the_good_is_kept_once_and_in_order() -> None:
    assert routable(["10.1.0.0/16", "nonsense", "10.1.2.3/16", "::/0"]) == ("10.1.0.0/16", "::/0")


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("::ffff:192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix", "unix"),
    ],
)
def test_source_of_an_address(address: str, source: str) -> None:
    assert source_of(address) == source
