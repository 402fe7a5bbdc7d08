"""Where a connection really comes from, when a proxy stands in between.

Two ways for a proxy to tell, and one rule for both: only proxies that the operator listed are believed, anybody else's
claim changes nothing.

PROXY protocol, before anything else on the connection (then required from listed proxies):

    v1   PROXY TCP4|TCP6|UNKNOWN <source> <destination> <source port> <destination port>\\r\\n       at most 107 bytes
    v2   signature (12) | 0x20 LOCAL or 0x21 PROXY | family (1): 0x11 TCP4, 0x21 TCP6 | length (2) | addresses, TLVs

X-Forwarded-For, a header of each request: every proxy adds the address it saw at the right end, so the rightmost one that
is no listed proxy is the client; whatever stands left of it, the client may have made up.

Source: HAProxy's proxy-protocol.txt §2.1, §2.2.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from appliance.config.kinds import Network, ip_or_none
from appliance.errors import ProxyHeaderError

V1_LIMIT = 107
V2_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V2_LIMIT = 536  # the specification lets receivers count on no more
V2_ADDRESS_BYTES = {0x11: 4, 0x21: 16}
_V1 = re.compile(rb"PROXY (?:UNKNOWN(?: [^\r\n]*)?|TCP([46]) (\S+) \S+ \d{1,5} \d{1,5})\r\n")


class ProxyHeaderReader:
    """Collects bytes until the header is whole."""

    def __init__(self) -> None:
        self._received = b""
        self.rest = b""
        """What came after the header."""
        self.source: str | None = None
        """The client's address; None when the proxy speaks for itself."""

    def feed(self, data: bytes) -> bool:
        """True once the header is complete. Raises `ProxyHeaderError`, and nothing else."""
        self._received += data
        if self._received.startswith(V2_SIGNATURE[: len(self._received)]):
            return self._feed_v2()
        if self._received.startswith(b"PROXY "[: len(self._received)]):
            return self._feed_v1()
        raise ProxyHeaderError("the proxy sent no PROXY protocol header")

    def _feed_v1(self) -> bool:
        line, end, self.rest = self._received.partition(b"\r\n")
        if not end:
            if len(self._received) > V1_LIMIT:
                raise ProxyHeaderError("a PROXY header without end")
            return False
        match = _V1.fullmatch(line + end)
        if not match or len(line) + 2 > V1_LIMIT:
            raise ProxyHeaderError("a malformed PROXY header")
        if match[1]:
            self.source = _ip(match[2].decode("latin-1"), int(match[1]))
        return True

    def _feed_v2(self) -> bool:
        if len(self._received) < 16:
            return False
        command, family = self._received[12], self._received[13]
        length = int.from_bytes(self._received[14:16], "big")
        if command not in (0x20, 0x21) or length > V2_LIMIT:
            raise ProxyHeaderError("a malformed PROXY header")
        if len(self._received) < 16 + length:
            return False
        body, self.rest = self._received[16 : 16 + length], self._received[16 + length :]
        size = V2_ADDRESS_BYTES.get(family)
        if command == 0x21 and size is not None:
            if length < 2 * size + 4:
                raise ProxyHeaderError("a PROXY header without addresses")
            self.source = str(ipaddress.ip_address(body[:size]))
        return True


def _ip(text: str, version: int) -> str:
    address = ip_or_none(text)
    if address is None or address.version != version:
        raise ProxyHeaderError("a PROXY header without an address of its family")
    return str(address)


def is_listed(address: str, proxies: Sequence[Network]) -> bool:
    """Is this the address of a proxy that the operator listed?"""
    ip = ip_or_none(address)
    return ip is not None and any(ip in network for network in proxies)


def client_address(peer: str, forwarded_for: str, proxies: Sequence[Network]) -> str:
    """The client's address: `peer`, unless that is a listed proxy which says more in `X-Forwarded-For`."""
    client = peer
    for hop in reversed(forwarded_for.split(",")):
        if not is_listed(client, proxies):
            break
        try:
            client = plain_address(hop.strip())
        except ValueError:
            break
    return client


def plain_address(text: str) -> str:
    """An address in its usual form: what a dual-stack socket shows as `::ffff:192.0.2.1` is an IPv4 address."""
    ip = ipaddress.ip_address(text.partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return str(mapped or ip)
