"""DNSConfig (control.md §8.5)."""

from __future__ import annotations

from msgspec import field

from control.tailcfg.codec import Sent


class Resolver(Sent, frozen=True):
    addr: str


class DNSConfig(Sent, frozen=True):
    """`routes`: suffix → resolvers; an empty list (never null) means that the client's MagicDNS answers it."""

    resolvers: list[Resolver] = field(default_factory=list)
    routes: dict[str, list[Resolver]] = field(default_factory=dict)
    domains: list[str] = field(default_factory=list)  # search domains; the first is the tailnet's own
    proxied: bool = False  # MagicDNS on
