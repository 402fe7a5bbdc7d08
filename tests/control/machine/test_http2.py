"""HTTP/2 sessions: what clients may do, what it costs, and how everything ends."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from control import limits
from control.machine.http2 import Connection, Handler
from control.machine.request import Request
from control.machine.writer import Reply
from control.noise import NoiseStream, accept
from tests.support.noise_client import CLIENT_SETTINGS, FakeControlClient, Initiator, read_upgrade


@dataclass
class Served:
    """A connection under test, with its client."""

    connection: Connection
    client: FakeControlClient
    reason: str | None = None  # why it ended

    async def ended(self) -> str:
        """Let the client read until the server closes; why it did."""
        await self.client.wait_closed()
        await wait_all_tasks_blocked()
        assert self.reason is not None
        return self.reason


@asynccontextmanager
async def serving(
    handler: Handler,
    *,
    registered: bool = True,
    streams: tuple[trio.abc.Stream, trio.abc.Stream] | None = None,
    settings: dict[SettingCodes, int] | None = None,
) -> AsyncIterator[Served]:
    client_end, server_end = streams or trio.testing.memory_stream_pair()
    connection = Connection(server_end, handler, registered=registered)
    served = Served(
        connection, FakeControlClient(client_end, settings={**CLIENT_SETTINGS, **(settings or {})})
    )

    async def serve(task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        served.reason = await connection.serve()

    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        await served.client.begin()
        yield served
        await served.client.aclose()


def clogged_streams() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    """(client, server): a write of the server waits until the client has read all of it."""
    to_client, from_server = trio.testing.lockstep_stream_one_way_pair()
    to_server, from_client = trio.testing.memory_stream_one_way_pair()
    return trio.StapledStream(to_server, from_server), trio.StapledStream(to_client, from_client)


async def echo(request: Request, reply: Reply) -> None:
    await reply.respond(200, request.body)


async def never(request: Request, reply: Reply) -> None:
    await trio.sleep_forever()


# --- requests and responses ---------------------------------------------------------------------------------------


async def test_a_request_arrives_whole_and_its_response_has_a_length() -> None:
    requests = []

    async def handler(request: Request, reply: Reply) -> None:
        requests.append(request)
        await reply.respond(201, b"made", [("x-more", "yes")])

    async with serving(handler) as served:
        response = await served.client.request("/machine/register?x=1&y", b"{}" * 30_000)
        await response.wait_ended()
    assert requests == [
        Request(
            method="POST",
            path="/machine/register",
            query="x=1&y",
            headers={"user-agent": "Go-http-client/2.0", "accept-encoding": "gzip"},
            body=b"{}" * 30_000,
        )
    ]
    assert response.status == 201
    assert response.headers == {"content-length": "4", "x-more": "yes"}
    assert response.data == b"made"


async def test_a_get_may_have_a_body() -> None:
    """Tailnet-lock calls do."""
    async with serving(echo) as served:
        response = await served.client.request("/machine/tka/init/begin", b"{}", method="GET")
        await response.wait_ended()
    assert response.data == b"{}"


async def test_an_empty_response_ends_with_its_head(caplog: pytest.LogCaptureFixture) -> None:
    """And h2 may forget the stream at once, which is nothing to complain about."""

    async def handler(request: Request, reply: Reply) -> None:
        await reply.respond(204)

    async with serving(handler) as served:
        waiting = [await served.client.request("/machine/update-health") for _ in range(60)]
        for (
            response
        ) in waiting:  # while one is written, the next request makes h2 forget those that have ended
            await response.wait_ended()
            assert response.status == 204
            assert not response.data
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_long_poll_delivers_each_piece_at_once_and_ends_with_its_handler() -> None:
    more = trio.Event()

    async def handler(request: Request, reply: Reply) -> None:
        await reply.start(200)
        await reply.send(b"first")
        await more.wait()
        await reply.send(b"second")

    async with serving(handler) as served:
        async with served.client.stream("/machine/map") as poll:
            assert poll.status == 200
            assert "content-length" not in poll.headers
            assert await poll.receive_some() == b"first"
            more.set()
            assert await poll.receive_some() == b"second"
            assert await poll.receive_some() == b""
            assert poll.reset_with is None


async def test_requests_run_side_by_side() -> None:
    async def handler(request: Request, reply: Reply) -> None:
        if request.path == "/machine/map":
            await reply.start(200)
            await trio.sleep_forever()
        await reply.respond(200, request.body)

    async with serving(handler) as served:
        async with served.client.stream("/machine/map"):
            for _ in range(20):
                assert await served.client.post("/machine/x", b"echo") == (200, b"echo")


async def test_the_first_frame_is_settings_and_says_our_limits() -> None:
    client_end, server_end = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Connection(server_end, echo).serve)
        data = bytes(await client_end.receive_some())
        nursery.cancel_scope.cancel()
    frame, length = Frame.parse_frame_header(memoryview(data[:9]))
    assert isinstance(frame, SettingsFrame)
    frame.parse_body(memoryview(data[9 : 9 + length]))
    assert frame.settings[SettingsFrame.MAX_CONCURRENT_STREAMS] == limits.MAX_STREAMS_STRANGER
    assert frame.settings[SettingsFrame.MAX_HEADER_LIST_SIZE] == 16 * 1024
    assert frame.settings[SettingsFrame.MAX_FRAME_SIZE] == 16 * 1024
    assert frame.settings[SettingsFrame.INITIAL_WINDOW_SIZE] == 65_535


async def test_everything_works_through_noise_as_well() -> None:
    server_key, machine_key = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    client_end, server_end = trio.testing.memory_stream_pair()
    reasons = []

    async def serve() -> None:
        initiation, preface = await read_upgrade(server_end)
        session = await accept(server_end, server_key, initiation, preface)
        assert session.machine_key == machine_key.public_key().public_bytes_raw()
        reasons.append(await Connection(session.stream, echo, registered=True).serve())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        client = await FakeControlClient.connect(
            client_end, server_key.public_key().public_bytes_raw(), machine_key
        )
        body = bytes(range(256)) * 4000  # past every window, both ways
        assert await client.post("/machine/x", body) == (200, body)
        await client.aclose()
    assert reasons == ["closed by the client"]


# --- limits -------------------------------------------------------------------------------------------------------


async def test_stranger_session_is_small_and_short(autojump_clock: MockClock) -> None:
    """N1."""
    started = 0

    async def handler(request: Request, reply: Reply) -> None:
        nonlocal started
        started += 1
        await trio.sleep_forever()

    begun = trio.current_time()
    async with serving(handler, registered=False) as served:
        for _ in range(limits.MAX_STREAMS_STRANGER):
            await served.client.request("/machine/register")
        assert await served.ended() == "a stranger without a login"
        assert trio.current_time() - begun == pytest.approx(30)
        assert served.client.terminated is not None
        assert started == 8

    async with serving(echo, registered=False) as served:
        assert (await served.client.post("/machine/register", bytes(64 * 1024)))[0] == 200
        assert (await served.client.post("/machine/register", bytes(64 * 1024 + 1)))[0] == 413
        assert (await served.client.post("/machine/register", b"still here"))[0] == 200

    async with serving(never, registered=False) as served:
        served.client.h2.remote_settings = served.client.h2.local_settings  # this client knows no limit
        for _ in range(limits.MAX_STREAMS_STRANGER + 1):
            await served.client.request("/machine/register")
        assert "Max inbound streams is 8" in await served.ended()


async def test_a_stranger_may_stay_while_a_login_is_pending(autojump_clock: MockClock) -> None:
    async def handler(request: Request, reply: Reply) -> None:
        with served.connection.hold():
            await trio.sleep(300)
        await reply.respond(200, b"not yet")

    begun = trio.current_time()
    async with serving(handler, registered=False) as served:
        assert await served.client.post("/machine/register") == (200, b"not yet")
        assert await served.ended() == "a stranger without a login"
        assert trio.current_time() - begun == pytest.approx(330)


async def test_a_registered_machine_has_full_limits_at_once_and_no_deadline(
    autojump_clock: MockClock,
) -> None:
    async def handler(request: Request, reply: Reply) -> None:
        served.connection.registered()
        await reply.respond(200, b"%d" % len(request.body))

    async with serving(handler, registered=False) as served:
        await served.client.post("/machine/register")
        assert served.client.h2.remote_settings.max_concurrent_streams == limits.MAX_STREAMS
        assert await served.client.post("/machine/map", bytes(1024 * 1024)) == (200, b"1048576")
        with trio.move_on_after(3600):
            await served.client.wait_closed()
        assert served.reason is None


async def test_a_body_over_the_limit_is_answered_before_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    handled = []

    async def handler(request: Request, reply: Reply) -> None:
        handled.append(request.body)
        await reply.respond(200)

    async with serving(handler) as served:
        too_big = await served.client.request("/machine/map", bytes(1024 * 1024 + 1), end=False)
        await too_big.wait_ended()
        assert too_big.status == 413
        assert b"at most 1048576 bytes" in too_big.data
        assert "too large" in caplog.text
        assert await served.client.post("/machine/map", b"good") == (200, b"")
    assert handled == [b"good"]


async def test_all_bodies_of_a_connection_share_one_limit() -> None:
    release = trio.Event()

    async def handler(request: Request, reply: Reply) -> None:
        await release.wait()
        await reply.respond(200)

    async with serving(handler) as served:
        held = [await served.client.request("/machine/map", bytes(700_000)) for _ in range(2)]
        held.append(await served.client.request("/machine/map", bytes(600_000), end=False))
        refused = await served.client.request("/machine/map", bytes(200_000))
        await refused.wait_ended()
        assert refused.status == 413
        release.set()
        await held[0].wait_ended()
        await held[1].wait_ended()
        assert (await served.client.post("/machine/map", bytes(1_000_000)))[0] == 200


async def test_a_body_that_never_ends_is_dropped(autojump_clock: MockClock) -> None:
    async with serving(echo) as served:
        upload = await served.client.request("/machine/map", b"{", end=False)
        begun = trio.current_time()
        await upload.wait_ended()
        assert upload.reset_with == ErrorCodes.CANCEL
        assert trio.current_time() - begun == pytest.approx(60)
        assert await served.client.post("/machine/map", b"good") == (200, b"good")


async def test_ended_requests_leave_nothing_behind() -> None:
    async with serving(echo) as served:
        for _ in range(limits.MAX_CLOSED_STREAMS + 100):
            await served.client.post("/machine/x", b"x")
        h2 = served.connection._h2
        assert not h2.streams
        assert len(h2._closed_streams) == limits.MAX_CLOSED_STREAMS
        assert not served.connection._replies
        assert served.connection._bodies_bytes == 0


async def test_a_header_bomb_ends_the_connection() -> None:
    """A small block that unpacks to much: N2."""
    async with serving(echo) as served:
        # One field of 4000 bytes goes into the table; 100 references of a byte each follow.
        block = b"\x82\x87\x84\x41\x01a" + b"\x40\x01a\x7f\xa1\x1e" + b"b" * 4000 + b"\xbe" * 100
        await served.client.transport.send_all(
            HeadersFrame(1, block, flags=["END_HEADERS", "END_STREAM"]).serialize()
        )
        assert "HTTP/2 error" in await served.ended()


# --- abuse --------------------------------------------------------------------------------------------------------


async def test_rapid_reset_is_cut_after_budget(autojump_clock: MockClock) -> None:
    """N2: a reset request is cancelled, but still counts."""
    running = started = 0

    async def handler(request: Request, reply: Reply) -> None:
        nonlocal running, started
        running += 1
        started += 1
        try:
            await trio.sleep_forever()
        finally:
            running -= 1

    async with serving(handler) as served:
        for _ in range(limits.RST_STREAM_FRAMES.burst):
            await (await served.client.request("/machine/map")).reset()
        await wait_all_tasks_blocked()
        assert started <= limits.RST_STREAM_FRAMES.burst
        assert running == 0
        assert served.reason is None  # what a client may do, and again a little later
        await trio.sleep(1)
        for _ in range(int(limits.RST_STREAM_FRAMES.per_second)):
            await (await served.client.request("/machine/map")).reset()
        await wait_all_tasks_blocked()
        assert served.reason is None
        await (await served.client.request("/machine/map")).reset()
        assert await served.ended() == "too many RST_STREAM frames"
        assert served.client.terminated is not None
        assert served.client.terminated.error_code == ErrorCodes.ENHANCE_YOUR_CALM
        assert running == 0


async def test_resets_that_the_client_makes_us_send_count_as_its_own(autojump_clock: MockClock) -> None:
    """CVE-2025-8671: an overflowing WINDOW_UPDATE makes the server reset the stream, with its handler running."""
    async with serving(never) as served:
        for _ in range(limits.RST_STREAM_FRAMES.burst + 1):
            request = await served.client.request("/machine/map")
            await served.client.transport.send_all(
                WindowUpdateFrame(request.stream_id, window_increment=2**31 - 1).serialize()
            )
            await wait_all_tasks_blocked()
        assert await served.ended() == "too many RST_STREAM frames"


FLOODS: list[tuple[str, Frame, limits.Rate]] = [
    ("SETTINGS", SettingsFrame(0), limits.SETTINGS_FRAMES),
    ("PING", PingFrame(0, bytes(8)), limits.PING_FRAMES),
    ("empty DATA", DataFrame(1), limits.EMPTY_DATA_FRAMES),
    ("WINDOW_UPDATE", WindowUpdateFrame(1, window_increment=1), limits.WINDOW_UPDATE_FRAMES),
    ("CONTINUATION", ContinuationFrame(3, b""), limits.CONTINUATION_FRAMES),
    ("other", PriorityFrame(1, stream_weight=1), limits.OTHER_FRAMES),
]


@pytest.mark.parametrize(("name", "frame", "rate"), FLOODS, ids=[name for name, _, _ in FLOODS])
async def test_a_flood_is_cut_after_its_budget(
    name: str, frame: Frame, rate: limits.Rate, autojump_clock: MockClock
) -> None:
    """N2, one kind of frame each."""
    async with serving(never) as served:
        await served.client.request("/machine/map", b"{", end=False)
        if isinstance(frame, ContinuationFrame):
            await served.client.transport.send_all(HeadersFrame(3, b"").serialize())
        for _ in range(rate.burst - 2):  # two SETTINGS frames are the client's own
            await served.client.transport.send_all(frame.serialize())
        await wait_all_tasks_blocked()
        assert served.reason is None
        for _ in range(3):
            await served.client.transport.send_all(frame.serialize())
        assert await served.ended() == f"too many {name} frames"
        assert served.client.terminated is not None
        assert served.client.terminated.error_code == ErrorCodes.ENHANCE_YOUR_CALM
        assert served.client.terminated.additional_data == f"too many {name} frames".encode()


async def test_a_flood_in_one_segment_is_answered_by_nothing_but_a_goaway() -> None:
    async with serving(never) as served:
        await wait_all_tasks_blocked()
        await served.client.transport.send_all(5000 * PingFrame(0, bytes(8)).serialize())
        await served.ended()
        assert served.client.pings == 0


async def test_what_is_not_http2_is_refused() -> None:
    client_end, server_end = trio.testing.memory_stream_pair()
    await client_end.send_all(b"GET / HTTP/1.1\r\n\r\n")
    assert "Invalid HTTP/2 preamble" in await Connection(server_end, echo).serve()


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.builds(
                lambda kind, flags, stream, body: (
                    len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body
                ),
                st.integers(0, 12),
                st.integers(0, 255),
                st.sampled_from([0, 1, 2, 3, 5, 2**31 - 1]),
                st.one_of(
                    st.binary(max_size=20),
                    st.just(b"\x82\x87\x84\x41\x01a"),
                    st.just(b"\x00\x03\x00\x00\x00\x01"),
                    st.just(b"\x7f\xff\xff\xff"),
                ),
            ),
        ),
        max_size=12,
    )
)
def test_no_bytes_can_break_a_session(pieces: list[bytes]) -> None:
    """Whatever is sent, the session ends with a reason: never with an exception."""

    async def main() -> None:
        client_end, server_end = trio.testing.memory_stream_pair()
        await client_end.send_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize())
        for piece in pieces:
            await client_end.send_all(piece)
        await client_end.send_eof()
        assert await Connection(server_end, echo).serve()

    trio.run(main)


# --- slow and dead clients ----------------------------------------------------------------------------------------


async def test_a_response_follows_small_windows() -> None:
    async with serving(echo, settings={SettingCodes.INITIAL_WINDOW_SIZE: 1000}) as served:
        body = bytes(range(256)) * 400
        assert await served.client.post("/machine/x", body) == (200, body)


async def test_a_window_opened_by_settings_is_used() -> None:
    async with serving(echo, settings={SettingCodes.INITIAL_WINDOW_SIZE: 0}) as served:
        response = await served.client.request("/machine/x", b"hello")
        await response.wait_started()
        assert response.data == b""
        served.client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1000})
        await served.client.flush()
        await response.wait_ended()
        assert response.data == b"hello"


async def test_zero_window_costs_no_memory(autojump_clock: MockClock) -> None:
    """N3: what waits is the handler, with the one piece that it has; nothing is queued, and not for long."""
    sent = 0

    async def handler(request: Request, reply: Reply) -> None:
        nonlocal sent
        await reply.start(200)
        while True:
            await reply.wait_writable()
            await reply.send(bytes(10_000))
            sent += 1

    async with serving(handler, settings={SettingCodes.INITIAL_WINDOW_SIZE: 0}) as served:
        polls = [await served.client.request("/machine/map") for _ in range(10)]
        await wait_all_tasks_blocked()
        assert sent == 0
        assert not served.connection._writer._unsent
        begun = trio.current_time()
        assert await served.ended() == "a stream is blocked"
        assert trio.current_time() - begun == pytest.approx(60)
        assert not any(poll.data for poll in polls)


async def test_a_trickle_of_window_does_not_hold_a_message_for_ever(autojump_clock: MockClock) -> None:
    async def handler(request: Request, reply: Reply) -> None:
        await reply.start(200)
        await reply.send(bytes(100 * 1024))

    async with serving(handler, settings={SettingCodes.INITIAL_WINDOW_SIZE: 0}) as served:
        poll = await served.client.request("/machine/map")
        begun = trio.current_time()
        while served.reason is None:
            served.client.h2.increment_flow_control_window(1, poll.stream_id)
            await served.client.flush()
            await trio.sleep(1)
        assert served.reason == "a stream is blocked"
        assert trio.current_time() - begun == pytest.approx(60 + 100, abs=2)


async def test_a_blocked_stream_does_not_delay_another() -> None:
    async def handler(request: Request, reply: Reply) -> None:
        await reply.respond(200, bytes(2000) if request.path == "/big" else b"small")

    async with serving(handler, settings={SettingCodes.INITIAL_WINDOW_SIZE: 1000}) as served:
        served.client.h2.acknowledge_received_data = lambda *_: None  # type: ignore[method-assign]
        big = await served.client.request("/big")
        assert await served.client.post("/small") == (200, b"small")
        await served.client.until(lambda: bool(big.data))
        assert (len(big.data), big.ended) == (1000, False)


async def test_a_write_that_takes_too_long_ends_the_connection(autojump_clock: MockClock) -> None:
    async with serving(echo, streams=clogged_streams()) as served:
        await trio.sleep(limits.WRITE_S - 1)  # the client reads nothing
        assert served.reason is None
        await trio.sleep(2)
        assert served.reason == "the client does not read"


async def test_a_reset_in_the_middle_of_a_write_does_not_tear_it() -> None:
    """Trap: records that are sealed leave whole, or the next one does not open."""
    server_key = X25519PrivateKey.generate()
    initiator = Initiator(server_key.public_key().public_bytes_raw(), X25519PrivateKey.generate())
    client_end, server_end = clogged_streams()
    cancelled = trio.Event()

    async def handler(request: Request, reply: Reply) -> None:
        if request.path == "/machine/map":
            try:
                await reply.respond(200, bytes(60_000))
            finally:
                cancelled.set()
        else:
            await reply.respond(200, b"in step")

    async def serve() -> None:
        session = await accept(server_end, server_key, initiator.initiation, b"")
        await Connection(session.stream, handler, registered=True).serve()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        rx_key, tx_key = initiator.finish(bytes(await client_end.receive_some(51)))
        client = FakeControlClient(NoiseStream(client_end, rx_key=rx_key, tx_key=tx_key))
        await client.begin()
        await client._read()  # SETTINGS
        poll = await client.request("/machine/map")
        await wait_all_tasks_blocked()  # the server is stuck in its write
        await poll.reset()
        await wait_all_tasks_blocked()
        assert not cancelled.is_set()
        assert await client.post("/machine/x") == (200, b"in step")
        assert cancelled.is_set()
        nursery.cancel_scope.cancel()


async def test_a_silent_client_is_asked_and_stays_if_it_answers(autojump_clock: MockClock) -> None:
    async with serving(never) as served:
        await served.client.request("/machine/map")
        with trio.move_on_after(600.5):
            await served.client.wait_closed()
        assert served.client.pings == 10
        assert served.reason is None


async def test_a_client_that_does_not_answer_is_gone_after_80_seconds(autojump_clock: MockClock) -> None:
    """A phone asleep, its TCP connection alive for all that the kernel knows."""
    cancelled = trio.Event()

    async def handler(request: Request, reply: Reply) -> None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async with serving(handler) as served:
        await served.client.request("/machine/map")
        begun = trio.current_time()
        await cancelled.wait()
        assert trio.current_time() - begun == pytest.approx(80)
        await wait_all_tasks_blocked()
        assert served.reason == "the client does not answer"


# --- ends ---------------------------------------------------------------------------------------------------------


async def test_a_reset_cancels_only_its_own_handler() -> None:
    cancelled = []

    async def handler(request: Request, reply: Reply) -> None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append(request.path)

    async with serving(handler) as served:
        first = await served.client.request("/1")
        await served.client.request("/2")
        await wait_all_tasks_blocked()
        await first.reset()
        await wait_all_tasks_blocked()
        assert cancelled == ["/1"]
    assert cancelled == ["/1", "/2"]


async def test_a_reset_that_comes_with_its_request_is_no_error() -> None:
    """h2 has seen the reset when we hear of the request: nothing may be sent on that stream any more."""
    async with serving(echo) as served:
        await wait_all_tasks_blocked()
        h2 = served.client.h2
        for body in (b"x", bytes(60_000)):
            stream_id = h2.get_next_available_stream_id()
            headers = [(":method", "POST"), (":scheme", "https"), (":authority", "a"), (":path", "/")]
            h2.send_headers(stream_id, headers)
            for start in range(0, len(body), 16_384):
                h2.send_data(stream_id, body[start : start + 16_384], end_stream=start + 16_384 >= len(body))
            h2.reset_stream(stream_id)
        await served.client.flush()
        await wait_all_tasks_blocked()
        assert await served.client.post("/machine/x", b"fine") == (200, b"fine")


@pytest.mark.parametrize(
    ("goodbye", "reason"),
    [(b"", "closed by the client"), (GoAwayFrame(0).serialize(), "closed by the client (GOAWAY)")],
    ids=["EOF", "GOAWAY"],
)
async def test_the_end_of_the_client_cancels_its_handlers(goodbye: bytes, reason: str) -> None:
    cancelled = trio.Event()

    async def handler(request: Request, reply: Reply) -> None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async with serving(handler) as served:
        await served.client.request("/machine/map")
        await wait_all_tasks_blocked()
        if goodbye:
            await served.client.transport.send_all(goodbye)
        else:
            await served.client.transport.send_eof()  # type: ignore[attr-defined]
        await cancelled.wait()
        assert await served.ended() == reason


async def test_a_handler_that_fails_is_a_500_one_log_line_and_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(request: Request, reply: Reply) -> None:
        match request.path:
            case "/bug":
                raise ZeroDivisionError
            case "/late":
                await reply.start(200)
                raise ZeroDivisionError
            case "/silent":
                return
        await reply.respond(200, b"fine")

    async with serving(handler) as served:
        with caplog.at_level(logging.INFO):
            assert await served.client.post("/bug") == (500, b"internal error\n")
            assert [(record.message, vars(record)["path"]) for record in caplog.records] == [
                ("bug in a request's handler", "/bug")
            ]
            late = await served.client.request("/late")
            await late.wait_ended()
            assert late.reset_with == ErrorCodes.INTERNAL_ERROR
            assert await served.client.post("/silent") == (500, b"internal error\n")
        assert await served.client.post("/other") == (200, b"fine")


async def test_draining_lets_requests_end_and_takes_no_new_ones(autojump_clock: MockClock) -> None:
    finish = trio.Event()

    async def handler(request: Request, reply: Reply) -> None:
        await reply.start(200)
        await finish.wait()
        await reply.send(b"the last map")

    async with serving(handler) as served:
        poll = await served.client.request("/machine/map")
        await poll.wait_started()
        served.connection.drain()
        served.connection.drain()
        # A request that crosses our GOAWAY on the wire.
        late = await served.client.request("/machine/map")
        await wait_all_tasks_blocked()
        raw = bytes(await served.client.transport.receive_some())
        assert raw == (
            GoAwayFrame(0, last_stream_id=1).serialize()
            + b"\x00\x00\x04\x03\x00"
            + late.stream_id.to_bytes(4, "big")
            + b"\x00\x00\x00\x07"  # REFUSED_STREAM
        )
        assert served.reason is None
        finish.set()
        await poll.wait_ended()
        assert poll.data == b"the last map"
        begun = trio.current_time()
        assert await served.ended() == "drained"
        assert trio.current_time() - begun <= limits.LINGER_S


async def test_draining_an_idle_connection_closes_it(autojump_clock: MockClock) -> None:
    async with serving(echo) as served:
        await wait_all_tasks_blocked()
        served.connection.drain()
        assert await served.ended() == "drained"
        assert served.client.terminated is not None
        assert served.client.terminated.error_code == ErrorCodes.NO_ERROR


@pytest.mark.parametrize("reads", [0, 1], ids=["of the reader", "of a handler"])
async def test_cancellation_from_outside_does_not_wait_for_a_stuck_write(
    reads: int, autojump_clock: MockClock
) -> None:
    client_end, server_end = clogged_streams()
    client = FakeControlClient(client_end)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Connection(server_end, echo).serve)
        await client.begin()
        for _ in range(reads):
            await client._read()  # SETTINGS
        await client.request("/machine/x", b"hello")
        await wait_all_tasks_blocked()
        begun = trio.current_time()
        nursery.cancel_scope.cancel()
    assert trio.current_time() == begun
    with pytest.raises(trio.ClosedResourceError):
        await server_end.receive_some()
