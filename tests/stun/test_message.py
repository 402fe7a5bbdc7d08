"""What is asked, what is answered: tables."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stun.errors import ParseError
from stun.message import encode_binding_response, parse_binding_request
from tests.stun.requests import SOFTWARE, request

GOOD = request()
OTHER_ATTRIBUTE = b"\x80\x99\x00\x05hello\0\0\0"


@pytest.mark.parametrize(
    "datagram",
    [
        GOOD,
        request(attributes=OTHER_ATTRIBUTE + SOFTWARE),
        request(attributes=SOFTWARE + OTHER_ATTRIBUTE),
    ],
)
def test_request_of_a_client_is_understood(datagram: bytes) -> None:
    assert parse_binding_request(datagram) == b"transaction!"


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        (b"", "size"),
        (GOOD[:-1], "size"),
        (request(attributes=SOFTWARE + b"\x80\x99\x00\x60" + bytes(96)), "size"),
        (GOOD + b"\0", "header"),
        (b"\0\1\0\x15" + GOOD[4:], "header"),
        (b"\1\1" + GOOD[2:], "header"),
        (GOOD[:4] + b"\0\0\0\0" + GOOD[8:], "header"),
        (request(attributes=SOFTWARE.replace(b"node", b"nope")), "software"),
        (request(attributes=OTHER_ATTRIBUTE), "software"),
        (request(attributes=b"\x80\x22\x00\x07tailnode"), "software"),
        (request(attributes=b"\x80\x22\x00\xfftailnode"), "attributes"),
        (request(attributes=SOFTWARE + b"\0"), "attributes"),
        (GOOD[:32] + b"\x80\x29" + GOOD[34:], "attributes"),
        (GOOD[:-1] + bytes((GOOD[-1] ^ 1,)), "fingerprint"),
    ],
)
def test_anything_else_is_refused_with_its_reason(datagram: bytes, reason: str) -> None:
    with pytest.raises(ParseError, match=f"^{reason}$"):
        parse_binding_request(datagram)


@pytest.mark.parametrize(
    ("address", "port", "answer"),
    [
        # RFC 5769 §2.2 and §2.3 use these addresses, port and transaction id.
        ("c0000201", 32853, "0101000c2112a442b7e7a701bc34d686fa87dfae002000080001a147e112a643"),
        (
            "20010db8123456780011223344556677",
            32853,
            "010100182112a442b7e7a701bc34d686fa87dfae002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9",
        ),
    ],
)
def test_answer_matches_the_published_vector(address: str, port: int, answer: str) -> None:
    transaction_id = bytes.fromhex("b7e7a701bc34d686fa87dfae")
    assert encode_binding_response(transaction_id, bytes.fromhex(address), port).hex() == answer


def test_v4_mapped_address_is_answered_as_ipv4() -> None:
    mapped = bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 1])
    assert encode_binding_response(bytes(12), mapped, 1) == encode_binding_response(bytes(12), mapped[12:], 1)


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_raise_parse_error(datagram: bytes) -> None:
    with suppress(ParseError):
        parse_binding_request(datagram)


@given(st.data())
def test_damaged_request_is_refused(data: st.DataObject) -> None:
    """CRC-32 finds every single damaged byte."""
    at = data.draw(st.integers(0, len(GOOD) - 1))
    flip = data.draw(st.integers(1, 255))
    with pytest.raises(ParseError):
        parse_binding_request(GOOD[:at] + bytes((GOOD[at] ^ flip,)) + GOOD[at + 1 :])


@given(
    address=st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16),
    port=st.integers(0, 65535),
)
def test_stun_reply_never_larger_than_policy(address: bytes, port: int) -> None:
    """S1: at most 44 bytes for at least 40, whatever is asked."""
    assert len(encode_binding_response(bytes(12), address, port)) <= 44
    with pytest.raises(ParseError):
        parse_binding_request(GOOD[:39])
