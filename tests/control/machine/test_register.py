"""control/machine/register.py: registrations over the wire (control.md §6)."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from control.limits import Quotas
from control.login.failures import BURST
from control.model import TAGGED_USER_ID
from tests.support.builders import NOW, node_key
from tests.support.coordination import LOGOUT, Coordination, FakeMachine, Json, coordination, said
from tests.support.memory_store import FULL

AUTH_URL = "https://hs.example/register/"


async def approve(home: Coordination, auth_url: str, user: str = "ann") -> Json:
    if user not in home.service.state.durable.users_by_name:
        await home.user(user)
    found: Json = await home.call(
        "POST", f"/logins/{auth_url.removeprefix(AUTH_URL)}/approve", {"user": user}
    )
    return found


async def test_a_login_with_a_key_names_the_user_as_the_map_will(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with coordination() as home, home.machine(1) as device:
        answer = await device.login(auth_key=await home.key())
        wanted = {"ID": 1, "Provider": "", "LoginName": "ann@", "DisplayName": "ann", "ProfilePicURL": ""}
        assert answer["Login"] == wanted
        assert answer["User"]["ID"] == 1
        assert answer["MachineAuthorized"] is True
        async with device.poll() as poll:
            first = await poll.message()
            assert first["Node"]["User"] == answer["User"]["ID"]
            assert [profile["ID"] for profile in first["UserProfiles"]] == [1]


async def test_a_tagged_login_has_a_login_name_too(autojump_clock: trio.testing.MockClock) -> None:
    """control.md §12 no. 21."""
    async with coordination() as home, home.machine(1) as device:
        answer = await device.login(auth_key=await home.key(None, tags=["tag:web"]))
        assert (answer["Login"]["ID"], answer["Login"]["LoginName"]) == (TAGGED_USER_ID, "tagged-devices")
        async with device.poll() as poll:
            node = (await poll.message())["Node"]
            assert (node["User"], node["Tags"]) == (TAGGED_USER_ID, ["tag:web"])


@pytest.mark.slow
async def test_one_off_key_spent_once_under_100_concurrent(autojump_clock: trio.testing.MockClock) -> None:
    """K2."""
    async with coordination() as home:
        key, answers = await home.key(), list[Json]()

        async def attempt(number: int) -> None:
            async with home.machine(number, remote=f"10.0.{number}.1") as device:
                answers.append(await device.register(auth_key=key))

        async with trio.open_nursery() as nursery:
            for number in range(1, 101):
                nursery.start_soon(attempt, number)
        assert sum("Login" in answer for answer in answers) == 1
        assert sum("already used" in answer.get("Error", "") for answer in answers) == 99
        assert len(home.nodes) == 1


async def test_concurrent_registration_makes_one_node(autojump_clock: trio.testing.MockClock) -> None:
    """K3: eight connections of one machine, the most it may have, each with a fresh node key."""
    async with coordination() as home:
        key = await home.key(reusable=True)

        async def attempt(number: int) -> None:
            async with home.machine(1) as device:
                device.node_key = node_key(number)
                await device.login(auth_key=key)

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(attempt, number)
        assert len(home.nodes) == 1


async def test_wrong_and_unknown_key_same_answer(autojump_clock: trio.testing.MockClock) -> None:
    """K7: byte for byte, and guessing soon stops being answered."""
    async with coordination() as home, home.machine(1) as device:
        real = await home.key()
        other = await home.key()
        swapped = real.rpartition("-")[0] + "-" + other.rpartition("-")[2]
        guesses = [swapped, "tskey-auth-x-y", "hunter2", "tskey-auth-" + "a" * 12 + "-" + "b" * 49]
        answers = {json.dumps(await device.register(auth_key=guess)) for guess in guesses}
        assert len(answers) == 1
        assert "invalid auth key" in answers.pop()
        for _ in range(BURST - len(guesses)):
            await trio.sleep(0.5)
            await device.register(auth_key="hunter2")
        await trio.sleep(2)
        blocked = (await device.register(auth_key=real))["Error"]
        assert "too many wrong auth keys" in blocked
        await trio.sleep(60)
        async with home.machine(1) as again:
            await again.login(auth_key=real)


async def test_guessers_do_not_lock_out_nodes_that_restart_beside_them(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with coordination() as home, home.machine(1) as device:
        key = await home.key()
        await device.login(auth_key=key)
        async with home.machine(2) as guesser:
            for _ in range(BURST + 1):
                await guesser.register(auth_key="hunter2")
            assert "too many" in (await guesser.register(auth_key="hunter2"))["Error"]
        await device.login(auth_key=key)


async def test_a_key_that_was_used_up_is_no_guess(autojump_clock: trio.testing.MockClock) -> None:
    async with coordination() as home:
        spent, good = await home.key(), await home.key()
        async with home.machine(1) as device:
            await device.login(auth_key=spent)
        for number in range(2, 2 + BURST + 5):
            async with home.machine(number) as device:
                assert "already used" in (await device.register(auth_key=spent))["Error"]
        async with home.machine(100) as device:
            await device.login(auth_key=good)


# interactive


async def test_interactive_login_from_url_to_answer(autojump_clock: trio.testing.MockClock) -> None:
    async with coordination() as home, home.machine(1) as device:
        device.hostinfo["RoutableIPs"] = ["10.0.0.0/8"]
        url = (await device.register())["AuthURL"]
        assert url.startswith(AUTH_URL)
        async with trio.open_nursery() as nursery:

            async def follow() -> None:
                answer = await device.login(Followup=url)
                assert answer["Login"]["LoginName"] == "ann@"

            nursery.start_soon(follow)
            await trio.sleep(313)  # control.md §6.4: held this long, and no time-out
            await approve(home, url)
        assert home.nodes[1].user_id == 1
        assert home.nodes[1].advertised == ("10.0.0.0/8",)
        assert home.service.state.volatile[1].hostinfo.os == "linux"
        # The answer may have been lost: the same question has the same answer.
        assert (await device.login(Followup=url))["User"]["ID"] == 1
        assert (await device.login())["User"]["ID"] == 1


async def test_approval_needs_confirmation_and_binds_machine(autojump_clock: trio.testing.MockClock) -> None:
    """K4: looking approves nothing; what is shown tells the device; the result goes to the machine that began."""
    async with (
        coordination() as home,
        home.machine(1, remote="203.0.113.7") as victim,
        home.machine(2) as thief,
    ):
        await home.user("ann")
        url = (await victim.register())["AuthURL"]
        ident = url.removeprefix(AUTH_URL)
        await trio.sleep(5)
        shown = await home.call("GET", f"/logins/{ident}")
        assert shown == {
            "id": ident,
            "hostname": "machine1",
            "os": "linux",
            "source": "203.0.113.7",
            "machine_key": victim.key.short,
            "age_s": 5,
            "approved": False,
        }
        assert home.nodes == {}
        # Another machine with the link, even claiming the same node key, starts a login of its own.
        thief.node_key = victim.node_key
        stolen = (await thief.register(Followup=url))["AuthURL"]
        assert stolen != url
        await approve(home, url)
        assert [node.machine_key for node in home.nodes.values()] == [victim.key]
        assert "different machine key" in (await thief.register(Followup=url))["Error"]
        await victim.login(Followup=url)


async def test_a_login_is_approved_once(autojump_clock: trio.testing.MockClock) -> None:
    async with coordination() as home, home.machine(1) as device:
        url = (await device.register())["AuthURL"]
        await approve(home, url)
        await home.call("DELETE", "/nodes/1")
        body = {"user": "ann"}
        status, answer = await home.try_call("POST", f"/logins/{url.removeprefix(AUTH_URL)}/approve", body)
        assert (status, "already" in answer["error"]) == (409, True)
        assert home.nodes == {}


async def test_an_unknown_or_ended_followup_gets_a_fresh_url(autojump_clock: trio.testing.MockClock) -> None:
    """control.md §12 no. 19."""
    async with coordination() as home, home.machine(1) as device:
        for unknown in (AUTH_URL + "a" * 26, "https://other.example/x", "x"):
            assert (await device.register(Followup=unknown))["AuthURL"].startswith(AUTH_URL)
        first = (await device.register())["AuthURL"]
        began = trio.current_time()
        second = (await device.register(Followup=first))["AuthURL"]
        assert second.startswith(AUTH_URL)
        assert second != first
        assert 890 < trio.current_time() - began < 910


async def test_a_refused_approval_leaves_the_login_waiting(autojump_clock: trio.testing.MockClock) -> None:
    async with coordination() as home, home.machine(1) as device:
        url = (await device.register())["AuthURL"]
        status, _ = await home.try_call(
            "POST", f"/logins/{url.removeprefix(AUTH_URL)}/approve", {"user": "nobody"}
        )
        assert status == 404
        await approve(home, url)
        await device.login(Followup=url)


@pytest.mark.slow
async def test_pending_flood_keeps_a_strangers_login_alive(autojump_clock: trio.testing.MockClock) -> None:
    """K6, over the wire: a full room refuses in words, and who was there stays."""
    async with coordination(quotas=Quotas(pending_logins=40, pending_logins_per_source=8)) as home:
        async with home.machine(1, remote="198.51.100.1") as device:
            url = (await device.register())["AuthURL"]
            refused = 0
            for number in range(2, 62):
                async with home.machine(number, remote=f"10.0.{number % 6}.1") as other:
                    refused += "too many logins" in (await other.register()).get("Error", "")
            assert refused
            assert len(home.service.pending) <= 40
            await approve(home, url)
            await device.login(Followup=url)


# life of a login


async def test_logout_then_login_is_the_same_node(autojump_clock: trio.testing.MockClock) -> None:
    async with coordination() as home, home.machine(1) as device:
        key = await home.key(reusable=True)
        await device.login(auth_key=key)
        before = home.nodes[1]
        assert (await device.register(Expiry=LOGOUT, auth_key=key)) == {"NodeKeyExpired": True}
        assert home.nodes[1].expires_at == pytest.approx(home.wall(), abs=1)
        assert (await device.register()) == {"NodeKeyExpired": True}
        device.node_key = node_key(77)
        await device.login(auth_key=key)
        after = home.nodes[1]
        assert (after.node_key, after.addresses, after.name) == (node_key(77), before.addresses, before.name)
        assert node_key(1) in home.evicted


async def test_a_deleted_nodes_machine_comes_back_with_its_home_relay(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Clients do not repeat NetInfo after a login in a running process (tried.md, trap 6)."""
    async with coordination() as home, home.machine(1) as device:
        key = await home.key(reusable=True)
        await device.login(auth_key=key)
        await device.update(home=900)
        (first,) = home.nodes.values()
        await home.call("DELETE", f"/nodes/{first.id}")
        await device.login(auth_key=key)
        (second,) = home.nodes.values()
        assert second.id != first.id
        assert home.service.state.volatile[second.id].home_derp == 900


async def test_registration_keeps_presence_home_and_endpoints(autojump_clock: trio.testing.MockClock) -> None:
    """control.md §12 no. 22."""
    async with coordination() as home, home.machine(1) as device:
        key = await home.key(reusable=True)
        await device.login(auth_key=key)
        async with device.poll():
            await device.update(home=900, Endpoints=["192.0.2.1:1"])
            device.node_key = node_key(77)
            await device.login(auth_key=key)
            record = home.service.state.volatile[1]
            assert (record.home_derp, record.endpoints, record.online) == (900, ("192.0.2.1:1",), True)


# bad input and bad times


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"NodeKey":5}',
        b'{"Version":142,"Hostinfo":5}',
        b"[" * 50_000,
        b'{"Version":' + b"9" * 400 + b"}",
        b'{"Version":142,"Hostinfo":{"Env":"' + b"x" * 64_000 + b'"}}',
    ],
    ids=lambda body: repr(body[:20]),
)
@pytest.mark.parametrize("path", ["/machine/register", "/machine/map"])
async def test_broken_requests_are_400_and_the_connection_lives(
    autojump_clock: trio.testing.MockClock, body: bytes, path: str
) -> None:
    async with coordination() as home, home.machine(1) as device:
        key = await home.key()
        if len(body) > 60_000:
            await device.login(auth_key=key)
            body = body.replace(b"x" * 64_000, b"x" * 66_000)
        status, text = await device.client.post(path, body)
        assert status == 400
        assert b"bad" in text
        await device.login(auth_key=key)


async def test_a_client_that_is_too_old_is_told_so(autojump_clock: trio.testing.MockClock) -> None:
    async with coordination() as home, home.machine(1) as device:
        assert "too old" in (await device.register(Version=100))["Error"]
        assert await device.update(Version=100) == 400


@pytest.mark.parametrize(("version", "status"), [(137, 429), (136, 200)])
async def test_too_many_registrations_are_slowed_in_the_clients_own_way(
    autojump_clock: trio.testing.MockClock, version: int, status: int
) -> None:
    async with coordination() as home, home.machine(1, version=version) as device:
        answers = [
            await device.client.request("/machine/register", device.register_body()) for _ in range(20)
        ]
        for answer in answers:
            await answer.wait_ended()
        limited = [answer for answer in answers if answer.status != 200 or b"too many" in bytes(answer.data)]
        assert len(limited) == 8
        assert {answer.status for answer in limited} == {status}
        if status == 429:
            assert {answer.headers["retry-after"] for answer in limited} == {"3"}


async def test_a_full_disk_is_try_later_and_nothing_happened(autojump_clock: trio.testing.MockClock) -> None:
    async with coordination() as home, home.machine(1) as device:
        key = await home.key()
        home.store.faults.append(FULL)
        response = await device.client.request("/machine/register", device.register_body(auth_key=key))
        await response.wait_ended()
        assert (response.status, response.headers["retry-after"]) == (429, "3")
        assert home.nodes == {}
        await trio.sleep(10)
        await device.login(auth_key=key)


# K1


async def _as_thief(device: FakeMachine, **fields: Any) -> tuple[int, bytes]:
    return await device.client.post("/machine/register", device.register_body(**fields))


ROUTES_WITH_A_NODE_KEY: dict[str, tuple[str, dict[str, Any], int]] = {
    "register: restart": ("/machine/register", {}, 200),
    "register: follow-up": ("/machine/register", {"Followup": AUTH_URL + "a" * 26}, 200),
    "register: auth key": ("/machine/register", {"auth_key": "KEY"}, 200),
    "register: wrong auth key": ("/machine/register", {"auth_key": "hunter2"}, 200),
    "register: logout": ("/machine/register", {"Expiry": LOGOUT}, 200),
    "register: shorten": ("/machine/register", {"Expiry": "2026-01-01T00:00:00Z"}, 200),
    "register: tags": ("/machine/register", {"Hostinfo": {"RequestTags": ["tag:x"]}}, 200),
    "map: stream": ("/machine/map", {"Stream": True}, 404),
    "map: lite": ("/machine/map", {"OmitPeers": True, "Endpoints": ["192.0.2.66:6"]}, 404),
    "map: one-shot": ("/machine/map", {}, 404),
    "map: read-only": ("/machine/map", {"ReadOnly": True}, 404),
}


@pytest.mark.parametrize("case", ROUTES_WITH_A_NODE_KEY)
async def test_every_machine_route_rejects_foreign_node_key(
    autojump_clock: trio.testing.MockClock, case: str
) -> None:
    """K1: a mismatch is an unknown node on map, a fixed Error on register, and changes nothing."""
    path, fields, expected = ROUTES_WITH_A_NODE_KEY[case]
    async with coordination() as home, home.machine(1) as owner, home.machine(2) as thief:
        key = await home.key(reusable=True)
        await owner.login(auth_key=key)
        await owner.update(home=900, Endpoints=["192.0.2.1:1"])
        thief.node_key = owner.node_key
        facts, record = home.service.state.durable, repr(home.service.state.volatile[1])
        if "auth_key" in fields:
            fields = fields | {"auth_key": fields["auth_key"].replace("KEY", key)}
        body = thief.register_body(**fields) if path.endswith("register") else thief.map_body(**fields)
        status, text = await thief.client.post(path, body)
        assert status == expected
        if path.endswith("register"):
            assert said(json.loads(text)) == {"Error": "this node key belongs to a different machine key"}
        else:
            # As for a key that never was.
            thief.node_key = node_key(999)
            assert (status, text) == await thief.client.post(path, thief.map_body(**fields))
        assert home.service.state.durable is facts
        assert repr(home.service.state.volatile[1]) == record


async def test_the_table_of_routes_is_whole(autojump_clock: trio.testing.MockClock) -> None:
    """K1: a new route must be added to the table above, or be known to take no node key."""
    without_a_node_key = {("POST", "/machine/update-health"), ("GET", "/machine/whoami")}
    async with coordination() as home:
        covered = {("POST", path) for path, _, _ in ROUTES_WITH_A_NODE_KEY.values()}
        assert set(home.service._routes) == covered | without_a_node_key


async def test_a_client_that_hangs_up_while_it_waits_can_ask_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """control.md §6.4: a cut follow-up is simply repeated."""
    async with coordination() as home:
        async with home.machine(1) as device:
            url = (await device.register())["AuthURL"]
            response = await device.client.request("/machine/register", device.register_body(Followup=url))
            await wait_all_tasks_blocked()
            assert response.status is None
        await approve(home, url)
        async with home.machine(1) as device:
            assert (await device.login(Followup=url))["User"]["Created"].startswith("2025-")
        assert home.nodes[1].created_at >= NOW


async def test_canary_secrets_appear_nowhere(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """G1, for coordination: what is logged, answered, listed and stored after good, wrong and broken logins."""
    caplog.set_level("DEBUG")
    async with coordination() as home, home.machine(1) as device:
        good, wrong = await home.key(), (await home.key())[:-8] + "aaaaaaaa"
        answers = [await device.register(auth_key=key) for key in (wrong, good, good, "tskey-auth-canary")]
        broken = json.dumps(device.register_body(auth_key=good, Version="x")).encode()
        answers.append({"400": str(await device.client.post("/machine/register", broken))})
        _, body = await device.client.post("/machine/map", broken[:-5])
        listed = [await home.call("GET", path) for path in ("/keys", "/nodes", "/users", "/status")]
        everywhere = repr([answers, body, listed, home.store.log, caplog.text])
    for canary in (good, wrong):
        assert canary.rpartition("-")[2][:20] not in everywhere
    assert "canary" not in everywhere
