"""The door as a whole: what `main.py` builds, runs and closes."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

import trio
from quart_trio import QuartTrio

from appliance.config.kinds import Network
from appliance.door.answers import Answers
from appliance.door.asgi import PageServer
from appliance.door.connection import House, Port, ServeControl, ServeRelay
from appliance.door.limits import PRE_AUTH, PRE_AUTH_PER_SOURCE
from appliance.door.listener import DoorCounters, Reception
from appliance.door.names import NameTable
from appliance.door.preauth import PreAuthTable
from appliance.door.routes import Listener
from appliance.door.seldom import Seldom
from appliance.door.turns import FairTurns
from appliance.tls.current import CurrentCertificate
from appliance.tls.stream import Bios


class Door:
    """Everything on TCP."""

    def __init__(
        self,
        *,
        https: Sequence[socket.socket],
        http: Sequence[socket.socket],
        certificate: CurrentCertificate | None,
        server_url: str,
        names: NameTable,
        control: ServeControl,
        relay: ServeRelay,
        relay_public_key: bytes,
        pages: QuartTrio,
        answers: Answers,
        turns: FairTurns,
        pre_auth_connections: int = PRE_AUTH,
        pre_auth_per_source: int = PRE_AUTH_PER_SOURCE,
        trusted_proxies: Sequence[Network] = (),
        proxy_protocol: bool = False,
    ) -> None:
        """`https`, `http`: listening sockets; `certificate` None: TLS ends in front of us, both speak plain HTTP.

        `turns`: the queue of handshake work, which `run` serves. The other arguments: see `connection.House`.
        """
        self._https = https
        self._http = http
        self._certificate = certificate
        self._whole_table_on_http = urlsplit(server_url).scheme == "http"
        self._stop = trio.Event()
        self._grace_s = 0.0
        self._turns = turns
        self._pages = PageServer(pages)
        house = House(
            control=control,
            relay=relay,
            relay_public_key=relay_public_key,
            pages=self._pages,
            answers=answers,
            names=names,
            server_url=server_url,
            proxies=tuple(trusted_proxies),
            proxy_protocol=proxy_protocol,
            turns=self._turns,
            bios=Bios.make(),
            seldom=Seldom(),
        )
        self._reception = Reception(house, PreAuthTable(pre_auth_connections, pre_auth_per_source))

    @property
    def counters(self) -> DoorCounters:
        return self._reception.counters

    def connections(self) -> int:
        """How many are open now, the relay's not counted: they left the house."""
        return len(self._reception.connections)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `stop`, then let connections end; cancelling ends them at once."""
        async with trio.open_nursery() as services:
            await services.start(self._turns.run)
            await services.start(self._pages.run)
            await self._serve(task_status)
            services.cancel_scope.cancel()

    async def _serve(self, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as connections:
            try:
                await self._accept(connections, task_status)
                self._reception.stop()
                with trio.move_on_after(self._grace_s):
                    await self._reception.wait_empty()
            finally:
                self._reception.kill_all()
                connections.cancel_scope.cancel()

    async def _accept(self, connections: trio.Nursery, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as accepting:
            for sock in self._https:
                accepting.start_soon(
                    self._reception.accept, sock, self._port(sock, self._certificate), connections
                )
            for sock in self._http:
                accepting.start_soon(self._reception.accept, sock, self._port(sock, None), connections)
            task_status.started()
            await self._stop.wait()
            accepting.cancel_scope.cancel()

    def stop(self, grace_s: float) -> None:
        """Accept no more; `run` returns when the last connection has ended, or after `grace_s` seconds."""
        self._grace_s = grace_s
        self._stop.set()

    def _port(self, sock: socket.socket, certificate: CurrentCertificate | None) -> Port:
        loopback = _is_loopback(sock.getsockname()[0])
        plain = Listener.LOOPBACK if loopback or self._whole_table_on_http else Listener.HTTP
        proxied = Listener.PROXIED if sock in self._https else plain
        return Port(certificate, plain, proxied)


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback
