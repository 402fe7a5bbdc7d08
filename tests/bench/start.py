"""How long a fresh appliance takes to serve, and how much memory it then has: `python -m tests.bench.start`.

Empty state, loopback, self-signed certificate. Best of several starts: the machine's other work only ever adds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

STARTS = 5
PATIENCE_S = 30
ENVIRONMENT = {
    "APPLIANCE_SERVER_URL": "http://127.0.0.1:18080",
    "APPLIANCE_LISTEN_HTTP": "127.0.0.1:18080",
    "APPLIANCE_LISTEN_HTTPS": "127.0.0.1:18443",
    "APPLIANCE_LISTEN_STUN": "127.0.0.1:13478",
    "APPLIANCE_TLS_MODE": "self-signed",
}


class Start(NamedTuple):
    seconds: float
    rss_mib: float
    pss_mib: float


def memory_mib(pid: int, row: str) -> float:
    """A row of the kernel's own account of a process."""
    rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in rows if line.startswith(f"{row}:")) / 1024


def start(state: Path) -> Start:
    """Start the appliance, wait for its "ready" line, look at it, end it."""
    began = time.monotonic()
    argv = [sys.executable, "-m", "appliance", "serve", "--state", str(state)]
    with subprocess.Popen(
        argv, stderr=subprocess.PIPE, text=True, env={**os.environ, **ENVIRONMENT}
    ) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if "ready" in line.split():
                    break
                if time.monotonic() - began > PATIENCE_S:
                    raise SystemExit(f"not ready within {PATIENCE_S} s")
            else:
                raise SystemExit("the appliance ended before it was ready")
            seconds = time.monotonic() - began
            return Start(seconds, memory_mib(process.pid, "Rss"), memory_mib(process.pid, "Pss"))
        finally:
            process.terminate()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="homeport-bench-") as folder:
        runs = [start(Path(folder) / f"state-{number}") for number in range(STARTS)]
    best = [min(column) for column in zip(*runs, strict=True)]
    print(f"{'':8}{'ready, s':>10}{'RSS, MiB':>10}{'PSS, MiB':>10}")
    for name, row in [*((f"start {number}", run) for number, run in enumerate(runs, 1)), ("best", best)]:
        print(f"{name:8}" + "".join(f"{value:10.2f}" for value in row))


if __name__ == "__main__":
    main()
