"""Records as the JSON that people's programs rely on: ids are strings, times RFC 3339 or null."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from control.login.pending import PendingLogin
from control.model import AuthKey, Node, User
from control.prefixes import EXIT_ROUTES
from control.state.facts import Facts
from control.state.volatile import Volatile
from control.tailcfg.codec import rfc3339

Json = dict[str, Any]


def when(seconds: float | None) -> str | None:
    return None if not seconds else rfc3339(round(seconds))


def user_shape(user: User) -> Json:
    return {
        "id": str(user.id),
        "name": user.name,
        "display_name": user.display_name,
        "email": user.email,
        "role": user.role,
        "created_at": when(user.created_at),
    }


def key_shape(key: AuthKey, facts: Facts, now: float) -> Json:
    """Without the key itself, which is shown once, when it is made."""
    user = facts.users.get(key.user_id or 0)
    return {
        "id": key.id,
        "user": user.name if user else None,
        "reusable": key.reusable,
        "ephemeral": key.ephemeral,
        "tags": list(key.tags),
        "created_at": when(key.created_at),
        "expires_at": when(key.expires_at),
        "used_at": when(key.used_at),
        "revoked_at": when(key.revoked_at),
        "state": key_state(key, now),
    }


def key_state(key: AuthKey, now: float) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if key.spent:
        return "used"
    return "expired" if key.expires_at <= now else "valid"


def node_shape(
    node: Node, facts: Facts, volatile: Volatile, primaries: Mapping[str, int], *, online: bool, now: float
) -> Json:
    user = facts.user_of(node)
    serving = [
        route for route in node.routes if (route in EXIT_ROUTES and online) or primaries.get(route) == node.id
    ]
    return {
        "id": str(node.id),
        "name": node.name,
        "user": user.name if user else None,
        "tags": list(node.tags),
        "addresses": list(node.addresses),
        "online": online,
        "last_seen": when(now if online else volatile.last_seen),
        "expires_at": when(node.expires_at),
        "expired": node.expired(now),
        "routes": {"advertised": list(node.advertised), "approved": list(node.approved), "serving": serving},
        "os": volatile.hostinfo.os,
        "client_version": volatile.hostinfo.ipn_version.split("-", 1)[0],
        "hostname": node.hostname,
        "ephemeral": node.ephemeral,
        "created_at": when(node.created_at),
    }


def login_shape(pending: PendingLogin, now: float) -> Json:
    """What the approver must see before saying yes (security.md K4)."""
    return {
        "id": pending.id,
        "hostname": pending.command.hostname,
        "os": pending.os,
        "source": pending.remote,
        "machine_key": pending.command.machine_key.short,
        "age_s": round(now - pending.began_at),
        "approved": pending.approved,
    }
