"""Frame budgets: which frames count, and that the cut of the wire does not matter."""

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from control import limits
from control.limits import Rate
from control.machine.abuse import PREFACE_BYTES, FrameCounter

PREFACE = bytes(PREFACE_BYTES)

COUNTED: list[tuple[str, Frame, Rate]] = [
    ("RST_STREAM", RstStreamFrame(1), limits.RST_STREAM_FRAMES),
    ("SETTINGS", SettingsFrame(0), limits.SETTINGS_FRAMES),
    ("PING", PingFrame(0, bytes(8)), limits.PING_FRAMES),
    ("PING", PingFrame(0, bytes(8), flags=["ACK"]), limits.PING_FRAMES),
    ("empty DATA", DataFrame(1), limits.EMPTY_DATA_FRAMES),
    ("empty DATA", DataFrame(1, b"x", pad_length=200, flags=["PADDED"]), limits.EMPTY_DATA_FRAMES),
    ("WINDOW_UPDATE", WindowUpdateFrame(1, window_increment=1), limits.WINDOW_UPDATE_FRAMES),
    ("CONTINUATION", ContinuationFrame(1, b"x"), limits.CONTINUATION_FRAMES),
    ("other", PriorityFrame(1), limits.OTHER_FRAMES),
]
FREE: list[Frame] = [HeadersFrame(1, b"x"), DataFrame(1, b"x"), DataFrame(1, flags=["END_STREAM"])]


@pytest.mark.parametrize(("name", "frame", "rate"), COUNTED, ids=lambda value: getattr(value, "name", None))
@pytest.mark.parametrize("step", [1, 10, 100_000])
def test_each_kind_has_its_budget_however_the_wire_is_cut(
    name: str, frame: Frame, rate: Rate, step: int
) -> None:
    wire = PREFACE + rate.burst * frame.serialize()
    counter = FrameCounter()
    for start in range(0, len(wire), step):
        assert counter.receive_data(wire[start : start + step], 0, now=0.0) is None
    assert counter.receive_data(frame.serialize(), 0, now=0.0) == name
    assert counter.over_budget == name


@pytest.mark.parametrize(("name", "frame", "rate"), COUNTED)
def test_a_budget_refills_with_time(name: str, frame: Frame, rate: Rate) -> None:
    counter = FrameCounter()
    counter.receive_data(PREFACE + rate.burst * frame.serialize(), 0, now=100.0)
    assert counter.receive_data(frame.serialize(), 0, now=101.0) is None
    refilled_once = min(int(rate.per_second), rate.burst)
    assert counter.receive_data(refilled_once * frame.serialize(), 0, now=101.0) == name


def test_headers_content_and_the_end_of_a_body_are_free() -> None:
    counter = FrameCounter()
    wire = b"".join(frame.serialize() for frame in FREE)
    assert counter.receive_data(PREFACE + 10_000 * wire, 0, now=0.0) is None


def test_what_we_send_earns_the_client_its_window_updates() -> None:
    """Go's client sends two for each 4 KiB that it has read: 1,500 at once for a map of 3 MB."""
    counter = FrameCounter()
    wire = WindowUpdateFrame(1, window_increment=4096).serialize()
    sent_bytes = 3_000_000
    assert counter.receive_data(PREFACE + sent_bytes // 2048 * wire, sent_bytes, now=0.0) is None
    assert counter.receive_data(sent_bytes // 2048 * wire, sent_bytes, now=0.0) is None
    assert counter.receive_data(sent_bytes // 2048 * wire, sent_bytes, now=0.0) == "WINDOW_UPDATE"
