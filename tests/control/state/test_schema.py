"""Older databases are brought up to date, newer and foreign ones are refused."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from control.state.changes import UserPut
from control.state.facts import Facts
from control.state.schema import MIGRATIONS
from control.state.sqlite import SqliteStore
from control.state.store import StoreUnusable
from tests.control.state.records import ANNA, commit


def m0002_nicknames(db: Any) -> None:
    db.execute("ALTER TABLE users ADD COLUMN nickname TEXT NOT NULL DEFAULT ''")


def m0003_broken(db: Any) -> None:
    db.execute("CREATE TABLE half (id INTEGER PRIMARY KEY) STRICT")
    db.execute("no SQL")


NEWER = (*MIGRATIONS, m0002_nicknames)


def test_new_database_is_not_copied(store: SqliteStore, tmp_path: Path) -> None:
    assert list(tmp_path.glob("before-*")) == []


def test_copy_is_made_before_an_update_changes_the_tables(
    store: SqliteStore, path: Path, tmp_path: Path
) -> None:
    store.append([commit(1, UserPut(user=ANNA))])
    store.close()
    newer = SqliteStore(path, migrations=NEWER)
    assert newer.load().facts.users == {1: ANNA}
    newer.close()
    newer.load()
    newer.close()
    (copy,) = tmp_path.glob("before-*")
    assert copy.name == "before-m0002_nicknames.db"
    assert copy.stat().st_mode & 0o777 == 0o600
    old = SqliteStore(copy)
    assert old.load().facts.users == {1: ANNA}, "the older version reads it"
    old.close()


def test_failed_migration_changes_nothing(store: SqliteStore, path: Path) -> None:
    store.append([commit(1, UserPut(user=ANNA))])
    store.close()
    broken = SqliteStore(path, migrations=(*MIGRATIONS, m0003_broken))
    for _ in range(2):
        with pytest.raises(StoreUnusable):
            broken.load()
        broken.close()
    assert store.load().facts.users == {1: ANNA}


def test_database_from_the_future_is_refused_and_untouched(store: SqliteStore, path: Path) -> None:
    store.close()
    newer = SqliteStore(path, migrations=NEWER)
    newer.load()
    newer.close()
    before = path.read_bytes()
    with pytest.raises(StoreUnusable, match=r"newer version \(m0002_nicknames\)") as caught:
        store.load()
    store.close()
    assert "before-" in caught.value.hint
    assert path.read_bytes() == before


def test_start_that_was_killed_before_the_first_migration_is_finished(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute(
            "CREATE TABLE _sqlite_migrations (id INTEGER PRIMARY KEY, migration_set TEXT, name TEXT, applied_at TEXT)"
        )
    db.close()
    path.chmod(0o600)
    store = SqliteStore(path)
    assert store.load().facts == Facts()
    store.close()


@pytest.mark.parametrize("owner", [0, 4711])
def test_database_of_another_program_is_refused_and_untouched(path: Path, owner: int) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE theirs (x)")
        db.execute(f"PRAGMA application_id = {owner}")
    db.close()
    path.chmod(0o600)
    before = path.read_bytes()
    store = SqliteStore(path)
    with pytest.raises(StoreUnusable, match="another program"):
        store.load()
    store.close()
    assert path.read_bytes() == before


def test_every_table_is_strict_and_facts_belong_to_a_tailnet(store: SqliteStore, path: Path) -> None:
    with sqlite3.connect(path) as db:
        ours = [
            row
            for row in db.execute("PRAGMA table_list")
            if row[0] == "main" and not row[1].startswith(("_", "sqlite"))
        ]
        assert len(ours) == 10
        for _, name, _, _, _, strict in ours:
            assert strict == 1, name
            columns = {row[1] for row in db.execute(f"PRAGMA table_info({name})")}
            assert ("tailnet_id" in columns) == (name not in {"sequences", "meta"}), name
    db.close()
