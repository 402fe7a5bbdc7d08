"""How often who is answered, counted in a table that never grows.

Sources can be forged, so no memory is spent on any of them: 4,096 slots of two numbers, chosen by a keyed
hash. Two sources may share a slot; nobody outside can tell which, so nobody can starve another on purpose.
The limit per source is far above need (300 clients behind one NAT ask about 60 times a second); the global one
protects the rest of the process.
"""

from array import array

MIN_REQUEST_BYTES = 40  # header, SOFTWARE "tailnode", FINGERPRINT: what every official client sends
MAX_REQUEST_BYTES = 128  # room for attributes of the future
DATAGRAMS_PER_WAKE_UP = 64  # then the rest of the process gets its turn
SLOTS = 4096
SOURCE_PER_S = 500.0
SOURCE_BURST = 1_000.0
ALL_PER_S = 20_000.0
ALL_BURST = 20_000.0
V6_PREFIX_BYTES = 8  # a /64 is one source: its owner has all the addresses in it


class SourceLimit:
    """Token buckets in a fixed table, and one for everybody. The caller says what time it is."""

    __slots__ = ("_all_at", "_all_tokens", "_secret", "_tokens", "_updated_at")

    def __init__(self, secret: bytes, now: float) -> None:
        """`secret`: some 16 random bytes, so that slots cannot be predicted."""
        self._secret = secret
        self._tokens = array("d", [SOURCE_BURST]) * SLOTS
        self._updated_at = array("d", [now]) * SLOTS
        self._all_tokens = ALL_BURST
        self._all_at = now

    def admit_source(self, address: bytes, now: float) -> bool:
        """Take one token of this source; `address` is 4 or 16 bytes."""
        # hash() of bytes is SipHash, keyed for the process; the secret stays even if someone fixes that key.
        slot = hash(self._secret + (address if len(address) == 4 else address[:V6_PREFIX_BYTES])) % SLOTS
        tokens = self._tokens[slot] + (now - self._updated_at[slot]) * SOURCE_PER_S
        self._updated_at[slot] = now
        if tokens < 1.0:
            self._tokens[slot] = tokens
            return False
        self._tokens[slot] = min(tokens, SOURCE_BURST) - 1.0
        return True

    def admit_any(self, now: float) -> bool:
        """Take one token of everybody's."""
        tokens = self._all_tokens + (now - self._all_at) * ALL_PER_S
        self._all_at = now
        if tokens < 1.0:
            self._all_tokens = tokens
            return False
        self._all_tokens = min(tokens, ALL_BURST) - 1.0
        return True
