"""Every bound of the relay, with its reason, and the token bucket that counts against time.

Sizes of frames are the protocol's own or tighter: they are checked on the five bytes of header, before a
single byte of payload is kept. What is kept for blocked readers is bounded three times: per connection, per
node key and for the process.
"""

from dataclasses import dataclass

# --- frames, as a client may send them -------------------------------------------------------------------

MAX_PACKET_BYTES = 65_536  # payload of SendPacket/RecvPacket without keys; tailscale: derp.MaxPacketSize
MAX_FRAME_BYTES = 1 << 20  # what a client takes from a server, and so the most we will ever hear of
MAX_SEND_PACKET_BYTES = 32 + MAX_PACKET_BYTES
MAX_UNKNOWN_BYTES = 64 << 10  # future frame types are skipped, but not gigabytes of them
MAX_CLIENT_INFO_BYTES = 4 << 10  # real ones are under 300 bytes; the reference allows 256 KiB
MIN_CLIENT_INFO_BYTES = 32 + 24  # key and nonce
MIN_PING_BYTES = 8
MAX_PING_BYTES = 1_000  # the first eight bytes count, the rest is room for the future

# --- turns of the engine ---------------------------------------------------------------------------------

READ_BYTES = 64 << 10  # one read of one connection per turn: larger gains nothing, smaller costs much
WRITE_BYTES = 64 << 10  # one piece of a backlog; all that is encrypted at once
JOIN_BYTES = 8 << 10  # runs below this are joined per destination until the round ends
EVENTS_PER_ROUND = 256  # so a round is bounded, whoever is readable
DISCO_FRAME_BYTES = 2 << 10  # a frame above this is data, whatever it begins with

# --- other -----------------------------------------------------------------------------------------------

NONCES_PER_KEY = 16  # more logins of one key than this between record and replay are not detected
NONCE_KEYS = 32_768  # above the 24,000 connections of the process; about 600 bytes each
URGENT_BYTES = 4 << 10  # Pong and PeerGone waiting for a blocked connection: about 100
PEER_GONE_PER_S = 1.0  # PeerGone(not here) per sender, as the reference does
PEER_GONE_BURST = 3.0
KEEP_ALIVE_SPREAD_S = 5  # each connection adds up to this to its interval, so that they do not beat in step


@dataclass(frozen=True, slots=True)
class Limits:
    """What an operator or a test may want to be different."""

    login_s: float = 10.0  # from the first byte we send to ClientInfo; the client gives up at 10 s as well
    keep_alive_s: float = 60.0  # a client reconnects after 120 s of silence
    stall_s: float = 2.0  # a reader that takes nothing for this long is cut; tailscale: --tcp-write-timeout
    connections: int = 24_000
    connections_per_key: int = 8  # two when a client changes networks; the rest is slack
    queue_packets_any_size: int = 32  # derpprobe keeps 30 packets of 64 KiB in flight
    queue_packets: int = 512  # … more than 32 packets only within both of these
    queue_bytes: int = 256 << 10
    key_bytes: int = 4 << 20  # all connections of one node key
    process_bytes: int = 64 << 20  # everybody; the largest backlog is trimmed first
    pause_s: float = 40e-6  # moderation of wake-ups under load; 0 switches it off


class TokenBucket:
    """So many a second, so many at once. The caller says what time it is."""

    __slots__ = ("_burst", "_rate", "_tokens", "_updated_at")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._updated_at = now

    def take(self, now: float, amount: float = 1.0) -> bool:
        """Take `amount` tokens if they are there; a clock that goes back adds nothing."""
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._updated_at) * self._rate)
        self._updated_at = now
        if self._tokens < amount:
            return False
        self._tokens -= amount
        return True
