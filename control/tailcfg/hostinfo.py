"""Hostinfo and NetInfo: what a client says about itself (control.md §8.2, §8.3). All of it is a claim.

The original JSON is kept whole, for fields of clients to come; `Hostinfo` is the part that we read.
`for_peers` is the allow-list of what another node may learn (security.md M1).
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType, field

from control.tailcfg.codec import DecodeError, Sent, Wire, decode, encode

# Fixed by us (security.md §4): what is beyond is cut off, and the client is told by a health text.
HOSTINFO_MAX = 64 * 1024
STRING_MAX = 1024
ROUTABLE_IPS_MAX = 2048
REQUEST_TAGS_MAX = 64
SERVICES_MAX = 256
SSH_HOST_KEYS_MAX = 16

PEERAPI = ("peerapi4", "peerapi6", "peerapi-dns-proxy")


class Service(Wire, frozen=True):
    """A port that the client listens on; peers need those of the peerapi."""

    proto: str = ""
    port: int = 0
    description: str = ""


class NetInfo(Wire, frozen=True):
    """What the client found out about its network. `preferred_derp` 0: not connected to a relay."""

    preferred_derp: int = field(default=0, name="PreferredDERP")
    derp_latency: dict[str, float] | None = None


class Hostinfo(Wire, frozen=True):
    ipn_version: str = ""
    os: str = ""
    os_version: str = ""
    distro: str = ""
    hostname: str = ""
    routable_ips: list[str] | None = None
    request_tags: list[str] | None = None
    services: list[Service] | None = None
    net_info: NetInfo | None = None
    ssh_host_keys: list[str] | None = field(default=None, name="sshHostKeys")
    location: dict[str, Any] | None = None
    app_connector: bool | None = None
    shields_up: bool = False


class PeerService(Sent, frozen=True):
    proto: str
    port: int
    description: str = ""


class PeerHostinfo(Sent, frozen=True):
    """Hostinfo as another node sees it."""

    os: str = ""
    hostname: str = ""
    services: list[PeerService] | UnsetType = UNSET
    ssh_host_keys: list[str] | UnsetType = field(default=UNSET, name="sshHostKeys")
    location: dict[str, Any] | UnsetType = UNSET
    app_connector: bool | UnsetType = UNSET


EMPTY = Hostinfo()


def parse_hostinfo(raw: bytes) -> Hostinfo:
    """The fields we read, cut to our limits. Raises DecodeError."""
    if len(raw) > HOSTINFO_MAX:
        raise DecodeError(f"Hostinfo of {len(raw)} bytes; at most {HOSTINFO_MAX} are taken")
    host = decode(raw, Hostinfo)
    net = host.net_info
    if net and net.derp_latency and not all(math.isfinite(value) for value in net.derp_latency.values()):
        net = NetInfo(preferred_derp=net.preferred_derp)
    return msgspec.structs.replace(
        host,
        **{
            name: getattr(host, name)[:STRING_MAX]
            for name in ("ipn_version", "os", "os_version", "distro", "hostname")
        },
        routable_ips=_cut(host.routable_ips, ROUTABLE_IPS_MAX),
        request_tags=_cut(host.request_tags, REQUEST_TAGS_MAX),
        services=_cut(host.services, SERVICES_MAX),
        ssh_host_keys=_cut(host.ssh_host_keys, SSH_HOST_KEYS_MAX),
        net_info=net,
    )


def merge_raw(old: bytes, new: bytes) -> bytes:
    """The new Hostinfo, with NetInfo and Services of the old one where the new has none.

    A client leaves both out after a login in a running process, for minutes (tried.md, trap 6).
    Raises DecodeError when `new` is no JSON object.
    """
    if old == new:
        return old
    fresh = decode(new, dict[str, Any])
    missing = [name for name in ("NetInfo", "Services") if fresh.get(name) is None]
    if missing and old:
        kept = decode(old, dict[str, Any])
        fresh.update({name: kept[name] for name in missing if kept.get(name) is not None})
        return encode(fresh)
    return new


def for_peers(host: Hostinfo) -> PeerHostinfo:
    """What other nodes may learn."""
    services = [
        PeerService(proto=service.proto, port=service.port, description=service.description)
        for service in host.services or ()
        if service.proto in PEERAPI and 0 < service.port < 65536
    ]
    return PeerHostinfo(
        os=host.os,
        hostname=host.hostname,
        services=services or UNSET,
        ssh_host_keys=list(host.ssh_host_keys) if host.ssh_host_keys else UNSET,
        location=host.location if host.location else UNSET,
        app_connector=host.app_connector if host.app_connector is not None else UNSET,
    )


def _cut(items: list[Any] | None, most: int) -> list[Any] | None:
    return items[:most] if items else items
