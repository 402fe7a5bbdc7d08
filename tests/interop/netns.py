"""Network namespaces of ours: made, counted, and removed without leaving anything behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

REGISTRY = Path(
    "/run/homeport-lab"
)  # one file for each lab: who owns it, so that a sweep spares a living one
NAMESPACE = re.compile(r"^(hplab[0-9a-f]{6})-")

T = TypeVar("T")


class LabError(Exception):
    """A command that builds or changes the lab failed, or something did not happen in time."""


def sh(*argv: str, stdin: str | None = None, timeout: float = 20) -> str:
    """Run one command to its end; its stdout. Raises LabError with its stderr."""
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode:
        raise LabError(f"{' '.join(argv)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def wait_for(condition: Callable[[], T | None], seconds: float, what: str, every: float = 0.1) -> T:
    """Poll until `condition` is true; its value. Raises LabError after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise LabError(f"{what}: not within {seconds:g} s")
        pause(every)


def pause(seconds: float) -> None:
    """Let real programs do what they do: their clock is not ours to move."""
    time.sleep(seconds)  # noqa: TID251


def kill(process: subprocess.Popen[bytes], gently: float = 0) -> None:
    """End a process that we started: SIGTERM and `gently` seconds first, if asked."""
    if process.poll() is None:
        if gently:
            process.terminate()
            try:
                process.wait(gently)
            except subprocess.TimeoutExpired:
                pass
            else:
                return
        process.kill()
    process.wait(5)


def register(prefix: str) -> None:
    """Note who owns a lab."""
    REGISTRY.mkdir(exist_ok=True)
    (REGISTRY / prefix).write_text(json.dumps({"pid": os.getpid()}))


def namespaces(prefix: str = "") -> Iterator[str]:
    """Namespaces of labs, or of one lab."""
    for line in sh("ip", "netns", "list").splitlines():
        match = NAMESPACE.match(line)
        if match and match[1].startswith(prefix):
            yield line.split()[0]


def end_namespace(namespace: str) -> None:
    """Kill every process inside a namespace of ours, then remove it."""
    if namespace not in set(namespaces()):
        return
    for _ in range(3):
        pids = sh("ip", "netns", "pids", namespace).split()
        if not pids:
            break
        for pid in pids:
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                continue
        pause(0.02)
    sh("ip", "netns", "del", namespace)


def remove_lab(prefix: str) -> None:
    for namespace in list(namespaces(prefix)):
        end_namespace(namespace)
    (REGISTRY / prefix).unlink(missing_ok=True)


def sweep() -> list[str]:
    """Remove what labs left whose owner died: namespaces, and folders without an owner; their names."""
    owners = {
        path.name: json.loads(path.read_text())["pid"]
        for path in (REGISTRY.glob("hplab*") if REGISTRY.is_dir() else ())
    }
    dead = [prefix for prefix, pid in owners.items() if not Path(f"/proc/{pid}").exists()]
    for prefix in dead:
        remove_lab(prefix)
        for folder in Path(tempfile.gettempdir()).glob(f"{prefix}-*"):
            shutil.rmtree(folder, ignore_errors=True)
    return dead
