"""control/machine/presence.py: streams are counted, and the last one's end counts only after a grace."""

from __future__ import annotations

from control.machine.presence import GRACE_S, PRESUMED_S, Presence


class Heard:
    """A presence, and what it said."""

    def __init__(self) -> None:
        self.said: list[tuple[int, bool]] = []
        self.presence = Presence(lambda node_id, online: self.said.append((node_id, online)))


def test_offline_is_said_after_the_grace_and_once() -> None:
    heard = Heard()
    heard.presence.connected(1)
    heard.presence.disconnected(1, 100.0)
    heard.presence.tick(100.0 + GRACE_S - 0.1)
    assert heard.said == [(1, True)]
    assert not heard.presence.has_stream(1)
    heard.presence.tick(100.0 + GRACE_S)
    heard.presence.tick(100.0 + 2 * GRACE_S)
    assert heard.said == [(1, True), (1, False)]


def test_a_client_that_comes_back_within_the_grace_was_never_gone() -> None:
    """control.md §12 no. 43."""
    heard = Heard()
    heard.presence.connected(1)
    heard.presence.disconnected(1, 100.0)
    heard.presence.connected(1)
    heard.presence.tick(200.0)
    assert (1, False) not in heard.said


def test_the_end_of_a_superseded_stream_is_no_end() -> None:
    """control.md §12 no. 43: the new stream opens before the old one ends."""
    heard = Heard()
    heard.presence.connected(1)
    heard.presence.connected(1)
    heard.presence.disconnected(1, 100.0)
    heard.presence.tick(200.0)
    assert heard.presence.has_stream(1)
    assert (1, False) not in heard.said
    heard.presence.disconnected(1, 200.0)
    heard.presence.tick(200.0 + GRACE_S)
    assert heard.said[-1] == (1, False)


def test_nodes_that_were_online_before_a_restart_have_a_minute_to_return() -> None:
    """state.md A.13."""
    heard = Heard()
    heard.presence.presume([1, 2], 0.0)
    assert not heard.presence.has_stream(1)
    heard.presence.connected(1)
    heard.presence.tick(PRESUMED_S - 0.1)
    assert heard.said == [(1, True)]
    heard.presence.tick(PRESUMED_S)
    assert heard.said == [(1, True), (2, False)]


def test_nodes_are_counted_once_and_apart() -> None:
    heard = Heard()
    for node_id in (1, 1, 2):
        heard.presence.connected(node_id)
    assert heard.presence.connected_count == 2
    heard.presence.disconnected(2, 0.0)
    assert heard.presence.connected_count == 1
