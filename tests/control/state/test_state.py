"""The one writer: what is seen when, and what happens when the disk says no."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from control.errors import Busy, NotFound, Refused, StorageFailed, Unavailable
from control.model import User
from control.state import state as state_module
from control.state.changes import AnyChange, UserPut
from control.state.commands import (
    Actor,
    AnyCommand,
    CreateAuthKey,
    CreateUser,
    Decision,
    DeleteNode,
    DeleteUser,
    LoggedOut,
    Registered,
    RenameUser,
    RevokeAuthKey,
    SetSetting,
)
from control.state.facts import Facts
from control.state.state import State
from control.state.store import Commit
from control.state.volatile import Group, Volatile
from control.tailcfg.hostinfo import Hostinfo
from tests.control.state.toy import ADMIN, MACHINE, decide, register
from tests.support.memory_store import FULL, NOW, Fault, MemoryStore, WallClock, running_state

ROOT = Path(__file__).parents[3]


class Recorder:
    """A subscriber that keeps what it was told, and what the world was when it was."""

    def __init__(self, state: State | None = None, name: str = "", order: list[str] | None = None) -> None:
        self.state, self.name, self.order = state, name, order
        self.commits: list[list[AnyChange]] = []
        self.touches: list[tuple[int, frozenset[Group]]] = []
        self.seqs: list[int] = []

    def on_commit(self, changes: Sequence[AnyChange], facts: Facts, now: float) -> None:
        self.commits.append(list(changes))
        self.seqs.append(facts.seq)
        if self.state is not None:
            assert facts is self.state.durable
        if self.order is not None:
            self.order.append(self.name)

    def on_touch(self, node_id: int, groups: Collection[Group], now: float) -> None:
        self.touches.append((node_id, frozenset(groups)))


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


# what is seen, and when


async def test_caller_reads_its_own_write(store: MemoryStore) -> None:
    async with running_state(store, decide, inline=False) as state:
        anna = await state.submit(CreateUser(name="anna"), ADMIN)
        assert isinstance(anna, User)
        assert state.durable.users == {1: anna}
        assert store.disk.facts == state.durable


async def test_nothing_is_seen_before_it_is_on_the_disk(store: MemoryStore) -> None:
    async with running_state(store, decide, inline=False) as state, trio.open_nursery() as nursery:
        recorder = Recorder(state)
        state.subscribe(recorder)
        store.open.clear()
        answers: list[object] = []

        async def ask() -> None:
            answers.append(await state.submit(CreateUser(name="anna"), ADMIN))

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        assert (state.backlog, answers, recorder.commits, state.durable.users) == (1, [], [], {})
        store.open.set()
    assert len(answers) == len(recorder.commits) == 1


async def test_later_command_is_decided_on_an_earlier_one_still_on_its_way(store: MemoryStore) -> None:
    async with running_state(store, decide, inline=False) as state, trio.open_nursery() as nursery:
        store.open.clear()
        nursery.start_soon(state.submit, CreateUser(name="anna"), ADMIN)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(Refused):
            await state.submit(CreateUser(name="anna"), ADMIN)
        store.open.set()


async def test_result_carries_what_is_durable_by_then(store: MemoryStore) -> None:
    """Two commits in one batch: the first caller already sees the second's name."""
    async with running_state(store, decide, inline=False) as state, trio.open_nursery() as nursery:
        store.open.clear()
        nursery.start_soon(state.submit, SetSetting(name="x", value="1"), ADMIN)
        await trio.testing.wait_all_tasks_blocked()
        first: list[Any] = []

        async def create() -> None:
            first.append(await state.submit(CreateUser(name="anna"), ADMIN))

        nursery.start_soon(create)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(state.submit, RenameUser(user="anna", name="berta"), ADMIN)
        await trio.testing.wait_all_tasks_blocked()
        store.open.set()
    assert store.batches == [1, 2]
    assert first[0].name == "berta"


async def test_success_that_changes_nothing_waits_for_what_it_rests_on(store: MemoryStore) -> None:
    async with running_state(store, decide, inline=False) as state, trio.open_nursery() as nursery:
        store.open.clear()
        nursery.start_soon(state.submit, register(1), MACHINE)
        await trio.testing.wait_all_tasks_blocked()
        again: list[object] = []

        async def repeat() -> None:
            again.append(await state.submit(register(1), MACHINE))

        nursery.start_soon(repeat)
        await trio.testing.wait_all_tasks_blocked()
        assert not again
        store.open.set()
    assert isinstance(again[0], Registered)
    assert [commit.seq for commit in store.log] == [1]


async def test_refusal_changes_nothing_and_does_not_wait(store: MemoryStore) -> None:
    async with running_state(store, decide, inline=False) as state, trio.open_nursery() as nursery:
        await state.submit(CreateUser(name="anna"), ADMIN)
        before = state.durable
        store.open.clear()
        nursery.start_soon(state.submit, CreateUser(name="berta"), ADMIN)
        await trio.testing.wait_all_tasks_blocked()
        head = state._head.copy()
        with pytest.raises(NotFound):
            await state.submit(DeleteUser(user="nobody"), ADMIN)
        assert state._head == head
        assert state.durable is before
        assert state.backlog == 1
        store.open.set()


async def test_snapshot_is_never_changed_again(store: MemoryStore) -> None:
    async with running_state(store, decide) as state:
        await state.submit(register(1), MACHINE)
        snapshot, copy = state.durable, state.durable.copy()
        await state.submit(register(2), MACHINE)
        await state.submit(DeleteNode(node="1"), ADMIN)
        assert snapshot == copy
        assert state.durable != snapshot


async def test_subscribers_are_told_in_order_before_the_caller(store: MemoryStore) -> None:
    order: list[str] = []
    async with running_state(store, decide) as state:
        for name in ("relay", "sessions", "audit"):
            state.subscribe(Recorder(state, name, order))
        await state.submit(CreateUser(name="anna"), ADMIN)
        order.append("caller")
    assert order == ["relay", "sessions", "audit", "caller"]


async def test_cancelled_caller_does_not_undo_its_commit(store: MemoryStore) -> None:
    async with running_state(store, decide, inline=False) as state:
        store.open.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(state.submit, CreateUser(name="anna"), ADMIN)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        store.open.set()
        await state.submit(CreateUser(name="berta"), ADMIN)
        assert set(state.durable.users_by_name) == {"anna", "berta"}


async def test_concurrent_submits_share_transactions(store: MemoryStore) -> None:
    async with running_state(store, decide, inline=False) as state, trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(state.submit, CreateUser(name=f"u{number}"), ADMIN)
    assert sum(store.batches) == 100
    assert len(store.batches) <= 3
    assert [commit.seq for commit in store.log] == list(range(1, 101))


async def test_batch_is_bounded(store: MemoryStore) -> None:
    async with running_state(store, decide) as state, trio.open_nursery() as nursery:
        for number in range(400):
            nursery.start_soon(state.submit, CreateUser(name=f"u{number}"), ADMIN)
    assert max(store.batches) <= state_module.BATCH
    assert sum(store.batches) == 400


async def test_too_many_waiting_commits_are_refused_as_busy(store: MemoryStore) -> None:
    async with running_state(store, decide, inline=False) as state, trio.open_nursery() as nursery:
        store.open.clear()
        for number in range(state_module.PENDING_COMMITS):
            nursery.start_soon(state.submit, CreateUser(name=f"u{number}"), ADMIN)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(Busy):
            await state.submit(CreateUser(name="one more"), ADMIN)
        store.open.set()
    assert len(store.disk.facts.users) == state_module.PENDING_COMMITS


async def test_too_many_waiting_bytes_are_refused_as_busy(store: MemoryStore) -> None:
    async with running_state(store, decide, inline=False) as state, trio.open_nursery() as nursery:
        store.open.clear()
        for number in range(8):
            nursery.start_soon(state.submit, SetSetting(name=f"{number}", value="x" * 2**20), ADMIN)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(Busy):
            await state.submit(CreateUser(name="anna"), ADMIN)
        store.open.set()


async def test_bug_in_applying_costs_only_the_command_that_met_it(store: MemoryStore) -> None:
    """The working set is made again from the disk and what waits; the commits before it are not lost."""

    def buggy(facts: Facts, command: AnyCommand, by: Actor, now: float, pepper: bytes) -> Decision:
        if isinstance(command, RenameUser):
            return Decision((UserPut(user=User(id=9, name="half", created_at=now)), "no change"))
        return decide(facts, command, by, now, pepper)

    async with running_state(store, buggy, inline=False) as state:
        store.open.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(state.submit, CreateUser(name="anna"), ADMIN)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(AssertionError):
                await state.submit(RenameUser(user="a", name="b"), ADMIN)
            store.open.set()
        await state.submit(CreateUser(name="berta"), ADMIN)
        assert state._head == state.durable == store.disk.facts
        assert set(state.durable.users_by_name) == {"anna", "berta"}


async def test_log_says_who_and_what(store: MemoryStore) -> None:
    async with running_state(store, decide) as state:
        await state.submit(CreateUser(name="anna"), ADMIN)
    (commit,) = store.log
    assert (commit.seq, commit.at, commit.by, commit.kind) == (1, NOW, "local:uid:0", "CreateUser")


async def test_clock_that_goes_backwards_disturbs_no_order(store: MemoryStore) -> None:
    clock = WallClock()
    async with running_state(store, decide, clock=clock) as state:
        await state.submit(CreateUser(name="anna"), ADMIN)
        clock.now = NOW - 86400
        await state.submit(CreateUser(name="berta"), ADMIN)
        assert state.durable.seq == 2
        assert state.newest_at == NOW
        assert state.durable.users[2].created_at == NOW - 86400
    async with running_state(store, decide, clock=clock) as state:
        assert state.newest_at == NOW
        assert state.durable.seq == 2


# when the disk says no


async def test_definite_failure_drops_what_nobody_saw_and_turns_read_only(
    store: MemoryStore, autojump_clock: trio.testing.MockClock
) -> None:
    async with running_state(store, decide) as state:
        recorder = Recorder(state)
        state.subscribe(recorder)
        await state.submit(CreateUser(name="anna"), ADMIN)
        store.faults.extend([FULL, FULL])
        with pytest.raises(StorageFailed, match="disk full") as caught:
            await state.submit(CreateUser(name="berta"), ADMIN)
        assert caught.value.hint == state.storage_hint == "free some space"
        assert state.read_only == "disk full"
        assert len(recorder.commits) == 1
        with pytest.raises(StorageFailed):
            await state.submit(CreateUser(name="clara"), ADMIN)
        await trio.sleep(state_module.FLUSH_EVERY_S + 1)
        assert state.read_only is not None, "the probe failed as well"
        await trio.sleep(state_module.FLUSH_EVERY_S)
        assert state.read_only is None
        assert state._head == state.durable == store.disk.facts
        dora = await state.submit(CreateUser(name="dora"), ADMIN)
        assert isinstance(dora, User)
        assert dora.id == 2, "the id of what never happened is free"
        assert recorder.seqs == [1, 2]


async def test_all_waiting_commits_share_the_fate_of_a_failed_batch(store: MemoryStore) -> None:
    """Also those that were not in it: they were decided on a world that never was."""
    async with running_state(store, decide, inline=False) as state:
        store.open.clear()
        store.faults.append(FULL)
        failed: list[str] = []

        async def ask(name: str) -> None:
            try:
                await state.submit(CreateUser(name=name), ADMIN)
            except StorageFailed:
                failed.append(name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "in the batch")
            await trio.testing.wait_all_tasks_blocked()
            for number in range(20):
                nursery.start_soon(ask, f"behind {number}")
            await trio.testing.wait_all_tasks_blocked()
            store.open.set()
        assert len(failed) == 21
        assert state.backlog == 0
        assert state._head == state.durable == Facts()


async def test_touch_goes_on_while_read_only(
    store: MemoryStore, autojump_clock: trio.testing.MockClock
) -> None:
    async with running_state(store, decide) as state:
        await state.submit(register(1), MACHINE)
        store.faults.extend([FULL, FULL])
        with pytest.raises(StorageFailed):
            await state.submit(register(2), MACHINE)
        assert state.touch(1, endpoints=("192.0.2.1:1",)) == {"endpoints"}
        await trio.sleep(11)
        assert store.disk.volatile[1].endpoints == ("192.0.2.1:1",)


class Ambiguous(Exception):
    """COMMIT failed; nobody knows."""


@pytest.mark.parametrize("happened", [False, True])
async def test_ambiguous_failure_ends_the_process_and_answers_nobody(
    store: MemoryStore, happened: bool
) -> None:
    ends: list[BaseException] = []
    answers: list[object] = []
    seen = Recorder()
    with pytest.raises(BaseExceptionGroup) as caught:  # noqa: PT012  # the nursery around the state is the thing that fails
        async with running_state(store, decide, fatal=ends.append) as state, trio.open_nursery() as nursery:
            state.subscribe(seen)
            store.faults.append(Fault(Ambiguous(), after=happened))

            async def ask() -> None:
                answers.append(await state.submit(CreateUser(name="anna"), ADMIN))

            nursery.start_soon(ask)
            await trio.sleep_forever()
    assert caught.group_contains(Ambiguous)
    assert len(ends) == 1
    assert answers == seen.commits == []
    assert store.closed
    async with running_state(store, decide) as state:
        assert len(state.durable.users) == int(happened), "after the restart, what is on the disk counts"


async def test_bug_in_a_subscriber_ends_the_state_before_anybody_is_answered(
    store: MemoryStore, autojump_clock: trio.testing.MockClock
) -> None:
    class Buggy(Recorder):
        def on_commit(self, *_: object) -> None:
            raise ZeroDivisionError

    answers: list[object] = []
    with pytest.raises(BaseExceptionGroup) as caught:  # noqa: PT012
        async with running_state(store, decide) as state, trio.open_nursery() as nursery:
            state.subscribe(Buggy())

            async def ask() -> None:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
                    answers.append(await state.submit(CreateUser(name="anna"), ADMIN))

            nursery.start_soon(ask)
    assert caught.group_contains(ZeroDivisionError)
    assert answers == []
    assert len(store.disk.facts.users) == 1


def test_fatal_failure_exits_with_70() -> None:
    code = "from control.state.state import exit_at_once; exit_at_once(OSError('fsync'))"
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert child.returncode == 70
    assert "OSError: fsync" in child.stderr


async def test_failed_flush_keeps_what_it_could_not_write(
    store: MemoryStore, autojump_clock: trio.testing.MockClock
) -> None:
    async with running_state(store, decide) as state:
        await state.submit(register(1), MACHINE)
        store.faults.append(FULL)
        state.touch(1, home_derp=7)
        await trio.sleep(6)
        assert state.read_only == "disk full"
        state.touch(1, capver=120)
        await trio.sleep(6)
        assert state.read_only is None
        assert (store.disk.volatile[1].home_derp, store.disk.volatile[1].capver) == (7, 120)


async def test_turning_read_only_and_back_is_logged_with_the_hint(
    store: MemoryStore, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "control.state")
    async with running_state(store, decide) as state:
        store.faults.append(FULL)
        with pytest.raises(StorageFailed):
            await state.submit(CreateUser(name="anna"), ADMIN)
        await trio.sleep(6)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "free some space" in vars(caplog.records[0])["hint"]


async def test_revocation_works_on_full_disk(store: MemoryStore) -> None:
    """D6: on the last part of the disk nothing is added and machines write nothing; taking away goes on."""
    async with running_state(store, decide) as state:
        await state.submit(CreateUser(name="anna"), ADMIN)
        await state.submit(CreateAuthKey(id="k", mac=b"m" * 32, expiry_s=60), ADMIN)
        await state.submit(register(1), MACHINE)
        store.nearly_full = "the disk is nearly full"
        with pytest.raises(StorageFailed, match="nearly full"):
            await state.submit(register(2), MACHINE)
        with pytest.raises(StorageFailed):
            await state.submit(CreateUser(name="berta"), ADMIN)
        with pytest.raises(StorageFailed):
            await state.submit(SetSetting(name="churn", value="1"), MACHINE)
        await state.submit(register(1), MACHINE)  # known already: nothing to write
        logout = msgspec.structs.replace(register(1), expiry=0)
        assert await state.submit(logout, MACHINE) == LoggedOut()
        await state.submit(RevokeAuthKey(id="k"), ADMIN)
        await state.submit(DeleteNode(node="1"), ADMIN)
        await state.submit(DeleteUser(user="anna"), ADMIN)
        assert (state.durable.users, state.durable.nodes) == ({}, {})
        assert state.durable.auth_keys["k"].revoked_at == NOW
        assert state.read_only is None


# starting and stopping


async def test_not_running_is_unavailable(store: MemoryStore) -> None:
    async with running_state(store, decide) as state:
        pass
    with pytest.raises(Unavailable):
        await state.submit(CreateUser(name="anna"), ADMIN)
    assert store.closed


async def test_error_while_loading_reaches_whoever_starts_it(store: MemoryStore) -> None:
    def broken() -> None:
        raise RuntimeError("no")

    store.load = broken  # type: ignore[method-assign,assignment]
    with pytest.raises(BaseExceptionGroup) as caught:
        async with running_state(store, decide):
            pytest.fail("it started")
    assert caught.group_contains(RuntimeError)
    assert store.closed


async def test_shutdown_writes_what_was_accepted_and_flushes(store: MemoryStore) -> None:
    acknowledged: list[object] = []
    async with trio.open_nursery() as callers:
        async with running_state(store, decide, inline=False) as state:
            await state.submit(register(1), MACHINE)
            state.touch(1, home_derp=900)
            state.primaries_source = lambda: {"10.0.0.0/8": 1}
            store.open.clear()

            async def ask(number: int) -> None:
                acknowledged.append(await state.submit(register(number), MACHINE))

            for number in range(2, 12):
                callers.start_soon(ask, number)
            await trio.testing.wait_all_tasks_blocked()
            callers.start_soon(trio.to_thread.run_sync, store.open.set)
        assert state.backlog == 0
    assert len(acknowledged) == 10
    assert len(store.disk.facts.nodes) == 11
    assert store.disk.volatile[1].home_derp == 900
    assert store.disk.primaries == {"10.0.0.0/8": 1}
    assert store.closed


async def test_disk_that_never_answers_does_not_stop_the_shutdown(
    store: MemoryStore, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    started = trio.current_time()
    async with trio.open_nursery() as callers:
        async with running_state(store, decide, inline=False) as state:
            store.open.clear()
            callers.start_soon(state.submit, CreateUser(name="anna"), ADMIN)
            await trio.testing.wait_all_tasks_blocked()
        callers.cancel_scope.cancel()
    store.open.set()
    assert trio.current_time() - started == state_module.SHUTDOWN_S + state_module.CLOSE_S
    assert [vars(record)["changes"] for record in caplog.records] == [1]


# volatile facts


async def test_every_node_has_a_volatile_record_for_as_long_as_it_lives(store: MemoryStore) -> None:
    async with running_state(store, decide) as state:
        await state.submit(register(1), MACHINE)
        await state.submit(register(2), MACHINE)
        assert state.volatile == {1: Volatile(), 2: Volatile()}
        state.touch(1, home_derp=3)
        await state.submit(DeleteNode(node="1"), ADMIN)
        assert state.touch(1, home_derp=4) == frozenset()
        assert state.volatile.keys() == {2}
    async with running_state(store, decide) as state:
        assert state.volatile.keys() == {2}


BEFORE = Volatile(
    endpoints=("192.0.2.1:1",), home_derp=1, capver=100, last_seen=5.0, hostinfo=Hostinfo(os="linux")
)


@pytest.mark.parametrize(
    ("online", "fields", "groups"),
    [
        (False, {"endpoints": ("192.0.2.1:1",), "home_derp": 1, "capver": 100, "last_seen": 5.0}, set()),
        (False, {"endpoints": ()}, {"endpoints"}),
        (False, {"home_derp": 2, "capver": 101}, {"derp", "cap"}),
        (False, {"last_seen": 6.0}, {"online"}),
        (True, {"last_seen": 6.0}, set()),
        (False, {"online": True, "last_seen": 6.0}, {"online"}),
        (True, {"online": False, "last_seen": 6.0}, {"online"}),
        (False, {"hostinfo": Hostinfo(os="linux", ipn_version="1.102.5")}, set()),  # which peers are not told
        (False, {"hostinfo": Hostinfo(os="macOS")}, {"body"}),
        (False, {"hostinfo_raw": b"{}", "confirmed": True}, set()),
    ],
)
async def test_touch_tells_the_groups_in_which_peers_see_a_difference(
    store: MemoryStore, online: bool, fields: dict[str, Any], groups: set[Group]
) -> None:
    async with running_state(store, decide) as state:
        await state.submit(register(1), MACHINE)
        state.volatile[1] = Volatile(
            endpoints=BEFORE.endpoints,
            home_derp=BEFORE.home_derp,
            capver=BEFORE.capver,
            last_seen=BEFORE.last_seen,
            hostinfo=BEFORE.hostinfo,
            online=online,
        )
        recorder = Recorder()
        state.subscribe(recorder)
        assert state.touch(1, **fields) == groups
        assert recorder.touches == ([(1, frozenset(groups))] if groups else [])
        assert all(getattr(state.volatile[1], name) == value for name, value in fields.items())


async def test_touches_are_merged_into_one_flush_every_five_seconds(
    store: MemoryStore, autojump_clock: trio.testing.MockClock
) -> None:
    async with running_state(store, decide) as state:
        await state.submit(register(1), MACHINE)
        await state.submit(register(2), MACHINE)
        await trio.sleep(6)
        assert store.flushes == 0, "nothing was touched"
        for second in range(3):
            state.touch(1, last_seen=float(second + 1), home_derp=second)
        await trio.sleep(5)
        assert store.flushes == 1
        assert store.disk.volatile.keys() == {1}
        assert (store.disk.volatile[1].last_seen, store.disk.volatile[1].home_derp) == (3.0, 2)
        state.touch(1, confirmed=True)
        state.touch(1, home_derp=2)
        await trio.sleep(20)
        assert store.flushes == 1, "neither of these is news for the disk"


async def test_primaries_are_flushed_when_they_change(
    store: MemoryStore, autojump_clock: trio.testing.MockClock
) -> None:
    async with running_state(store, decide) as state:
        await state.submit(register(1), MACHINE)
        elected = {"10.0.0.0/8": 1}
        state.primaries_source = lambda: elected
        await trio.sleep(6)
        assert (store.disk.primaries, store.flushes) == ({"10.0.0.0/8": 1}, 1)
        await trio.sleep(20)
        assert store.flushes == 1
        elected.clear()
    async with running_state(store, decide) as state:
        assert state.primaries == {}


async def test_loaded_record_is_unconfirmed(store: MemoryStore) -> None:
    async with running_state(store, decide) as state:
        await state.submit(register(1), MACHINE)
        state.touch(1, online=True, last_seen=NOW, confirmed=True)
    async with running_state(store, decide) as state:
        assert state.volatile[1] == Volatile(online=True, last_seen=NOW, confirmed=False)


class SteppingStore(MemoryStore):
    """Each append waits for a permit."""

    def __init__(self) -> None:
        super().__init__()
        self.permits = threading.Semaphore(0)

    def append(self, batch: Sequence[Commit]) -> int:
        self.permits.acquire()
        return super().append(batch)


async def test_flush_goes_behind_the_commits_before_it_and_ahead_of_later_ones(
    mock_clock: trio.testing.MockClock,
) -> None:
    """So a load without a pause cannot starve it, and it never tells the disk of a node that is not there."""
    store = SteppingStore()
    async with running_state(store, decide, inline=False) as state, trio.open_nursery() as nursery:

        async def durable(seq: int) -> None:
            while state.durable.seq < seq:
                await trio.lowlevel.checkpoint()

        nursery.start_soon(state.submit, register(1), MACHINE)
        store.permits.release()
        await durable(1)
        state.touch(1, home_derp=4)
        nursery.start_soon(state.submit, register(2), MACHINE)
        await trio.testing.wait_all_tasks_blocked()  # 2 is with the writer
        nursery.start_soon(state.submit, register(3), MACHINE)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(6)
        store.permits.release()
        await durable(2)
        nursery.start_soon(state.submit, register(4), MACHINE)
        await trio.testing.wait_all_tasks_blocked()  # 3 is with the writer, and 4 waits
        store.permits.release(2)
    assert store.journal == [1, 2, 3, "flush", 4]
