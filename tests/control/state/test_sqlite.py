"""SQLite behind the seam: what it keeps, what it refuses to open, and how each failure is told apart."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from control.errors import Refused, StorageFailed
from control.keys import DiscoPublic
from control.state import tables
from control.state.changes import AnyChange, AuthKeyPut, NodeGone, NodePut, UserGone, UserPut
from control.state.commands import AnyCommand, CreateUser, SetSetting
from control.state.facts import Facts
from control.state.files import Space
from control.state.sqlite import SqliteStore
from control.state.store import Commit, Store, StoreUnusable, WriteRefused
from control.state.volatile import Volatile
from control.tailcfg.hostinfo import HOSTINFO_MAX, parse_hostinfo
from tests.control.state.histories import COMMANDS
from tests.control.state.records import ANNA, KEY, NODE, PLAIN, commit, reloaded
from tests.control.state.toy import ADMIN, decide
from tests.support.memory_store import MemoryStore, running_state

# what it keeps


def test_every_field_of_every_record_comes_back(store: SqliteStore) -> None:
    changes = (
        UserPut(user=ANNA),
        NodePut(node=NODE),
        NodePut(node=PLAIN),
        AuthKeyPut(auth_key=KEY),
        AuthKeyPut(auth_key=replace(KEY, id="used", user_id=1, used_at=2.0, revoked_at=3.0, ephemeral=True)),
    )
    assert store.append([commit(1, *changes)]) == 1
    expected = Facts()
    expected.apply(changes)
    expected.seq = 1
    facts = reloaded(store)
    assert facts == expected
    node = facts.nodes[7]
    assert [type(getattr(node, field)) for field in node.__struct_fields__] == [
        type(getattr(NODE, field)) for field in NODE.__struct_fields__
    ]


def test_volatile_records_and_primaries_come_back(store: SqliteStore) -> None:
    raw = b'{"OS":"linux","Hostname":"laptop","Future":{"Field":1}}'
    record = Volatile(
        endpoints=("192.0.2.1:41641", "[2001:db8::1]:41641"),
        disco_key=DiscoPublic(b"d" * 32),
        home_derp=900,
        capver=120,
        last_seen=1234.5,
        online=True,
        hostinfo=parse_hostinfo(raw),
        hostinfo_raw=raw,
        confirmed=True,
    )
    store.append([commit(1, NodePut(node=PLAIN))])
    store.flush_volatile({8: record}, {"10.0.0.0/8": 8, "10.1.0.0/16": 99})
    store.flush_volatile({}, None)
    store.close()
    loaded = store.load()
    record.confirmed = False
    assert loaded.volatile == {8: record}
    assert loaded.primaries == {"10.0.0.0/8": 8}, "node 99 is gone"
    assert loaded.newest_at == 1234.5
    store.append([commit(2, NodeGone(id=8, node_key=PLAIN.node_key, machine_key=PLAIN.machine_key, at=9.0))])
    store.close()
    loaded = store.load()
    assert (loaded.volatile, loaded.primaries) == ({}, {})


def test_ids_are_never_given_again_even_after_a_restart(store: SqliteStore) -> None:
    store.append([commit(1, UserPut(user=ANNA), NodePut(node=PLAIN))])
    gone = NodeGone(id=8, node_key=PLAIN.node_key, machine_key=PLAIN.machine_key, at=9.0)
    store.append([commit(2, gone, UserGone(id=1))])
    assert reloaded(store).last_id == {"users": 1, "nodes": 8}


def test_numbers_beyond_the_columns_are_cut_not_fatal(store: SqliteStore) -> None:
    """JSON has larger numbers than SQLite, and these two come from a client."""
    store.append([commit(1, NodePut(node=PLAIN))])
    store.flush_volatile({8: Volatile(home_derp=2**80, capver=-(2**80))}, None)
    store.close()
    record = store.load().volatile[8]
    assert (record.home_derp, record.capver) == (2**31 - 1, 0)


def test_hostinfo_that_is_no_longer_understood_is_forgotten(store: SqliteStore) -> None:
    store.append([commit(1, NodePut(node=PLAIN))])
    store.flush_volatile({8: Volatile(home_derp=3, hostinfo_raw=b"x" * (HOSTINFO_MAX + 1))}, None)
    store.close()
    assert store.load().volatile[8] == Volatile(home_derp=3)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(st.lists(COMMANDS, max_size=30), st.integers(1, 5))
def test_disk_memory_and_log_hold_the_same_world(
    tmp_path: Path, commands: list[AnyCommand], size: int
) -> None:
    path = tmp_path / "any.db"
    for old in tmp_path.iterdir():
        old.unlink()
    store = SqliteStore(path)
    store.load()
    expected, commits = Facts(), []
    for command in commands:
        facts, changes = expected.copy(), []
        try:
            changes = list(decide(facts, command, ADMIN, 1.0, b"").changes)
        except Refused:
            continue
        if changes:
            expected.apply(changes)
            expected.seq += 1
            commits.append(commit(expected.seq, *changes))
    for first in range(0, len(commits), size):
        store.append(commits[first : first + size])
    try:
        replayed = Facts()
        for each in store.changes_since(0) or ():
            replayed.apply(each.changes)
            replayed.seq = each.seq
        assert replayed == expected
        assert reloaded(store) == expected
    finally:
        store.close()


# the log


def test_changes_since_is_the_rest_of_the_log(store: SqliteStore) -> None:
    commits = [commit(seq, UserPut(user=replace(ANNA, email=str(seq)))) for seq in range(1, 6)]
    store.append(commits)
    assert store.changes_since(0) == commits
    assert store.changes_since(3) == commits[3:]
    assert store.changes_since(5) == []
    assert store.changes_since(6) is None


def test_history_is_newest_first_by_kind_and_in_pages(store: SqliteStore) -> None:
    commits = [commit(seq, UserPut(user=ANNA), kind="Odd" if seq % 2 else "Even") for seq in range(1, 10)]
    store.append(commits)
    assert [each.seq for each in store.history(None, None, 3)] == [9, 8, 7]
    assert [each.seq for each in store.history(None, 7, 3)] == [6, 5, 4]
    assert [each.seq for each in store.history("Odd", 8, 10)] == [7, 5, 3, 1]
    assert store.history("None", None, 10) == []


@pytest.fixture(params=["memory", "sqlite"])
def either(request: pytest.FixtureRequest, path: Path) -> Iterator[Store]:
    store: Store = MemoryStore() if request.param == "memory" else SqliteStore(path)
    store.load()
    yield store
    store.close()


def test_memory_store_answers_as_sqlite_does(either: Store) -> None:
    """The fake of the other tests, held against the real thing."""
    commits = [commit(1, UserPut(user=ANNA)), commit(2, NodePut(node=NODE), at=5.0, kind="Other")]
    assert either.append(commits) == 2
    either.flush_volatile({7: Volatile(home_derp=2, confirmed=True)}, {"10.0.0.0/8": 7})
    assert either.changes_since(0) == commits
    assert either.changes_since(2) == []
    assert either.changes_since(3) is None
    assert either.history("Other", None, 5) == commits[1:]
    assert either.history(None, 2, 5) == commits[:1]
    assert either.shortage() is None
    either.close()
    facts, volatile, primaries, newest_at = either.load()
    expected = Facts()
    expected.apply([*commits[0].changes, *commits[1].changes])
    expected.seq = 2
    assert (facts, volatile, primaries) == (expected, {7: Volatile(home_derp=2)}, {"10.0.0.0/8": 7})
    assert newest_at == 5.0


def test_log_is_kept_for_90_days_without_a_gap_and_its_last_row_for_ever(store: SqliteStore) -> None:
    day = 86400.0
    times = [0.0, 1 * day, 50 * day, 2 * day, 51 * day]  # the clock went backwards once
    for seq, at in enumerate(times, 1):
        store.append([commit(seq, UserPut(user=ANNA), at=at)])
    store.append([commit(6, UserPut(user=ANNA), at=100 * day)])
    rows = store.changes_since(2)
    assert [each.seq for each in rows or ()] == [3, 4, 5, 6]
    assert store.changes_since(1) is None, "below the horizon: load again"
    store.append([commit(7, UserPut(user=ANNA), at=1000 * day)])
    assert [each.seq for each in store.history(None, None, 9)] == [7]
    assert reloaded(store).seq == 7


def test_log_is_bounded_in_rows(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LOG_ROWS", 3)
    monkeypatch.setattr(tables, "LOG_TRIM_ROWS", 2)
    store.append([commit(seq, UserPut(user=ANNA)) for seq in range(1, 9)])
    assert [each.seq for each in store.history(None, None, 20)] == [8, 7, 6, 5, 4, 3], "a little at a time"
    for seq in range(9, 13):
        store.append([commit(seq, UserPut(user=ANNA))])
    assert [each.seq for each in store.history(None, None, 20)] == [12, 11, 10]


# files that are no database of ours


@pytest.mark.parametrize("content", [b"garbage" * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_garbage_is_no_database(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o600)
    store = SqliteStore(path)
    with pytest.raises(StoreUnusable) as caught:
        store.load()
    store.close()
    assert "restore a backup" in caught.value.hint


def test_damaged_page_is_said(store: SqliteStore, path: Path) -> None:
    store.append(
        [
            commit(seq, UserPut(user=replace(ANNA, id=seq, name=f"u{seq}", email="x" * 500)))
            for seq in range(1, 60)
        ]
    )
    store.close()
    content = bytearray(path.read_bytes())
    for page in range(2, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    path.write_bytes(content)
    with pytest.raises(StoreUnusable, match="damaged"):
        store.load()


def test_row_that_no_version_of_us_wrote_is_said(store: SqliteStore, path: Path) -> None:
    store.append([commit(1, NodePut(node=PLAIN))])
    store.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE nodes SET tags = 'no json'")
    db.close()
    with pytest.raises(StoreUnusable, match="cannot be read"):
        store.load()


@pytest.fixture
def shell(path: Path, store: SqliteStore) -> Iterator[sqlite3.Connection]:
    """Another program's connection to the same file."""
    db = sqlite3.connect(path, isolation_level=None)
    yield db
    db.close()


def test_locked_by_another_program_at_the_start(
    store: SqliteStore, shell: sqlite3.Connection, path: Path
) -> None:
    store.close()
    shell.execute("PRAGMA journal_mode = DELETE")
    shell.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreUnusable, match="locked by another program"):
        store.load()


# transactions that fail


def test_locked_by_another_program_while_running_is_definite(
    store: SqliteStore, shell: sqlite3.Connection
) -> None:
    shell.execute("BEGIN IMMEDIATE")
    with pytest.raises(WriteRefused, match="SQLITE_BUSY") as caught:
        store.append([commit(1, UserPut(user=ANNA))])
    assert "another program" in caught.value.hint
    shell.execute("ROLLBACK")
    store.append([commit(1, UserPut(user=ANNA))])
    assert reloaded(store).seq == 1


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param([UserPut(user=ANNA), UserPut(user=replace(ANNA, id=2))], id="name taken"),
        pytest.param([NodePut(node=PLAIN), NodePut(node=replace(PLAIN, id=9))], id="key taken"),
        pytest.param([NodePut(node=NODE)], id="owner missing"),
        pytest.param([UserPut(user=ANNA), NodePut(node=NODE), UserGone(id=1)], id="owner leaves a node"),
        pytest.param([UserPut(user=replace(ANNA, id="one"))], id="wrong type"),
        pytest.param([UserPut(user=replace(ANNA, name="\ud800"))], id="no text"),
    ],
)
def test_broken_constraint_is_a_bug_and_writes_nothing(store: SqliteStore, changes: list[AnyChange]) -> None:
    with pytest.raises((sqlite3.Error, ValueError)):
        store.append([Commit(1, 1.0, "x", "Test", tuple(changes), b"[]")])
    assert reloaded(store) == Facts()


class Failing:
    """A connection whose statement number `at` fails with that code."""

    def __init__(self, db: sqlite3.Connection, at: int, code: int, *, rollback_fails: bool = False) -> None:
        self._db, self._at, self._code, self._rollback_fails = db, at, code, rollback_fails
        self.statements: list[str] = []

    @property
    def in_transaction(self) -> bool:
        return self._db.in_transaction

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        self._count(sql)
        return self._db.execute(sql, *args)

    def executemany(self, sql: str, *args: Any) -> sqlite3.Cursor:
        self._count(sql)
        return self._db.executemany(sql, *args)

    def close(self) -> None:
        self._db.close()

    def _count(self, sql: str) -> None:
        self.statements.append(sql)
        if len(self.statements) - 1 == self._at or (sql == "ROLLBACK" and self._rollback_fails):
            error = sqlite3.OperationalError("made up")
            error.sqlite_errorcode = self._code
            error.sqlite_errorname = "MADE_UP"
            raise error


BATCH = [commit(1, UserPut(user=ANNA), NodePut(node=NODE)), commit(2, AuthKeyPut(auth_key=KEY))]
STATEMENTS = 9  # BEGIN, user, node, its tombstone, key, sequences, log, the log's oldest, COMMIT


def test_the_statements_of_a_batch_are_counted_right(store: SqliteStore) -> None:
    failing = Failing(store._db, -1, 0)  # type: ignore[arg-type]
    store._db = failing  # type: ignore[assignment]
    store.append(BATCH)
    assert (len(failing.statements), failing.statements[-1]) == (STATEMENTS, "COMMIT")


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_READONLY])
@pytest.mark.parametrize("at", range(STATEMENTS - 1))
def test_failure_before_commit_is_definite_at_every_step(store: SqliteStore, at: int, code: int) -> None:
    db = store._db
    store._db = Failing(db, at, code)  # type: ignore[arg-type,assignment]
    with pytest.raises(WriteRefused):
        store.append(BATCH)
    store._db = db
    assert reloaded(store) == Facts(), "nothing of it happened"
    assert store.append(BATCH) == 2, "and it can happen later"
    assert reloaded(store).seq == 2


@pytest.mark.parametrize(
    ("code", "definite"),
    [
        (sqlite3.SQLITE_FULL, True),
        (sqlite3.SQLITE_BUSY, True),
        (sqlite3.SQLITE_IOERR_FSYNC, False),
        (sqlite3.SQLITE_IOERR_WRITE, False),
        (sqlite3.SQLITE_READONLY, False),
    ],
)
def test_failed_commit_is_ambiguous_unless_nothing_can_have_been_written(
    store: SqliteStore, code: int, definite: bool
) -> None:
    store._db = Failing(store._db, STATEMENTS - 1, code)  # type: ignore[arg-type,assignment]
    with pytest.raises(WriteRefused if definite else sqlite3.OperationalError):
        store.append(BATCH)


def test_failed_rollback_is_ambiguous(store: SqliteStore) -> None:
    store._db = Failing(store._db, 3, sqlite3.SQLITE_FULL, rollback_fails=True)  # type: ignore[arg-type,assignment]
    with pytest.raises(sqlite3.OperationalError):
        store.append(BATCH)


@pytest.mark.parametrize("code", [sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_NOTADB])
def test_damage_and_bugs_are_not_waited_out(store: SqliteStore, code: int) -> None:
    store._db = Failing(store._db, 3, code)  # type: ignore[arg-type,assignment]
    with pytest.raises(sqlite3.OperationalError):
        store.append(BATCH)


def test_commit_returns_when_it_is_on_the_disk(store: SqliteStore) -> None:
    assert store._db is not None
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,), "FULL: an fsync for every COMMIT"
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._db.execute("PRAGMA foreign_keys").fetchone() == (1,)


# a disk that is full for real


async def grow_until_refused(store: SqliteStore, state: Any) -> int:
    for number in range(2000):
        try:
            await state.submit(SetSetting(name=f"s{number}", value="x" * 2000), ADMIN)
        except StorageFailed:
            return number
    pytest.fail("it never was full")


async def test_sqlite_full_turns_read_only_and_recovers(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    store = SqliteStore(path)
    async with running_state(store, decide) as state:
        db = store._db
        assert db is not None
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages + 20}")
        written = await grow_until_refused(store, state)
        assert state.read_only is not None
        assert "SQLITE_FULL" in state.read_only
        assert "free some space" in state.storage_hint
        assert len(state.durable.settings) == written > 0
        db.execute(f"PRAGMA max_page_count = {pages + 2000}")
        await trio.sleep(6)
        assert state.read_only is None
        await state.submit(CreateUser(name="anna"), ADMIN)
        expected = state.durable
    assert reloaded(store) == expected
    store.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(folder)],
        check=False,
        capture_output=True,
        text=True,
    )
    if mounted.returncode != 0:
        pytest.skip(f"no filesystem can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="mounting needs root")
async def test_disk_full_turns_read_only_and_recovers(
    small_disk: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """The log in front of the database hits the end of the disk at COMMIT; what was acknowledged is there."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(300_000))
    path = small_disk / "state.db"
    store = SqliteStore(path, space=lambda _: Space(1 << 40, 1 << 40))
    async with running_state(store, decide) as state:
        written = await grow_until_refused(store, state)
        assert state.read_only is not None
        assert "SQLITE_FULL" in state.read_only
        assert "free some space" in state.storage_hint
        ballast.unlink()
        await trio.sleep(6)
        assert state.read_only is None
        await state.submit(CreateUser(name="anna"), ADMIN)
        expected = state.durable
        assert len(expected.settings) == written > 0
    assert reloaded(store) == expected
    store.close()
