"""What happens to nodes in the course of their lives, as their peers see it: sentences of control.md §7.11 and §7.13.

Each client is followed by a model of the official one (`tests/control/mapper/client.py`), which refuses what would
confuse the original. Told elsewhere, in equal form: that a node is announced together with its home relay, that a
newer stream replaces an older without a moment offline, that ephemeral nodes vanish after their grace, and that a
revoked node is off map and relay within a second (all in `tests/control/machine/test_map.py`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from control.errors import Unavailable
from control.state.commands import CreateUser
from tests.control.mapper.client import Client
from tests.support.builders import node_key
from tests.support.coordination import ADMIN, LOGOUT, Coordination, FakeMachine, Json, coordination
from tests.support.memory_store import FULL, MemoryStore

PREFIX = "10.0.0.0/8"


class Follower:
    """An open map stream, read to its end as it comes. `map` is what the client has by now."""

    def __init__(self) -> None:
        self.map = Client(modern=True, compressed=False)
        self.messages: list[Json] = []  # without keep-alives
        self.status: int | None = None
        self.ended = False

    def news(self) -> list[Json]:
        """The messages since the last time."""
        news, self.messages = self.messages, []
        return news

    def peer(self, ident: int) -> Json:
        return self.map.peers[ident]


@asynccontextmanager
async def following(machine: FakeMachine, **fields: Any) -> AsyncIterator[Follower]:
    follower = Follower()

    async def read(*, task_status: trio.TaskStatus[None]) -> None:
        async with machine.poll(home=900, **fields) as poll:
            follower.status = poll.status
            task_status.started()
            async for message in poll.messages():
                follower.map.take(message)
                if not message.get("KeepAlive"):
                    follower.messages.append(message)
        follower.ended = True

    async with trio.open_nursery() as nursery:
        await nursery.start(read)
        await trio.sleep(1)
        yield follower
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def tailnet(machines: int, store: MemoryStore | None = None) -> AsyncIterator[tuple[Any, ...]]:
    """The service and that many machines of ann's: connected, logged in and announced, and without a stream."""
    async with coordination(store) as home, trio.open_nursery() as nursery:
        key = await home.key("ann", reusable=True)
        connected = []
        for number in range(1, machines + 1):
            connected.append(await nursery.start(_connected, home, number))
            await connected[-1].login(auth_key=key)
            async with connected[-1].poll(home=900) as poll:
                await poll.message()
        await trio.sleep(30)
        yield home, *connected
        nursery.cancel_scope.cancel()


async def _connected(home: Coordination, number: int, *, task_status: trio.TaskStatus[FakeMachine]) -> None:
    async with home.machine(number) as machine:
        task_status.started(machine)
        await trio.sleep_forever()


# expiry, deletion, logout


@pytest.mark.slow
async def test_an_expired_node_loses_its_peers_trust_and_keeps_its_stream_and_an_extension_heals_it(
    autojump_clock: MockClock,
) -> None:
    """K9, and control.md §12 no. 25."""
    async with tailnet(2) as (home, ann, bob), following(ann) as anns, following(bob) as bobs:
        anns.news()
        with trio.fail_after(1):
            await home.call("POST", "/nodes/2/expire")
            assert home.evicted == [node_key(2)]
        await trio.sleep(1)
        assert [list(message) for message in anns.news()] == [["PeersChanged"]]
        assert anns.peer(2)["Expired"] is True
        assert bobs.map.node["Expired"] is True
        assert bobs.map.peers == {}
        assert not home.service.admit(bytes(node_key(2)), "192.0.2.2")
        await trio.sleep(300)
        assert not bobs.ended
        await home.call("POST", "/nodes/2/extend", {"expiry_s": 3600})
        await trio.sleep(1)
        assert "Expired" not in anns.peer(2)
        assert anns.peer(2)["Online"] is True
        assert "Expired" not in bobs.map.node
        assert list(bobs.map.peers) == [1]
        assert home.service.admit(bytes(node_key(2)), "192.0.2.2")
        await trio.sleep(3600)
        assert anns.peer(2)["Expired"] is True  # by the clock, this time
        assert not bobs.ended


async def test_a_deleted_nodes_stream_ends_with_a_last_message_and_the_next_is_told_and_held(
    autojump_clock: MockClock,
) -> None:
    """control.md §6.7: were the second one ended too, the client would be back 80 times a second (tried.md)."""
    async with tailnet(2) as (home, ann, bob), following(ann) as anns:
        async with following(bob) as bobs:
            bobs.news()
            anns.news()
            await home.call("DELETE", "/nodes/2")
            await trio.sleep(1)
            assert [message["PeersRemoved"] for message in anns.news()] == [[2]]
            (last,) = bobs.news()
            assert last["Node"]["Expired"] is True
            assert bobs.ended
        async with following(bob) as bobs:
            (only,) = bobs.news()
            assert (only["Node"]["ID"], only["Node"]["Expired"]) == (2, True)
            await trio.sleep(600)
            assert not bobs.ended
            assert bobs.map.keep_alives > 5
        assert anns.news() == []  # nobody hears of it


async def test_a_logout_removes_an_ephemeral_node_at_once_and_expires_another(
    autojump_clock: MockClock,
) -> None:
    async with tailnet(2) as (home, ann, _), home.machine(3) as guest, following(ann) as anns:
        await guest.login(auth_key=await home.key(ephemeral=True))
        async with following(guest):
            assert anns.peer(3)["Online"] is True
            assert (await guest.register(Expiry=LOGOUT)) == {"NodeKeyExpired": True}
            await trio.sleep(1)
            assert set(home.nodes) == {1, 2}
            assert 3 not in anns.map.peers
        assert home.evicted == [node_key(3)]
        async with following(ann):
            await ann.register(Expiry=LOGOUT)
        assert home.nodes[1].expired(home.wall())


# coming and going


async def test_a_client_that_reconnects_unchanged_costs_the_others_nothing(autojump_clock: MockClock) -> None:
    """Within its grace; after it, one patch when it goes and one when it comes."""
    async with tailnet(3) as (home, ann, bob, _), following(ann) as anns:
        async with following(bob):
            pass
        await trio.sleep(5)
        anns.news()
        before = home.service.state.transactions
        async with following(bob):
            await trio.sleep(20)
        assert anns.news() == []
        await trio.sleep(30)
        async with following(bob):
            gone, back = anns.news()
            assert gone["PeersChangedPatch"][0]["Online"] is False
            assert back["PeersChangedPatch"] == [{"NodeID": 2, "Online": True}]
        assert anns.map.rebuilds == 1  # the first message
        assert home.service.state.transactions == before


async def test_peers_see_a_node_offline_after_its_grace_and_not_before(autojump_clock: MockClock) -> None:
    async with tailnet(2) as (home, ann, bob), following(ann) as anns:
        async with following(bob):
            pass
        left, anns.messages = home.wall(), []
        await trio.sleep(9)
        assert anns.news() == []
        await trio.sleep(3)
        (message,) = anns.news()
        (patch,) = message["PeersChangedPatch"]
        assert patch.keys() == {"NodeID", "Online", "LastSeen"}
        assert anns.peer(2)["Online"] is False
        assert home.service.state.volatile[2].last_seen == pytest.approx(left, abs=1)


# routes


async def _offer(home: Coordination, *routers: FakeMachine) -> None:
    for router in routers:
        router.hostinfo["RoutableIPs"] = [PREFIX]
        assert await router.update(home=900) == 200
    for node in home.nodes.values():
        if node.advertised:
            await home.call("POST", f"/nodes/{node.id}/routes/approve", {"routes": [PREFIX]})


def _routers(follower: Follower) -> list[int]:
    return [ident for ident, peer in follower.map.peers.items() if PREFIX in peer["AllowedIPs"]]


async def test_two_routers_fail_over_in_one_message_and_do_not_flap_back(autojump_clock: MockClock) -> None:
    async with tailnet(3) as (home, ann, first, second), following(ann) as anns, following(second) as seconds:
        async with following(first):
            await _offer(home, first, second)
            await trio.sleep(1)
            assert _routers(anns) == [2]
        anns.news()
        await trio.sleep(9)
        assert _routers(anns) == [2]  # within its grace
        await trio.sleep(3)
        (message,) = anns.news()
        changed = {peer["ID"]: PREFIX in peer["AllowedIPs"] for peer in message["PeersChanged"]}
        assert changed == {2: False, 3: True}
        assert PREFIX in seconds.map.node["AllowedIPs"]
        async with following(first) as firsts:  # back again, and registered earlier
            await trio.sleep(60)
            assert _routers(anns) == [3]
            assert _routers(firsts) == [3]
            assert not any("PeersChanged" in message for message in anns.news())


# the process


async def test_a_restart_moves_no_address_and_no_route_and_shows_nobody_offline_for_a_minute(
    autojump_clock: MockClock,
) -> None:
    """state.md A.13."""
    store = MemoryStore()
    async with tailnet(3, store) as (home, ann, first, second), following(second):
        await _offer(home, first, second)
        async with following(first), following(ann) as anns:
            await trio.sleep(1)
            before = anns.map.state()["peers"]
            assert _routers(anns) == [3]
    async with coordination(store) as home, home.machine(1) as ann, home.machine(2) as first:
        home.wall_offset = 1000
        first.hostinfo["RoutableIPs"] = [PREFIX]
        async with following(first), following(ann) as anns:
            assert anns.map.state()["peers"] == before
            assert home.service.api.presence.connected_count == 2  # what an administrator is told
            anns.news()
            await trio.sleep(55)
            assert anns.news() == []
            await trio.sleep(6)
            (message,) = anns.news()
            assert {peer["ID"]: PREFIX in peer["AllowedIPs"] for peer in message["PeersChanged"]} == {
                2: True,
                3: False,
            }
            assert anns.peer(3)["Online"] is False
            assert anns.peer(3)["Addresses"] == before[3]["Addresses"]


async def test_a_full_disk_is_read_only_and_polls_and_touches_go_on_and_it_ends_by_itself(
    autojump_clock: MockClock,
) -> None:
    """state.md A.11."""
    async with tailnet(2) as (home, ann, bob), following(ann) as anns, following(bob):
        await trio.sleep(6)
        anns.news()
        home.store.faults.extend([FULL] * 4)
        status, answer = await home.try_call("PATCH", "/nodes/2", {"name": "other"})
        assert (status, answer) == (503, {"error": "disk full", "hint": "free some space"})
        assert not home.service.healthy()
        assert (await home.call("GET", "/status"))["storage"] == "disk full"
        assert (await home.call("GET", "/nodes/2"))["name"] == "machine2"
        assert await bob.update(home=900, Endpoints=["192.0.2.2:2"]) == 200
        async with home.machine(9) as stranger:
            refused = await stranger.client.post("/machine/register", stranger.register_body(auth_key="x"))
            assert refused[0] == 429
        async with following(bob) as again:
            assert list(again.map.peers) == [1]
        await trio.sleep(1)
        assert anns.peer(2)["Endpoints"] == ["192.0.2.2:2"]
        assert anns.peer(2)["Name"].startswith("machine2.")
        await trio.sleep(20)
        assert home.service.healthy()
        await home.call("PATCH", "/nodes/2", {"name": "other"})
        await trio.sleep(1)
        assert anns.peer(2)["Name"].startswith("other.")


async def test_shutdown_ends_streams_between_two_messages_and_takes_no_more_commits(
    autojump_clock: MockClock,
) -> None:
    """state.md A.14, as `appliance/main.py` goes about it: drain, then end the state."""
    store = MemoryStore()
    async with trio.open_nursery() as process:
        home = Coordination(process, store)
        await home.start()
        key = await home.key("ann")
        async with home.machine(1) as ann:
            await ann.login(auth_key=key)
            async with following(ann) as anns:
                home.service.drain()
                await trio.sleep(1)
                assert anns.ended
                assert ann.client.terminated is not None  # new requests go elsewhere
                assert ann.client.terminated.error_code == 0
                with trio.fail_after(5):
                    await ann.client.wait_closed()
        process.cancel_scope.cancel()
    with pytest.raises(Unavailable):
        await home.service.state.submit(CreateUser(name="late"), ADMIN)
    assert store.closed
    assert store.disk.volatile[1].home_derp == 900  # flushed
