"""Who may stay connected before proving anything.

A connection belongs to one or two *groups*: its IPv4 /24, or its IPv6 /64 and the /48 around it, since whoever owns a /48
owns 65,536 of the smaller ones. A group has a weight, and its size counts divided by that weight.

- Over half full, a group that holds its share makes room for its newcomer by losing its own oldest member.
- Full, the biggest group loses its oldest member, whoever the newcomer is.

So a flood from one place costs that place its own connections, and silence is only ever ended where it is in the way.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Hashable
from typing import Generic, TypeVar

from appliance.config.kinds import ip_or_none
from appliance.door.limits import PRE_AUTH, PRE_AUTH_PER_SOURCE, SITE_WEIGHT

Member = TypeVar("Member", bound=Hashable)
Group = tuple[str, int]
"""A name and a weight."""


def source_of(address: str) -> str:
    """The network that limits count by: IPv4 /24, IPv6 /64; anything else is its own source."""
    return groups_of(address)[0][0]


def groups_of(address: str, weight: int = 1) -> tuple[Group, ...]:
    """The groups of an IP address, the narrowest first."""
    ip = ip_or_none(address)
    if ip is None:
        return ((address, weight),)
    if ip.version == 4:
        return ((_network(address, 24), weight),)
    return ((_network(address, 64), weight), (_network(address, 48), weight * SITE_WEIGHT))


def _network(address: str, prefix: int) -> str:
    return str(ipaddress.ip_network((address, prefix), strict=False))


class PreAuthTable(Generic[Member]):
    """Connections that have proven nothing yet."""

    def __init__(self, total: int = PRE_AUTH, per_source: int = PRE_AUTH_PER_SOURCE) -> None:
        self._total = total
        self._per_source = per_source
        self._members: dict[Member, tuple[Group, ...]] = {}
        self._groups: dict[Group, dict[Member, None]] = {}  # oldest first

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, member: Member) -> bool:
        return member in self._members

    def enter(self, member: Member, groups: tuple[Group, ...]) -> Member | None:
        """Let `member` in; returns the one that has to go for it, already taken out."""
        victim = self._victim(groups)
        if victim is not None:
            self.leave(victim)
        self._members[member] = groups
        for group in groups:
            self._groups.setdefault(group, {})[member] = None
        return victim

    def leave(self, member: Member) -> None:
        """Proven, or gone. Leaving twice is fine."""
        for group in self._members.pop(member, ()):
            members = self._groups[group]
            del members[member]
            if not members:
                del self._groups[group]

    def oldest_of_the_biggest(self) -> Member | None:
        """Who goes first when room is needed."""
        if not self._groups:
            return None
        biggest = max(self._groups, key=lambda group: len(self._groups[group]) / group[1])
        return next(iter(self._groups[biggest]))

    def _victim(self, groups: tuple[Group, ...]) -> Member | None:
        if len(self._members) >= self._total // 2:
            for group in groups:
                members = self._groups.get(group, {})
                if len(members) >= self._per_source * group[1]:
                    return next(iter(members))
        return self.oldest_of_the_biggest() if len(self._members) >= self._total else None
