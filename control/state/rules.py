"""The rules: (facts, command, who, now) → what changes and what is answered, or Refused with a reason for a person.

Pure, and called inside the one commit, so that checking and changing are one step (security.md K2, W3). Logins have their
own module, `registration.py`.
"""

from __future__ import annotations

import re
from functools import singledispatch

from msgspec.structs import replace

from control import dnsname
from control.errors import NotFound, Refused
from control.limits import Quotas
from control.model import AuthKey, Node, User
from control.prefixes import parse_prefix, why_not_routable
from control.state import commands as ask
from control.state.changes import (
    AnyChange,
    AuthKeyGone,
    AuthKeyPut,
    NodeGone,
    NodePut,
    SettingPut,
    TombstoneGone,
    UserGone,
    UserPut,
)
from control.state.commands import Actor, AnyCommand, Decision
from control.state.facts import USERS, Facts
from control.state.lookup import find_node, find_user
from control.state.naming import label_fields, renamed_by_host
from control.state.registration import NODE_EXPIRY_SETTING, decide_register

DAY = 86400.0
KEY_EXPIRY_MAX = 90 * DAY  # a key that lives longer is forgotten about
EXTENSION_MAX = 3650 * DAY  # of a login; what is meant to be longer is meant to be `never`
KEPT = 30 * DAY  # spent and revoked keys, and tombstones: for the audit and against replay
TOMBSTONES_MAX = 50_000  # ephemeral nodes leave one each; the oldest go first
USERS_MAX = 10_000
KEYS_MAX = 10_000

_USER_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?\Z")
_EMAIL = re.compile(r"[^@\s\"<>()\[\],;:\\]{1,64}@[a-z0-9.-]{1,190}\Z", re.IGNORECASE)
_TAG = re.compile(r"tag:[a-z][a-z0-9-]{0,49}\Z", re.IGNORECASE)


def decide(
    facts: Facts,
    command: AnyCommand,
    by: Actor,
    now: float,
    pepper: bytes,
    quotas: Quotas = Quotas(),  # noqa: B008  (immutable)
) -> Decision:
    """What the command comes to. Raises Refused; changes nothing itself."""
    _authorise(command, by)
    if isinstance(command, ask.Register):
        return decide_register(facts, command, now, pepper, quotas)
    return _decide(command, facts, now)


def _authorise(command: AnyCommand, by: Actor) -> None:
    """A machine reports about itself (its handler names the node that its key proves); people administer."""
    if by.kind != "machine" or isinstance(command, ask.ReportHostinfo | ask.AnnounceNode):
        return
    if not isinstance(command, ask.Register) or command.approved_by is not None:
        raise Refused("a device may not do that")


@singledispatch
def _decide(command: object, facts: Facts, now: float) -> Decision:
    raise TypeError(f"no rule for {type(command).__name__}")


# users


@_decide.register
def _(command: ask.CreateUser, facts: Facts, now: float) -> Decision:
    _free_user_name(facts, command.name)
    if command.email:
        if not _EMAIL.match(command.email):
            raise Refused(f"{command.email[:100]!r} is no mail address", "write it like ann@example.com")
        if any(user.email.lower() == command.email.lower() for user in facts.users.values()):
            raise Refused(
                f"another user has the address {command.email}", "`appliance users list` shows whose"
            )
    if len(facts.users) >= USERS_MAX:
        raise Refused(f"there are {USERS_MAX} users already", "delete users that are not needed")
    user = User(
        id=facts.last_id[USERS] + 1,
        name=command.name,
        display_name=_line(command.display_name),
        email=command.email,
        role="member" if facts.users else "owner",
        created_at=now,
    )
    return Decision((UserPut(user=user),), user)


@_decide.register
def _(command: ask.RenameUser, facts: Facts, now: float) -> Decision:
    user = find_user(facts, command.user)
    if user.name == command.name:
        return Decision((), user)
    _free_user_name(facts, command.name)
    renamed = replace(user, name=command.name)
    return Decision((UserPut(user=renamed),), renamed)


@_decide.register
def _(command: ask.DeleteUser, facts: Facts, now: float) -> Decision:
    user = find_user(facts, command.user)
    nodes = facts.nodes_of_user(user.id)
    if nodes and not command.with_nodes:
        names = ", ".join(node.name for node in nodes[:5]) + (", …" if len(nodes) > 5 else "")
        raise Refused(
            f"user {user.name} still has {len(nodes)} node{'s' if len(nodes) > 1 else ''}: {names}",
            "delete them first, or add --with-nodes",
        )
    keys = [AuthKeyGone(id=key.id) for key in facts.auth_keys.values() if key.user_id == user.id]
    return Decision((*(_gone(node, now) for node in nodes), *keys, UserGone(id=user.id)), user)


# auth keys


@_decide.register
def _(command: ask.CreateAuthKey, facts: Facts, now: float) -> Decision:
    if command.user is None and not command.tags:
        raise Refused(
            "a key needs a user, or tags", "add --user NAME, or --tag tag:NAME for machines without a user"
        )
    if not 60 <= command.expiry_s <= KEY_EXPIRY_MAX:
        raise Refused("a key lives between one minute and 90 days", "choose an --expiry such as 1h or 30d")
    if len(facts.auth_keys) >= KEYS_MAX:
        raise Refused(f"there are {KEYS_MAX} keys already", "revoke keys that are not needed")
    key = AuthKey(
        id=command.id,
        mac=command.mac,
        created_at=now,
        expires_at=now + command.expiry_s,
        user_id=find_user(facts, command.user).id if command.user is not None else None,
        reusable=command.reusable,
        ephemeral=command.ephemeral,
        tags=checked_tags(command.tags),
    )
    return Decision((AuthKeyPut(auth_key=key),), key)


@_decide.register
def _(command: ask.RevokeAuthKey, facts: Facts, now: float) -> Decision:
    key = facts.auth_keys.get(command.id)
    if key is None:
        raise NotFound(f"there is no key {command.id[:40]!r}", "`appliance keys list` shows the ids")
    if key.revoked_at is not None:
        return Decision((), key)
    revoked = replace(key, revoked_at=now)
    return Decision((AuthKeyPut(auth_key=revoked),), revoked)


# nodes


@_decide.register
def _(command: ask.ReportHostinfo, facts: Facts, now: float) -> Decision:
    node = facts.nodes.get(command.node_id)
    if node is None:
        raise NotFound("the node is gone")
    new = node
    if command.hostname is not None:
        new = replace(new, **renamed_by_host(facts, node, command.hostname))
    if command.advertised is not None and command.advertised != node.advertised:
        new = replace(new, advertised=command.advertised)
    return _changed(node, new)


@_decide.register
def _(command: ask.AnnounceNode, facts: Facts, now: float) -> Decision:
    node = facts.nodes.get(command.node_id)
    if node is None:
        raise NotFound("the node is gone")
    return _changed(node, replace(node, announced=True))


@_decide.register
def _(command: ask.RenameNode, facts: Facts, now: float) -> Decision:
    node = find_node(facts, command.node)
    if not command.name:
        freed = replace(node, name_frozen=False)
        return _changed(
            node, replace(freed, **label_fields(facts, freed, dnsname.label_from_hostname(node.hostname)))
        )
    if not dnsname.may_name(command.name):
        raise Refused(
            f"{command.name[:80]!r} cannot be a node's name",
            "use 1 to 63 of a-z, 0-9 and hyphens, with a letter, not beginning or ending with a hyphen",
        )
    holder = facts.by_name.get(command.name)
    if holder not in (None, node.id):
        raise Refused(f"node {holder} already has the name {command.name}", "rename that one first")
    return _changed(node, replace(node, name=command.name, name_frozen=True))


@_decide.register
def _(command: ask.TagNode, facts: Facts, now: float) -> Decision:
    node = find_node(facts, command.node)
    tags = checked_tags(command.tags)
    if not tags:
        raise Refused("a tagged node cannot go back to a user by command", "log it in again as that user")
    return _changed(node, replace(node, tags=tags, user_id=None, expires_at=None))


@_decide.register
def _(command: ask.ExpireNode, facts: Facts, now: float) -> Decision:
    node = find_node(facts, command.node)
    if node.expired(now):
        return Decision((), node)
    return _changed(node, replace(node, expires_at=now))


@_decide.register
def _(command: ask.ExtendNode, facts: Facts, now: float) -> Decision:
    node = find_node(facts, command.node)
    if command.expiry_s is not None and not 60 <= command.expiry_s <= EXTENSION_MAX:
        raise Refused(
            "an extension is at least a minute and at most ten years",
            "choose an --expiry such as 90d, or never",
        )
    until = None if command.expiry_s is None else now + command.expiry_s
    return _changed(node, replace(node, expires_at=until))


@_decide.register
def _(command: ask.DeleteNode, facts: Facts, now: float) -> Decision:
    node = find_node(facts, command.node)
    return Decision((_gone(node, now),), node)


@_decide.register
def _(command: ask.ApproveRoutes, facts: Facts, now: float) -> Decision:
    node = find_node(facts, command.node)
    wanted = _route_list(command.routes)
    return _changed(node, replace(node, approved=tuple(dict.fromkeys((*node.approved, *wanted)))))


@_decide.register
def _(command: ask.RevokeRoutes, facts: Facts, now: float) -> Decision:
    node = find_node(facts, command.node)
    unwanted = _route_list(command.routes)
    missing = [route for route in unwanted if route not in node.approved]
    if missing:
        raise NotFound(
            f"{missing[0]} is not approved for {node.name}",
            f"`appliance nodes show {node.name}` lists its routes",
        )
    return _changed(
        node, replace(node, approved=tuple(route for route in node.approved if route not in unwanted))
    )


@_decide.register
def _(command: ask.RemoveStale, facts: Facts, now: float) -> Decision:
    nodes = (facts.nodes.get(ident) for ident in command.node_ids)
    changes: list[AnyChange] = [_gone(node, now) for node in nodes if node is not None and node.ephemeral]
    changes += [AuthKeyGone(id=key.id) for key in facts.auth_keys.values() if _finished(key) < now - KEPT]
    stones = sorted(facts.tombstones.values(), key=lambda stone: stone.deleted_at)
    excess = len(stones) - TOMBSTONES_MAX
    changes += [
        TombstoneGone(node_key=stone.node_key)
        for number, stone in enumerate(stones)
        if number < excess or stone.deleted_at < now - KEPT
    ]
    return Decision(tuple(changes))


@_decide.register
def _(command: ask.SetSetting, facts: Facts, now: float) -> Decision:
    if command.name != NODE_EXPIRY_SETTING:
        raise NotFound(f"there is no setting {command.name[:60]!r}")
    if not re.fullmatch(r"[0-9]{2,9}", command.value) or not 60 <= int(command.value) <= EXTENSION_MAX:
        raise Refused("a login lasts between a minute and ten years", "give its seconds")
    if facts.settings.get(command.name) == command.value:
        return Decision(())
    return Decision((SettingPut(name=command.name, value=command.value),))


# shared pieces


def checked_tags(tags: tuple[str, ...]) -> tuple[str, ...]:
    """Well-formed tags, sorted, each once. Raises Refused."""
    for tag in tags:
        if not _TAG.match(tag):
            raise Refused(
                f"{tag[:60]!r} is no tag",
                "write tags like tag:server: a letter, then letters, digits or hyphens",
            )
    return tuple(sorted(set(tags)))


def _changed(old: Node, new: Node) -> Decision:
    return Decision((NodePut(node=new),) if new != old else (), new)


def _gone(node: Node, now: float) -> NodeGone:
    return NodeGone(id=node.id, node_key=node.node_key, machine_key=node.machine_key, at=now)


def _finished(key: AuthKey) -> float:
    """When a key stopped being of use."""
    ends = [key.expires_at, key.revoked_at, key.used_at if key.spent else None]
    return min(end for end in ends if end is not None)


def _free_user_name(facts: Facts, name: str) -> None:
    if not _USER_NAME.match(name) or name.isdigit():
        raise Refused(
            f"{name[:80]!r} cannot be a user's name",
            "use 1 to 63 of a-z, 0-9, dot, underscore and hyphen, with at least one letter; the person's full name goes into --display",
        )
    if name in facts.users_by_name:
        raise Refused(f"there is a user {name} already", "choose another name")


def _route_list(texts: tuple[str, ...]) -> list[str]:
    if not texts:
        raise Refused(
            "name at least one route", "for example 192.168.1.0/24; an exit node needs 0.0.0.0/0 and ::/0"
        )
    routes = []
    for text in texts:
        try:
            prefix = parse_prefix(text)
        except ValueError as exc:
            raise Refused(str(exc), "write an address, a slash and a length") from exc
        if reason := why_not_routable(prefix):
            raise Refused(reason, "only networks outside the tailnet can be routed")
        routes.append(str(prefix))
    return routes


def _line(text: str) -> str:
    return "".join(char for char in text if char.isprintable())[:100].strip()
