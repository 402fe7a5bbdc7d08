"""Who is online: the streams of each node are counted, and the last one's end counts only after a grace.

A client that changes networks opens its new stream while the old one still looks alive, and a cut one comes back within
a second: neither may be seen by others (control.md §7.13, §12 no. 43).
"""

from __future__ import annotations

from collections.abc import Callable

GRACE_S = 10.0
PRESUMED_S = 60.0  # after a start, for nodes that were online at the last flush (state.md A.13)


class Presence:
    """Pure bookkeeping; `set_online(node_id, online)` is told of every change. `now` is the monotonic clock."""

    def __init__(self, set_online: Callable[[int, bool], None]) -> None:
        self._set_online = set_online
        self._streams: dict[int, int] = {}
        self._leaving: dict[int, float] = {}  # node id → when it counts as gone

    def presume(self, node_ids: list[int], now: float) -> None:
        """Nodes that were online when the process stopped: they have a minute to come back."""
        self._leaving.update(dict.fromkeys(node_ids, now + PRESUMED_S))

    def connected(self, node_id: int) -> None:
        """A stream of this node has begun."""
        self._streams[node_id] = self._streams.get(node_id, 0) + 1
        self._leaving.pop(node_id, None)
        self._set_online(node_id, True)

    def disconnected(self, node_id: int, now: float) -> None:
        """A stream of this node has ended."""
        left = self._streams.get(node_id, 1) - 1
        if left:
            self._streams[node_id] = left
            return
        self._streams.pop(node_id, None)
        self._leaving[node_id] = now + GRACE_S

    def tick(self, now: float) -> None:
        """Nodes whose grace is over are offline."""
        for node_id in [node_id for node_id, until in self._leaving.items() if until <= now]:
            del self._leaving[node_id]
            self._set_online(node_id, False)

    def has_stream(self, node_id: int) -> bool:
        """Whether a client holds a stream right now: what administrators are shown."""
        return node_id in self._streams

    @property
    def connected_count(self) -> int:
        return len(self._streams)
