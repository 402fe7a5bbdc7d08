"""POST /machine/register: log in, stay logged in, rotate the node key, log out (control.md §6).

Every refusal that a person should read is a 200 with `Error`: any other status makes the client repeat in silence.
"""

from __future__ import annotations

import logging
from collections.abc import Container
from dataclasses import dataclass

from msgspec.structs import replace

from control import capver, secret
from control.errors import Refused, TryLater, WrongKey
from control.keys import NodePublic
from control.limits import REGISTRATIONS
from control.login.failures import FailedKeys
from control.login.pending import PendingLogins
from control.machine.homes import LastHomes
from control.machine.identity import node_for
from control.machine.reports import hostinfo_fields
from control.machine.request import Request
from control.machine.session import Machine
from control.machine.writer import Reply
from control.model import TAGGED_USER_ID, TAGGED_USER_NAME, Node, User
from control.prefixes import routable, source_of
from control.state.commands import LoggedOut, NeedsLogin, NeedsNewKey, Register, Registered
from control.state.state import State
from control.tailcfg.codec import DecodeError, decode, encode, rfc3339, seconds_of
from control.tailcfg.hostinfo import Hostinfo, parse_hostinfo
from control.tailcfg.register import Login, RegisterRequest, RegisterResponse
from control.tailcfg.register import User as WireUser
from control.troubles import Troubles

log = logging.getLogger("control.register")

RETRY_AFTER_S = 3


@dataclass(frozen=True, slots=True)
class Registration:
    """What the handler works with. `url_of(id)` is the page of a pending login."""

    state: State
    pending: PendingLogins
    server_url: str
    failures: FailedKeys
    regions: Container[int]  # the relays that exist
    homes: LastHomes
    troubles: Troubles

    def url_of(self, ident: str) -> str:
        return f"{self.server_url}/register/{ident}"

    async def handle(self, machine: Machine, request: Request, reply: Reply) -> None:
        """Answer one request; a follow-up is held until its login is decided."""
        if not machine.budget(REGISTRATIONS):
            await _rate_limited(machine.version, reply)
            return
        try:
            wanted = decode(request.body, RegisterRequest)
            hostinfo = parse_hostinfo(bytes(wanted.hostinfo))
        except DecodeError as exc:
            log.info("bad request", extra=machine.fields | {"reason": exc})
            await reply.respond(400, f"bad register request: {exc}".encode())
            return
        try:
            answer = await self._decide(machine, wanted, hostinfo)
        except Refused as exc:
            self.troubles.note(machine.who, exc.public_reason)
            log.info("refused", extra=machine.fields | {"reason": exc})
            answer = RegisterResponse(error=exc.public_reason)
        except TryLater as exc:
            await reply.respond(429, exc.reason.encode(), (("retry-after", str(RETRY_AFTER_S)),))
            return
        await reply.respond(200, encode(answer), (("content-type", "application/json"),))

    async def _decide(
        self, machine: Machine, wanted: RegisterRequest, hostinfo: Hostinfo
    ) -> RegisterResponse:
        if capver.too_old(wanted.version):
            raise Refused(f"this client is too old; version {capver.MINIMUM_RELEASE} or newer is needed")
        command = self._command(machine, wanted, hostinfo)
        result = await self._submit(machine, command)
        if isinstance(result, NeedsLogin) and wanted.followup:
            result = await self._follow(machine, wanted.followup, command) or result
        match result:
            case Registered(node=node, user=user):
                machine.registered()
                self.troubles.over(machine.who)
                self._report(machine, node, wanted, hostinfo)
                log.info("registered", extra=machine.fields | {"node": node.id, "node_name": node.name})
                return logged_in(node, user)
            case NeedsLogin():
                return self._ask_person(machine, command, hostinfo)
            case NeedsNewKey() | LoggedOut():
                return RegisterResponse(node_key_expired=True)
            case _:
                raise TypeError(f"register was answered by {type(result).__name__}")

    def _command(self, machine: Machine, wanted: RegisterRequest, hostinfo: Hostinfo) -> Register:
        text = wanted.auth.auth_key if wanted.auth and not wanted.followup else ""
        claimed = secret.parse(secret.AUTH_KEY, text.partition("?")[0].partition("--TL")[0]) if text else None
        return Register(
            machine_key=machine.key,
            node_key=wanted.node_key or NodePublic(bytes(32)),
            nl_key=wanted.nl_key if wanted.nl_key and not wanted.nl_key.is_zero else None,
            hostname=hostinfo.hostname,
            request_tags=tuple(hostinfo.request_tags or ()),
            advertised=None if hostinfo.routable_ips is None else routable(hostinfo.routable_ips),
            ephemeral=wanted.ephemeral,
            expiry=seconds_of(wanted.expiry),
            auth_key=(claimed.id, claimed.secret) if claimed else None,
            bad_auth_key=bool(text) and claimed is None,
        )

    async def _submit(self, machine: Machine, command: Register) -> object:
        """Decide and commit. Wrong keys are counted per source, so that guessing is slow; a node's own restart is no guess."""
        with_key = command.auth_key is not None or command.bad_auth_key
        source = source_of(machine.remote)
        known = node_for(self.state.durable, machine.key, command.node_key) is not None
        if with_key and not known and self.failures.blocked(source, machine.monotonic()):
            raise Refused("too many wrong auth keys from your network; wait a minute")
        try:
            return await self.state.submit(command, machine.actor)
        except WrongKey:
            self.failures.failed(source, machine.monotonic())
            raise

    async def _follow(self, machine: Machine, followup: str, command: Register) -> object | None:
        """Hold until the login is decided. None: it is unknown or ran out, and the client gets a fresh URL."""
        pending = self.pending.follow(followup, machine.key, machine.wall())
        if pending is None:
            return None
        with machine.hold():
            await pending.answered.wait()
        return await self._submit(machine, command) if pending.approved else None

    def _ask_person(self, machine: Machine, command: Register, hostinfo: Hostinfo) -> RegisterResponse:
        pending = self.pending.open(
            replace(command, advertised=None),  # said again by the follow-up; strangers' memory stays small
            os=hostinfo.os,
            remote=machine.remote,
            now=machine.wall(),
        )
        log.info("waits for approval", extra=machine.fields | {"login": pending.id})
        return RegisterResponse(auth_url=self.url_of(pending.id))

    def _report(self, machine: Machine, node: Node, wanted: RegisterRequest, hostinfo: Hostinfo) -> None:
        known = self.state.volatile.get(node.id)
        if known is not None:
            fields = hostinfo_fields(known, bytes(wanted.hostinfo), hostinfo, self.regions)
            if not known.home_derp and (home := self.homes.of(machine.key)) in self.regions:
                fields.setdefault("home_derp", home)
            self.state.touch(node.id, capver=wanted.version, **fields)


def logged_in(node: Node, user: User | None) -> RegisterResponse:
    """The success answer: its user is the one that the map will name for this node."""
    if user is None:
        ident, name, shown, created = TAGGED_USER_ID, TAGGED_USER_NAME, TAGGED_USER_NAME, node.created_at
    else:
        ident, name, shown, created = user.id, user.login_name, user.shown_name, user.created_at
    return RegisterResponse(
        user=WireUser(id=ident, display_name=shown, created=rfc3339(created)),
        login=Login(id=ident, login_name=name, display_name=shown),
        machine_authorized=True,
    )


async def _rate_limited(version: int, reply: Reply) -> None:
    if version >= capver.REGISTER_429:
        await reply.respond(429, b"too many registrations", (("retry-after", str(RETRY_AFTER_S)),))
        return
    body = encode(RegisterResponse(error="too many registrations; try again in a few seconds"))
    await reply.respond(200, body)
