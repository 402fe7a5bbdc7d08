"""Records: sizes, numbers, and every way to break them."""

import contextlib
import struct

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from control.noise import NoiseError
from control.noise.records import MAX_PLAINTEXT_BYTES, Opener, Sealer

KEY = bytes.fromhex("244d6c255019d59e8f914e32e36ec8143082ad8ada3dab51fa7b72a3c1f70f94")
# The first two records of the published vector: one without content, then "hi".
EMPTY = bytes.fromhex("040010cbd3498f71ab900781958e9a4a8f0d24")
HI = bytes.fromhex("0400122977091bb350823d36b07431d6c2361e9da8")


def test_records_agree_with_the_published_vector() -> None:
    sealer, opener = Sealer(KEY), Opener(KEY)
    assert sealer.seal(b"") + sealer.seal(b"hi") == EMPTY + HI
    assert opener.open(EMPTY + HI) == b"hi"
    assert opener.empty_records == 1


@pytest.mark.parametrize(("order", "opens"), [("big", True), ("little", False)])
def test_the_number_in_a_nonce_is_big_endian(order: str, opens: bool) -> None:
    nonce = bytes(4) + struct.pack(">Q" if order == "big" else "<Q", 1)
    if opens:
        assert ChaCha20Poly1305(KEY).decrypt(nonce, HI[3:], None) == b"hi"
    else:  # what a stock Noise library would do
        with pytest.raises(InvalidTag):
            ChaCha20Poly1305(KEY).decrypt(nonce, HI[3:], None)


@pytest.mark.parametrize(
    ("size", "records"),
    [
        (1, [20]),
        (MAX_PLAINTEXT_BYTES, [4096]),
        (MAX_PLAINTEXT_BYTES + 1, [4096, 20]),
        (10_000, [4096, 4096, 1865]),
    ],
)
def test_plaintext_is_cut_into_full_records(size: int, records: list[int]) -> None:
    sealed = Sealer(KEY).seal(bytes(size))
    sizes = []
    while sealed:
        length = 3 + int.from_bytes(sealed[1:3], "big")
        sizes.append(length)
        sealed = sealed[length:]
    assert sizes == records


@given(
    st.lists(st.binary(max_size=100) | st.integers(0, 3 * 4096).map(bytes), max_size=5), st.integers(1, 5000)
)
def test_any_cut_of_the_wire_gives_the_same_plaintext(writes: list[bytes], step: int) -> None:
    sealer, opener = Sealer(KEY), Opener(KEY)
    wire = b"".join(sealer.seal(data) for data in writes)
    opened = b"".join(opener.open(wire[i : i + step]) for i in range(0, len(wire), step))
    assert opened == b"".join(writes)
    assert not opener.inside_record


def test_byte_by_byte_nothing_comes_early() -> None:
    opener = Opener(KEY)
    assert [opener.open(EMPTY[i : i + 1]) for i in range(len(EMPTY))] == [b""] * len(EMPTY)
    for i in range(len(HI) - 1):
        assert opener.open(HI[i : i + 1]) == b""
        assert opener.inside_record
    assert opener.open(HI[-1:]) == b"hi"


@pytest.mark.parametrize(
    ("frame", "complaint"),
    [
        (b"\x03\x00\x02no", "type 3"),
        (b"PRI", "type 80"),
        (b"\x04\x00\x0f" + bytes(15), "record of 15 bytes"),
        (b"\x04\x00\x00", "record of 0 bytes"),
        (b"\x04\x0f\xfe", "record of 4094 bytes"),
        (b"\x04\xff\xff", "record of 65535 bytes"),
        (EMPTY[:-1] + b"\0", "does not open"),
        (HI, "does not open"),  # its number is 1, and the first is 0
    ],
    ids=[
        "error frame",
        "HTTP/2",
        "no room for a tag",
        "zero",
        "too big",
        "far too big",
        "bad tag",
        "wrong number",
    ],
)
def test_a_broken_record_is_fatal(frame: bytes, complaint: str) -> None:
    with pytest.raises(NoiseError, match=complaint):
        Opener(KEY).open(frame)


def test_records_cannot_be_repeated_or_swapped() -> None:
    for wire in (EMPTY + EMPTY, HI + EMPTY):
        with pytest.raises(NoiseError, match="does not open"):
            Opener(KEY).open(wire)


def test_the_last_number_is_never_used() -> None:
    last = 2**64 - 2
    sealer, opener = Sealer(KEY, last), Opener(KEY, last)
    assert opener.open(sealer.seal(b"the last words")) == b"the last words"
    with pytest.raises(NoiseError, match="used up"):
        sealer.seal(b"x")
    with pytest.raises(NoiseError, match="used up"):
        opener.open(HI)


@given(st.binary(max_size=300) | st.binary(min_size=16, max_size=64).map(lambda b: b"\x04\x00\x10" + b))
def test_any_bytes_open_or_raise_a_noise_error(data: bytes) -> None:
    with contextlib.suppress(NoiseError):
        assert Opener(KEY).open(data) == b""  # more bytes, please
