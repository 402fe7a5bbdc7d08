"""A tailnet in miniature: facts and volatile records with a `World` that is told of every change, as `state` does it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import msgspec

from control.keys import DiscoPublic, MachinePublic, NodePublic
from control.mapper.routes import Routes
from control.mapper.session import Session
from control.mapper.settings import NetmapSettings
from control.mapper.view import AllowAll, ViewFunction
from control.mapper.world import World
from control.model import Node, User
from control.prefixes import allocate
from control.state.changes import AnyChange, NodeGone, NodePut, UserGone, UserPut
from control.state.facts import Facts
from control.state.volatile import Group, Volatile
from control.tailcfg.derpmap import DERPMap, DERPNode, DERPRegion
from control.tailcfg.filter import ALLOW_ALL, FilterRule
from tests.control.mapper.client import Client

NOW = 1_750_000_000.0


def derp_map(region: int = 900) -> DERPMap:
    node = DERPNode(name=f"{region}a", region_id=region, host_name="hs.example")
    return DERPMap(
        regions={
            str(region): DERPRegion(region_id=region, region_code="home", region_name="Home", nodes=[node])
        }
    )


SETTINGS = NetmapSettings(domain="tail.example", derp_map=derp_map())


def key(kind: type, number: int) -> Any:
    return kind(number.to_bytes(32, "big"))


class Tailnet:
    """`now` moves only by `pass_time`."""

    def __init__(self, *, view_function: ViewFunction | None = None, users: int = 1, nodes: int = 0) -> None:
        self.now = NOW
        self.facts = Facts()
        self.volatile: dict[int, Volatile] = {}
        self.view_function = view_function or AllowAll()
        self.settings = SETTINGS
        self.world = self.fresh_world()
        self._keys = 0
        for _ in range(users):
            self.add_user()
        for _ in range(nodes):
            self.add_node()

    def fresh_world(self, primaries: Mapping[str, int] | None = None) -> World:
        """As after a restart."""
        return World(
            facts=self.facts,
            volatile=self.volatile,
            settings=self.settings,
            now=self.now,
            primaries=primaries,
            view_function=self.view_function,
        )

    # durable

    def commit(self, *changes: AnyChange) -> None:
        facts = self.facts.copy()
        facts.apply(changes)
        self.facts = facts
        for ident in facts.nodes.keys() - self.volatile.keys():
            self.volatile[ident] = Volatile(last_seen=self.now)
        self.world.on_commit(changes, facts, self.now)
        for ident in self.volatile.keys() - facts.nodes.keys():
            del self.volatile[ident]

    def add_user(self, **fields: Any) -> User:
        ident = self.facts.last_id["users"] + 1
        user = User(**{"id": ident, "name": f"user{ident}", "created_at": self.now, **fields})
        self.commit(UserPut(user=user))
        return user

    def new_node(self, **fields: Any) -> Node:
        ident = self.facts.last_id["nodes"] + 1
        ipv4, ipv6 = allocate(ident, self.facts.by_address)
        defaults: dict[str, Any] = {
            "id": ident,
            "machine_key": key(MachinePublic, ident),
            "node_key": self.new_key(),
            "name": f"node{ident}",
            "ipv4": ipv4,
            "ipv6": ipv6,
            "created_at": self.now,
            "user_id": 1,
            "announced": True,
        }
        return Node(**{**defaults, **fields})

    def add_node(self, volatile: Volatile | None = None, **fields: Any) -> int:
        node = self.new_node(**fields)
        if volatile is not None:
            self.volatile[node.id] = volatile
        self.commit(NodePut(node=node))
        return node.id

    def change(self, ident: int, **fields: Any) -> None:
        self.commit(NodePut(node=msgspec.structs.replace(self.facts.nodes[ident], **fields)))

    def change_user(self, ident: int, **fields: Any) -> None:
        self.commit(UserPut(user=msgspec.structs.replace(self.facts.users[ident], **fields)))

    def gone(self, ident: int) -> NodeGone:
        node = self.facts.nodes[ident]
        return NodeGone(id=ident, node_key=node.node_key, machine_key=node.machine_key, at=self.now)

    def remove(self, ident: int) -> None:
        self.commit(self.gone(ident))

    def remove_user(self, ident: int) -> None:
        nodes = self.facts.by_user.get(ident, ())
        self.commit(*(self.gone(node) for node in nodes), UserGone(id=ident))

    def new_key(self) -> NodePublic:
        self._keys += 1
        return NodePublic((self._keys << 64).to_bytes(32, "big"))

    # volatile

    def touch(self, ident: int, group: Group, **fields: Any) -> None:
        for name, value in fields.items():
            setattr(self.volatile[ident], name, value)
        self.world.on_touch(ident, {group}, self.now)

    def endpoints(self, ident: int, *endpoints: str) -> None:
        self.touch(ident, "endpoints", endpoints=endpoints)

    def online(self, ident: int, online: bool) -> None:
        self.touch(ident, "online", online=online, last_seen=self.now)

    def disco(self, ident: int, number: int) -> None:
        self.touch(ident, "disco", disco_key=key(DiscoPublic, number) if number else None)

    # the rest of the world

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.world.tick(self.now)

    def set_view_function(self, function: ViewFunction) -> None:
        self.view_function = function
        self.world.set_view_function(function, self.now)

    def set_settings(self, **fields: Any) -> None:
        kept = {name: getattr(self.settings, name) for name in NetmapSettings.__slots__}
        self.settings = NetmapSettings(**{**kept, **fields})
        self.world.update_settings(self.settings, self.now)

    def open(
        self, ident: int, *, modern: bool = True, compressed: bool = True, world: World | None = None
    ) -> Watcher:
        return Watcher(self, ident, Client(modern=modern, compressed=compressed), world or self.world)


class Watcher:
    """A session and the client at its other end."""

    def __init__(self, tailnet: Tailnet, node_id: int, client: Client, world: World) -> None:
        self.tailnet, self.node_id, self.client = tailnet, node_id, client
        self.session = Session(world, node_id, zstd=client.compressed)

    def read(self) -> bool:
        """Take one message, if there is one."""
        data = self.session.next_message(self.tailnet.now)
        if data is not None:
            self.client.receive(data)
        return data is not None

    def read_all(self) -> Client:
        while self.session.stale and not self.session.ended:
            self.read()
        return self.client


class ToyView(AllowAll):
    """Rules without sense, for tests: three classes, who see some users, some routes, some filters. Follows `seed`."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def _number(self, *parts: int) -> int:
        number = self.seed
        for part in parts:
            number = (number * 31 + part + 7) * 2654435761 % 2**32
        return number >> 8

    def class_of(self, facts: Facts, node: Node) -> Hashable:
        return self._number(node.user_id or len(node.tags)) % 3

    def sees(self, viewers: Hashable, facts: Facts, node: Node) -> bool:
        assert isinstance(viewers, int)
        return self._number(viewers, node.user_id or 0, len(node.tags)) % 3 != 0

    def routes(self, viewers: Hashable, facts: Facts, node: Node, routes: Routes) -> Routes:
        assert isinstance(viewers, int)
        match self._number(viewers, len(routes.allowed)) % 4:
            case 0:
                return Routes((), ())
            case 1:
                return Routes(routes.primary, routes.primary)
            case _:
                return routes

    def packet_filter(self, viewers: Hashable, facts: Facts) -> Sequence[FilterRule]:
        assert isinstance(viewers, int)
        return ALLOW_ALL if self._number(viewers, 5) % 2 else ()

    def ssh_policy(self, viewers: Hashable, facts: Facts) -> Mapping[str, Any]:
        assert isinstance(viewers, int)
        return {"rules": [{"action": {"accept": True}}] * (self._number(viewers, 6) % 2)}

    def peer_attributes(self, facts: Facts, node: Node) -> dict[str, list[Any] | None]:
        return {"suggest-exit-node": None} if self._number(node.id % 5) % 3 == 0 else {}

    def self_attributes(self, facts: Facts, node: Node) -> dict[str, list[Any] | None]:
        return {"funnel": None} if self._number(node.id % 3, 9) % 2 else {}
