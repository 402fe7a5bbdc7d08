"""A trio stream over a trio stream, with Noise records between; and the handshake that makes one.

What the server says first (the HTTP head that accepts the upgrade, the Noise response, HTTP/2's SETTINGS) should leave
in one segment: a client far away waits a round trip less. So `accept` sends nothing. The stream it returns *holds* those
bytes and sends them in front of its first write, or at once if somebody reads first.

A write is all or nothing. A record that was half written, or sealed and not written, puts the two ends' counters out of
step, so a write that fails or is cancelled closes the stream. Who must not lose the stream shields its writes.
"""

import operator
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeAlias

import trio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from control import limits
from control.keys import MachinePublic
from control.noise.errors import NoiseError
from control.noise.handshake import Accepted, respond
from control.noise.records import Opener, Sealer

Turn: TypeAlias = Callable[[Callable[[], Accepted]], Awaitable[Accepted]]


class NoiseStream(trio.abc.Stream):
    """A connection after its handshake, from either side.

    Closing it closes *transport*. As with trio's own streams, one task may send and one may receive at a time;
    a second one gets trio.BusyResourceError.
    """

    __slots__ = (
        "_held",
        "_idle_budget",
        "_opener",
        "_plaintext",
        "_receiving",
        "_sealer",
        "_sending",
        "_transport",
    )

    def __init__(
        self, transport: trio.abc.Stream, *, rx_key: bytes, tx_key: bytes, held: bytes = b""
    ) -> None:
        self._transport = transport
        self._sealer = Sealer(tx_key)
        self._opener = Opener(rx_key)
        self._held = held  # goes out, unsealed, before the first record
        self._plaintext = b""  # opened, not yet asked for
        self._idle_budget: limits.Budget | None = None  # for empty records, once there were any
        self._sending = False
        self._receiving = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._begin_sending()
        try:
            view = memoryview(data)
            while True:
                piece, view = view[: limits.SEAL_PIECE_BYTES], view[limits.SEAL_PIECE_BYTES :]
                held, self._held = self._held, b""
                await self._transport.send_all(held + self._sealer.seal(piece) if piece else held)
                if not view:
                    return
        except NoiseError as exc:
            await trio.aclose_forcefully(self)
            raise trio.BrokenResourceError(str(exc)) from exc
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise  # it is lost already
        except BaseException:
            await trio.aclose_forcefully(self)
            raise
        finally:
            self._sending = False

    async def wait_send_all_might_not_block(self) -> None:
        self._begin_sending()
        try:
            await self._transport.wait_send_all_might_not_block()
        finally:
            self._sending = False

    def _begin_sending(self) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._sending = True

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What has arrived: everything that one read of the transport completed, or *max_bytes* of it."""
        if max_bytes is not None and (max_bytes := operator.index(max_bytes)) < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving on this stream")
        self._receiving = True
        try:
            if self._held:
                await self.send_all(b"")
            if self._plaintext:
                await trio.lowlevel.checkpoint()
            else:
                await self._receive()
        finally:
            self._receiving = False
        data = self._plaintext[:max_bytes]
        self._plaintext = self._plaintext[len(data) :]
        return data

    async def _receive(self) -> None:
        """Read until there is plaintext, or the transport ends."""
        while not self._plaintext:
            data = await self._transport.receive_some()
            if not data:
                if self._opener.inside_record:
                    await self._give_up("the stream ended inside a record")
                return
            try:
                self._plaintext = self._opener.open(bytes(data))
            except NoiseError as exc:
                await self._give_up(str(exc))
            if self._opener.empty_records and not self._may_be_empty():
                await self._give_up("too many empty records")

    def _may_be_empty(self) -> bool:
        count, self._opener.empty_records = self._opener.empty_records, 0
        now = trio.current_time()
        self._idle_budget = self._idle_budget or limits.Budget(limits.EMPTY_RECORDS, now)
        return self._idle_budget.spend(count, now)

    async def _give_up(self, reason: str) -> None:
        await trio.aclose_forcefully(self)
        raise trio.BrokenResourceError(reason)

    async def aclose(self) -> None:
        self._held = self._plaintext = b""
        await self._transport.aclose()


class NoiseSession(NamedTuple):
    """A client that knows our key, and says which machine it is."""

    machine_key: MachinePublic
    version: int  # its capability version
    stream: NoiseStream


async def _now(work: Callable[[], Accepted]) -> Accepted:
    await trio.lowlevel.checkpoint()  # in a storm, one at a time
    return work()


async def accept(
    stream: trio.abc.Stream,
    static_private: X25519PrivateKey,
    initiation: bytes,
    preface: bytes,
    turn: Turn | None = None,
) -> NoiseSession:
    """Answer *initiation*, with *preface* before it. Raises NoiseError, and then nothing was sent.

    A handshake is a quarter of a millisecond of work that anybody can ask for: `turn` does it when it is its turn.

    The machine key is proved by the first record that opens, not before: an initiation can be replayed.
    """

    def work() -> Accepted:
        return respond(static_private, initiation, X25519PrivateKey.generate())

    accepted = await (turn or _now)(work)
    secured = NoiseStream(
        stream, rx_key=accepted.rx_key, tx_key=accepted.tx_key, held=preface + accepted.response
    )
    return NoiseSession(MachinePublic(accepted.machine_key), accepted.version, secured)
