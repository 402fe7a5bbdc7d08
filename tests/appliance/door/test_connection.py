from __future__ import annotations

import base64
import ipaddress
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from appliance.door.limits import HEAD_SECONDS, IDLE_SECONDS
from appliance.tls.limits import CLIENT_HELLO_SECONDS, HANDSHAKE_SECONDS
from tests.appliance.door.running import DERP, INITIATION, RELAY_KEY, TS2021, running_door
from tests.appliance.tls.connected import NAME
from tests.appliance.tls.test_clienthello import real_hello

LOOPBACK = [ipaddress.ip_network("127.0.0.0/8")]
DERP_HEAD = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\nDerp-Version: 2\r\n"
    b"Derp-Public-Key: " + RELAY_KEY.hex().encode() + b"\r\n\r\n"
)
CONTROL_HEAD = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: tailscale-control-protocol\r\nConnection: upgrade\r\n\r\n"
)


async def test_our_own_routes_answer_several_times_on_one_connection(tmp_path: Path) -> None:
    async with running_door(tmp_path) as running, running.tls() as client:
        key = await client.ask("GET /key?v=125")
        assert (key.status, key.body) == (200, b'{"publicKey":"mkey:00"}')
        assert key.headers["access-control-allow-origin"] == "*"
        for path in ("/derp/probe", "/derp/latency-check"):
            for method in ("GET", "HEAD"):
                probe = await client.ask(f"{method} {path}")
                assert (probe.status, probe.body, probe.headers["access-control-allow-origin"]) == (
                    200,
                    b"",
                    "*",
                )
        assert (await client.ask("GET /health")).body == b'{"status": "pass"}'
        running.fakes.healthy = False
        failing = await client.ask("GET /health")
        assert (failing.status, failing.body) == (500, b'{"status": "fail"}')
        assert failing.headers["content-type"] == "application/health+json"
        assert (await client.ask("GET /version")).body == b'{"version": "1.2.3"}'
        assert b"Disallow: /" in (await client.ask("GET /robots.txt")).body
        assert (await client.ask("HEAD /machine/ping-response?id=known")).status == 200
        assert (await client.ask("HEAD /machine/ping-response?id=forged")).status == 404
        assert running.fakes.pings == ["known", "forged"]
        assert (await client.ask("POST /derp/probe")).status == 405


async def test_connection_close_is_honoured_where_a_client_reads_to_the_end(tmp_path: Path) -> None:
    async with running_door(tmp_path) as running, running.tls() as client:
        key = await client.ask(b"GET /key HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert key.headers["connection"] == "close"
        assert await client.ends()


async def test_bootstrap_dns_knows_our_own_names_only(tmp_path: Path) -> None:
    for query, body in (("", b'{"vpn.example.com": ["192.0.2.1"]}'), ("?q=example.org", b"{}")):
        async with running_door(tmp_path) as running, running.tls() as client:
            answer = await client.ask("GET /bootstrap-dns" + query)
            assert answer.body == body
            assert answer.headers["connection"] == "close"
            assert await client.ends()


@pytest.mark.parametrize(
    ("challenge", "answer"),
    [("ts_192.0.2.1", "response ts_192.0.2.1"), ("a" * 65, None), ("a b", None), ("", None)],
)
async def test_generate_204_echoes_a_proper_challenge(
    tmp_path: Path, challenge: str, answer: str | None
) -> None:
    async with running_door(tmp_path) as running, running.plain() as client:
        head = (
            f"GET /generate_204?t=1 HTTP/1.1\r\nHost: 192.0.2.1\r\nX-Tailscale-Challenge: {challenge}\r\n\r\n"
        )
        response = await client.ask(head.encode())
        assert response.status == 204
        assert response.headers.get("x-tailscale-response") == answer
        assert "no-store" in response.headers["cache-control"]


# --- take-overs ---


@pytest.mark.parametrize("listener", ["https", "http"])
async def test_control_gets_the_stream_the_initiation_and_early_bytes(tmp_path: Path, listener: str) -> None:
    async with running_door(tmp_path) as running:
        async with running.tls() if listener == "https" else running.plain() as client:
            await client.stream.send_all(TS2021 + b"early")
            assert await client.until(b"early") == CONTROL_HEAD + b"noise:early"
            assert running.fakes.control == [(INITIATION, "127.0.0.1", CONTROL_HEAD)]
            await client.stream.send_all(b"later")
            assert await client.until(b"later") == b"later"


async def test_relay_takes_the_socket_and_the_door_leaves_it_open(tmp_path: Path) -> None:
    async with running_door(tmp_path) as running, running.tls() as client:
        await client.stream.send_all(DERP)
        assert await client.until(b"serverkey") == DERP_HEAD + b"serverkey"
        transport = await running.detached()
        assert running.door.connections() == 0
        assert transport.ssl is not None
        assert transport.outgoing is not None
        transport.ssl.write(b"by the relay")
        transport.sock.send(transport.outgoing.read())
        assert await client.exactly(12) == b"by the relay"


async def test_early_bytes_after_the_derp_request_reach_the_relay(tmp_path: Path) -> None:
    async with running_door(tmp_path) as running, running.tls() as client:
        await client.stream.send_all(DERP + b"clientinfo")
        await client.until(b"serverkey")
        assert (await running.detached()).plaintext == b"clientinfo"


async def test_fast_start_writes_no_response(tmp_path: Path) -> None:
    async with running_door(tmp_path) as running, running.tls() as client:
        await client.stream.send_all(DERP[:-2] + b"Derp-Fast-Start: 1\r\n\r\n" + b"clientinfo")
        assert await client.exactly(9) == b"serverkey"
        assert running.fakes.relay == [("127.0.0.1", b"")]


async def test_fast_start_ignored_on_plain_and_proxied(tmp_path: Path) -> None:
    """F4: raw bytes instead of a response would confuse a proxy, and what it sends to others next."""
    request = DERP[:-2] + b"Derp-Fast-Start: 1\r\n\r\n"
    async with running_door(tmp_path, certificate=None, trusted_proxies=LOOPBACK) as running:
        async with running.plain(to_https=True) as client:
            await client.stream.send_all(request)
            assert await client.until(b"serverkey") == DERP_HEAD + b"serverkey"
    async with running_door(tmp_path, trusted_proxies=LOOPBACK) as running, running.tls() as client:
        await client.stream.send_all(request)
        assert await client.until(b"serverkey") == DERP_HEAD + b"serverkey"


async def test_derp_without_upgrade_or_over_websocket_is_told_so(tmp_path: Path) -> None:
    async with running_door(tmp_path) as running:
        async with running.tls() as client:
            response = await client.ask("GET /derp")
            assert (response.status, response.body) == (426, b"DERP requires connection upgrade\n")
            assert await client.ends()
        async with running.tls() as client:
            head = DERP.replace(b"Upgrade: DERP", b"Upgrade: websocket\r\nSec-WebSocket-Protocol: derp")
            assert (await client.ask(head)).status == 501


async def test_a_page_then_an_upgrade_with_early_bytes_on_one_connection(tmp_path: Path) -> None:
    """Reverse proxies reuse their connections: an upgrade may be a later request."""
    async with running_door(tmp_path) as running:
        async with running.tls() as client:
            for _ in range(3):
                assert (await client.ask("GET /")).body == b"https 127.0.0.1"
            assert (await client.ask("GET /health")).status == 200
            assert (await client.ask("GET /")).body == b"https 127.0.0.1"
            await client.stream.send_all(DERP + b"clientinfo")
            assert await client.until(b"serverkey") == DERP_HEAD + b"serverkey"
            assert (await running.detached()).plaintext == b"clientinfo"
        async with running.tls() as client:
            page = f"GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode()
            await client.stream.send_all(page + page + TS2021 + b"early")  # pipelined, all in one
            assert (await client.response()).status == 200
            assert (await client.response()).status == 200
            assert await client.until(b"early") == CONTROL_HEAD + b"noise:early"


BODY = b"GET /key HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("request_head", [TS2021, DERP])
@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda head: head.replace(b"Content-Length: 0\r\n", b"").replace(b"\r\n\r\n", b"\r\nContent-Length: 30\r\n\r\n"), id="body"),
        pytest.param(lambda head: head.replace(b"Content-Length: 0\r\n", b"").replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"), id="chunks"),
        pytest.param(lambda head: head.replace(b"Content-Length: 0\r\n", b"").replace(b"\r\n\r\n", b"\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n"), id="both"),
        pytest.param(lambda head: head.replace(b"\r\n\r\n", b"\r\nHost: other\r\n\r\n"), id="two hosts"),
        pytest.param(lambda head: head.replace(b"HTTP/1.1", b"HTTP/1.0"), id="version"),
        pytest.param(lambda head: head.replace(b"\r\n\r\n", b"\r\nX-A: b\r\n folded\r\n\r\n"), id="folded"),
        pytest.param(lambda head: head.replace(b"Connection: ", b"X-Connection: "), id="no Connection"),
    ],
)  # fmt: skip
async def test_upgrade_with_body_is_refused_and_closed(tmp_path: Path, request_head: bytes, spoil) -> None:  # type: ignore[no-untyped-def]
    """F4: what follows could be a request that a proxy let through unseen."""
    async with running_door(tmp_path) as running, running.tls() as client:
        response = await client.ask(spoil(request_head) + BODY)
        assert 400 <= response.status < 500
        assert response.headers["connection"] == "close"
        assert await client.ends()
        assert not running.fakes.control
        assert not running.fakes.relay


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Upgrade: tailscale-control-protocol\r\n", b""),
        (b"Upgrade: tailscale-control-protocol", b"Upgrade: something"),
        (b"X-Tailscale-Handshake: A", b"X-Tailscale-Handshake: *"),
        (b"X-Tailscale-Handshake", b"X-Other"),
    ],
)
async def test_a_noise_upgrade_that_lacks_something_is_told_so(
    tmp_path: Path, old: bytes, new: bytes
) -> None:
    async with running_door(tmp_path) as running, running.plain() as client:
        assert (await client.ask(TS2021.replace(old, new))).status == 400
        assert await client.ends()


async def test_a_websocket_carries_noise(tmp_path: Path) -> None:
    handshake = base64.b64encode(INITIATION[:-1] + b"\xfb").decode().replace("+", "%2B").replace("/", "%2F")
    head = (
        f"GET /ts2021?X-Tailscale-Handshake={handshake} HTTP/1.1\r\nHost: {NAME}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Protocol: tailscale-control-protocol\r\nOrigin: https://example.org\r\n\r\n"
    )
    async with running_door(tmp_path) as running, running.tls() as client:
        opened = await client.ask(head.encode() + b"\x82\x85\0\0\0\0early")
        assert opened.status == 101
        assert opened.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert opened.headers["sec-websocket-protocol"] == "tailscale-control-protocol"
        assert await client.exactly(15) == b"\x82\x06noise:\x82\x05early"
        assert running.fakes.control == [(INITIATION[:-1] + b"\xfb", "127.0.0.1", b"")]
        await client.stream.send_all(b"\x88\x82\0\0\0\0\x03\xe8")
        assert await client.exactly(4) == b"\x88\x02\x03\xe8"
        assert await client.ends()


# --- which listener serves what ---


async def test_port_80_serves_only_its_rows(tmp_path: Path) -> None:
    """F1: through the whole door; the table itself is in test_routes.py."""
    async with running_door(tmp_path) as running:
        async with running.plain() as client:
            for path in ("/", "/register/abc?x=%20y", "/apple", "/health"):
                moved = await client.ask(f"GET {path}")
                assert (moved.status, moved.headers["location"]) == (308, f"https://{NAME}{path}")
            assert (await client.ask("GET /derp/probe")).status == 200
        for path in ("/key", "/derp", "/admin", "/api/v2/x", "/setup", "/bootstrap-dns"):
            async with running.plain() as client:
                refused = await client.ask(f"GET {path}")
                assert (refused.status, "location" in refused.headers) == (403, False)
        async with running.plain() as client:
            assert (await client.ask("POST /")).status == 403


async def test_a_token_over_plain_http_is_reported_without_being_repeated(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """F1."""
    async with running_door(tmp_path) as running:
        head = b"GET /api/v2/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer canary\r\n\r\n"
        for _ in range(2):
            async with running.plain() as client:
                assert (await client.ask(head)).status == 403
    assert caplog.text.count("over plain HTTP") == 1, "strangers must not fill the log"
    assert "canary" not in caplog.text


async def test_a_loopback_listener_serves_everything_but_the_relay(tmp_path: Path) -> None:
    async with running_door(tmp_path, http_host="127.0.0.1") as running:
        async with running.plain() as client:
            assert (await client.ask("GET /key")).status == 200
            assert (
                await client.ask(b"GET / HTTP/1.1\r\nHost: localhost:80\r\n\r\n")
            ).body == b"http 127.0.0.1"
            assert (await client.ask(DERP)).status == 403


async def test_tls_ended_by_a_listed_proxy_serves_everything(tmp_path: Path) -> None:
    async with running_door(tmp_path, certificate=None, trusted_proxies=LOOPBACK) as running:
        async with running.plain(to_https=True) as client:
            head = f"GET / HTTP/1.1\r\nHost: {NAME}\r\nX-Forwarded-For: 6.6.6.6, 203.0.113.9\r\n\r\n"
            assert (await client.ask(head.encode())).body == b"https 203.0.113.9"
            await client.stream.send_all(DERP)
            await client.until(b"serverkey")


async def test_forged_forwarded_headers_change_nothing(tmp_path: Path) -> None:
    """F7."""
    forged = b"X-Forwarded-For: 203.0.113.9\r\nForwarded: for=203.0.113.9\r\nX-Real-IP: 203.0.113.9\r\nX-Forwarded-Proto: http\r\n"
    async with running_door(tmp_path, trusted_proxies=[ipaddress.ip_network("192.0.2.0/24")]) as running:
        async with running.tls() as client:
            head = f"GET / HTTP/1.1\r\nHost: {NAME}\r\n".encode() + forged + b"\r\n"
            assert (await client.ask(head)).body == b"https 127.0.0.1"
            await client.stream.send_all(TS2021[:-2] + forged + b"\r\n")
            await client.until(b"noise:")
            assert running.fakes.control[0][1] == "127.0.0.1"


async def test_the_proxy_protocol_is_required_from_listed_peers_and_refused_from_others(
    tmp_path: Path,
) -> None:
    """F7."""
    header = b"PROXY TCP4 203.0.113.9 192.0.2.1 5000 443\r\n"
    async with running_door(tmp_path, trusted_proxies=LOOPBACK, proxy_protocol=True) as running:
        async with running.plain() as client:
            await client.stream.send_all(header + TS2021)
            await client.until(b"noise:")
            assert running.fakes.control[0][1] == "203.0.113.9"
        async with running.plain() as client:
            await client.stream.send_all(TS2021)
            assert await client.ends()
    async with running_door(tmp_path, proxy_protocol=True) as running, running.plain() as client:
        assert (await client.ask(header + TS2021)).status == 400
        assert not running.fakes.control
    changes: dict[str, Any] = {"certificate": None, "trusted_proxies": LOOPBACK, "proxy_protocol": True}
    async with running_door(tmp_path, **changes) as running, running.plain(to_https=True) as client:
        head = f"GET / HTTP/1.1\r\nHost: {NAME}\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n".encode()
        assert (await client.ask(header + head)).body == b"https 203.0.113.9"


async def test_unknown_host_gets_421_but_ts2021_works(tmp_path: Path) -> None:
    """F6."""
    async with running_door(tmp_path) as running:
        for host in (
            "evil.example.org",
            f"{NAME}.evil.example.org",
            "198.51.100.7",
            "localhost.evil.test",
            "",
        ):
            async with running.tls() as client:
                assert (await client.ask(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())).status == 421
        async with running.tls() as client:
            for host in (NAME, f"{NAME}:443", "VPN.Example.com.", "127.0.0.1", "192.0.2.1:443"):
                assert (await client.ask(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())).status == 200
            await client.stream.send_all(TS2021.replace(b"Host: unused", b"Host: evil.example.org"))
            await client.until(b"noise:")


# --- deadlines and garbage ---


@pytest.mark.parametrize(
    ("sent", "seconds"),
    [
        (b"", CLIENT_HELLO_SECONDS),
        (real_hello()[:50], CLIENT_HELLO_SECONDS),
        (real_hello(), HANDSHAKE_SECONDS),
    ],
)
async def test_tls_has_its_deadlines(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, sent: bytes, seconds: float
) -> None:
    async with running_door(tmp_path) as running, running.plain(to_https=True) as client:
        began = trio.current_time()
        await client.stream.send_all(sent)
        await client.drain()
        assert trio.current_time() - began == pytest.approx(seconds)


async def test_heads_have_their_deadlines(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with running_door(tmp_path) as running:
        async with running.plain() as client:
            began = trio.current_time()
            await client.stream.send_all(b"GET / HTTP/1.1\r\n")
            assert await client.ends()
            assert trio.current_time() - began == pytest.approx(HEAD_SECONDS)
        async with running.plain() as client:
            assert (await client.ask("GET /derp/probe")).status == 200
            began = trio.current_time()
            assert await client.ends()
            assert trio.current_time() - began == pytest.approx(IDLE_SECONDS)


async def test_plain_http_on_the_tls_port_is_told_where_to_go(tmp_path: Path) -> None:
    async with running_door(tmp_path) as running, running.plain(to_https=True) as client:
        response = await client.ask("GET /")
        assert response.status == 400
        assert NAME.encode() in response.body


GARBAGE = [
    os.urandom(2000),
    bytes(100_000),
    b"\x16\x03\x01\xff\xff" + bytes(70_000),
    b"\r\n" * 40_000,
    b"GET " * 9_000,
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=["random", "zeros", "record", "lines", "words"])
@pytest.mark.parametrize("to_https", [True, False])
async def test_garbage_on_every_port_disturbs_nobody(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, garbage: bytes, to_https: bool
) -> None:
    async with running_door(tmp_path) as running, running.tls() as bystander:
        assert (await bystander.ask("GET /health")).status == 200
        async with running.plain(to_https=to_https) as client:
            with suppress(trio.BrokenResourceError):
                await client.stream.send_all(garbage)
            await client.drain()
        assert (await bystander.ask("GET /health")).status == 200
        assert running.door.counters.bugs == 0


async def test_a_body_that_is_too_long_is_refused_before_it_is_read(tmp_path: Path) -> None:
    async with running_door(tmp_path) as running, running.tls() as client:
        head = f"POST /echo HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 2000000\r\n\r\n".encode()
        assert (await client.ask(head + bytes(100_000))).status == 413


async def test_early_bytes_do_not_become_a_second_client(tmp_path: Path) -> None:
    """A request with a body on one of our own routes ends the connection: its body is nobody's request."""
    async with running_door(tmp_path) as running, running.tls() as client:
        head = b"POST /generate_204 HTTP/1.1\r\nHost: x\r\nContent-Length: 31\r\n\r\n" + BODY
        assert (await client.ask(head)).headers["connection"] == "close"
        assert await client.ends()
