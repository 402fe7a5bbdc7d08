"""`appliance config check`: what the server would start with, and whether it could."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from appliance.cli.options import Context, Group, as_json, pass_context
from appliance.cli.terminal import Column, table

if TYPE_CHECKING:
    from appliance.config.draft import Problem
    from appliance.config.kinds import Address
    from appliance.config.load import Loaded

config_option = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The configuration file.  [default: /etc/appliance/config.toml if there is one]",
)


@click.group(cls=Group)
def config() -> None:
    """The configuration that the server starts with."""


@config.command()
@config_option
@pass_context
def check(context: Context, config_file: Path | None) -> None:
    """Check the configuration without starting; print each value with where it came from.

    Ports are tried too, unless a server runs from the state folder and has them.
    """
    from appliance.config.draft import ConfigError
    from appliance.config.files import load_files
    from appliance.state_dir import is_locked

    try:
        loaded = load_files(config_file, context.places.state, os.environ)
        if not is_locked(context.places.state):
            refuse_taken_ports(loaded)
    except ConfigError as exc:
        if context.json:
            click.echo(as_json({"ok": False, "errors": [_as_document(problem) for problem in exc.problems]}))
        raise
    values = _values(loaded)
    columns: list[Column] = [
        ("SETTING", lambda row: row["key"]),
        ("VALUE", lambda row: row["value"]),
        ("FROM", lambda row: row["from"]),
    ]
    context.show(
        {"ok": True, "values": values, "warnings": [_as_document(warning) for warning in loaded.warnings]},
        lambda now: table(columns, values),
    )
    for warning in loaded.warnings:
        context.talk(f"warning: {warning}")
        context.talk(f"hint: {warning.hint}")


def refuse_taken_ports(loaded: Loaded) -> None:
    """Raises ConfigError for listeners that another process has."""
    from appliance.config.draft import ConfigError

    if problems := taken_ports(loaded):
        raise ConfigError(*problems)


def taken_ports(loaded: Loaded) -> list[Problem]:
    """Listeners that another process has already. What this user may not bind is not known, and no problem."""
    kinds = {"https": socket.SOCK_STREAM, "http": socket.SOCK_STREAM, "stun": socket.SOCK_DGRAM}
    problems = []
    for name, kind in kinds.items():
        address = getattr(loaded.config.listen, name)
        if address is not None and _taken(address, kind):
            hint = f"stop what listens there (ss -lnp 'sport = :{address.port}' shows it), or change it; a systemd socket of ours may stay"
            problems.append(loaded.problem(f"listen.{name}", f"{address} is in use", hint))
    return problems


def _taken(address: Address, kind: socket.SocketKind) -> bool:
    families = (
        [(socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")]  # noqa: S104  (asked for by the configuration)
        if not address.host
        else [(socket.AF_INET6 if ":" in address.host else socket.AF_INET, address.host)]
    )
    for family, host in families:
        with socket.socket(family, kind) as probe:
            if kind is socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family is socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                probe.bind((host, address.port))
            except OSError as exc:
                if exc.errno == errno.EADDRINUSE:
                    return True
    return False


def _values(loaded: Loaded) -> list[dict[str, Any]]:
    from appliance.config.schema import SETTINGS, shown, value_of

    return [
        {"key": path, "value": shown(value_of(loaded.config, setting)), "from": str(loaded.origins[path])}
        for path, setting in SETTINGS.items()
    ]


def _as_document(problem: Problem) -> dict[str, Any]:
    origin = problem.origin
    return {
        "key": problem.key,
        "message": problem.message,
        "hint": problem.hint,
        "from": origin.place,
        "line": origin.line or None,
    }
