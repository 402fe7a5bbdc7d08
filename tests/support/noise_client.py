"""A control client for tests: Noise IK initiator, and HTTP/2 on top of it.

    client = await FakeControlClient.connect(stream, server_public, machine_private, version=142)
    status, body = await client.post("/machine/register", {...})
    async with client.stream("/machine/map", {...}) as poll:
        assert poll.status == 200
        data = await poll.receive_some()

`connect` speaks to a front door: it sends the upgrade request first. Where there is none, `read_upgrade` is the door.

There is no background task: whoever waits for something reads for everybody. So a client that nobody waits on reads
nothing and acknowledges nothing, like a phone that has gone to sleep.
"""

import base64
import json
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

import trio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from h2.config import H2Configuration
from h2.connection import ConnectionInputs, ConnectionState, H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    PingReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from h2.settings import SettingCodes, Settings

from control.noise.early import MAGIC
from control.noise.handshake import PROLOGUE, PROTOCOL_NAME, RESPONSE_BYTES, SymmetricState
from control.noise.stream import NoiseStream

UPGRADE_HEAD = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: tailscale-control-protocol\r\nConnection: upgrade\r\n\r\n"
)
# What official clients announce; see control.md §3.5.
CLIENT_SETTINGS: Mapping[SettingCodes, int] = {
    SettingCodes.ENABLE_PUSH: 0,
    SettingCodes.INITIAL_WINDOW_SIZE: 4 * 1024 * 1024,
    SettingCodes.MAX_HEADER_LIST_SIZE: 10 * 1024 * 1024,
}

Body = bytes | Mapping[str, Any]


class ServerClosed(AssertionError):
    """The server ended the connection while somebody waited for more."""


class Initiator:
    """The client's half of the handshake: `initiation` to the server, its answer into `finish`."""

    def __init__(
        self,
        server_public: bytes,
        machine_private: X25519PrivateKey,
        version: int = 142,
        ephemeral_private: X25519PrivateKey | None = None,
    ) -> None:
        self.version = version
        self._machine_private = machine_private
        self._ephemeral_private = ephemeral_private or X25519PrivateKey.generate()
        self._state = state = SymmetricState(PROTOCOL_NAME)
        state.mix_hash(PROLOGUE + str(version).encode())
        state.mix_hash(server_public)
        ephemeral = self._ephemeral_private.public_key().public_bytes_raw()
        state.mix_hash(ephemeral)
        state.mix_dh(self._ephemeral_private, server_public)
        sealed_machine_key = state.encrypt_and_hash(machine_private.public_key().public_bytes_raw())
        state.mix_dh(machine_private, server_public)
        tag = state.encrypt_and_hash(b"")
        self.initiation = struct.pack(">HBH", version, 1, 96) + ephemeral + sealed_machine_key + tag

    def finish(self, response: bytes) -> tuple[bytes, bytes]:
        """(rx_key, tx_key) of the client. Raises NoiseError."""
        assert response[:3] == b"\x02\x00\x30", response
        state, ephemeral = self._state, response[3:35]
        state.mix_hash(ephemeral)
        state.mix_dh(self._ephemeral_private, ephemeral)
        state.mix_dh(self._machine_private, ephemeral)
        state.decrypt_and_hash(response[35:])
        tx_key, rx_key = state.split()
        return rx_key, tx_key

    @property
    def handshake_hash(self) -> bytes:
        return self._state.h


async def read_upgrade(stream: trio.abc.Stream) -> tuple[bytes, bytes]:
    """A front door in one function: read the upgrade request; (initiation, the head to answer with)."""
    head = await _read_until(stream, b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"x-tailscale-handshake":
            return base64.b64decode(value.strip()), UPGRADE_HEAD
    raise AssertionError(f"no handshake in {head!r}")


async def _read_until(stream: trio.abc.Stream, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        byte = await stream.receive_some(1)
        if not byte:
            raise ServerClosed(f"the stream ended after {data!r}")
        data += byte
    return data


async def _read_exactly(stream: trio.abc.Stream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await stream.receive_some(size - len(data))
        if not more:
            raise ServerClosed(f"the stream ended after {data!r}")
        data += more
    return data


class FakeControlClient:
    """One Noise connection of one machine, with any number of requests at once."""

    def __init__(
        self, stream: trio.abc.Stream, settings: Mapping[SettingCodes, int] = CLIENT_SETTINGS
    ) -> None:
        """*stream* is past its Noise handshake, or plain. Await `begin` before anything else."""
        self.transport = stream
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.local_settings = Settings(client=True, initial_values=dict(settings))
        # h2 takes a GOAWAY for the end; official clients let their requests run to theirs.
        going = {
            (ConnectionState.CLIENT_OPEN, ConnectionInputs.RECV_GOAWAY): (None, ConnectionState.CLIENT_OPEN)
        }
        self.h2.state_machine._transitions = self.h2.state_machine._transitions | going
        self.responses: dict[int, Response] = {}
        self.terminated: ConnectionTerminated | None = None  # the server's GOAWAY
        self.early_payload: bytes | None = (
            None  # its JSON; b"" if there was none, None as long as nothing came
        )
        self._head = b""
        self.pings = 0  # of the server, all answered
        self.closed = False  # the server's end of the stream
        self._reading = False
        self._changed = trio.Event()
        self._sending = trio.Lock()

    @classmethod
    async def connect(
        cls,
        stream: trio.abc.Stream,
        server_public: bytes,
        machine_private: X25519PrivateKey,
        version: int = 142,
        host: str = "localhost",
    ) -> Self:
        """Upgrade, shake hands, begin."""
        initiator = Initiator(server_public, machine_private, version)
        await stream.send_all(
            b"POST /ts2021 HTTP/1.1\r\nHost: %s\r\nUpgrade: tailscale-control-protocol\r\nConnection: upgrade\r\n"
            b"X-Tailscale-Handshake: %s\r\nContent-Length: 0\r\n\r\n"
            % (host.encode(), base64.b64encode(initiator.initiation))
        )
        head = await _read_until(stream, b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        rx_key, tx_key = initiator.finish(await _read_exactly(stream, RESPONSE_BYTES))
        client = cls(NoiseStream(stream, rx_key=rx_key, tx_key=tx_key))
        await client.begin()
        return client

    async def begin(self) -> None:
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(1 << 30)
        await self.flush()

    async def post(self, path: str, body: Body = b"") -> tuple[int, bytes]:
        """One request and its whole response."""
        response = await self.request(path, body)
        await response.wait_ended()
        assert response.status is not None, f"reset, error {response.reset_with}"
        return response.status, bytes(response.data)

    @asynccontextmanager
    async def stream(self, path: str, body: Body = b"") -> AsyncIterator["Response"]:
        """A long poll: entered when the response has begun, and reset if it is left before its end."""
        response = await self.request(path, body)
        await response.wait_started()
        try:
            yield response
        finally:
            if not response.ended and not self.closed and self.terminated is None:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                    await response.reset()

    async def request(
        self, path: str, body: Body = b"", *, end: bool = True, method: str = "POST"
    ) -> "Response":
        """Send a request, as far as flow control lets it; the response has yet to come."""
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        stream_id = self.h2.get_next_available_stream_id()
        response = self.responses[stream_id] = Response(self, stream_id)
        authority_is_ignored = "unused"
        self.h2.send_headers(
            stream_id,
            [
                (":method", method),
                (":scheme", "https"),
                (":authority", authority_is_ignored),
                (":path", path),
                ("user-agent", "Go-http-client/2.0"),
                ("accept-encoding", "gzip"),
            ],
            end_stream=end and not payload,
        )
        await response.send(payload, end=end and bool(payload))
        return response

    async def flush(self) -> None:
        """Send what h2 has queued. If the server has closed, reading will tell, after what it said before."""
        async with self._sending:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self.transport.send_all(self.h2.data_to_send())

    async def until(self, ready: Callable[[], bool]) -> None:
        """Read, or let somebody else read, until *ready*. ServerClosed if the server ends first."""
        while not ready():
            if self.closed:
                raise ServerClosed(f"the server has closed the connection; GOAWAY: {self.terminated}")
            if self._reading:
                await self._changed.wait()
                continue
            self._reading = True
            try:
                await self._read()
            finally:
                self._reading = False
                self._changed.set()
                self._changed = trio.Event()

    async def wait_closed(self) -> None:
        """Read until the server closes."""
        await self.until(lambda: self.closed)

    def _without_early_payload(self, data: bytes) -> bytes:
        """HTTP/2's bytes. What comes before them, if it does, is kept as `early_payload`."""
        if self.early_payload is not None:
            return data
        self._head += data
        if len(self._head) < 9:
            return b""
        head, self._head = self._head, b""
        size = int.from_bytes(head[5:9], "big") if head.startswith(MAGIC) else -9
        if len(head) < 9 + size:
            self._head = head
            return b""
        self.early_payload = head[9 : 9 + size] if size >= 0 else b""
        return head[9 + size :]

    async def _read(self) -> None:
        try:
            data = await self.transport.receive_some()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        if not data:
            self.closed = True
            return
        for event in self.h2.receive_data(self._without_early_payload(bytes(data))):
            match event:
                case ConnectionTerminated():
                    self.terminated = event
                case PingReceived():
                    self.pings += 1
                case ResponseReceived(stream_id=int() as stream_id):
                    self.responses[stream_id].receive_headers(dict(event.headers))  # type: ignore[arg-type]
                case DataReceived(stream_id=int() as stream_id):
                    self.responses[stream_id].data += event.data
                    self.h2.acknowledge_received_data(event.flow_controlled_length, stream_id)
                case StreamEnded(stream_id=int() as stream_id):
                    self.responses[stream_id].ended = True
                case StreamReset(stream_id=stream_id):
                    self.responses[stream_id].ended = True
                    self.responses[stream_id].reset_with = event.error_code
        await self.flush()

    async def aclose(self) -> None:
        await self.transport.aclose()


class Response:
    """One response, as far as it has come."""

    def __init__(self, client: FakeControlClient, stream_id: int) -> None:
        self.client = client
        self.stream_id = stream_id
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.data = bytearray()  # not yet taken by receive_some
        self.ended = False
        self.reset_with: int | None = None

    def receive_headers(self, headers: dict[str, str]) -> None:
        self.status = int(headers.pop(":status"))
        self.headers = headers

    async def send(self, body: bytes, *, end: bool) -> None:
        """More of the request's body."""
        h2 = self.client.h2
        while True:
            room = min(h2.local_flow_control_window(self.stream_id), h2.max_outbound_frame_size)
            piece, body = body[:room], body[room:]
            if piece or end:
                h2.send_data(self.stream_id, piece, end_stream=end and not body)
            await self.client.flush()
            if not body:
                return
            await self.client.until(lambda: self.ended or h2.local_flow_control_window(self.stream_id) > 0)
            if self.ended:
                return

    async def reset(self) -> None:
        self.client.h2.reset_stream(self.stream_id, 8)  # CANCEL
        self.ended = True
        await self.client.flush()

    async def wait_started(self) -> None:
        await self.client.until(lambda: self.status is not None or self.ended)

    async def wait_ended(self) -> None:
        await self.client.until(lambda: self.ended)

    async def receive_some(self) -> bytes:
        """What has come since the last call, at least a byte; empty at the end."""
        await self.client.until(lambda: bool(self.data) or self.ended)
        data, self.data = bytes(self.data), bytearray()
        return data

    async def receive_exactly(self, size: int) -> bytes:
        await self.client.until(lambda: len(self.data) >= size)
        data, self.data = bytes(self.data[:size]), self.data[size:]
        return data
