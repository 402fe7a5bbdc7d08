"""The token bucket."""

from __future__ import annotations

from control.limits import Budget, Rate

RATE = Rate(burst=5, per_second=1 / 5)


def test_burst_passes_then_one_per_interval() -> None:
    budget = Budget(RATE, 0.0)
    assert [budget.spend(1, 0.0) for _ in range(6)] == [True] * 5 + [False]
    assert budget.ready_at == 5.0
    assert not budget.spend(1, 4.9)
    assert budget.spend(1, budget.ready_at)
    assert not budget.spend(1, 5.0)


def test_what_is_not_there_is_not_taken_in_part() -> None:
    budget = Budget(RATE, 0.0)
    assert not budget.spend(6, 0.0)
    assert budget.spend(5, 0.0)


def test_clock_that_steps_back_refills_nothing() -> None:
    budget = Budget(RATE, 1000.0)
    assert budget.spend(5, 1000.0)
    assert not budget.spend(1, 0.0)
    assert not budget.spend(1, 4.9)
    assert budget.spend(1, 5.0)
