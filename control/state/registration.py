"""Registration: who may be which node (control.md §6.5). One decision per request, inside the commit.

The machine key was proven by the Noise handshake and is the only identity here; the node key in the request is a claim.
A machine's node keeps its id, addresses, routes and name over re-logins; only the node key and the expiry are new.
The order matters, and each step has its reason beside it.
"""

from __future__ import annotations

from msgspec.structs import replace

from control import dnsname
from control.errors import Refused, WrongKey
from control.limits import Quotas
from control.model import AuthKey, Node, User
from control.prefixes import allocate
from control.secret import AUTH_KEY, matches
from control.state.changes import AnyChange, AuthKeyPut, NodeGone, NodePut
from control.state.commands import Decision, LoggedOut, NeedsLogin, NeedsNewKey, Register, Registered
from control.state.facts import NODES, Facts
from control.state.lookup import find_user
from control.state.naming import renamed_by_host

DAY = 86400.0
NODE_EXPIRY = 180 * DAY  # of a person's node; tagged ones never expire
NODE_EXPIRY_SETTING = "node_expiry_s"

INVALID_KEY = "invalid auth key: it is unknown, mistyped or was deleted"


def decide_register(facts: Facts, command: Register, now: float, pepper: bytes, quotas: Quotas) -> Decision:
    """Registered, NeedsLogin, NeedsNewKey or LoggedOut, with what changes. Raises Refused."""
    if command.node_key.is_zero:
        raise Refused("the request has no node key")
    node = facts.node_by_key(command.node_key)
    if node is not None and node.machine_key != command.machine_key:
        raise Refused("this node key belongs to a different machine key")  # an attack, or a cloned state file
    stone = facts.tombstones.get(command.node_key)
    if stone is not None and stone.machine_key != command.machine_key:
        raise Refused("this node key belonged to a different machine key")
    if command.approved_by is not None:
        user = find_user(facts, command.approved_by)
        _refuse_tags(command.request_tags)
        return _admit(facts, command, now, quotas, owner=user)
    # A logout comes before the key: it may carry one that must not log the node in again.
    if command.expiry is not None and command.expiry <= now:
        return _log_out(node, now)
    if command.auth_key is not None or command.bad_auth_key:
        return _with_auth_key(facts, command, node, now, pepper, quotas)
    if node is None:
        _refuse_tags(command.request_tags)  # said before a person is asked, not after
        return Decision((), NeedsLogin())
    return _known(facts, command, node, now)


def _log_out(node: Node | None, now: float) -> Decision:
    if node is None:
        return Decision((), LoggedOut())
    if node.ephemeral:
        gone = NodeGone(id=node.id, node_key=node.node_key, machine_key=node.machine_key, at=now)
        return Decision((gone,), LoggedOut())
    if node.expired(now):
        return Decision((), LoggedOut())
    ended = replace(node, expires_at=now)  # not the 1970 of the request
    return Decision((NodePut(node=ended),), LoggedOut())


def _known(facts: Facts, command: Register, node: Node, now: float) -> Decision:
    """A restart, a repeated follow-up, or `up` with other tags: the current key without anything new to vouch for it."""
    if node.expired(now):
        return Decision((), NeedsNewKey())
    if set(command.request_tags) - {*node.tags, *node.requested_tags}:
        _refuse_tags(command.request_tags)
    new = replace(node, **renamed_by_host(facts, node, command.hostname))
    if command.advertised is not None:
        new = replace(new, advertised=command.advertised)
    if command.expiry is not None:
        if node.expires_at is not None and command.expiry > node.expires_at:
            raise Refused(
                "a device can shorten its login, not extend it", "ask an administrator to extend it"
            )
        new = replace(new, expires_at=command.expiry)
    return _put(facts, node, new)


def _with_auth_key(
    facts: Facts, command: Register, node: Node | None, now: float, pepper: bytes, quotas: Quotas
) -> Decision:
    key = _presented(facts, command, pepper)
    # A container restarts with the key of its first day in its environment: the node's own key is proof enough.
    if node is not None and not node.expired(now):
        same = key is None or key.id == node.auth_key_id or _owner(key) == (node.user_id, node.tags)
        if same:
            return _known(facts, command, node, now)
    if key is None:
        raise WrongKey(INVALID_KEY, "create one with `appliance keys create`")
    if key.revoked_at is not None:
        raise Refused("this auth key was revoked")
    if key.expires_at <= now:
        raise Refused("this auth key has expired")
    if key.spent:
        raise Refused("this auth key was already used; it admits one machine only")
    if extra := set(command.request_tags) - set(key.tags):
        raise Refused(
            f"requested tags {sorted(extra)} are invalid or not permitted: the auth key does not carry them"
        )
    user = None if key.tags else facts.users.get(key.user_id or 0)
    if user is None and not key.tags:
        raise WrongKey(INVALID_KEY)
    if node is not None and user is not None and node.user_id not in (None, user.id):
        # Another person's login on this machine is another node, with a key of its own. The auth key is not spent yet.
        return Decision((), NeedsNewKey())
    return _admit(facts, command, now, quotas, owner=user, key=key)


def _presented(facts: Facts, command: Register, pepper: bytes) -> AuthKey | None:
    """The key that was presented, if it is one of ours. Unknown and wrong are the same (security.md K7)."""
    if command.auth_key is None:
        return None
    ident, secret = command.auth_key
    key = facts.auth_keys.get(ident)
    mac = key.mac if key is not None else bytes(32)
    return key if matches(mac, AUTH_KEY, secret, pepper) else None


def _owner(key: AuthKey) -> tuple[int | None, tuple[str, ...]]:
    return (None, key.tags) if key.tags else (key.user_id, ())


def _admit(
    facts: Facts,
    command: Register,
    now: float,
    quotas: Quotas,
    *,
    owner: User | None,
    key: AuthKey | None = None,
) -> Decision:
    """Create the machine's node for this owner, or give the one it has its new key; a one-off auth key is spent by it."""
    old = _existing(facts, command, owner)
    if old is None:
        _limit_nodes(facts, command, owner, key, quotas)
        old = _new(facts, command, now)
    new = replace(
        old,
        node_key=command.node_key,
        nl_key=command.nl_key or old.nl_key,
        user_id=owner.id if owner else None,
        tags=key.tags if key else (),
        expires_at=_expiry(facts, command, now) if owner else None,
        ephemeral=command.ephemeral or (key is not None and key.ephemeral),
        auth_key_id=key.id if key else old.auth_key_id,
        requested_tags=command.request_tags,
        advertised=old.advertised if command.advertised is None else command.advertised,
        **renamed_by_host(facts, old, command.hostname),
    )
    changes: list[AnyChange] = [NodePut(node=new)]
    if key is not None:
        changes.append(AuthKeyPut(auth_key=replace(key, used_at=now)))
    return Decision(tuple(changes), Registered(new, owner))


def _existing(facts: Facts, command: Register, owner: User | None) -> Node | None:
    """The node of this machine that this login is for.

    The one with this node key; else the same owner's; else, when it becomes tagged or comes back from being tagged, the
    machine's own: a device is one node, and only another *person's* login makes a second (never a take-over of
    somebody else's).
    """
    owner_id = owner.id if owner else None
    nodes = facts.nodes_of_machine(command.machine_key)
    for node in nodes:
        if node.node_key == command.node_key:
            if node.user_id != owner_id and None not in (node.user_id, owner_id):
                raise Refused("this node key belongs to another user's node")
            return node
    same = (node for node in nodes if node.user_id == owner_id)
    tagged = (node for node in nodes if None in (node.user_id, owner_id))
    return next(same, None) or next(tagged, None)


def _new(facts: Facts, command: Register, now: float) -> Node:
    """A node with an address and a name; whose it is, is decided by the caller."""
    ident = facts.last_id[NODES] + 1
    try:
        ipv4, ipv6 = allocate(ident, facts.by_address)
    except LookupError as exc:
        raise Refused(str(exc)) from exc
    label = dnsname.label_from_hostname(command.hostname)
    return Node(
        id=ident,
        machine_key=command.machine_key,
        node_key=command.node_key,
        name=dnsname.unique_label(label, facts.by_name.__contains__),
        hostname=command.hostname,
        ipv4=ipv4,
        ipv6=ipv6,
        created_at=now,
    )


def _expiry(facts: Facts, command: Register, now: float) -> float:
    default = now + float(facts.settings.get(NODE_EXPIRY_SETTING, NODE_EXPIRY))
    return default if command.expiry is None else min(default, command.expiry)


def _put(facts: Facts, old: Node, new: Node) -> Decision:
    return Decision((NodePut(node=new),) if new != old else (), Registered(new, facts.user_of(new)))


def _refuse_tags(tags: tuple[str, ...]) -> None:
    if tags:
        raise Refused(
            f"requested tags {sorted(tags)} are invalid or not permitted: no policy says who owns them",
            "use an auth key that carries the tags, or let an administrator run `appliance nodes tag`",
        )


def _limit_nodes(
    facts: Facts, command: Register, owner: User | None, key: AuthKey | None, quotas: Quotas
) -> None:
    """Whether there may be one node more."""
    if len(facts.nodes) >= quotas.nodes:
        raise Refused(f"this server has {quotas.nodes} nodes, the most it takes", _more("nodes"))
    if key is None and owner is not None and len(facts.by_user.get(owner.id, ())) >= quotas.nodes_per_user:
        most = quotas.nodes_per_user
        raise Refused(
            f"{owner.name} has {most} nodes already, the most for one user", _more("nodes_per_user")
        )
    ephemeral = command.ephemeral or (key is not None and key.ephemeral)
    if ephemeral and sum(node.ephemeral for node in facts.nodes.values()) >= quotas.ephemeral_nodes:
        most = quotas.ephemeral_nodes
        raise Refused(
            f"there are {most} ephemeral nodes, the most this server takes", _more("ephemeral_nodes")
        )
    # Counting costs a pass over all nodes; most of the time there cannot be so many.
    if key is None or len(facts.nodes) < quotas.nodes_per_key:
        return
    if sum(node.auth_key_id == key.id for node in facts.nodes.values()) >= quotas.nodes_per_key:
        most = quotas.nodes_per_key
        raise Refused(f"{most} nodes live by this auth key, the most for one key", _more("nodes_per_key"))


def _more(limit: str) -> str:
    return f"delete nodes that are not needed, or raise limits.{limit}"
