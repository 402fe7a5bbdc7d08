"""RegisterRequest and RegisterResponse (control.md §6.1, §6.2)."""

from __future__ import annotations

import datetime

import msgspec

from control.keys import NLPublic, NodePublic
from control.tailcfg.codec import CapabilityVersion, Sent, Wire


class Auth(Wire, frozen=True):
    auth_key: str = ""


class RegisterRequest(Wire, frozen=True):
    version: CapabilityVersion = 0
    node_key: NodePublic | None = None
    nl_key: NLPublic | None = None
    auth: Auth | None = None
    expiry: datetime.datetime | None = None
    followup: str | None = None
    hostinfo: msgspec.Raw = msgspec.Raw(b"{}")
    ephemeral: bool = False


class User(Sent, frozen=True):
    id: int
    display_name: str
    created: str


class Login(Sent, frozen=True):
    id: int
    login_name: str  # never empty: a profile without it is not saved by the client
    display_name: str


class RegisterResponse(Sent, frozen=True):
    user: User | None = None
    login: Login | None = None
    node_key_expired: bool = False
    machine_authorized: bool = False
    auth_url: str = ""
    error: str = ""
