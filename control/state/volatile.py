"""What may be lost: facts about a node that its client tells again (state.md A.9, A.10).

Held in memory, written behind in the background. A record that came from the disk is *unconfirmed*: the node's first
streaming request in this process overwrites it with whatever non-zero facts it carries.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from control.keys import DiscoPublic
from control.tailcfg.hostinfo import EMPTY, Hostinfo

# Groups of fields: what a peer is told of separately (state.md B). "body" is everything without a patch.
Group = Literal["body", "disco", "endpoints", "derp", "cap", "online"]


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
