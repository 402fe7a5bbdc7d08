"""Who may use the command line's socket, and what it does with everything that is no request of ours."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, memory_stream_pair

from appliance import socket_api
from appliance.errors import OperatorError
from appliance.socket_api import Answer, bind_socket, may_connect, serve_socket


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


async def echo(method: str, path: str, query: dict[str, str], body: bytes, uid: int) -> Answer:
    if path == "/bug":
        raise RuntimeError("oops")
    return 200, {"method": method, "path": path, "query": query, "body": body.decode(), "uid": uid}


@pytest.fixture
async def path(folder: Path) -> AsyncIterator[Path]:
    path = folder / "appliance.sock"
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_socket, bind_socket(path), echo)
        yield path
        nursery.cancel_scope.cancel()


async def talk(path: Path, data: bytes) -> tuple[int, Any, bytes]:
    """Send it, read until the end: status, document, everything."""
    async with await trio.open_unix_socket(str(path)) as stream:
        await stream.send_all(data)
        await stream.send_eof()
        answer = b"".join([bytes(chunk) async for chunk in stream])
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body), answer


async def test_request_reaches_the_handler_whole(path: Path) -> None:
    data = b'POST /api/v1/users/a%2Fb?with_nodes=1&x= HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n{""}'
    status, document, _ = await talk(path, data)
    assert status == 200
    assert document == {
        "method": "POST",
        "path": "/api/v1/users/a%2Fb",
        "query": {"with_nodes": "1", "x": ""},
        "body": '{""}',
        "uid": os.geteuid(),
    }


async def test_several_requests_on_one_connection(path: Path) -> None:
    async with await trio.open_unix_socket(str(path)) as stream:
        for number in range(3):
            await stream.send_all(f"GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            answer = bytes(await stream.receive_some())
            assert f'"path": "/{number}"'.encode() in answer


REFUSED = [
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    (
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n",
        505,
    ),
    (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 505),
    (b"GET / HTTP/1.1\r\nHost: a\r\nOrigin: http://evil.example\r\n\r\n", 403),
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"nonsense\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 20_000, 431),
    (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nearly", 400),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n" + b"x" * 1048577, 413),
    (b"GET /bug HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 500),
]


@pytest.mark.parametrize(("data", "status"), REFUSED, ids=lambda value: str(value)[:40])
async def test_what_is_no_request_of_ours_is_refused_and_closed(data: bytes, status: int, path: Path) -> None:
    found, document, answer = await talk(path, data)
    assert found == status
    assert set(document) == {"error", "hint"}
    assert b"onnection: close" in answer


async def test_h2_prior_knowledge_and_h2c_are_refused(path: Path) -> None:
    """F3: nothing here is bounded for HTTP/2."""
    for data, status in REFUSED[:2]:
        assert (await talk(path, data))[0] == status == 505


def test_overflow_uid_is_nobody_even_if_we_run_as_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 999)
    assert [uid for uid in (0, 1, 999, 1000, 65534) if may_connect(uid)] == [0, 999]
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    assert not may_connect(65534)


@pytest.mark.parametrize("uid", [12345, 65534])
async def test_socket_refuses_other_uid_and_overflow_uid(
    uid: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L1: mode 0600 keeps others away; whoever gets past it is still told apart by the kernel's word."""
    assert stat.S_IMODE((await trio.Path(path).stat()).st_mode) == 0o600
    monkeypatch.setattr(socket_api, "peer_uid", lambda connection: uid)
    status, document, _ = await talk(path, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert status == 403
    assert document["error"] == f"user {uid} may not use this socket"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
async def test_real_other_user_is_refused(path: Path) -> None:
    for place, mode in ((path, 0o666), (path.parent, 0o755)):  # as a careless chmod would leave them
        await trio.Path(place).chmod(mode)
    code = (
        "import os, socket; s = socket.socket(socket.AF_UNIX); os.setuid(12345); s.connect('appliance.sock'); "
        "s.sendall(b'GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n'); print(s.recv(1000).split()[1].decode())"
    )
    done = await trio.run_process([sys.executable, "-c", code], capture_stdout=True, cwd=path.parent)
    assert done.stdout == b"403\n"


async def test_more_than_sixteen_commands_at_once_wait_no_longer_than_an_answer(path: Path) -> None:
    async with trio.open_nursery():
        held = [await trio.open_unix_socket(str(path)) for _ in range(socket_api.CONNECTIONS)]
        for stream in held:
            await stream.send_all(b"GET /")
        await trio.testing.wait_all_tasks_blocked()
        status, document, _ = await talk(path, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (status, document["hint"]) == (503, "try again")
        await held.pop().aclose()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert (await talk(path, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"))[0] == 200
        for stream in held:
            await stream.aclose()


async def serve_one(stream: trio.abc.HalfCloseableStream) -> None:
    await socket_api._Connection(stream, echo, 0).serve()
    await stream.aclose()


@pytest.mark.parametrize(
    ("sent", "seconds", "answer"),
    [
        (b"GET / HT", socket_api.HEAD_S, b""),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nearly", socket_api.BODY_S, b"HTTP/1.1 408 "),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", socket_api.IDLE_S, b"HTTP/1.1 200 "),
    ],
    ids=["head", "body", "idle"],
)
async def test_every_wait_ends(sent: bytes, seconds: float, answer: bytes, autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_one, ours)
        await theirs.send_all(sent)
        received = b"".join([bytes(chunk) async for chunk in theirs])
    assert trio.current_time() - began == pytest.approx(seconds, abs=socket_api.LINGER_S)
    assert received.startswith(answer)


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_any_bytes_end_in_an_answer_or_silence(chunks: list[bytes]) -> None:
    async def feed() -> None:
        ours, theirs = memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_one, ours)
            with contextlib.suppress(trio.BrokenResourceError):  # it may have hung up on us
                for chunk in filter(None, chunks):
                    await theirs.send_all(chunk)
            await theirs.send_eof()
            async for _ in theirs:
                pass

    trio.run(feed)


class TestBinding:
    def test_leftover_is_replaced_but_nothing_else(self, folder: Path) -> None:
        path = folder / "appliance.sock"
        bind_socket(path).close()
        bind_socket(path).close()
        path.unlink()
        path.write_text("a file")
        with pytest.raises(OperatorError, match="cannot listen"):
            bind_socket(path)
        assert path.read_text() == "a file"

    def test_folder_that_others_may_write_is_refused(self, folder: Path) -> None:
        folder.chmod(0o755)
        with pytest.raises(OperatorError, match="not safe for the socket"):
            bind_socket(folder / "appliance.sock")

    def test_run_folder_is_made_0750(self, folder: Path) -> None:
        bind_socket(folder / "run" / "appliance.sock").close()
        assert stat.S_IMODE((folder / "run").stat().st_mode) & 0o027 == 0

    def test_umask_is_as_before(self, folder: Path) -> None:
        before = os.umask(0o022)
        bind_socket(folder / "appliance.sock").close()
        assert os.umask(before) == 0o022
