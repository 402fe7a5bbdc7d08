"""Random histories of a tailnet with clients that read when they like.

After each history, every client that catches up must have what a fresh stream would give, and the world that lived
through it must give what a world made from the facts alone gives.
"""

from __future__ import annotations

import random  # noqa: TID251 - seeds, so that a history can be told again
from collections.abc import Callable

from control.model import Role
from control.prefixes import EXIT_ROUTES
from control.state.changes import NodePut, UserPut
from control.tailcfg.hostinfo import Hostinfo, Service
from tests.control.mapper.client import Client, Wrong, check
from tests.control.mapper.tailnet import Tailnet, ToyView, Watcher, derp_map

PREFIXES = ("10.0.0.0/24", "10.1.0.0/16", "2001:db8::/64", *EXIT_ROUTES)
ENDPOINTS = ("192.0.2.1:41641", "198.51.100.7:1024", "[2001:db8::7]:41641", "10.9.9.9:5")
ROLES: tuple[Role, ...] = ("owner", "admin", "member")


class History:
    """`steps` random steps; `run` raises `Wrong` when a promise is broken. `nodes`: at the start."""

    def __init__(self, seed: int, *, steps: int = 40, nodes: int = 3) -> None:
        self.random = random.Random(seed)
        self.seed, self.steps = seed, steps
        views = ToyView(seed) if self.random.random() < 0.6 else None
        self.net = Tailnet(view_function=views, users=2, nodes=nodes)
        self.nodes_max = nodes + 7
        self.watchers: list[Watcher] = []
        self.checks = 0

    def run(self) -> None:
        try:
            for _ in range(self.steps):
                self.random.choice(STEPS)(self)
            self._check_all()
            self._check_against_facts()
        except Wrong as wrong:
            raise Wrong(f"history {self.seed}: {wrong}") from wrong

    # steps: the tailnet

    def add_node(self) -> None:
        if len(self.net.facts.nodes) < self.nodes_max:
            fields = (
                {"user_id": self._user()}
                if self.random.random() < 0.7
                else {"user_id": None, "tags": ("tag:a",)}
            )
            self.net.add_node(announced=self.random.random() < 0.6, **fields)

    def remove_node(self) -> None:
        if len(self.net.facts.nodes) > 2:
            self.net.remove(self._node())

    def announce(self) -> None:
        self.net.change(self._node(), announced=True)

    def rekey(self) -> None:
        self.net.change(self._node(), node_key=self.net.new_key())

    def rename(self) -> None:
        ident = self._node()
        self.net.change(ident, name=f"name{self.random.randrange(3)}-{ident}")

    def there_and_back(self) -> None:
        """Two changes that cancel out, perhaps between two messages."""
        ident = self._node()
        name = self.net.facts.nodes[ident].name
        self.net.change(ident, name=f"x{ident}")
        if self.random.random() < 0.5:
            self.online()
        self.net.change(ident, name=name)

    def change_owner(self) -> None:
        if self.random.random() < 0.5:
            self.net.change(self._node(), user_id=self._user(), tags=())
        else:
            self.net.change(self._node(), user_id=None, tags=("tag:a", "tag:b")[: self.random.randint(1, 2)])

    def set_expiry(self) -> None:
        after = self.random.choice((None, -5.0, 0.0, 3.0, 30.0, 3000.0))
        self.net.change(self._node(), expires_at=None if after is None else self.net.now + after)

    def offer_routes(self) -> None:
        self.net.change(self._node(), advertised=self._prefixes())

    def approve_routes(self) -> None:
        self.net.change(self._node(), approved=self._prefixes())

    def serve_routes(self) -> None:
        self.net.change(self._node(), advertised=PREFIXES, approved=self._prefixes(), announced=True)

    def batch(self) -> None:
        """Several commits that reach the disk together, some about one record."""
        net = self.net
        node = net.new_node(user_id=self._user()) if len(net.facts.nodes) < self.nodes_max else None
        user = net.facts.users[self._user()]
        changes = [NodePut(node=node)] if node else []
        if node and self.random.random() < 0.3:
            changes.append(NodePut(node=net.new_node(user_id=None, tags=("tag:a",))))
        gone = [net.gone(self._node())] if len(net.facts.nodes) > 2 else []
        net.commit(*changes, UserPut(user=user), *gone)

    def user(self) -> None:
        ident = self._user()
        match self.random.randrange(5):
            case 0:
                self.net.add_user()
            case 1 if len(self.net.facts.users) > 2:
                self.net.remove_user(ident)
            case 2:
                self.net.change_user(ident, role=self.random.choice(ROLES))
            case _:
                self.net.change_user(ident, display_name=self.random.choice(("Ann", "Bob", "")))

    def endpoints(self) -> None:
        self.net.endpoints(self._node(), *self.random.sample(ENDPOINTS, self.random.randrange(4)))

    def online(self) -> None:
        self.net.online(self._node(), self.random.random() < 0.5)

    def disco(self) -> None:
        self.net.disco(self._node(), self.random.randrange(3))

    def home(self) -> None:
        self.net.touch(self._node(), "derp", home_derp=self.random.choice((0, 900, 901)))

    def capver(self) -> None:
        self.net.touch(self._node(), "cap", capver=self.random.choice((0, 113, 130)))

    def hostinfo(self) -> None:
        host = Hostinfo(
            os=self.random.choice(("linux", "iOS")),
            services=[
                Service(proto="peerapi4", port=self.random.randint(1, 3)),
                Service(proto="tcp", port=22),
            ],
        )
        self.net.touch(self._node(), "body", hostinfo=host)

    def pass_time(self) -> None:
        self.net.pass_time(self.random.choice((0.1, 1.0, 6.0, 40.0)))

    def rules(self) -> None:
        self.net.set_view_function(ToyView(self.random.randrange(1000)))

    def settings(self) -> None:
        match self.random.randrange(3):
            case 0:
                self.net.set_settings(derp_map=derp_map(self.random.choice((900, 901))))
            case 1:
                self.net.set_settings(resolvers=self.random.choice(((), ("9.9.9.9",))))
            case _:
                self.net.set_settings(domain=self.random.choice(("tail.example", "other.example")))

    # steps: the clients

    def connect(self) -> None:
        modern, compressed = self.random.random() < 0.5, self.random.random() < 0.5
        self.watchers.append(self.net.open(self._node(), modern=modern, compressed=compressed))
        if self.random.random() < 0.8:
            self.watchers[-1].read()

    def disconnect(self) -> None:
        if self.watchers:
            self.watchers.pop(self.random.randrange(len(self.watchers))).session.close()

    def read(self) -> None:
        for watcher in self.watchers:
            if self.random.random() < 0.5:
                watcher.read()

    def compare(self) -> None:
        if self.watchers:
            self._check(self.random.choice(self.watchers))

    # promises

    def _check(self, watcher: Watcher) -> None:
        """It catches up, and has what a fresh stream gives; then it is quiet."""
        client = watcher.read_all()
        if watcher.session.ended:
            check(client.node.get("Expired"), "a deleted node's client was not told")
            return
        check(not watcher.read(), "a client that is up to date gets a message")
        fresh = self.net.open(watcher.node_id)
        expected = fresh.read_all().state()
        fresh.session.close()
        check_same(client, expected)
        self.checks += 1

    def _check_all(self) -> None:
        for watcher in self.watchers:
            self._check(watcher)

    def _check_against_facts(self) -> None:
        self.net.pass_time(3600)  # postponed endpoints are out by then
        restarted = self.net.fresh_world(self.net.world.primaries)
        for ident in self.net.facts.nodes:
            lived, fresh = (
                self.net.open(ident, world=world).read_all() for world in (self.net.world, restarted)
            )
            for peer in [*lived.peers.values(), *fresh.peers.values()]:
                peer["Endpoints"].sort()  # another order of the same is not told
            for netmap in [*lived.netmap.values(), *fresh.netmap.values()]:
                netmap["Endpoints"].sort()
            check_same(lived, fresh.state())

    # choices

    def _node(self) -> int:
        return self.random.choice(sorted(self.net.facts.nodes) or [self.net.add_node(user_id=self._user())])

    def _user(self) -> int:
        return self.random.choice(sorted(self.net.facts.users))

    def _prefixes(self) -> tuple[str, ...]:
        exits = EXIT_ROUTES if self.random.random() < 0.3 else ()
        return (*self.random.sample(PREFIXES[:3], self.random.randrange(4)), *exits)


def check_same(client: Client, expected: dict[str, object]) -> None:
    state = client.state()
    for name in expected:
        check(state[name] == expected[name], f"{name}: {_differences(state[name], expected[name])}")


def _differences(replayed: object, fresh: object) -> object:
    if isinstance(replayed, dict) and isinstance(fresh, dict):
        return {
            name: _differences(replayed.get(name), fresh.get(name))
            for name in replayed.keys() | fresh.keys()
            if replayed.get(name) != fresh.get(name)
        }
    return f"replayed {replayed}, fresh {fresh}"


STEPS: list[Callable[[History], None]] = [
    History.add_node, History.remove_node, History.announce, History.rekey, History.rename, History.there_and_back,
    History.change_owner, History.set_expiry, History.offer_routes, History.approve_routes, History.serve_routes,
    History.serve_routes, History.batch, History.user, History.user, History.endpoints, History.online,
    History.online, History.disco, History.home, History.capver, History.hostinfo, History.pass_time,
    History.rules, History.settings, History.connect, History.connect, History.connect, History.disconnect,
    History.read, History.read, History.read, History.compare,
]  # fmt: skip
