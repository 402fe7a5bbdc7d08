"""Hostinfo and NetInfo: what a client says about itself (control.md §8.2, §8.3). All of it is a claim.

The original JSON is kept whole, for fields of clients to come; `Hostinfo` is the part that we read.
`for_peers` is the allow-list of what another node may learn (security.md M1).
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType, field
from msgspec.structs import replace

from control.tailcfg.codec import DecodeError, Sent, Wire, decode, encode

T = TypeVar("T")

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


class Location(Sent, frozen=True):
    """Where an exit node is. Typed, since it goes to peers: one text for a number would end every peer's map stream."""

    country: str = ""
    country_code: str = ""
    city: str = ""
    city_code: str = ""
    latitude: float = 0.0
    longitude: float = 0.0
    priority: Annotated[int, Meta(ge=-(2**31), lt=2**31)] = 0


class NetInfo(Wire, frozen=True):
    """What the client found out about its network. `preferred_derp` 0: not connected to a relay."""

    preferred_derp: int = field(default=0, name="PreferredDERP")


class Hostinfo(Wire, frozen=True):
    ipn_version: str = ""
    os: str = ""
    hostname: str = ""
    routable_ips: list[str] | None = None
    request_tags: list[str] | None = None
    services: list[Service] | None = None
    net_info: NetInfo | None = None
    ssh_host_keys: list[str] | None = field(default=None, name="sshHostKeys")
    location: Location | None = None
    app_connector: bool | None = None


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
    location: Location | UnsetType = UNSET
    app_connector: bool | UnsetType = UNSET


EMPTY = Hostinfo()


def parse_hostinfo(raw: bytes) -> Hostinfo:
    """The fields we read, cut to our limits; of nothing, nothing. Raises DecodeError."""
    if len(raw) > HOSTINFO_MAX:
        raise DecodeError(f"Hostinfo of {len(raw)} bytes; at most {HOSTINFO_MAX} are taken")
    host = EMPTY if raw in (b"", b"null") else decode(raw, Hostinfo)
    return replace(
        host,
        ipn_version=_line(host.ipn_version),
        os=_line(host.os),
        hostname=_line(host.hostname),
        routable_ips=_cut(host.routable_ips, ROUTABLE_IPS_MAX),
        request_tags=_lines(host.request_tags, REQUEST_TAGS_MAX),
        services=_cut(host.services, SERVICES_MAX),
        ssh_host_keys=_lines(host.ssh_host_keys, SSH_HOST_KEYS_MAX),
        location=_printable(host.location),
    )


def merge_raw(old: bytes, new: bytes) -> bytes:
    """The new Hostinfo, with NetInfo and Services of the old one where the new has none.

    A client leaves both out after a login in a running process, for minutes (tried.md, trap 6).
    Raises DecodeError when `new` is no JSON object.
    """
    if old == new:
        return old
    fresh, kept = _members(new), _members(old)
    missing = [name for name in ("NetInfo", "Services") if _absent(fresh, name) and not _absent(kept, name)]
    if not missing:
        return new
    merged = encode(fresh | {name: kept[name] for name in missing})
    return merged if len(merged) <= HOSTINFO_MAX else new


def for_peers(host: Hostinfo) -> PeerHostinfo:
    """What other nodes may learn."""
    services = [
        PeerService(proto=service.proto, port=service.port, description=_line(service.description))
        for service in host.services or ()
        if service.proto in PEERAPI and 0 < service.port < 65536
    ]
    return PeerHostinfo(
        os=host.os,
        hostname=host.hostname,
        services=services or UNSET,
        ssh_host_keys=list(host.ssh_host_keys) if host.ssh_host_keys else UNSET,
        location=host.location or UNSET,
        app_connector=host.app_connector if host.app_connector is not None else UNSET,
    )


def _members(raw: bytes) -> dict[str, msgspec.Raw]:
    return {} if raw in (b"", b"null") else decode(raw, dict[str, msgspec.Raw])


def _absent(members: dict[str, msgspec.Raw], name: str) -> bool:
    return bytes(members.get(name, b"null")) == b"null"


def _cut(items: list[T] | None, most: int) -> list[T] | None:
    return items[:most] if items else items


def _line(text: str) -> str:
    """What may be shown in a terminal: no control characters, and not too much."""
    return "".join(char for char in text[:STRING_MAX] if char.isprintable())


def _lines(texts: list[str] | None, most: int) -> list[str] | None:
    return [_line(text) for text in texts[:most]] if texts else texts


def _printable(location: Location | None) -> Location | None:
    if location is None:
        return None
    return replace(
        location,
        country=_line(location.country),
        country_code=_line(location.country_code),
        city=_line(location.city),
        city_code=_line(location.city_code),
    )
