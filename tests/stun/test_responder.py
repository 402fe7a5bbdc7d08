"""The responder on real sockets of the loopback."""

import socket
from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from stun import StunService
from stun.limits import SOURCE_BURST
from tests.stun.requests import request


class Rig:
    def __init__(
        self, service: StunService, server: trio.socket.SocketType, client: trio.socket.SocketType
    ) -> None:
        self.service = service
        self.client = client
        self.address = server.getsockname()

    async def ask(self, datagram: bytes) -> bytes:
        await self.client.sendto(datagram, self.address)
        answer, source = await self.client.recvfrom(2000)
        assert source == self.address
        return answer


@pytest.fixture(params=[(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")], ids=["v4", "v6"])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    family, host = request.param
    server = trio.socket.socket(family, socket.SOCK_DGRAM)
    client = trio.socket.socket(family, socket.SOCK_DGRAM)
    with server, client:
        try:
            await server.bind((host, 0))
        except OSError as exc:
            pytest.skip(f"this machine has no {host}: {exc}")
        await client.bind((host, 0))
        service = StunService([server])
        async with trio.open_nursery() as nursery:
            await nursery.start(service.run)
            yield Rig(service, server, client)
            nursery.cancel_scope.cancel()


async def test_client_learns_its_address(rig: Rig) -> None:
    answer = await rig.ask(request(b"abcdefghijkl"))
    address, port = rig.client.getsockname()[:2]
    assert answer[8:20] == b"abcdefghijkl"
    assert int.from_bytes(answer[26:28], "big") ^ 0x2112 == port
    packed = socket.inet_pton(rig.client.family, address)
    mask = answer[4:20][: len(packed)]
    assert bytes(a ^ b for a, b in zip(answer[28:], mask, strict=True)) == packed
    counters = rig.service.counters
    assert counters.answered_v4 + counters.answered_v6 == 1


async def test_garbage_gets_no_answer_and_harms_nobody(rig: Rig) -> None:
    for garbage in (b"", b"x", b"\0" * 40, request() + b"x", b"x" * 1500, request()[:-1]):
        await rig.client.sendto(garbage, rig.address)
    answer = await rig.ask(request(b"the-only-one"))
    assert answer[8:20] == b"the-only-one"
    assert rig.service.counters.not_stun == 6


async def test_source_over_its_limit_is_not_answered(rig: Rig, mock_clock: MockClock) -> None:
    """More datagrams than one helping; the virtual clock stands, so no tokens come back."""
    for _ in range(int(SOURCE_BURST) // 20 + 2):
        for _ in range(20):
            await rig.client.sendto(request(), rig.address)
        await wait_all_tasks_blocked()
    counters = rig.service.counters
    assert counters.limited_source == 40
    assert counters.answered_v4 + counters.answered_v6 + counters.send_errors == SOURCE_BURST


async def test_error_reported_by_a_read_does_not_end_the_loop(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel reports an ICMP answer to an earlier datagram at the next read."""
    real_recvfrom = socket.socket.recvfrom
    failures = [ConnectionRefusedError(), OSError("host unreachable")]

    def recvfrom(self: socket.socket, size: int) -> tuple[bytes, object]:
        if size < 1000 and failures:  # the responder's, not the client's
            raise failures.pop()
        return real_recvfrom(self, size)

    monkeypatch.setattr(socket.socket, "recvfrom", recvfrom)
    assert (await rig.ask(request(b"abcdefghijkl")))[8:20] == b"abcdefghijkl"
    assert rig.service.counters.receive_errors == 2


async def test_failing_send_does_not_end_the_loop(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Port 0, no route, a full buffer: every sendto may fail."""
    real_sendto = socket.socket.sendto
    failures = [OSError("no route"), BlockingIOError(), PermissionError()]

    def sendto(self: socket.socket, data: bytes, *rest: object) -> int:
        if data.startswith(b"\1\1") and failures:
            raise failures.pop()
        return real_sendto(self, data, *rest)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(socket.socket, "sendto", sendto)
    for _ in range(3):
        await rig.client.sendto(request(b"not-answered"), rig.address)
    answer = await rig.ask(request(b"the-fourth-1"))
    assert answer[8:20] == b"the-fourth-1"
    assert rig.service.counters.send_errors == 3
