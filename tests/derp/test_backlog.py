"""What waits for a blocked connection, and how much of it."""

from hypothesis import given
from hypothesis import strategies as st

from derp.backlog import Backlog, Budget
from derp.counters import Counters
from derp.frames import FrameType, encode_frame
from derp.limits import URGENT_BYTES, Limits
from tests.derp.client import disco

LIMITS = Limits()


def a_backlog(limits: Limits = LIMITS) -> tuple[Backlog, Counters, Budget, Budget]:
    counters, key, process = Counters(), Budget(limits.key_bytes), Budget(limits.process_bytes)
    return Backlog(limits, counters, key, process), counters, key, process


def a_frame(size: int, fill: bytes = b"x") -> bytes:
    return encode_frame(FrameType.RECV_PACKET, bytes(32) + fill * size)


def take_all(backlog: Backlog) -> bytes:
    data = b""
    while frames := backlog.take(65536)[0]:
        data += frames
    return data


def test_thirty_two_packets_of_any_size_are_kept() -> None:
    backlog, counters, _, _ = a_backlog()
    for _ in range(32):
        backlog.push(a_frame(65536))
    assert (backlog.packets, counters.dropped_queue_head) == (32, 0)
    backlog.push(a_frame(65536))
    assert counters.dropped_queue_head >= 1
    assert backlog.packets == 32


def test_full_queue_drops_oldest_and_counts_it() -> None:
    backlog, counters, _, _ = a_backlog()
    for i in range(600):
        backlog.push(a_frame(1, bytes([i % 256])))
    assert backlog.packets == 512
    assert counters.dropped_queue_head == 88
    assert take_all(backlog)[37] == 88


def test_small_packets_share_256_kib() -> None:
    backlog, _, _, _ = a_backlog()
    for _ in range(500):
        backlog.push(a_frame(1400))
    assert backlog.size <= 256 << 10
    assert backlog.packets > 150


def test_disco_has_its_own_room_and_goes_first() -> None:
    backlog, _, _, _ = a_backlog()
    message = encode_frame(FrameType.RECV_PACKET, bytes(32) + disco())
    backlog.push(a_frame(10))
    backlog.push(message)
    for _ in range(600):
        backlog.push(a_frame(1400))
    backlog.push_urgent(b"pong")
    assert backlog.take(1)[0] == b"pong"
    assert backlog.take(1) == (message, 1)
    for _ in range(40):
        backlog.push(message)
    assert backlog.packets - 32 < 512


def test_urgent_frames_are_bounded() -> None:
    backlog, _, _, process = a_backlog()
    for _ in range(10_000):
        backlog.push_urgent(bytes(13))
    assert backlog.size <= URGENT_BYTES
    assert process.used == backlog.size


def test_key_budget_drops_from_the_one_that_pushes() -> None:
    backlog, counters, key, process = a_backlog()
    other = Backlog(LIMITS, counters, key, process)
    for _ in range(60):
        backlog.push(a_frame(65536))
        other.push(a_frame(65536))
    assert key.used <= key.limit
    assert counters.dropped_queue_key > 0


def test_discard_gives_everything_back() -> None:
    backlog, counters, key, process = a_backlog()
    backlog.keep_rest(b"rest")
    backlog.push_urgent(b"urgent")
    backlog.push(a_frame(100))
    backlog.push(encode_frame(FrameType.RECV_PACKET, bytes(32) + disco()))
    backlog.discard()
    assert (backlog.size, key.used, process.used) == (0, 0, 0)
    assert counters.dropped_gone_disconnected == 2


STEPS = st.one_of(
    st.tuples(st.just("push"), st.integers(0, 70_000)),
    st.tuples(st.just("disco"), st.integers(62, 3_000)),
    st.tuples(st.just("urgent"), st.integers(1, 500)),
    st.tuples(st.just("take"), st.integers(1, 100_000)),
    st.tuples(st.just("rest"), st.integers(1, 100_000)),
    st.tuples(st.just("sent"), st.integers(1, 100_000)),
    st.tuples(st.just("halve"), st.just(0)),
)


@given(st.lists(STEPS, max_size=60))
def test_budgets_always_equal_what_is_held(steps: list[tuple[str, int]]) -> None:
    backlog, _, key, process = a_backlog(Limits(key_bytes=300_000, queue_packets_any_size=4))
    for step, size in steps:
        match step:
            case "push":
                backlog.push(a_frame(size))
            case "disco":
                backlog.push(encode_frame(FrameType.RECV_PACKET, bytes(32) + disco(size)))
            case "urgent":
                backlog.push_urgent(bytes(size))
            case "take":
                before = backlog.packets
                assert backlog.take(size)[1] == before - backlog.packets
            case "rest":
                backlog.keep_rest(bytes(size))
            case "sent":
                backlog.rest_sent(min(size, len(backlog.rest)))
            case _:
                backlog.halve()
        assert key.used == process.used == backlog.size
