"""The kinds of values a setting can have: how each is written, and what it becomes.

A `Kind` turns a TOML value into a Python value or raises ValueError; `expected` completes the sentence "expected …" of the
message. An environment variable is text, so `from_text` first turns it into the TOML value somebody would have written.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
_DOMAIN_MAX = 190  # leaves room for a node's label of 63 octets below it in a name of 255


class Address(NamedTuple):
    """Where to listen. An empty host means every address of the machine, IPv4 and IPv6."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{bracketed(self.host)}:{self.port}"

    @property
    def wildcard(self) -> bool:
        return not self.host or ipaddress.ip_address(self.host).is_unspecified


class Url(NamedTuple):
    """The address clients are given: scheme, host and port, never a path."""

    scheme: str
    host: str  # lower case; IPv6 without brackets
    port: int

    def __str__(self) -> str:
        standard = {"https": 443, "http": 80}[self.scheme] == self.port
        return f"{self.scheme}://{bracketed(self.host)}" + ("" if standard else f":{self.port}")

    @property
    def loopback(self) -> bool:
        """Whether only this machine can mean it."""
        address = ip_or_none(self.host)
        return (
            address.is_loopback if address else self.host == "localhost" or self.host.endswith(".localhost")
        )

    @property
    def public(self) -> bool:
        """Whether a public certificate authority could issue for it."""
        address = ip_or_none(self.host)
        return address.is_global if address else "." in self.host and not self.loopback


def bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def ip_or_none(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def is_domain(text: str) -> bool:
    """Whether `text` is a lower-case name of LDH labels."""
    return len(text) <= 253 and all(_LABEL.match(label) for label in text.split("."))


@dataclass(frozen=True, slots=True)
class Kind:
    expected: str
    parse: Callable[[Any], Any]
    from_text: Callable[[str], Any] = str


def _typed(value: Any, wanted: type) -> Any:
    # bool is an int in Python, not in TOML
    if not isinstance(value, wanted) or (wanted is not bool and isinstance(value, bool)):
        raise ValueError
    return value


def _text(value: Any) -> str:
    text: str = _typed(value, str)
    if any(not char.isprintable() for char in text):
        raise ValueError
    return text


def _bool_from_text(text: str) -> bool:
    return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[
        text.strip().lower()
    ]


def parse_url(value: Any) -> Url | None:
    """`https://host[:port]`, perhaps with a final slash; "" is None."""
    text = _text(value)
    if not text:
        return None
    match = re.fullmatch(
        r"(https?)://(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::([0-9]{1,5}))?/?", text.lower(), re.ASCII
    )
    if not match:
        raise ValueError
    scheme, host, port = match[1], match[2], int(match[3] or {"https": 443, "http": 80}[match[1]])
    if host.startswith("["):
        host = str(ipaddress.IPv6Address(host[1:-1]))
    elif ip_or_none(host) is None:
        host = host.removesuffix(".")
        # "1.2.3" and "256.1.1.1" are addresses somebody mistyped, not names
        if not is_domain(host) or host.rsplit(".", 1)[-1].isdigit():
            raise ValueError
    return Url(scheme, host, _in_range(port, 1, 65535))


def parse_address(value: Any) -> Address | None:
    """`:443`, `127.0.0.1:443`, `[::1]:443`; "" is None."""
    text = _text(value)
    if not text:
        return None
    host, colon, port = text.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port, re.ASCII):
        raise ValueError
    if host.startswith("[") and host.endswith("]"):
        host = str(ipaddress.IPv6Address(host[1:-1]))
    elif host:
        host = str(ipaddress.IPv4Address(host))
    return Address(host, _in_range(int(port), 0, 65535))


def _parse_domain(value: Any) -> str:
    text = _text(value).lower().removesuffix(".")
    if not is_domain(text) or "." not in text or len(text) > _DOMAIN_MAX or text.rsplit(".", 1)[-1].isdigit():
        raise ValueError
    return text


def _parse_path(value: Any) -> str:
    text = _text(value)
    if not text.startswith("/"):
        raise ValueError
    return text


def _parse_networks(value: Any) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(_text(item)) for item in _typed(value, list))


def _in_range(value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise ValueError
    return value


def integer(low: int, high: int, what: str = "a whole number") -> Kind:
    return Kind(f"{what} from {low} to {high}", lambda value: _in_range(_typed(value, int), low, high), int)


def choice(*words: str) -> Kind:
    """One of some words; the first is the default by custom."""

    def parse(value: Any) -> str:
        if value not in words:
            raise ValueError
        return str(value)

    return Kind("one of " + ", ".join(f'"{word}"' for word in words), parse)


def _optional_ip(version: type[ipaddress.IPv4Address] | type[ipaddress.IPv6Address]) -> Callable[[Any], Any]:
    return lambda value: version(_text(value)) if value != "" else None


BOOL = Kind("true or false", lambda value: _typed(value, bool), _bool_from_text)
URL = Kind(
    'an address such as "https://vpn.example.com" or "http://127.0.0.1:8080", without a path', parse_url
)
ADDRESS = Kind(
    '":443", "127.0.0.1:443", "[::1]:443" (an address, not a name), or "" to switch it off', parse_address
)
IPV4 = Kind('an IPv4 address such as "203.0.113.7", or ""', _optional_ip(ipaddress.IPv4Address))
IPV6 = Kind('an IPv6 address such as "2001:db8::7", or ""', _optional_ip(ipaddress.IPv6Address))
DOMAIN = Kind('a domain of two labels or more, such as "tail.example.net"', _parse_domain)
PATH = Kind('an absolute path such as "/etc/appliance/tls.crt"', _parse_path)
NETWORKS = Kind(
    'a list of prefixes such as ["10.0.0.0/8", "fd00::/8"]',
    _parse_networks,
    lambda text: [item.strip() for item in text.split(",") if item.strip()],
)
PORT_OR_0 = integer(0, 65535, "a port")
