"""What a control connection costs, as ratios to what it is made of: run by hand, `python -m tests.bench.http2`.

Everything happens in one process over memory streams, so only the ratios mean something. Memory is the server's side,
with an idle long poll on each connection; time is both sides' work.
"""

import gc
import time
from pathlib import Path

import trio
import trio.testing
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from control.machine.http2 import Connection
from control.machine.request import Request
from control.machine.writer import Reply
from control.noise import NoiseStream, accept
from tests.support.noise_client import FakeControlClient, Initiator

CONNECTIONS = 500
POSTS = 1_000
HANDSHAKES = 100
KEY_A, KEY_B = bytes(32), bytes(range(32))


def rss_kib() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


async def handler(request: Request, reply: Reply) -> None:
    if request.path == "/machine/map":
        await reply.start(200)
        await trio.sleep_forever()
    await reply.respond(200, bytes(200))


def recorded_client() -> bytes:
    """What a client sends to begin and to open a long poll, sealed: so that no client need be kept in memory."""
    recording = bytearray()

    class Recorder(trio.abc.SendStream):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            recording.extend(data)

        async def wait_send_all_might_not_block(self) -> None: ...
        async def aclose(self) -> None: ...

    async def main() -> None:
        _, nothing = trio.testing.memory_stream_one_way_pair()
        stream = trio.StapledStream(Recorder(), nothing)
        client = FakeControlClient(NoiseStream(stream, rx_key=KEY_B, tx_key=KEY_A))
        await client.begin()
        await client.request("/machine/map", bytes(600))

    trio.run(main)
    return bytes(recording)


async def memory() -> None:
    opening = RECORDED
    async with trio.open_nursery() as nursery:
        baseline, streams = rss_kib(), []
        for _ in range(CONNECTIONS):
            streams.append(trio.testing.memory_stream_pair())
            nursery.start_soon(streams[-1][1].receive_some)
        await trio.testing.wait_all_tasks_blocked()
        plain = (rss_kib() - baseline) / CONNECTIONS
        nursery.cancel_scope.cancel()
    async with trio.open_nursery() as nursery:
        baseline, streams = rss_kib(), []
        for _ in range(CONNECTIONS):
            client, server = trio.testing.memory_stream_pair()
            streams.append((client, server))
            session = NoiseStream(server, rx_key=KEY_A, tx_key=KEY_B)
            nursery.start_soon(Connection(session, handler, registered=True).serve)
            await client.send_all(opening)
        await trio.testing.wait_all_tasks_blocked()
        for client, _server in streams:
            await client.receive_some()
        http2 = (rss_kib() - baseline) / CONNECTIONS
        nursery.cancel_scope.cancel()
    print(f"memory, a stream with one reading task     {plain:7.1f} KiB")
    print(f"memory, Noise + HTTP/2 + an idle long poll {http2:7.1f} KiB   {http2 / plain:.1f} times")


async def posts() -> None:
    server_key = X25519PrivateKey.generate()
    public = server_key.public_key().public_bytes_raw()
    client_end, server_end = trio.testing.memory_stream_pair()
    initiator = Initiator(public, server_key)
    session = await accept(server_end, server_key, initiator.initiation, b"")
    begun = time.perf_counter()
    for _ in range(HANDSHAKES):
        session = await accept(server_end, server_key, initiator.initiation, b"")
    handshake = (time.perf_counter() - begun) / HANDSHAKES
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Connection(session.stream, handler, registered=True).serve)
        rx_key, tx_key = initiator.finish(bytes(await client_end.receive_some(51)))
        client = FakeControlClient(NoiseStream(client_end, rx_key=rx_key, tx_key=tx_key))
        await client.begin()
        begun = time.perf_counter()
        for _ in range(POSTS):
            await client.post("/machine/x", bytes(600))
        post = (time.perf_counter() - begun) / POSTS
        nursery.cancel_scope.cancel()
    print(f"time, server's handshake                   {handshake * 1e6:7.0f} us")
    print(
        f"time, POST of 600 B, answer of 200 B       {post * 1e6:7.0f} us    {post / handshake:.1f} times, both sides"
    )


RECORDED = recorded_client()

if __name__ == "__main__":
    trio.run(memory)
    trio.run(posts)
