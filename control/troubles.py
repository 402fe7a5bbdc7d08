"""Clients that could not do what they wanted, and why: what an administrator asks first. Memory only, and bounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

KEPT = 20  # the newest; a stranger's noise can push others out, which is why each says when
FORGOTTEN_AFTER_S = 24 * 3600.0


class Trouble(NamedTuple):
    who: str
    why: str
    at: float  # seconds since 1970, the last time


class Troubles:
    """One entry per (who, why), the newest last."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._at: dict[tuple[str, str], float] = {}

    def note(self, who: str, why: str) -> None:
        self._at.pop((who, why), None)
        if len(self._at) >= KEPT:
            del self._at[next(iter(self._at))]
        self._at[who, why] = self._wall()

    def over(self, who: str) -> None:
        """It works now."""
        for key in [key for key in self._at if key[0] == who]:
            del self._at[key]

    def recent(self) -> list[Trouble]:
        """The newest first."""
        since = self._wall() - FORGOTTEN_AFTER_S
        return [Trouble(who, why, at) for (who, why), at in reversed(self._at.items()) if at >= since]
