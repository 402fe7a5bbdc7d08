"""RegisterRequest and RegisterResponse (control.md §6.1, §6.2)."""

from __future__ import annotations

import datetime

import msgspec

from control.keys import NLPublic, NodePublic
from control.tailcfg.codec import CapabilityVersion, Sent, Wire
from control.tailcfg.node import NEVER


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


class User(Sent, frozen=True, omit_defaults=False):
    """Zero values are sent as well, here and below: strict clients of other makes miss a field that Go always sends."""

    id: int = 0
    display_name: str = ""
    profile_pic_url: str = msgspec.field(default="", name="ProfilePicURL")
    created: str = NEVER


class Login(Sent, frozen=True, omit_defaults=False):
    id: int = 0
    provider: str = ""
    login_name: str = ""  # of a success never empty: a profile without it is not saved by the client
    display_name: str = ""
    profile_pic_url: str = msgspec.field(default="", name="ProfilePicURL")


class RegisterResponse(Sent, frozen=True, omit_defaults=False):
    user: User = User()
    login: Login = Login()
    node_key_expired: bool = False
    machine_authorized: bool = False
    auth_url: str = ""
    node_key_signature: None = None  # for Tailnet Lock
    error: str = ""
