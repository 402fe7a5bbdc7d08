from __future__ import annotations

import pytest
import trio
from trio.testing import check_two_way_stream, memory_stream_pair
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage

from appliance.door.head import Head
from appliance.door.limits import WEBSOCKET_MESSAGE
from appliance.door.websocket import WebSocketStream, accept_websocket
from appliance.errors import HeadError


class Browser(trio.abc.Stream):
    """The client's end, as a stream over a stream."""

    def __init__(self, below: trio.abc.Stream) -> None:
        self.below = below
        self.ws = Connection(ConnectionType.CLIENT)
        self.largest = 0
        self._sending = False
        self._closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._closed:
            raise trio.ClosedResourceError
        if self._sending:
            raise trio.BusyResourceError
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            if data:
                await self.below.send_all(self.ws.send(BytesMessage(data=bytes(data))))
        finally:
            self._sending = False

    async def events(self) -> list[Event]:
        self.ws.receive_data(bytes(await self.below.receive_some()) or None)
        return list(self.ws.events())

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        raise NotImplementedError

    async def wait_send_all_might_not_block(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError
        await self.below.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        self._closed = True
        await self.below.aclose()


def make_pair() -> tuple[WebSocketStream, Browser]:
    ours, theirs = memory_stream_pair()
    return WebSocketStream(ours), Browser(theirs)


async def test_it_is_a_proper_trio_stream_when_two_of_them_talk() -> None:
    """Our end against our end, with a translator in between that turns server frames into client frames."""
    async with trio.open_nursery() as nursery:

        async def translate(left: trio.abc.Stream, right: trio.abc.Stream) -> None:
            reads, writes = Connection(ConnectionType.CLIENT), Connection(ConnectionType.CLIENT)
            try:
                while data := await left.receive_some():
                    reads.receive_data(bytes(data))
                    for event in reads.events():
                        if isinstance(event, BytesMessage):
                            await right.send_all(writes.send(BytesMessage(data=event.data)))
                        elif isinstance(event, CloseConnection):
                            await right.send_all(writes.send(CloseConnection(code=event.code)))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            await right.aclose()

        async def make() -> tuple[WebSocketStream, WebSocketStream]:
            a, a_far = memory_stream_pair()
            b, b_far = memory_stream_pair()
            nursery.start_soon(translate, a_far, b_far)
            nursery.start_soon(translate, b_far, a_far)
            return WebSocketStream(a), WebSocketStream(b)

        await check_two_way_stream(make, None)
        nursery.cancel_scope.cancel()


async def test_bytes_pass_in_messages_of_at_most_one_record() -> None:
    ours, browser = make_pair()
    data = bytes(range(256)) * 40
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.send_all, data)
        received = b""
        while len(received) < len(data):
            for event in await browser.events():
                assert isinstance(event, BytesMessage)
                assert len(event.data) <= WEBSOCKET_MESSAGE
                received += event.data
    assert received == data
    await browser.send_all(data)
    assert await ours.receive_some() == data


async def test_pings_are_answered_while_reading() -> None:
    ours, browser = make_pair()
    await browser.below.send_all(
        browser.ws.send(Ping(payload=b"x")) + browser.ws.send(BytesMessage(data=b"data"))
    )
    assert await ours.receive_some() == b"data"
    assert await browser.events() == [Pong(payload=b"x")]


@pytest.mark.parametrize(
    ("event", "code"), [(CloseConnection(code=1001), 1001), (TextMessage(data="no"), 1008)]
)
async def test_the_end_is_acknowledged(event: Event, code: int) -> None:
    ours, browser = make_pair()
    await browser.below.send_all(browser.ws.send(event))
    assert await ours.receive_some() == b""
    assert [e.code for e in await browser.events() if isinstance(e, CloseConnection)] == [code]
    assert await ours.receive_some() == b""
    with pytest.raises(trio.BrokenResourceError):
        await ours.send_all(b"late")
    await ours.aclose()


async def test_an_unmasked_frame_ends_it_like_any_violation() -> None:
    ours, browser = make_pair()
    await browser.below.send_all(b"\x82\x05hello")
    assert await ours.receive_some() == b""
    await ours.aclose()


KEY = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
FIELDS = [
    ("upgrade", "WebSocket"),
    ("connection", "keep-alive, Upgrade"),
    KEY,
    ("sec-websocket-version", "13"),
    ("sec-websocket-protocol", "other, p"),
]


def head(*fields: tuple[str, str]) -> Head:
    return Head("GET", "/ts2021", "", "1.1", fields, b"", b"")


def test_the_opening_handshake_answers_as_the_rfc_shows() -> None:
    opening = accept_websocket(head(*FIELDS), "p")
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in opening  # RFC 6455 §1.3
    assert b"Sec-WebSocket-Protocol: p\r\n" in opening
    assert b"xtensions" not in opening


@pytest.mark.parametrize("left_out", range(len(FIELDS)))
def test_a_request_that_lacks_something_is_refused(left_out: int) -> None:
    with pytest.raises(HeadError):
        accept_websocket(head(*FIELDS[:left_out], *FIELDS[left_out + 1 :]), "p")
    with pytest.raises(HeadError):
        accept_websocket(head(*[(k, "!" if (k, v) == KEY else v) for k, v in FIELDS]), "p")
