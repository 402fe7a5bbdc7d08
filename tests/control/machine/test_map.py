"""control/machine/map.py: lite updates and long polls over the wire (control.md §7)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from control.errors import NotFound
from control.state.commands import SYSTEM, AnnounceNode
from tests.support.builders import node_key
from tests.support.coordination import Coordination, FakeMachine, coordination
from tests.support.memory_store import FULL, MemoryStore


@asynccontextmanager
async def two_machines(**options: Any) -> AsyncIterator[tuple[Coordination, FakeMachine, FakeMachine]]:
    """Ann's and Bob's, logged in."""
    async with coordination(**options) as home, home.machine(1) as ann, home.machine(2) as bob:
        await ann.login(auth_key=await home.key("ann"))
        await bob.login(auth_key=await home.key("bob"))
        yield home, ann, bob


async def test_the_first_message_is_complete(autojump_clock: MockClock) -> None:
    async with two_machines() as (_, ann, _bob), ann.poll(home=900) as poll:
        first = await poll.message()
        assert {"Node", "DERPMap", "DNSConfig", "PacketFilters", "Domain", "UserProfiles"} <= first.keys()
        assert first["Node"]["Name"] == "machine1.tail.example."
        assert first["Node"]["Key"] == str(ann.node_key)
        assert first["Node"]["MachineAuthorized"] is True


async def test_a_node_is_announced_together_with_its_home_relay(autojump_clock: MockClock) -> None:
    """tried.md: or the first packets to it are lost."""
    async with two_machines() as (home, ann, bob), ann.poll(home=900) as poll:
        await poll.message()
        async with bob.poll():
            await trio.sleep(5)
            assert not home.nodes[2].announced
            await bob.update(home=900, Endpoints=["192.0.2.2:2"])
            peer = (await poll.until("PeersChanged"))["PeersChanged"][0]
            assert (peer["ID"], peer["HomeDERP"], peer["Online"]) == (2, 900, True)
            assert peer["Endpoints"] == ["192.0.2.2:2"]


async def test_a_node_is_announced_when_it_logs_in_to_our_relay(autojump_clock: MockClock) -> None:
    """Its client says that it runs only after that: by then the others know it, and its first packet is answered."""
    async with coordination(relay_region=900) as home, home.machine(1) as first, home.machine(2) as second:
        key = await home.key(reusable=True)
        await first.login(auth_key=key)
        await second.login(auth_key=key)
        assert home.service.admit(bytes(second.node_key), "192.0.2.2")  # without a stream: later
        async with first.poll() as poll, second.poll() as other:
            assert "Peers" not in await poll.message()
            await other.message()
            began = trio.current_time()
            assert home.service.admit(bytes(second.node_key), "192.0.2.2")
            (peer,) = (await poll.until("PeersChanged"))["PeersChanged"]
            assert (peer["ID"], peer["HomeDERP"]) == (2, 900)
            assert trio.current_time() - began < 1


async def test_a_node_without_a_home_relay_is_announced_after_ten_seconds(autojump_clock: MockClock) -> None:
    async with two_machines() as (home, _, bob), bob.poll():
        await trio.sleep(9)
        assert not home.nodes[2].announced
        await trio.sleep(3)
        assert home.nodes[2].announced


async def test_a_lite_update_does_not_announce_who_has_no_stream(autojump_clock: MockClock) -> None:
    async with two_machines() as (home, _, bob):
        await bob.update(home=900)
        await trio.sleep(30)
        assert not home.nodes[2].announced
        async with bob.poll():
            await trio.sleep(0.1)
            assert home.nodes[2].announced


async def test_map_contains_only_visible(autojump_clock: MockClock) -> None:
    """M1: Hostinfo is cut for peers; an expired node gets itself alone, and all again when it is extended."""
    async with two_machines() as (home, ann, bob):
        bob.hostinfo |= {"BackendLogID": "secret-log", "Distro": "debian", "RequestTags": []}
        async with ann.poll(home=900) as poll, bob.poll(home=900):
            await poll.message()
            peer = (await poll.until("PeersChanged"))["PeersChanged"][0]
            assert peer["Hostinfo"] == {"Hostname": "machine2", "OS": "linux"}
            assert "secret-log" not in str(peer)
        await home.call("POST", "/nodes/1/expire")
        async with ann.poll(home=900) as poll:
            first = await poll.message()
            assert not first.get("Peers")
            assert [profile["ID"] for profile in first["UserProfiles"]] == [1]
            await home.call("POST", "/nodes/1/extend", {"expiry_s": 3600})
            assert [peer["ID"] for peer in (await poll.until("PeersChanged"))["PeersChanged"]] == [2]


async def test_revoked_node_is_off_map_and_relay_within_1s(autojump_clock: MockClock) -> None:
    """K9: deleted by a command, or ended by the clock."""
    async with two_machines() as (home, ann, bob), ann.poll(home=900) as poll, bob.poll(home=900) as bobs:
        await poll.message()
        await poll.until("PeersChanged")
        await bobs.message()
        admit = home.service.admit
        assert admit(node_key(2), "192.0.2.2")
        with trio.fail_after(1):
            await home.call("DELETE", "/nodes/2")
            assert home.evicted == [node_key(2)]
            assert not admit(node_key(2), "192.0.2.2")
            assert (await poll.until("PeersRemoved"))["PeersRemoved"] == [2]
            last = (await bobs.until("Node"))["Node"]
        assert last["KeyExpiry"] < "2025-06-16"  # it shows NeedsLogin, and asks a person
        await home.call("POST", "/nodes/1/extend", {"expiry_s": 60})
        await trio.sleep(58)
        assert admit(node_key(1), "192.0.2.1")
        await trio.sleep(4)
        assert home.evicted == [node_key(2), node_key(1)]
        assert not admit(node_key(1), "192.0.2.1")


async def test_a_deleted_nodes_client_is_told_and_held(autojump_clock: MockClock) -> None:
    """control.md §6.7: also one that had no stream at the time; longer than a stranger may stay; not by a lite update."""
    async with two_machines() as (home, ann, bob):
        await home.call("DELETE", "/nodes/2")
        assert await bob.update() == 404
        async with bob.poll() as poll:
            first = await poll.message()
            assert first["Node"]["Key"] == str(bob.node_key)
            assert first["Node"]["KeyExpiry"] < "2025-06-16"
            assert first["DERPMap"]["Regions"]
            assert not first.get("Peers")
            for _ in range(3):
                assert (await poll.message())["KeepAlive"] is True
        ann.node_key = bob.node_key
        assert await ann.update() == 404
        status, _ = await ann.client.post("/machine/map", ann.map_body(Stream=True))
        assert status == 404  # not its own tombstone


async def test_a_one_shot_request_gets_one_message(autojump_clock: MockClock) -> None:
    async with two_machines() as (_, ann, _bob):
        status, body = await ann.client.post("/machine/map", ann.map_body())
        assert status == 200
        assert int.from_bytes(body[:4], "little") == len(body) - 4


async def test_host_name_and_routes_are_on_disk_before_the_answer(autojump_clock: MockClock) -> None:
    """state.md A.9."""
    async with two_machines() as (home, ann, _bob):
        ann.hostinfo |= {"Hostname": "Renamed", "RoutableIPs": ["10.0.0.0/8", "100.64.0.0/10", "nonsense"]}
        assert await ann.update() == 200
        node = home.store.disk.facts.nodes[1]
        assert (node.name, node.advertised) == ("renamed", ("10.0.0.0/8",))
        ann.hostinfo["RoutableIPs"] = None
        await ann.update()
        assert home.nodes[1].advertised == ()


async def test_a_lite_update_that_says_nothing_new_writes_nothing(autojump_clock: MockClock) -> None:
    """control.md §12 no. 40."""
    async with two_machines() as (home, ann, _bob):
        await ann.update(home=900)
        before = home.service.state.transactions
        for _ in range(3):
            await ann.update(home=900)
        assert home.service.state.transactions == before


async def test_a_read_only_request_writes_nothing(autojump_clock: MockClock) -> None:
    async with two_machines() as (home, ann, _bob):
        before = repr(home.service.state.volatile[1])
        assert await ann.update(ReadOnly=True, Endpoints=["192.0.2.1:1"]) == 200
        assert repr(home.service.state.volatile[1]) == before


async def test_presence_follows_the_stream_and_not_the_connection(autojump_clock: MockClock) -> None:
    async with two_machines() as (home, ann, _bob):
        async with ann.poll():
            await trio.sleep(100)
            assert home.service.state.volatile[1].online
        ended = home.wall()
        await trio.sleep(5)
        assert home.service.state.volatile[1].online  # in its grace
        await trio.sleep(10)
        record = home.service.state.volatile[1]
        assert not record.online
        assert record.last_seen == pytest.approx(ended, abs=1)


async def test_a_newer_stream_replaces_the_older_without_going_offline(autojump_clock: MockClock) -> None:
    async with two_machines() as (home, ann, bob), bob.poll(home=900) as poll:
        await poll.message()
        async with ann.poll(home=900) as old, home.machine(1) as elsewhere:
            await old.message()
            await poll.until("PeersChanged")
            async with elsewhere.poll() as new:
                await new.message()
                with trio.fail_after(5):
                    await old.response.wait_ended()
                await trio.sleep(60)
                assert home.service.state.volatile[1].online
                await home.call("PATCH", "/nodes/2", {"name": "other"})
                assert (await new.until("PeersChanged"))["PeersChanged"][0]["Name"] == "other.tail.example."
        with trio.move_on_after(5):
            message = await poll.until("PeersChangedPatch")
            assert "Online" not in message["PeersChangedPatch"][0]


# the disk refuses


async def test_endpoints_count_even_when_the_disk_is_full(autojump_clock: MockClock) -> None:
    """state.md A.11: the host name is lost for now, and the client repeats; where the node is, is not."""
    async with two_machines() as (home, ann, _bob):
        home.store.faults.append(FULL)
        ann.hostinfo["Hostname"] = "renamed"
        assert await ann.update(Endpoints=["192.0.2.1:1"]) == 503
        assert home.service.state.volatile[1].endpoints == ("192.0.2.1:1",)
        await trio.sleep(10)
        assert await ann.update(Endpoints=["192.0.2.1:1"]) == 200
        assert home.nodes[1].name == "renamed"


async def test_streams_are_served_while_the_disk_is_full(autojump_clock: MockClock) -> None:
    """state.md A.11: also to nodes that are not announced, or have another name, after a restart."""
    store = MemoryStore()
    async with two_machines(store=store):
        pass
    store.faults.extend([FULL] * 100)
    async with coordination(store=store) as home, home.machine(1) as ann:
        ann.hostinfo["Hostname"] = "renamed"
        async with ann.poll(home=900) as poll:
            assert poll.status == 200
            assert (await poll.message())["Node"]["Name"] == "machine1.tail.example."
        assert home.service.state.read_only


# restart


async def test_the_first_stream_after_a_restart_tells_everything(autojump_clock: MockClock) -> None:
    """state.md A.10: there is no lite update after a mere reconnect."""
    store = MemoryStore()
    async with two_machines(store=store) as (_, ann, bob), ann.poll(home=900), bob.poll(home=900):
        await ann.update(home=900, Endpoints=["192.0.2.1:1"])
        await trio.sleep(6)
    async with coordination(store=store) as home, home.machine(1) as ann:
        record = home.service.state.volatile[1]
        assert (record.online, record.endpoints, record.confirmed) == (True, ("192.0.2.1:1",), False)
        ann.hostinfo |= {"Hostname": "renamed", "RoutableIPs": ["10.0.0.0/8"]}
        async with ann.poll(Endpoints=["192.0.2.7:7"]) as poll:
            first = await poll.message()
            assert [peer["Online"] for peer in first["Peers"]] == [True]  # presumed, for a minute
            record = home.service.state.volatile[1]
            assert (record.endpoints, record.home_derp, record.confirmed) == (("192.0.2.7:7",), 900, True)
            assert (home.nodes[1].name, home.nodes[1].advertised) == ("renamed", ("10.0.0.0/8",))
            patch = (await poll.until("PeersChangedPatch"))["PeersChangedPatch"]
            assert (patch[0]["NodeID"], patch[0]["Online"]) == (2, False)


# ephemeral


@pytest.mark.slow
async def test_an_ephemeral_node_is_removed_after_its_grace(autojump_clock: MockClock) -> None:
    async with coordination() as home, home.machine(1) as device:
        await device.login(auth_key=await home.key(ephemeral=True))
        async with device.poll():
            await trio.sleep(3600)
        await trio.sleep(200)
        assert set(home.nodes) == {1}
        async with device.poll():  # a mere request would not do (control.md §12 no. 54)
            await trio.sleep(3600)
        await trio.sleep(200)
        await device.update()
        await trio.sleep(90)
        assert set(home.nodes) == {1}
        await trio.sleep(60)
        assert home.nodes == {}


async def test_an_ephemeral_node_that_never_comes_is_removed_too(autojump_clock: MockClock) -> None:
    async with coordination() as home, home.machine(1) as device:
        await device.login(auth_key=await home.key(ephemeral=True))
        await trio.sleep(310)
        assert home.nodes == {}


async def test_ephemeral_nodes_of_before_a_restart_have_their_grace_from_then(
    autojump_clock: MockClock,
) -> None:
    """state.md A.13."""
    store = MemoryStore()
    async with coordination(store=store) as home, home.machine(1) as device:
        await device.login(auth_key=await home.key(ephemeral=True))
        async with device.poll():
            await trio.sleep(10)
    async with coordination(store=store) as home:
        await trio.sleep(290)
        assert set(home.nodes) == {1}
        await trio.sleep(120)
        assert home.nodes == {}


# too much


async def test_too_many_requests_are_429(autojump_clock: MockClock) -> None:
    async with two_machines() as (_, ann, _bob):
        statuses = [await ann.update() for _ in range(25)]
        assert statuses == [200] * 20 + [429] * 5
        await trio.sleep(10)
        bodies = [await ann.client.post("/machine/map", ann.map_body()) for _ in range(12)]
        assert [status for status, _ in bodies] == [200] * 10 + [429] * 2


async def test_a_node_deleted_during_its_own_report_is_unknown(autojump_clock: MockClock) -> None:
    async with two_machines() as (home, ann, _bob):
        ann.hostinfo["Hostname"] = "renamed"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(home.call, "DELETE", "/nodes/1")
            status = await ann.update()
        assert status == 404
        with pytest.raises(NotFound):
            await home.service.state.submit(AnnounceNode(node_id=1), SYSTEM)


async def test_a_request_without_hostinfo_says_nothing_and_another_spelling_counts(
    autojump_clock: MockClock,
) -> None:
    """Tailscale's Rust library writes HostInfo; Go's decoder does not mind the case."""
    async with coordination() as home, home.machine(1) as device:
        await device.login(auth_key=await home.key())
        for body in (
            {"Version": 142, "NodeKey": str(device.node_key), "OmitPeers": True},
            {"Version": 142, "NodeKey": str(device.node_key), "OmitPeers": True, "Hostinfo": None},
        ):
            assert (await device.client.post("/machine/map", body))[0] == 200
        (node,) = home.nodes.values()
        assert node.name == "machine1"
        spelt = {"HostInfo": {"Hostname": "rusty", "NetInfo": {"PreferredDERP": 900}}}
        body = {"Version": 142, "NodeKey": str(device.node_key), "OmitPeers": True} | spelt
        assert (await device.client.post("/machine/map", body))[0] == 200
        (node,) = home.nodes.values()
        assert (node.name, home.service.state.volatile[node.id].home_derp) == ("rusty", 900)
