"""One Noise connection: the machine behind it, and the table of what it may ask for."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from control.keys import MachinePublic
from control.limits import Budget, Rate
from control.machine.http2 import Connection, Handler
from control.machine.request import Request
from control.machine.writer import Reply
from control.state.commands import Actor


@dataclass(slots=True, eq=False)
class Machine:
    """Who speaks on this connection: made by the handshake, given to every handler (security.md §2).

    `version` is the capability version of the handshake's prologue. `wall` and `monotonic` are the clocks; `proven` tells
    the door that this is no stranger.
    """

    key: MachinePublic
    version: int
    remote: str
    wall: Callable[[], float]
    monotonic: Callable[[], float]
    proven: Callable[[], None]
    connection: Connection | None = field(default=None, repr=False)
    _budgets: dict[Rate, Budget] = field(default_factory=dict, repr=False)

    @property
    def who(self) -> str:
        """For an administrator."""
        return f"{self.key.short} at {self.remote}"

    @property
    def fields(self) -> dict[str, object]:
        """For a log line."""
        return {"machine": self.key.short, "remote": self.remote}

    @property
    def actor(self) -> Actor:
        return Actor(kind="machine", id=self.key.short)

    def budget(self, rate: Rate) -> bool:
        """Take one from this connection's budget of that rate; False when it is used up."""
        now = self.monotonic()
        return self._budgets.setdefault(rate, Budget(rate, now)).spend(1, now)

    def registered(self) -> None:
        """It has a node: the limits of strangers end, here and at the door."""
        self.proven()
        if self.connection is not None:
            self.connection.registered()

    def hold(self) -> contextlib.AbstractContextManager[None]:
        """While it waits for a person, the stranger's deadline does not run."""
        return self.connection.hold() if self.connection is not None else contextlib.nullcontext()


MachineHandler = Callable[[Machine, Request, Reply], Awaitable[None]]

# What exists in the protocol and not here yet: one sentence for the person at the other end.
LATER = {
    "/machine/set-dns": "This server cannot publish DNS records for certificates yet.",
    "/machine/id-token": "This server does not issue identity tokens yet.",
    "/machine/feature/query": "This server does not offer that feature yet.",
    "/machine/audit-log": "This server does not keep clients' audit logs yet.",
    "/machine/set-device-attr": "This server does not keep device attributes yet.",
}
LATER_PREFIXES = {
    "/machine/tka/": "This server does not offer Tailnet Lock yet.",
    "/machine/ssh/": "This server does not offer SSH check mode yet.",
    "/machine/webclient/": "This server does not offer the device web client's login.",
}


def table(register: MachineHandler, map_: MachineHandler) -> dict[tuple[str, str], MachineHandler]:
    """(method, path) → handler."""
    return {
        ("POST", "/machine/register"): register,
        ("POST", "/machine/map"): map_,
        ("POST", "/machine/update-health"): _no_content,
        ("GET", "/machine/whoami"): _whoami,
    }


def handler_for(machine: Machine, routes: dict[tuple[str, str], MachineHandler]) -> Handler:
    """The connection's request handler. Requests are told apart by path alone: clients put anything into `:authority`."""

    async def handle(request: Request, reply: Reply) -> None:
        handler = routes.get((request.method, request.path))
        if handler is not None:
            await handler(machine, request, reply)
            return
        sentence = LATER.get(request.path) or next(
            (text for prefix, text in LATER_PREFIXES.items() if request.path.startswith(prefix)), None
        )
        if sentence is not None:
            await reply.respond(501, sentence.encode(), (("content-type", "text/plain; charset=utf-8"),))
        else:
            await reply.respond(404, b"There is no such call.\n")

    return handle


async def _no_content(machine: Machine, request: Request, reply: Reply) -> None:
    """Health warnings of clients up to 1.88; they read nothing of the answer."""
    await reply.respond(204)


async def _whoami(machine: Machine, request: Request, reply: Reply) -> None:
    await reply.respond(200, f"{machine.key}\n".encode())
