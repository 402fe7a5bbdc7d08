"""A log line that strangers can cause must not fill the disk."""

from __future__ import annotations

import trio

from appliance.door.limits import WARN_EVERY_SECONDS


class Seldom:
    """Says yes once per interval for each kind of thing."""

    def __init__(self, interval_s: float = WARN_EVERY_SECONDS) -> None:
        self._interval_s = interval_s
        self._next: dict[str, float] = {}

    def now(self, kind: str) -> bool:
        """Is it time to say `kind` again? `kind` is a constant of ours, never something a stranger sent."""
        now = trio.current_time()
        if now < self._next.get(kind, now):
            return False
        self._next[kind] = now + self._interval_s
        return True
