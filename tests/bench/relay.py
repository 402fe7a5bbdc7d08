"""How much the relay costs per packet, as a ratio to a plain byte copy through TLS in the same run.

    python -m tests.bench.relay

The copy receives, decrypts record by record, encrypts in one piece and sends: what any TLS proxy must do. The
relay does the same and also parses, looks up, rewrites and counts. Both get the same bytes in the same turns;
only their own CPU time is counted, not the client's. Ratios near 1 are good; times mean nothing on their own.
"""

import os
import select
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress

import nacl.bindings
import trio
import trustme

from derp.channel import Transport
from derp.counters import Counters
from derp.engine import Engine
from derp.limits import Limits
from tests.derp.client import send_packet

PACKETS = 60_000


class Link:
    """A TLS connection whose two ends are in this process."""

    def __init__(
        self, server: ssl.SSLContext, client: ssl.SSLContext, shared: tuple[ssl.MemoryBIO, ssl.MemoryBIO]
    ) -> None:
        self.near, self.far = socket.socketpair()
        for sock in (self.near, self.far):
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.incoming, self.outgoing = shared
        self.near_in, self.near_out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client_tls = client.wrap_bio(self.near_in, self.near_out, server_hostname="relay.example")
        self.server_tls = server.wrap_bio(self.incoming, self.outgoing, server_side=True)
        for _ in range(3):
            for tls, other, out in (
                (self.client_tls, self.incoming, self.near_out),
                (self.server_tls, self.near_in, self.outgoing),
            ):
                with suppress(ssl.SSLWantReadError):
                    tls.do_handshake()
                other.write(out.read())
        self.incoming.read()

    def sealed(self, frames: list[bytes]) -> bytes:
        """As clients do it: one record per frame."""
        for frame in frames:
            self.client_tls.write(frame)
        return self.near_out.read()

    def drain(self) -> int:
        size = 0
        try:
            while True:
                size += len(self.near.recv(1 << 20))
        except BlockingIOError:
            return size

    def transport(self) -> Transport:
        return Transport(self.far, self.server_tls, self.incoming, self.outgoing, b"", b"")


def cost(links: tuple[Link, Link], frames: list[bytes], turns: int, turn: Callable[[], None]) -> float:
    """CPU µs of `turn` per packet."""
    source, target = links
    spent = 0.0
    for _ in range(turns):
        source.near.send(source.sealed(frames))
        started = time.thread_time_ns()
        turn()
        spent += time.thread_time_ns() - started
        assert target.drain() > 0
    return spent / turns / len(frames) / 1000


def copier(source: Link, target: Link) -> Callable[[], None]:
    """The byte copy, with an epoll of its own as any server has."""
    cipher, plain = bytearray(1 << 17), bytearray(1 << 17)
    cipher_view, plain_view = memoryview(cipher), memoryview(plain)
    epoll = select.epoll()
    epoll.register(source.far, select.EPOLLIN)

    def turn() -> None:
        while epoll.poll(0):
            size = source.far.recv_into(cipher_view[: 64 << 10])
            source.incoming.write(cipher_view[:size])
            end = 0
            while source.incoming.pending:
                try:
                    end += source.server_tls.read(16 << 10, plain_view[end:])  # type: ignore[operator]
                except ssl.SSLWantReadError:
                    break
            if end:
                target.server_tls.write(plain_view[:end])
                target.far.send(target.outgoing.read())

    return turn


async def main() -> None:
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    server.num_tickets = 0
    authority.issue_cert("relay.example").configure_cert(server)
    authority.configure_trust(client)
    shared = (ssl.MemoryBIO(), ssl.MemoryBIO())
    engine = Engine(Limits(), Counters())

    def relay_turn() -> None:
        while events := engine._epoll.poll(0, 256):
            engine._round(events)

    relayed = (Link(server, client, shared), Link(server, client, shared))
    copied = (Link(server, client, shared), Link(server, client, shared))
    keys: list[bytes] = [nacl.bindings.crypto_scalarmult_base(os.urandom(32)) for _ in relayed]
    for link, key in zip(relayed, keys, strict=True):
        engine.attach(link.transport(), key, "192.0.2.7", b"", b"")
    copy_turn = copier(*copied)
    print("bytes  packets a turn   copy µs   relay µs   ratio")
    for size in (100, 1400):
        for packets in (1, 8, 40):
            frames = [send_packet(keys[1], bytes(size))] * packets
            turns = PACKETS // 3 // (packets + 2)
            cost(relayed, frames, turns // 4, relay_turn)  # warm up
            copy = cost(copied, frames, turns, copy_turn)
            relay = cost(relayed, frames, turns, relay_turn)
            print(f"{size:5}  {packets:14}  {copy:8.2f}  {relay:9.2f}  {relay / copy:6.2f}")


if __name__ == "__main__":
    trio.run(main)
