"""Logs: one event, one line, on stderr.

    2026-01-31T12:00:00Z INFO control.map: session opened node=7 remote=198.51.100.7         text
    <6>control.map: session opened node=7 remote=198.51.100.7                                journal (syslog(3) priority)
    {"time":"…","level":"info","logger":"control.map","message":"session opened","node":7}   json

The text of a call is constant, and fields are what it passes in `extra={"node": 7, "remote": "198.51.100.7"}`; their names are
listed in tests/test_architecture.py. What clients call themselves ends up in them, so no text begins a second line: control
characters become escapes, a field ends at 256 characters. A kind of line (its logger and text) from one source (`remote`: an
IPv4 /24, an IPv6 /64) is written five times a second after a burst of 20; the rest is counted, and the count is written when it
is quiet again. Tracebacks carry no values of variables. (security.md G1, G2)

INFO: a session opened, a session closed, somebody joined or was refused. WARNING: the operator should act, and `hint` says how.
ERROR: a bug, with its traceback. DEBUG: what peers did wrong.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from appliance.door.preauth import source_of
from appliance.printable import printable

FIELD_MAX = 256
MESSAGE_MAX = 512
TRACEBACK_MAX = 16 * 1024
RATE_PER_S = 5.0
BURST = 20.0
KINDS_MAX = 1024  # buckets kept; the longest unused goes first
LIBRARIES = ("hypercorn", "quart", "h2", "hpack", "wsproto", "asyncio")  # speak only when something is wrong

Format = Literal["auto", "text", "json"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_PRIORITIES = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}
_COLOURS = {"DEBUG": "2", "WARNING": "33", "ERROR": "31", "CRITICAL": "31"}


def set_up(level: str, format: Format, *, stream: TextIO | None = None) -> None:  # noqa: A002  (the setting's name)
    """Configure the root logger, once, for the process."""
    out = sys.stderr if stream is None else stream
    handler = LimitedHandler(out)
    handler.setFormatter(_formatter(format, out, os.environ))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)


def flush() -> None:
    """Write the counts of what was held back; at the end of the process."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LimitedHandler):
            handler.write_counts(quiet_s=0.0)


def _formatter(format: Format, out: TextIO, environ: Mapping[str, str]) -> logging.Formatter:  # noqa: A002
    if format == "json":
        return JsonFormatter()
    if format == "auto" and _is_journal(out, environ):
        return JournalFormatter()
    return TextFormatter(colour=out.isatty())


def _is_journal(out: TextIO, environ: Mapping[str, str]) -> bool:
    """JOURNAL_STREAM is inherited by children whose stderr is elsewhere: compare it with ours (systemd.exec(5))."""
    try:
        status = os.fstat(out.fileno())
    except (OSError, io.UnsupportedOperation):
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What the call passed in `extra`."""
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _key_value(name: str, value: Any) -> str:
    text = printable(str(value), FIELD_MAX)
    if not text or any(char in text for char in ' "='):
        text = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"{name}={text}"


def _line(record: logging.LogRecord) -> str:
    pairs = [_key_value(name, value) for name, value in fields_of(record).items()]
    return " ".join([f"{record.name}: {printable(record.getMessage(), MESSAGE_MAX)}", *pairs])


def _traceback_lines(record: logging.LogRecord) -> list[str]:
    if not record.exc_info or record.exc_info[1] is None:
        return []
    text = "".join(traceback.format_exception(record.exc_info[1]))[-TRACEBACK_MAX:]
    return [f"    {printable(line, MESSAGE_MAX)}" for line in text.splitlines()]


class TextFormatter(logging.Formatter):
    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self.colour = colour

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_rfc3339(record.created)} {record.levelname} {_line(record)}"
        code = _COLOURS.get(record.levelname) if self.colour else None
        return "\n".join([f"\x1b[{code}m{line}\x1b[0m" if code else line, *_traceback_lines(record)])


class JournalFormatter(logging.Formatter):
    """The journal knows the time; every line of a traceback carries the priority, for it is an entry of its own."""

    def format(self, record: logging.LogRecord) -> str:
        priority = f"<{_PRIORITIES.get(record.levelname, 6)}>"
        return "\n".join(priority + line for line in (_line(record), *_traceback_lines(record)))


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, Any] = {
            "time": _rfc3339(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": printable(record.getMessage(), MESSAGE_MAX),
        }
        for name, value in fields_of(record).items():
            plain = isinstance(value, (int, float, bool))
            document[name] = value if plain else printable(str(value), FIELD_MAX)
        if lines := _traceback_lines(record):
            document["traceback"] = "\n".join(lines)
        return json.dumps(document, ensure_ascii=False)


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class _Bucket:
    """How many lines of one kind and source may still be written, and how many were not."""

    __slots__ = ("at", "held", "record", "tokens")

    def __init__(self, now: float) -> None:
        self.tokens = BURST
        self.at = now
        self.held = 0
        self.record: logging.LogRecord | None = None  # the last one held back

    def take(self, now: float) -> bool:
        self.tokens = min(BURST, self.tokens + (now - self.at) * RATE_PER_S)
        self.at = now
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True


class LimitedHandler(logging.StreamHandler[TextIO]):
    """Writes to a stream, not more than five lines a second of one kind and source."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream)
        self._clock = clock
        self._buckets: OrderedDict[tuple[str, str, str], _Bucket] = OrderedDict()
        self._counts_at = clock()

    def emit(self, record: logging.LogRecord) -> None:
        now = self._clock()
        if now - self._counts_at >= 1.0:
            self.write_counts(quiet_s=1.0)
        kind = (record.name, str(record.msg), _source(record))
        bucket = self._buckets.get(kind)
        if bucket is None:
            bucket = self._buckets[kind] = _Bucket(now)
            if len(self._buckets) > KINDS_MAX:
                self._write_count(self._buckets.popitem(last=False)[1])
        self._buckets.move_to_end(kind)
        if bucket.take(now):
            super().emit(record)
        else:
            bucket.held += 1
            bucket.record = record

    def write_counts(self, *, quiet_s: float) -> None:
        """Say how many lines were held back, for every kind and source that has been quiet for so long."""
        now = self._counts_at = self._clock()
        for bucket in self._buckets.values():
            if now - bucket.at >= quiet_s:
                self._write_count(bucket)

    def _write_count(self, bucket: _Bucket) -> None:
        if bucket.record is None:
            return
        last, bucket.record = bucket.record, None
        held, bucket.held = bucket.held, 0
        kept = ("name", "levelname", "levelno", "msg", "args")
        line = logging.makeLogRecord({name: getattr(last, name) for name in kept})
        line.not_written = held
        if source := _source(last):
            line.source = source
        super().emit(line)


def _source(record: logging.LogRecord) -> str:
    """The network that a line's `remote` lies in; "" when it has none."""
    return source_of(str(getattr(record, "remote", "")))[:FIELD_MAX]
