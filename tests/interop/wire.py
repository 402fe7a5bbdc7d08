"""The cable between a host and the next device, and what goes wrong on it."""

from __future__ import annotations

import re

from tests.interop.netns import sh


class Wire:
    """Rules sit at the ingress of both ends (netdev hook), so the host sees a silent network, not a local error."""

    def __init__(self, host_ns: str, host_dev: str, far_ns: str, far_dev: str) -> None:
        self.ends = ((far_ns, far_dev), (host_ns, host_dev))  # for packets out of the host, into the host
        self.settings: list[tuple[str, ...]] = []  # far-end addresses and routes, forgotten with the link
        self._rules: dict[str, tuple[list[str], list[str]]] = {}

    def configure(self, *settings: tuple[str, ...]) -> None:
        """`ip` commands for the far end; run now and again by `mend`."""
        for words in settings:
            sh("ip", "-n", self.ends[0][0], *words)
        self.settings += settings

    def cut(self) -> None:
        """Pull the plug: the host sees its carrier go."""
        sh("ip", "-n", self.ends[0][0], "link", "set", self.ends[0][1], "down")

    def mend(self) -> None:
        """Plug it in again."""
        namespace, device = self.ends[0]
        sh("ip", "-n", namespace, "link", "set", device, "up")
        for noun, _, *words in self.settings:
            sh("ip", "-n", namespace, noun, "replace", *words)

    def blackhole(self, on: bool = True) -> None:
        """Lose everything silently: the carrier stays."""
        self._set("blackhole", ["drop"], ["drop"], on)

    def block_udp(self, on: bool = True) -> None:
        """No UDP in or out, DNS included (names that the lab knows are in /etc/hosts)."""
        self._set("udp", ["meta l4proto udp drop"], ["meta l4proto udp drop"], on)

    def only_tcp(self, address: str, port: int, on: bool = True) -> None:
        """Nothing but TCP to one address and port; ARP stays."""
        keep = "ether type arp accept"
        out = [keep, f"ip daddr {address} tcp dport {port} accept", "drop"]
        back = [keep, f"ip saddr {address} tcp sport {port} accept", "drop"]
        self._set("only", out, back, on)

    def loss(self, percent: float) -> None:
        """Lose that share of the packets, each way, at random; 0 ends it."""
        rule = [f"numgen random mod 10000 < {round(percent * 100)} drop"]
        self._set("loss", rule, rule, percent > 0)

    def _set(self, name: str, outward: list[str], inward: list[str], on: bool) -> None:
        if on:
            self._rules[name] = (outward, inward)
        else:
            self._rules.pop(name, None)
        for end, (namespace, device) in enumerate(self.ends):
            table = "lab_" + re.sub(r"\W", "_", device)
            rules = "\n".join(rule for pair in self._rules.values() for rule in pair[end])
            text = f"""
table netdev {table}
delete table netdev {table}
table netdev {table} {{
 chain in {{
  type filter hook ingress device "{device}" priority 0
  {rules}
 }}
}}
"""
            sh("ip", "netns", "exec", namespace, "nft", "-f", "-", stdin=text)
