"""The whole coordination service over memory: real rules, real state, real Noise and HTTP/2, no disk and no sockets.

    async with coordination() as home:
        key = await home.key(user="ann")
        async with home.machine(1) as ann:
            await ann.login(auth_key=key)
            async with ann.poll() as poll:
                first = await poll.message()

Wall clock and trio's clock move together, so a test with `autojump_clock` passes hours in no time.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from trio.testing import MemoryReceiveStream, MemorySendStream, memory_stream_pair

from control.keys import DiscoPublic, MachinePublic, NodePublic
from control.mapper.settings import NetmapSettings
from control.model import Node
from control.service import ControlService
from control.state.commands import Actor
from control.tailcfg.derpmap import DERPMap, DERPNode, DERPRegion
from tests.support.builders import NOW, node_key
from tests.support.memory_store import InlineWriter, MemoryStore
from tests.support.noise_client import FakeControlClient, Response, read_upgrade

Json = dict[str, Any]

ADMIN = Actor(kind="local", id="uid:0")
NOISE_KEY = X25519PrivateKey.from_private_bytes(b"s" * 32)
REGION = 900
NODE = DERPNode(name="900a", region_id=REGION, host_name="hs.example")
REGIONS = {str(REGION): DERPRegion(region_id=REGION, region_code="home", region_name="Home", nodes=[NODE])}
SETTINGS = NetmapSettings(domain="tail.example", derp_map=DERPMap(regions=REGIONS))
LOGOUT = "1970-01-01T00:02:03Z"


REGISTER_RESPONSE = {
    "User", "Login", "NodeKeyExpired", "MachineAuthorized", "AuthURL", "NodeKeySignature", "Error",
}  # fmt: skip


class Coordination:
    """A running `ControlService`. `wall_offset` moves the wall clock alone, like a wrong time server."""

    def __init__(self, nursery: trio.Nursery, store: MemoryStore, **options: Any) -> None:
        self.nursery, self.store = nursery, store
        self.began_at, self.wall_offset = trio.current_time(), 0.0
        self.evicted: list[NodePublic] = []
        self.killed = False
        self._wires: list[trio.StapledStream[MemorySendStream, MemoryReceiveStream]] = []
        self.service = ControlService(
            store,
            noise_key=NOISE_KEY,
            pepper=b"p" * 32,
            settings=SETTINGS,
            server_url="https://hs.example",
            evict=lambda raw: self.evicted.append(NodePublic(raw)),
            overview=lambda: {"version": "1"},
            wall=self.wall,
            **options,
        )
        self.service.state._make_writer = InlineWriter  # a thread does not know the virtual clock

    def wall(self) -> float:
        return NOW + trio.current_time() - self.began_at + self.wall_offset

    async def start(self) -> None:
        await self.nursery.start(self.service.state.run)
        self.service.open()
        await self.nursery.start(self.service.run)

    def kill(self) -> None:
        """As by a signal: nothing leaves the process any more. What has left can still be read, to an end of file."""
        self.killed = True
        for wire in self._wires:
            wire.send_stream.close()
        self.nursery.cancel_scope.cancel()

    @property
    def nodes(self) -> dict[int, Node]:
        return dict(self.service.state.durable.nodes)

    async def call(
        self, method: str, path: str, body: Json | bytes = b"", by: Actor = ADMIN, **query: str
    ) -> Any:
        """The answer of an administrator's call, which must succeed."""
        status, answer = await self.try_call(method, path, body, by, **query)
        assert status == 200, answer
        return answer

    async def try_call(
        self, method: str, path: str, body: Json | bytes = b"", by: Actor = ADMIN, **query: str
    ) -> tuple[int, Any]:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.service.api.handle(method, f"/api/v1{path}", query, raw, by)

    async def user(self, name: str) -> Json:
        found: Json = await self.call("POST", "/users", {"name": name})
        return found

    async def key(self, user: str | None = "ann", **fields: Any) -> str:
        """A new auth key; of a user who is created if need be."""
        if user is not None and user not in self.service.state.durable.users_by_name:
            await self.user(user)
        minted = await self.call("POST", "/keys", {"user": user} | fields)
        text: str = minted["key"]
        return text

    @asynccontextmanager
    async def machine(
        self, number: int, remote: str = "192.0.2.1", version: int = 142
    ) -> AsyncIterator[FakeMachine]:
        """A connection of the machine with this number; its node key is `node_key(number)` unless it says otherwise."""
        ours, theirs = memory_stream_pair()
        self._wires.append(theirs)
        private = X25519PrivateKey.from_private_bytes(number.to_bytes(32, "big"))

        async def serve() -> None:
            initiation, preface = await read_upgrade(theirs)
            await self.service.serve(theirs, initiation, remote, preface)

        self.nursery.start_soon(serve)
        client = await FakeControlClient.connect(
            ours, NOISE_KEY.public_key().public_bytes_raw(), private, version
        )
        self.nursery.start_soon(client.wait_closed)  # awake: it answers pings whatever the test waits for
        try:
            yield FakeMachine(client, number, MachinePublic(private.public_key().public_bytes_raw()))
        finally:
            self._wires.remove(theirs)
            await trio.aclose_forcefully(ours)


@asynccontextmanager
async def coordination(store: MemoryStore | None = None, **options: Any) -> AsyncIterator[Coordination]:
    """Started, and stopped at the end; the same store again is a restart."""
    async with trio.open_nursery() as nursery:
        home = Coordination(nursery, store or MemoryStore(), **options)
        await home.start()
        yield home
        nursery.cancel_scope.cancel()


def said(answer: Json) -> Json:
    """A register answer as a client reads it: Go's zero values, which are always sent, say nothing."""
    assert answer.keys() == REGISTER_RESPONSE, answer
    silent = ("", False, None)
    return {
        name: value
        for name, value in answer.items()
        if value not in silent and not (isinstance(value, dict) and not value["ID"])
    }


class FakeMachine:
    """A device with an official client's manners."""

    def __init__(self, client: FakeControlClient, number: int, key: MachinePublic) -> None:
        self.client, self.key = client, key
        self.node_key = node_key(number)
        self.hostinfo: Json = {"Hostname": f"machine{number}", "OS": "linux", "IPNVersion": "1.102.5-t1"}
        self.disco_key = DiscoPublic(b"d" + number.to_bytes(31, "big"))

    def register_body(self, *, auth_key: str = "", **fields: Any) -> Json:
        body: Json = {"Version": 142, "NodeKey": str(self.node_key), "Hostinfo": self.hostinfo}
        body |= {"OldNodeKey": str(NodePublic(bytes(32))), "Expiry": "0001-01-01T00:00:00Z", "Followup": ""}
        if auth_key:
            body["Auth"] = {"AuthKey": auth_key}
        return body | fields

    async def register(self, **fields: Any) -> Json:
        """The answer to a registration, whatever it says."""
        status, body = await self.client.post("/machine/register", self.register_body(**fields))
        assert status == 200, (status, body)
        return said(json.loads(body))

    async def login(self, **fields: Any) -> Json:
        """A registration that must succeed."""
        answer = await self.register(**fields)
        assert answer.get("Login"), answer
        return answer

    def map_body(self, *, home: int = 0, **fields: Any) -> Json:
        hostinfo = self.hostinfo | ({"NetInfo": {"PreferredDERP": home}} if home else {})
        body: Json = {"Version": 142, "NodeKey": str(self.node_key), "DiscoKey": str(self.disco_key)}
        return body | {"KeepAlive": True, "Hostinfo": hostinfo} | fields

    async def update(self, **fields: Any) -> int:
        """A lite update; its status."""
        status, body = await self.client.post("/machine/map", self.map_body(OmitPeers=True, **fields))
        assert status != 200 or body == b""
        return status

    @asynccontextmanager
    async def poll(self, **fields: Any) -> AsyncIterator[Poll]:
        async with self.client.stream("/machine/map", self.map_body(Stream=True, **fields)) as response:
            yield Poll(response)


class Poll:
    """An open map stream, plain JSON in it."""

    def __init__(self, response: Response) -> None:
        self.response = response

    @property
    def status(self) -> int | None:
        return self.response.status

    async def message(self) -> Json:
        """The next message, keep-alives too."""
        size = int.from_bytes(await self.response.receive_exactly(4), "little")
        found: Json = json.loads(await self.response.receive_exactly(size))
        return found

    async def messages(self) -> AsyncIterator[Json]:
        """All of them, until the server ends the stream."""
        response = self.response
        while True:
            await response.client.until(lambda: len(response.data) >= 4 or response.ended)
            if not response.data:
                return
            yield await self.message()

    async def until(self, member: str) -> Json:
        """The next message that has this member, within five minutes."""
        with trio.fail_after(300):
            while True:
                message = await self.message()
                if member in message:
                    return message
