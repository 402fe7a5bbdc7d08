"""What a node reports about itself, made into fields of its volatile record. Claims, all of it: filtered here.

Absent is not empty: a client leaves NetInfo and Services out for minutes after a login, and a streaming request may be
older than the update beside it (control.md §7.1).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Container
from typing import TypedDict

from control.keys import DiscoPublic
from control.state.volatile import Volatile
from control.tailcfg.hostinfo import Hostinfo, merge_raw, parse_hostinfo
from control.tailcfg.map import MapRequest

ENDPOINTS_MAX = 64  # docker bridges and temporary addresses make 10 to 30

_PORT = re.compile(r"[0-9]{1,5}\Z")
_BROADCAST = ipaddress.IPv4Address("255.255.255.255")


class Fields(TypedDict, total=False):
    """Fields of `Volatile`."""

    endpoints: tuple[str, ...]
    disco_key: DiscoPublic
    home_derp: int
    capver: int
    hostinfo: Hostinfo
    hostinfo_raw: bytes
    confirmed: bool


def hostinfo_fields(known: Volatile, raw: bytes, hostinfo: Hostinfo, regions: Container[int]) -> Fields:
    """What a Hostinfo says. `regions`: the relays that exist; another home, or none, keeps the old one (M6)."""
    fields: Fields = {}
    home = hostinfo.net_info.preferred_derp if hostinfo.net_info else 0
    if home and home in regions:
        fields["home_derp"] = home
    merged = merge_raw(known.hostinfo_raw, raw) if raw else known.hostinfo_raw
    if merged != known.hostinfo_raw:
        fields["hostinfo_raw"] = merged
        fields["hostinfo"] = hostinfo if merged == raw else parse_hostinfo(merged)
    return fields


def update_fields(
    known: Volatile, request: MapRequest, hostinfo: Hostinfo, regions: Container[int]
) -> Fields:
    """A lite update: everything it says counts."""
    fields = hostinfo_fields(known, request.reported, hostinfo, regions)
    fields |= {
        "capver": request.version,
        "endpoints": usable_endpoints(request.endpoints or []),
        "confirmed": True,
    }
    if request.disco_key is not None and not request.disco_key.is_zero:
        fields["disco_key"] = request.disco_key
    return fields


def stream_fields(
    known: Volatile, request: MapRequest, hostinfo: Hostinfo, regions: Container[int]
) -> Fields:
    """A streaming request. The first of this process confirms what was loaded, with whatever it has that is not zero;
    later ones only fill gaps (state.md A.10)."""
    fields = update_fields(known, request, hostinfo, regions)
    if not fields["endpoints"] or (known.confirmed and known.endpoints):
        del fields["endpoints"]
    if known.confirmed:
        if known.disco_key is not None:
            fields.pop("disco_key", None)
        if known.home_derp:
            fields.pop("home_derp", None)
        if known.hostinfo_raw:
            fields.pop("hostinfo", None)
            fields.pop("hostinfo_raw", None)
    return fields


def usable_endpoints(texts: list[str]) -> tuple[str, ...]:
    """Addresses that a peer may send to, in the client's order, each once (security.md M5)."""
    kept: dict[str, None] = {}
    for text in texts:
        if len(kept) == ENDPOINTS_MAX:
            break
        if (endpoint := _usable(text)) is not None:
            kept[endpoint] = None
    return tuple(kept)


def _usable(text: str) -> str | None:
    """The endpoint as we write it. One that a client cannot parse would cost each peer its whole map message."""
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        ip = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        return None
    if (ip.version == 6) != bracketed or not _PORT.match(port) or not 0 < int(port) < 65536 or "%" in host:
        return None
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip
    if ip.is_loopback or ip.is_unspecified or ip.is_multicast or ip.is_link_local or ip == _BROADCAST:
        return None
    return f"[{ip}]:{int(port)}" if ip.version == 6 else f"{ip}:{int(port)}"
