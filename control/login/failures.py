"""How often a source may present a wrong auth key: guessing is slow, an honest typo is not punished (security.md K7)."""

from __future__ import annotations

from control.limits import Budget, Rate

FAILED_KEYS = Rate(burst=10, per_second=10 / 60)
SOURCES_MAX = 4096  # more than this at once is an attack from everywhere; the oldest are forgotten


class FailedKeys:
    """One budget per source, from its first failure on. `now` is the monotonic clock."""

    def __init__(self) -> None:
        self._budgets: dict[str, Budget] = {}
        self._blocked: dict[str, float] = {}

    def blocked(self, source: str, now: float) -> bool:
        """Whether this source has used up its failures."""
        until = self._blocked.get(source)
        if until is None:
            return False
        if until <= now:
            del self._blocked[source]
            return False
        return True

    def failed(self, source: str, now: float) -> None:
        """One more wrong key."""
        if source not in self._budgets and len(self._budgets) >= SOURCES_MAX:
            forgotten = next(iter(self._budgets))
            del self._budgets[forgotten]
            self._blocked.pop(forgotten, None)
        budget = self._budgets.setdefault(source, Budget(FAILED_KEYS, now))
        if not budget.spend(1, now):
            self._blocked[source] = now + 1 / FAILED_KEYS.per_second
