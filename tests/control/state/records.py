"""Records with every field set, and with none."""

from __future__ import annotations

from control.keys import NLPublic
from control.model import AuthKey, Node, User
from control.state.changes import AnyChange
from control.state.facts import Facts
from control.state.sqlite import SqliteStore
from control.state.store import Commit, encode_changes
from tests.control.state.toy import machine_key, node_key

ANNA = User(id=1, name="anna", created_at=1.5, display_name="Ánna \0", email="a@example.com", role="owner")
NODE = Node(
    id=7,
    machine_key=machine_key(1),
    node_key=node_key(1),
    name="laptop",
    ipv4="100.64.0.7",
    ipv6="fd7a:115c:a1e0::7",
    created_at=2.5,
    user_id=1,
    nl_key=NLPublic(b"l" * 32),
    name_frozen=True,
    hostname="Laptop",
    tags=("tag:a", 'tag:"b"'),
    expires_at=3.5,
    ephemeral=True,
    announced=True,
    advertised=("10.0.0.0/8",),
    approved=("0.0.0.0/0", "::/0"),
    auth_key_id="k",
)
PLAIN = Node(
    id=8,
    machine_key=machine_key(2),
    node_key=node_key(2),
    name="plain",
    ipv4="100.64.0.8",
    ipv6="fd7a:115c:a1e0::8",
    created_at=0,
)
KEY = AuthKey(id="k", mac=bytes(range(32)), created_at=1.0, expires_at=9.0, reusable=True, tags=("tag:a",))


def commit(seq: int, *changes: AnyChange, at: float = 1.0, kind: str = "Test") -> Commit:
    return Commit(seq, at, "local:uid:0", kind, changes, encode_changes(changes))


def reloaded(store: SqliteStore) -> Facts:
    """What another start would find."""
    store.close()
    return store.load().facts
