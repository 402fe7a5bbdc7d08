"""STUN: tell a client from which address its packets come.

A client behind NAT asks several servers; from the answers it learns its public address and port, whether its
NAT keeps one mapping for all destinations, and which relay region is near. One UDP datagram asks, one answers:

    client                                           server
    Binding request   SOFTWARE, FINGERPRINT    →
                                               ←     Binding response   XOR-MAPPED-ADDRESS

We answer only requests that a Tailscale client would send and stay silent otherwise: an open reflector helps
nobody. The answer to a 40-byte request has 32 bytes (IPv4) or 44 (IPv6), so nothing is amplified. Nothing is logged
either: `Counters` has it all.

Reading order: `message.py` the two messages; `limits.py` how often who is answered; `responder.py` the sockets;
`errors.py` what can go wrong with a datagram.

Source: RFC 8489; tailscale: net/stun/stun.go.
"""

from stun.errors import ParseError, StunError
from stun.responder import Counters, StunService

__all__ = ["Counters", "ParseError", "StunError", "StunService"]
