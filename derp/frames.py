"""The frames of DERP: what travels between a client and its relay.

    | type (8) | length of the rest (32, big-endian) | payload |

    type                 direction   payload
    0x01 ServerKey       S→C         8 bytes magic, 32 bytes server key, anything
    0x02 ClientInfo      C→S         32 bytes client key, 24 bytes nonce, NaCl box of JSON
    0x03 ServerInfo      S→C         24 bytes nonce, NaCl box of JSON
    0x04 SendPacket      C→S         32 bytes destination key, packet
    0x05 RecvPacket      S→C         32 bytes source key, packet
    0x06 KeepAlive       S→C         empty
    0x07 NotePreferred   C→S         1 byte: 1 this is my home relay, 0 it is not
    0x08 PeerGone        S→C         32 bytes key, 1 byte reason
    0x09 PeerPresent     S→mesh      not sent here yet
    0x0a ForwardPacket   mesh→S      \\
    0x10 WatchConns      mesh→S       } only a proven mesh peer may send these; we have none yet, so they
    0x11 ClosePeer       mesh→S      /  end the connection
    0x12 Ping            both        8 bytes (a client may add up to 992 more)
    0x13 Pong            both        the 8 bytes
    0x14 Health          S→C         text; never sent
    0x15 Restarting      S→C         ms until you should reconnect (32), ms to keep trying (32)

SendPacket and the RecvPacket that comes of it have the same length: the type byte and the 32 bytes of key
differ, nothing else. The relay lives on that: it rewrites frames where they lie.

Both sides skip types they do not know by their length. From a client that includes Pong, KeepAlive and a
second ClientInfo, as in the reference server.

Source: tailscale: derp/derp.go, derp/derpserver/derpserver.go.
"""

from base64 import b64encode
from enum import IntEnum
from struct import Struct

from derp.errors import ProtocolError
from derp.limits import (
    MAX_CLIENT_INFO_BYTES,
    MAX_FRAME_BYTES,
    MAX_PING_BYTES,
    MAX_SEND_PACKET_BYTES,
    MAX_UNKNOWN_BYTES,
    MIN_CLIENT_INFO_BYTES,
    MIN_PING_BYTES,
)

MAGIC = b"DERP\xf0\x9f\x94\x91"  # "DERP🔑" in UTF-8
PROTOCOL_VERSION = 2
KEY_BYTES = 32
HEADER_BYTES = 5

HEADER = Struct(">BI")
HEADER_AND_KEY = Struct(">BI32s")

# A disco message is a NAT traversal packet of the clients: 6 bytes magic, 32 bytes key, 24 bytes nonce, box.
# tailscale: disco/disco.go (LooksLikeDiscoWrapper)
DISCO_MAGIC = b"TS\xf0\x9f\x92\xac"
DISCO_MIN_BYTES = 6 + 32 + 24


class FrameType(IntEnum):
    SERVER_KEY = 0x01
    CLIENT_INFO = 0x02
    SERVER_INFO = 0x03
    SEND_PACKET = 0x04
    RECV_PACKET = 0x05
    KEEP_ALIVE = 0x06
    NOTE_PREFERRED = 0x07
    PEER_GONE = 0x08
    PEER_PRESENT = 0x09
    FORWARD_PACKET = 0x0A
    WATCH_CONNS = 0x10
    CLOSE_PEER = 0x11
    PING = 0x12
    PONG = 0x13
    HEALTH = 0x14
    RESTARTING = 0x15


class GoneReason(IntEnum):
    """Why a peer cannot be reached here, the last byte of PeerGone."""

    DISCONNECTED = 0x00
    NOT_HERE = 0x01


MESH_ONLY = frozenset({FrameType.FORWARD_PACKET, FrameType.WATCH_CONNS, FrameType.CLOSE_PEER})

# What a client may send besides unknown types: (shortest, longest) payload.
CLIENT_FRAME_BYTES: dict[int, tuple[int, int]] = {
    FrameType.SEND_PACKET: (KEY_BYTES, MAX_SEND_PACKET_BYTES),
    FrameType.NOTE_PREFERRED: (1, 1),
    FrameType.PING: (MIN_PING_BYTES, MAX_PING_BYTES),
}


def check_client_frame(kind: int, length: int) -> None:
    """Refuse a frame by its header alone, so that nothing of it is ever buffered.

    Raises ProtocolError for a length that its type does not allow and for types only a mesh peer may send.
    """
    if length > MAX_FRAME_BYTES:
        raise ProtocolError(f"frame of {length} bytes")
    if kind in MESH_ONLY:
        raise ProtocolError(f"frame type {kind:#04x} from a client that is no mesh peer")
    shortest, longest = CLIENT_FRAME_BYTES.get(kind, (0, MAX_UNKNOWN_BYTES))
    if not shortest <= length <= longest:
        raise ProtocolError(f"frame type {kind:#04x} with {length} bytes")


def parse_login_header(header: bytes) -> int:
    """The payload length of a ClientInfo frame, from its five bytes of header.

    Raises ProtocolError for any other type, since nothing else may come first, and for an absurd length.
    """
    if len(header) != HEADER_BYTES:
        raise ProtocolError(f"a header has {HEADER_BYTES} bytes, not {len(header)}")
    kind, length = HEADER.unpack(header)
    if kind != FrameType.CLIENT_INFO:
        raise ProtocolError(f"frame type {kind:#04x} before ClientInfo")
    if not MIN_CLIENT_INFO_BYTES <= length <= MAX_CLIENT_INFO_BYTES:
        raise ProtocolError(f"ClientInfo of {length} bytes")
    return int(length)


def encode_frame(kind: FrameType, payload: bytes = b"") -> bytes:
    return HEADER.pack(kind, len(payload)) + payload


def encode_server_key(public_key: bytes) -> bytes:
    return encode_frame(FrameType.SERVER_KEY, MAGIC + public_key)


def encode_peer_gone(key: bytes, reason: GoneReason) -> bytes:
    return encode_frame(FrameType.PEER_GONE, key + bytes((reason,)))


def encode_pong(data: bytes) -> bytes:
    return encode_frame(FrameType.PONG, data)


def encode_restarting(reconnect_in_ms: int, try_for_ms: int) -> bytes:
    return encode_frame(FrameType.RESTARTING, Struct(">II").pack(reconnect_in_ms, try_for_ms))


KEEP_ALIVE_FRAME = encode_frame(FrameType.KEEP_ALIVE)


def looks_like_disco(packet: bytes | bytearray) -> bool:
    """Whether a packet (without its key) is a NAT traversal message rather than data."""
    return len(packet) >= DISCO_MIN_BYTES and packet.startswith(DISCO_MAGIC)


def short_key(key: bytes) -> str:
    """A node key as the client's own logs show it: [AbCdE]."""
    return f"[{b64encode(key)[:5].decode()}]"
