"""The database as a file: ours alone, locked, copied whole."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from control.state.changes import NodePut, UserPut
from control.state.files import Space
from control.state.sqlite import SqliteStore
from control.state.store import StoreUnusable, WriteRefused
from tests.control.state.records import ANNA, PLAIN, commit, reloaded


def test_database_and_its_companions_are_ours_alone(store: SqliteStore, path: Path, tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        store.append([commit(1, UserPut(user=ANNA))])
        store.backup(tmp_path / "copy.db")
    finally:
        os.umask(old)
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {"state.db", "state.db-wal", "state.db-shm", "state.db.lock", "copy.db"}
    assert {oct(file.stat().st_mode & 0o777) for file in tmp_path.iterdir()} == {"0o600"}


def test_loose_modes_refuse_start(store: SqliteStore, path: Path, tmp_path: Path) -> None:
    """D1: group or other bits, a symlink, no ordinary file."""
    store.close()
    for mode in (0o640, 0o604, 0o660):
        path.chmod(mode)
        with pytest.raises(StoreUnusable, match="other users") as caught:
            SqliteStore(path).load()
        assert f"chmod 600 {path}" in caught.value.hint
    path.chmod(0o600)
    link = tmp_path / "link.db"
    link.symlink_to(path)
    with pytest.raises(StoreUnusable, match="no ordinary file"):
        SqliteStore(link).load()
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(StoreUnusable, match="no ordinary file"):
        SqliteStore(tmp_path / "folder.db").load()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_file_of_another_user_refuses_start(store: SqliteStore, path: Path) -> None:
    store.close()
    os.chown(path, 65534, 65534)
    with pytest.raises(StoreUnusable, match="another user"):
        SqliteStore(path).load()


def test_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match="No such file or directory"):
        SqliteStore(tmp_path / "missing" / "state.db").load()


def test_second_server_is_refused_and_the_first_undisturbed(store: SqliteStore, path: Path) -> None:
    second = SqliteStore(path)
    with pytest.raises(StoreUnusable, match="another server"):
        second.load()
    second.close()
    store.append([commit(1, UserPut(user=ANNA))])
    assert reloaded(store).seq == 1


def test_lock_goes_with_the_process(store: SqliteStore, path: Path) -> None:
    with (path.parent / "state.db.lock").open() as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        store.close()
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_backup_is_a_whole_database_and_overwrites_nothing(store: SqliteStore, tmp_path: Path) -> None:
    store.append([commit(1, UserPut(user=ANNA))])
    copy = tmp_path / "copy.db"
    store.backup(copy)
    store.append([commit(2, NodePut(node=PLAIN))])
    other = SqliteStore(copy)
    assert other.load().facts.users == {1: ANNA}
    other.close()
    with pytest.raises(WriteRefused, match="File exists"):
        store.backup(copy)
    with pytest.raises(WriteRefused, match="No such file"):
        store.backup(tmp_path / "missing" / "copy.db")


def test_failed_backup_leaves_no_file(store: SqliteStore, path: Path, tmp_path: Path) -> None:
    store.close()
    path.write_bytes(b"garbage" * 1000)
    with pytest.raises(WriteRefused):
        store.backup(tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()


@pytest.mark.parametrize(
    ("free_mib", "total_mib", "short"),
    [
        (99, 2_000, True),  # 5 % are 100 MiB
        (101, 2_000, False),
        (19, 100, True),  # never less than 20 MiB
        (21, 100, False),
        (1_023, 2_000_000, True),  # and never more than 1 GiB
        (1_025, 2_000_000, False),
    ],
)
def test_last_part_of_the_disk_is_kept(path: Path, free_mib: int, total_mib: int, short: bool) -> None:
    store = SqliteStore(path, space=lambda _: Space(free_mib << 20, total_mib << 20))
    shortage = store.shortage()
    assert (shortage is not None) == short
    assert shortage is None or f"{free_mib} MiB" in shortage
