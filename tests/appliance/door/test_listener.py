from __future__ import annotations

import errno
import logging
import resource
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from appliance.door import limits
from tests.appliance.door.running import TS2021, TS2021_OF_A_NODE, running_door


@pytest.fixture
def _many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow
@pytest.mark.usefixtures("_many_files")
async def test_1000_silent_tls_clients_do_not_delay_a_login(tmp_path: Path) -> None:
    """F2: waiting costs a place in the table, and no turn at the work."""
    async with running_door(tmp_path) as running, AsyncExitStack() as stack:
        for _ in range(1000):
            stream = await trio.open_tcp_stream(*running.https)
            stack.push_async_callback(trio.aclose_forcefully, stream)
        while running.door.connections() < 1000:
            await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        async with running.tls() as client:
            await client.stream.send_all(TS2021)
            await client.until(b"noise:")
        assert trio.current_time() - began < 0.5
        assert running.door.counters.dropped == 0


async def test_handler_bug_kills_one_connection(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """F9."""
    async with running_door(tmp_path) as running, running.tls() as bystander:
        for bug in (RuntimeError("a bug"), MemoryError(), ExceptionGroup("two", [ValueError(), KeyError()])):
            running.fakes.bug = bug
            async with running.tls() as client:
                await client.stream.send_all(TS2021)
                assert await client.ends()
        running.fakes.bug = None
        assert running.door.counters.bugs == 3
        assert "bug in a connection" in caplog.text
        assert {vars(record)["remote"] for record in caplog.records} == {"127.0.0.1"}
        assert (await bystander.ask("GET /health")).status == 200


async def test_what_the_peer_did_is_no_bug(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with running_door(tmp_path) as running:
        for error in (
            ConnectionResetError(),
            trio.BrokenResourceError(),
            ExceptionGroup("x", [trio.ClosedResourceError()]),
        ):
            running.fakes.bug = error
            async with running.tls() as client:
                await client.stream.send_all(TS2021)
                assert await client.ends()
        assert (running.door.counters.bugs, running.door.counters.failed) == (0, 3)
    assert not caplog.records


async def test_a_full_table_drops_the_oldest_stranger_and_no_node(tmp_path: Path) -> None:
    """F2. Whoever finished a handshake with a key of his own making is a stranger still."""
    limits: dict[str, Any] = {"pre_auth_connections": 4, "pre_auth_per_source": 4}
    async with running_door(tmp_path, **limits) as running, AsyncExitStack() as stack:
        node = await stack.enter_async_context(running.tls())
        await node.stream.send_all(TS2021_OF_A_NODE)
        await node.until(b"noise:")
        machine = await stack.enter_async_context(running.tls())
        await machine.stream.send_all(TS2021)
        await machine.until(b"noise:")
        strangers = [await stack.enter_async_context(running.plain()) for _ in range(3)]
        await trio.testing.wait_all_tasks_blocked()
        assert running.door.counters.dropped == 0
        newcomer = await stack.enter_async_context(running.plain())
        assert await machine.ends()
        assert running.door.counters.dropped == 1
        for client in (*strangers, newcomer):
            assert (await client.ask("GET /derp/probe")).status == 200
        await node.stream.send_all(b"still here")
        assert await node.until(b"here") == b"still here"


async def test_no_descriptor_left_costs_a_stranger_and_not_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    failures = 3
    with trio.socket.socket() as sock:
        kind: Any = type(sock)
    accept = kind.accept

    async def fail_first(self: Any) -> Any:
        nonlocal failures
        accepted = await accept(self)
        if failures:
            failures -= 1
            accepted[0].close()
            raise OSError(errno.EMFILE, "Too many open files")
        return accepted

    async with running_door(tmp_path) as running, running.plain() as stranger:
        assert (await stranger.ask("GET /derp/probe")).status == 200
        monkeypatch.setattr(kind, "accept", fail_first)
        async with running.plain() as client:  # the accept that is already waiting
            assert (await client.ask("GET /derp/probe")).status == 200
        for _ in range(3):
            async with running.plain() as client:
                assert await client.ends()
        async with running.plain() as client:
            assert (await client.ask("GET /derp/probe")).status == 200
        assert await stranger.ends()
        assert running.door.counters.dropped >= 1


async def test_over_all_places_newcomers_are_turned_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CONNECTIONS", 1)
    async with running_door(tmp_path) as running, running.plain() as first:
        assert (await first.ask("GET /derp/probe")).status == 200
        async with running.plain() as second:
            assert await second.ends()
        assert running.door.counters.refused == 1
        assert (await first.ask("GET /derp/probe")).status == 200
