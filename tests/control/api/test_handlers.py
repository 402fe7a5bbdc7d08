"""control/api: every call of an administrator, its JSON, and its refusals (cli.md)."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from control.api import requests as bodies
from control.api.handlers import ROUTES
from control.errors import ProtocolError
from control.state.commands import Actor
from tests.support.coordination import coordination
from tests.support.memory_store import FULL

KINDS: list[type[bodies.Body]] = [
    bodies.NewUser,
    bodies.Rename,
    bodies.NewKey,
    bodies.Approval,
    bodies.Tags,
    bodies.Extension,
    bodies.Routes,
]
WHEN = re.compile(r"2025-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@given(
    st.binary() | st.dictionaries(st.text(max_size=8), st.none() | st.text() | st.integers()).map(json.dumps)
)
def test_any_bytes_decode_or_documented_error(body: bytes | str) -> None:
    """F8."""
    data = body if isinstance(body, bytes) else body.encode()
    for kind in KINDS:
        try:
            assert isinstance(bodies.parse(data, kind), kind)
        except ProtocolError:
            continue


NASTY = [
    b"[" * 100_000,
    b'{"name":"\\ud800"}',
    b'{"name":1}',
    b'{"name":"x","role":"owner"}',
    b'{"x":' * 50_000,
    b"null",
]


@pytest.mark.parametrize("body", NASTY, ids=lambda body: repr(body[:20]))
async def test_a_body_that_is_not_understood_is_400(autojump_clock: MockClock, body: bytes) -> None:
    """W3: unknown fields are refused too."""
    async with coordination() as home:
        status, answer = await home.try_call("POST", "/users", body)
        assert status == 400
        assert set(answer) == {"error", "hint"}
        assert home.service.state.durable.users == {}


async def test_users(autojump_clock: MockClock) -> None:
    async with coordination() as home:
        body = {"name": "ann", "display_name": "Ann", "email": "ann@x.example"}
        made = await home.call("POST", "/users", body)
        assert WHEN.fullmatch(made.pop("created_at"))
        assert made == {"id": "1", "role": "owner"} | body
        assert (await home.call("PATCH", "/users/ann", {"name": "anna"}))["name"] == "anna"
        assert [user["name"] for user in await home.call("GET", "/users")] == ["anna"]
        assert (await home.try_call("POST", "/users", {"name": "anna"}))[0] == 409
        assert (await home.try_call("PATCH", "/users/nobody", {"name": "x"}))[0] == 404
        assert (await home.call("DELETE", "/users/ann%40x.example"))["id"] == "1"
        assert await home.call("GET", "/users") == []


async def test_a_user_with_nodes_needs_more_words_to_delete(autojump_clock: MockClock) -> None:
    async with coordination() as home, home.machine(1) as device:
        await device.login(auth_key=await home.key())
        status, answer = await home.try_call("DELETE", "/users/ann")
        assert (status, answer["hint"]) == (409, "delete them first, or add --with-nodes")
        await home.call("DELETE", "/users/ann", with_nodes="1")
        assert home.nodes == {}


async def test_a_key_is_shown_once(autojump_clock: MockClock) -> None:
    """G1."""
    async with coordination() as home:
        await home.user("ann")
        made = await home.call("POST", "/keys", {"user": "ann", "expiry_s": 7200})
        text = made.pop("key")
        assert text.startswith(f"tskey-auth-{made['id']}-")
        assert made["expires_at"] == "2025-06-15T17:06:40Z"
        times = ("created_at", "expires_at")
        assert {name: value for name, value in made.items() if name not in times} == {
            "id": made["id"],
            "user": "ann",
            "reusable": False,
            "ephemeral": False,
            "tags": [],
            "used_at": None,
            "revoked_at": None,
            "state": "valid",
        }
        secret = text.rpartition("-")[2]
        everything = [await home.call("GET", "/keys"), *home.store.log, home.store.disk.facts.auth_keys]
        assert secret not in repr(everything)
        assert [key["id"] for key in everything[0]] == [made["id"]]


async def test_states_of_a_key(autojump_clock: MockClock) -> None:
    async with coordination() as home, home.machine(1) as device:
        await device.login(auth_key=await home.key())
        await home.key(expiry_s=60)
        revoked = await home.key()
        await home.call("DELETE", f"/keys/{revoked.split('-')[2]}")
        await home.key(None, tags=["tag:web"], reusable=True)
        await trio.sleep(61)
        keys = await home.call("GET", "/keys")
        assert [key["state"] for key in keys] == ["used", "expired", "revoked", "valid"]
        assert [key["user"] for key in keys] == ["ann", "ann", "ann", None]
        assert (await home.try_call("DELETE", "/keys/nosuch"))[0] == 404


async def test_a_node_as_programs_see_it(autojump_clock: MockClock) -> None:
    async with coordination() as home, home.machine(1) as device:
        device.hostinfo |= {"RoutableIPs": ["10.0.0.0/8", "0.0.0.0/0", "::/0"]}
        await device.login(auth_key=await home.key())
        offline = (await home.call("GET", "/nodes"))[0]
        assert (offline["online"], offline["last_seen"]) == (False, None)
        await home.call(
            "POST", "/nodes/machine1/routes/approve", {"routes": ["10.0.0.0/8", "0.0.0.0/0", "::/0"]}
        )
        async with device.poll(home=900) as poll:
            await poll.message()
            await trio.sleep(20)
            shown = await home.call("GET", "/nodes/100.64.0.1")
        assert WHEN.fullmatch(shown.pop("created_at"))
        assert WHEN.fullmatch(shown.pop("last_seen"))
        assert shown.pop("expires_at") == "2025-12-12T15:06:40Z"  # 180 days
        everything = ["10.0.0.0/8", "0.0.0.0/0", "::/0"]
        assert shown == {
            "id": "1",
            "name": "machine1",
            "user": "ann",
            "tags": [],
            "addresses": ["100.64.0.1", "fd7a:115c:a1e0::1"],
            "online": True,
            "expired": False,
            "routes": {"advertised": everything, "approved": everything, "serving": everything},
            "os": "linux",
            "client_version": "1.102.5",
            "hostname": "machine1",
            "ephemeral": False,
        }


async def test_what_is_done_to_a_node(autojump_clock: MockClock) -> None:
    async with coordination() as home, home.machine(1) as device:
        await device.login(auth_key=await home.key())
        assert (await home.call("PATCH", "/nodes/machine1", {"name": "gate"}))["name"] == "gate"
        assert (await home.call("POST", "/nodes/gate/expire"))["expired"] is True
        assert (await home.call("POST", "/nodes/gate/extend", {"expiry_s": 3600}))["expired"] is False
        assert (await home.call("POST", "/nodes/gate/extend", {"expiry_s": None}))["expires_at"] is None
        approved = await home.call("POST", "/nodes/gate/routes/approve", {"routes": ["10.1.2.3/8"]})
        assert approved["routes"] == {"advertised": [], "approved": ["10.0.0.0/8"], "serving": []}
        revoked = await home.call("POST", "/nodes/gate/routes/revoke", {"routes": ["10.0.0.0/8"]})
        assert revoked["routes"]["approved"] == []
        tagged = await home.call("PUT", "/nodes/gate/tags", {"tags": ["tag:web"]})
        assert (tagged["user"], tagged["tags"], tagged["expires_at"]) == (None, ["tag:web"], None)
        assert (await home.call("PATCH", "/nodes/gate", {"name": ""}))["name"] == "machine1"
        assert (await home.call("DELETE", "/nodes/fd7a:115c:a1e0::1"))["id"] == "1"
        assert (await home.try_call("GET", "/nodes/1"))[0] == 404


async def test_a_node_deleted_at_the_same_moment_is_no_failure(autojump_clock: MockClock) -> None:
    async with coordination() as home, home.machine(1) as device:
        await device.login(auth_key=await home.key())
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(home.try_call, "PATCH", "/nodes/1", {"name": "x"})
                nursery.start_soon(home.try_call, "DELETE", "/nodes/1")
        assert home.nodes == {}


async def test_route_over_tailnet_range_refused(autojump_clock: MockClock) -> None:
    """M4."""
    async with coordination() as home, home.machine(1) as device:
        await device.login(auth_key=await home.key())
        body = {"routes": ["100.64.0.0/16"]}
        status, answer = await home.try_call("POST", "/nodes/1/routes/approve", body)
        assert (status, "overlaps the tailnet" in answer["error"]) == (409, True)


async def test_status(autojump_clock: MockClock) -> None:
    async with coordination() as home, home.machine(1) as device:
        await device.login(auth_key=await home.key())
        async with home.machine(2) as other:
            await other.register()
        async with device.poll():
            expected: dict[str, Any] = {
                "version": "1",
                "ready": True,
                "storage": "ok",
                "nodes": {"total": 1, "online": 1},
                "pending_logins": 1,
            }
            assert expected.items() <= (await home.call("GET", "/status")).items()
        home.store.faults.append(FULL)
        status, answer = await home.try_call("POST", "/users", {"name": "zoe"})
        assert (status, answer) == (503, {"error": "disk full", "hint": "free some space"})
        shown = await home.call("GET", "/status")
        assert (shown["ready"], shown["storage"]) == (False, "disk full")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nonsense", 404),
        ("GET", "/users/", 404),
        ("GET", "/nodes/1/routes/approve", 405),
        ("PUT", "/users", 405),
        ("GET", "/users/ann", 405),
        ("GET", "/logins/nosuch", 404),
        ("POST", "/logins/" + "a" * 26 + "/approve", 404),
        ("GET", "/nodes/..%2F..%2Fetc", 404),
        ("GET", "/nodes/%00", 404),
    ],
)
async def test_paths_that_are_none(autojump_clock: MockClock, method: str, path: str, status: int) -> None:
    async with coordination() as home:
        got, answer = await home.try_call(method, path, {"user": "ann"})
        assert got == status
        assert answer["error"]


CHANGES = [(method, path) for method, path, _ in ROUTES if method != "GET"]
BODIES: dict[str, Any] = {
    "/users": {"name": "zoe"},
    "/users/{user}": {"name": "zoe"},
    "/keys": {"user": "ann"},
    "/nodes/{node}": {"name": "zoe"},
    "/nodes/{node}/tags": {"tags": ["tag:x"]},
    "/nodes/{node}/extend": {"expiry_s": None},
    "/nodes/{node}/routes/approve": {"routes": ["10.0.0.0/8"]},
    "/nodes/{node}/routes/revoke": {"routes": ["10.0.0.0/8"]},
    "/logins/{id}/approve": {"user": "ann"},
}


@pytest.mark.parametrize(("method", "path"), CHANGES)
async def test_authorisation(autojump_clock: MockClock, method: str, path: str) -> None:
    """W3: the commands behind every call refuse a device, whichever face let it in."""
    async with coordination() as home, home.machine(1) as device, home.machine(2) as other:
        key = await home.key()
        await device.login(auth_key=key)
        await home.call("POST", "/nodes/1/routes/approve", {"routes": ["10.0.0.0/8"]})
        login = (await other.register())["AuthURL"].rpartition("/")[2]
        facts = home.service.state.durable
        names = {"user": "ann", "node": "1", "id": login if "logins" in path else key.split("-")[2]}
        by = Actor(kind="machine", id=device.key.short)
        status, answer = await home.try_call(
            method, path.format(**names), BODIES.get(path, b""), by, with_nodes="1"
        )
        assert (status, answer["error"]) == (409, "a device may not do that")
        assert home.service.state.durable is facts
        status, answer = await home.try_call(
            method, path.format(**names), BODIES.get(path, b""), with_nodes="1"
        )
        assert status == 200, answer
