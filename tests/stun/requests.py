"""Binding requests as the official client builds them. tailscale: net/stun/stun.go (Request)."""

import struct
import zlib

SOFTWARE = b"\x80\x22\x00\x08tailnode"


def request(transaction_id: bytes = b"transaction!", attributes: bytes = SOFTWARE) -> bytes:
    head = struct.pack(">HHI", 1, len(attributes) + 8, 0x2112A442) + transaction_id + attributes
    return head + b"\x80\x28\x00\x04" + struct.pack(">I", zlib.crc32(head) ^ 0x5354554E)
