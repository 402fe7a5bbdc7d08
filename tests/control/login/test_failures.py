"""control/login/failures.py: guessing is slow."""

from __future__ import annotations

from control.login.failures import BURST, EVERY_S, SOURCES_MAX, FailedKeys


def test_a_source_is_blocked_after_its_burst_and_gets_one_try_at_a_time_afterwards() -> None:
    """K7."""
    keys = FailedKeys()
    for _ in range(BURST):
        assert not keys.blocked("a", 0.0)
        keys.failed("a", 0.0)
    assert keys.blocked("a", 0.0)
    assert keys.blocked("a", EVERY_S - 0.1)
    assert not keys.blocked("a", EVERY_S)
    keys.failed("a", EVERY_S)
    assert keys.blocked("a", EVERY_S)
    assert not keys.blocked("a", 2 * EVERY_S)


def test_an_honest_typo_now_and_then_is_never_punished() -> None:
    keys = FailedKeys()
    for minute in range(1000):
        keys.failed("a", minute * 60.0)
        assert not keys.blocked("a", minute * 60.0)


def test_other_sources_do_not_notice() -> None:
    keys = FailedKeys()
    for _ in range(BURST):
        keys.failed("a", 0.0)
    assert not keys.blocked("b", 0.0)


def test_an_attack_from_everywhere_costs_a_bounded_table() -> None:
    keys = FailedKeys()
    for number in range(SOURCES_MAX * 2):
        keys.failed(f"{number}", 0.0)
    assert len(keys._forgiven_at) == SOURCES_MAX
