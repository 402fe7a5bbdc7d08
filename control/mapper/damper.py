"""A brake on one node's endpoint changes (security.md M5).

Every peer that sees a node sends packets to its endpoints and is told of each change; a node that lies about them, or a
network that flaps, must not make the whole tailnet work. Ordinary life is a handful of changes within seconds of a
start or a change of network, then silence for minutes.
"""

from __future__ import annotations

BURST = 5
INTERVAL_S = 5.0


class Damper:
    """A bucket of `BURST` changes that refills by one every `INTERVAL_S`."""

    __slots__ = ("_at", "_left")

    def __init__(self, now: float) -> None:
        self._at = now
        self._left = float(BURST)

    def take(self, now: float) -> bool:
        """Whether one more change may pass now."""
        # A wall clock that steps back refills nothing.
        self._left = min(BURST, self._left + max(0.0, now - self._at) / INTERVAL_S)
        self._at = now
        if self._left < 1 - 1e-9:  # at `ready_at`, whatever the rounding
            return False
        self._left -= 1
        return True

    @property
    def ready_at(self) -> float:
        """When the next change may pass."""
        return self._at + max(0.0, 1 - self._left) * INTERVAL_S
