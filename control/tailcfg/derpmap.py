"""DERPMap: which relays there are (control.md §8.4, derp.md §2.5)."""

from __future__ import annotations

from msgspec import field

from control.tailcfg.codec import Sent


class DERPNode(Sent, frozen=True):
    name: str  # unique over the map
    region_id: int
    host_name: str
    cert_name: str = ""  # `sha256-raw:<hex>` pins a self-signed certificate
    ipv4: str = ""  # literal address; "none" disables; empty: DNS
    ipv6: str = ""
    stun_port: int = 0  # 0: 3478; -1: none
    derp_port: int = 0  # 0: 443
    can_port80: bool = field(default=False, name="CanPort80")


class DERPRegion(Sent, frozen=True):
    region_id: int
    region_code: str
    region_name: str
    nodes: list[DERPNode]


class DERPMap(Sent, frozen=True):
    regions: dict[str, DERPRegion]  # key: RegionID in decimal
