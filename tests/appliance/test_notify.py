"""What systemd is told, on a real datagram socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from appliance.notify import Notifier


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        yield listening


def environ(manager: socket.socket) -> dict[str, str]:
    return {"NOTIFY_SOCKET": str(manager.getsockname())}


def test_each_state_is_one_datagram(manager: socket.socket) -> None:
    notifier = Notifier(environ(manager))
    notifier.ready()
    notifier.reloading()
    notifier.stopping()
    assert manager.recv(1000) == b"READY=1\nSTATUS=serving"
    reloading = manager.recv(1000).split(b"\n")
    assert reloading[0] == b"RELOADING=1"
    assert reloading[1].startswith(b"MONOTONIC_USEC=")
    assert manager.recv(1000) == b"STOPPING=1"


def test_abstract_name() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0homeport-test-notify")
        Notifier({"NOTIFY_SOCKET": "@homeport-test-notify"}).ready()
        assert listening.recv(1000).startswith(b"READY=1\n")


def test_without_a_manager_nothing_happens(tmp_path: Path) -> None:
    Notifier({}).ready()
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()


async def test_watchdog_is_fed_twice_as_often_as_asked(manager: socket.socket, mock_clock: MockClock) -> None:
    notifier = Notifier(environ(manager) | {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(notifier.keep_watchdog)
        await trio.testing.wait_all_tasks_blocked()
        assert manager.recv(1000) == b"WATCHDOG=1"
        mock_clock.jump(15)
        await trio.testing.wait_all_tasks_blocked()
        assert manager.recv(1000) == b"WATCHDOG=1"
        with pytest.raises(BlockingIOError):
            manager.recv(1000)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "extra", [{}, {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "x"}]
)
async def test_no_watchdog_for_us_ends_at_once(manager: socket.socket, extra: dict[str, str]) -> None:
    await Notifier(environ(manager) | extra).keep_watchdog()
