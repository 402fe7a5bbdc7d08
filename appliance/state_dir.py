"""The state folder: one folder is the whole backup, so it is nobody else's to read.

    STATE/                 0700, ours, no symlink
      lock                 held by the one process that serves
      config.toml          what set-up writes; the only file that may be readable by others
      appliance.sock       the command line's way in
      *.key, database, …   0600

`open_state` refuses to start on group or other bits, a wrong owner or a symlink anywhere below (security.md D1): a state that
somebody else could read or redirect has to be looked at by a person first.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance.errors import OperatorError

READABLE = {"config.toml"}  # holds no secret, and people write it by hand
SECRET_MAX = 64 * 1024  # keys and a certificate chain are far smaller
LOCK = "lock"


@contextmanager
def open_state(path: Path) -> Iterator[Path]:
    """Create or check the state folder and hold its lock; every file made from now on is 0600 (umask).

    Raises OperatorError when the folder is not safe, cannot be made, or is in use by another process.
    """
    os.umask(0o077)
    _create(path)
    check_modes(path)
    with lock_state(path):
        yield path


@contextmanager
def lock_state(path: Path) -> Iterator[None]:
    """Hold the folder's lock. The kernel frees it when the process ends, however it ends."""
    file = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            holder = os.read(file, 20).decode(errors="replace").strip()
            whose = f"process {holder}" if holder.isdigit() else "another process"
            raise OperatorError(
                f"the state folder {path} is in use by {whose}",
                "stop that one first, or give this one another --state",
            ) from exc
        os.ftruncate(file, 0)
        os.write(file, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(file)


def is_locked(path: Path) -> bool:
    """Whether a process serves from this folder now; False when we may not look."""
    try:
        file = os.open(path / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(file)
    return False


def check_modes(path: Path) -> None:
    """Refuse, with the command that puts it right, what others can read or have put in place of ours."""
    _check_entry(path)
    readable = {path / name for name in READABLE}
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            entry = Path(folder, name)
            if entry not in readable:
                _check_entry(entry)


def _check_entry(path: Path) -> None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return  # a temporary file of SQLite, gone since the folder was listed
    if stat.S_ISLNK(status.st_mode):
        raise OperatorError(
            f"{path} is a symlink", "put the real file or folder there, or point --state at it"
        )
    if status.st_uid != os.geteuid():
        raise OperatorError(
            f"{path} belongs to user {status.st_uid}, but this process runs as user {os.geteuid()}",
            f"run it as user {status.st_uid}, or after making sure of its contents: chown -R {os.geteuid()} {path}",
        )
    if status.st_mode & 0o077:
        raise OperatorError(
            f"{path} has mode {stat.S_IMODE(status.st_mode):04o}: others can reach it",
            f"if nobody else could have read or changed it: chmod go= {path}",
        )


def _create(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
    except FileExistsError as exc:
        raise OperatorError(f"{path} is not a folder", "name a folder with --state") from exc
    except OSError as exc:
        raise OperatorError(
            f"cannot create the state folder {path}: {exc.strerror}",
            "name a folder that this user may write with --state, or create it as root",
        ) from exc


def load_or_create_secret(path: Path, make: Callable[[], bytes]) -> bytes:
    """The secret in `path`; made by `make` and written when there is none yet."""
    try:
        return read_secret(path)
    except FileNotFoundError:
        secret = make()
        write_secret(path, secret)
        return secret


def read_secret(path: Path) -> bytes:
    """The contents of a 0600 file of ours; FileNotFoundError when absent, OperatorError when it is not safe."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise OperatorError(
            f"cannot read {path}: {exc.strerror}", "it must be a regular file of the server's user"
        ) from exc
    try:
        _check_entry(path)
        return os.read(file, SECRET_MAX)
    finally:
        os.close(file)


def write_secret(path: Path, data: bytes) -> None:
    """Replace a file atomically, 0600: after a crash there is the old one or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "wb") as file:  # which goes on where a full disk takes only a part
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        sync_folder(path.parent)
    except OSError as exc:
        temporary.unlink(missing_ok=True)
        raise OperatorError(
            f"cannot write {path}: {exc.strerror}", "make room, or check who owns the folder"
        ) from exc


def sync_folder(path: Path) -> None:
    """Make a rename in this folder survive a loss of power."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
