"""control/login/pending.py: the waiting room, who is let in, who is turned away, and what is remembered."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest

from control.errors import Refused
from control.limits import Quotas
from control.login.pending import ANSWER_KEPT_S, PendingLogin, PendingLogins
from tests.support.builders import NOW, a_login, machine_key

PENDING_MAX, PENDING_PER_SOURCE = Quotas().pending_logins, Quotas().pending_logins_per_source
WAIT_S = Quotas().pending_login_s

PENDING_MAX = Quotas().pending_logins
PENDING_PER_SOURCE = Quotas().pending_logins_per_source
WAIT_S = Quotas().pending_login_s


def opened(
    room: PendingLogins,
    machine: int = 1,
    *,
    key: int | None = None,
    remote: str = "192.0.2.1",
    now: float = NOW,
) -> PendingLogin:
    command = a_login(machine, key)
    return room.open(command, os="linux", remote=remote, now=now)


def remote(source: int) -> str:
    return f"10.{source // 256}.{source % 256}.1"


async def test_an_id_has_128_bits_and_is_safe_in_a_shell() -> None:
    """K5."""
    ids = {opened(PendingLogins(), 1).id for _ in range(20)}
    assert len(ids) == 20
    assert all(re.fullmatch("[a-z2-7]{26}", ident) for ident in ids)


async def test_asking_again_with_the_same_key_keeps_the_url_and_tells_the_newest() -> None:
    room = PendingLogins()
    first = opened(room)
    command = a_login(1, hostname="renamed")
    again = room.open(command, os="x", remote="192.0.2.1", now=NOW + 5)
    assert again is first
    assert (again.command, again.os) == (command, "x")
    assert again.ends_at == NOW + WAIT_S  # or it would never end


async def test_a_machine_has_one_login_and_the_one_it_replaces_is_over() -> None:
    room = PendingLogins()
    first, second = opened(room, 1, key=1), opened(room, 1, key=2)
    assert first.id != second.id
    assert len(room) == 1
    assert first.answered.is_set()
    assert not first.approved
    assert room.find(first.id, NOW) is None


async def test_found_by_id_or_url_until_it_ends() -> None:
    room = PendingLogins()
    login = opened(room)
    for text in (
        login.id,
        f"https://x.example/register/{login.id}",
        f"https://x.example/register/{login.id}/",
    ):
        assert room.find(text, NOW) is login
    for text in ("", login.id[:-1], login.id + "a", login.id.upper(), f"{login.id}\n", "x/../" + "a" * 26):
        assert room.find(text, NOW) is None
    assert room.find(login.id, NOW + WAIT_S) is None


async def test_only_the_machine_that_began_may_follow() -> None:
    """K4: the result goes to nobody else."""
    room = PendingLogins()
    login = opened(room, 1)
    assert room.follow(login.id, machine_key(1), NOW) is login
    assert room.follow(login.id, machine_key(2), NOW) is None


async def test_an_approval_is_remembered_for_a_client_that_lost_the_answer() -> None:
    room = PendingLogins()
    login = opened(room)
    room.approve(login, NOW + WAIT_S - 1)
    assert login.answered.is_set()
    kept_until = NOW + WAIT_S - 1 + ANSWER_KEPT_S
    room.sweep(kept_until - 1)
    assert room.follow(login.id, machine_key(1), kept_until - 1) is login
    room.sweep(kept_until)
    assert len(room) == 0


async def test_a_login_that_nobody_approves_ends_and_wakes_its_client() -> None:
    room = PendingLogins()
    login = opened(room)
    room.sweep(NOW + WAIT_S - 1)
    assert not login.answered.is_set()
    room.sweep(NOW + WAIT_S)
    assert login.answered.is_set()
    assert not login.approved
    assert opened(room, now=NOW + WAIT_S).id != login.id


async def test_a_source_has_its_quota() -> None:
    """K6."""
    room = PendingLogins()
    for machine in range(PENDING_PER_SOURCE):
        opened(room, machine, remote=f"192.0.2.{machine}")
    with pytest.raises(Refused):
        opened(room, 99, remote="192.0.2.200")
    opened(room, 99, remote="198.51.100.1")
    opened(room, 5, key=1000, remote="192.0.2.200")  # in place of its own


async def test_pending_flood_keeps_a_strangers_login_alive() -> None:
    """K6: a flood from many sources evicts its own logins, and a newcomer still finds a place."""
    room = PendingLogins()
    stranger = opened(room, 1, remote="198.51.100.1")
    machine = 2
    for source in range(PENDING_MAX // PENDING_PER_SOURCE + 10):
        for _ in range(PENDING_PER_SOURCE):
            machine += 1
            with suppress(Refused):
                opened(room, machine, remote=remote(source), now=NOW + machine / 1000)
    assert len(room) == PENDING_MAX
    assert room.find(stranger.id, NOW) is stranger
    assert not stranger.answered.is_set()
    late = opened(room, 0, remote="203.0.113.9", now=NOW + 60)
    assert len(room) == PENDING_MAX
    assert room.find(stranger.id, NOW) is stranger
    assert room.find(late.id, NOW + 60) is late


async def test_the_largest_source_is_turned_away_from_a_full_room() -> None:
    """K6."""
    room = PendingLogins()
    for machine in range(PENDING_MAX):
        opened(room, machine, remote=remote(machine % 200))
    with pytest.raises(Refused):
        opened(room, PENDING_MAX, remote=remote(0))
    assert len(room) == PENDING_MAX
