"""Who is connected, and which connection speaks for a node key.

A client that changes networks opens its new connection while we still believe in the old one, so one node
key may have several. All stay open; one is *active* and gets what is sent to the key:

- a new connection becomes active;
- so does any connection on which a frame arrives;
- when the active one ends, the one that spoke last follows, else the newest.

When the last connection of a key ends, everybody who was ever handed a packet from it hears PeerGone, and
hears it again should the key come back and leave again. (The reference tells each connection once.)

The connections are opaque here: any object that can be told apart.

Source: tailscale: derp/derpserver/derpserver.go (clientSet, registerClient, unregisterClient,
noteClientActivity, notePeerGoneFromRegionLocked).
"""

from collections.abc import Hashable
from typing import Generic, TypeVar

from derp.backlog import Budget

C = TypeVar("C", bound=Hashable)


class Peer(Generic[C]):
    """One node key with at least one connection."""

    __slots__ = ("active", "backlog", "connections", "key", "reached", "speakers")

    def __init__(self, key: bytes, connection: C, backlog: Budget) -> None:
        self.key = key
        self.active = connection
        self.connections = [connection]  # in the order of joining
        self.speakers: list[C] = []  # each once, the latest last; kept only while there are several
        self.reached: set[C] = set()  # connections that were handed a packet from this key
        self.backlog = backlog  # shared by all connections of the key


class Relay(Generic[C]):
    """Node key → connections. Never holds a key without a connection."""

    def __init__(self, connections_per_key: int, key_bytes: int) -> None:
        self.peers: dict[bytes, Peer[C]] = {}
        self._connections_per_key = connections_per_key
        self._key_bytes = key_bytes
        self._heard: dict[C, set[Peer[C]]] = {}  # the reverse of Peer.reached

    def join(self, key: bytes, connection: C) -> tuple[Peer[C], C | None]:
        """Add a connection and make it active. Returns the one that must go for it, if the key has too many."""
        peer = self.peers.get(key)
        if peer is None:
            peer = self.peers[key] = Peer(key, connection, Budget(self._key_bytes))
            return peer, None
        peer.connections.append(connection)
        peer.active = connection
        surplus = peer.connections[0] if len(peer.connections) > self._connections_per_key else None
        return peer, surplus

    def leave(self, peer: Peer[C], connection: C) -> set[C]:
        """Remove a connection. Returns who must be told that the key is gone: nobody while others remain."""
        for source in self._heard.pop(connection, ()):
            source.reached.discard(connection)
        peer.connections.remove(connection)
        if connection in peer.speakers:
            peer.speakers.remove(connection)
        if peer.connections:
            if peer.active is connection:
                peer.active = peer.speakers[-1] if peer.speakers else peer.connections[-1]
            return set()
        del self.peers[peer.key]
        reached, peer.reached = peer.reached, set()
        for other in reached:
            self._heard[other].discard(peer)
        return reached

    def spoke(self, peer: Peer[C], connection: C) -> None:
        """A frame arrived on one of several connections of a key."""
        if connection in peer.speakers:
            peer.speakers.remove(connection)
        peer.speakers.append(connection)
        peer.active = connection

    def delivered(self, source: Peer[C], to: C) -> None:
        """`to` was handed a packet from `source`; it will be told when the source is gone."""
        source.reached.add(to)
        self._heard.setdefault(to, set()).add(source)
