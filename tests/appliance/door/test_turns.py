from __future__ import annotations

import pytest
import trio
import trio.testing

from appliance.door.turns import FairTurns


async def test_work_returns_its_value_or_raises_its_error() -> None:
    turns = FairTurns()
    async with trio.open_nursery() as nursery:
        await nursery.start(turns.run)
        assert await turns.do("a", lambda: 42) == 42
        with pytest.raises(ZeroDivisionError):
            await turns.do("a", lambda: 1 // 0)
        nursery.cancel_scope.cancel()


async def test_a_crowd_from_one_source_delays_another_by_one_piece() -> None:
    turns = FairTurns()
    done: list[str] = []
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(turns.do, "crowd", lambda: done.append("crowd"))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(turns.do, "other", lambda: done.append("other"))
        await trio.testing.wait_all_tasks_blocked()
        turns.turn(2)
        assert done == ["crowd", "other"]
        turns.turn(16)
        assert len(done) == 18
        while len(done) < 51:
            turns.turn()


async def test_whoever_gave_up_costs_no_turn() -> None:
    turns = FairTurns()
    done: list[int] = []
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def give_up() -> None:
            with trio.CancelScope() as scope:
                nursery.start_soon(turns.do, "a", lambda: done.append(1))
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
                await turns.do("a", lambda: done.append(2))

        await trio.testing.wait_all_tasks_blocked(0.01)
        turns.turn()
        assert done == [1]
        assert not turns._queues


async def test_others_run_between_turns() -> None:
    turns = FairTurns()
    steps: list[str] = []

    def work() -> None:
        steps.append("work")
        deadline = trio.current_time() + 0.0005
        while trio.current_time() < deadline:
            pass

    async def other() -> None:
        for _ in range(20):
            steps.append("other")
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        await nursery.start(turns.run)
        async with trio.open_nursery() as workers:
            workers.start_soon(other)
            for _ in range(64):
                workers.start_soon(turns.do, "a", work)
        nursery.cancel_scope.cancel()
    assert steps.index("other") < 20
    first_half = steps[: len(steps) // 2]
    assert first_half.count("other") >= 2
