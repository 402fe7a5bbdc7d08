"""The frame table, both ways."""

import secrets
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.errors import ProtocolError
from derp.frames import (
    KEEP_ALIVE_FRAME,
    FrameType,
    GoneReason,
    check_client_frame,
    encode_frame,
    encode_peer_gone,
    encode_pong,
    encode_restarting,
    encode_server_key,
    looks_like_disco,
    parse_login_header,
)
from tests.derp.client import FrameReader, disco, send_packet

KEY = bytes(range(32))

# frame, its bytes by hand, its type, its payload. tailscale: derp/derp.go
TABLE = [
    (encode_server_key(KEY), "010000002844455250f09f9491" + KEY.hex(), FrameType.SERVER_KEY),
    (send_packet(KEY, b"hi"), "0400000022" + KEY.hex() + "6869", FrameType.SEND_PACKET),
    (KEEP_ALIVE_FRAME, "0600000000", FrameType.KEEP_ALIVE),
    (encode_frame(FrameType.NOTE_PREFERRED, b"\1"), "070000000101", FrameType.NOTE_PREFERRED),
    (encode_peer_gone(KEY, GoneReason.NOT_HERE), "0800000021" + KEY.hex() + "01", FrameType.PEER_GONE),
    (encode_frame(FrameType.PING, b"12345678"), "12000000083132333435363738", FrameType.PING),
    (encode_pong(b"12345678"), "13000000083132333435363738", FrameType.PONG),
    (encode_restarting(1000, 60000), "1500000008000003e80000ea60", FrameType.RESTARTING),
]


@pytest.mark.parametrize(("frame", "expected", "kind"), TABLE)
def test_frame_encodes_and_decodes_whole_bytewise_and_with_trailing(
    frame: bytes, expected: str, kind: FrameType
) -> None:
    assert frame.hex() == expected
    payload = frame[5:]
    whole = FrameReader()
    whole.feed(frame + frame + b"\x06")
    assert [whole.next_frame(), whole.next_frame(), whole.next_frame()] == [
        (kind, payload),
        (kind, payload),
        None,
    ]
    bytewise = FrameReader()
    for byte in frame[:-1]:
        bytewise.feed(bytes((byte,)))
        assert bytewise.next_frame() is None
    bytewise.feed(frame[-1:])
    assert bytewise.next_frame() == (kind, payload)


@pytest.mark.parametrize(
    ("kind", "length", "allowed"),
    [
        (FrameType.SEND_PACKET, 31, False),
        (FrameType.SEND_PACKET, 32, True),
        (FrameType.SEND_PACKET, 65_568, True),
        (FrameType.SEND_PACKET, 65_569, False),
        (FrameType.PING, 7, False),
        (FrameType.PING, 8, True),
        (FrameType.PING, 1_000, True),
        (FrameType.PING, 1_001, False),
        (FrameType.NOTE_PREFERRED, 0, False),
        (FrameType.NOTE_PREFERRED, 1, True),
        (FrameType.NOTE_PREFERRED, 2, False),
        (FrameType.PONG, 0, True),
        (0x77, 65_536, True),
        (0x77, 65_537, False),
        (0x77, 0xFFFF_FFFF, False),
        (FrameType.FORWARD_PACKET, 64, False),
        (FrameType.WATCH_CONNS, 0, False),
        (FrameType.CLOSE_PEER, 32, False),
    ],
)
def test_client_frame_is_judged_by_its_header(kind: int, length: int, allowed: bool) -> None:
    if allowed:
        check_client_frame(kind, length)
    else:
        with pytest.raises(ProtocolError):
            check_client_frame(kind, length)


@pytest.mark.parametrize(
    ("header", "length"),
    [
        ("0200000038", 56),
        ("0200001000", 4096),
        ("0200000037", None),
        ("0200001001", None),
        ("02ffffffff", None),
        ("0400000038", None),
        ("02000000", None),
        ("", None),
    ],
)
def test_first_frame_must_be_a_client_info_of_sane_size(header: str, length: int | None) -> None:
    if length is not None:
        assert parse_login_header(bytes.fromhex(header)) == length
    else:
        with pytest.raises(ProtocolError):
            parse_login_header(bytes.fromhex(header))


def test_disco_is_known_by_magic_and_size() -> None:
    assert looks_like_disco(disco(62))
    assert not looks_like_disco(disco(61))
    assert not looks_like_disco(secrets.token_bytes(100))


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_any_bytes_are_frames_or_a_protocol_error(chunks: list[bytes]) -> None:
    reader = FrameReader()
    with suppress(ProtocolError):
        for chunk in chunks:
            reader.feed(chunk)
            while reader.next_frame():
                pass
    with suppress(ProtocolError):
        parse_login_header(b"".join(chunks)[:5])
