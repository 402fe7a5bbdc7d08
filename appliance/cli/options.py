"""The options accepted anywhere on the line, and what a command is handed.

click knows options of a group and options of a command; `appliance nodes list --json` and `appliance --json nodes list` have to
mean the same, so every group and every command knows the global ones and writes them into one `Context`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click

from appliance.cli import terminal
from appliance.client import Client
from appliance.socket_path import Places, find_places


class Context:
    """What was said on the line beside the command, and the ways to answer."""

    def __init__(self) -> None:
        self.state: str | None = None
        self.json = False
        self.quiet = False

    @property
    def places(self) -> Places:
        return find_places(self.state, os.environ)

    def ask(self, method: str, path: str, body: Any = None, **query: str) -> Any:
        """One request to the running server."""
        return Client(self.places.socket).call(method, path, body, **query)

    def talk(self, text: str) -> None:
        if not self.quiet:
            terminal.talk(text)

    def show(self, document: Any, text: Callable[[datetime], str]) -> None:
        """The document for programs, or the text for people, who read times relative to now."""
        click.echo(as_json(document) if self.json else text(now()))

    def done(self, document: Any, text: str) -> None:
        """After an act: talk, and for programs the document."""
        if self.json:
            click.echo(as_json(document))
        self.talk(text)


def now() -> datetime:
    return datetime.now(UTC)


def as_json(document: Any) -> str:
    return json.dumps(document, indent=2)  # ASCII: no control character of a stranger reaches a terminal


pass_context = click.make_pass_decorator(Context)


def _note(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value and param.name:
        setattr(ctx.ensure_object(Context), param.name, value)


def _show_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        from appliance.version import version

        click.echo(f"appliance {version()}")
        ctx.exit()


def _global_options(*, hidden: bool) -> list[click.Parameter]:
    def flag(name: str, text: str, callback: Callable[..., None]) -> click.Option:
        return click.Option(
            [name], is_flag=True, help=text, hidden=hidden, expose_value=False, callback=callback
        )

    return [
        click.Option(
            ["--state"],
            metavar="DIR",
            help=f"The state folder, and the server that serves from it.  [APPLIANCE_STATE; else {find_places(None, {}).state}]",
            hidden=hidden,
            expose_value=False,
            callback=_note,
        ),
        flag("--json", "One JSON document on stdout, for programs.", _note),
        flag("--quiet", "No talk on stderr, only errors.", _note),
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            help="Print the version.",
            hidden=hidden,
            expose_value=False,
            callback=_show_version,
        ),
    ]


HELP: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Command(click.Command):
    """A command that knows the global options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["params"] = [*(kwargs.get("params") or []), *_global_options(hidden=True)]
        kwargs.setdefault("context_settings", HELP)
        super().__init__(*args, **kwargs)


class Group(click.Group):
    """A group of such commands, listed in the order they were written."""

    def __init__(self, *args: Any, top: bool = False, **kwargs: Any) -> None:
        kwargs["params"] = [*(kwargs.get("params") or []), *_global_options(hidden=not top)]
        kwargs.setdefault("context_settings", HELP)
        super().__init__(*args, **kwargs)
        self.command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)
