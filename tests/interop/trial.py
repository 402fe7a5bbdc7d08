"""One test's world: a lab, a running server with the user alice, and official clients as they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tests.interop.client import Client
from tests.interop.host import Host, Router
from tests.interop.lab import Lab
from tests.interop.netns import LabError
from tests.interop.server import Server

MB = 1_000_000
PORT = 7000


class Trial:
    """`binaries`: folders of client programs; clients take them in turn, so that two folders make a mix of versions."""

    def __init__(self, lab: Lab, server: Server, binaries: Sequence[Path]) -> None:
        self.lab, self.server = lab, server
        self._binaries, self._clients = binaries, 0
        self._key: str | None = None

    def client(
        self, name: str, behind: Router | None = None, *, tun: str = "tailscale0", port: int = 41641
    ) -> Client:
        """A started client, not logged in, on a host of its own."""
        host = self.lab.hosts.get(name) or self.lab.host(name, behind=behind)
        binaries = self._binaries[self._clients % len(self._binaries)]
        self._clients += 1
        return Client(host, binaries, ca=self.server.ca, tun=tun, port=port).start()

    def key(self) -> str:
        """alice's reusable key."""
        if self._key is None:
            self._key = self.server.create_key(reusable=True)
        return self._key

    def join(
        self,
        name: str,
        behind: Router | None = None,
        *,
        key: str | None = None,
        port: int = 41641,
        **flags: bool | str,
    ) -> Client:
        """A client that is logged in and running."""
        client = self.client(name, behind, port=port)
        client.up(self.server.url, key or self.key(), **flags)
        return client

    def pair(
        self,
        *,
        behind: tuple[Router, Router] | None = None,
        prepare: Callable[[Host], None] = lambda host: None,
    ) -> tuple[Client, Client]:
        """Two clients, ann and bob, that see each other; `prepare` is applied to each host before it logs in."""
        for number, name in enumerate(("ann", "bob")):
            prepare(self.lab.host(name, behind=behind[number] if behind else None))
        # Ports of their own: an easy NAT keeps them, and what is tested is the path, not a clash of mappings.
        ann, bob = self.join("ann", port=41641), self.join("bob", port=41642)
        see_each_other(ann, bob)
        return ann, bob


def see_each_other(*clients: Client) -> None:
    for one in clients:
        for other in clients:
            if one is not other:
                one.wait_peer(other.name)


def move(source: Client, target: Client, size: int, *, timeout: float = 60) -> float:
    """Put and get `size` bytes over TCP inside the tailnet; both must arrive intact. Mbit/s, the slower way."""
    rates = []
    for verb in ("put", "get"):
        result = source.host.probe(verb, target.address, str(PORT), str(size), timeout=timeout)
        assert result["ok"], f"{verb} {source.name} → {target.name}: the digest differs"
        rates.append(size * 8 / 1e6 / max(float(result["seconds"]), 1e-3))
    return min(rates)


def reach(source: Client, address: str, port: int = PORT, seconds: float = 3) -> str:
    """ "open", "refused", "timeout" or "unreachable", from the source's host."""
    return str(source.host.probe("connect", address, str(port), str(seconds), timeout=seconds + 5)["result"])


def resolve(client: Client, name: str) -> list[str]:
    """Addresses by the host's own resolver; [] if it has none."""
    try:
        found: list[str] = client.host.probe("resolve", name)["addresses"]
    except LabError:
        return []
    return found
