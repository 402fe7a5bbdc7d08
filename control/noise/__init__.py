"""Noise: the encryption between a client's machine key and this server, inside whatever carries it.

    client                                            server
      | -- initiation, 101 bytes, in an HTTP header --> |     handshake.py: who is it?
      | <-- 101 head, response (51 bytes), SETTINGS --- |     stream.py:    all in one write
      | <------- early payload, then HTTP/2 ----------- |     early.py:     what the server says first inside
      | <============ records, both ways =============> |     records.py:   at most 4096 bytes each

The handshake is `Noise_IK_25519_ChaChaPoly_BLAKE2s` by the book; the records deviate in their counter's byte order.
Anybody who knows the server's public key can finish a handshake: it proves *which* machine speaks, not that we know
it. Everything above treats a fresh machine key as a stranger (`control/limits.py`).

A failed handshake is answered with nothing at all: no HTTP head, no error frame. The protocol has an error frame, but
its text would be unauthenticated, is shown to nobody (clients log it), and any difference between two texts would
tell a prober how far it got.

Read `handshake.py`, then `records.py`, then `stream.py`. All of them raise the one error in `errors.py`.
"""

from control.noise.errors import NoiseError
from control.noise.stream import NoiseSession, NoiseStream, accept

__all__ = ["NoiseError", "NoiseSession", "NoiseStream", "accept"]
