"""Node, PeerChange and UserProfile as they are sent (control.md §8.1, §8.8).

Of a peer, `online`, `endpoints` and `hostinfo` are always sent: a client loses a later value of what was absent at first
(control.md §7.8).
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType, field

from control.keys import DiscoPublic, NodePublic
from control.tailcfg.codec import Sent
from control.tailcfg.hostinfo import PeerHostinfo


class Node(Sent, frozen=True):
    id: int
    stable_id: str
    name: str  # FQDN with the final dot
    user: int
    key: NodePublic
    addresses: list[str]  # /32 and /128, v4 first
    allowed_ips: list[str]
    endpoints: list[str]
    hostinfo: PeerHostinfo | msgspec.Raw
    created: str
    key_expiry: str | UnsetType = UNSET
    disco_key: DiscoPublic | UnsetType = UNSET
    home_derp: int = field(default=0, name="HomeDERP")
    cap: int = 0
    tags: list[str] | UnsetType = UNSET
    primary_routes: list[str] | UnsetType = UNSET
    last_seen: str | UnsetType = UNSET
    online: bool | UnsetType = UNSET
    machine_authorized: bool = False
    cap_map: dict[str, list[Any] | None] | UnsetType = UNSET
    expired: bool = False


class PeerChange(Sent, frozen=True):
    """A field-wise update of a peer that the client has; absent: unchanged, `endpoints=[]`: cleared."""

    node_id: int
    derp_region: int = 0
    cap: int = 0
    cap_map: dict[str, list[Any] | None] | UnsetType = UNSET
    endpoints: list[str] | UnsetType = UNSET
    key: NodePublic | UnsetType = UNSET
    disco_key: DiscoPublic | UnsetType = UNSET
    online: bool | UnsetType = UNSET
    last_seen: str | UnsetType = UNSET
    key_expiry: str | UnsetType = UNSET  # 0001-01-01T00:00:00Z: never


class UserProfile(Sent, frozen=True):
    id: int
    login_name: str
    display_name: str


NEVER = "0001-01-01T00:00:00Z"  # Go's zero time

# Node attributes of every self node (control.md §8.11).
CAP_FILE_SHARING = "https://tailscale.com/cap/file-sharing"
CAP_IS_ADMIN = "https://tailscale.com/cap/is-admin"
CAP_CACHE_NETWORK_MAPS = "cache-network-maps"
