"""control/machine/session.py: the table of calls, and a sentence for what is not built."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from control.machine.session import LATER, LATER_PREFIXES
from tests.support.coordination import coordination


@pytest.mark.parametrize("path", [*LATER, *(prefix + "x" for prefix in LATER_PREFIXES)])
async def test_what_is_not_built_answers_501_with_a_sentence(autojump_clock: MockClock, path: str) -> None:
    async with coordination() as home, home.machine(1) as device:
        for method in ("POST", "PATCH", "GET"):
            response = await device.client.request(path, b"{}", method=method)
            await response.wait_ended()
            assert response.status == 501
            assert bytes(response.data).startswith(b"This server ")


async def test_what_nobody_knows_answers_404(autojump_clock: MockClock) -> None:
    async with coordination() as home, home.machine(1) as device:
        for path in ("/machine/nonsense", "/", "/machine/register/../map", "/machine/tka"):
            assert (await device.client.post(path))[0] == 404


async def test_health_warnings_of_old_clients_are_taken(autojump_clock: MockClock) -> None:
    async with coordination() as home, home.machine(1) as device:
        assert await device.client.post("/machine/update-health", b"{}") == (204, b"")


async def test_whoami_tells_the_machine_its_own_key(autojump_clock: MockClock) -> None:
    async with coordination() as home, home.machine(1) as device:
        response = await device.client.request("/machine/whoami", method="GET")
        await response.wait_ended()
        assert bytes(response.data) == f"{device.key}\n".encode()


async def test_the_early_payload_comes_before_http2(autojump_clock: MockClock) -> None:
    """control.md §3.4."""
    async with coordination() as home, home.machine(1) as device:
        await device.client.post("/machine/update-health", b"{}")
        assert device.client.early_payload is not None
        assert device.client.early_payload.startswith(b'{"nodeKeyChallenge":"chalpub:')
