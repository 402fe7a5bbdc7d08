"""Machines of the lab: hosts, and the NAT routers that stand before some of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.interop.netns import LabError, end_namespace, kill, sh, wait_for
from tests.interop.wire import Wire

if TYPE_CHECKING:
    from tests.interop.lab import Lab

RESOLVER = "192.0.2.53"
GATEWAY4 = "198.51.100.254"
GATEWAY6 = "fe80::1"
PROBE = Path(__file__).with_name("probe.py")

# A private /run, /etc and hostname: a program that rewrites /etc/resolv.conf changes only its own.
HOLDER = """
set -e
hostname "$1"
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/etc /run/etc.work
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/etc,workdir=/run/etc.work /etc
printf '127.0.0.1 localhost\\n::1 localhost\\n127.0.1.1 %s\\n' "$1" > /etc/hosts
printf 'nameserver %s\\noptions timeout:1 attempts:2\\n' "$2" > /etc/resolv.conf
echo ready
exec sleep infinity
"""

# Unasked packets from outside are dropped before conntrack confirms them: otherwise the peer's early probe would
# occupy the mapping, the kernel would give the host's own packet another port, and an easy NAT would look hard.
FIREWALL = """
table ip lab_nat {
 chain post {
  type nat hook postrouting priority 100
  oifname "wan" masquerade %s
 }
}
table inet lab_filter {
 chain input {
  type filter hook input priority 10
  iifname "wan" icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
  iifname "wan" ct state new drop
 }
 chain forward {
  type filter hook forward priority 10
  iifname "wan" ct state new drop
 }
}
"""


class Host:
    """A machine: its own network, hostname, /etc and /run; `wire` leads to the rest of the world."""

    wire: Wire

    def __init__(self, lab: Lab, name: str) -> None:
        self.lab, self.name, self.namespace = lab, name, f"{lab.prefix}-{name}"
        self.address = ""
        self.address6 = ""
        self._spawned: list[subprocess.Popen[bytes]] = []
        sh("ip", "netns", "add", self.namespace)
        sh("ip", "-n", self.namespace, "link", "set", "lo", "up")
        if lab.ipv6:  # no duplicate address detection: links are usable a second sooner
            sh(
                "ip",
                "netns",
                "exec",
                self.namespace,
                "sysctl",
                "-qw",
                "net.ipv6.conf.default.dad_transmits=0",
            )
        holder = ("unshare", "--mount", "--uts", "--", "sh", "-c", HOLDER, "holder", name, RESOLVER)
        self._holder = subprocess.Popen(
            ["ip", "netns", "exec", self.namespace, *holder],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stderr is not None
        if self._holder.stdout.readline() != b"ready\n":
            raise LabError(f"host {name}: {self._holder.stderr.read().decode().strip()}")
        self._enter = ("nsenter", "-t", str(self._holder.pid), "-n", "-m", "-u", "--")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.address}>"

    def run(
        self,
        *argv: str,
        check: bool = True,
        timeout: float = 20,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on this host to its end.

        Raises LabError if it fails (unless `check` is False), and always past `timeout` seconds.
        """
        try:
            done = subprocess.run(
                (*self._enter, *argv),
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                input=stdin,
                env={**os.environ, **(env or {})},
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{self.name}: {' '.join(argv)}: still running after {timeout} s") from error
        if check and done.returncode:
            said = (done.stderr + done.stdout).strip()[-800:]
            raise LabError(f"{self.name}: {' '.join(argv)}: exit {done.returncode}: {said}")
        return done

    def spawn(
        self, *argv: str, log: Path | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a program on this host; output goes to `log` (appended). It dies with the lab at the latest."""
        with (log or Path(os.devnull)).open("ab") as out:
            process = subprocess.Popen(
                (*self._enter, *argv),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        self._spawned.append(process)
        return process

    def probe(self, *argv: str, timeout: float = 20, stdin: str | None = None) -> dict[str, Any]:
        """Run a subcommand of probe.py (resolve, connect, put, get) on this host; its answer."""
        answer: dict[str, Any] = json.loads(
            self.run(sys.executable, str(PROBE), *argv, timeout=timeout, stdin=stdin).stdout
        )
        return answer

    def serve(self, port: int, address: str = "") -> Path:
        """Start probe.py's TCP server here and wait until it listens; its log, one line a transfer."""
        log = self.lab.logs / f"{self.name}.probe.log"
        self.spawn(sys.executable, str(PROBE), "serve", str(port), address, log=log)
        wait_for(lambda: self.listens(port), 5, f"{self.name}: probe server on port {port}")
        return log

    def listens(self, port: int) -> bool:
        """Whether something listens on a TCP port here."""
        return bool(self.run("ss", "-Hltn", f"sport = :{port}").stdout.strip())

    def forward(self) -> None:
        """Let packets through: what a router, a subnet router and an exit node need."""
        on = ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        off = ("net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0")
        sh("ip", "netns", "exec", self.namespace, "sysctl", "-qw", *on, *off)

    def end(self) -> None:
        """Kill what runs here and remove the machine."""
        for process in (*self._spawned, self._holder):
            kill(process)
        for pipe in (self._holder.stdout, self._holder.stderr):
            if pipe:
                pipe.close()
        end_namespace(self.namespace)


class Router(Host):
    """A NAT router: `wan` to the internet, a bridge `lan` to the hosts behind it.

    nat: "easy"  keeps the source port: endpoint-independent mapping, port-restricted filtering (most home routers)
         "hard"  a random port for each destination (symmetric)
    """

    hosts_behind = 0

    def __init__(self, lab: Lab, name: str, nat: str, number: int) -> None:
        super().__init__(lab, name)
        self.nat, self.number, self.subnet = nat, number, f"192.168.{number}.0/24"
        self.lan_address = f"192.168.{number}.1"

    def configure(self) -> None:
        """Forwarding and NAT; needs the wan wire."""
        run = ("ip", "-n", self.namespace)
        sh(*run, "link", "add", "lan", "type", "bridge")
        sh(*run, "addr", "add", f"{self.lan_address}/24", "dev", "lan")
        if self.lab.ipv6:
            sh(*run, "addr", "add", f"2001:db8:{self.number:x}::1/64", "dev", "lan", "nodad")
            sh(*run, "addr", "add", f"{GATEWAY6}/64", "dev", "lan", "nodad")
        sh(*run, "link", "set", "lan", "up")
        self.forward()
        how = {"easy": "", "hard": "random,fully-random"}[self.nat]
        sh("ip", "netns", "exec", self.namespace, "nft", "-f", "-", stdin=FIREWALL % how)
