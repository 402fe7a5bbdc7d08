"""Users as clients see them: profiles, and who owns which peers.

Sets of users and of peers are bitsets (users over `bit`, peers over slots), so that a session can remember whom it has
sent in one number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from control.mapper.blocks import SIZE, slots_of
from control.mapper.encode import encode_array
from control.mapper.peers import TAGGED_PROFILE, Peer, encode_profile
from control.model import TAGGED_USER_ID, User


class Users:
    """`peers` by slot. A user's id is the one on the wire."""

    def __init__(self, peers: Mapping[int, Peer]) -> None:
        self._peers = peers
        self._profiles = {TAGGED_USER_ID: TAGGED_PROFILE}
        self._numbers: dict[int, int] = {}
        self._owned: dict[int, int] = {}  # user → bitset of peers, where there are any

    def bit(self, user: int) -> int:
        return 1 << self._numbers.setdefault(user, len(self._numbers))

    def put(self, ident: int, user: User | None) -> bool:
        """The record as it is now; whether its profile is another one."""
        profile = None if user is None else encode_profile(user)
        if profile == self._profiles.get(ident):
            return False
        if profile is None:
            del self._profiles[ident]
        else:
            self._profiles[ident] = profile
        return True

    def profiles(self, users: Iterable[int]) -> bytes:
        """JSON array."""
        return encode_array(self._profiles[user] for user in users if user in self._profiles)

    def own(self, user: int, bit: int) -> None:
        self._owned[user] = self._owned.get(user, 0) | bit

    def disown(self, user: int, bit: int) -> None:
        self._owned[user] &= ~bit
        if not self._owned[user]:
            del self._owned[user]

    def owns_any(self, user: int, bits: int) -> bool:
        return bool(self._owned.get(user, 0) & bits)

    def owners(self, bits: int) -> list[int]:
        """The users of these peers. Of many peers the users are asked, for they are fewer."""
        if bits.bit_count() <= SIZE:
            return sorted({self._peers[slot].wire_user for slot in slots_of(bits)})
        return [user for user, owned in self._owned.items() if owned & bits]
