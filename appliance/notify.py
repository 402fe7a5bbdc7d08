"""Telling systemd how we are: one datagram of KEY=VALUE lines to the socket that NOTIFY_SOCKET names.

    READY=1                              it serves; units that wait for it go on
    STATUS=…                             one line for `systemctl status`
    RELOADING=1, MONOTONIC_USEC=…        the configuration is read again; READY=1 ends it
    STOPPING=1                           the end has begun
    WATCHDOG=1                           alive; due every WATCHDOG_USEC, so sent twice as often

Without NOTIFY_SOCKET every call does nothing, so nobody has to ask whether systemd is there.
Source: sd_notify(3), systemd.service(5) WatchdogSec.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping

import trio

log = logging.getLogger("appliance.notify")


class Notifier:
    """The process's line to its service manager."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the zero byte of an abstract name.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_s = _watchdog_s(environ)

    def ready(self) -> None:
        self._send("READY=1", "STATUS=serving")

    def reloading(self) -> None:
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    async def keep_watchdog(self) -> None:
        """Say that the loop turns, twice as often as systemd asks; returns at once when it does not ask."""
        while self.watchdog_s:
            self._send("WATCHDOG=1")
            await trio.sleep(self.watchdog_s / 2)

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sending:
                sending.sendto("\n".join(lines).encode(), self._address)
        except OSError as exc:
            hint = "see what NOTIFY_SOCKET names, and NotifyAccess= of the unit"
            log.warning("cannot reach the service manager", extra={"reason": exc.strerror, "hint": hint})


def _watchdog_s(environ: Mapping[str, str]) -> float:
    """The watchdog's period, 0 when it is off or meant for another process."""
    period, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not period.isascii() or not period.isdigit() or (pid and pid != str(os.getpid())):
        return 0.0
    return int(period) / 1_000_000
