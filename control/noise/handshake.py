"""Noise IK, responder's side: two messages, and both ends know each other and share two keys.

    initiation (101 bytes)   | version (16) | type 01 | length 96 (16) | e (32) | sealed s (32 + 16) | tag (16) |
    response   (51 bytes)    | type 02 | length 48 (16) | e (32) | tag (16) |

    <- s                     the client knows our static key beforehand (GET /key)
    -> e, es, s, ss          its ephemeral key, and its static one: the *machine key*
    <- e, ee, se             our ephemeral key

Numbers are big-endian. The version is the client's capability version; it travels in the clear and is mixed into the
hash as part of the prologue, so that a changed one spoils every later tag. Payloads are empty: only their tags travel.

`SymmetricState` has the names of the Noise paper (§5.2), except that `mix_dh` takes the two keys of a Diffie-Hellman
instead of its result, which makes them hard to swap. Each key it derives seals exactly one message, so the nonce is
always zero. No randomness here: the caller brings the ephemeral key.

Source: The Noise Protocol Framework, revision 34; tailscale: control/controlbase/{messages,handshake}.go.
"""

import hashlib
import hmac
import struct
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from control.noise.errors import NoiseError

PROTOCOL_NAME = b"Noise_IK_25519_ChaChaPoly_BLAKE2s"
PROLOGUE = b"Tailscale Control Protocol v"

INITIATION_HEADER = struct.Struct(">HBH")  # version, type, length of the rest
RESPONSE_HEADER = struct.Struct(">BH")  # type, length of the rest
INITIATION = 1
RESPONSE = 2

KEY_BYTES = 32
TAG_BYTES = 16
INITIATION_BYTES = INITIATION_HEADER.size + KEY_BYTES + (KEY_BYTES + TAG_BYTES) + TAG_BYTES
RESPONSE_BYTES = RESPONSE_HEADER.size + KEY_BYTES + TAG_BYTES

NONCE_ZERO = bytes(12)


class Accepted(NamedTuple):
    """What a good initiation leaves behind."""

    response: bytes  # 51 bytes, to be sent first
    version: int  # the client's capability version
    machine_key: bytes  # 32 bytes: whose private half the client will have proved with its first record
    rx_key: bytes  # opens what the client sends
    tx_key: bytes  # seals what we send
    handshake_hash: bytes  # the channel binding: the same 32 bytes at both ends, and at no others


def respond(
    static_private: X25519PrivateKey, initiation: bytes, ephemeral_private: X25519PrivateKey
) -> Accepted:
    """Answer a client's first message.

    Raises NoiseError for whatever is not a valid initiation to *static_private*. A replayed one is valid: its
    sender gets a response, but not the keys, and its first record will not open.
    """
    if len(initiation) != INITIATION_BYTES:
        raise NoiseError(f"an initiation has {INITIATION_BYTES} bytes, not {len(initiation)}")
    version, kind, length = INITIATION_HEADER.unpack_from(initiation)
    if kind != INITIATION or length != INITIATION_BYTES - INITIATION_HEADER.size:
        raise NoiseError("not an initiation")
    sealed_machine_key, tag = initiation[37:85], initiation[85:]

    state = SymmetricState(PROTOCOL_NAME)
    state.mix_hash(PROLOGUE + str(version).encode())
    state.mix_hash(static_private.public_key().public_bytes_raw())  # <- s
    # -> e, es, s, ss
    client_ephemeral = initiation[5:37]
    state.mix_hash(client_ephemeral)
    state.mix_dh(static_private, client_ephemeral)
    machine_key = state.decrypt_and_hash(sealed_machine_key)
    state.mix_dh(static_private, machine_key)
    state.decrypt_and_hash(tag)
    # <- e, ee, se
    ephemeral = ephemeral_private.public_key().public_bytes_raw()
    state.mix_hash(ephemeral)
    state.mix_dh(ephemeral_private, client_ephemeral)
    state.mix_dh(ephemeral_private, machine_key)
    header = RESPONSE_HEADER.pack(RESPONSE, RESPONSE_BYTES - RESPONSE_HEADER.size)
    response = header + ephemeral + state.encrypt_and_hash(b"")

    rx_key, tx_key = state.split()
    return Accepted(response, version, machine_key, rx_key, tx_key, state.h)


class SymmetricState:
    """The running hash `h`, the chaining key `ck` and the current cipher key `k` of a handshake (§5.2)."""

    def __init__(self, protocol_name: bytes) -> None:
        self.h = self.ck = hashlib.blake2s(protocol_name).digest()  # the name is longer than a hash
        self.k = b""

    def mix_hash(self, data: bytes) -> None:
        self.h = hashlib.blake2s(self.h + data).digest()

    def mix_dh(self, private: X25519PrivateKey, public: bytes) -> None:
        """MixKey(DH(private, public)). NoiseError if *public* is of low order, as no honest key is."""
        try:
            shared = private.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError as exc:
            raise NoiseError("a key of low order") from exc
        self.ck, self.k = _hkdf(self.ck, shared)

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        ciphertext = ChaCha20Poly1305(self.k).encrypt(NONCE_ZERO, plaintext, self.h)
        self.mix_hash(ciphertext)
        return ciphertext

    def decrypt_and_hash(self, ciphertext: bytes) -> bytes:
        try:
            plaintext = ChaCha20Poly1305(self.k).decrypt(NONCE_ZERO, ciphertext, self.h)
        except InvalidTag as exc:
            raise NoiseError("a handshake message does not open") from exc
        self.mix_hash(ciphertext)
        return plaintext

    def split(self) -> tuple[bytes, bytes]:
        """The keys of the transport phase: initiator to responder, responder to initiator."""
        return _hkdf(self.ck, b"")


def _hkdf(chaining_key: bytes, input_key: bytes) -> tuple[bytes, bytes]:
    """HKDF with two outputs, over HMAC-BLAKE2s (§4.3)."""
    temporary = hmac.digest(chaining_key, input_key, "blake2s")
    first = hmac.digest(temporary, b"\x01", "blake2s")
    return first, hmac.digest(temporary, first + b"\x02", "blake2s")
