"""The promise of map sessions, over random histories (state.md B).

`make test` runs 2,000 histories of a small tailnet and 40 of one with several blocks; `make test-long` 30,000 and 1,000.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import pytest

from control.mapper import session as session_module
from control.mapper.blocks import Blocks
from control.mapper.peers import Peer
from control.mapper.session import Delta, Session
from control.mapper.world import World
from control.state.volatile import Group
from tests.control.mapper.client import Wrong
from tests.control.mapper.histories import History
from tests.control.mapper.tailnet import Tailnet

SMALL, WIDE = 200, 4
PATIENCE = 600  # histories until a broken session must have shown


def live_through(first: int, count: int, nodes: int) -> None:
    checks = 0
    for seed in range(first, first + count):
        history = History(seed, nodes=nodes)
        history.run()
        checks += history.checks
    assert checks > count, "hardly anything was compared"


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(10))
def test_replayed_messages_equal_a_fresh_map(chunk: int) -> None:
    live_through(chunk * SMALL, SMALL, nodes=3)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(10))
def test_replayed_messages_equal_a_fresh_map_of_several_blocks(chunk: int) -> None:
    live_through(100_000 + chunk * WIDE, WIDE, nodes=70)


@pytest.mark.long
@pytest.mark.parametrize("chunk", range(40))
def test_replayed_messages_equal_a_fresh_map_for_long(chunk: int) -> None:
    live_through(1_000_000 + chunk * 750, 750, nodes=3)
    live_through(2_000_000 + chunk * 25, 25, nodes=70)


def test_quiet_session_has_nothing_to_send() -> None:
    tailnet = Tailnet(nodes=3)
    watcher = tailnet.open(1)
    watcher.read()
    for _ in range(200):
        tailnet.pass_time(1)
        assert not watcher.session.stale
        assert not watcher.read()


# Sessions that are broken on purpose: what the property is worth.


def _no_mark_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that was out of sight between two messages is forgotten."""
    monkeypatch.setattr(Session, "mark_view", lambda self, gained: self.mark())


def _no_dirty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "mark_peers", lambda self, ids: None)


def _patch_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patches go out for peers that the client does not have."""
    real = Session._suspects
    monkeypatch.setattr(Session, "_suspects", lambda self, both, moved: real(self, -1, moved))


def _ignore_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "rerouted", lambda old, new: frozenset())


def _ignore_readd(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Session._compare_peer

    def compare(self: Session, base: int, peer: Peer, moved: bool, delta: Delta) -> None:
        peer.revs["readd"] = 0
        real(self, base, peer, moved, delta)

    monkeypatch.setattr(Session, "_compare_peer", compare)


def _readd_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removed and changed in one message."""
    real = Session._compare_peer

    def compare(self: Session, base: int, peer: Peer, moved: bool, delta: Delta) -> None:
        real(self, base, peer, moved, delta)
        delta.whole |= self._owed
        self._owed = 0

    monkeypatch.setattr(Session, "_compare_peer", compare)


def _offline_by_whole_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """There and back again, and offline: LastSeen is lost."""
    real = Session._compare_peer

    def compare(self: Session, base: int, peer: Peer, moved: bool, delta: Delta) -> None:
        real(self, base, peer, moved, delta)
        if delta.whole & peer.bit and delta.patches and delta.patches[-1][0] is peer:
            delta.patches.pop()

    monkeypatch.setattr(Session, "_compare_peer", compare)


def _no_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "_compare_users", lambda *args: [])


def _no_renames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "mark_user", lambda self, user: None)


def _silent_deletion(monkeypatch: pytest.MonkeyPatch) -> None:
    def finish(self: Session, self_json: bytes, user: int) -> None:
        self.ended = True

    monkeypatch.setattr(Session, "finish", finish)


def _no_self(monkeypatch: pytest.MonkeyPatch) -> None:
    def stamp(self: World, peer: Peer) -> None:
        pass

    monkeypatch.setattr(World, "_stamp_self", stamp)


def _no_expiry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is told when a key runs out; a restart would know."""
    real = World.tick
    monkeypatch.setattr(World, "tick", lambda self, now: real(self, now, expire=False))


def _failover_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Routers come and go, and no election follows until a restart."""
    real = World.on_touch

    def on_touch(self: World, node_id: int, groups: Collection[Group], now: float) -> None:
        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(World, "_offer", lambda self, peer: None)
            real(self, node_id, groups, now)

    monkeypatch.setattr(World, "on_touch", on_touch)


def _stale_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Blocks, "touch", lambda self, slot, rev: None)


def _restless(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unchanged section is sent again and again."""
    real = Session._compare

    def compare(self: Session, *args: object) -> Delta:
        self._sections = (b"", *self._sections[1:])
        return real(self, *args)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(Session, "_compare", compare)


SMALL_MUTANTS = [
    _no_mark_view, _no_dirty, _patch_strangers, _ignore_routes, _ignore_readd, _readd_at_once, _offline_by_whole_node,
    _no_profiles, _no_renames, _silent_deletion, _no_self, _no_expiry, _failover_forgotten, _restless,
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("mutant", SMALL_MUTANTS)
def test_broken_session_is_caught(
    mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)
    with pytest.raises(Wrong):
        live_through(0, PATIENCE, nodes=3)


@pytest.mark.slow
def test_stale_block_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    _stale_blocks(monkeypatch)
    with pytest.raises(Wrong):
        live_through(0, 30, nodes=70)
