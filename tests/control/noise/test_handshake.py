"""The Noise handshake, against the vector that upstream's own code reproduces."""

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from control.noise import NoiseError
from control.noise.handshake import (
    INITIATION_BYTES,
    PROLOGUE,
    PROTOCOL_NAME,
    RESPONSE_BYTES,
    Accepted,
    SymmetricState,
    respond,
)
from control.noise.records import Opener, Sealer
from tests.support.noise_client import Initiator

# Version 145. Produced by an implementation of ours in Python and reproduced byte for byte by upstream's Go package
# controlbase with the same fixed keys.
SERVER = X25519PrivateKey.from_private_bytes(bytes(range(0x20)))
MACHINE = X25519PrivateKey.from_private_bytes(bytes(range(0x20, 0x40)))
SERVER_EPHEMERAL = X25519PrivateKey.from_private_bytes(bytes(range(0x40, 0x60)))
CLIENT_EPHEMERAL = X25519PrivateKey.from_private_bytes(bytes(range(0x60, 0x80)))
SERVER_PUBLIC = bytes.fromhex("8f40c5adb68f25624ae5b214ea767a6ec94d829d3d7b5e1ad1ba6f3e2138285f")
MACHINE_PUBLIC = bytes.fromhex("358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254")
INITIATION = bytes.fromhex(
    "0091010060675dd574ed7789310b3d2e7681f3790b466c773b1521fecf36577958371ea52f3205a116d3845b90db700e5dedc6393be2a3b8fa"
    "bfcf7d8a8bec1d537aeb089d96010a0b836fb7401de4ce22e72eff9856a8ddbf5658227f5c194c4eb53dca14"
)
RESPONSE = bytes.fromhex(
    "02003079a631eede1bf9c98f12032cdeadd0e7a079398fc786b88cc846ec89af85a51a110fc628b67594d0acfed834a5e2c6e1"
)
CLIENT_TO_SERVER = bytes.fromhex("a2cf01188a1f44ab7ba092e7718fe85f5d6991265468c3dceaad47bea2e15e18")
SERVER_TO_CLIENT = bytes.fromhex("244d6c255019d59e8f914e32e36ec8143082ad8ada3dab51fa7b72a3c1f70f94")
HANDSHAKE_HASH = bytes.fromhex("b921d5e89819ae47c5a43b7c2b4ad1edabd5d003c3b99af62231477de3e0c76a")

# All points of small order that a 32-byte key can name: a Diffie-Hellman with one of them has one result for everybody.
LOW_ORDER_KEYS = [
    bytes.fromhex(text)
    for text in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    )
]


def test_both_sides_agree_with_the_published_vector() -> None:
    client = Initiator(SERVER_PUBLIC, MACHINE, 145, CLIENT_EPHEMERAL)
    assert client.initiation == INITIATION
    accepted = respond(SERVER, INITIATION, SERVER_EPHEMERAL)
    assert accepted == Accepted(
        RESPONSE, 145, MACHINE_PUBLIC, CLIENT_TO_SERVER, SERVER_TO_CLIENT, HANDSHAKE_HASH
    )
    assert client.finish(RESPONSE) == (SERVER_TO_CLIENT, CLIENT_TO_SERVER)
    assert client.handshake_hash == HANDSHAKE_HASH


@pytest.mark.parametrize("low_order", LOW_ORDER_KEYS, ids=bytes.hex)
def test_low_order_key_and_replay_get_nothing(low_order: bytes) -> None:
    """N4."""
    with pytest.raises(NoiseError, match="low order"):
        respond(SERVER, INITIATION[:5] + low_order + INITIATION[37:], SERVER_EPHEMERAL)

    # A replay is answered, but with keys that its sender cannot know: not even those of the session it listened to.
    replayed = respond(SERVER, INITIATION, X25519PrivateKey.generate())
    assert replayed.machine_key == MACHINE_PUBLIC
    with pytest.raises(NoiseError, match="does not open"):
        Opener(replayed.rx_key).open(Sealer(CLIENT_TO_SERVER).seal(b"GET /machine/map"))


def test_a_machine_key_of_low_order_is_refused() -> None:
    for low_order in LOW_ORDER_KEYS:
        forged = _initiation_with_machine_key(low_order)
        with pytest.raises(NoiseError, match="low order"):
            respond(SERVER, forged, SERVER_EPHEMERAL)


def _initiation_with_machine_key(machine_key: bytes) -> bytes:
    """From a client that names *machine_key* as its own. The last tag is wrong, but nobody gets to look at it."""
    state = SymmetricState(PROTOCOL_NAME)
    state.mix_hash(PROLOGUE + b"145")
    state.mix_hash(SERVER_PUBLIC)
    state.mix_hash(INITIATION[5:37])
    state.mix_dh(CLIENT_EPHEMERAL, SERVER_PUBLIC)
    return INITIATION[:37] + state.encrypt_and_hash(machine_key) + bytes(16)


@pytest.mark.parametrize(
    ("initiation", "complaint"),
    [
        (b"", "101 bytes, not 0"),
        (INITIATION[:-1], "101 bytes, not 100"),
        (INITIATION + b"\0", "101 bytes, not 102"),
        (INITIATION[:2] + b"\x02" + INITIATION[3:], "not an initiation"),
        (INITIATION[:3] + b"\x00\x61" + INITIATION[5:], "not an initiation"),
        (b"\x00\x92" + INITIATION[2:], "does not open"),
    ],
    ids=["nothing", "short", "long", "another type", "another length", "another version"],
)
def test_a_malformed_initiation_is_refused(initiation: bytes, complaint: str) -> None:
    with pytest.raises(NoiseError, match=complaint):
        respond(SERVER, initiation, SERVER_EPHEMERAL)


def test_an_initiation_for_another_server_is_refused() -> None:
    with pytest.raises(NoiseError):
        respond(X25519PrivateKey.generate(), INITIATION, SERVER_EPHEMERAL)


@given(st.binary(max_size=200) | st.binary(min_size=INITIATION_BYTES, max_size=INITIATION_BYTES))
def test_any_bytes_are_refused_with_a_noise_error(data: bytes) -> None:
    with pytest.raises(NoiseError):
        respond(SERVER, data, SERVER_EPHEMERAL)


@given(st.integers(0, INITIATION_BYTES * 8 - 1))
def test_no_single_bit_may_be_changed(bit: int) -> None:
    # X25519 ignores the top bit of a public key; the hash does not.
    changed = bytearray(INITIATION)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(NoiseError):
        respond(SERVER, bytes(changed), SERVER_EPHEMERAL)


def test_sizes_are_those_of_the_protocol() -> None:
    assert (INITIATION_BYTES, RESPONSE_BYTES) == (101, 51)
