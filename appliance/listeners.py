"""The sockets of one run: inherited from systemd where there are any, else opened as configured."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass

import trio

from appliance.config.kinds import Address
from appliance.config.schema import Config
from appliance.door.sockets import inherited_sockets, open_tcp, open_udp
from appliance.region import Ports


@dataclass(frozen=True, slots=True)
class Listeners:
    """`https` speaks TLS unless `tls.mode` is off."""

    https: list[socket.socket]
    http: list[socket.socket]
    stun: list[trio.socket.SocketType]
    tls: bool

    @classmethod
    def open(cls, config: Config, environ: MutableMapping[str, str]) -> Listeners:
        """Raises OperatorError for a port in use and the like."""
        inherited = inherited_sockets(environ, os.getpid())
        if inherited:
            https, http, stun = (inherited.get(name, []) for name in ("https", "http", "stun"))
        else:
            listen = config.listen
            https = open_tcp(listen.https, "listen.https") if listen.https else []
            http = open_tcp(listen.http, "listen.http") if listen.http else []
            stun = open_udp(listen.stun, "listen.stun") if listen.stun else []
        for sock in (*https, *http, *stun):
            sock.setblocking(False)
        return cls(
            https, http, [trio.socket.from_stdlib_socket(sock) for sock in stun], config.tls.mode != "off"
        )

    @property
    def ports(self) -> Ports:
        return Ports(
            https=self.https[0].getsockname()[1] if self.https else None,
            http=self.http[0].getsockname()[1] if self.http else None,
            stun=self.stun[0].getsockname()[1] if self.stun else None,
        )

    def describe(self) -> Iterator[str]:
        """One line for each socket."""
        https = "https" if self.tls else "http, TLS ends in front of us"
        for sock in self.https:
            yield f"listening on {_address(sock.getsockname())} ({https})"
        for sock in self.http:
            yield f"listening on {_address(sock.getsockname())} (http)"
        for udp in self.stun:
            yield f"listening on {_address(udp.getsockname())} (stun, udp)"


def _address(name: tuple[str, int]) -> Address:
    return Address(name[0], name[1])  # IPv6 names have two parts more
