from __future__ import annotations

import ipaddress
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.door.proxy import V2_SIGNATURE, ProxyHeaderReader, client_address, is_listed, plain_address
from appliance.errors import ProxyHeaderError

V4 = bytes([203, 0, 113, 9, 192, 0, 2, 1, 0x13, 0x88, 1, 0xBB])
V6 = ipaddress.ip_address("2001:db8::9").packed + ipaddress.ip_address("2001:db8::1").packed + bytes(4)


def v2(command: int, family: int, body: bytes) -> bytes:
    return V2_SIGNATURE + bytes([command, family]) + len(body).to_bytes(2, "big") + body


GOOD = [
    (b"PROXY TCP4 203.0.113.9 192.0.2.1 5000 443\r\n", "203.0.113.9"),
    (b"PROXY TCP6 2001:db8::9 2001:db8::1 5000 443\r\n", "2001:db8::9"),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
    (v2(0x21, 0x11, V4), "203.0.113.9"),
    (v2(0x21, 0x21, V6 + b"\x04\x00\x01x"), "2001:db8::9"),
    (v2(0x20, 0x00, b""), None),
    (v2(0x20, 0x11, V4), None),
    (v2(0x21, 0x31, bytes(216)), None),
]


@pytest.mark.parametrize(("header", "source"), GOOD)
@pytest.mark.parametrize("step", [1, 1000])
def test_headers_tell_the_client_and_leave_what_follows(header: bytes, source: str | None, step: int) -> None:
    reader = ProxyHeaderReader()
    data = header + (b"\x16rest" if step > 1 else b"")
    done = [reader.feed(data[at : at + step]) for at in range(0, len(data), step)]
    assert done == [False] * (len(done) - 1) + [True]
    assert reader.source == source
    assert reader.rest == data[len(header) :]


@pytest.mark.parametrize(
    "header",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01",
        b"PROXY TCP4 999.0.113.9 192.0.2.1 5000 443\r\n",
        b"PROXY TCP4 2001:db8::9 2001:db8::1 5000 443\r\n",
        b"PROXY TCP4 203.0.113.9\r\n",
        b"PROXY " + b"a" * 200,
        b"PROXY UNKNOWN " + b"a" * 100 + b"\r\n",
        v2(0x22, 0x11, V4),
        v2(0x31, 0x11, V4),
        v2(0x21, 0x11, V4[:8]),
        v2(0x21, 0x11, bytes(600)),
    ],
)
def test_anything_else_is_refused(header: bytes) -> None:
    with pytest.raises(ProxyHeaderError):
        ProxyHeaderReader().feed(header)


@given(
    st.sampled_from([b"", b"PROXY TCP4 ", b"PROXY ", V2_SIGNATURE, V2_SIGNATURE + b"\x21\x11"]),
    st.binary(max_size=200),
)
def test_any_bytes_are_a_header_or_the_documented_error(start: bytes, data: bytes) -> None:
    with suppress(ProxyHeaderError):
        ProxyHeaderReader().feed(start + data)


PROXIES = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("2001:db8::/32")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.9", "1.2.3.4", "203.0.113.9"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "6.6.6.6, 203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "6.6.6.6, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "203.0.113.9, unknown", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9, , 10.0.0.3", "10.0.0.3"),
        ("10.0.0.1", "::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8::5", "2001:db9::9", "2001:db9::9"),
    ],
)
def test_the_rightmost_hop_that_is_no_listed_proxy_is_the_client(
    peer: str, forwarded: str, client: str
) -> None:
    """F7."""
    assert client_address(peer, forwarded, PROXIES) == client


def test_addresses_take_their_usual_form() -> None:
    assert plain_address("::ffff:192.0.2.1") == "192.0.2.1"
    assert plain_address("fe80::1%eth0") == "fe80::1"
    assert is_listed("10.9.9.9", PROXIES)
    assert not is_listed("no address", PROXIES)
