"""The command line's side: whose socket it trusts, and what it makes of answers."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.client import Client, ServerNotRunning, resource
from appliance.errors import OperatorError


def serve_once(path: Path, answer: bytes) -> None:
    """One connection, in a thread: what it says does not depend on what it is asked."""
    path.parent.chmod(0o700)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        connection, _ = listener.accept()
        with listener, connection, contextlib.suppress(OSError):  # who is not trusted may be hung up on
            connection.recv(65536)
            connection.sendall(answer)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass

    threading.Thread(target=serve, daemon=True).start()


def answer(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


ANSWERS = [
    (answer(409, b'{"error": "no", "hint": "do this"}'), "no", ("do this",)),
    (answer(409, b'{"error": "no", "hint": ""}'), "no", ()),
    (answer(500, b"[]"), "the server answered 500", ()),
    (answer(200, b"<html>"), "the server's answer is not JSON", ("are server and command of the same version?",)),
    (b"nonsense\r\n\r\n", "the connection broke: nonsense", ("look at the server's log, then try again",)),
    (b"", "the connection broke: Remote end closed connection without response", ("look at the server's log, then try again",)),
    (b"HTTP/1.1 200 X\r\nContent-Length: 10\r\n\r\n[]", "the connection broke: IncompleteRead(2 bytes read, 8 more expected)", ("look at the server's log, then try again",)),
]  # fmt: skip


@pytest.mark.parametrize(("sent", "message", "hints"), ANSWERS)
def test_refusals_and_broken_answers_become_a_message_with_hints(
    sent: bytes, message: str, hints: tuple[str, ...], tmp_path: Path
) -> None:
    serve_once(tmp_path / "s", sent)
    with pytest.raises(OperatorError) as caught:
        Client(tmp_path / "s").call("GET", "/x")
    assert (caught.value.message, caught.value.hints) == (message, hints)


def test_answer_is_its_document(tmp_path: Path) -> None:
    serve_once(tmp_path / "s", answer(200, b'{"a": [1]}'))
    assert Client(tmp_path / "s").call("POST", "/x", {"b": 2}, c="3") == {"a": [1]}


def nothing(path: Path) -> None:
    pass


def leftover(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))


@pytest.mark.parametrize("make", [nothing, leftover])
def test_nobody_there_is_server_not_running(make: Callable[[Path], None], tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    make(tmp_path / "s")
    with pytest.raises(ServerNotRunning):
        Client(tmp_path / "s").call("GET", "/x")


def a_file(path: Path) -> None:
    path.touch()


def a_link(path: Path) -> None:
    path.symlink_to("/run")


def somebody_elses(path: Path) -> None:
    leftover(path)
    os.chown(path, 12345, 12345)


def the_overflow_users(path: Path) -> None:
    leftover(path)
    os.chown(path, 65534, 65534)
    os.chown(path.parent, 65534, 65534)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.mark.parametrize(
    "make",
    [
        a_file,
        a_link,
        pytest.param(somebody_elses, marks=needs_root),
        pytest.param(the_overflow_users, marks=needs_root),
    ],
)
def test_a_socket_of_somebody_else_is_told_nothing(make: Callable[[Path], None], tmp_path: Path) -> None:
    """L1: whoever put it there would learn what we ask and choose what we see."""
    tmp_path.chmod(0o700)
    make(tmp_path / "s")
    with pytest.raises(OperatorError, match="is not the server's socket"):
        Client(tmp_path / "s").call("GET", "/x")


@needs_root
def test_root_trusts_the_owner_of_a_closed_folder_only_if_that_one_listens(tmp_path: Path) -> None:
    """The service has a user of its own; root's command reaches it, but not through a socket that root was tricked to make."""
    serve_once(tmp_path / "s", answer(200, b"[]"))
    os.chown(tmp_path / "s", 12345, 12345)
    os.chown(tmp_path, 12345, 12345)
    with pytest.raises(OperatorError, match="is not the server's socket"):
        Client(tmp_path / "s").call("GET", "/x")  # listening is root, not 12345


def test_parts_of_a_path_may_hold_anything() -> None:
    assert resource("nodes", "a/b?c#d ü", "routes") == "/api/v1/nodes/a%2Fb%3Fc%23d%20%C3%BC/routes"
