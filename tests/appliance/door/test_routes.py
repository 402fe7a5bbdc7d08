from __future__ import annotations

import pytest

from appliance.door.routes import INSIDE_TLS, ROWS, Destination, Listener, decide

ALL = list(Listener)


@pytest.mark.parametrize(
    ("method", "path", "upgrade", "destination"),
    [
        ("GET", "/key", "", Destination.KEY),
        ("POST", "/key", "", Destination.WRONG_METHOD),
        ("POST", "/ts2021", "tailscale-control-protocol", Destination.CONTROL),
        ("GET", "/ts2021", "websocket", Destination.CONTROL_WEBSOCKET),
        ("PUT", "/ts2021", "", Destination.WRONG_METHOD),
        ("GET", "/derp", "derp", Destination.RELAY),
        ("GET", "/derp", "websocket", Destination.RELAY),
        ("GET", "/derp", "", Destination.UPGRADE_REQUIRED),
        ("GET", "/derp", "h2c", Destination.UPGRADE_REQUIRED),
        ("POST", "/derp", "derp", Destination.RELAY),
        ("PUT", "/derp", "derp", Destination.UPGRADE_REQUIRED),
        ("GET", "/derp/probe", "", Destination.PROBE),
        ("HEAD", "/derp/latency-check", "", Destination.PROBE),
        ("POST", "/derp/probe", "", Destination.WRONG_METHOD),
        ("PATCH", "/generate_204", "", Destination.GENERATE_204),
        ("GET", "/bootstrap-dns", "", Destination.BOOTSTRAP_DNS),
        ("HEAD", "/machine/ping-response", "", Destination.PING_RESPONSE),
        ("GET", "/health", "", Destination.HEALTH),
        ("GET", "/version", "", Destination.VERSION),
        ("GET", "/robots.txt", "", Destination.ROBOTS),
        ("GET", "/", "", Destination.PAGES),
        ("GET", "/admin", "", Destination.PAGES),
        ("POST", "/derp/", "", Destination.PAGES),
        ("GET", "/KEY", "", Destination.PAGES),
    ],
)
def test_inside_tls_every_row_is_served(
    method: str, path: str, upgrade: str, destination: Destination
) -> None:
    for listener in (Listener.HTTPS, Listener.PROXIED):
        assert decide(listener, method, path, upgrade) is destination


def test_port_80_serves_only_its_rows() -> None:
    """F1."""
    served = {row.path for row in ROWS if row.listeners & Listener.HTTP}
    assert served == {"/ts2021", "/derp/probe", "/derp/latency-check", "/generate_204"}
    for path in ("/", "/register/abc", "/apple", "/health", "/version", "/robots.txt", "/anything"):
        assert decide(Listener.HTTP, "GET", path) is Destination.REDIRECT
        assert decide(Listener.HTTP, "HEAD", path) is Destination.REDIRECT
        assert decide(Listener.HTTP, "POST", path) is Destination.FORBIDDEN
    for path in (
        "/key",
        "/derp",
        "/admin",
        "/admin/",
        "/api/v2/x",
        "/console/x",
        "/setup",
        "/bootstrap-dns",
        "/machine/x",
    ):
        for method in ("GET", "HEAD", "POST"):
            assert decide(Listener.HTTP, method, path) is Destination.FORBIDDEN, path


def test_the_relay_is_served_inside_tls_only() -> None:
    """R3."""
    for listener in ALL:
        relayed = decide(listener, "GET", "/derp", "derp") is Destination.RELAY
        assert relayed == bool(listener & INSIDE_TLS)


def test_a_loopback_listener_serves_everything_else() -> None:
    for row in ROWS:
        if row.path != "/derp":
            assert row.listeners & Listener.LOOPBACK
    assert decide(Listener.LOOPBACK, "GET", "/admin") is Destination.PAGES
