"""Packet filter rules, inbound to the node that receives them (control.md §8.6).

Never sent: SrcBits and Bits, for which a client discards the whole filter; unmasked CIDR.
"""

from __future__ import annotations

from control.tailcfg.codec import Sent


class PortRange(Sent, frozen=True):
    first: int  # always sent, zero too: an independent client drops the whole map without it
    last: int


class NetPortRange(Sent, frozen=True):
    ip: str
    ports: PortRange


class FilterRule(Sent, frozen=True):
    src_ips: list[str]
    dst_ports: list[NetPortRange]


ALLOW_ALL = (
    FilterRule(src_ips=["*"], dst_ports=[NetPortRange(ip="*", ports=PortRange(first=0, last=65535))]),
)
