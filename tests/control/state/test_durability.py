"""What was acknowledged is there: after any failure, after `kill -9`, after a power cut."""

from __future__ import annotations

import contextlib
import random  # noqa: TID251  # seeded: the same cuts and kills every time
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from control.errors import Refused, StorageFailed
from control.state.changes import AnyChange, UserPut
from control.state.commands import AnyCommand
from control.state.facts import Facts
from control.state.sqlite import SqliteStore
from control.state.store import Commit, encode_changes
from tests.control.state.crash_child import WRITERS, key_of, name_of
from tests.control.state.histories import COMMANDS
from tests.control.state.records import ANNA
from tests.control.state.toy import ADMIN, decide, node_key, register
from tests.support.memory_store import FULL, MemoryStore, running_state

ROOT = Path(__file__).parents[3]


def replay(commits: Sequence[Commit]) -> Facts:
    facts = Facts()
    for commit in commits:
        facts.apply(commit.changes)
        facts.seq = commit.seq
    return facts


def load(path: Path) -> Facts:
    store = SqliteStore(path)
    try:
        return store.load().facts
    finally:
        store.close()


# random histories


@settings(max_examples=60)
@given(
    rounds=st.lists(st.lists(COMMANDS, min_size=1, max_size=6), max_size=8),
    faults=st.lists(st.booleans(), max_size=12),
)
def test_head_disk_and_log_agree_whenever_nothing_is_pending(
    rounds: list[list[AnyCommand]], faults: list[bool]
) -> None:
    """Rounds of concurrent commands, some transactions refused by the disk; whatever was said stays said."""
    store = MemoryStore()
    seen = Facts()  # the world as a subscriber built it from the changes alone

    class Follower:
        def on_commit(self, changes: Sequence[AnyChange], facts: Facts, now: float) -> None:
            seen.apply(changes)
            seen.seq = facts.seq

        def on_touch(self, *_: object) -> None:
            raise AssertionError("nobody touched anything")

    async def main() -> None:
        async with running_state(store, decide) as state:
            state.subscribe(Follower())
            store.faults.extend(FULL if fault else None for fault in faults)

            async def ask(command: AnyCommand) -> None:
                with contextlib.suppress(Refused, StorageFailed):
                    await state.submit(command, ADMIN)

            for commands in rounds:
                async with trio.open_nursery() as nursery:
                    for command in commands:
                        nursery.start_soon(ask, command)
                assert state.backlog == 0
                assert state._head == state.durable == store.disk.facts == seen == replay(store.log)
                if state.read_only is not None:
                    await trio.sleep(60)  # until a probe succeeds
                    assert state.read_only is None

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


# kill -9


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    """Twenty times, at a random point under load, on the same database."""
    path = tmp_path / "state.db"
    chance = random.Random(20)
    acknowledged: list[tuple[int, dict[int, int], set[tuple[int, int]]]] = []
    for run in range(20):
        acknowledged.append((run, *killed_after(path, run, chance.randrange(1, 150))))
        facts = load(path)
        for earlier, steps, gone in acknowledged[-3:]:
            assert_kept(facts, earlier, steps, gone)
    facts = load(path)
    for run, steps, gone in acknowledged:
        assert_kept(facts, run, steps, gone)
    store = SqliteStore(path)
    assert replay(store.changes_since(0) or ()) == facts
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []


def killed_after(path: Path, run: int, lines: int) -> tuple[dict[int, int], set[tuple[int, int]]]:
    """Run the child until it has acknowledged so many things, kill it; the last step of each writer, and what is gone."""
    steps: dict[int, int] = {}
    gone: set[tuple[int, int]] = set()
    command = [sys.executable, "-m", "tests.control.state.crash_child", str(path), str(run)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for count, line in enumerate(child.stdout, 1):  # what it had written when it died is read too
            if count == lines:
                child.kill()
            writer, step, *rest = line.split()
            if rest:
                gone.add((int(writer), int(step) - 1))
            else:
                steps[int(writer)] = int(step)
        assert child.wait() == -9
    assert sum(1 for _ in steps) <= WRITERS
    return steps, gone


def assert_kept(facts: Facts, run: int, steps: dict[int, int], gone: set[tuple[int, int]]) -> None:
    for writer, step in steps.items():
        node = facts.node_by_key(node_key(key_of(run, writer, step)))
        assert node is not None, f"node of run {run}, writer {writer}, step {step}"
        assert facts.auth_keys[name_of(run, writer, step)].revoked_at is None
        names = {name_of(run, writer, step), name_of(run, writer, step + 1)}
        assert names & facts.users_by_name.keys(), f"user of run {run}, writer {writer}, step {step}"
    for writer, step in gone:
        assert node_key(key_of(run, writer, step)) in facts.tombstones
        assert facts.node_by_key(node_key(key_of(run, writer, step))) is None
        assert facts.auth_keys[name_of(run, writer, step)].revoked_at is not None


# power


COMMITS = 8


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes, list[int], list[Facts]]:
    """A database before, the whole write-ahead log after some commits, its length after each, the world after each."""
    path = tmp_path_factory.mktemp("written") / "state.db"
    store = SqliteStore(path)
    facts = store.load().facts
    wal = path.with_name("state.db-wal")
    before, lengths, worlds = path.read_bytes(), [0], [facts.copy()]
    for seq in range(1, COMMITS + 1):
        changes = decide(facts, register(seq), ADMIN, 1.0, b"").changes if seq % 2 else (UserPut(user=ANNA),)
        store.append([Commit(seq, 1.0, "x", "Test", tuple(changes), encode_changes(changes))])
        facts.apply(changes)
        facts.seq = seq
        lengths.append(wal.stat().st_size)
        worlds.append(facts.copy())
    assert path.read_bytes() == before, "no checkpoint yet: all of it is in the log"
    log = wal.read_bytes()
    store.close()
    return before, log, lengths, worlds


FRAME = 24 + 4096  # a frame's header and a page; 32 bytes of header before all frames


def cuts(log: bytes) -> list[int]:
    """Every frame boundary, and just before it; and some places inside frames."""
    chance = random.Random(1)
    boundaries = range(32, len(log) + 1, FRAME)
    places = {edge + beside for edge in boundaries for beside in (-1, 0)} | {1, 31}
    places |= {chance.randrange(len(log)) for _ in range(20)}
    return sorted(place for place in places if 0 <= place <= len(log))


@pytest.mark.slow
@pytest.mark.parametrize("tail", ["cut", "noise"])
def test_power_cut_keeps_every_commit_that_was_on_the_disk(
    written: tuple[bytes, bytes, list[int], list[Facts]], tmp_path: Path, tail: str
) -> None:
    """Whatever prefix of the log survives, the world is that after the last commit that is whole in it, no mixture."""
    before, log, lengths, worlds = written
    noise = random.Random(2).randbytes(len(log))
    for cut in cuts(log):
        folder = tmp_path / str(cut)
        folder.mkdir()
        path = folder / "state.db"
        path.write_bytes(before)
        path.chmod(0o600)
        (folder / "state.db-wal").write_bytes(log[:cut] + (noise[cut:] if tail == "noise" else b""))
        whole = max(seq for seq, length in enumerate(lengths) if length <= cut)
        assert load(path) == worlds[whole], f"cut at {cut}"
        shutil.rmtree(folder)
