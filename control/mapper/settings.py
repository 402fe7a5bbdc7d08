"""What the operator decided about netmaps, and the sections of a MapResponse that follow from it alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from control.tailcfg.derpmap import DERPMap
from control.tailcfg.dns import DNSConfig, Resolver


@dataclass(frozen=True, slots=True, kw_only=True)
class NetmapSettings:
    domain: str  # MagicDNS base, without dots at the ends: `tail.example`
    derp_map: DERPMap
    magic_dns: bool = True
    resolvers: tuple[str, ...] = ()  # global; any of them overrides the local DNS of the clients
    split_dns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # suffix → resolvers
    search_domains: tuple[str, ...] = ()  # besides our own
    client_logs: bool = False  # whether clients may upload their logs to the vendor

    def dns_config(self) -> DNSConfig:
        routes = {suffix: _resolvers(addresses) for suffix, addresses in self.split_dns.items()}
        if self.magic_dns:
            # An empty list, never null: the client answers this suffix itself (control.md §8.5).
            routes[self.domain] = []
        return DNSConfig(
            resolvers=_resolvers(self.resolvers),
            routes=routes,
            domains=[self.domain, *self.search_domains] if self.magic_dns else list(self.search_domains),
            proxied=self.magic_dns,
        )


def _resolvers(addresses: tuple[str, ...]) -> list[Resolver]:
    return [Resolver(addr=address) for address in addresses]
