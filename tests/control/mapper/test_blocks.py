"""Blocks of peers: encoded once, right for everybody."""

from __future__ import annotations

import pytest

from control.mapper import blocks
from control.mapper.blocks import SIZE, slots_of
from tests.control.mapper.tailnet import Tailnet


def test_slots_of_a_bitset_ascend() -> None:
    assert list(slots_of(0)) == []
    assert list(slots_of(1 << 200 | 0b1011)) == [0, 1, 3, 200]


@pytest.mark.parametrize("nodes", [1, 2, SIZE, SIZE + 1, SIZE + 2, 3 * SIZE])
@pytest.mark.parametrize("viewer", [1, SIZE, -1])
@pytest.mark.parametrize("compressed", [False, True])
def test_full_map_holds_everybody_but_oneself(nodes: int, viewer: int, compressed: bool) -> None:
    tailnet = Tailnet(nodes=nodes)
    viewer = nodes if viewer < 0 else min(viewer, nodes)
    client = tailnet.open(viewer, compressed=compressed).read_all()
    assert list(client.peers) == [ident for ident in range(1, nodes + 1) if ident != viewer]


def test_blocks_are_encoded_once_for_all_viewers(monkeypatch: pytest.MonkeyPatch) -> None:
    tailnet = Tailnet(nodes=4 * SIZE)
    tailnet.open(1).read()
    tailnet.open(SIZE + 1).read()  # the first block as one that leads, too
    encoded: list[bytes] = []

    def encode_text(text: bytes, zstd: bool) -> bytes:
        encoded.append(text)
        return text

    monkeypatch.setattr(blocks, "encode_text", encode_text)
    for viewer in range(2, SIZE):
        tailnet.open(viewer, compressed=True).session.next_message(0)
    assert encoded == []


def test_change_encodes_its_own_block_again() -> None:
    tailnet = Tailnet(nodes=4 * SIZE)
    tailnet.open(1).read()
    tailnet.endpoints(4 * SIZE, "192.0.2.1:1")
    client = tailnet.open(2).read_all()
    assert client.peers[4 * SIZE]["Endpoints"] == ["192.0.2.1:1"]


def test_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "CACHE_BYTES", 40_000)
    tailnet = Tailnet(nodes=10 * SIZE)
    for viewer in (1, 100, 200, 300):
        assert len(tailnet.open(viewer, compressed=False).read_all().peers) == 10 * SIZE - 1
    assert 0 < tailnet.world.blocks.cached_bytes <= 40_000


def test_many_new_peers_in_a_delta_come_in_blocks() -> None:
    tailnet = Tailnet(nodes=1)
    watcher = tailnet.open(1)
    watcher.read()
    for _ in range(2 * SIZE):
        tailnet.add_node()
    assert watcher.read()
    assert len(watcher.client.peers) == 2 * SIZE
    assert watcher.client.messages == 2
