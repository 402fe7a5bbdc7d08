"""Everything that left the process, as facts, and whether the disk bears them out (state.md A.15).

A fact is a tuple that can be true of a world (`true_of`). Whatever the server said is taken apart into such facts;
what a disk held is a row of worlds, one for each commit in its log. The promise: whatever was said had been true on
the disk by then. So it is there after a crash, unless a commit replaced it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from control.api.shapes import when
from control.mapper.peers import timestamp
from control.model import TAGGED_USER_ID, TAGGED_USER_NAME, AuthKey, Node, User
from control.state.facts import NODES, USERS, Facts
from control.tailcfg.node import NEVER
from tests.support.memory_store import MemoryStore

Json = dict[str, Any]
Fact = tuple[object, ...]


class Broken(AssertionError):
    """The server said what its disk does not know."""


class Recorder:
    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.said: dict[
            Fact, tuple[int, str]
        ] = {}  # → the last commit on the disk at the first time, and where
        self.fixed: dict[Fact, object] = {}  # what stays the same for ever once it was said
        self.refused_names: set[str] = set()  # of users: "try later" means that nothing happened

    def hear(self, facts: Iterable[Fact], where: str) -> None:
        for fact in facts:
            self.said.setdefault(fact, (self.store.disk.facts.seq, where))

    def stays(self, what: Fact, value: object) -> None:
        if self.fixed.setdefault(what, value) != value:
            raise Broken(f"{what} was {self.fixed[what]}, and now it is {value}")

    def check(self, now: float) -> None:
        """Raises Broken. `now`: no login that ended was said to have ended later than this."""
        since: dict[Fact, int] = {}
        holders: dict[str, set[object]] = {}
        world = Facts()
        for commit in self.store.log:
            world.apply(commit.changes)
            world.seq = commit.seq
            for fact in true_of(world, now):
                since.setdefault(fact, commit.seq)
            for node in world.nodes.values():
                holders.setdefault(node.auth_key_id, set()).add(node.machine_key)
            if taken := self.refused_names & world.users_by_name.keys():
                raise Broken(f"refused with 'try later', and done: {taken}")
        if world != self.store.disk.facts:
            raise Broken("the log and the tables differ")
        for fact, (seq, where) in self.said.items():
            if fact not in since:
                raise Broken(f"said by {where}, and never on the disk: {fact}")
            if since[fact] > seq:
                raise Broken(f"said by {where} after commit {seq}, and true since {since[fact]}: {fact}")
        for key in world.auth_keys.values():
            if not key.reusable and len(holders.get(key.id, ())) > 1:
                raise Broken(f"one-off key {key.id} admitted {len(holders[key.id])} machines")

    # what is said

    def map_message(self, message: Json, where: str) -> None:
        own = message.get("Node")
        if own is not None:
            self.hear(_own(own), where)
        for peer in (*message.get("Peers", ()), *message.get("PeersChanged", ())):
            self.stays(("addresses", peer["ID"]), tuple(peer["Addresses"]))
            self.hear(_peer(peer), where)
        for patch in message.get("PeersChangedPatch", ()):
            self.hear(_patch(patch), where)
        if own is None or not own.get("Expired"):  # an expired viewer is shown nobody
            self.hear((("gone", ident) for ident in message.get("PeersRemoved", ())), where)
        self.hear(
            (
                ("profile", each["ID"], each["LoginName"])
                for each in message.get("UserProfiles", ())
                if each["ID"] != TAGGED_USER_ID
            ),
            where,
        )

    def login(self, machine: object, node_key: object, answer: Json) -> None:
        login = answer["Login"]
        facts: list[Fact] = [("login", str(machine), str(node_key), login["ID"])]
        if login["ID"] != TAGGED_USER_ID:
            facts.append(("profile", login["ID"], login["LoginName"]))
        else:
            assert login["LoginName"] == TAGGED_USER_NAME
        self.hear(facts, f"the login of {machine}")

    def logout(self, machine: object, node_key: object) -> None:
        self.hear([("out", str(machine), str(node_key))], f"the logout of {machine}")

    def update(self, node_key: object, hostname: str, advertised: tuple[str, ...]) -> None:
        self.hear([("reported", str(node_key), hostname, advertised)], f"the update of {node_key}")

    def api_answer(self, method: str, path: str, answer: Json | list[Json]) -> None:
        where = f"{method} {path}"
        for record in answer if isinstance(answer, list) else [answer]:
            if "addresses" in record:
                self.stays(("addresses", int(record["id"])), tuple(_prefixes(record["addresses"])))
                self.hear(_node_record(record), where)
            elif "role" in record:
                self.hear([("user", *(record[name] for name in USER))], where)
            elif "reusable" in record:
                self._key(record, where)
        if method == "DELETE" and isinstance(answer, dict) and not path.startswith("/keys/"):
            kind = "gone" if path.startswith("/nodes/") else "user gone"
            self.hear([(kind, int(answer["id"]))], where)

    def _key(self, record: Json, where: str) -> None:
        self.hear([("key", *(_hashable(record[name]) for name in KEY))], where)
        if record["user"] is not None:  # who may be gone again by the time of the answer
            self.hear([("key of", record["id"], record["user"])], where)
        if record["revoked_at"]:
            self.stays(("revoked", record["id"]), record["revoked_at"])
        if record["used_at"] and not record["reusable"]:
            self.stays(("spent", record["id"]), record["used_at"])


USER = ("id", "name", "display_name", "email", "role", "created_at")
KEY = ("id", "reusable", "ephemeral", "tags", "expires_at", "used_at", "revoked_at")


# said


def _prefixes(addresses: Iterable[str]) -> Iterator[str]:
    return (f"{address}/{128 if ':' in address else 32}" for address in addresses)


def _hashable(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _own(node: Json) -> Iterator[Fact]:
    if node.get("Expired"):
        yield "over", node["ID"]
    if node["Name"] != "deleted.":
        yield from _peer(node, own=True)


def _peer(node: Json, own: bool = False) -> Iterator[Fact]:
    ident, addresses = node["ID"], tuple(node["Addresses"])
    label = node["Name"].partition(".")[0]
    yield "node", ident, node["Key"], label, node["User"], tuple(node.get("Tags", ())), addresses
    for prefix in node["AllowedIPs"]:
        if prefix not in addresses:
            yield "route", ident, prefix
    if own:
        if not node.get("Expired"):  # a node that is gone is told an expiry that was never stored
            yield "expiry", ident, node.get("KeyExpiry")
        return
    yield "announced", ident
    yield "expiry", ident, node.get("KeyExpiry")
    if node.get("Expired"):
        yield "over", ident


def _patch(patch: Json) -> Iterator[Fact]:
    yield "announced", patch["NodeID"]
    if "Key" in patch:
        yield "node key", patch["NodeID"], patch["Key"]
    if "KeyExpiry" in patch:
        until = patch["KeyExpiry"]
        yield "expiry", patch["NodeID"], None if until == NEVER else until


def _node_record(record: Json) -> Iterator[Fact]:
    ident = int(record["id"])
    routes = record["routes"]
    yield (
        "record", ident, record["name"], tuple(record["tags"]), tuple(record["addresses"]), record["expires_at"],
        tuple(routes["advertised"]), tuple(routes["approved"]), record["hostname"], record["ephemeral"],
    )  # fmt: skip
    if record["user"] is not None:
        yield "owner", ident, record["user"]
    for prefix in routes["serving"]:
        yield "route", ident, prefix


# true


def true_of(world: Facts, now: float) -> Iterator[Fact]:
    for user in world.users.values():
        yield from _true_of_user(user)
    for key in world.auth_keys.values():
        yield from _true_of_key(key, world)
    for node in world.nodes.values():
        yield from _true_of_node(node, world, now)
    for stone in world.tombstones.values():
        yield "out", str(stone.machine_key), str(stone.node_key)
    for ident in range(1, world.last_id[NODES] + 1):
        if ident not in world.nodes:
            yield "gone", ident
            yield "over", ident
    for ident in range(1, world.last_id[USERS] + 1):
        if ident not in world.users:
            yield "user gone", ident


def _true_of_user(user: User) -> Iterator[Fact]:
    yield "profile", user.id, user.login_name
    yield "user", str(user.id), user.name, user.display_name, user.email, user.role, when(user.created_at)


def _true_of_key(key: AuthKey, world: Facts) -> Iterator[Fact]:
    times = when(key.expires_at), when(key.used_at), when(key.revoked_at)
    yield "key", key.id, key.reusable, key.ephemeral, key.tags, *times
    if key.user_id in world.users:
        yield "key of", key.id, world.users[key.user_id].name


def _true_of_node(node: Node, world: Facts, now: float) -> Iterator[Fact]:
    user = world.user_of(node)
    wire_user = TAGGED_USER_ID if node.user_id is None else node.user_id
    machine, node_key = str(node.machine_key), str(node.node_key)
    yield "node", node.id, node_key, node.name, wire_user, node.tags, tuple(_prefixes(node.addresses))
    yield "node key", node.id, node_key
    yield "expiry", node.id, None if node.expires_at is None else timestamp(node.expires_at)
    yield "login", machine, node_key, wire_user
    yield "reported", node_key, node.hostname, node.advertised
    yield (
        "record", node.id, node.name, node.tags, node.addresses, when(node.expires_at), node.advertised,
        node.approved, node.hostname, node.ephemeral,
    )  # fmt: skip
    if user is not None:
        yield "owner", node.id, user.name
    if node.announced:
        yield "announced", node.id
    if node.expired(now):
        yield "over", node.id
        yield "out", machine, node_key
    for prefix in node.routes:
        yield "route", node.id, prefix
