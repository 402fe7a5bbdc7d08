"""Secrets we hand out: their text form, how they are stored, and a wrapper that cannot be logged by accident.

    prefix-<id: 12 base62>-<secret: 43 base62><check: 6 base62 of CRC-32>          tskey-auth-K3…-…

256 bits of randomness need no slow hash: stored is one keyed BLAKE2b-256 (`key` = the server's pepper, `person` = the kind),
looked up by id and compared in constant time (security.md §5). The check digits refuse a typo without a look-up.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets as random_source
import string
import zlib
from typing import NamedTuple, NoReturn

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
ID_LEN = 12
SECRET_LEN = 43  # 43 × log2(62) = 256 bits
CHECK_LEN = 6  # 62^6 > 2^32

AUTH_KEY = "tskey-auth"


class Secret:
    """A text that shows only its prefix and id, whatever prints, formats or encodes it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The secret itself. Grep for the callers: they are meant to be few."""
        return self._text

    def __repr__(self) -> str:
        head, _, rest = self._text.rpartition("-")
        return f"<Secret {head}-…>" if head and rest else "<Secret …>"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._text.encode(), other._text.encode())

    __hash__ = None  # type: ignore[assignment]  # a dictionary of secrets would compare in variable time

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled")


class Minted(NamedTuple):
    """A new secret: its public id, the text for the person, and what is stored."""

    id: str
    secret: Secret
    mac: bytes


class Claimed(NamedTuple):
    """A well-formed secret as somebody presented it."""

    id: str
    secret: Secret


def mint(prefix: str, pepper: bytes) -> Minted:
    """A fresh secret of the kind `prefix`."""
    ident, body = _random(ID_LEN), _random(SECRET_LEN)
    text = f"{prefix}-{ident}-{body}{_check(prefix, ident, body)}"
    return Minted(ident, Secret(text), mac_of(prefix, Secret(text), pepper))


def parse(prefix: str, text: str) -> Claimed | None:
    """The id and secret of a well-formed text of that kind; None for anything else, a typo included."""
    head, _, rest = text.strip().partition(f"{prefix}-")
    ident, _, tail = rest.partition("-")
    body, check = tail[:SECRET_LEN], tail[SECRET_LEN:]
    if head or len(ident) != ID_LEN or len(body) != SECRET_LEN:
        return None
    if not (ident + tail).isascii() or not (ident + tail).isalnum():
        return None
    if check != _check(prefix, ident, body):
        return None
    return Claimed(ident, Secret(text.strip()))


def mac_of(prefix: str, secret: Secret, pepper: bytes) -> bytes:
    """32 bytes: what the database keeps instead of the secret."""
    return hashlib.blake2b(
        secret.reveal().encode(), digest_size=32, key=pepper, person=prefix.encode()[:16]
    ).digest()


def matches(mac: bytes, prefix: str, secret: Secret, pepper: bytes) -> bool:
    """Whether `secret` is the one that `mac` was made of; in constant time."""
    return hmac.compare_digest(mac, mac_of(prefix, secret, pepper))


def _random(length: int) -> str:
    return "".join(random_source.choice(ALPHABET) for _ in range(length))


def _check(prefix: str, ident: str, body: str) -> str:
    number, digits = zlib.crc32(f"{prefix}-{ident}-{body}".encode()), ""
    for _ in range(CHECK_LEN):
        number, digit = divmod(number, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits
