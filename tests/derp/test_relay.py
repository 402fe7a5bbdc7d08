"""Who is connected, and which connection speaks for a key. Connections are plain strings here."""

from hypothesis import given
from hypothesis import strategies as st

from derp.relay import Relay


def a_relay() -> Relay[str]:
    return Relay(connections_per_key=8, key_bytes=1000)


def test_newest_connection_is_active_until_another_speaks() -> None:
    relay = a_relay()
    peer, _ = relay.join(b"k", "a")
    relay.join(b"k", "b")
    assert peer.active == "b"
    relay.spoke(peer, "a")
    assert peer.active == "a"


def test_when_the_active_one_leaves_the_last_speaker_follows_else_the_newest() -> None:
    relay = a_relay()
    peer, _ = relay.join(b"k", "a")
    for name in "bcd":
        relay.join(b"k", name)
    relay.spoke(peer, "a")
    relay.spoke(peer, "b")
    relay.spoke(peer, "d")
    relay.leave(peer, "d")
    assert peer.active == "b"
    relay.leave(peer, "b")
    assert peer.active == "a"
    relay.leave(peer, "a")
    assert peer.active == "c"


def test_leaving_of_an_inactive_connection_changes_nothing() -> None:
    relay = a_relay()
    peer, _ = relay.join(b"k", "a")
    relay.join(b"k", "b")
    assert relay.leave(peer, "a") == set()
    assert peer.active == "b"


def test_only_the_last_connection_of_a_key_makes_it_gone() -> None:
    relay = a_relay()
    peer, _ = relay.join(b"k", "a")
    relay.join(b"k", "b")
    relay.join(b"other", "x")
    relay.delivered(peer, "x")
    assert relay.leave(peer, "b") == set()
    assert relay.leave(peer, "a") == {"x"}
    assert b"k" not in relay.peers


def test_who_left_is_not_told() -> None:
    relay = a_relay()
    peer, _ = relay.join(b"k", "a")
    other, _ = relay.join(b"other", "x")
    relay.delivered(peer, "x")
    relay.leave(other, "x")
    assert relay.leave(peer, "a") == set()


def test_too_many_connections_of_a_key_name_the_oldest() -> None:
    relay = a_relay()
    surplus = [relay.join(b"k", str(i))[1] for i in range(9)]
    assert surplus == [None] * 8 + ["0"]


@given(st.lists(st.tuples(st.sampled_from("jlsd"), st.integers(0, 5), st.integers(0, 5)), max_size=60))
def test_bookkeeping_holds_in_any_history(steps: list[tuple[str, int, int]]) -> None:
    """The active connection is always one of the key's, and no trace of a connection outlives it."""
    alive: dict[int, bytes] = {}
    serial = 100
    relay: Relay[int] = Relay(8, 1000)
    for step, i, j in steps:
        key = bytes([i % 3])
        members = list(alive)
        if step == "j":
            serial += 1
            relay.join(key, serial)
            alive[serial] = key
        elif members:
            a, b = members[i % len(members)], members[j % len(members)]
            peer = relay.peers[alive[a]]
            if step == "s":
                relay.spoke(peer, a)
            elif step == "d":
                relay.delivered(peer, b)
            else:
                told = relay.leave(peer, a)
                del alive[a]
                assert told <= set(alive)
        for peer in relay.peers.values():
            assert peer.active in peer.connections
            assert set(peer.speakers) <= set(peer.connections)
            assert peer.reached <= set(alive)
        assert set(relay._heard) <= set(alive)
        assert set(relay.peers) == set(alive.values())
