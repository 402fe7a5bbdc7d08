"""The database as a file: ours alone, one server at a time, whole copies, and what is left of the disk.

Secrets are in it, so a file that others can read, that belongs to somebody else or that is a symlink is refused
(security.md D1), and the last part of the disk is kept for taking rights away (D6).
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
from pathlib import Path
from typing import NamedTuple

from control.state.store import StoreUnusable

# The disk's last part is for taking rights away (security.md D6): 5 %, and on large disks no more than we could ever use.
RESERVE_SHARE = 0.05
RESERVE_MIN = 20 * 1024 * 1024
RESERVE_MAX = 1024 * 1024 * 1024


class Space(NamedTuple):
    """Of a filesystem, in bytes; `free` for us, not for root."""

    free: int
    total: int


def space_at(path: Path) -> Space:
    told = os.statvfs(path)
    return Space(told.f_bavail * told.f_frsize, told.f_blocks * told.f_frsize)


def claim_file(path: Path) -> None:
    """Make the file, or see that it is ours alone. Raises StoreUnusable, OSError."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
        sync_folder(path.parent)
        return
    if not stat.S_ISREG(found.st_mode):
        raise StoreUnusable("this is no ordinary file", "name the file itself, not a link to it")
    if found.st_uid != os.geteuid():
        raise StoreUnusable("the file belongs to another user", f"run `chown {os.geteuid()} {path}`")
    if found.st_mode & 0o077:
        raise StoreUnusable("other users can read the file", f"run `chmod 600 {path}`")


def lock_out_others(path: Path) -> int:
    """Keep a second server away while the descriptor is open. Raises StoreUnusable, OSError."""
    # A file of its own: closing any descriptor of the database would drop the locks that SQLite holds on it.
    lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        os.close(lock)
        raise StoreUnusable(
            "another server is running on this database",
            "stop it first, or give this one a folder of its own",
        ) from exc
    return lock


def copy_database(db: sqlite3.Connection, path: Path) -> None:
    """A compact copy in a new file of mode 0600, on the disk on return. Raises sqlite3.Error, OSError."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    try:
        db.execute("VACUUM INTO ?", (str(path),))  # an empty file will do for it
        descriptor = os.open(path, os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_folder(path.parent)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
