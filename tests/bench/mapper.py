"""What sharing saves in map sessions: `python -m tests.bench.mapper [nodes]`. Ratios count; times are this machine's."""

from __future__ import annotations

import hashlib
import sys
import time
import tracemalloc
from collections.abc import Callable

from control.keys import DiscoPublic, NodePublic
from control.mapper.blocks import Blocks
from control.mapper.session import Session
from control.state.volatile import Volatile
from control.tailcfg.hostinfo import Hostinfo, Service
from tests.control.mapper.tailnet import Tailnet


def cpu(work: Callable[[], object]) -> float:
    """Microseconds of CPU."""
    began = time.process_time()
    work()
    return (time.process_time() - began) * 1e6


def fleet(nodes: int) -> Tailnet:
    tailnet = Tailnet(users=20)
    for number in range(1, nodes + 1):
        host = Hostinfo(
            os="linux",
            hostname=f"node{number}",
            services=[
                Service(proto="peerapi4", port=40000 + number),
                Service(proto="peerapi6", port=40000 + number),
            ],
        )
        volatile = Volatile(
            endpoints=tuple(f"203.0.113.{number % 250}:{port}" for port in range(41641, 41646)),
            disco_key=DiscoPublic(hashlib.sha256(b"disco%d" % number).digest()),
            home_derp=900,
            capver=130,
            online=True,
            last_seen=tailnet.now,
            hostinfo=host,
        )
        node_key = NodePublic(hashlib.sha256(b"node%d" % number).digest())  # as hard to compress as real ones
        tailnet.add_node(volatile, node_key=node_key, user_id=1 + number % 20, expires_at=tailnet.now + 1e7)
    return tailnet


def main(nodes: int) -> None:
    tailnet = fleet(nodes)
    world, now = tailnet.world, tailnet.now
    print(f"{nodes} nodes; a world from nothing: {cpu(tailnet.fresh_world) / 1e3:.0f} ms")

    sizes = {zstd: len(Session(world, 1, zstd=zstd).next_message(now) or b"") for zstd in (True, False)}
    print(f"full map: {sizes[True] / 1e3:.0f} kB compressed, {sizes[False] / 1e3:.0f} kB plain")

    sessions = {ident: Session(world, ident, zstd=True) for ident in world.peers}
    warm = cpu(lambda: [session.next_message(now) for session in sessions.values()]) / nodes
    sample = [Session(world, ident, zstd=True) for ident in range(1, 21)]

    def cold() -> None:
        for session in sample:
            world.blocks = Blocks(world.by_slot)
            session.next_message(now)

    cold_cost = cpu(cold) / len(sample)
    print(
        f"full map of a reconnecting session: {warm:.0f} µs with warm blocks, {cold_cost:.0f} without: 1:{cold_cost / warm:.0f}"
    )

    def reconnect() -> None:
        for ident in world.peers:
            tailnet.online(ident, False)
            tailnet.online(ident, True)
            Session(world, ident, zstd=True).next_message(now)

    for session in sample:
        session.close()
    others = list(sessions.values())
    for session in others:
        session.close()
    storm = cpu(reconnect) / nodes
    print(f"the same while each of them comes online anew: {storm:.0f} µs")

    watchers = [Session(world, ident, zstd=True) for ident in range(2, nodes + 1)]
    for session in watchers:
        session.next_message(now)
    mark = cpu(lambda: tailnet.endpoints(1, "192.0.2.1:1"))
    messages: list[bytes | None] = []
    build = cpu(lambda: messages.extend(session.next_message(now) for session in watchers))
    tailnet.endpoints(1, "192.0.2.2:1")

    def encode_alone() -> None:
        for session in watchers:
            world.deltas.clear()
            session.next_message(now)

    alone = cpu(encode_alone)
    print(
        f"one endpoint change to {len(watchers)} sessions: {mark:.0f} µs to mark, {build:.0f} µs to build,"
        f" {len(set(map(id, messages)))} encoding(s) of {len(messages[0] or b'')} B; {alone:.0f} µs if each encodes its own"
    )

    tracemalloc.start()
    more = [Session(world, 1, zstd=True) for _ in range(1000)]
    for session in more:
        session.next_message(now)
    print(f"memory of a quiet session: {tracemalloc.get_traced_memory()[0] / len(more):.0f} B")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
