"""Open sessions, by node and by class of viewers."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from control.mapper.session import Session


class Audience:
    def __init__(self) -> None:
        self._by_node: dict[int, list[Session]] = {}
        self._by_class: dict[Hashable, set[Session]] = {}

    def of_node(self, ident: int) -> Sequence[Session]:
        return self._by_node.get(ident, ())

    def of_class(self, viewers: Hashable) -> Collection[Session]:
        return self._by_class.get(viewers, ())

    def everybody(self) -> list[Session]:
        return [session for sessions in self._by_node.values() for session in sessions]

    def add(self, session: Session, viewers: Hashable) -> None:
        self._by_node.setdefault(session.node_id, []).append(session)
        self._by_class.setdefault(viewers, set()).add(session)

    def remove(self, session: Session, viewers: Hashable) -> None:
        """Also of one that is not there any more."""
        sessions = self._by_node.get(session.node_id, [])
        if session in sessions:
            sessions.remove(session)
            if not sessions:
                del self._by_node[session.node_id]
        self._leave(viewers, [session])

    def move(self, ident: int, old: Hashable, new: Hashable) -> None:
        """The node's sessions see as another class now."""
        sessions = self.of_node(ident)
        if sessions:
            self._leave(old, sessions)
            self._by_class.setdefault(new, set()).update(sessions)

    def drop_node(self, ident: int, viewers: Hashable) -> list[Session]:
        """They are told of nothing any more."""
        sessions = self._by_node.pop(ident, [])
        self._leave(viewers, sessions)
        return sessions

    def _leave(self, viewers: Hashable, sessions: Sequence[Session]) -> None:
        members = self._by_class.get(viewers)
        if members is not None:
            members.difference_update(sessions)
            if not members:
                del self._by_class[viewers]
