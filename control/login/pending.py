"""The waiting room: logins that a person has yet to approve.

A client without an auth key gets an AuthURL that ends in a random id, and asks again with it (Followup). That request has
no time-out of its own and is repeated when its connection is cut, so an answer is kept for a while after it was given,
and is given only to the machine that began. Memory only: after a restart an unknown id gets a fresh URL.

Bounded (security.md K6): one login a machine, 32 a source, 1,024 in all. A full room turns the newcomer of the largest
source away; it never drops somebody else's login.
"""

from __future__ import annotations

import base64
import re
import secrets
from collections import Counter
from dataclasses import dataclass, field

import trio

from control.errors import Refused
from control.keys import MachinePublic
from control.limits import Quotas
from control.prefixes import source_of
from control.state.commands import Register

ANSWER_KEPT_S = 10 * 60.0

ID = re.compile(r"[a-z2-7]{26}\Z")  # 128 bits in base32: short enough for a QR code


@dataclass(slots=True, eq=False)
class PendingLogin:
    """One login. `answered` is set once it is approved, or over."""

    id: str
    command: Register  # what to do when a person says yes
    os: str
    remote: str  # the address that it came from
    source: str
    began_at: float
    ends_at: float
    approved: bool = False
    answered: trio.Event = field(default_factory=trio.Event)


class PendingLogins:
    """`now` is wall-clock seconds everywhere."""

    def __init__(self, quotas: Quotas = Quotas()) -> None:  # noqa: B008  (immutable)
        self._quotas = quotas
        self._by_id: dict[str, PendingLogin] = {}
        self._by_machine: dict[MachinePublic, PendingLogin] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def open(self, command: Register, *, os: str, remote: str, now: float) -> PendingLogin:
        """The machine's pending login: the one it has, if it asks with the same node key, else a new one.

        Raises Refused when the room is full.
        """
        old = self._by_machine.get(command.machine_key)
        if old is not None:
            if old.command.node_key == command.node_key and now < old.ends_at and not old.approved:
                old.command, old.os = command, os
                return old
            self._drop(old)
        self.sweep(now)
        source = source_of(remote)
        self._make_room(source)
        ident = base64.b32encode(secrets.token_bytes(16)).decode().rstrip("=").lower()
        pending = PendingLogin(ident, command, os, remote, source, now, now + self._quotas.pending_login_s)
        self._by_id[ident] = self._by_machine[command.machine_key] = pending
        return pending

    def find(self, text: str, now: float) -> PendingLogin | None:
        """By id, or by the URL that ends in it."""
        ident = text.rstrip("/").rsplit("/", 1)[-1]
        pending = self._by_id.get(ident) if ID.match(ident) else None
        return pending if pending is not None and now < pending.ends_at else None

    def follow(self, text: str, machine_key: MachinePublic, now: float) -> PendingLogin | None:
        """The same for the client; None also when another machine began it (security.md K4)."""
        pending = self.find(text, now)
        return pending if pending is not None and pending.command.machine_key == machine_key else None

    def approve(self, pending: PendingLogin, now: float) -> None:
        """The login succeeded: wake who waits, and remember it for whoever lost the answer."""
        pending.approved = True
        pending.ends_at = now + ANSWER_KEPT_S
        pending.answered.set()

    def sweep(self, now: float) -> None:
        """Forget what has ended; a client still waiting is answered with a fresh URL."""
        for pending in [pending for pending in self._by_id.values() if pending.ends_at <= now]:
            self._drop(pending)

    def _make_room(self, source: str) -> None:
        count = Counter(pending.source for pending in self._by_id.values())
        if count[source] >= self._quotas.pending_logins_per_source:
            raise Refused("too many logins from your network wait for approval; try again in a few minutes")
        if len(self._by_id) < self._quotas.pending_logins:
            return
        largest, most = count.most_common(1)[0]
        if count[source] + 1 >= most:
            raise Refused("too many logins wait for approval; try again in a few minutes")
        newest = max((p for p in self._by_id.values() if p.source == largest), key=lambda p: p.began_at)
        self._drop(newest)

    def _drop(self, pending: PendingLogin) -> None:
        del self._by_id[pending.id]
        if self._by_machine.get(pending.command.machine_key) is pending:
            del self._by_machine[pending.command.machine_key]
        pending.answered.set()
