"""Boxes, JSON and replays."""

import secrets
from contextlib import suppress

import nacl.bindings
import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.errors import LoginError
from derp.frames import FrameType
from derp.handshake import Identity, NonceMemory

PRIVATE = bytes(range(1, 33))
CLIENT_PRIVATE = bytes(range(2, 34))
CLIENT_KEY: bytes = nacl.bindings.crypto_scalarmult_base(CLIENT_PRIVATE)
IDENTITY = Identity(PRIVATE)


def client_info(text: bytes, *, nonce: bytes = b"n" * 24) -> bytes:
    shared = nacl.bindings.crypto_box_beforenm(IDENTITY.public_key, CLIENT_PRIVATE)
    return CLIENT_KEY + nonce + nacl.bindings.crypto_box_easy_afternm(text, nonce, shared)


def test_client_info_of_an_official_client_opens() -> None:
    text = b'{"version":2,"CanAckPings":true,"IsProber":false,"AppName":"x","New":[1]}'
    login = IDENTITY.open_client_info(client_info(text))
    assert login.node_key == CLIENT_KEY
    assert login.nonce == b"n" * 24
    assert (login.info.version, login.info.can_ack_pings, login.info.app_name) == (2, True, "x")
    assert login.server_info[0] == FrameType.SERVER_INFO
    shared = nacl.bindings.crypto_box_beforenm(IDENTITY.public_key, CLIENT_PRIVATE)
    box = login.server_info[5:]
    assert nacl.bindings.crypto_box_open_easy_afternm(box[24:], box[:24], shared) == b'{"version":2}'


GOOD = client_info(b'{"version":2}')
LOW_ORDER = [
    bytes(32),
    b"\1" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        GOOD[:55],
        GOOD[:56],
        GOOD[:71],
        GOOD[:-1],
        GOOD[:-1] + bytes((GOOD[-1] ^ 1,)),
        GOOD + b"x",
        *(key + GOOD[32:] for key in LOW_ORDER),
        client_info(b""),
        client_info(b"null"),
        client_info(b'{"version":"two"}'),
        client_info(b'{"version":1e999}'),
        client_info(b'{"meshKey":"\xff"}'),
        client_info(b'{"x":' + b"[" * 3000),
        client_info(b'{"version":2'),
    ],
)
def test_anything_else_is_a_login_error(payload: bytes) -> None:
    with pytest.raises(LoginError):
        IDENTITY.open_client_info(payload)


@given(st.binary(max_size=200) | st.binary(max_size=100).map(client_info))
def test_any_bytes_open_or_raise_login_error(payload: bytes) -> None:
    with suppress(LoginError):
        IDENTITY.open_client_info(payload)


def test_private_key_is_not_shown() -> None:
    assert PRIVATE.hex() not in repr(IDENTITY)


def test_nonce_is_accepted_once_per_key_among_the_last_sixteen() -> None:
    memory = NonceMemory()
    nonces = [secrets.token_bytes(24) for _ in range(17)]
    for nonce in nonces[:16]:
        memory.remember(b"a" * 32, nonce)
    for nonce in nonces[:16]:
        with pytest.raises(LoginError):
            memory.remember(b"a" * 32, nonce)
        memory.remember(bytes(32), nonce)
    memory.remember(b"a" * 32, nonces[16])
    memory.remember(b"a" * 32, nonces[0])  # forgotten: the seventeenth pushed it out


def test_nonces_are_compared_at_their_own_boundaries() -> None:
    memory = NonceMemory()
    first, second = b"1" * 12 + b"2" * 12, b"3" * 24
    memory.remember(b"k", first)
    memory.remember(b"k", second)
    memory.remember(b"k", b"2" * 12 + b"3" * 12)  # lies across the two


def test_nonce_memory_is_bounded_and_forgets_the_least_recent_key() -> None:
    memory = NonceMemory(keys=2)
    for key in (b"a", b"b", b"a", b"c"):
        memory.remember(key, secrets.token_bytes(24))
    assert list(memory._seen) == [b"a", b"c"]
