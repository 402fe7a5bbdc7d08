"""control/duties.py: what the clock does, and what it may not do when it has gone wrong.

Announcements and ephemeral nodes: tests/control/machine/test_map.py, where there are streams.
"""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from control.duties import CLOCK_JUMP_S, STALE_EVERY_S, ClockGuard
from tests.support.builders import DAY, node_key
from tests.support.coordination import coordination
from tests.support.memory_store import FULL


@pytest.mark.parametrize("jump", [CLOCK_JUMP_S + 1, -CLOCK_JUMP_S - 1, 365 * DAY])
def test_a_clock_that_jumps_is_not_believed_for_five_minutes(jump: float) -> None:
    """state.md A.13."""
    guard = ClockGuard()
    assert guard.trusted(1e9, 0.0, 0.0)
    assert guard.trusted(1e9 + 1, 1.0, 0.0)
    assert not guard.trusted(1e9 + 2 + jump, 2.0, 0.0)
    assert not guard.trusted(1e9 + 300 + jump, 300.0, 0.0)
    assert guard.trusted(1e9 + 303 + jump, 303.0, 0.0)


def test_a_clock_behind_what_was_stored_is_not_believed() -> None:
    """state.md A.13."""
    guard = ClockGuard()
    assert not guard.trusted(1e9, 0.0, 1e9 + 1)
    assert guard.trusted(1e9 + 1, 1.0, 1e9 + 1)


def test_the_time_servers_small_corrections_are_no_jump() -> None:
    guard = ClockGuard()
    for second in range(100):
        assert guard.trusted(1e9 + second * 3, float(second), 0.0)


async def test_a_jump_of_the_clock_ends_nobodys_login(autojump_clock: MockClock) -> None:
    """state.md A.13: and once the new time has lasted, it counts."""
    async with coordination() as home, home.machine(1) as device:
        await device.login(auth_key=await home.key())
        async with device.poll(home=900) as poll:
            await poll.message()
            await trio.sleep(2)
            home.wall_offset = 365 * DAY
            await trio.sleep(200)
            assert home.evicted == []
            await trio.sleep(200)
            assert home.evicted == [node_key(1)]


async def test_a_login_that_nobody_approved_is_forgotten(autojump_clock: MockClock) -> None:
    async with coordination() as home:
        async with home.machine(1) as device:
            await device.register()
        assert len(home.service.pending) == 1
        await trio.sleep(902)
        assert len(home.service.pending) == 0


async def test_old_keys_are_forgotten_after_a_month(autojump_clock: MockClock) -> None:
    async with coordination() as home:
        await home.key()
        home.wall_offset = 30 * DAY
        await trio.sleep(STALE_EVERY_S + 2)
        assert len(home.service.state.durable.auth_keys) == 1
        home.wall_offset = 31 * DAY
        await trio.sleep(STALE_EVERY_S + 2)
        assert home.service.state.durable.auth_keys == {}


async def test_a_duty_that_fails_is_tried_again(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk does not end the loop, nor is what was to be done lost for ever."""
    async with coordination() as home, home.machine(1) as device:
        await device.login(auth_key=await home.key(ephemeral=True))
        await trio.sleep(290)
        home.store.faults.extend([FULL] * 3)
        await trio.sleep(15)
        assert set(home.nodes) == {1}
        assert "a duty could not be done" in caplog.text
        await trio.sleep(120)
        assert home.nodes == {}
