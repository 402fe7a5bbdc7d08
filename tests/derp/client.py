"""A small DERP client, for talking to the relay in tests. Checked once against the official client's traffic."""

import json
import secrets

import nacl.bindings
import trio

from derp.errors import ProtocolError
from derp.frames import HEADER, HEADER_BYTES, MAGIC, FrameType, encode_frame
from derp.limits import MAX_FRAME_BYTES


class FrameReader:
    """Bytes in, whole frames out."""

    def __init__(self, longest: int = MAX_FRAME_BYTES) -> None:
        self._data = bytearray()
        self._longest = longest

    def feed(self, data: bytes | bytearray) -> None:
        self._data += data

    def next_frame(self) -> tuple[int, bytes] | None:
        """The next (type, payload), or None until more is fed. Raises ProtocolError if it is too long."""
        if len(self._data) < HEADER_BYTES:
            return None
        kind, length = HEADER.unpack_from(self._data)
        if length > self._longest:
            raise ProtocolError(f"frame of {length} bytes")
        end = HEADER_BYTES + length
        if len(self._data) < end:
            return None
        payload = bytes(self._data[HEADER_BYTES:end])
        del self._data[:end]
        return kind, payload


class Client:
    def __init__(self, stream: trio.abc.Stream, private_key: bytes | None = None) -> None:
        self.stream = stream
        self.private_key = private_key or secrets.token_bytes(32)
        self.key: bytes = nacl.bindings.crypto_scalarmult_base(self.private_key)
        self.server_info: dict[str, object] = {}
        self._reader = FrameReader()

    async def read_server_key(self) -> bytes:
        kind, payload = await self.frame()
        assert kind == FrameType.SERVER_KEY
        assert payload.startswith(MAGIC)
        return payload[8:40]

    def client_info(self, server_key: bytes, info: bytes = b'{"version":2,"CanAckPings":true}') -> bytes:
        nonce = secrets.token_bytes(24)
        shared = nacl.bindings.crypto_box_beforenm(server_key, self.private_key)
        box = nacl.bindings.crypto_box_easy_afternm(info, nonce, shared)
        return encode_frame(FrameType.CLIENT_INFO, self.key + nonce + box)

    async def login(self, *, and_then: bytes = b"") -> None:
        """Log in; `and_then` follows ClientInfo in the same write."""
        server_key = await self.read_server_key()
        await self.stream.send_all(self.client_info(server_key) + and_then)
        await self.read_server_info(server_key)

    async def read_server_info(self, server_key: bytes) -> None:
        kind, payload = await self.frame()
        assert kind == FrameType.SERVER_INFO
        shared = nacl.bindings.crypto_box_beforenm(server_key, self.private_key)
        text = nacl.bindings.crypto_box_open_easy_afternm(payload[24:], payload[:24], shared)
        self.server_info = json.loads(text)

    async def frame(self) -> tuple[int, bytes]:
        """The next frame. Raises EndOfChannel when the relay has closed."""
        while (frame := self._reader.next_frame()) is None:
            try:
                data = await self.stream.receive_some(65536)
            except trio.BrokenResourceError:
                data = b""
            if not data:
                raise trio.EndOfChannel
            self._reader.feed(data)
        return frame

    async def packet(self) -> tuple[bytes, bytes]:
        """The next (source, packet)."""
        kind, payload = await self.frame()
        assert kind == FrameType.RECV_PACKET, kind
        return payload[:32], payload[32:]

    async def send(self, to: bytes, packet: bytes) -> None:
        await self.stream.send_all(send_packet(to, packet))

    async def ping(self, data: bytes = b"12345678") -> None:
        """Round trip: what was sent before has been handled when this returns."""
        await self.stream.send_all(encode_frame(FrameType.PING, data))
        assert await self.frame() == (FrameType.PONG, data[:8])

    async def is_closed(self) -> bool:
        """Read until the end, whatever comes."""
        with trio.move_on_after(30):
            try:
                while True:
                    await self.frame()
            except trio.EndOfChannel:
                return True
        return False


def send_packet(to: bytes, packet: bytes) -> bytes:
    return encode_frame(FrameType.SEND_PACKET, to + packet)


def disco(size: int = 100) -> bytes:
    return b"TS\xf0\x9f\x92\xac".ljust(size, b"d")


assert HEADER_BYTES == 5
