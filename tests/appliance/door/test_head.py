from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.door.head import Head, HeadReader, encode_response
from appliance.door.limits import BODY_BYTES, HEAD_BYTES, HEAD_FIELDS, HEAD_LINE
from appliance.errors import HeadError

GOOD = b"GET /path?a=1&b=%2B HTTP/1.1\r\nHost: x\r\nConnection: Keep-Alive, Upgrade\r\nUpgrade: DERP\r\n\r\n"


def read(data: bytes, step: int | None = None) -> Head | None:
    reader = HeadReader()
    step = step or len(data)
    for at in range(0, len(data), step):
        head = reader.feed(data[at : at + step])
        if head is not None:
            return head
    return None


@pytest.mark.parametrize("step", [1, 7, None])
def test_a_head_is_read_however_it_arrives(step: int | None) -> None:
    head = read(GOOD, step)
    assert head is not None
    assert (head.method, head.path, head.query, head.version) == ("GET", "/path", "a=1&b=%2B", "1.1")
    assert head.raw == GOOD
    assert head.rest == b""
    assert head.upgrade == "derp"
    assert head.parameter("b") == "+"
    assert head.parameter("c") == ""
    assert head.keep_alive
    assert not head.has_body


@pytest.mark.parametrize(
    ("target", "path", "query", "host"),
    [
        (b"https://hs.example/key?v=142", "/key", "v=142", "hs.example"),
        (b"http://hs.example:8080/", "/", "", "hs.example:8080"),
        (b"HTTPS://hs.example", "/", "", "hs.example"),
        (b"https://hs.example?v=1", "/", "v=1", "hs.example"),
    ],
)
def test_a_target_in_absolute_form_is_its_path_and_its_host(
    target: bytes, path: str, query: str, host: str
) -> None:
    """RFC 9112 §3.2.2; Tailscale's Rust library asks like this."""
    head = read(b"GET " + target + b" HTTP/1.1\r\nHost: other\r\n\r\n")
    assert head is not None
    assert (head.path, head.query, head.joined("host")) == (path, query, host)
    assert head.raw.startswith(b"GET /")  # so that whoever parses it again reads the same


def test_what_follows_the_head_is_kept() -> None:
    head = read(GOOD + b"\x00rest")
    assert head is not None
    assert (head.raw, head.rest) == (GOOD, b"\x00rest")


@pytest.mark.parametrize(
    ("line", "has_body", "keep_alive", "upgrade"),
    [
        (b"Content-Length: 0", False, True, ""),
        (b"Content-Length: 5", True, True, ""),
        (b"Transfer-Encoding: chunked", True, True, ""),
        (b"Connection: close", False, False, ""),
        (b"Upgrade: derp", False, True, ""),
        (b"Connection: foo\r\nConnection: upgrade\r\nUpgrade: DERP", False, True, "derp"),
    ],
)
def test_framing_headers_are_understood(line: bytes, has_body: bool, keep_alive: bool, upgrade: str) -> None:
    head = read(b"GET / HTTP/1.1\r\nHost: x\r\n" + line + b"\r\n\r\n")
    assert head is not None
    assert (head.has_body, head.keep_alive, head.upgrade) == (has_body, keep_alive, upgrade)


def get(*lines: bytes, first: bytes = b"GET / HTTP/1.1") -> bytes:
    return b"\r\n".join([first, b"Host: x", *lines, b"", b""])


@pytest.mark.parametrize(
    ("status", "data"),
    [
        (400, b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"),
        (400, b"hello\r\n\r\n"),
        (400, get(b"no colon")),
        (400, get(b"Host: y")),
        (400, b"GET / HTTP/1.1\r\n\r\n"),
        (400, get(b"Content-Length: 5", b"Transfer-Encoding: chunked")),
        (400, get(b"Content-Length: 5", b"Content-Length: 6")),
        (400, get(b"Content-Length: +5")),
        (400, get(b"X: a", b" folded")),
        (400, b"GET / HTTP/1.1\nHost: x\n\n"),
        (400, get(b"X: a\nHost: y")),
        (400, get(b"X : a")),
        (400, get(b"X: a\0b")),
        (400, get(first=b"GET ftp://x/ HTTP/1.1")),
        (400, get(first=b"GET http://user@x/ HTTP/1.1")),
        (400, get(first=b"CONNECT x:443 HTTP/1.1")),
        (400, get(first=b"OPTIONS * HTTP/1.1")),
        (413, get(b"Content-Length: %d" % (BODY_BYTES + 1))),
        (431, get(b"X: " + b"a" * HEAD_BYTES)),
        (431, get(b"X: " + b"a" * HEAD_LINE)),
        (431, get(*[b"X: a"] * HEAD_FIELDS)),
        (501, get(b"Transfer-Encoding: gzip")),
        (505, get(first=b"GET / HTTP/2.0")),
        (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (505, get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAAA")),
        (505, get(b"Upgrade: websocket, H2C")),
    ],
)
@pytest.mark.parametrize("step", [100, None])
def test_each_bad_head_has_its_status(status: int, data: bytes, step: int | None) -> None:
    with pytest.raises(HeadError) as caught:
        read(data, step)
    assert caught.value.status == status


def test_as_many_fields_as_allowed_are_fine() -> None:
    assert read(get(*[b"X: a"] * (HEAD_FIELDS - 1))) is not None


@given(st.binary(max_size=300), st.integers(1, 50))
def test_any_bytes_are_a_head_or_the_documented_error(data: bytes, step: int) -> None:
    with suppress(HeadError):
        read(b"GET /" + data + b"\r\n\r\n", step)


@given(st.text(max_size=60))
def test_any_query_has_a_parameter_or_none(query: str) -> None:
    assert isinstance(Head("GET", "/", query, "1.1", (), b"", b"").parameter("a"), str)


def test_responses_have_their_length_but_204_has_none() -> None:
    assert (
        encode_response(200, [("A", "b")], b"hi") == b"HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 2\r\n\r\nhi"
    )
    assert encode_response(200, [], b"hi", head_only=True) == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    assert (
        encode_response(204, [], b"", close=True) == b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
    )
