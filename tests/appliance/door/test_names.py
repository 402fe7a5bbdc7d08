from __future__ import annotations

import pytest

from appliance.door.names import NameTable, Owner

TABLE = NameTable(["VPN.example.com.", "192.0.2.9"], ["192.0.2.1", "2001:db8::1"])


@pytest.mark.parametrize("name", ["vpn.example.com", "1.2.0.192.in-addr.arpa", None, "unknown.example.org"])
def test_every_server_name_is_ours_until_somebody_else_is_configured(name: str | None) -> None:
    assert TABLE.owner(name) is Owner.US


@pytest.mark.parametrize(
    ("host", "local", "answered"),
    [
        ("vpn.example.com", "192.0.2.1", True),
        ("VPN.example.com.:8443", "192.0.2.1", True),
        ("192.0.2.1", "10.0.0.5", True),
        ("192.0.2.9:80", "10.0.0.5", True),
        ("10.0.0.5", "10.0.0.5", True),
        ("10.0.0.6", "10.0.0.5", False),
        ("[2001:db8::1]:443", "10.0.0.5", True),
        ("[2001:db8::2]", "10.0.0.5", False),
        ("localhost", "127.0.0.1", True),
        ("localhost:8080", "::1", True),
        ("localhost", "192.0.2.1", False),
        ("evil.example.com", "192.0.2.1", False),
        ("vpn.example.com.evil.test", "192.0.2.1", False),
        ("", "192.0.2.1", False),
        ("[", "192.0.2.1", False),
        (":80", "192.0.2.1", False),
        ("vpn.example.com@evil.test", "192.0.2.1", False),
    ],
)
def test_pages_answer_for_our_names_and_addresses_only(host: str, local: str, answered: bool) -> None:
    """F6."""
    assert TABLE.answers_host(host, local) is answered
