"""One HTTP/1 request head: read strictly, answered plainly.

h11 does the parsing. What it tolerates and a proxy in front of us may read differently is refused here, since that
difference is how requests are smuggled: a bare line feed, folded header lines, `Content-Length` beside
`Transfer-Encoding`. So are other versions of HTTP (also in the form of HTTP/2's "prior knowledge"), request targets that
name nothing of ours, and sizes beyond our limits.

    400  malformed or ambiguous        413  announced body too long        431  head too long
    501  coding we do not know         505  HTTP, but not 1.0 or 1.1

A target in absolute form (`GET https://host/key HTTP/1.1`, as a client written with hyper sends it) is its path; its host
is the request's, whatever the Host header says.

Source: RFC 9112 §2.2, §3, §3.2.2, §5.2, §6.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qs

import h11

from appliance.door.limits import BODY_BYTES, HEAD_BYTES, HEAD_FIELDS, HEAD_LINE, QUERY_FIELDS
from appliance.errors import HeadError

_ABSOLUTE = re.compile(r"https?://(?P<host>[^/?#@]+)(?P<path>([/?].*)?)\Z", re.IGNORECASE)
_AMBIGUOUS = re.compile(rb"(?<!\r)\n|\r(?!\n)|\n[ \t]")


@dataclass(frozen=True, slots=True)
class Head:
    """A request without its body."""

    method: str
    path: str
    """As sent, not decoded."""
    query: str
    version: str
    headers: tuple[tuple[str, str], ...]
    """Names in lower case."""
    raw: bytes
    """The head as it came."""
    rest: bytes
    """What came after it in the same read: the body, another request, or another protocol."""

    def get(self, name: str) -> str:
        """A header's first value, or the empty string."""
        return next((value for key, value in self.headers if key == name), "")

    def joined(self, name: str) -> str:
        """All values of a header, as one list."""
        return ",".join(value for key, value in self.headers if key == name)

    def parameter(self, name: str) -> str:
        """A parameter of the query, decoded; the empty string if it is missing or the query is nonsense."""
        try:
            values = parse_qs(self.query, max_num_fields=QUERY_FIELDS).get(name)
        except ValueError:
            return ""
        return values[0] if values else ""

    def tokens(self, name: str) -> set[str]:
        """All values of a header that is a comma-separated list, in lower case."""
        return {token for part in self.joined(name).split(",") if (token := part.strip().lower())}

    @property
    def upgrade(self) -> str:
        """The protocol asked for, in lower case; empty unless Connection says so too."""
        return self.get("upgrade").lower() if "upgrade" in self.tokens("connection") else ""

    @property
    def has_body(self) -> bool:
        return bool(self.get("transfer-encoding")) or self.get("content-length") not in ("", "0")

    @property
    def keep_alive(self) -> bool:
        return self.version == "1.1" and "close" not in self.tokens("connection")


class HeadReader:
    """Collects bytes until the head is whole; one reader per request."""

    def __init__(self) -> None:
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
        self._received = b""

    def feed(self, data: bytes) -> Head | None:
        """The head, once it is complete; `data` is never empty. Raises `HeadError`, and nothing else."""
        self._received += data
        try:
            self._h11.receive_data(data)
            event = self._h11.next_event()
        except h11.RemoteProtocolError as exc:
            raise HeadError(exc.error_status_hint, str(exc)) from exc
        if not isinstance(event, h11.Request):
            return None
        rest = bytes(self._h11.trailing_data[0])
        raw = self._received[: len(self._received) - len(rest)]
        _check_bytes(raw)
        return _head(event, raw, rest)


def _check_bytes(raw: bytes) -> None:
    lines = raw.split(b"\r\n")
    if len(raw) > HEAD_BYTES or max(map(len, lines)) > HEAD_LINE or len(lines) - 3 > HEAD_FIELDS:
        raise HeadError(431, "the request head is too long")
    if _AMBIGUOUS.search(raw):
        raise HeadError(400, "line ends and folded lines in the request head are ambiguous")


def _head(request: h11.Request, raw: bytes, rest: bytes) -> Head:
    version = request.http_version.decode("ascii")
    if version not in ("1.0", "1.1"):
        raise HeadError(505, "this server speaks HTTP/1.1")
    headers = tuple(
        (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in request.headers
    )
    names = [name for name, _ in headers]
    if "transfer-encoding" in names and "content-length" in names:
        raise HeadError(400, "two lengths for one body")
    target = request.target.decode("latin-1")
    if match := _ABSOLUTE.match(target):
        headers = (("host", match["host"]), *(each for each in headers if each[0] != "host"))
        target = match["path"] if match["path"].startswith("/") else "/" + match["path"]
        raw = raw.replace(request.target, target.encode("latin-1"), 1)
    if not target.startswith("/"):
        raise HeadError(400, "this server is no proxy")
    path, _, query = target.partition("?")
    head = Head(request.method.decode("ascii"), path, query, version, headers, raw, rest)
    if int(head.get("content-length") or 0) > BODY_BYTES:
        raise HeadError(413, f"a body of more than {BODY_BYTES} bytes is not accepted")
    if "h2c" in {part.strip().lower() for part in head.get("upgrade").split(",")}:
        raise HeadError(505, "this server does not speak HTTP/2 here")
    return head


def encode_head(status: int, headers: Iterable[tuple[str, str]]) -> bytes:
    """A response head; the caller knows what its protocol needs."""
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        *(f"{name}: {value}" for name, value in headers),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def encode_response(
    status: int,
    headers: Iterable[tuple[str, str]],
    body: bytes,
    *,
    head_only: bool = False,
    close: bool = False,
) -> bytes:
    """A whole response with its length."""
    fields = list(headers)
    if status != 204:
        fields.append(("Content-Length", str(len(body))))
    if close:
        fields.append(("Connection", "close"))
    return encode_head(status, fields) + (b"" if head_only or status == 204 else body)
