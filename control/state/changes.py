"""What happened: plain values that `Facts.apply` understands, and that the log keeps. A batch of them replays the world."""

from __future__ import annotations

import msgspec

from control.keys import MachinePublic, NodePublic
from control.model import AuthKey, Node, User


class Change(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="kind"):
    """Base of the tagged union `AnyChange`."""


class UserPut(Change, frozen=True, tag="user"):
    user: User


class UserGone(Change, frozen=True, tag="user-gone"):
    id: int


class NodePut(Change, frozen=True, tag="node"):
    node: Node


class NodeGone(Change, frozen=True, tag="node-gone"):
    """Leaves a tombstone: (node key, machine key, id, time)."""

    id: int
    node_key: NodePublic
    machine_key: MachinePublic
    at: float


class AuthKeyPut(Change, frozen=True, tag="auth-key"):
    auth_key: AuthKey


class AuthKeyGone(Change, frozen=True, tag="auth-key-gone"):
    id: str


class TombstoneGone(Change, frozen=True, tag="tombstone-gone"):
    node_key: NodePublic


class SettingPut(Change, frozen=True, tag="setting"):
    name: str
    value: str


AnyChange = UserPut | UserGone | NodePut | NodeGone | AuthKeyPut | AuthKeyGone | TombstoneGone | SettingPut
