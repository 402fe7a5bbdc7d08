"""NoiseStream is a trio stream like any other, except that it never tears a record."""

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from control import limits
from control.noise import NoiseError, NoiseStream, accept
from control.noise.handshake import RESPONSE_BYTES
from control.noise.records import Sealer
from tests.support.noise_client import Initiator

A_TO_B, B_TO_A = bytes(range(32)), bytes(range(32, 64))

SERVER = X25519PrivateKey.generate()
SERVER_PUBLIC = SERVER.public_key().public_bytes_raw()


def pair(a: trio.abc.Stream, b: trio.abc.Stream) -> tuple[NoiseStream, NoiseStream]:
    return NoiseStream(a, rx_key=B_TO_A, tx_key=A_TO_B), NoiseStream(b, rx_key=A_TO_B, tx_key=B_TO_A)


def write_sizes(stream: trio.abc.Stream) -> list[int]:
    """A list that grows by one size with every write to *stream*."""
    sizes: list[int] = []
    real_send_all = stream.send_all

    async def send_all(data: bytes) -> None:
        sizes.append(len(data))
        await real_send_all(data)

    stream.send_all = send_all  # type: ignore[method-assign, assignment]
    return sizes


async def test_it_passes_trios_own_conformance_checks() -> None:
    async def make() -> tuple[NoiseStream, NoiseStream]:
        await trio.lowlevel.checkpoint()
        return pair(*trio.testing.memory_stream_pair())

    async def make_clogged() -> tuple[NoiseStream, NoiseStream]:
        await trio.lowlevel.checkpoint()
        return pair(*trio.testing.lockstep_stream_pair())

    await trio.testing.check_two_way_stream(make, make_clogged)


async def test_one_read_gives_everything_that_has_arrived() -> None:
    a, b = pair(*trio.testing.memory_stream_pair())
    await a.send_all(b"one ")
    await a.send_all(b"two ")
    await a.send_all(bytes(10_000))
    assert await b.receive_some() == b"one two " + bytes(10_000)


async def test_writes_are_cut_into_pieces_of_64_kib() -> None:
    a, b = trio.testing.memory_stream_pair()
    sizes = write_sizes(a)
    sender, _ = pair(a, b)
    await sender.send_all(bytes(200_000))
    assert sum(sizes) == 200_000 + 19 * 50  # 50 records
    assert max(sizes) == 64 * 1024


@pytest.mark.parametrize("started", [True, False], ids=["half written", "not begun"])
async def test_a_cancelled_write_closes_the_stream(started: bool) -> None:
    """N4: a nonce is never used twice, because after this nothing is sent any more."""
    a, b = trio.testing.lockstep_stream_pair()
    sender, _ = pair(a, b)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sender.send_all, bytes(1000))
            if started:
                await trio.testing.wait_all_tasks_blocked()
                assert len(await b.receive_some(10)) == 10
            scope.cancel()
    with pytest.raises(trio.ClosedResourceError):
        await sender.send_all(b"again")
    with pytest.raises(trio.ClosedResourceError):
        await sender.receive_some()


async def test_a_cancelled_read_loses_nothing() -> None:
    a, b = pair(*trio.testing.memory_stream_pair())
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(b.receive_some)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    await a.send_all(b"still here")
    assert await b.receive_some() == b"still here"


@pytest.mark.parametrize(
    ("wire", "complaint"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "type 72"),
        (Sealer(bytes(32)).seal(b"under another key"), "does not open"),
        (Sealer(A_TO_B).seal(b"cut off")[:-1], "ended inside a record"),
    ],
    ids=["garbage", "wrong key", "truncated"],
)
async def test_a_broken_stream_is_closed_without_a_word(wire: bytes, complaint: str) -> None:
    a, b = trio.testing.memory_stream_pair()
    _, receiver = pair(a, b)
    await a.send_all(wire)
    await a.send_eof()
    with pytest.raises(trio.BrokenResourceError, match=complaint):
        await receiver.receive_some()
    assert await a.receive_some() == b""


async def test_used_up_numbers_close_the_stream() -> None:
    a, b = trio.testing.memory_stream_pair()
    sender, _ = pair(a, b)
    sender._sealer = Sealer(A_TO_B, 2**64 - 1)
    with pytest.raises(trio.BrokenResourceError, match="used up"):
        await sender.send_all(b"x")
    assert await b.receive_some() == b""


async def test_a_flood_of_empty_records_is_cut_after_its_budget(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """N2."""
    a, b = trio.testing.memory_stream_pair()
    _, receiver = pair(a, b)
    sealer = Sealer(A_TO_B)
    for _ in range(5):  # as fast as is allowed
        await a.send_all(b"".join(sealer.seal(b"") for _ in range(limits.EMPTY_RECORDS.burst)))
        await a.send_all(sealer.seal(b"content"))
        assert await receiver.receive_some() == b"content"
        await trio.sleep(1)
    await a.send_all(b"".join(sealer.seal(b"") for _ in range(limits.EMPTY_RECORDS.burst + 1)))
    with pytest.raises(trio.BrokenResourceError, match="too many empty records"):
        await receiver.receive_some()
    assert await a.receive_some() == b""


Use = Callable[[NoiseStream], Awaitable[object]]


@pytest.mark.parametrize(
    ("use", "records"),
    [(lambda stream: stream.send_all(b"SETTINGS"), 3 + 8 + 16), (lambda stream: stream.receive_some(), 0)],
    ids=["write first", "read first"],
)
async def test_preface_response_and_first_bytes_leave_in_one_write(use: Use, records: int) -> None:
    _client_end, server_end = trio.testing.memory_stream_pair()
    writes = write_sizes(server_end)
    initiator = Initiator(SERVER_PUBLIC, X25519PrivateKey.generate())
    session = await accept(server_end, SERVER, initiator.initiation, b"HTTP/1.1 101\r\n\r\n")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(use, session.stream)
        await trio.testing.wait_all_tasks_blocked()
        assert writes == [16 + RESPONSE_BYTES + records]
        nursery.cancel_scope.cancel()


async def test_an_accepted_session_says_who_and_which_version() -> None:
    a, b = trio.testing.memory_stream_pair()
    machine = X25519PrivateKey.generate()
    initiator = Initiator(SERVER_PUBLIC, machine, version=131)
    session = await accept(b, SERVER, initiator.initiation, b"")
    assert session.machine_key == machine.public_key().public_bytes_raw()
    assert session.version == 131
    await session.stream.send_all(b"hello")
    rx_key, tx_key = initiator.finish(bytes(await a.receive_some(RESPONSE_BYTES)))
    client = NoiseStream(a, rx_key=rx_key, tx_key=tx_key)
    assert await client.receive_some() == b"hello"
    await client.send_all(b"and back")
    assert await session.stream.receive_some() == b"and back"


async def test_all_handshake_failures_look_alike() -> None:
    """N5: whatever is wrong, nothing is sent, not even the HTTP head; the door then closes."""
    good = Initiator(SERVER_PUBLIC, X25519PrivateKey.generate()).initiation
    other_server = X25519PrivateKey.generate().public_key().public_bytes_raw()
    failures = {
        "truncated": good[:50],
        "too long": good + b"x",
        "wrong type": good[:2] + b"\x02" + good[3:],
        "wrong version": b"\xff\xff" + good[2:],
        "low-order key": good[:5] + bytes(32) + good[37:],
        "bad tag": good[:-1] + bytes([good[-1] ^ 1]),
        "bad machine key": good[:40] + bytes([good[40] ^ 1]) + good[41:],
        "another server's": Initiator(other_server, X25519PrivateKey.generate()).initiation,
        "nothing": b"",
    }
    seen = set()
    for initiation in failures.values():
        a, b = trio.testing.memory_stream_pair()
        with pytest.raises(NoiseError):
            await accept(b, SERVER, initiation, b"HTTP/1.1 101\r\n\r\n")
        await b.aclose()
        seen.add(bytes(await a.receive_some()))
    assert seen == {b""}


async def test_closing_before_the_first_write_sends_nothing() -> None:
    a, b = trio.testing.memory_stream_pair()
    session = await accept(
        b, SERVER, Initiator(SERVER_PUBLIC, X25519PrivateKey.generate()).initiation, b"head"
    )
    await session.stream.aclose()
    assert await a.receive_some() == b""
