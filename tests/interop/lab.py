"""A small internet out of network namespaces.

One namespace `net` is "the internet": it routes between point-to-point wires (veth pairs), one for each host or NAT
router, so that every packet between two hosts passes it. Nothing is created in the machine's own network namespace.

Addresses: 198.51.100.0/24 and 203.0.113.0/24 (public hosts and routers), 2001:db8::/32 (IPv6), 192.168.N.0/24 (behind
router N), 192.0.2.53 (the resolver that every host uses).
"""

from __future__ import annotations

import json
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from tests.interop.host import GATEWAY4, GATEWAY6, RESOLVER, Host, Router
from tests.interop.netns import register, remove_lab, sh
from tests.interop.wire import Wire

DNSD = Path(__file__).with_name("dnsd.py")


class Lab:
    """A context manager: everything in it is gone afterwards. Its folder stays if something failed."""

    def __init__(self, *, ipv6: bool = False) -> None:
        self.prefix = f"hplab{secrets.token_hex(3)}"
        self.ipv6 = ipv6
        self.dir = Path(tempfile.mkdtemp(prefix=f"{self.prefix}-"))
        self.logs = self.dir / "logs"
        self.logs.mkdir()
        self.hosts: dict[str, Host] = {}
        self.names: dict[str, list[str]] = {}
        self._routers = 0
        self._publics = 0
        register(self.prefix)
        try:
            self.net = self._core()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(keep=kind is not None)

    def _core(self) -> Host:
        net = Host(self, "net")
        self.hosts["net"] = net
        for address in (GATEWAY4, "203.0.113.254", RESOLVER):
            sh("ip", "-n", net.namespace, "addr", "add", f"{address}/32", "dev", "lo")
        net.forward()
        self.name("resolver.test", RESOLVER)
        log = self.logs / "dnsd.log"
        net.spawn(sys.executable, str(DNSD), RESOLVER, str(self.dir / "names.json"), log=log)
        return net

    def host(self, name: str, address: str | None = None, *, behind: Router | None = None) -> Host:
        """A host on the internet (at `address`, or the next free one of 203.0.113.0/24), or behind a router."""
        host = Host(self, name)
        self.hosts[name] = host
        if behind:
            self._plug_lan(host, behind)
        else:
            self._plug_public(host, "eth0", address)
        return host

    def router(self, name: str, nat: str = "easy") -> Router:
        """A router on the internet; put hosts behind it with `host(name, behind=router)`."""
        self._routers += 1
        router = Router(self, name, nat, self._routers)
        self.hosts[name] = router
        self._plug_public(router, "wan", None)
        router.configure()
        if self.ipv6:
            router.wire.configure(
                ("route", "add", f"2001:db8:{router.number:x}::/64", "via", router.address6)
            )
        return router

    def name(self, name: str, *addresses: str) -> None:
        """Publish a DNS name to every host: in the lab's resolver, and in /etc/hosts of hosts that exist."""
        self.names[name] = list(addresses)
        draft = self.dir / "names.json.new"
        draft.write_text(json.dumps(self.names))
        draft.rename(self.dir / "names.json")
        for host in self.hosts.values():
            self._know_names(host, {name: self.names[name]})

    def close(self, keep: bool = False) -> None:
        """Kill what runs in the lab, remove its namespaces, and its folder unless it is to be kept."""
        for host in reversed(self.hosts.values()):
            host.end()
        remove_lab(self.prefix)
        if not keep:
            shutil.rmtree(self.dir, ignore_errors=True)

    def _plug_public(self, host: Host, device: str, address: str | None) -> None:
        self._publics += 1
        host.address = address or f"203.0.113.{self._publics}"
        far = f"v-{host.name}"[:15]
        self._wire(host, device, self.net.namespace, far)
        ns = ("ip", "-n", host.namespace)
        sh(*ns, "addr", "add", f"{host.address}/32", "dev", device)
        sh(*ns, "route", "add", "default", "via", GATEWAY4, "dev", device, "onlink")
        host.wire.configure(("route", "add", f"{host.address}/32", "dev", far))
        if self.ipv6:
            host.address6 = f"2001:db8:ffff::{self._publics:x}"
            sh(*ns, "addr", "add", f"{host.address6}/128", "dev", device, "nodad")
            sh(*ns, "route", "add", "default", "via", GATEWAY6, "dev", device)
            host.wire.configure(
                ("addr", "add", f"{GATEWAY6}/64", "dev", far, "nodad"),
                ("route", "add", f"{host.address6}/128", "dev", far),
            )
        self._know_names(host, self.names)

    def _plug_lan(self, host: Host, router: Router) -> None:
        router.hosts_behind += 1
        last = 10 + router.hosts_behind
        host.address = f"192.168.{router.number}.{last}"
        far = f"l-{host.name}"[:15]
        self._wire(host, "eth0", router.namespace, far)
        sh("ip", "-n", router.namespace, "link", "set", far, "master", "lan")
        ns = ("ip", "-n", host.namespace)
        sh(*ns, "addr", "add", f"{host.address}/24", "dev", "eth0")
        sh(*ns, "route", "add", "default", "via", router.lan_address)
        if self.ipv6:
            host.address6 = f"2001:db8:{router.number:x}::{last:x}"
            sh(*ns, "addr", "add", f"{host.address6}/64", "dev", "eth0", "nodad")
            sh(*ns, "route", "add", "default", "via", GATEWAY6, "dev", "eth0")
        self._know_names(host, self.names)

    def _know_names(self, host: Host, names: dict[str, list[str]]) -> None:
        lines = "".join(f"{address} {name}\n" for name, addresses in names.items() for address in addresses)
        host.run("sh", "-c", "cat >> /etc/hosts", stdin=lines)

    def _wire(self, host: Host, device: str, far_ns: str, far_dev: str) -> None:
        veth = ("ip", "link", "add", device, "netns", host.namespace, "type", "veth")
        sh(*veth, "peer", "name", far_dev, "netns", far_ns)
        if not self.ipv6:
            for namespace, name in ((host.namespace, device), (far_ns, far_dev)):
                off = f"net.ipv6.conf.{name}.disable_ipv6=1"
                sh("ip", "netns", "exec", namespace, "sysctl", "-qw", off)
        sh("ip", "-n", host.namespace, "link", "set", device, "up")
        sh("ip", "-n", far_ns, "link", "set", far_dev, "up")
        host.wire = Wire(host.namespace, device, far_ns, far_dev)
