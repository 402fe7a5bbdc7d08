"""How often a source may present a wrong auth key: guessing is slow, an honest typo is not punished (security.md K7)."""

from __future__ import annotations

BURST = 10
EVERY_S = 6.0  # and then ten a minute
SOURCES_MAX = 4096  # more than this at once is an attack from everywhere; the oldest are forgotten


class FailedKeys:
    """For each source, when all of its failures are forgiven: each counts for `EVERY_S`. `now` is the monotonic clock."""

    def __init__(self) -> None:
        self._forgiven_at: dict[str, float] = {}

    def blocked(self, source: str, now: float) -> bool:
        """Whether this source has used up its failures."""
        return self._forgiven_at.get(source, now) - now > (BURST - 1) * EVERY_S

    def failed(self, source: str, now: float) -> None:
        """One more wrong key."""
        before = self._forgiven_at.pop(source, now)
        if len(self._forgiven_at) >= SOURCES_MAX:
            del self._forgiven_at[next(iter(self._forgiven_at))]
        self._forgiven_at[source] = max(before, now) + EVERY_S
