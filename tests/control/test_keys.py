"""control/keys.py: text forms, and what is no key."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.keys import DiscoPublic, KeyFormatError, MachinePublic, NLPublic, NodePublic, PublicKey

KINDS = [(MachinePublic, "mkey"), (NodePublic, "nodekey"), (DiscoPublic, "discokey"), (NLPublic, "nlpub")]


@pytest.mark.parametrize(("kind", "prefix"), KINDS)
def test_text_is_prefix_and_lower_case_hex_and_comes_back(kind: type[PublicKey], prefix: str) -> None:
    key = kind(bytes(range(0xE0, 0x100)))
    assert str(key) == f"{prefix}:{bytes(range(0xE0, 0x100)).hex()}"
    assert kind.parse(str(key)) == key
    assert kind.parse(f"{prefix}:" + key.hex().upper()) == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nodekey:",
        "nodekey:" + "0" * 63,
        "nodekey:" + "0" * 65,
        "nodekey:" + "g" * 64,
        "nodekey:" + " " + "0" * 63,
        "nodekey:" + "00 " * 21 + "0",
        "nodekey:" + "٠" * 64,
        "mkey:" + "0" * 64,
        "NODEKEY:" + "0" * 64,
        "0" * 64,
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(KeyFormatError):
        NodePublic.parse(text)


@given(st.text())
def test_any_bytes_decode_or_documented_error(text: str) -> None:
    """F8."""
    for candidate in (text, f"nodekey:{text}"):
        try:
            NodePublic.parse(candidate)
        except KeyFormatError:
            continue


@given(st.binary(max_size=70).filter(lambda raw: len(raw) != 32))
def test_a_key_has_32_bytes(raw: bytes) -> None:
    with pytest.raises(KeyFormatError):
        NodePublic(raw)


def test_zero_is_a_key_that_says_so() -> None:
    assert NodePublic(bytes(32)).is_zero
    assert not NodePublic(bytes(31) + b"\1").is_zero


def test_logs_get_eight_digits() -> None:
    key = NodePublic(b"\xab" * 32)
    assert key.short == "nodekey:abababab"
    assert repr(key) == "<nodekey:abababab…>"


def test_a_key_survives_pickling_with_its_type() -> None:
    key = NodePublic(b"k" * 32)
    again = pickle.loads(pickle.dumps(key))
    assert (type(again), again) == (NodePublic, key)
