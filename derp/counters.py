"""What the relay counts. Plain integers; whoever shows them reads them when asked."""

from dataclasses import dataclass
from enum import StrEnum


class DropReason(StrEnum):
    """Why a packet was not delivered; the names are the reference server's where it has one."""

    UNKNOWN_DEST = "unknown_dest"  # nobody of that key is connected
    GONE_DISCONNECTED = "gone_disconnected"  # queued for a connection that ended
    WRITE_ERROR = "write_error"  # the destination's socket failed while we wrote
    QUEUE_HEAD = "queue_head"  # the connection's queue was full: its oldest packet
    QUEUE_KEY = "queue_key"  # the node key's share was full
    QUEUE_PROCESS = "queue_process"  # the relay's share was full, and this was in the largest queue


class CloseReason(StrEnum):
    """Why a logged-in connection ended."""

    CLIENT = "client"  # it closed, or its network did
    PROTOCOL = "protocol"  # it broke the rules of the wire
    SLOW = "slow"  # it did not read for two seconds
    MEMORY = "memory"  # everything is full, and it held the most
    REPLACED = "replaced"  # too many connections of one key: the oldest
    EVICTED = "evicted"  # its node is no longer admitted
    SHUTDOWN = "shutdown"
    BUG = "bug"


@dataclass(slots=True)
class Counters:
    # gauges
    connections: int = 0
    keys: int = 0
    home_connections: int = 0
    backlog_bytes: int = 0

    # logins
    logins: int = 0
    login_protocol: int = 0  # refused: broken or late
    login_not_admitted: int = 0
    login_replayed: int = 0
    login_full: int = 0

    # traffic: packets are SendPacket/RecvPacket, bytes are their frames
    packets_received: int = 0
    bytes_received: int = 0
    packets_sent: int = 0
    bytes_sent: int = 0
    pings: int = 0
    pongs: int = 0
    unknown_frames: int = 0
    peer_gone_disconnected: int = 0
    peer_gone_not_here: int = 0

    dropped_bytes: int = 0
    dropped_unknown_dest: int = 0
    dropped_gone_disconnected: int = 0
    dropped_write_error: int = 0
    dropped_queue_head: int = 0
    dropped_queue_key: int = 0
    dropped_queue_process: int = 0

    closed_client: int = 0
    closed_protocol: int = 0
    closed_slow: int = 0
    closed_memory: int = 0
    closed_replaced: int = 0
    closed_evicted: int = 0
    closed_shutdown: int = 0
    closed_bug: int = 0

    def drop(self, reason: DropReason, packets: int, size: int) -> None:
        name = f"dropped_{reason}"
        setattr(self, name, getattr(self, name) + packets)
        self.dropped_bytes += size

    def close(self, reason: CloseReason) -> None:
        name = f"closed_{reason}"
        setattr(self, name, getattr(self, name) + 1)
