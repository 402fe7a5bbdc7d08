"""The one table of who answers which URL, and which listeners may serve it.

    HTTPS      TLS that we ended ourselves: every row
    PROXIED    TLS that ended at a listed proxy (`tls.mode = "off"`): every row
    LOOPBACK   plain HTTP on loopback, or when server_url itself is http: every row but the relay's
    HTTP       plain HTTP next to TLS: what clients and probes need there; pages are sent to server_url, and whatever
               could carry a secret is refused without a redirect, so that a wrong setting is noticed

The relay is never served on plain HTTP: its login proves a key to whoever listens. Noise brings its own protection, so
`/ts2021` is served everywhere, and clients do try port 80 first.

Source: tailscale: control/controlhttp, derp/derpserver/handler.go, cmd/derper/derper.go.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import Enum, Flag, auto


class Listener(Flag):
    """How a connection reached us."""

    HTTPS = auto()
    PROXIED = auto()
    LOOPBACK = auto()
    HTTP = auto()


class Destination(Enum):
    """Who answers."""

    KEY = auto()
    CONTROL = auto()
    CONTROL_WEBSOCKET = auto()
    RELAY = auto()
    UPGRADE_REQUIRED = auto()
    PROBE = auto()
    GENERATE_204 = auto()
    BOOTSTRAP_DNS = auto()
    HEALTH = auto()
    VERSION = auto()
    ROBOTS = auto()
    PING_RESPONSE = auto()
    PAGES = auto()
    REDIRECT = auto()
    FORBIDDEN = auto()
    WRONG_METHOD = auto()


EVERYWHERE = Listener.HTTPS | Listener.PROXIED | Listener.LOOPBACK | Listener.HTTP
NOT_BESIDE_TLS = Listener.HTTPS | Listener.PROXIED | Listener.LOOPBACK
INSIDE_TLS = Listener.HTTPS | Listener.PROXIED

GET = frozenset({"GET"})
GET_OR_HEAD = frozenset({"GET", "HEAD"})
POST = frozenset({"POST"})
GET_OR_POST = frozenset({"GET", "POST"})  # Tailscale's Rust library posts; the reference relay does not look
ANY: frozenset[str] = frozenset()
DERP = frozenset({"derp", "websocket"})


@dataclass(frozen=True, slots=True)
class Row:
    """The first row whose path, method and upgrade fit decides."""

    path: str
    methods: AbstractSet[str]
    destination: Destination
    listeners: Listener
    upgrade: AbstractSet[str] = ANY
    elsewhere: Destination = Destination.FORBIDDEN
    """What other listeners answer."""


ROWS = (
    Row("/key", GET, Destination.KEY, NOT_BESIDE_TLS),
    Row("/ts2021", POST, Destination.CONTROL, EVERYWHERE),
    Row("/ts2021", GET, Destination.CONTROL_WEBSOCKET, EVERYWHERE),
    Row("/derp", GET_OR_POST, Destination.RELAY, INSIDE_TLS, upgrade=DERP),
    Row("/derp", ANY, Destination.UPGRADE_REQUIRED, INSIDE_TLS),
    Row("/derp/probe", GET_OR_HEAD, Destination.PROBE, EVERYWHERE),
    Row("/derp/latency-check", GET_OR_HEAD, Destination.PROBE, EVERYWHERE),
    Row("/generate_204", ANY, Destination.GENERATE_204, EVERYWHERE),
    Row("/bootstrap-dns", GET, Destination.BOOTSTRAP_DNS, NOT_BESIDE_TLS),
    Row("/machine/ping-response", ANY, Destination.PING_RESPONSE, NOT_BESIDE_TLS),
    Row("/health", GET_OR_HEAD, Destination.HEALTH, NOT_BESIDE_TLS, elsewhere=Destination.REDIRECT),
    Row("/version", GET_OR_HEAD, Destination.VERSION, NOT_BESIDE_TLS, elsewhere=Destination.REDIRECT),
    Row("/robots.txt", GET_OR_HEAD, Destination.ROBOTS, NOT_BESIDE_TLS, elsewhere=Destination.REDIRECT),
)

# Everything else is a page; under these paths lie things that come with credentials.
PRIVATE = ("/admin", "/api", "/console", "/machine", "/setup")


def decide(listener: Listener, method: str, path: str, upgrade: str = "") -> Destination:
    """Who answers this request; `path` as sent, without the query, `upgrade` in lower case."""
    rows = [row for row in ROWS if row.path == path]
    if not rows:
        return _decide_page(listener, method, path)
    if not listener & rows[0].listeners:
        away = rows[0].elsewhere
        return away if method in GET_OR_HEAD else Destination.FORBIDDEN
    for row in rows:
        if _fits(method, row.methods) and _fits(upgrade, row.upgrade):
            return row.destination
    return Destination.WRONG_METHOD


def _fits(value: str, wanted: AbstractSet[str]) -> bool:
    return not wanted or value in wanted


def _decide_page(listener: Listener, method: str, path: str) -> Destination:
    if listener & NOT_BESIDE_TLS:
        return Destination.PAGES
    private = any(path == prefix or path.startswith(prefix + "/") for prefix in PRIVATE)
    return Destination.REDIRECT if method in GET_OR_HEAD and not private else Destination.FORBIDDEN
