"""One map stream: what its client was told, and what it must be told next (state.md B).

What a client has is described by two things: the revision of the world at its last message (`base`), and the View that
message was made from. The next message is the difference between that and the newest world, made when the session can
send: nothing is queued, nothing overtakes, and whoever reads slowly gets fewer and larger steps. `dirty` only says where
to look.

    base is None           the complete first message, which a client takes without memory of an earlier stream (§7.5)
    removed = v0 − v1      PeersRemoved
    added   = v1 − v0      PeersChanged, and the profiles of their users
    in both, and dirty     PeersChanged when a field without a patch changed since base, else PeersChangedPatch
    sections               those that are not what was sent

where v0 and v1 are the peers visible then and now, without the node itself. Source for what clients do with it:
control.md §7.6 to §7.9; `tests/control/mapper/client.py` does the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from control.mapper.blocks import slots_of
from control.mapper.encode import Writer, encode_array, encode_message, encode_object
from control.mapper.peers import Patch, Peer, encode_deleted_self, encode_patch, timestamp
from control.mapper.view import NOTHING, View, rerouted
from control.mapper.world import SECTIONS, Sections, World
from control.model import TAGGED_USER_ID, Tombstone
from control.tailcfg import map as wire
from control.tailcfg.codec import encode

DELTAS = 64  # kept of one revision: sessions of one class share theirs, and classes are few

Members = list[tuple[str, bytes]]


@dataclass(slots=True)
class Delta:
    """What differs. Bitsets are over slots."""

    removed: int
    whole: int
    patches: list[tuple[Peer, tuple[Patch, ...]]] = field(default_factory=list)
    sections: Members = field(default_factory=list)
    users: list[int] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.removed or self.whole or self.patches or self.sections or self.users)

    def key(self, view: View, zstd: bool) -> tuple[object, ...]:
        """Two sessions with one key at one revision need the same bytes."""
        lists = tuple(self.patches), tuple(self.sections), tuple(self.users)
        return (view, zstd, self.removed, self.whole, lists)


class Session:
    """Raises KeyError when the node does not exist. `wake` is called when there may be something to send, once until
    the next message is asked for. There is one wire variant for all client versions that we serve.
    """

    __slots__ = (
        "_base",
        "_dirty",
        "_everything",
        "_final",
        "_owed",
        "_profiles",
        "_renamed",
        "_sections",
        "_self_rev",
        "_view",
        "ended",
        "node_id",
        "stale",
        "wake",
        "world",
        "zstd",
    )

    def __init__(self, world: World, node_id: int, *, zstd: bool) -> None:
        self.world, self.node_id, self.zstd = world, node_id, zstd
        self.stale = True  # there may be something to send
        self.ended = False  # there will never be anything to send
        self.wake: Callable[[], None] | None = None
        self._base: int | None = None
        self._view = NOTHING
        self._owed = 0  # bitset: removed in the last message, to be added in the next
        self._dirty: set[int] = set()  # peers
        self._renamed: set[int] = set()  # users
        self._everything = False  # all peers are dirty
        self._profiles = 0  # bitset of the users that were sent
        self._sections: Sections = ()
        self._self_rev = 0
        self._final: tuple[bytes, int] | None = None  # self Node and user
        world.attach(self)

    def close(self) -> None:
        self.ended = True
        self.world.detach(self)

    # called by the world

    def mark(self) -> None:
        """Something that this client can see may have changed."""
        if not self.stale:
            self.stale = True
            if self.wake is not None:
                self.wake()

    def mark_peers(self, ids: list[int]) -> None:
        self._dirty.update(ids)
        self.mark()

    def mark_view(self, gained: int) -> None:
        """The view is another one, with these peers that were not in the one before.

        A client that reads slowly may still have some of them from the time before they went. It was not told of
        their changes meanwhile.
        """
        self._dirty.update(self.world.slot_ids[slot] for slot in slots_of(gained & self._view.visible))
        self.mark()

    def mark_user(self, user: int) -> None:
        if self._profiles & self.world.users.bit(user):
            self._renamed.add(user)
            self.mark()

    def mark_all(self) -> None:
        self._everything = True
        self.mark()

    def finish(self, self_json: bytes, user: int) -> None:
        """The node is gone: one message more, with this self `Node`."""
        self._final = self_json, user
        self.mark()

    # called by whoever sends

    def next_message(self, now: float) -> bytes | None:
        """Bytes for the stream that bring its client up to date, or None if it is.

        They count as told: if they cannot be sent, the stream is over.
        """
        if self.ended:
            return None
        self.stale = False
        if self._final is not None:
            self.ended = True
            return self._last(*self._final, now)
        message = self._full(now) if self._base is None else self._difference(self._base, now)
        self._base = self.world.rev
        self._dirty.clear()
        self._renamed.clear()
        self._everything = False
        self.stale = bool(self._owed)
        return message

    def _full(self, now: float) -> bytes:
        world, own, view = self.world, self.world.peers[self.node_id], self.world.view_of(self.node_id)
        self._view, self._self_rev, self._sections = view, own.self_rev, world.sections(view)
        bits = view.visible & ~own.bit
        users = world.users.owners(bits | own.bit)
        self._sent_users(users)
        members = _complete(world, world.self_json(own), self._sections, users, now)
        if not bits:  # an empty `Peers` says nothing
            return encode_message(encode_object(members), self.zstd)
        return self._with_peers(members, wire.PEERS, bits, view, own)

    def _last(self, self_json: bytes, user: int, now: float) -> bytes:
        """A delta is enough for a client that has had its first message."""
        if self._base is None:
            members = _complete(self.world, self_json, self.world.sections(NOTHING), [user], now)
        else:
            members = _self_members(self_json, now)
        return encode_message(encode_object(members), self.zstd)

    def _difference(self, base: int, now: float) -> bytes | None:
        world, own, view = self.world, self.world.peers[self.node_id], self.world.view_of(self.node_id)
        delta = self._compare(base, own, self._view, view)
        self._view = view
        if own.self_rev != self._self_rev:
            self._self_rev = own.self_rev
            return self._encode(delta, _self_members(world.self_json(own), now), view, own)
        if not delta:
            return None
        key = delta.key(view, self.zstd)
        message = world.deltas.get(key)
        if message is None:
            message = self._encode(delta, [], view, own)
            if len(world.deltas) < DELTAS:
                world.deltas[key] = message
        return message

    def _compare(self, base: int, own: Peer, old: View, new: View) -> Delta:
        known = old.visible & ~own.bit & ~self._owed
        wanted = new.visible & ~own.bit
        delta = Delta(removed=known & ~wanted, whole=wanted & ~known)
        self._owed = 0
        moved = rerouted(old, new)
        for peer in self._suspects(known & wanted, moved):
            self._compare_peer(base, peer, peer.id in moved, delta)
        delta.users = self._compare_users(delta.whole, wanted, own)
        sections = self.world.sections(new)
        for name, was, now_is in zip(SECTIONS, self._sections, sections, strict=True):
            if was != now_is:
                delta.sections.append((name, now_is))
        self._sections = sections
        return delta

    def _suspects(self, both: int, moved: frozenset[int]) -> Iterator[Peer]:
        """Of the peers that the client keeps, those that may differ, by id."""
        world = self.world
        if self._everything:
            yield from (world.by_slot[slot] for slot in slots_of(both))
            return
        for ident in sorted(self._dirty | moved):
            peer = world.peers.get(ident)
            if peer is not None and peer.bit & both:
                yield peer

    def _compare_peer(self, base: int, peer: Peer, moved: bool, delta: Delta) -> None:
        if peer.revs["readd"] > base:
            delta.removed |= peer.bit
            self._owed |= peer.bit
            return
        patches = peer.patches_since(base)
        if moved or peer.revs["body"] > base:
            delta.whole |= peer.bit
            # If the node turns out to be the same but for Online and LastSeen (there and back again between two
            # messages), a client drops a LastSeen that it did not have before. A patch it takes (control.md §7.8).
            patches = ("online",) if "online" in patches and not peer.online else ()
        if patches:
            delta.patches.append((peer, patches))

    def _compare_users(self, whole: int, wanted: int, own: Peer) -> list[int]:
        """Whose profiles the client needs: new users, and known ones that were renamed and are still in sight."""
        world = self.world
        users = {
            user
            for user in (*world.users.owners(whole), own.wire_user)
            if not self._profiles & world.users.bit(user)
        }
        for user in self._renamed:
            if world.users.owns_any(user, wanted | own.bit):
                users.add(user)
            else:
                self._profiles &= ~world.users.bit(user)  # stale at the client from now on
        self._sent_users(users)
        return sorted(users)

    def _sent_users(self, users: Iterable[int]) -> None:
        for user in users:
            self._profiles |= self.world.users.bit(user)

    def _encode(self, delta: Delta, members: Members, view: View, own: Peer) -> bytes:
        world = self.world
        members += delta.sections
        if delta.removed:
            removed = [world.slot_ids[slot] for slot in slots_of(delta.removed)]
            members.append((wire.PEERS_REMOVED, encode(removed)))
        if delta.patches:
            patches = encode_array(encode_patch(peer, parts) for peer, parts in delta.patches)
            members.append((wire.PEERS_CHANGED_PATCH, patches))
        if delta.users:
            members.append((wire.USER_PROFILES, world.users.profiles(delta.users)))
        if delta.whole:
            return self._with_peers(members, wire.PEERS_CHANGED, delta.whole, view, own)
        return encode_message(encode_object(members), self.zstd)

    def _with_peers(self, members: Members, name: str, bits: int, view: View, own: Peer) -> bytes:
        writer = Writer(self.zstd)
        before, after = encode_object([*members, (name, b"[]")])[:-2], b"]}"
        writer.text(before)
        self.world.blocks.write(writer, bits, view, own)
        writer.text(after)
        return writer.finish()


def deleted_message(world: World, stone: Tombstone, *, zstd: bool, now: float) -> bytes:
    """A complete first message for the client of a deleted node: log in again (control.md §6.7).

    With the DERP map, without which clients find no relay after the next login.
    """
    self_json = encode_deleted_self(stone.node_id, stone.node_key, TAGGED_USER_ID, stone.deleted_at)
    members = _complete(world, self_json, world.sections(NOTHING), [TAGGED_USER_ID], now)
    return encode_message(encode_object(members), zstd)


def _complete(world: World, self_json: bytes, sections: Sections, users: list[int], now: float) -> Members:
    """A first message but for its peers."""
    members = _self_members(self_json, now)
    if not world.settings.client_logs:
        # It sticks until the client's process ends; in a delta it would cost a rebuild.
        members.append((wire.DEBUG, b'{"DisableLogTail":true}'))
    members.append((wire.COLLECT_SERVICES, b"false"))
    members += zip(SECTIONS, sections, strict=True)
    members.append((wire.USER_PROFILES, world.users.profiles(users)))
    return members


def _self_members(self_json: bytes, now: float) -> Members:
    # ControlTime is what a client judges key expiry by.
    return [(wire.CONTROL_TIME, encode(timestamp(now))), (wire.NODE, self_json)]
