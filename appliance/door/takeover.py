"""When a connection leaves HTTP: what its last request must be like, and what it is answered.

    POST /ts2021   Upgrade: tailscale-control-protocol, X-Tailscale-Handshake: base64    → 101, sent by the control server
    GET /ts2021    a WebSocket; the handshake is a parameter of the query                → 101 (websocket.py)
    GET /derp      Upgrade: DERP or websocket                                            → 101, or nothing with fast start

Method, path and version fit, there is no body, and `Connection` says upgrade; bytes after the head belong to the new
protocol. (security.md F4)
"""

from __future__ import annotations

import base64
import binascii

from appliance.door.head import Head, encode_head
from appliance.errors import HeadError

CONTROL_PROTOCOL = "tailscale-control-protocol"
CONTROL_PREFACE = encode_head(101, [("Upgrade", CONTROL_PROTOCOL), ("Connection", "upgrade")])


def initiation_of_upgrade(head: Head) -> bytes:
    """The client's first Noise message. Raises `HeadError`."""
    check_take_over(head)
    if head.upgrade != CONTROL_PROTOCOL:
        expected = f"an upgrade to {CONTROL_PROTOCOL} is expected here; a proxy may have removed it"
        raise HeadError(400, expected)
    return _decode_handshake(head.get("x-tailscale-handshake"))


def initiation_of_websocket(head: Head) -> bytes:
    """The same, from the query. Raises `HeadError`."""
    # A plus sign that was not escaped reads as a space.
    return _decode_handshake(head.parameter("X-Tailscale-Handshake").replace(" ", "+"))


def relay_preface(public_key: bytes) -> bytes:
    ours = [("Derp-Version", "2"), ("Derp-Public-Key", public_key.hex())]
    return encode_head(101, [("Upgrade", "DERP"), ("Connection", "Upgrade"), *ours])


def check_take_over(head: Head) -> None:
    """Raises `HeadError` for a request after which another protocol cannot begin."""
    if head.version != "1.1":
        raise HeadError(400, "an upgrade needs HTTP/1.1")
    if head.has_body:
        raise HeadError(400, "an upgrade has no body")


def _decode_handshake(text: str) -> bytes:
    try:
        initiation = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise HeadError(400, "X-Tailscale-Handshake is not base64") from exc
    if not initiation:
        raise HeadError(400, "X-Tailscale-Handshake is missing")
    return initiation
