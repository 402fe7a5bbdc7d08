"""What may be lost: facts about a node that its client tells again (state.md A.9, A.10).

Held in memory, written behind in the background. A record that came from the disk is *unconfirmed*: the node's first
streaming request in this process overwrites it with whatever non-zero facts it carries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from control.keys import DiscoPublic
from control.tailcfg.hostinfo import EMPTY, Hostinfo, for_peers

# Groups of fields: what a peer is told of separately (state.md B). "body" is everything without a patch.
Group = Literal["body", "disco", "endpoints", "derp", "cap", "online"]

# The fields that peers are told of as they are; with `last_seen` and `hostinfo` it depends.
_GROUPS: dict[str, Group] = {
    "endpoints": "endpoints",
    "disco_key": "disco",
    "home_derp": "derp",
    "capver": "cap",
    "online": "online",
}


@dataclass(slots=True)
class Volatile:
    """One node's. `last_seen`: seconds since 1970, 0 for never. `home_derp` 0: not known yet."""

    endpoints: tuple[str, ...] = ()
    disco_key: DiscoPublic | None = None
    home_derp: int = 0
    capver: int = 0
    last_seen: float = 0.0
    online: bool = False
    hostinfo: Hostinfo = field(default=EMPTY)
    hostinfo_raw: bytes = b""
    confirmed: bool = False

    def update(self, fields: Mapping[str, Any]) -> tuple[bool, frozenset[Group]]:
        """Set these; answers whether anything that is stored changed, and the groups in which peers see a difference."""
        changed = {name: value for name, value in fields.items() if getattr(self, name) != value}
        groups = {_GROUPS[name] for name in changed if name in _GROUPS}
        if "hostinfo" in changed and for_peers(self.hostinfo) != for_peers(changed["hostinfo"]):
            groups.add("body")
        for name, value in changed.items():
            setattr(self, name, value)
        if "last_seen" in changed and not self.online:  # of a node that is online, peers are not told it
            groups.add("online")
        return bool(changed.keys() - {"confirmed"}), frozenset(groups)
