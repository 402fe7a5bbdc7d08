"""The Quart application of the pages.

Every response carries the headers of `security_headers`: nothing is loaded from elsewhere, no script runs at all, no page
lets itself be framed. Templates are escaped by Jinja; there is no way around that in them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypedDict

from quart import Response, abort, render_template
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException, InternalServerError

# 128 bits in base32: what the control server makes, and safe to show in a command.
AUTH_ID = re.compile(r"[a-z2-7]{26}")

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HSTS_SECONDS = 63_072_000  # two years, as the reference relay says


class Service(TypedDict):
    """One part of the server on the status page."""

    name: str
    text: str
    ok: bool


class Overview(TypedDict):
    """What the status page tells anybody who asks; so nothing about nodes or users."""

    version: str
    uptime_s: int
    services: list[Service]


def create_app(*, server_url: str, overview: Callable[[], Overview], hsts: bool = False) -> QuartTrio:
    """The pages of the server at `server_url`; `hsts` only once browsers trust the certificate."""
    app = QuartTrio("appliance.pages")
    app.config.update(BODY_TIMEOUT=60, RESPONSE_TIMEOUT=60, SEND_FILE_MAX_AGE_DEFAULT=3600)
    app.jinja_env.globals["server_url"] = server_url.rstrip("/")
    headers = security_headers(hsts=hsts)

    @app.after_request
    async def add_headers(response: Response) -> Response:
        for name, value in headers.items():
            response.headers[name] = value
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    @app.errorhandler(HTTPException)
    async def show_error(error: HTTPException) -> tuple[str, int]:
        status = error.code or InternalServerError.code
        return await render_template(
            "error.html", status=status, name=error.name, text=error.description
        ), status

    @app.get("/")
    async def status() -> str:
        seen = overview()
        return await render_template("status.html", overview=seen, uptime=spell_duration(seen["uptime_s"]))

    @app.get("/register/<auth_id>")
    async def register(auth_id: str) -> str:
        if not AUTH_ID.fullmatch(auth_id):
            abort(404, "This login link is incomplete or mistyped. Copy it again from the device.")
        return await render_template("register.html", auth_id=auth_id)

    @app.get("/apple")
    async def apple() -> str:
        return await render_template("apple.html")

    @app.get("/windows")
    async def windows() -> str:
        return await render_template("windows.html")

    @app.get("/admin")
    async def admin() -> str:
        return await render_template("admin.html")

    return app


def security_headers(*, hsts: bool) -> dict[str, str]:
    """What browsers must know about every page."""
    headers = {
        "Content-Security-Policy": CONTENT_SECURITY_POLICY,
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
    }
    if hsts:
        headers["Strict-Transport-Security"] = f"max-age={HSTS_SECONDS}"
    return headers


def spell_duration(seconds: int) -> str:
    """A duration in its two largest units: `3 days 4 hours`."""
    parts = []
    for name, size in (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {name}{'s' if count > 1 else ''}")
    return " ".join(parts[:2]) or "0 seconds"
