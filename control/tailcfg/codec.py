"""JSON in and out: msgspec with the protocol's types, and one documented error for any input (security.md F8).

- keys are text (`nodekey:…`) on the wire and `control.keys` types in memory; a zero key decodes as itself.
- times are RFC 3339; in memory they are seconds since 1970 (float), 0001-01-01 being "no time" (`None` where optional).
- a field without its own name is the attribute in Go's spelling: `node_key` → `NodeKey`, `os_version` → `OSVersion`.
"""

from __future__ import annotations

import datetime
from typing import Annotated, Any, TypeVar

import msgspec

from control.errors import ProtocolError
from control.keys import KeyFormatError, PublicKey

T = TypeVar("T")

# Goes to peers as Node.Cap: a number that Go's int cannot hold would end their map streams.
CapabilityVersion = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]

LATEST = 253402300799.0  # 9999-12-31T23:59:59Z: RFC 3339 has no later time

# Words that Go writes in capitals.
_ACRONYMS = {
    "id": "ID", "os": "OS", "ip": "IP", "ips": "IPs", "url": "URL", "dns": "DNS", "derp": "DERP", "nl": "NL",
    "ipn": "IPN", "tka": "TKA", "ssh": "SSH", "stun": "STUN", "udp": "UDP", "ipv4": "IPv4", "ipv6": "IPv6", "pic": "Pic",
}  # fmt: skip


class DecodeError(ProtocolError):
    """The bytes are not the JSON that was expected; the text says where."""


def wire_name(attribute: str) -> str:
    """`node_key` → `NodeKey`."""
    return "".join(_ACRONYMS.get(word, word.capitalize()) for word in attribute.split("_"))


class Wire(msgspec.Struct, rename=wire_name, frozen=True, kw_only=True, gc=False):
    """Base of what we decode: unknown fields ignored, every field optional by its default."""


class Sent(msgspec.Struct, rename=wire_name, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Base of what we encode: a field at its default is left out; one without a default is always sent."""


def decode(data: bytes | msgspec.Raw, kind: type[T]) -> T:
    """The value of type `kind` in `data`. Raises DecodeError for any other bytes."""
    try:
        return msgspec.json.decode(data, type=kind, dec_hook=_from_text)
    except (ValueError, RecursionError) as exc:  # msgspec's are ValueErrors; lone surrogates; deep nesting
        raise DecodeError(str(exc)[:200]) from exc


def encode(value: Any) -> bytes:
    """Compact JSON."""
    return _encoder.encode(value)


def rfc3339(seconds: float) -> str:
    """Seconds since 1970 as `2026-08-22T10:00:00Z`, with microseconds where there are any."""
    when = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return when.isoformat(timespec="microseconds" if when.microsecond else "seconds").replace("+00:00", "Z")


def seconds_of(when: datetime.datetime | None) -> float | None:
    """Seconds since 1970, at most LATEST; None for no time, which for Go is one in the year 1."""
    if when is None or when.year <= 1:
        return None
    aware = when if when.tzinfo else when.replace(tzinfo=datetime.UTC)
    return min(aware.timestamp(), LATEST)  # an offset can carry the last day of 9999 over its end


def _from_text(kind: type, value: Any) -> Any:
    if issubclass(kind, PublicKey) and isinstance(value, str):
        try:
            return kind.parse(value)
        except KeyFormatError as exc:
            raise ValueError(str(exc)) from exc
    raise ValueError(f"expected {kind.__name__}")


def _to_text(value: Any) -> str:
    if isinstance(value, PublicKey):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form here")


_encoder = msgspec.json.Encoder(enc_hook=_to_text)
