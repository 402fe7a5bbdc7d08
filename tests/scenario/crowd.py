"""A tailnet's daily life in fast motion, over a server that dies again and again.

Six devices and two administrators do what comes to their minds, and the recorder hears everything they are told. The
disk refuses now and then, or fails in a way that ends the process; at the end of each life the process is killed or
stopped, and the next one starts from what the disk holds. All of it follows from one seed.
"""

from __future__ import annotations

import json
import random  # noqa: TID251 - seeds, so that a history can be told again
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from control.keys import NodePublic
from control.prefixes import routable
from control.state.writer import Job
from tests.control.mapper.client import Client
from tests.scenario.recorder import Recorder
from tests.support.builders import DAY, NOW, node_key
from tests.support.coordination import LOGOUT, Coordination, FakeMachine, Json, Poll, said
from tests.support.memory_store import FULL, Fault, MemoryStore
from tests.support.noise_client import ServerClosed

DEVICES = 6
ADMINISTRATORS = 2
PAUSE_S = 0.15  # on average, between two things that one of them does
COMMIT_S = 0.06  # at most, before and after the moment at which a transaction is on the disk
TROUBLE_S = 8.0  # on average, between two failures of the disk
HOSTNAMES = ("laptop", "Phone", "nas", "build server")
ROUTES = ("10.0.0.0/8", "192.168.7.0/24", "2001:db8::/64", "0.0.0.0/0", "::/0")
TAGS = ("tag:server", "tag:ci")


class Died(Exception):
    """The process is gone, and with it whatever was not on the disk."""


class Disk(MemoryStore):
    """Cut off, it writes nothing any more."""

    cut = False

    def _fault(self) -> Fault | None:
        if self.cut:
            raise Died
        return super()._fault()


class SlowWriter:
    """`control.state.writer.Writer` over the virtual clock: a process may die before and after each transaction."""

    def __init__(self, nursery: trio.Nursery, rng: random.Random) -> None:
        self._nursery, self._rng = nursery, rng

    def start(self, job: Job) -> None:
        self._nursery.start_soon(self._work, job)

    async def _work(self, job: Job) -> None:
        with trio.CancelScope(shield=True):  # like a thread
            await trio.sleep(self._rng.uniform(0, COMMIT_S))
            job.run()
            await trio.sleep(self._rng.uniform(0, COMMIT_S))
        job.done.set()

    def stop(self) -> None:
        pass


class History:
    """`run` raises `Broken` when a promise is."""

    def __init__(self, seed: int, *, lives: int = 4) -> None:
        self.seed, self.lives = seed, lives
        self.random = random.Random(seed)
        self.disk = Disk()
        self.recorder = Recorder(self.disk)
        self.devices = [Device(self, number) for number in range(1, DEVICES + 1)]
        self.auth_keys: list[tuple[str, str]] = []  # id and text
        self.urls: list[str] = []
        self.numbers = 100
        self.over = False  # this life of the process
        self.ends: Counter[str] = Counter()

    def run(self) -> None:
        setattr(trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)  # noqa: B010  (as pytest-trio does)
        trio._core._run._r.seed(self.seed)
        try:
            trio.run(self._run, clock=MockClock(autojump_threshold=0))
        except BaseException as exc:
            exc.add_note(f"in history {self.seed}")
            raise

    async def _run(self) -> None:
        began_at = trio.current_time()
        for _ in range(self.lives):
            await self._live(began_at)
            self.recorder.check(now=NOW + DAY)  # no history lasts longer

    async def _live(self, began_at: float) -> None:
        """One life of the process, and of those who talk to it."""
        self.over, self.disk.cut = False, False
        self.disk.faults.clear()
        async with trio.open_nursery() as people:
            try:
                async with trio.open_nursery() as process:
                    home = Coordination(process, self.disk)
                    home.began_at = began_at
                    home.service.state._make_writer = lambda: SlowWriter(process, self.random)
                    home.service.state._fatal = partial(self._die, home)
                    await home.start()
                    assert home.service.state.durable == self.disk.disk.facts
                    for device in self.devices:
                        people.start_soon(device.live, home)
                    for _ in range(ADMINISTRATORS):
                        people.start_soon(Administrator(self, home).live)
                    await self._fate(home)
            except* Died:
                pass
            await wait_all_tasks_blocked()  # by then everybody has read whatever had left
            people.cancel_scope.cancel()

    async def _fate(self, home: Coordination) -> None:
        with trio.move_on_after(self.random.uniform(0.3, 8)):
            while True:
                await trio.sleep(self.random.expovariate(1 / TROUBLE_S))
                self.disk.faults.append(
                    self.random.choice([FULL, FULL, Fault(Died(), after=False), Fault(Died(), after=True)])
                )
        if self.random.random() < 0.75:
            self._die(home)
        else:
            self.over = True
            self.ends["in good order"] += 1
            home.nursery.cancel_scope.cancel()

    def _die(self, home: Coordination, error: BaseException | None = None) -> None:
        """At once, and count at which point of a transaction."""
        if not self.over:
            state = home.service.state
            waits = "before its COMMIT" if state.backlog else "at rest"
            self.ends["after its COMMIT" if self.disk.disk.facts.seq > state.durable.seq else waits] += 1
        self.over = self.disk.cut = True
        home.kill()

    # for those who live here

    async def pause(self) -> None:
        await trio.sleep(self.random.expovariate(1 / PAUSE_S))

    def number(self) -> int:
        """One that was never used."""
        self.numbers += 1
        return self.numbers

    def some(self, of: Sequence[str]) -> list[str]:
        return self.random.sample(of, self.random.randint(0, len(of)))


class Device:
    """It remembers its keys over the lives of the server, as a disk of its own would."""

    def __init__(self, history: History, number: int) -> None:
        self.history, self.random, self.recorder = history, history.random, history.recorder
        self.machine = number
        self.node_key = node_key(number)
        self.hostname = f"machine{number}"
        self.routes: list[str] = []
        self.logged_in_with: NodePublic | None = None

    async def live(self, home: Coordination) -> None:
        while not self.history.over:
            try:
                async with home.machine(self.machine) as wire:
                    await self._use(wire)
            except* ServerClosed:
                pass
            await self.history.pause()

    async def _use(self, wire: FakeMachine) -> None:
        """One connection."""
        self._dress(wire)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen, wire)
            for _ in range(self.random.randint(3, 25)):
                await self.history.pause()
                act = self.random.choice(DEVICE_ACTS)
                await act(self, wire)
                self._dress(wire)
            nursery.cancel_scope.cancel()

    def _dress(self, wire: FakeMachine) -> None:
        wire.node_key = self.node_key
        wire.hostinfo |= {"Hostname": self.hostname, "RoutableIPs": self.routes}

    async def _listen(self, wire: FakeMachine) -> None:
        while True:
            await self.history.pause()
            async with wire.poll(home=900, Endpoints=[f"192.0.2.{self.machine}:41641"]) as poll:
                if poll.status == 200:
                    await self._hear(poll)

    async def _hear(self, poll: Poll) -> None:
        model = Client(modern=self.machine % 2 == 0, compressed=False)
        async for message in poll.messages():
            model.take(message)
            self.recorder.map_message(message, f"a map message to {self.machine}: {message}")

    # what it does

    async def _register(self, wire: FakeMachine, **fields: Any) -> Json:
        self._dress(wire)
        wanted = str(wire.node_key)
        body = wire.register_body(**fields)
        status, raw = await wire.client.post("/machine/register", body)
        answer: Json = said(json.loads(raw)) if status == 200 else {}
        if answer.get("Login"):
            self.logged_in_with = wire.node_key
            self.recorder.login(wire.key, wanted, answer)
            self.recorder.update(wanted, self.hostname, routable(self.routes))
        elif answer.get("NodeKeyExpired") and "Expiry" not in fields:
            self.node_key = node_key(self.history.number())
        return answer

    async def log_in(self, wire: FakeMachine) -> None:
        if self.history.auth_keys:
            _, text = self.random.choice(self.history.auth_keys[-6:])
            await self._register(wire, auth_key=text)

    async def log_in_anew(self, wire: FakeMachine) -> None:
        self.node_key = node_key(self.history.number())
        await self.log_in(wire)

    async def restart(self, wire: FakeMachine) -> None:
        await self._register(wire)

    async def ask_a_person(self, wire: FakeMachine) -> None:
        answer = await self._register(wire)
        if url := answer.get("AuthURL"):
            self.history.urls.append(url)
            await self._register(wire, Followup=url)

    async def report(self, wire: FakeMachine) -> None:
        self.hostname = self.random.choice(HOSTNAMES)
        self.routes = self.history.some(ROUTES)
        self._dress(wire)
        if await wire.update(home=900) == 200:
            self.recorder.update(wire.node_key, self.hostname, routable(self.routes))

    async def log_out(self, wire: FakeMachine) -> None:
        known = self.logged_in_with == self.node_key
        if self.random.random() < 0.3 and (await self._register(wire, Expiry=LOGOUT)) and known:
            self.recorder.logout(wire.key, self.node_key)


DEVICE_ACTS = [
    Device.log_in, Device.log_in, Device.log_in_anew, Device.restart, Device.ask_a_person, Device.report,
    Device.report, Device.log_out,
]  # fmt: skip


class Administrator:
    def __init__(self, history: History, home: Coordination) -> None:
        self.history, self.home = history, home
        self.random, self.recorder = history.random, history.recorder

    async def live(self) -> None:
        while not self.history.over:
            act = self.random.choice(ADMINISTRATOR_ACTS)
            await act(self)
            await self.history.pause()

    async def _ask(self, method: str, path: str, body: Json | None = None) -> Json | None:
        status, answer = await self.home.try_call(method, path, body or {}, with_nodes="1")
        if self.home.killed:
            return None  # it never left
        if status == 200:
            self.recorder.api_answer(method, path, answer)
            return answer if isinstance(answer, dict) else None
        if status == 503 and (method, path) == ("POST", "/users") and body:
            self.recorder.refused_names.add(body["name"])
        return None

    def _node(self) -> str:
        return str(self.random.choice([*self.home.nodes, 1]))

    def _user(self) -> str:
        return str(self.random.choice([*self.home.service.state.durable.users, 1]))

    async def look(self) -> None:
        await self._ask("GET", self.random.choice(["/nodes", "/users", "/keys", f"/nodes/{self._node()}"]))

    async def create_user(self) -> None:
        await self._ask("POST", "/users", {"name": f"user{self.history.number()}"})

    async def rename_user(self) -> None:
        await self._ask("PATCH", f"/users/{self._user()}", {"name": f"user{self.history.number()}"})

    async def delete_user(self) -> None:
        if self.random.random() < 0.2:
            await self._ask("DELETE", f"/users/{self._user()}")

    async def create_key(self) -> None:
        tags = self.history.some(TAGS) if self.random.random() < 0.2 else []
        body: Json = {"tags": tags, "reusable": self.random.random() < 0.4}
        body["ephemeral"] = self.random.random() < 0.1
        made = await self._ask("POST", "/keys", body | ({} if tags else {"user": self._user()}))
        if made:
            self.history.auth_keys.append((made["id"], made["key"]))

    async def revoke_key(self) -> None:
        if self.history.auth_keys:
            await self._ask("DELETE", f"/keys/{self.random.choice(self.history.auth_keys)[0]}")

    async def approve_login(self) -> None:
        if self.history.urls:
            ident = self.history.urls.pop().rsplit("/", 1)[-1]
            await self._ask("POST", f"/logins/{ident}/approve", {"user": self._user()})

    async def rename_node(self) -> None:
        name = self.random.choice(["", f"node{self.history.number()}"])
        await self._ask("PATCH", f"/nodes/{self._node()}", {"name": name})

    async def tag_node(self) -> None:
        if self.random.random() < 0.3:
            await self._ask("PUT", f"/nodes/{self._node()}/tags", {"tags": self.history.some(TAGS)})

    async def end_login(self) -> None:
        await self._ask("POST", f"/nodes/{self._node()}/expire")

    async def extend_login(self) -> None:
        until = self.random.choice([None, 60, 3600, 86400])
        await self._ask("POST", f"/nodes/{self._node()}/extend", {"expiry_s": until})

    async def approve_routes(self) -> None:
        await self._ask(
            "POST", f"/nodes/{self._node()}/routes/approve", {"routes": self.history.some(ROUTES)}
        )

    async def revoke_routes(self) -> None:
        await self._ask("POST", f"/nodes/{self._node()}/routes/revoke", {"routes": self.history.some(ROUTES)})

    async def delete_node(self) -> None:
        await self._ask("DELETE", f"/nodes/{self._node()}")


ADMINISTRATOR_ACTS = [
    Administrator.look, Administrator.look, Administrator.create_user, Administrator.rename_user,
    Administrator.delete_user, Administrator.create_key, Administrator.create_key, Administrator.create_key,
    Administrator.revoke_key, Administrator.approve_login, Administrator.approve_login, Administrator.rename_node,
    Administrator.tag_node, Administrator.end_login, Administrator.extend_login, Administrator.extend_login,
    Administrator.approve_routes, Administrator.approve_routes, Administrator.revoke_routes,
    Administrator.delete_node,
]  # fmt: skip
