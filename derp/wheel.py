"""A timer wheel: thousands of slow timers for the price of a list.

Time is cut into ticks, the ticks are laid round a ring of slots, and each slot lists what is due in it.
Nothing is ever removed early: whoever is called checks whether it still cares.
"""

from typing import Generic, TypeVar

T = TypeVar("T")


class Wheel(Generic[T]):
    def __init__(self, tick_s: float, longest_s: float, now: float) -> None:
        self._tick_s = tick_s
        self._slots: list[list[T]] = [[] for _ in range(int(longest_s / tick_s) + 2)]
        self._tick = int(now / tick_s)

    def add(self, item: T, now: float, delay_s: float) -> None:
        """Have `item` returned by the first advance() at or after now + delay_s, give or take a tick."""
        # Never in the slot under the hand, which comes round only after a whole turn.
        ticks = max(int((now + delay_s) / self._tick_s), self._tick + 1)
        if ticks - self._tick >= len(self._slots):
            raise ValueError(f"a delay of {delay_s} s does not fit on the wheel")
        self._slots[ticks % len(self._slots)].append(item)

    def advance(self, now: float) -> list[T]:
        """Everything due by `now`. After a long sleep each slot is visited once, not once per turn missed."""
        due: list[T] = []
        target = int(now / self._tick_s)
        for tick in range(max(self._tick + 1, target - len(self._slots) + 1), target + 1):
            slot = tick % len(self._slots)
            due += self._slots[slot]
            self._slots[slot] = []
        self._tick = max(self._tick, target)
        return due
