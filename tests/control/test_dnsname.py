"""control/dnsname.py: from what a client calls itself to one label that means nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.dnsname import (
    FALLBACK,
    LABEL_MAX,
    RESERVED,
    is_label,
    label_from_hostname,
    may_name,
    unique_label,
)


@pytest.mark.parametrize(
    ("hostname", "label"),
    [
        ("laptop", "laptop"),
        ("DESKTOP-1A2B", "desktop-1a2b"),
        ("Ann's iPhone.local", "anns-iphone"),
        ("Ann’s iPhone", "anns-iphone"),
        ("web.example.com", "web"),
        ("web.example.com.", "web"),
        ("router.lan", "router"),
        ("a_b c", "a-b-c"),
        ("--x--", "x"),
        ("é", FALLBACK),
        ("", FALLBACK),
        (".", FALLBACK),
        (".local", FALLBACK),
        ('"; rm -rf /\n', "rm--rf"),
        ("x" * 300, "x" * LABEL_MAX),
        ("y" * 62 + "--z", "y" * 62),
        ("localhost", "node-localhost"),
        ("WPAD", "node-wpad"),
        ("wpad.corp.example", "node-wpad"),
        ("_acme-challenge", "acme-challenge"),
        ("1234", "node-1234"),
        ("100.64.0.1", "node-100"),
        ("xn--mnchen-3ya", "xn--mnchen-3ya"),
        ("a\0b", "a-b"),
    ],
)
def test_label_of_a_host_name(hostname: str, label: str) -> None:
    """M3."""
    assert label_from_hostname(hostname) == label


@given(st.text())
def test_any_bytes_decode_or_documented_error(hostname: str) -> None:
    """F8: there is a label for everything, and it is one that may be used."""
    label = label_from_hostname(hostname)
    assert is_label(label)
    assert may_name(label)


@pytest.mark.parametrize("name", [*RESERVED, "", "a.b", "-a", "a-", "A", "a_b", "x" * 64, "12", "a\n"])
def test_names_that_no_administrator_may_give(name: str) -> None:
    assert not may_name(name)


def test_the_first_free_suffix_is_taken() -> None:
    taken = {"a", "a-1", "a-3"}
    assert unique_label("b", taken.__contains__) == "b"
    assert unique_label("a", taken.__contains__) == "a-2"


def test_a_suffix_fits_into_the_label() -> None:
    taken = {"x" * LABEL_MAX, "x" * 61 + "-1"}
    assert unique_label("x" * LABEL_MAX, taken.__contains__) == "x" * 61 + "-2"
    assert unique_label("x" * 60 + "-yz", {"x" * 60 + "-yz"}.__contains__) == "x" * 60 + "-1"
