from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trustme

from tests.appliance.door.running import TS2021, Client, running_door
from tests.appliance.tls.connected import NAME, authority


async def test_stop_lets_a_running_exchange_finish_and_closes_idle_ones(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with running_door(tmp_path) as running, running.tls() as idle, running.tls() as busy:
        assert (await idle.ask("GET /health")).status == 200
        await busy.stream.send_all(f"GET /slow HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        running.door.stop(30)
        assert await idle.ends()
        assert trio.current_time() == began
        assert (await busy.response()).body == b"slept"
        assert await busy.ends()
        with pytest.raises(OSError, match="all attempts"):
            await trio.open_tcp_stream(*running.https)


async def test_stop_ends_everybody_after_the_grace(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Also responses that stream for ever, and clients that do not read them (defects 2 and 3 of Hypercorn 0.18)."""
    async with running_door(tmp_path) as running, running.tls() as endless, running.tls() as node:
        await endless.stream.send_all(f"GET /long HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
        await node.stream.send_all(TS2021)
        await node.until(b"noise:")
        began = trio.current_time()
        running.door.stop(5)
        assert await node.ends()
        assert trio.current_time() - began == pytest.approx(5)
        await running.empty()


async def test_cancelling_the_door_ends_everybody_at_once(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    began = trio.current_time()
    async with running_door(tmp_path) as running:
        stream = await trio.open_tcp_stream(*running.https)
        await stream.send_all(b"\x16")
    assert trio.current_time() == began
    assert await Client(stream).ends()
    await stream.aclose()


async def test_a_renewed_certificate_needs_no_new_listener(tmp_path: Path) -> None:
    async with running_door(tmp_path) as running:
        async with running.tls() as before:
            renewed: trustme.LeafCert = authority().issue_cert(NAME, "renewed.example.com")
            renewed.private_key_and_cert_chain_pem.write_to_path(tmp_path / "tls.pem")
            running.door._certificate.reload()  # type: ignore[union-attr]
            async with running.tls(name="renewed.example.com") as after:
                assert (await after.ask("GET /health")).status == 200
            assert (await before.ask("GET /health")).status == 200
