"""What can be asked for. Each command is decided in `rules.py`, inside the one commit, against the facts of that moment.

`Actor` says who asks and how that was proven; it is made by the listener that saw the proof (security.md §2).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from control.keys import MachinePublic, NLPublic, NodePublic
from control.model import TAILNET, AuthKey, Node, User
from control.secret import Secret


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """kind: `local` = the administrator on the socket, id `uid:0`; `machine` = a device, id its short machine key;
    `system` = our own duties."""

    kind: Literal["local", "machine", "system"]
    id: str
    tailnet: int = TAILNET


SYSTEM = Actor(kind="system", id="homeport")


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the commands."""


# users


class CreateUser(Command, frozen=True):
    name: str
    display_name: str = ""
    email: str = ""


class RenameUser(Command, frozen=True):
    user: str  # id, name or mail address
    name: str


class DeleteUser(Command, frozen=True):
    user: str
    with_nodes: bool = False


# auth keys


class CreateAuthKey(Command, frozen=True):
    """`id` and `mac` are of a secret that the caller minted."""

    id: str
    mac: bytes
    expiry_s: float
    user: str | None = None
    reusable: bool = False
    ephemeral: bool = False
    tags: tuple[str, ...] = ()


class RevokeAuthKey(Command, frozen=True):
    id: str


# logins


class Register(Command, frozen=True):
    """A registration by a machine (control.md §6.5). Result: one of the answers below.

    `auth_key`: id and secret as presented, None without one. `approved_by`: the user to whom an administrator gave this
    login. `expiry`: the wanted end in seconds since 1970, None for the server's choice.
    """

    machine_key: MachinePublic
    node_key: NodePublic
    hostname: str
    request_tags: tuple[str, ...] = ()
    advertised: tuple[str, ...] | None = None  # None: not said
    nl_key: NLPublic | None = None
    ephemeral: bool = False
    expiry: float | None = None
    auth_key: tuple[str, Secret] | None = None
    bad_auth_key: bool = False  # one was presented that is not even well-formed
    approved_by: str | None = None


class Registered(msgspec.Struct, frozen=True):
    """Logged in: `node` and its owner (None: tagged)."""

    node: Node
    user: User | None


class NeedsLogin(msgspec.Struct, frozen=True):
    """Nobody vouches for this machine yet: ask a person."""


class NeedsNewKey(msgspec.Struct, frozen=True):
    """The node's login has ended (NodeKeyExpired): the client makes a new key and asks again."""


class LoggedOut(msgspec.Struct, frozen=True):
    """The client asked to end its login; it holds no more."""


# nodes


class ReportHostinfo(Command, frozen=True):
    """What a node says of itself that others are told of; None: not said. Tags are only asked for by registering."""

    node_id: int
    hostname: str | None = None
    advertised: tuple[str, ...] | None = None


class AnnounceNode(Command, frozen=True):
    """From now on the node may be shown to others; never taken back."""

    node_id: int


class RenameNode(Command, frozen=True):
    node: str  # id, name or address
    name: str  # "": the host name counts again
    hostname: str = ""


class TagNode(Command, frozen=True):
    node: str
    tags: tuple[str, ...]


class ExpireNode(Command, frozen=True):
    node: str


class ExtendNode(Command, frozen=True):
    node: str
    expiry_s: float | None  # None: never


class DeleteNode(Command, frozen=True):
    node: str


class ApproveRoutes(Command, frozen=True):
    node: str
    routes: tuple[str, ...]


class RevokeRoutes(Command, frozen=True):
    node: str
    routes: tuple[str, ...]


class RemoveStale(Command, frozen=True):
    """The clean-up duty: ephemeral nodes named by the caller, old keys and tombstones by their age."""

    node_ids: tuple[int, ...] = ()


class SetSetting(Command, frozen=True):
    name: str
    value: str


AnyCommand = (
    CreateUser | RenameUser | DeleteUser | CreateAuthKey | RevokeAuthKey | Register | ReportHostinfo | AnnounceNode
    | RenameNode | TagNode | ExpireNode | ExtendNode | DeleteNode | ApproveRoutes | RevokeRoutes | RemoveStale | SetSetting
)  # fmt: skip

Result = User | AuthKey | Node | Registered | NeedsLogin | NeedsNewKey | LoggedOut | None


class Decision(msgspec.Struct, frozen=True):
    """What a command comes to: the changes to make (none: nothing to do) and the answer."""

    changes: tuple  # type: ignore[type-arg]  # of AnyChange; msgspec cannot express the recursive union here
    result: object = None
