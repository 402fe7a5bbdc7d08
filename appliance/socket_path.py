"""Where the command line's socket is, how to reach a path that is too long for the kernel, and who is at the other end.

With `--state DIR` or APPLIANCE_STATE it is DIR/appliance.sock and nothing else; without, /run/appliance/appliance.sock. The
kernel's address holds 107 bytes: a longer path is named through an open descriptor of its folder.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

SYSTEM_STATE = Path("/var/lib/appliance")
SYSTEM_SOCKET = Path("/run/appliance/appliance.sock")
NAME = "appliance.sock"
PATH_MAX = 107  # sizeof(sun_path) - 1, Linux: include/uapi/linux/un.h
NOBODY = 65534  # the kernel's overflow uid: under `PrivateUsers=` everybody whom it cannot name
_UCRED = struct.Struct("=iII")  # pid, uid, gid


class Places(NamedTuple):
    """The state folder and the socket that belong together."""

    state: Path
    socket: Path


def find_places(state: str | None, environ: Mapping[str, str]) -> Places:
    """From `--state`, else APPLIANCE_STATE, else the system's places."""
    named = state or environ.get("APPLIANCE_STATE")
    if not named:
        return Places(SYSTEM_STATE, SYSTEM_SOCKET)
    folder = Path(named).absolute()
    return Places(folder, folder / NAME)


class Connected(Protocol):
    """A socket of the standard library or of trio."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...


def peer_uid(connection: Connected) -> int:
    """The user at the other end, as the kernel says."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return int(_UCRED.unpack(credentials)[1])


@contextmanager
def short_name(path: Path) -> Iterator[str]:
    """A name for `path` that fits into a socket address, good inside the block."""
    if len(os.fsencode(path)) <= PATH_MAX:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
