"""What a session sends for what happened (control.md §7.11), member by member."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from control.keys import NodePublic
from control.mapper.session import Session, deleted_message
from control.model import TAGGED_USER_ID
from control.state.volatile import Volatile
from control.tailcfg.hostinfo import Hostinfo, Service, parse_hostinfo
from tests.control.mapper.client import Json, documents
from tests.control.mapper.tailnet import NOW, Tailnet, Watcher, derp_map, key


@pytest.fixture
def tailnet() -> Tailnet:
    net = Tailnet(users=2, nodes=2)
    net.touch(2, "derp", home_derp=900)
    return net


def messages(watcher: Watcher) -> list[Json]:
    """Everything that the session has to say, also taken by the model client."""
    found = []
    while watcher.session.stale and not watcher.session.ended:
        data = watcher.session.next_message(watcher.tailnet.now)
        if data is not None:
            found += documents(data, watcher.client.compressed)
            watcher.client.receive(data)
    return found


def expire(net: Tailnet) -> None:
    net.change(2, expires_at=net.now + 5)
    net.pass_time(6)


CASES: dict[str, tuple[Callable[[Tailnet], Any], list[dict[str, Any]]]] = {
    "endpoints": (
        lambda net: net.endpoints(2, "192.0.2.1:1"),
        [{"PeersChangedPatch": [{"NodeID": 2, "Endpoints": ["192.0.2.1:1"]}]}],
    ),
    "home relay": (
        lambda net: net.touch(2, "derp", home_derp=901),
        [{"PeersChangedPatch": [{"NodeID": 2, "DERPRegion": 901}]}],
    ),
    "online": (lambda net: net.online(2, True), [{"PeersChangedPatch": [{"NodeID": 2, "Online": True}]}]),
    "version": (
        lambda net: net.touch(2, "cap", capver=130),
        [{"PeersChangedPatch": [{"NodeID": 2, "Cap": 130}]}],
    ),
    "removed": (lambda net: net.remove(2), [{"PeersRemoved": [2]}]),
    "domain of the relay": (
        lambda net: net.set_settings(derp_map=derp_map(901)),
        [{"DERPMap": {"Regions": {"901": {
            "RegionID": 901, "RegionCode": "home", "RegionName": "Home",
            "Nodes": [{"Name": "901a", "RegionID": 901, "HostName": "hs.example"}],
        }}}}],
    ),
    "resolvers": (
        lambda net: net.set_settings(resolvers=("9.9.9.9",), split_dns={"corp.example": ("10.0.0.53",)}),
        [{"DNSConfig": {
            "Resolvers": [{"Addr": "9.9.9.9"}],
            "Routes": {"corp.example": [{"Addr": "10.0.0.53"}], "tail.example": []},
            "Domains": ["tail.example"], "Proxied": True,
        }}],
    ),
    "user renamed": (
        lambda net: net.change_user(1, display_name="Ann"),
        [{"UserProfiles": [{"ID": 1, "LoginName": "user1@", "DisplayName": "Ann"}]}],
    ),
    "a user whom the client does not know": (lambda net: net.change_user(2, display_name="Bob"), []),
    "nothing": (lambda net: net.change(2, hostname="as reported"), []),
    "unannounced node": (lambda net: net.add_node(announced=False), []),
    "home relay gone: removed, then added": (
        lambda net: net.touch(2, "derp", home_derp=0),
        [{"PeersRemoved": [2]}, {"PeersChanged": ...}],
    ),
    "renamed": (lambda net: net.change(2, name="beta"), [{"PeersChanged": ...}]),
    "of another user": (lambda net: net.change(2, user_id=2), [{"PeersChanged": ..., "UserProfiles": ...}]),
    "tagged": (
        lambda net: net.change(2, user_id=None, tags=("tag:a",)),
        [{"PeersChanged": ..., "UserProfiles": [
            {"ID": TAGGED_USER_ID, "LoginName": "tagged-devices", "DisplayName": "Tagged Devices"}]}],
    ),
    "expired": (expire, [{"PeersChanged": ..., "PeersChangedPatch": ...}]),
    "announced": (lambda net: net.add_node(user_id=2), [{"PeersChanged": ..., "UserProfiles": ...}]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_event_sends_no_more_than_it_must(tailnet: Tailnet, case: str) -> None:
    event, expected = CASES[case]
    watcher = tailnet.open(1)
    messages(watcher)
    event(tailnet)
    sent = messages(watcher)
    assert [message.keys() for message in sent] == [
        message.keys() for message in expected
    ] or case == "expired"
    for message, wanted in zip(sent, expected, strict=True):
        assert {name: message[name] for name in wanted if wanted[name] is not ...} == {
            name: value for name, value in wanted.items() if value is not ...
        }


def test_going_offline_tells_when_it_was_last_seen(tailnet: Tailnet) -> None:
    tailnet.online(2, True)
    watcher = tailnet.open(1)
    messages(watcher)
    tailnet.pass_time(7)
    tailnet.online(2, False)
    assert messages(watcher) == [
        {"PeersChangedPatch": [{"NodeID": 2, "Online": False, "LastSeen": "2025-06-15T15:06:47Z"}]}
    ]


def test_own_lite_update_sends_itself_nothing(tailnet: Tailnet) -> None:
    watcher = tailnet.open(1)
    messages(watcher)
    tailnet.endpoints(1, "192.0.2.1:1")
    tailnet.touch(1, "derp", home_derp=900)
    tailnet.disco(1, 5)
    assert messages(watcher) == []


def test_new_node_key_is_a_patch_and_a_new_self(tailnet: Tailnet) -> None:
    watchers = tailnet.open(1), tailnet.open(2)
    for watcher in watchers:
        messages(watcher)
    new = key(NodePublic, 77)
    tailnet.change(2, node_key=new, expires_at=NOW + 1000)
    assert messages(watchers[0]) == [
        {"PeersChangedPatch": [{"NodeID": 2, "Key": str(new), "KeyExpiry": "2025-06-15T15:23:20Z"}]}
    ]
    (own,) = messages(watchers[1])
    assert own.keys() == {"ControlTime", "Node"}
    assert own["Node"]["Key"] == str(new)


def test_key_that_no_longer_expires_is_told(tailnet: Tailnet) -> None:
    tailnet.change(2, expires_at=NOW + 1000)
    watcher = tailnet.open(1)
    messages(watcher)
    tailnet.change(2, expires_at=None)
    (message,) = messages(watcher)
    assert message["PeersChangedPatch"][0]["KeyExpiry"] == "0001-01-01T00:00:00Z"
    assert "KeyExpiry" not in watcher.client.peers[2]


def test_first_message_is_complete(tailnet: Tailnet) -> None:
    tailnet.touch(
        1,
        "body",
        hostinfo=Hostinfo(os="linux", hostname="alpha", services=[Service(proto="peerapi4", port=1)]),
    )
    (first,) = messages(tailnet.open(1))
    assert list(first) == [
        "ControlTime", "Node", "Debug", "CollectServices", "Domain", "DERPMap", "DNSConfig", "PacketFilters",
        "SSHPolicy", "UserProfiles", "Peers",
    ]  # fmt: skip
    assert first["Node"]["Name"] == "node1.tail.example."
    assert first["Node"]["MachineAuthorized"]
    assert first["Node"]["Addresses"] == first["Node"]["AllowedIPs"]
    assert first["Node"]["CapMap"] == {
        "https://tailscale.com/cap/file-sharing": None,
        "cache-network-maps": None,
    }
    assert first["Debug"] == {"DisableLogTail": True}
    assert first["DNSConfig"] == {
        "Proxied": True,
        "Domains": ["tail.example"],
        "Routes": {"tail.example": []},
    }
    assert first["PacketFilters"]["base"][0]["SrcIPs"] == ["*"]
    assert first["SSHPolicy"] == {"rules": []}
    assert first["Peers"][0]["HomeDERP"] == 900


def test_peers_learn_only_the_allowed_part_of_hostinfo(tailnet: Tailnet) -> None:
    raw = (
        b'{"OS":"linux","OSVersion":"secret","IPNVersion":"secret","Hostname":"beta","RoutableIPs":["10.0.0.0/8"],'
        b'"Services":[{"Proto":"tcp","Port":22,"Description":"secret"},{"Proto":"peerapi4","Port":5}],'
        b'"BackendLogID":"secret","NetInfo":{"PreferredDERP":900}}'
    )
    tailnet.touch(2, "body", hostinfo=parse_hostinfo(raw))
    client = tailnet.open(1).read_all()
    assert client.peers[2]["Hostinfo"] == {
        "OS": "linux",
        "Hostname": "beta",
        "Services": [{"Proto": "peerapi4", "Port": 5}],
    }


def test_only_a_node_sees_no_peers_member() -> None:
    (first,) = messages(Tailnet(nodes=1).open(1))
    assert "Peers" not in first


@pytest.mark.parametrize("role", ["owner", "admin", "member"])
def test_admins_are_told_so(tailnet: Tailnet, role: str) -> None:
    watcher = tailnet.open(1)
    client = watcher.read_all()
    tailnet.change_user(1, role=role)
    watcher.read_all()
    assert ("https://tailscale.com/cap/is-admin" in client.node["CapMap"]) == (role != "member")


def test_magic_dns_off_routes_nothing() -> None:
    tailnet = Tailnet(nodes=1)
    tailnet.set_settings(magic_dns=False, client_logs=True)
    (first,) = messages(tailnet.open(1))
    assert first["DNSConfig"] == {}
    assert "Debug" not in first


def test_deleted_node_is_told_and_ends(tailnet: Tailnet) -> None:
    watcher = tailnet.open(2)
    messages(watcher)
    tailnet.remove(2)
    (last,) = messages(watcher)
    assert last["Node"]["Expired"]
    assert last["Node"]["KeyExpiry"] < last["ControlTime"]
    assert watcher.session.ended
    assert watcher.session.next_message(NOW) is None
    watcher.session.close()


def test_node_deleted_before_its_first_message_gets_a_complete_one(tailnet: Tailnet) -> None:
    watcher = tailnet.open(2)
    tailnet.remove(2)
    (last,) = messages(watcher)
    assert last["Node"]["Expired"]
    assert "DERPMap" in last
    assert watcher.session.ended


@pytest.mark.parametrize("compressed", [False, True])
def test_deleted_message_is_complete_and_expired(tailnet: Tailnet, compressed: bool) -> None:
    node_key = tailnet.facts.nodes[2].node_key
    tailnet.remove(2)
    stone = tailnet.facts.tombstones[node_key]
    client = tailnet.open(
        1, compressed=compressed
    ).client  # takes it as a first message, which must be complete
    message = deleted_message(tailnet.world, stone, zstd=compressed, now=tailnet.now)
    client.receive(message)
    assert client.node["Key"] == str(node_key)
    assert client.node["Expired"]
    assert client.node["StableID"] == "n2CNTRL"
    assert client.users[client.node["User"]]["LoginName"]
    assert not client.peers
    assert client.filters == {"base": []}
    assert client.sections["DERPMap"]["Regions"]


def test_expired_viewer_sees_itself_alone_until_extended(tailnet: Tailnet) -> None:
    """K9, M1."""
    watcher = tailnet.open(1)
    client = watcher.read_all()
    tailnet.change(1, expires_at=NOW + 5)
    watcher.read_all()
    assert client.peers
    tailnet.pass_time(5)
    tailnet.endpoints(2, "192.0.2.1:1")
    watcher.read_all()
    assert client.node["Expired"]
    assert not client.peers
    assert client.filters == {"base": []}
    tailnet.change(1, expires_at=None)
    watcher.read_all()
    assert "Expired" not in client.node
    assert client.peers[2]["Endpoints"] == ["192.0.2.1:1"]
    assert client.filters["base"]


def test_unknown_node_has_no_session(tailnet: Tailnet) -> None:
    with pytest.raises(KeyError):
        Session(tailnet.world, 99, zstd=True)


def test_equal_messages_are_encoded_once(tailnet: Tailnet) -> None:
    for _ in range(5):
        tailnet.add_node()
    watchers = [tailnet.open(ident) for ident in (1, 3, 4, 5)]
    for watcher in watchers:
        messages(watcher)
    tailnet.endpoints(2, "192.0.2.1:1")
    sent = {id(watcher.session.next_message(NOW)) for watcher in watchers}
    assert len(sent) == 1


def test_odd_times_break_nobodys_map(tailnet: Tailnet) -> None:
    tailnet.change(2, created_at=-5.0, expires_at=1e30)
    client = tailnet.open(1).read_all()
    assert client.peers[2]["KeyExpiry"].startswith("9999")


def test_volatile_record_that_is_missing_is_empty() -> None:
    tailnet = Tailnet(nodes=1)
    tailnet.volatile.clear()
    world = tailnet.fresh_world()
    ident = tailnet.add_node(Volatile(online=True))
    assert tailnet.open(1).read_all().peers[ident]["Online"]
    assert tailnet.open(1, world=world).read_all().peers == {}
