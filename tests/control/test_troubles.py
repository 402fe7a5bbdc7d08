"""control/troubles.py: what an administrator asks first."""

from __future__ import annotations

from control.troubles import FORGOTTEN_AFTER_S, KEPT, Trouble, Troubles


def test_the_newest_comes_first_and_a_repeated_one_stands_once() -> None:
    now = 100.0
    troubles = Troubles(lambda: now)
    troubles.note("a", "no key")
    now = 101.0
    troubles.note("b", "no key")
    now = 102.0
    troubles.note("a", "no key")
    assert troubles.recent() == [Trouble("a", "no key", 102.0), Trouble("b", "no key", 101.0)]


def test_what_works_again_or_is_old_is_no_trouble() -> None:
    now = 100.0
    troubles = Troubles(lambda: now)
    troubles.note("a", "no key")
    troubles.note("a", "expired")
    troubles.note("b", "no key")
    troubles.over("a")
    assert [each.who for each in troubles.recent()] == ["b"]
    now += FORGOTTEN_AFTER_S + 1
    assert troubles.recent() == []


def test_strangers_cannot_fill_the_memory() -> None:
    troubles = Troubles(lambda: 1.0)
    for number in range(10 * KEPT):
        troubles.note(str(number), "why")
    assert [each.who for each in troubles.recent()][:2] == [str(10 * KEPT - 1), str(10 * KEPT - 2)]
    assert len(troubles.recent()) == KEPT
