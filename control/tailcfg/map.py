"""MapRequest and MapResponse (control.md §7.1, §7.6).

A MapResponse is assembled in `control.mapper` from parts that are encoded once and shared by many sessions; here are the
names of its members, in the order in which a client processes them.
"""

from __future__ import annotations

import msgspec

from control.keys import DiscoPublic, NodePublic
from control.tailcfg.codec import CapabilityVersion, Wire


class MapRequest(Wire, frozen=True):
    version: CapabilityVersion = 0
    compress: str = ""  # "zstd", else plain JSON in the same framing
    node_key: NodePublic | None = None
    disco_key: DiscoPublic | None = None
    stream: bool = False
    omit_peers: bool = False
    read_only: bool = False
    hostinfo: msgspec.Raw = msgspec.Raw(b"")
    host_info: msgspec.Raw = msgspec.Raw(b"")  # as Tailscale's Rust library spells it; Go does not mind
    endpoints: list[str] | None = None

    @property
    def reported(self) -> bytes:
        """The Hostinfo's JSON; empty when the request has none, which says nothing rather than that all is empty."""
        raw = bytes(self.hostinfo) or bytes(self.host_info)
        return b"" if raw == b"null" else raw


# Members of a MapResponse that we send.
CONTROL_TIME = "ControlTime"
DEBUG = "Debug"
NODE = "Node"
PEERS = "Peers"
PEERS_REMOVED = "PeersRemoved"
PEERS_CHANGED = "PeersChanged"
PEERS_CHANGED_PATCH = "PeersChangedPatch"
USER_PROFILES = "UserProfiles"
DERP_MAP = "DERPMap"
PACKET_FILTERS = "PacketFilters"
DNS_CONFIG = "DNSConfig"
SSH_POLICY = "SSHPolicy"
COLLECT_SERVICES = "CollectServices"
DOMAIN = "Domain"
