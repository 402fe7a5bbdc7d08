"""The durable facts: frozen records, exactly what the database holds.

Times are seconds since 1970 (float). Ids come from server-wide sequences and are never reused. Tailnet 1 is the only one
for now; every table carries its id (state.md).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from control.keys import MachinePublic, NLPublic, NodePublic

TAILNET = 1

# Tagged nodes belong to nobody; clients are told of this pseudo user.
TAGGED_USER_ID = 2147455555
TAGGED_USER_NAME = "tagged-devices"

Role = Literal["owner", "admin", "member"]


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Base of the durable records."""


class User(Record, frozen=True):
    id: int
    name: str  # unique, what the administrator types
    created_at: float
    display_name: str = ""
    email: str = ""
    role: Role = "member"

    @property
    def login_name(self) -> str:
        """The mail address, or `name@`: never empty, for which clients would forget their login."""
        return self.email or f"{self.name}@"

    @property
    def shown_name(self) -> str:
        return self.display_name or self.name


class Node(Record, frozen=True):
    id: int
    machine_key: MachinePublic
    node_key: NodePublic  # unique over all nodes
    name: str  # DNS label, unique in the tailnet
    ipv4: str
    ipv6: str
    created_at: float
    user_id: int | None = None  # None: tagged
    nl_key: NLPublic | None = None
    name_frozen: bool = False  # an administrator named it: host name changes do not count
    hostname: str = ""  # as last reported, for showing
    tags: tuple[str, ...] = ()
    expires_at: float | None = None
    ephemeral: bool = False
    announced: bool = False  # may be shown to others: its home relay was known once (state.md B)
    advertised: tuple[str, ...] = ()  # masked prefixes that the client offers to route
    approved: tuple[str, ...] = ()  # prefixes that an administrator allowed
    auth_key_id: str = ""  # the key that brought it in, if any
    # What its last login asked for; a restart asks again, whatever was set since.
    requested_tags: tuple[str, ...] = ()

    @property
    def stable_id(self) -> str:
        return f"n{self.id}CNTRL"

    @property
    def addresses(self) -> tuple[str, str]:
        return self.ipv4, self.ipv6

    def expired(self, now: float) -> bool:
        return self.expires_at is not None and self.expires_at <= now

    @property
    def routes(self) -> tuple[str, ...]:
        """Prefixes both offered and allowed."""
        return tuple(prefix for prefix in self.advertised if prefix in self.approved)


class AuthKey(Record, frozen=True):
    id: str  # the public part of tskey-auth-<id>-<secret>
    mac: bytes
    created_at: float
    expires_at: float
    user_id: int | None = None  # None: a tagged key
    reusable: bool = False
    ephemeral: bool = False
    tags: tuple[str, ...] = ()
    used_at: float | None = None  # the last time; a one-off key is spent by it
    revoked_at: float | None = None

    @property
    def spent(self) -> bool:
        return self.used_at is not None and not self.reusable


class Tombstone(Record, frozen=True):
    """A deleted node: its key is refused to any other machine, and its client is told to log in again."""

    node_key: NodePublic
    machine_key: MachinePublic
    node_id: int
    deleted_at: float
