"""The early payload: what the server says inside Noise before HTTP/2 begins (control.md §3.4).

    | ff ff ff 'T' 'S' | length of the JSON (32, big-endian) | {"nodeKeyChallenge":"chalpub:<64 hex>"} |

The first nine bytes cannot be the head of an HTTP/2 frame, by which a client tells whether there is one. The challenge was
meant for a proof of possession of the node key; no client from 1.80 on answers it, so one key serves the whole process.
Source: tailscale: control/ts2021/conn.go, tailcfg/tailcfg.go (EarlyNoise).
"""

from __future__ import annotations

MAGIC = b"\xff\xff\xffTS"
LENGTH_BYTES = 4


def encode_early_payload(challenge_public: bytes) -> bytes:
    """For a challenge key, 32 bytes."""
    document = b'{"nodeKeyChallenge":"chalpub:%s"}' % challenge_public.hex().encode()
    return MAGIC + len(document).to_bytes(LENGTH_BYTES, "big") + document
