"""What the front door would hand to the relay: streams that can be detached, plain and TLS."""

import socket
import ssl

import trio

from derp.channel import Transport


class PlainStream:
    """A trio stream over plain TCP (or a socket pair) that gives its socket away."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self.detached = False

    async def send_all(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        view = memoryview(data)
        while view:
            try:
                view = view[self._sock.send(view) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._sock)
            except OSError as exc:
                raise trio.BrokenResourceError from exc

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        while True:
            try:
                return self._sock.recv(max_bytes or 65536)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._sock)
            except OSError as exc:
                raise trio.BrokenResourceError from exc

    def detach(self) -> Transport:
        self.detached = True
        return Transport(self._sock, None, None, None, b"", b"")

    async def aclose(self) -> None:
        if not self.detached:
            self._sock.close()
        await trio.lowlevel.checkpoint()


class TlsStream:
    """TLS by hand over the one pair of memory BIOs that all connections share."""

    incoming = ssl.MemoryBIO()
    outgoing = ssl.MemoryBIO()

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self._raw = PlainStream(sock)
        self._tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self._tail = b""

    @property
    def detached(self) -> bool:
        return self._raw.detached

    async def handshake(self) -> None:
        while True:
            self.incoming.write(self._tail)
            try:
                self._tls.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                done = False
            finally:
                self._tail = self.incoming.read()
                answer = self.outgoing.read()
            if answer:
                await self._raw.send_all(answer)
            if done:
                return
            self._tail += await self._raw.receive_some()

    async def send_all(self, data: bytes) -> None:
        self._tls.write(data)
        await self._raw.send_all(self.outgoing.read())

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        while True:
            self.incoming.write(self._tail)
            try:
                return self._tls.read(max_bytes or 65536)
            except ssl.SSLWantReadError:
                pass
            finally:
                self._tail = self.incoming.read()
            more = await self._raw.receive_some()
            if not more:
                return b""
            self._tail += more

    def detach(self) -> Transport:
        transport = self._raw.detach()
        return transport._replace(
            ssl=self._tls, incoming=self.incoming, outgoing=self.outgoing, ciphertext=self._tail
        )

    async def aclose(self) -> None:
        await self._raw.aclose()
