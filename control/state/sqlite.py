"""The store on SQLite: one file in WAL mode with `synchronous=FULL`, so that COMMIT returns when it is on the disk.

The hot path is plain SQL; `schema.py` owns the tables and `rows.py` the form of a row. One connection writes, in the
hands of the writer thread; whoever else reads gets a connection of its own.

The file holds secrets (security.md D1): it is ours alone, mode 0600, no symlink, or we do not start. Beside it: SQLite's
own `-wal` and `-shm`, which take its mode; a `.lock` that keeps a second server away; and `before-<migration>.db`, the copy
made before an update changed the tables.

Which errors are definite (see `store.py`): SQLite's FULL, BUSY, LOCKED, IOERR, READONLY and CANTOPEN on the way to COMMIT,
once rolled back. Of COMMIT itself only FULL and BUSY are: for lack of space the frame that would have made the transaction
valid was never complete, and BUSY comes before anything is written. A failed fsync at COMMIT leaves both possible.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from control.state.files import (
    RESERVE_MAX,
    RESERVE_MIN,
    RESERVE_SHARE,
    Space,
    claim_file,
    copy_database,
    lock_out_others,
    space_at,
)
from control.state.schema import MIGRATIONS, migrate
from control.state.store import Commit, Loaded, StoreUnusable, WriteRefused
from control.state.tables import log_before, log_since, read_all, write_batch, write_volatile
from control.state.volatile import Volatile

BUSY_TIMEOUT_S = 5.0  # a backup program or a shell may hold the file for a moment


class SqliteStore:
    """`control.state.store.Store`. The other arguments than `path` are for tests."""

    def __init__(
        self,
        path: Path,
        *,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
        space: Callable[[Path], Space] = space_at,
        migrations: tuple[Callable[[Any], None], ...] = MIGRATIONS,
    ) -> None:
        self._path, self._busy_timeout_s = path, busy_timeout_s
        self._space, self._migrations = space, migrations
        self._db: sqlite3.Connection | None = None
        self._lock: int | None = None

    # the seam

    def load(self) -> Loaded:
        try:
            claim_file(self._path)
            self._lock = lock_out_others(self._path)
            self._db = self._connect()
            migrate(self._db, self._snapshot, self._migrations)
            (mode,) = self._db.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise StoreUnusable(
                    "its filesystem does not do what SQLite needs",
                    "use a disk of this machine, not a network's",
                )
            self._db.execute("PRAGMA synchronous = FULL")
            return read_all(self._db)
        except StoreUnusable as exc:
            raise StoreUnusable(f"{self._path}: {exc.reason}", exc.hint) from exc
        except OSError as exc:
            raise StoreUnusable(
                f"{self._path}: {exc.strerror}", "check that the folder exists, and who owns it"
            ) from exc
        except sqlite3.Error as exc:
            raise _unusable(self._path, exc) from exc
        except (ValueError, TypeError) as exc:
            raise StoreUnusable(f"{self._path}: a row cannot be read: {exc}", RESTORE) from exc

    def append(self, batch: Sequence[Commit]) -> int:
        with self._transaction() as db:
            write_batch(db, batch)
        return batch[-1].seq

    def flush_volatile(self, records: Mapping[int, Volatile], primaries: Mapping[str, int] | None) -> None:
        with self._transaction() as db:
            write_volatile(db, records, primaries)

    def changes_since(self, seq: int) -> list[Commit] | None:
        with self._reader() as db:
            return log_since(db, seq)

    def history(self, kind: str | None, before_seq: int | None, limit: int) -> list[Commit]:
        with self._reader() as db:
            return log_before(db, kind, before_seq, limit)

    def backup(self, path: Path) -> None:
        try:
            with self._reader() as db:
                copy_database(db, path)
        except sqlite3.Error as exc:
            raise WriteRefused(f"the copy failed: {exc}", "check the space on the disk of the copy") from exc
        except OSError as exc:
            raise WriteRefused(f"{path}: {exc.strerror}", "name a new file in a folder that you own") from exc

    def shortage(self) -> str | None:
        try:
            free, total = self._space(self._path.parent)
        except OSError:
            return None  # a write will say it better
        reserve = min(max(RESERVE_SHARE * total, RESERVE_MIN), RESERVE_MAX)
        if free >= reserve:
            return None
        return f"the disk is nearly full: {free >> 20} MiB left, the last {int(reserve) >> 20} MiB are kept"

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # connections and transactions

    def _connect(self, mode: str = "rw") -> sqlite3.Connection:
        db = sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=self._busy_timeout_s,
            isolation_level=None,  # BEGIN and COMMIT are ours
            check_same_thread=False,
        )
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA trusted_schema = OFF")
        return db

    def _reader(self) -> contextlib.closing[sqlite3.Connection]:
        return contextlib.closing(self._connect("ro"))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """One, on the writing connection. Raises WriteRefused when nothing of it happened; see the top of the file."""
        db = self._db
        assert db is not None
        definite = BEFORE_COMMIT
        try:
            db.execute("BEGIN IMMEDIATE")
            yield db
            definite = AT_COMMIT
            db.execute("COMMIT")
        except BaseException as exc:
            if db.in_transaction:  # after some errors SQLite has rolled back by itself
                db.execute("ROLLBACK")
            if isinstance(exc, sqlite3.Error) and _code(exc) in definite:
                raise WriteRefused(_reason(exc), _hint(exc, self._path)) from exc  # noqa: ASYNC104  (in a thread, and chained)
            raise

    def _snapshot(self, name: str) -> None:
        """The copy before a migration; it takes its name when it is whole."""
        assert self._db is not None
        part = self._path.with_name(f"{name}.part")
        part.unlink(missing_ok=True)
        copy_database(self._db, part)
        part.replace(self._path.with_name(name))


# errors

BEFORE_COMMIT = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
}
AT_COMMIT = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY}
RESTORE = "restore a backup, or one of the copies before-*.db beside it"


def _code(exc: sqlite3.Error) -> int:
    """The primary result code; 0 when Python raised it by itself."""
    return getattr(exc, "sqlite_errorcode", 0) & 0xFF


def _reason(exc: sqlite3.Error) -> str:
    return f"{exc} ({getattr(exc, 'sqlite_errorname', type(exc).__name__)})"


def _hint(exc: sqlite3.Error, path: Path) -> str:
    match _code(exc):
        case sqlite3.SQLITE_FULL:
            return f"free some space on the disk of {path}; the server goes on by itself"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return f"another program holds {path}: close it (`fuser {path}` names it)"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN:
            return f"{path} or its folder cannot be written: check its owner and `mount`"
        case _:
            return f"the disk of {path} may be failing: look at `dmesg`"


def _unusable(path: Path, exc: sqlite3.Error) -> StoreUnusable:
    match _code(exc):
        case sqlite3.SQLITE_NOTADB:
            return StoreUnusable(f"{path}: this is not a database", RESTORE)
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_ERROR:
            return StoreUnusable(f"{path}: the database is damaged: {exc}", RESTORE)
        case sqlite3.SQLITE_BUSY:
            return StoreUnusable(f"{path}: the database is locked by another program", _hint(exc, path))
        case _:
            return StoreUnusable(f"{path}: {_reason(exc)}", _hint(exc, path))
