"""A node as others see it: one record, shared by all sessions, and its JSON.

Each record knows at which revision of the world which part of it changed last. What a client has of a peer is then one
number, the revision of its last message, and the smallest thing that brings it up to date follows by comparison:

    body                                                 the whole node again (PeersChanged)
    key, disco, endpoints, derp, cap, capmap, online     a PeerChange of just these (PeersChangedPatch)
    readd                                                what no message can express: removed, then added

A patch cannot take back HomeDERP, DiscoKey or Cap (control.md §7.8), hence `readd`.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Raw
from msgspec.structs import replace

from control.keys import NodePublic
from control.mapper.routes import Routes
from control.model import TAGGED_USER_ID, TAGGED_USER_NAME, Node, User
from control.state.volatile import Group, Volatile
from control.tailcfg.codec import encode, rfc3339
from control.tailcfg.hostinfo import for_peers
from control.tailcfg.node import (
    CAP_CACHE_NETWORK_MAPS,
    CAP_FILE_SHARING,
    CAP_IS_ADMIN,
    NEVER,
    PeerChange,
    UserProfile,
)
from control.tailcfg.node import Node as WireNode

Part = Literal["body", "key", "disco", "endpoints", "derp", "cap", "capmap", "online", "readd"]
Patch = Literal["key", "disco", "endpoints", "derp", "cap", "capmap", "online"]
PATCHES: tuple[Patch, ...] = ("key", "disco", "endpoints", "derp", "cap", "capmap", "online")
CapMap = dict[str, list[Any] | None]  # attribute → values; None: present, without values

_LAST_SECOND = 253402300799  # of the year 9999, beyond which RFC 3339 has no text


class Peer:
    """What is published of one node. Its fields are set by `World`, which stamps `revs` as it does."""

    __slots__ = (
        "attributes",
        "bit",
        "cap",
        "disco_key",
        "endpoints",
        "expired",
        "fqdn",
        "fragments",
        "gone",
        "home_derp",
        "hostinfo",
        "last_seen",
        "node",
        "online",
        "revs",
        "self_attributes",
        "self_rev",
        "slot",
        "viewers",
        "watched",
    )

    def __init__(self, node: Node, volatile: Volatile, slot: int, rev: int, domain: str) -> None:
        self.node = node
        self.slot = slot
        self.bit = 1 << slot
        self.fqdn = f"{node.name}.{domain}."
        self.revs: dict[Part, int] = dict.fromkeys(("body", *PATCHES), rev)
        self.revs["readd"] = 0
        self.self_rev = rev  # of the node's own `Node`
        self.fragments: dict[Routes, bytes] = {}
        self.viewers: object = None  # the class of this node as a viewer
        self.expired = False
        self.watched: float | None = None  # the expiry that the world waits for
        self.gone = False
        self.endpoints = volatile.endpoints
        self.disco_key = volatile.disco_key
        self.home_derp = volatile.home_derp
        self.cap = volatile.capver
        self.online = volatile.online
        self.last_seen = volatile.last_seen
        self.hostinfo = encode(for_peers(volatile.hostinfo))
        self.attributes: CapMap = {}  # that its peers need
        self.self_attributes: CapMap = {}

    @property
    def id(self) -> int:
        return self.node.id

    @property
    def wire_user(self) -> int:
        return TAGGED_USER_ID if self.node.user_id is None else self.node.user_id

    def read(self, group: Group, volatile: Volatile) -> Part | None:
        """Publish this group of the volatile record; which part of the peer is another one now. Endpoints are not
        read here: the world has a brake on them.
        """
        match group:
            case "body":
                before, self.hostinfo = self.hostinfo, encode(for_peers(volatile.hostinfo))
                return "body" if before != self.hostinfo else None
            case "online":
                seen = self._seen
                self.online, self.last_seen = volatile.online, volatile.last_seen
                return "online" if seen != self._seen else None
            case "disco":
                disco_key, self.disco_key = self.disco_key, volatile.disco_key
                return _patch_or_readd("disco", disco_key, self.disco_key)
            case "derp":
                home_derp, self.home_derp = self.home_derp, volatile.home_derp
                return _patch_or_readd("derp", home_derp, self.home_derp)
            case "cap":
                cap, self.cap = self.cap, volatile.capver
                return _patch_or_readd("cap", cap, self.cap)
            case _:
                return None

    @property
    def _seen(self) -> tuple[bool, float]:
        """Last seen is told of those who are offline; how it moves meanwhile concerns nobody."""
        return self.online, 0.0 if self.online else self.last_seen

    def patches_since(self, rev: int) -> tuple[Patch, ...]:
        return tuple(part for part in PATCHES if self.revs[part] > rev)

    def fragment(self, routes: Routes) -> bytes:
        """This peer's JSON for viewers who get these routes of it; encoded once."""
        text = self.fragments.get(routes)
        if text is None:
            text = self.fragments[routes] = encode(_wire_node(self, routes))
        return text


def encode_self(peer: Peer, routes: Routes, expired_at: float | None = None) -> bytes:
    """The node's own `Node`. `expired_at`: its record is gone, and its client shall log in again."""
    attributes: CapMap = {CAP_FILE_SHARING: None, CAP_CACHE_NETWORK_MAPS: None, **peer.self_attributes}
    node = _wire_node(peer, routes, machine_authorized=True, online=True, last_seen=UNSET, cap_map=attributes)
    return encode(node if expired_at is None else _expired(node, expired_at))


def encode_deleted_self(ident: int, node_key: NodePublic, user: int, at: float) -> bytes:
    """The self `Node` for a client whose node was deleted: nothing but who it is, and that it is over."""
    node = WireNode(
        id=ident,
        stable_id=f"n{ident}CNTRL",
        name="deleted.",
        user=user,
        key=node_key,
        addresses=[],
        allowed_ips=[],
        endpoints=[],
        hostinfo=Raw(b"{}"),
        created=timestamp(at),
        online=True,
        machine_authorized=True,
    )
    return encode(_expired(node, at))


def encode_patch(peer: Peer, parts: tuple[Patch, ...]) -> bytes:
    """A PeerChange of exactly these parts. Never a zero where zero means "no change"."""
    fields: dict[str, Any] = {}
    if "key" in parts:
        expires_at = peer.node.expires_at
        fields.update(
            key=peer.node.node_key, key_expiry=NEVER if expires_at is None else timestamp(expires_at)
        )
    if "disco" in parts and peer.disco_key is not None:
        fields.update(disco_key=peer.disco_key)
    if "endpoints" in parts:
        fields.update(endpoints=list(peer.endpoints))
    if "derp" in parts:
        fields.update(derp_region=peer.home_derp)
    if "cap" in parts:
        fields.update(cap=peer.cap)
    if "capmap" in parts:
        fields.update(cap_map=peer.attributes)
    # A client refuses a new disco key from a peer that was last seen before it learnt another by itself (§7.9).
    if "online" in parts or "disco" in parts:
        fields.update(online=peer.online, last_seen=_last_seen(peer))
    return encode(PeerChange(node_id=peer.id, **fields))


def encode_profile(user: User) -> bytes:
    return encode(UserProfile(id=user.id, login_name=user.login_name, display_name=user.shown_name))


TAGGED_PROFILE = encode(
    UserProfile(id=TAGGED_USER_ID, login_name=TAGGED_USER_NAME, display_name="Tagged Devices")
)


def self_attributes(user: User | None, more: CapMap) -> CapMap:
    """What this node may do, besides what every node may."""
    admin: CapMap = {CAP_IS_ADMIN: None} if user is not None and user.role in ("owner", "admin") else {}
    return {**admin, **more}


def timestamp(seconds: float) -> str:
    """RFC 3339, whatever the number: one odd record must not break everybody's netmap (control.md §12 no. 47)."""
    return rfc3339(min(max(seconds, 0.0), _LAST_SECOND))


def _patch_or_readd(part: Patch, before: object, now: object) -> Part | None:
    """Zero means "no change" in a patch."""
    if before == now:
        return None
    return part if now else "readd"


def _last_seen(peer: Peer) -> Any:
    """Only beside Online false, as hosted does."""
    return UNSET if peer.online or not peer.last_seen else timestamp(peer.last_seen // 1)


def _wire_node(peer: Peer, routes: Routes, **more: Any) -> WireNode:
    node = peer.node
    addresses = [f"{node.ipv4}/32", f"{node.ipv6}/128"]
    fields: dict[str, Any] = {
        "id": node.id,
        "stable_id": node.stable_id,
        "name": peer.fqdn,
        "user": peer.wire_user,
        "key": node.node_key,
        "key_expiry": UNSET if node.expires_at is None else timestamp(node.expires_at),
        "disco_key": UNSET if peer.disco_key is None else peer.disco_key,
        "addresses": addresses,
        "allowed_ips": [*addresses, *routes.allowed],
        "endpoints": list(peer.endpoints),
        "home_derp": peer.home_derp,
        "hostinfo": Raw(peer.hostinfo),
        "created": timestamp(node.created_at // 1),
        "cap": peer.cap,
        "tags": list(node.tags) or UNSET,
        "primary_routes": list(routes.primary) or UNSET,
        "last_seen": _last_seen(peer),
        "online": peer.online,
        "cap_map": peer.attributes or UNSET,
        "expired": peer.expired,
    }
    return WireNode(**{**fields, **more})


def _expired(node: WireNode, at: float) -> WireNode:
    # A minute back: a client whose clock is a little behind shall see it as past as well.
    return replace(node, key_expiry=timestamp(at - 60), expired=True)
