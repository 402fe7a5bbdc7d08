"""What we lean on of Hypercorn, and what of it is fenced (see appliance/door/asgi.py)."""

from __future__ import annotations

import importlib.metadata
import tracemalloc
from pathlib import Path

import pytest
import trio
import trio.testing

from appliance.tls.limits import WRITE_SECONDS
from tests.appliance.door.running import running_door
from tests.appliance.tls.connected import NAME

LONG = f"GET /long HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode()


def test_hypercorn_is_the_release_whose_private_names_we_use() -> None:
    assert importlib.metadata.version("hypercorn").startswith("0.18.")


@pytest.mark.parametrize("listener", ["https", "http"])
async def test_h2_prior_knowledge_and_h2c_are_refused(tmp_path: Path, listener: str) -> None:
    """F3: on every listener, also on a connection that has served a page."""
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    h2c = (
        f"GET / HTTP/1.1\r\nHost: {NAME}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        "HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
    ).encode()
    for hostile in (preface, h2c):
        for page_first in (True, False):
            async with running_door(tmp_path) as running:
                async with running.tls() if listener == "https" else running.plain() as client:
                    if page_first:
                        assert (await client.ask("GET /")).status in (200, 308)
                    assert (await client.ask(hostile)).status == 505
                    assert await client.ends()


async def test_the_exchange_itself_refuses_http_2_too() -> None:
    """F3: for anybody who serves pages without our head reader in front."""
    from appliance.door.asgi import PageServer
    from tests.appliance.door.running import make_pages

    for hostile in (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: H2C\r\n\r\n",
    ):
        ours, theirs = trio.testing.memory_stream_pair()
        rest = await PageServer(make_pages()).serve(
            ours, hostile, client=("::1", 0), server=("::1", 1), https=True
        )
        assert rest is None
        assert (await theirs.receive_some()).startswith(b"HTTP/1.1 505 ")


async def test_a_client_that_reads_nothing_costs_little_memory_and_is_cut_off(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with running_door(tmp_path) as running, running.tls() as client:
        tracemalloc.start()
        try:
            await client.stream.send_all(LONG)
            began = trio.current_time()
            await running.empty()
            assert trio.current_time() - began == pytest.approx(WRITE_SECONDS, abs=2)
            assert tracemalloc.get_traced_memory()[1] < 4_000_000
        finally:
            tracemalloc.stop()


async def test_a_stalled_writer_can_be_cancelled(tmp_path: Path) -> None:
    """Hypercorn's own server shields its writes: cancelling hangs until the client reads."""
    async with running_door(tmp_path) as running, running.tls() as client:
        await client.stream.send_all(LONG)
        await trio.testing.wait_all_tasks_blocked(0.05)
        with trio.fail_after(5):
            running.door.stop(0)
            await running.empty()


async def test_leaving_in_the_middle_ends_the_page_and_nothing_else(tmp_path: Path) -> None:
    async with running_door(tmp_path) as running:
        async with running.tls() as client:
            await client.stream.send_all(LONG)
            await client.more()
        with trio.fail_after(5):
            await running.empty()
        assert running.door.counters.bugs == 0
        async with running.tls() as client:
            assert (await client.ask("GET /")).status == 200


async def test_a_bug_in_a_page_is_a_500_and_the_connection_goes_on(tmp_path: Path) -> None:
    async with running_door(tmp_path) as running, running.tls() as client:
        assert (await client.ask("GET /bug")).status == 500
        assert (await client.ask("GET /")).status == 200


async def test_bodies_reach_pages_and_are_limited(tmp_path: Path) -> None:
    async with running_door(tmp_path) as running:
        async with running.tls() as client:
            for body in (b"hello", b"x" * 60_000):
                head = f"POST /echo HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                assert (await client.ask(head + body)).body == body
            head = f"POST /echo HTTP/1.1\r\nHost: {NAME}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            assert (await client.ask(head + b"5\r\nhello\r\n0\r\n\r\n")).body == b"hello"
            head = f"POST /echo HTTP/1.1\r\nHost: {NAME}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n".encode()
            assert (await client.ask(head)).status == 100
            assert (await client.ask(b"hello")).body == b"hello"
        async with running.tls() as client:
            head = f"POST /echo HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 100000\r\n\r\n".encode()
            assert (await client.ask(head + bytes(100_000))).status == 413


async def test_many_pipelined_pages_are_answered_in_order(tmp_path: Path) -> None:
    async with running_door(tmp_path) as running, running.tls() as client:
        requests = [
            f"POST /echo HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 2\r\n\r\n{n:02}".encode()
            for n in range(40)
        ]
        await client.stream.send_all(b"".join(requests))
        assert [(await client.response()).body for _ in requests] == [f"{n:02}".encode() for n in range(40)]


async def test_a_websocket_to_a_page_is_refused(tmp_path: Path) -> None:
    async with running_door(tmp_path) as running, running.tls() as client:
        head = (
            f"GET / HTTP/1.1\r\nHost: {NAME}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert (await client.ask(head.encode())).status == 400
        assert await client.ends()
