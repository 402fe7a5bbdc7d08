"""The timer wheel against a simple list."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.wheel import Wheel


@given(st.lists(st.tuples(st.floats(0, 65), st.floats(0, 200)), max_size=60))
def test_everything_is_due_once_within_a_tick_of_its_time(steps: list[tuple[float, float]]) -> None:
    now = 1000.0
    wheel: Wheel[int] = Wheel(0.5, 65.5, now)
    waiting: dict[int, float] = {}
    for i, (delay_s, step_s) in enumerate(steps):
        wheel.add(i, now, delay_s)
        waiting[i] = now + delay_s
        now += step_s
        for item in wheel.advance(now):
            assert waiting.pop(item) <= now + 0.5
        assert all(due > now - 0.5 for due in waiting.values())


def test_too_long_a_delay_is_refused() -> None:
    wheel: Wheel[str] = Wheel(0.5, 65, 0.0)
    with pytest.raises(ValueError, match="wheel"):
        wheel.add("x", 0.0, 70)
