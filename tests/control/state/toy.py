"""Small rules: enough commands to make and undo every kind of change, and to be refused."""

from __future__ import annotations

from msgspec.structs import replace

from control.errors import NotFound, Refused
from control.keys import MachinePublic, NodePublic
from control.model import AuthKey, Node, User
from control.state.changes import (
    AuthKeyGone,
    AuthKeyPut,
    NodeGone,
    NodePut,
    SettingPut,
    TombstoneGone,
    UserGone,
    UserPut,
)
from control.state.commands import (
    Actor,
    AnyCommand,
    CreateAuthKey,
    CreateUser,
    Decision,
    DeleteNode,
    DeleteUser,
    ExpireNode,
    LoggedOut,
    Register,
    Registered,
    RemoveStale,
    RenameUser,
    RevokeAuthKey,
    SetSetting,
)
from control.state.facts import NODES, USERS, Facts

ADMIN = Actor(kind="local", id="uid:0")
MACHINE = Actor(kind="machine", id="mkey:00000000")


def node_key(number: int) -> NodePublic:
    return NodePublic(number.to_bytes(32, "big"))


def machine_key(number: int) -> MachinePublic:
    return MachinePublic(number.to_bytes(32, "little"))


def register(number: int, machine: int | None = None) -> Register:
    return Register(
        machine_key=machine_key(number if machine is None else machine),
        node_key=node_key(number),
        hostname=f"host-{number}",
    )


def decide(facts: Facts, command: AnyCommand, by: Actor, now: float, pepper: bytes) -> Decision:
    match command:
        case CreateUser(name=name):
            if name in facts.users_by_name:
                raise Refused(f"there is a user {name}")
            user = User(id=facts.last_id[USERS] + 1, name=name, created_at=now)
            return Decision((UserPut(user=user),), user)
        case RenameUser(user=old, name=name):
            user = _user(facts, old)
            if user.name == name:
                return Decision((), user)
            if name in facts.users_by_name:
                raise Refused(f"there is a user {name}")
            user = replace(user, name=name)
            return Decision((UserPut(user=user),), user)
        case DeleteUser(user=name):
            user = _user(facts, name)
            nodes = facts.nodes_of_user(user.id)
            return Decision((*(_gone(node, now) for node in nodes), UserGone(id=user.id)), user)
        case Register(expiry=0):
            known = facts.node_by_key(command.node_key)
            if known is None:
                raise NotFound("no such node")
            return Decision((NodePut(node=replace(known, expires_at=now)),), LoggedOut())
        case Register():
            known = facts.node_by_key(command.node_key)
            if known is not None:
                if known.machine_key != command.machine_key:
                    raise Refused("another's node key")
                return Decision((), Registered(known, facts.user_of(known)))
            ident = facts.last_id[NODES] + 1
            owner = next(iter(facts.users.values()), None)
            node = Node(
                id=ident,
                machine_key=command.machine_key,
                node_key=command.node_key,
                name=f"n{ident}",
                ipv4=f"100.64.0.{ident}",
                ipv6=f"fd7a:115c:a1e0::{ident}",
                created_at=now,
                hostname=command.hostname,
                user_id=owner.id if owner else None,
                tags=() if owner else ("tag:a", "tag:b"),
            )
            return Decision((NodePut(node=node),), Registered(node, owner))
        case ExpireNode(node=text):
            node = replace(_node(facts, text), expires_at=now)
            return Decision((NodePut(node=node),), node)
        case DeleteNode(node=text):
            node = _node(facts, text)
            return Decision((_gone(node, now),), node)
        case CreateAuthKey(id=ident, mac=mac, expiry_s=expiry_s):
            key = AuthKey(id=ident, mac=mac, created_at=now, expires_at=now + expiry_s)
            return Decision((AuthKeyPut(auth_key=key),), key)
        case RevokeAuthKey(id=ident):
            if ident not in facts.auth_keys:
                raise NotFound(f"no key {ident}")
            key = replace(facts.auth_keys[ident], revoked_at=now)
            return Decision((AuthKeyPut(auth_key=key),), key)
        case RemoveStale():
            keys = [AuthKeyGone(id=key.id) for key in facts.auth_keys.values() if key.revoked_at is not None]
            return Decision((*keys, *(TombstoneGone(node_key=key) for key in facts.tombstones)))
        case SetSetting(name=name, value=value):
            same = facts.settings.get(name) == value
            return Decision(() if same else (SettingPut(name=name, value=value),))
    raise Refused("not in the toy")


def _user(facts: Facts, name: str) -> User:
    if name not in facts.users_by_name:
        raise NotFound(f"no user {name}")
    return facts.users[facts.users_by_name[name]]


def _node(facts: Facts, text: str) -> Node:
    if int(text) not in facts.nodes:
        raise NotFound(f"no node {text}")
    return facts.nodes[int(text)]


def _gone(node: Node, now: float) -> NodeGone:
    return NodeGone(id=node.id, node_key=node.node_key, machine_key=node.machine_key, at=now)
