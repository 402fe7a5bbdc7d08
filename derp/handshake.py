"""The login of DERP: who is the server, who is the client.

    server                                        client
    ServerKey   magic, server public key     →
                                             ←    ClientInfo   client public key, nonce, box(JSON)
    ServerInfo  nonce, box(JSON)             →

The box is NaCl's crypto_box (Curve25519, XSalsa20-Poly1305) between the server's key and the client's node
key: opening it proves that the client holds that node key. JSON of the client: version, CanAckPings,
IsProber, meshKey, AppName; of the server: version.

The client's box answers no challenge of ours, so a recorded ClientInfo could be sent again. TLS keeps it from
being recorded; `NonceMemory` refuses one that was used lately all the same.

Source: tailscale: derp/derp_client.go (sendClientKey, parseServerInfo), derpserver.go (recvClientKey).
"""

import secrets
from collections import OrderedDict
from dataclasses import dataclass

import msgspec
import nacl.bindings
from nacl.exceptions import CryptoError

from derp.errors import LoginError
from derp.frames import KEY_BYTES, PROTOCOL_VERSION, FrameType, encode_frame
from derp.limits import MIN_CLIENT_INFO_BYTES, NONCE_KEYS, NONCES_PER_KEY

NONCE_BYTES = 24
SERVER_INFO_JSON = b'{"version":%d}' % PROTOCOL_VERSION


class ClientInfo(msgspec.Struct, frozen=True):
    """What a client says about itself; unknown fields are ignored."""

    version: int = 0
    can_ack_pings: bool = msgspec.field(default=False, name="CanAckPings")
    is_prober: bool = msgspec.field(default=False, name="IsProber")
    mesh_key: str = msgspec.field(default="", name="meshKey")
    app_name: str = msgspec.field(default="", name="AppName")


_CLIENT_INFO = msgspec.json.Decoder(ClientInfo)


@dataclass(frozen=True, slots=True)
class Login:
    """A client that has proven its node key."""

    node_key: bytes  # 32 bytes
    nonce: bytes  # 24 bytes, the client's
    info: ClientInfo
    server_info: bytes  # the ServerInfo frame to answer with


class Identity:
    """The relay's own key pair."""

    __slots__ = ("_private_key", "public_key")

    def __init__(self, private_key: bytes) -> None:
        self._private_key = private_key
        self.public_key: bytes = nacl.bindings.crypto_scalarmult_base(private_key)

    def __repr__(self) -> str:
        return f"Identity({self.public_key.hex()})"

    def open_client_info(self, payload: bytes) -> Login:
        """Check a ClientInfo payload and prepare the answer.

        Raises LoginError for anything but a good box of good JSON; a zero or low-order key is refused too,
        since anybody knows the secret that it shares with us.
        """
        if len(payload) < MIN_CLIENT_INFO_BYTES:
            raise LoginError("ClientInfo is too short")
        node_key = payload[:KEY_BYTES]
        nonce = payload[KEY_BYTES:MIN_CLIENT_INFO_BYTES]
        try:
            shared = nacl.bindings.crypto_box_beforenm(node_key, self._private_key)
            text = nacl.bindings.crypto_box_open_easy_afternm(payload[MIN_CLIENT_INFO_BYTES:], nonce, shared)
        except CryptoError as exc:
            raise LoginError("ClientInfo does not open with the key it names") from exc
        try:
            info = _CLIENT_INFO.decode(text)
        except (ValueError, RecursionError) as exc:
            raise LoginError("ClientInfo is not the JSON we expect") from exc
        return Login(node_key, nonce, info, _encode_server_info(shared))


def _encode_server_info(shared: bytes) -> bytes:
    nonce = secrets.token_bytes(NONCE_BYTES)
    box = nacl.bindings.crypto_box_easy_afternm(SERVER_INFO_JSON, nonce, shared)
    return encode_frame(FrameType.SERVER_INFO, nonce + box)


class NonceMemory:
    """The last login nonces of each node key. Only admitted keys are remembered, so strangers fill nothing."""

    def __init__(self, keys: int = NONCE_KEYS, per_key: int = NONCES_PER_KEY) -> None:
        self._keys = keys
        self._bytes_per_key = per_key * NONCE_BYTES
        self._seen: OrderedDict[bytes, bytes] = OrderedDict()  # key → its nonces, one after another

    def remember(self, node_key: bytes, nonce: bytes) -> None:
        """Raises LoginError if this key has logged in with this nonce before."""
        seen = self._seen.get(node_key, b"")
        if any(seen[i : i + NONCE_BYTES] == nonce for i in range(0, len(seen), NONCE_BYTES)):
            raise LoginError("this ClientInfo was used before")
        self._seen[node_key] = (seen + nonce)[-self._bytes_per_key :]
        self._seen.move_to_end(node_key)
        if len(self._seen) > self._keys:
            self._seen.popitem(last=False)
