"""Our own small routes: what clients, monitors and crawlers ask without ever seeing a page.

    GET /key                     {"publicKey": "mkey:…"}: the server's Noise key; a client's first request ever
    /derp/probe, latency-check   200, empty: latency over HTTPS where UDP is blocked
    /generate_204                204 and an echo of the challenge: is there a captive portal in between?
    GET /bootstrap-dns?q=NAME    {"name": ["192.0.2.1"]}: our own names only, for clients whose DNS is broken
    /machine/ping-response       a node answers a ping that the control server sent it
    /health /version /robots.txt

Source: tailscale: control/controlclient/direct.go (loadServerPubKeys), derp/derpserver/handler.go (ProbeHandler,
ServeNoContent), net/dnsfallback/dnsfallback.go.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from appliance.door.head import Head
from appliance.door.routes import Destination

# Fixed by the client: longer or other challenges get no echo.
_CHALLENGE = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_NO_CACHE = "no-cache, no-store, must-revalidate, no-transform, max-age=0"
TEXT = "text/plain; charset=utf-8"
JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete response."""

    status: int
    body: bytes = b""
    content_type: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    close: bool = False

    def fields(self) -> list[tuple[str, str]]:
        kind = [("Content-Type", self.content_type)] if self.content_type else []
        return [*kind, ("X-Content-Type-Options", "nosniff"), *self.headers]


def text(status: int, words: str, *, close: bool = False) -> Answer:
    """A sentence for whoever reads it."""
    return Answer(status, words.encode() + b"\n", TEXT, close=close)


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The small routes and where their facts come from."""

    server_key: Callable[[], bytes]
    """The body of `/key`."""
    healthy: Callable[[], bool]
    version: str
    bootstrap_dns: Callable[[], Mapping[str, Sequence[str]]]
    """Our names and where they point."""
    ping_response: Callable[[str], bool]
    """Takes the id of a ping; False if nobody waits for it."""

    def answer(self, destination: Destination, head: Head) -> Answer:
        """The response for a destination that is ours (routes.py)."""
        return _MAKERS[destination](self, head)

    def _key(self, head: Head) -> Answer:
        # Clients in browsers read it from pages of other origins.
        return Answer(200, self.server_key(), JSON, (("Access-Control-Allow-Origin", "*"),))

    def _probe(self, head: Head) -> Answer:
        return Answer(200, headers=(("Access-Control-Allow-Origin", "*"),))

    def _wrong_method(self, head: Head) -> Answer:
        return text(405, "bogus probe method" if head.path.startswith("/derp/") else "method not allowed")

    def _generate_204(self, head: Head) -> Answer:
        headers = [("Cache-Control", _NO_CACHE)]
        challenge = head.get("x-tailscale-challenge")
        if _CHALLENGE.fullmatch(challenge):
            headers.append(("X-Tailscale-Response", f"response {challenge}"))
        return Answer(204, headers=tuple(headers))

    def _bootstrap_dns(self, head: Head) -> Answer:
        known = {name: list(addresses) for name, addresses in self.bootstrap_dns().items()}
        wanted = head.parameter("q")
        found = {name: addresses for name, addresses in known.items() if not wanted or name == wanted}
        return Answer(200, json.dumps(found).encode(), JSON, close=True)

    def _ping_response(self, head: Head) -> Answer:
        return Answer(200 if self.ping_response(head.parameter("id")) else 404)

    def _health(self, head: Head) -> Answer:
        healthy = self.healthy()
        body = json.dumps({"status": "pass" if healthy else "fail"}).encode()
        return Answer(200 if healthy else 500, body, "application/health+json")

    def _version(self, head: Head) -> Answer:
        return Answer(200, json.dumps({"version": self.version}).encode(), JSON)

    def _robots(self, head: Head) -> Answer:
        return Answer(200, b"User-agent: *\nDisallow: /\n", TEXT)

    def _upgrade_required(self, head: Head) -> Answer:
        return Answer(426, b"DERP requires connection upgrade\n", TEXT, (("Upgrade", "DERP"),), close=True)

    def _forbidden(self, head: Head) -> Answer:
        return text(403, "This is not served over plain HTTP.", close=True)


_MAKERS: Mapping[Destination, Callable[[Answers, Head], Answer]] = {
    Destination.KEY: Answers._key,
    Destination.PROBE: Answers._probe,
    Destination.WRONG_METHOD: Answers._wrong_method,
    Destination.GENERATE_204: Answers._generate_204,
    Destination.BOOTSTRAP_DNS: Answers._bootstrap_dns,
    Destination.PING_RESPONSE: Answers._ping_response,
    Destination.HEALTH: Answers._health,
    Destination.VERSION: Answers._version,
    Destination.ROBOTS: Answers._robots,
    Destination.UPGRADE_REQUIRED: Answers._upgrade_required,
    Destination.FORBIDDEN: Answers._forbidden,
}
