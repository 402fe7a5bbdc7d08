"""Who routes what: one primary per prefix.

Two peers with one prefix in one netmap send traffic to the wrong router (control.md §12 no. 34), so of all nodes that
offer a prefix one is elected, and only it has the prefix in its AllowedIPs and PrimaryRoutes:

- the current one, while it is online;
- else the one that is online and registered earliest (ids ascend);
- else the current one still: with everybody offline there is nothing to gain from a change;
- else, when there is none yet, the earliest of all.

The default routes are never elected: each exit node has both of them, and its users choose (§8.1).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from control.prefixes import EXIT_ROUTES


@dataclass(frozen=True, slots=True)
class Routes:
    """What a node routes beyond its own addresses."""

    allowed: tuple[str, ...]
    primary: tuple[str, ...]


NO_ROUTES = Routes((), ())


def elect(candidates: Mapping[int, bool], current: int | None) -> int | None:
    """The primary among `candidates` (id → online)."""
    if current is not None and candidates.get(current):
        return current
    online = [ident for ident, is_online in candidates.items() if is_online]
    if online:
        return min(online)
    return current if current in candidates else min(candidates, default=None)


class RouteTable:
    """The offers of all nodes, and the primaries that follow. First all offers, then `settle`."""

    def __init__(self, primaries: Mapping[str, int]) -> None:
        self.primaries: dict[str, int] = dict(primaries)
        self._offers: dict[int, frozenset[str]] = {}  # id → prefixes, exit routes among them
        self._candidates: dict[str, dict[int, bool]] = {}  # prefix → id → online
        self._served: dict[int, Routes] = {}  # only what differs from NO_ROUTES
        self._prefixes: set[str] = set(primaries)  # to elect anew
        self._nodes: set[int] = set()  # to serve anew

    def routes_of(self, ident: int) -> Routes:
        return self._served.get(ident, NO_ROUTES)

    def offer(self, ident: int, prefixes: Collection[str], online: bool) -> None:
        """This node offers these prefixes (none when it is expired or gone)."""
        old, new = self._offers.pop(ident, frozenset()), frozenset(prefixes)
        if not old and not new:
            return
        if new:
            self._offers[ident] = new
        self._nodes.add(ident)
        for prefix in old - new - {*EXIT_ROUTES}:
            del self._candidates[prefix][ident]
            self._prefixes.add(prefix)
        for prefix in new - {*EXIT_ROUTES}:
            candidates = self._candidates.setdefault(prefix, {})
            if candidates.get(ident) is not online:
                candidates[ident] = online
                self._prefixes.add(prefix)

    def settle(self) -> set[int]:
        """Hold the elections that are due; the nodes whose routes are different now."""
        for prefix in self._prefixes:
            self._elect(prefix)
        changed = {ident for ident in self._nodes if self._serve(ident)}
        self._prefixes.clear()
        self._nodes.clear()
        return changed

    def _elect(self, prefix: str) -> None:
        current = self.primaries.pop(prefix, None)
        candidates = self._candidates.get(prefix, {})
        chosen = elect(candidates, current)
        if chosen is not None:
            self.primaries[prefix] = chosen
        else:
            self._candidates.pop(prefix, None)
        self._nodes.update(ident for ident in (current, chosen) if ident is not None)

    def _serve(self, ident: int) -> bool:
        offered = self._offers.get(ident, frozenset())
        primary = tuple(sorted(prefix for prefix in offered if self.primaries.get(prefix) == ident))
        exits = EXIT_ROUTES if offered.issuperset(EXIT_ROUTES) else ()
        routes = Routes(primary + exits, primary)
        if routes == self.routes_of(ident):
            return False
        if routes == NO_ROUTES:
            del self._served[ident]
        else:
            self._served[ident] = routes
        return True
