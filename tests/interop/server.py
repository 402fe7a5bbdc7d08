"""The appliance as a process of its own on a public host of the lab, driven by its documented command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.interop.certs import Authority
from tests.interop.lab import Lab
from tests.interop.netns import LabError, kill, wait_for

ROOT = Path(__file__).parent.parent.parent
NAME = "control.lab.test"
URL = f"https://{NAME}"
ADDRESS = "198.51.100.1"
BASE_DOMAIN = "tail.test"

CONFIG = """\
server_url = "{url}"
insecure_http = {insecure}

[listen]
https = ":443"
http = ":80"
stun = ":3478"

[tls]
mode = "{tls}"
cert = "{cert}"
key = "{key}"

[dns]
base_domain = "{domain}"
"""


@dataclass(frozen=True)
class Node:
    """A node as the server's administrator sees it."""

    id: str
    name: str
    user: str | None
    addresses: frozenset[str]
    tags: frozenset[str]
    online: bool
    expired: bool
    advertised: frozenset[str]
    approved: frozenset[str]
    serving: frozenset[str]


class Server:
    """https on 443, http on 80, STUN on 3478, a certificate by a throwaway authority. Logs to `log`."""

    def __init__(self, lab: Lab, *, url: str = URL, tls: str = "files", state: Path | None = None) -> None:
        self.lab, self.url = lab, url
        self.host = lab.host("server", ADDRESS)
        addresses = [ADDRESS, *([self.host.address6] if lab.ipv6 else [])]
        lab.name(NAME, *addresses)
        self.dir = lab.dir / "server"
        self.dir.mkdir(mode=0o700)
        self.state = state or self.dir / "state"
        self.log = lab.logs / "server.log"
        self.authority = Authority(lab.dir / "pki")
        self.ca = self.authority.ca
        cert, key = self.authority.issue(NAME, *addresses)
        self.config = self.dir / "config.toml"
        insecure = str(url.startswith("http:")).lower()
        text = CONFIG.format(url=url, insecure=insecure, tls=tls, cert=cert, key=key, domain=BASE_DOMAIN)
        self.config.write_text(text)
        self.process: subprocess.Popen[bytes] | None = None

    # the process

    def program(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "appliance", *args]

    def argv(self) -> list[str]:
        return self.program("serve", "--state", str(self.state), "--config", str(self.config))

    def start(self) -> None:
        self.process = self.host.spawn(*self.argv(), log=self.log, env=environment())
        wait_for(self._ready, 30, "the server is ready")

    def stop(self) -> None:
        """SIGTERM, ten seconds."""
        assert self.process
        kill(self.process, gently=10)

    def kill9(self) -> None:
        assert self.process
        kill(self.process)

    def restart(self) -> None:
        self.stop()
        self.start()

    def said(self) -> str:
        """Its log so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def _ready(self) -> bool:
        assert self.process
        if self.process.poll() is not None:
            raise LabError(f"the server ended with {self.process.returncode}: {self.said()[-800:]}")
        if not self.host.listens(443):
            return False
        try:
            self.nodes()
        except LabError:
            return False
        return True

    # its command line

    def command(self, *args: str, timeout: float = 20) -> subprocess.CompletedProcess[str]:
        """Run one command against the running server; whatever comes of it."""
        argv = self.program("--state", str(self.state), *args)
        return self.host.run(*argv, check=False, timeout=timeout, env=environment())

    def ask(self, *args: str) -> Any:
        """Run one command with --json; its document. Raises LabError if it is refused."""
        done = self.command(*args, "--json")
        if done.returncode:
            raise LabError(
                f"appliance {' '.join(args)}: exit {done.returncode}: {(done.stderr + done.stdout).strip()}"
            )
        return json.loads(done.stdout) if done.stdout.strip() else None

    def create_user(self, name: str) -> None:
        self.ask("users", "create", name)

    def create_key(
        self,
        user: str = "alice",
        *,
        reusable: bool = False,
        ephemeral: bool = False,
        tags: Sequence[str] = (),
        expiry: str = "1h",
    ) -> str:
        """A new auth key's text."""
        flags = [flag for flag, on in (("--reusable", reusable), ("--ephemeral", ephemeral)) if on]
        tagged = [word for tag in tags for word in ("--tag", tag)]
        answer = self.ask("keys", "create", "--user", user, *flags, *tagged, "--expiry", expiry)
        return str(answer["key"])

    def nodes(self) -> list[Node]:
        return [node_from(entry) for entry in self.ask("nodes", "list")]

    def node(self, name: str) -> Node:
        for node in self.nodes():
            if node.name == name:
                return node
        raise LabError(f"no node {name} on the server")

    def wait_online(self, *names: str, timeout: float = 40) -> None:
        def online() -> bool:
            return {node.name for node in self.nodes() if node.online} >= set(names)

        wait_for(online, timeout, f"online on the server: {', '.join(names)}", every=0.3)

    def approve(self, auth: str, user: str = "alice") -> None:
        """Let a waiting interactive login in; `auth` is the AuthURL or its last part."""
        self.ask("nodes", "approve", auth, "--user", user)

    def approve_routes(self, name: str, *routes: str) -> None:
        """Approve what a node advertises, once the server has heard of it."""
        advertised = wait_for(
            lambda: self.node(name).advertised >= set(routes), 15, f"{name} advertises {routes}"
        )
        assert advertised
        self.ask("nodes", "routes", "approve", self.node(name).id, *routes)


def node_from(entry: dict[str, Any]) -> Node:
    routes = entry["routes"]
    return Node(
        id=str(entry["id"]),
        name=entry["name"],
        user=entry["user"],
        addresses=frozenset(entry["addresses"]),
        tags=frozenset(entry["tags"]),
        online=entry["online"],
        expired=entry["expired"],
        advertised=frozenset(routes["advertised"]),
        approved=frozenset(routes["approved"]),
        serving=frozenset(routes["serving"]),
    )


def environment() -> dict[str, str]:
    """The tree under test is what runs, wherever the tests were started from."""
    return {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
