from __future__ import annotations

import re
from pathlib import Path

import pytest
from quart_trio import QuartTrio

import appliance.pages
from appliance.pages.app import CONTENT_SECURITY_POLICY, Overview, create_app, spell_duration

FOLDER = Path(appliance.pages.__file__).parent
URL = "https://vpn.example.com"
AUTH_ID = "abcdefghijklmnopqrstuvwx27"


def healthy() -> Overview:
    return {
        "version": "1.2.3",
        "uptime_s": 90_061,
        "services": [{"name": "Control", "text": "accepts logins", "ok": True}],
    }


def pages(**changes: object) -> QuartTrio:
    return create_app(**({"server_url": URL, "overview": healthy} | changes))  # type: ignore[arg-type]


async def text(app: QuartTrio, path: str, status: int = 200) -> str:
    response = await app.test_client().get(path)
    assert response.status_code == status
    return str(await response.get_data(as_text=True))


async def test_the_status_page_says_what_runs_and_how_to_connect() -> None:
    page = await text(pages(), "/")
    assert "Everything is running" in page
    assert "accepts logins" in page
    assert "1.2.3" in page
    assert "1 day 1 hour" in page
    assert f"tailscale up --login-server {URL}" in page


async def test_the_status_page_says_when_something_is_wrong() -> None:
    def failing() -> Overview:
        return healthy() | {"services": [{"name": "Storage", "text": "the disk is full", "ok": False}]}

    page = await text(pages(overview=failing), "/")
    assert "Something needs attention" in page
    assert "the disk is full" in page


async def test_register_page_shows_no_hostinfo_and_safe_command() -> None:
    """K5: the page knows the id and nothing else, so it can tell nothing else."""
    page = await text(pages(), f"/register/{AUTH_ID}")
    assert f"appliance nodes approve {AUTH_ID} --user" in page


@pytest.mark.parametrize(
    "auth_id",
    ["", "short", AUTH_ID + "a", AUTH_ID[:-1] + "1", AUTH_ID.upper(), AUTH_ID[:-1] + "%0a", "$(reboot)%60id%60xxxxxxxxxxxx", "%3Cscript%3Ealert(1)%3C/script%3E"],
)  # fmt: skip
async def test_anything_else_behind_register_is_not_shown(auth_id: str) -> None:
    page = await text(pages(), f"/register/{auth_id}", 404)
    assert "nodes approve" not in page
    assert "reboot" not in page
    assert "alert(1)" not in page


async def test_looking_never_approves_and_nothing_takes_a_post() -> None:
    """K4."""
    for path in ("/", f"/register/{AUTH_ID}", "/admin", "/apple", "/windows"):
        assert (await pages().test_client().post(path)).status_code == 405


@pytest.mark.parametrize("path", ["/apple", "/windows"])
async def test_platform_pages_name_this_server(path: str) -> None:
    assert f"login --login-server {URL}" in await text(pages(server_url=URL + "/"), path)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/admin",
        "/apple",
        "/windows",
        f"/register/{AUTH_ID}",
        "/register/x",
        "/none",
        "/static/style.css",
    ],
)
async def test_every_response_carries_the_security_headers(path: str) -> None:
    """W1."""
    for hsts in (False, True):
        headers = (await pages(hsts=hsts).test_client().get(path)).headers
        assert headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["X-Frame-Options"] == "DENY"
        assert ("Strict-Transport-Security" in headers) == hsts
        assert ("no-store" in headers["Cache-Control"]) == (path != "/static/style.css")


async def test_hostile_text_renders_as_text() -> None:
    """W1."""
    hostile = "<script>alert('x')</script>\"'><img src=x onerror=y>"

    def overview() -> Overview:
        return {
            "version": hostile,
            "uptime_s": 1,
            "services": [{"name": hostile, "text": hostile, "ok": True}],
        }

    page = await text(pages(overview=overview), "/")
    assert "<script" not in page
    assert "<img src=x" not in page
    assert page.count("&lt;script&gt;") == 3


def test_templates_have_no_script_no_inline_style_and_no_way_around_escaping() -> None:
    """W1."""
    templates = list((FOLDER / "templates").glob("*.html"))
    assert len(templates) > 5
    for template in templates:
        source = template.read_text()
        assert not re.search(
            r"<script|<style|\sstyle=|\son\w+=|\|\s*safe|autoescape|javascript:", source, re.IGNORECASE
        )
        assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", source), (
            "nothing is loaded from elsewhere"
        )


async def test_a_bug_shows_a_page_without_details() -> None:
    def broken() -> Overview:
        raise RuntimeError("canary")

    page = await text(pages(overview=broken), "/", 500)
    assert "canary" not in page
    assert "Internal Server Error" in page


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 seconds"),
        (1, "1 second"),
        (61, "1 minute 1 second"),
        (7_200, "2 hours"),
        (200_000, "2 days 7 hours"),
    ],
)
def test_durations_are_spelled_in_two_units(seconds: int, words: str) -> None:
    assert spell_duration(seconds) == words
