"""Records with sensible fields, so that a test names only what it is about.

The n-th machine, node key, address and name belong together: `a_node(3)` differs from `a_node(4)` in all of them.
"""

from __future__ import annotations

from typing import Any

from control import secret
from control.keys import MachinePublic, NodePublic
from control.model import AuthKey, Node, Tombstone, User
from control.secret import Secret
from control.state.changes import AnyChange, AuthKeyPut, NodeGone, NodePut, UserPut
from control.state.commands import Register
from control.state.facts import Facts

NOW = 1_750_000_000.0
DAY = 86400.0
PEPPER = b"pepper"

Fields = dict[str, Any]


def machine_key(number: int) -> MachinePublic:
    return MachinePublic(b"m" + number.to_bytes(31, "big"))


def node_key(number: int) -> NodePublic:
    return NodePublic(b"n" + number.to_bytes(31, "big"))


def a_user(number: int = 1, **fields: Any) -> User:
    name = ("", "ann", "bob", "cid")[number] if 0 < number < 4 else f"user{number}"
    values: Fields = {"id": number, "name": name, "created_at": NOW}
    return User(**(values | fields))


def a_node(number: int = 1, **fields: Any) -> Node:
    """Of user 1, with a login of 30 days. With `tags` and nothing else said: nobody's, without an end."""
    tagged = bool(fields.get("tags"))
    values: Fields = {
        "id": number,
        "machine_key": machine_key(number),
        "node_key": node_key(number),
        "name": f"node{number}",
        "hostname": f"node{number}",
        "ipv4": f"100.64.{number // 256}.{number % 256}",
        "ipv6": f"fd7a:115c:a1e0::{number:x}",
        "created_at": NOW,
        "user_id": None if tagged else 1,
        "expires_at": None if tagged else NOW + 30 * DAY,
    }
    return Node(**(values | fields))


def a_key(number: int = 1, **fields: Any) -> tuple[AuthKey, tuple[str, Secret]]:
    """The record of a one-off key of user 1, and what its holder presents."""
    ident = f"key{number}".ljust(secret.ID_LEN, "x")
    text = Secret(f"{secret.AUTH_KEY}-{ident}-secret of key {number}")
    mac = secret.mac_of(secret.AUTH_KEY, text, PEPPER)
    values: Fields = {"id": ident, "mac": mac, "created_at": NOW, "expires_at": NOW + 3600.0}
    values["user_id"] = None if fields.get("tags") else 1
    return AuthKey(**(values | fields)), (ident, text)


def facts_with(*records: User | Node | AuthKey | Tombstone) -> Facts:
    """The world with these records, users first."""
    facts = Facts()
    changes: list[AnyChange] = []
    for record in sorted(records, key=lambda record: not isinstance(record, User)):
        match record:
            case User():
                changes.append(UserPut(user=record))
            case Node():
                changes.append(NodePut(node=record))
            case AuthKey():
                changes.append(AuthKeyPut(auth_key=record))
            case Tombstone(node_id=ident, node_key=key, machine_key=machine, deleted_at=at):
                changes.append(NodeGone(id=ident, node_key=key, machine_key=machine, at=at))
    facts.apply(changes)
    return facts


def a_login(machine: int = 1, key: int | None = None, **fields: Any) -> Register:
    """A registration request by that machine, with node key `key` (its own if not said)."""
    number = machine if key is None else key
    values: Fields = {"machine_key": machine_key(machine), "node_key": node_key(number)}
    values["hostname"] = f"node{machine}"
    return Register(**(values | fields))
