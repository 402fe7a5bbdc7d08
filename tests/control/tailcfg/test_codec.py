"""control/tailcfg/codec.py: Go's spelling, times, keys as text, and one error for any bytes."""

from __future__ import annotations

import datetime
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.keys import NLPublic, NodePublic
from control.tailcfg.codec import LATEST, DecodeError, decode, encode, rfc3339, seconds_of, wire_name
from control.tailcfg.hostinfo import HOSTINFO_MAX, Hostinfo, merge_raw, parse_hostinfo
from control.tailcfg.map import MapRequest
from control.tailcfg.register import RegisterRequest

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    [
        "Version",
        "NodeKey",
        "NLKey",
        "Auth",
        "Expiry",
        "Followup",
        "Hostinfo",
        "Ephemeral",
        "Stream",
        "Endpoints",
        "DiscoKey",
        "Hostname",
        "NetInfo",
        "Services",
        "Location",
        "RoutableIPs",
        "sshHostKeys",
        "OS",
    ]
)
OBJECTS = st.dictionaries(FIELDS | st.text(max_size=5), JSON, max_size=6).map(msgspec.json.encode)
ANYTHING = st.binary() | OBJECTS | st.text().map(str.encode)
NASTY = [
    b"",
    b"nul",
    b"[" * 100_000,
    b'{"Hostinfo":' * 50_000,
    b'{"Hostinfo":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"Hostname":"\\ud800"}',
    b'{"Hostname":"\xff"}',
    b'{"Version":1e999}',
    b'{"Version":' + b"9" * 5000 + b"}",
    b'{"Version":-1}',
    b'{"Version":4294967296}',
    b'{"Version":NaN}',
    b'{"NodeKey":"nodekey:zz"}',
    b'{"NodeKey":5}',
    b'{"Expiry":"99999-01-01T00:00:00Z"}',
    b'{"Expiry":"yesterday"}',
    b'{"Location":{"Latitude":"north"}}',
    b'{"NetInfo":{"PreferredDERP":"x"}}',
    b'{"Services":[{"Port":"x"}]}',
    b"{}{}",
]


@given(ANYTHING)
def test_any_bytes_decode_or_documented_error(data: bytes) -> None:
    """F8: every parser of what a client sends."""
    _feed(data)


@pytest.mark.parametrize("data", NASTY, ids=lambda data: repr(data[:30]))
def test_nasty_bytes_decode_or_documented_error(data: bytes) -> None:
    """F8: the known bombs: depth, numbers, surrogates."""
    _feed(data)


def _feed(data: bytes) -> None:
    for kind in (RegisterRequest, MapRequest):
        with suppress(DecodeError):
            request = decode(data, kind)
            parse_hostinfo(bytes(request.hostinfo))  # type: ignore[attr-defined]  # both have it
    with suppress(DecodeError):
        assert isinstance(parse_hostinfo(data), Hostinfo)
    for old in (b"", b'{"NetInfo":{"a":1},"Services":[]}'):
        try:
            merged = merge_raw(old, data)
        except DecodeError:
            continue
        if data == b"" or len(data) > HOSTINFO_MAX:
            continue
        try:
            parse_hostinfo(data)
        except DecodeError:
            continue
        parse_hostinfo(merged)  # what was good stays good when it is merged


@pytest.mark.parametrize(
    ("attribute", "name"),
    [
        ("node_key", "NodeKey"),
        ("nl_key", "NLKey"),
        ("os", "OS"),
        ("ipn_version", "IPNVersion"),
        ("routable_ips", "RoutableIPs"),
        ("stun_port", "STUNPort"),
        ("region_id", "RegionID"),
        ("ipv4", "IPv4"),
        ("auth_url", "AuthURL"),
        ("dst_ports", "DstPorts"),
        ("src_ips", "SrcIPs"),
        ("stable_id", "StableID"),
        ("allowed_ips", "AllowedIPs"),
        ("derp_latency", "DERPLatency"),
    ],
)
def test_names_are_spelt_as_go_spells_them(attribute: str, name: str) -> None:
    assert wire_name(attribute) == name


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_750_000_000, "2025-06-15T15:06:40Z"),
        (1.5, "1970-01-01T00:00:01.500000Z"),
        (LATEST, "9999-12-31T23:59:59Z"),
    ],
)
def test_times_always_carry_their_zone(seconds: float, text: str) -> None:
    assert rfc3339(seconds) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0001-01-01T00:00:00Z", None),
        ("0001-01-01T00:00:00+02:00", None),
        ("1970-01-01T00:02:03Z", 123),
        ("1970-01-01T02:02:03+02:00", 123),
        ("2025-06-15T15:06:40.000000001Z", 1_750_000_000),
        ("9999-12-31T23:59:59-14:00", LATEST),
    ],
)
def test_gos_times_as_seconds(text: str, seconds: float | None) -> None:
    assert seconds_of(decode(f'"{text}"'.encode(), datetime.datetime)) == seconds
    assert seconds_of(None) is None


@given(st.datetimes(timezones=st.timezones()))
def test_every_time_a_client_can_send_can_be_sent_on(when: datetime.datetime) -> None:
    seconds = seconds_of(when)
    assert seconds is None or rfc3339(max(seconds, 0.0))


def test_keys_are_text_on_the_wire_and_typed_in_memory() -> None:
    key = NodePublic(b"k" * 32)
    request = decode(encode({"NodeKey": key, "NLKey": NLPublic(bytes(32))}), RegisterRequest)
    assert (type(request.node_key), request.node_key) == (NodePublic, key)
    assert request.nl_key is not None
    assert request.nl_key.is_zero


@pytest.mark.parametrize("kind", [RegisterRequest, MapRequest])
def test_every_field_is_optional_and_unknown_ones_are_ignored(kind: type[Any]) -> None:
    assert decode(b"{}", kind) == decode(b'{"FieldOfTheFuture":[1]}', kind)
