"""A model of the official client's map session: control.md §7.6 (order), §7.8 (what it loses), §7.9 (patches).

It checks every message on the way in, and keeps two copies of its peers as clients do: the map session's own, and the
netmap that status and routing use. Cheap changes go to both; anything else rebuilds the netmap from the session.
"""

from __future__ import annotations

import copy
import json
import sys
from typing import Any

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Json = dict[str, Any]
decompress = zstd.decompress  # joins frames, as clients do

FIRST = {
    "ControlTime", "Node", "UserProfiles", "DERPMap", "DNSConfig", "PacketFilters", "SSHPolicy", "CollectServices",
    "Domain",
}  # fmt: skip
# In the first message only: in a delta they cost a rebuild, or mean something else.
ONLY_FIRST = {"Peers", "Debug", "CollectServices"}
PATCHABLE = {"Key", "KeyExpiry", "DiscoKey", "Endpoints", "HomeDERP", "Cap", "CapMap", "Online", "LastSeen"}
CHEAP = {"NodeID", "DERPRegion", "Endpoints", "Online", "LastSeen"}
NEVER = "0001-01-01T00:00:00Z"
# Of its own node a client is told at the start, and again when something else of it changes: it knows them itself.
SELF_REPORTED = ("Endpoints", "HomeDERP", "DiscoKey", "Cap", "Hostinfo")


class Wrong(AssertionError):
    """A message that an official client would choke on, or mistake."""


def documents(stream: bytes, compressed: bool) -> list[Json]:
    """All messages in what was written to a stream."""
    found = []
    while stream:
        size, stream = int.from_bytes(stream[:4], "little"), stream[4:]
        payload, stream = stream[:size], stream[size:]
        check(0 < size == len(payload), "length")
        found.append(json.loads(decompress(payload) if compressed else payload))
    return found


def check(condition: object, what: object) -> None:
    if not condition:
        raise Wrong(what)


class Client:
    """`modern`: 1.100 and newer, which take whole peers, filters and profiles without a rebuild."""

    def __init__(self, *, modern: bool, compressed: bool) -> None:
        self.modern, self.compressed = modern, compressed
        self.node: Json = {}
        self.peers: dict[int, Json] = {}
        self.netmap: dict[int, Json] = {}
        self.users: dict[int, Json] = {}
        self.sections: Json = {}
        self.filters: Json = {}
        self.messages = self.keep_alives = self.rebuilds = 0

    def receive(self, data: bytes) -> None:
        for document in documents(data, self.compressed):
            self.take(document)

    def take(self, message: Json) -> None:
        if message.get("KeepAlive"):
            check(message.keys() == {"KeepAlive", "ControlTime"}, "a bare keep-alive arms the aliasing bug")
            self.keep_alives += 1
            return
        self.messages += 1
        if self.messages == 1:
            check(message.keys() >= FIRST, f"first message lacks {FIRST - message.keys()}")
            check(message.get("Peers") != [], "an empty Peers says nothing")
        else:
            check(not message.keys() & ONLY_FIRST, f"in a delta: {message.keys() & ONLY_FIRST}")
            check(message, "an empty message")
        if "Node" in message:
            self.node = message["Node"]
            check_node(self.node, own=True)
        if message.get("Peers"):
            self.peers = {peer["ID"]: peer for peer in message["Peers"]}
            check(list(self.peers) == sorted(self.peers), "order of peers")
            for peer in self.peers.values():
                check_node(peer)
        else:
            self._take_changes(message)
        self.users.update({profile["ID"]: profile for profile in message.get("UserProfiles", ())})
        self.filters.update(message.get("PacketFilters", {}))
        self.sections.update(
            {
                name: message[name]
                for name in ("DERPMap", "DNSConfig", "SSHPolicy", "Domain")
                if name in message
            }
        )
        if self.messages == 1 or not self._incremental(message):
            self.rebuilds += 1
            self.netmap = copy.deepcopy(self.peers)

    def _incremental(self, message: Json) -> bool:
        cheap = {"PeersChangedPatch", "ControlTime"}
        if self.modern:
            cheap |= {"PeersChanged", "PeersRemoved", "UserProfiles", "PacketFilters"}
        return message.keys() <= cheap and all(
            patch.keys() <= CHEAP for patch in message.get("PeersChangedPatch", ())
        )

    def _take_changes(self, message: Json) -> None:
        removed, changed = message.get("PeersRemoved", []), message.get("PeersChanged", [])
        check(
            not set(removed) & {peer["ID"] for peer in changed},
            "one id removed and changed: it ends up removed",
        )
        patches = list(message.get("PeersChangedPatch", ()))
        whole = []
        for peer in changed:
            check_node(peer)
            patch = patchify(self.peers.get(peer["ID"]), peer)
            if patch is None:
                whole.append(peer)
            elif len(patch) > 1:
                patches.append(patch)
        for ident in removed:
            check(self.peers.pop(ident, None) is not None, f"removed {ident}, which was never there")
            self.netmap.pop(ident, None)
        for peer in whole:
            self.peers[peer["ID"]] = dict(peer)
            self.netmap[peer["ID"]] = dict(peer)
        for patch in patches:
            # Newer clients drop all cheap changes of such a message.
            check(
                patch["NodeID"] in self.peers, f"patch for {patch['NodeID']}, which the client does not have"
            )
            apply_patch(self.peers[patch["NodeID"]], patch)
            if patch["NodeID"] in self.netmap:
                apply_patch(self.netmap[patch["NodeID"]], patch)
        for patch in message.get("PeersChangedPatch", ()):
            check_patch(patch)

    def state(self) -> Json:
        """What a person can tell apart."""
        check(self.netmap == self.peers, "the netmap differs from the session")
        own = {name: value for name, value in self.node.items() if name not in SELF_REPORTED}
        users = {self.node["User"], *(peer["User"] for peer in self.peers.values())}
        return {
            "node": own,
            "peers": {ident: _normal(peer) for ident, peer in sorted(self.peers.items())},
            "users": {user: self.users.get(user) for user in sorted(users)},
            "filters": {name: rules for name, rules in sorted(self.filters.items()) if rules is not None},
            **self.sections,
        }


def check_node(node: Json, own: bool = False) -> None:
    check(node["ID"] > 0 and node["StableID"] and node["Name"].endswith("."), "identity")
    check(
        isinstance(node["Hostinfo"], dict) and isinstance(node["Endpoints"], list),
        "Hostinfo, Endpoints always",
    )
    check(isinstance(node["Addresses"], list) and isinstance(node["AllowedIPs"], list), "addresses")
    check(isinstance(node.get("Online"), bool), "Online always")
    check(own == node.get("MachineAuthorized", False), "MachineAuthorized on self alone")
    check(not (node["Online"] and "LastSeen" in node), "LastSeen only with Online false")
    check(not set(node.get("PrimaryRoutes", ())) & {"0.0.0.0/0", "::/0"}, "exit routes are never primary")


def check_patch(patch: Json) -> None:
    check(len(patch) > 1, "an empty patch")
    check(all(value is not None for value in patch.values()), "null in a patch says nothing")
    check(
        all(patch.get(name, 1) for name in ("DERPRegion", "Cap", "Key", "DiscoKey")),
        "zero in a patch says nothing",
    )


def patchify(was: Json | None, now: Json) -> Json | None:
    """The PeerChange that the client makes of a changed node; None: the node is replaced (§7.8)."""
    if was is None:
        return None
    differing = {name for name in was.keys() | now.keys() if was.get(name) != now.get(name)}
    if differing - PATCHABLE:
        return None
    patch: Json = {"NodeID": now["ID"]}
    for name in differing:
        if name == "KeyExpiry":
            patch[name] = now.get(name, NEVER)
        elif name == "CapMap":
            patch[name] = now.get(name, {})
        elif name == "DiscoKey":
            patch[name] = now.get(name)
        elif name == "HomeDERP":
            patch["DERPRegion"] = now.get(name, 0)
        elif name in ("Online", "LastSeen"):
            if name in was and name in now:
                patch[name] = now[name]
        elif name in now:
            patch[name] = now[name]
    return patch


def apply_patch(peer: Json, patch: Json) -> None:
    for name, value in patch.items():
        if name == "DERPRegion":
            if value:
                peer["HomeDERP"] = value
        elif (
            (name == "KeyExpiry" and value == NEVER)
            or (name == "CapMap" and not value)
            or (name == "DiscoKey" and value is None)
        ):
            peer.pop(name, None)
        elif name != "NodeID":
            peer[name] = value


def _normal(peer: Json) -> Json:
    return {name: value for name, value in peer.items() if not (name == "LastSeen" and peer["Online"])}
