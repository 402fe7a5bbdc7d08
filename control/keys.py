"""The keys of the protocol: 32 raw bytes in memory, a prefix and 64 hex digits as text.

| type            | text              | what                                                        |
| --------------- | ----------------- | ----------------------------------------------------------- |
| `MachinePublic` | `mkey:<hex>`      | the device; proven by the Noise handshake                   |
| `NodePublic`    | `nodekey:<hex>`   | the WireGuard key; rotates at re-login                      |
| `DiscoPublic`   | `discokey:<hex>`  | NAT traversal; new at every start of the client             |
| `NLPublic`      | `nlpub:<hex>`     | the device's tailnet-lock key (ed25519)                     |

Clients send a zero key where they have none: `is_zero`. Distinct types, so that swapping two of them is a type error.
Source: tailscale types/key/*.go.
"""

from __future__ import annotations

from typing import ClassVar, Self

KEY_LEN = 32


class KeyFormatError(ValueError):
    """The text is not a key of the wanted kind."""


class PublicKey(bytes):
    """32 bytes with the text form `prefix:hex`. Compares and hashes as bytes."""

    PREFIX: ClassVar[str]
    __slots__ = ()

    def __new__(cls, raw: bytes) -> Self:
        if len(raw) != KEY_LEN:
            raise KeyFormatError(f"a {cls.PREFIX} key has {KEY_LEN} bytes, not {len(raw)}")
        return super().__new__(cls, raw)

    @classmethod
    def parse(cls, text: str) -> Self:
        """From text; upper-case hex is accepted. Raises KeyFormatError."""
        prefix, _, digits = text.partition(":")
        if prefix != cls.PREFIX or len(digits) != 2 * KEY_LEN or not digits.isascii() or not digits.isalnum():
            raise KeyFormatError(f"expected {cls.PREFIX}: and {2 * KEY_LEN} hex digits")
        try:
            return cls(bytes.fromhex(digits))
        except ValueError as exc:
            raise KeyFormatError(f"expected {cls.PREFIX}: and {2 * KEY_LEN} hex digits") from exc

    @property
    def is_zero(self) -> bool:
        return not any(self)

    @property
    def short(self) -> str:
        """For logs and people: the prefix and the first eight digits."""
        return f"{self.PREFIX}:{self[:4].hex()}"

    def __str__(self) -> str:
        return f"{self.PREFIX}:{self.hex()}"

    def __repr__(self) -> str:
        return f"<{self.short}…>"


class MachinePublic(PublicKey):
    PREFIX = "mkey"
    __slots__ = ()


class NodePublic(PublicKey):
    PREFIX = "nodekey"
    __slots__ = ()


class DiscoPublic(PublicKey):
    PREFIX = "discokey"
    __slots__ = ()


class NLPublic(PublicKey):
    PREFIX = "nlpub"
    __slots__ = ()
