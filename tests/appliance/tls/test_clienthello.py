from __future__ import annotations

import ssl
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from appliance.errors import ClientHelloError
from appliance.tls.clienthello import ClientHello, ClientHelloReader, parse_client_hello
from appliance.tls.limits import CLIENT_HELLO_BYTES


def real_hello(name: str | None = "vpn.example.com", alpn: tuple[str, ...] = ()) -> bytes:
    """What OpenSSL sends first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if alpn:
        context.set_alpn_protocols(list(alpn))
    out = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name).do_handshake()
    return out.read()


def records(body: bytes, size: int) -> bytes:
    """A ClientHello with this body, in records of `size` bytes."""
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces)


def body_with(*extensions: tuple[int, bytes]) -> bytes:
    block = b"".join(
        kind.to_bytes(2, "big") + len(data).to_bytes(2, "big") + data for kind, data in extensions
    )
    return (
        b"\x03\x03"
        + bytes(32)
        + b"\x00"
        + b"\x00\x02\x13\x01"
        + b"\x01\x00"
        + len(block).to_bytes(2, "big")
        + block
    )


def sni(name: bytes) -> tuple[int, bytes]:
    entry = b"\x00" + len(name).to_bytes(2, "big") + name
    return 0, len(entry).to_bytes(2, "big") + entry


def feed_bytewise(data: bytes) -> ClientHello | None:
    reader = ClientHelloReader()
    for at in range(len(data)):
        hello = reader.feed(data[at : at + 1])
        if hello is not None:
            assert at == len(data) - 1, "answered before it was whole"
            assert reader.received == data
            return hello
    return None


@pytest.mark.parametrize(
    ("name", "alpn"),
    [
        ("vpn.example.com", ()),
        (None, ()),
        ("4.3.2.1.in-addr.arpa", ("acme-tls/1",)),
        ("a.test", ("h2", "http/1.1")),
    ],
)
def test_a_real_hello_tells_name_and_protocols(name: str | None, alpn: tuple[str, ...]) -> None:
    data = real_hello(name, alpn)
    assert ClientHelloReader().feed(data) == ClientHello(name, alpn)
    assert feed_bytewise(data) == ClientHello(name, alpn)


def test_clienthello_fed_bytewise_and_oversized() -> None:
    """F5: fragments are put together; 16 KiB in 4 records are the limit."""
    body = body_with(sni(b"VPN.Example.COM."), (21, bytes(200)))
    for size in (80, 120, 1000):
        assert feed_bytewise(records(body, size)) == ClientHello("vpn.example.com", ())
    with pytest.raises(ClientHelloError, match="more than 4 records"):
        feed_bytewise(records(body, 60))
    with pytest.raises(ClientHelloError, match="size"):
        feed_bytewise(records(body_with((21, bytes(CLIENT_HELLO_BYTES))), 16_000))
    with pytest.raises(ClientHelloError, match="size"):
        ClientHelloReader().feed(b"\x16\x03\x01\x00\x04\x01\xff\xff\xff")
    largest = body_with((21, bytes(CLIENT_HELLO_BYTES - 4 - len(body_with()) - 4)))
    assert feed_bytewise(records(largest, 8_000)) == ClientHello(None, ())


def test_what_follows_the_hello_is_kept() -> None:
    reader = ClientHelloReader()
    data = real_hello() + b"\x14\x03\x03\x00\x01\x01"
    assert reader.feed(data) is not None
    assert reader.received == data


@pytest.mark.parametrize(
    "name",
    [
        b"",
        b"a b",
        b"a_b",
        b"-a",
        b"a-",
        b"a..b",
        b".a",
        b"a/../b",
        b"\xff",
        b"a\x00b",
        b"a" * 64,
        b"a." * 150 + b"a",
        b"[::1]",
    ],
)
def test_a_name_that_dns_could_not_hold_is_refused(name: bytes) -> None:
    with pytest.raises(ClientHelloError, match="no host name"):
        parse_client_hello(body_with(sni(name)))


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x15\x03\x01\x00\x02\x02\x00",
        b"\x16\x02\x00",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\x00\x01\x02",
    ],
)
def test_anything_else_is_refused_as_soon_as_it_shows(data: bytes) -> None:
    with pytest.raises(ClientHelloError):
        feed_bytewise(data)


@given(st.binary(max_size=600), st.integers(1, 64))
@example(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", 3)
def test_any_bytes_are_a_hello_or_the_documented_error(data: bytes, size: int) -> None:
    reader = ClientHelloReader()
    with suppress(ClientHelloError):
        for at in range(0, len(data), size):
            reader.feed(data[at : at + size])


@given(st.binary(max_size=200))
def test_any_body_is_a_hello_or_the_documented_error(body: bytes) -> None:
    with suppress(ClientHelloError):
        parse_client_hello(body_with()[:41] + body)
