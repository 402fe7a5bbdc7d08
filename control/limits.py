"""How much a client may cost: the numbers of the coordination part, each with its reason.

What a protocol fixes (record sizes, frame types) stands beside the code that speaks it, and what one duty or one table
chooses for itself beside that. Here is what bounds a client: every queue, buffer and wait on a stranger has its line.
"""

from typing import NamedTuple

ROUNDING = 1e-9  # at `ready_at` there is enough, whatever became of the last digit


class Rate(NamedTuple):
    """A token bucket's shape: so many at once, then so many a second."""

    burst: int
    per_second: float


class Budget:
    """A token bucket. It starts full, and knows no clock; one that steps back refills nothing."""

    __slots__ = ("_filled_at", "_left", "_rate")

    def __init__(self, rate: Rate, now: float) -> None:
        self._rate = rate
        self._left: float = rate.burst
        self._filled_at = now

    def spend(self, amount: int, now: float) -> bool:
        """Take *amount*; False if there was not enough, and then nothing is taken."""
        refill = max(0.0, now - self._filled_at) * self._rate.per_second
        self._left = min(self._rate.burst, self._left + refill)
        self._filled_at = now
        if amount > self._left + ROUNDING:
            return False
        self._left -= amount
        return True

    @property
    def ready_at(self) -> float:
        """When there is one to take."""
        return self._filled_at + max(0.0, 1 - self._left) / self._rate.per_second


class Quotas(NamedTuple):
    """How much of everything one server takes: what an operator may raise in `[limits]` (for a machine of 1 GiB)."""

    nodes: int = 10_000
    nodes_per_user: int = 200  # by logging in; keys have their own
    nodes_per_key: int = 2_000  # a leaked key must not fill the memory or the address plan
    ephemeral_nodes: int = 2_000
    pending_logins: int = 1_024
    pending_logins_per_source: int = 32
    pending_login_s: int = 900


# --- Noise ------------------------------------------------------------------------------------------------------

# Sealing and writing go in pieces of this many bytes of plaintext: 16 full records, just under 64 KiB. One megabyte
# sealed at once ran at a third of the speed, and the peer sees the first bytes sooner.
SEAL_PIECE_BYTES = 16 * 4077

# Records without content are legal, cost a decryption and carry nothing.
EMPTY_RECORDS = Rate(burst=100, per_second=100)

# --- HTTP/2: sizes ----------------------------------------------------------------------------------------------

# A client assumes 100 until it has read our SETTINGS. It needs one long poll, a few short calls, some SSH holds.
MAX_STREAMS = 100
MAX_STREAMS_STRANGER = 8

MAX_HEADER_LIST_BYTES = 16 * 1024  # official clients send about 300
MAX_FRAME_BYTES = 16 * 1024  # the protocol's minimum, both ways
STREAM_WINDOW_BYTES = 65_535  # the protocol's default; a map request is a few tens of KiB
CONNECTION_WINDOW_BYTES = 1024 * 1024

# Map requests stay below tens of KiB.
MAX_BODY_BYTES = 1024 * 1024
MAX_BODY_BYTES_STRANGER = 64 * 1024
# All bodies of one connection, from their first byte until their handler has returned.
MAX_BODIES_BYTES = 2 * 1024 * 1024

# The h2 library remembers how streams ended (107 bytes each, and 65,536 of them if it may).
MAX_CLOSED_STREAMS = 1_000

# A reader that finds this much waiting to be written waits for it to leave before it reads on. Below, it reads on
# while another task writes, so that two peers who both stop reading until they have written do not lock up.
MAX_UNSENT_CONTROL_BYTES = 64 * 1024

# --- HTTP/2: times, in seconds ----------------------------------------------------------------------------------

STRANGER_S = 30.0  # without a pending login; a client registers within milliseconds
BODY_S = 60.0  # a request body, from its headers to its end
WRITE_S = 30.0  # one write of at most 64 KiB
# A response that flow control holds back for this long, plus a second for each KiB of it, ends the connection.
BLOCKED_S = 60.0
SLOWEST_BYTES_PER_S = 1024

# TCP alone finds a sleeping phone only after minutes, and until then its peers believe it is there.
SILENCE_BEFORE_PING_S = 60.0
PING_ANSWER_S = 20.0

LAST_WORDS_S = 2.0  # a GOAWAY that goes with a closing connection may take this long
LINGER_S = 2.0  # after the last stream of a draining connection, for the client to close first

# --- HTTP/2: frames that cost us more than their sender ---------------------------------------------------------

RST_STREAM_FRAMES = Rate(burst=100, per_second=20)  # clients cancel superseded map updates
SETTINGS_FRAMES = Rate(burst=10, per_second=1)  # one at the start, one acknowledgement of each of ours
PING_FRAMES = Rate(burst=20, per_second=2)  # now and then beside an RST_STREAM
EMPTY_DATA_FRAMES = Rate(burst=100, per_second=100)
WINDOW_UPDATE_FRAMES = Rate(burst=1_000, per_second=1_000)
# Beside that budget, what we send earns the client its WINDOW_UPDATEs. Go's client sends two for each 4 KiB it has
# read, on a fast link some thousand at once for one big map.
BYTES_PER_WINDOW_UPDATE = 1024
CONTINUATION_FRAMES = Rate(burst=8, per_second=1)  # 16 KiB of headers fit one frame: nobody needs any
OTHER_FRAMES = Rate(burst=100, per_second=100)  # PRIORITY, unknown types: ignored, but not for ever

# --- Connections ------------------------------------------------------------------------------------------------

NOISE_PER_MACHINE = 8  # a client holds two or three at once since 1.90, and some that died unnoticed

# --- Requests of one connection ---------------------------------------------------------------------------------

REGISTRATIONS = Rate(burst=12, per_second=1)  # a client's back-off: about ten quick tries, then one in 30 s
MAP_OPENS = Rate(burst=10, per_second=1)
MAP_UPDATES = Rate(burst=20, per_second=5)  # a netcheck every 20 to 26 s, bursts at a network change

# --- What one node makes others do -------------------------------------------------------------------------------

# Every peer that sees a node sends packets to its endpoints and is told of each change (security.md M5): a node that lies
# about them, or a network that flaps, must not make the whole tailnet work. Ordinary life is a handful of changes
# within seconds of a start or a change of network, then silence for minutes.
ENDPOINT_CHANGES = Rate(burst=5, per_second=1 / 5)
