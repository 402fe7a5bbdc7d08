"""Count the HTTP/2 frames that cost us more than their sender.

    | length (24) | type (8) | flags (8) | stream (32) | payload |        after a preface of 24 bytes

Some frames make the receiver work (RST_STREAM throws away a request that was already begun), or answer (SETTINGS,
PING), or keep a half-read header block in memory (CONTINUATION), or do nothing but be parsed. Each kind has a budget a
connection. We read the frames' headers ourselves, before the h2 library sees the bytes: it reports no event for some
of them, and reports the others only after it has done the work for all.

Source: RFC 9113 §4.1, §10.5; CVE-2023-44487 (rapid reset), CVE-2019-9512 to 9518 (floods).
"""

from control import limits
from control.limits import Budget

PREFACE_BYTES = 24
HEADER_BYTES = 9

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM = 0x1
PADDED = 0x8

NAMES_AND_RATES = {
    DATA: ("empty DATA", limits.EMPTY_DATA_FRAMES),
    RST_STREAM: ("RST_STREAM", limits.RST_STREAM_FRAMES),
    SETTINGS: ("SETTINGS", limits.SETTINGS_FRAMES),
    PING: ("PING", limits.PING_FRAMES),
    WINDOW_UPDATE: ("WINDOW_UPDATE", limits.WINDOW_UPDATE_FRAMES),
    CONTINUATION: ("CONTINUATION", limits.CONTINUATION_FRAMES),
}
OTHER = 0xFF  # PRIORITY, PUSH_PROMISE and whatever is not known share one budget
NAME_AND_RATE_OF_OTHERS = ("other", limits.OTHER_FRAMES)


class FrameCounter:
    """The frames of one connection, as they arrive."""

    __slots__ = ("_budgets", "_partial", "_skip", "_window_updates", "over_budget")

    def __init__(self) -> None:
        self.over_budget: str | None = None  # the first kind of which there were too many
        self._budgets: dict[int, Budget] = {}  # only kinds that were seen: an idle client sends two
        self._skip = PREFACE_BYTES  # bytes until the next frame header
        self._partial = b""  # of that header
        self._window_updates = 0  # that what we sent was reason for

    def receive_data(self, data: bytes, sent_bytes: int, now: float) -> str | None:
        """Count the frames that begin in *data*; returns `over_budget`.

        *sent_bytes* is how much we have sent in DATA frames so far, which is a reason for WINDOW_UPDATE frames.
        """
        data = self._partial + data
        position = self._skip
        while position + HEADER_BYTES <= len(data):
            length = int.from_bytes(data[position : position + 3], "big")
            kind = data[position + 3]
            if kind == WINDOW_UPDATE and self._window_updates < sent_bytes // limits.BYTES_PER_WINDOW_UPDATE:
                self._window_updates += 1
            else:
                self._count(kind, data[position + 4], length, now)
            position += HEADER_BYTES + length
        self._skip = max(position - len(data), 0)
        self._partial = data[position:]
        return self.over_budget

    def charge(self, kind: int, now: float) -> None:
        """Count one frame of *kind*, as if it had arrived."""
        name, rate = NAMES_AND_RATES.get(kind, NAME_AND_RATE_OF_OTHERS)
        budget = self._budgets.get(kind)
        if budget is None:
            budget = self._budgets[kind] = Budget(rate, now)
        if not budget.spend(1, now):
            self.over_budget = self.over_budget or name

    def _count(self, kind: int, flags: int, length: int, now: float) -> None:
        if kind in (HEADERS, GOAWAY):
            return  # bounded by the streams that may be open; the last frame anyway
        # The end of a body is often an empty frame. Padding may hide that there is nothing else; no client of ours
        # pads, so a padded frame counts as empty.
        if kind == DATA and (flags & END_STREAM or (length and not flags & PADDED)):
            return
        self.charge(kind if kind in NAMES_AND_RATES else OTHER, now)
