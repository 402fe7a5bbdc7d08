"""The official client, unmodified, on a host of the lab."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.interop.host import Host
from tests.interop.netns import LabError, kill, wait_for

UP_TIMEOUT_S = 20
MILLISECONDS = {"µs": 0.001, "ms": 1.0, "s": 1000.0}


class ClientError(LabError):
    """`tailscale` refused something; the text is its own."""


@dataclass(frozen=True)
class Pong:
    """One answer to `tailscale ping`: `via` is "DERP(code)" or "address:port"."""

    via: str
    milliseconds: float

    @property
    def direct(self) -> bool:
        return not self.via.startswith(("DERP", "peer-relay"))


class LocalApi(http.client.HTTPConnection):
    """HTTP to tailscaled's unix socket: what its command line itself uses."""

    def __init__(self, path: Path) -> None:
        super().__init__("local-tailscaled.sock", timeout=10)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        try:
            self.sock.connect(str(self.path))
        except OSError:
            self.close()
            raise


class Client:
    """tailscaled and tailscale with their own state folder, socket and log.

    binaries: folder with `tailscale` and `tailscaled`. ca: PEM file of the only authorities it trusts.
    tun: a device name, or "userspace-networking".
    """

    def __init__(
        self, host: Host, binaries: Path, *, ca: Path, tun: str = "tailscale0", port: int = 41641
    ) -> None:
        self.host, self.binaries, self.name = host, binaries, host.name
        self.dir = host.lab.dir / f"client-{host.name}"
        self.dir.mkdir(exist_ok=True)
        self.socket = self.dir / "tailscaled.sock"
        self.log = host.lab.logs / f"{host.name}.tailscaled.log"
        self.env = {
            "HOME": str(self.dir),
            "TS_NO_LOGS_NO_SUPPORT": "true",
            "TS_LOGS_DIR": str(self.dir),  # else /var/lib/tailscale, which all would share
            "SSL_CERT_FILE": str(ca),
            "SSL_CERT_DIR": "/nonexistent",
        }
        own = (f"--statedir={self.dir}", f"--socket={self.socket}", f"--port={port}", f"--tun={tun}")
        self.argv = (str(binaries / "tailscaled"), *own)
        self.daemon: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<Client {self.name}>"

    # the daemon

    def start(self) -> Client:
        self.daemon = self.host.spawn(*self.argv, log=self.log, env=self.env)
        wait_for(self._answers, 15, f"{self.name}: tailscaled answers")
        return self

    def stop(self) -> None:
        """SIGTERM, as a service manager would."""
        assert self.daemon
        kill(self.daemon, gently=5)

    def kill(self) -> None:
        """SIGKILL."""
        assert self.daemon
        kill(self.daemon)

    def _answers(self) -> bool:
        assert self.daemon
        if self.daemon.poll() is not None:
            raise ClientError(f"{self.name}: tailscaled ended: {self.said()[-600:]}")
        try:
            return bool(self.status())
        except (OSError, http.client.HTTPException):
            return False

    def said(self) -> str:
        """The daemon's log."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    # the command line

    def cli(self, *args: str, check: bool = True, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        """Run `tailscale ARGS`. Raises ClientError on failure unless `check` is False."""
        program = (str(self.binaries / "tailscale"), f"--socket={self.socket}")
        try:
            return self.host.run(*program, *args, check=check, timeout=timeout, env=self.env)
        except LabError as error:
            raise ClientError(str(error)) from None

    def up(self, login_server: str, authkey: str | None = None, **flags: bool | str) -> None:
        """`tailscale up`, until running. Flags: accept_routes=True → --accept-routes."""
        auth = [f"--auth-key={authkey}"] if authkey else []
        words = (f"--login-server={login_server}", *auth, f"--timeout={UP_TIMEOUT_S}s", *options(flags))
        self.cli("up", *words, timeout=UP_TIMEOUT_S + 5)

    def login_url(self, login_server: str, *, timeout: float = 15, **flags: bool | str) -> str:
        """Start an interactive login in the background; the URL that a person would open."""
        program = (str(self.binaries / "tailscale"), f"--socket={self.socket}", "up")
        log = self.host.lab.logs / f"{self.name}.login.log"
        self.host.spawn(*program, f"--login-server={login_server}", *options(flags), log=log, env=self.env)
        url = wait_for(lambda: self.status().get("AuthURL"), timeout, f"{self.name}: AuthURL")
        return str(url)

    def set(self, **flags: bool | str) -> None:
        """`tailscale set`: change preferences of a running client."""
        self.cli("set", *options(flags))

    def ping(self, peer: str, *, until_direct: bool = False, count: int = 10) -> Pong:
        """`tailscale ping`: the first answer of `count` tries, or, with `until_direct`, the last one before or at a
        direct path. Raises ClientError if none came.
        """
        output = ""
        words = (
            f"--until-direct={str(until_direct).lower()}",
            f"--c={count if until_direct else 1}",
            "--timeout=3s",
        )
        for _ in range(1 if until_direct else count):
            done = self.cli("ping", *words, peer, check=False, timeout=4 * count + 5)
            output = done.stdout + done.stderr
            if found := re.findall(r"pong from .* via (\S+) in (\d+(?:\.\d+)?)(µs|ms|s)", output):
                via, number, unit = found[-1]
                return Pong(via, float(number) * MILLISECONDS[unit])
        raise ClientError(f"{self.name}: no pong from {peer}: {output.strip()[-300:]}")

    def pings(self, peer: str) -> bool:
        """Whether one ping is answered."""
        with contextlib.suppress(ClientError):
            return bool(self.ping(peer, count=1))
        return False

    def netcheck(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(self.cli("netcheck", "--format=json").stdout)
        return report

    # what it knows

    def local(self, path: str) -> Any:
        """The local API's JSON answer, for example "status" or "prefs"."""
        with contextlib.closing(LocalApi(self.socket)) as connection:
            connection.request("GET", f"/localapi/v0/{path}")
            reply = connection.getresponse()
            body = reply.read()
        if reply.status >= 300:
            said = body.decode(errors="replace").strip()
            raise ClientError(f"{self.name}: localapi {path}: {reply.status} {said}")
        return json.loads(body)

    def status(self) -> dict[str, Any]:
        """The same JSON as `tailscale status --json`."""
        answer: dict[str, Any] = self.local("status")
        return answer

    @property
    def state(self) -> str:
        return str(self.status()["BackendState"])

    def wait_state(self, state: str = "Running", timeout: float = 20) -> None:
        wait_for(lambda: self.state == state, timeout, f"{self.name}: state {state}", every=0.2)

    @property
    def addresses(self) -> frozenset[str]:
        """Its addresses in the tailnet."""
        return frozenset(self.status()["TailscaleIPs"] or ())

    @property
    def address(self) -> str:
        """Its IPv4 address in the tailnet."""
        return next(address for address in self.addresses if "." in address)

    @property
    def dns_name(self) -> str:
        """Its full name in the tailnet, without the final dot."""
        return str(self.status()["Self"]["DNSName"]).rstrip(".")

    def peer(self, name: str) -> dict[str, Any] | None:
        """The peer whose first DNS label is `name`, as `status` shows it."""
        peers: dict[str, dict[str, Any]] = self.status().get("Peer") or {}
        return next((peer for peer in peers.values() if peer["DNSName"].split(".")[0] == name), None)

    def sees(self, name: str) -> bool:
        """The peer is there, online, and its home relay is known, so that it can be reached."""
        peer = self.peer(name)
        return peer is not None and bool(peer["Online"] and peer["Relay"])

    def wait_peer(self, name: str, timeout: float = 15) -> None:
        wait_for(lambda: self.sees(name), timeout, f"{self.name}: peer {name} online with a relay")

    def wait_gone(self, name: str, timeout: float = 15) -> None:
        wait_for(lambda: self.peer(name) is None, timeout, f"{self.name}: peer {name} gone")


def options(flags: Mapping[str, bool | str]) -> list[str]:
    """accept_routes=True → --accept-routes=true; hostname="a" → --hostname=a."""

    def text(value: bool | str) -> str:
        return str(value).lower() if isinstance(value, bool) else value

    return [f"--{name.replace('_', '-')}={text(value)}" for name, value in flags.items()]
