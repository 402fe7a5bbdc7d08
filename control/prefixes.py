"""Prefixes and addresses of the tailnet: the address plan, and which routes may exist at all.

100.64.0.0/10 and fd7a:115c:a1e0::/48 belong to the tailnet (control.md §8.13); what a node routes lies outside of them,
4via6 apart. Source: tailscale net/tsaddr/tsaddr.go.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Container

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

CGNAT = ipaddress.IPv4Network("100.64.0.0/10")
ULA = ipaddress.IPv6Network("fd7a:115c:a1e0::/48")
VIA = ipaddress.IPv6Network("fd7a:115c:a1e0:b1a::/64")  # 4via6: IPv4 subnets that overlap, told apart by site
EXIT_ROUTES = ("0.0.0.0/0", "::/0")

# Inside our range but spoken for: the MagicDNS resolver and its neighbourhood, ChromeOS's own 100.115.92.0/23.
RESERVED = tuple(
    ipaddress.IPv4Network(text) for text in ("100.100.0.0/24", "100.100.100.0/24", "100.115.92.0/23")
)
_NO_DESTINATION = (
    ipaddress.ip_network("0.0.0.0/8"),  # "this network"
    ipaddress.ip_network("255.255.255.255/32"),
    ipaddress.ip_network("::/128"),
    ipaddress.ip_network("::ffff:0:0/96"),  # IPv4 in disguise: it would pass by the rules for IPv4
)
_QUAD100_V6 = 0x53  # fd7a:115c:a1e0::53
_SIZE = CGNAT.num_addresses - 2  # neither the network's nor the broadcast address


def allocate(node_id: int, taken: Container[str]) -> tuple[str, str]:
    """(IPv4, IPv6) for a new node: the id's own place in the range, or the next free one. Both share the offset.

    Ids are never reused, so an address comes back only after four million nodes. The search is bounded by the nodes
    that exist. Raises LookupError when the range is full.
    """
    for step in range(_SIZE):
        offset = 1 + (node_id - 1 + step) % _SIZE
        ipv4 = CGNAT.network_address + offset
        if offset == _QUAD100_V6 or any(ipv4 in network for network in RESERVED):
            continue
        if str(ipv4) not in taken:
            return str(ipv4), str(ULA.network_address + offset)
    raise LookupError("no address is left in 100.64.0.0/10")


def parse_prefix(text: str) -> IPNetwork:
    """A prefix with its host bits cleared; a bare address is a /32 or /128. Raises ValueError with the reason."""
    if "%" in text:
        raise ValueError(f"{text[:50]!r} has a zone; a route has none")
    try:
        return ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        raise ValueError(f"{text[:50]!r} is no prefix like 192.168.1.0/24 or 2001:db8::/64") from None


def why_not_routable(prefix: IPNetwork) -> str | None:
    """Why no node may route this prefix, or None (security.md M4)."""
    if str(prefix) in EXIT_ROUTES:
        return None
    if isinstance(prefix, ipaddress.IPv6Network) and prefix.subnet_of(VIA):
        return None
    tailnet: IPNetwork = CGNAT if isinstance(prefix, ipaddress.IPv4Network) else ULA
    if prefix.overlaps(tailnet):
        return f"{prefix} overlaps the tailnet's own range {tailnet}"
    if prefix.is_loopback or prefix.is_link_local or prefix.is_multicast or _no_destination(prefix):
        return f"{prefix} never leaves its own link"
    return None


def _no_destination(prefix: IPNetwork) -> bool:
    return any(
        prefix.version == network.version and prefix.subnet_of(network)  # type: ignore[arg-type]  # one version
        for network in _NO_DESTINATION
    )


def routable(texts: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """Of what a client advertises, the prefixes that may be routed, canonical, each once, in its order."""
    kept: dict[str, None] = {}
    for text in texts:
        try:
            prefix = parse_prefix(text)
        except ValueError:
            continue  # a client's claim: what makes no sense is not a route
        if why_not_routable(prefix) is None:
            kept[str(prefix)] = None
    return tuple(kept)


def source_of(address: str) -> str:
    """What counts as one source of requests: an IPv4 /24 or an IPv6 /64 (security.md §4); other text is itself."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return str(ipaddress.ip_network(f"{ip}/{24 if ip.version == 4 else 64}", strict=False))
