"""`appliance nodes`: the machines of the tailnet, logins that wait, routes."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from appliance.cli.options import Context, Group, pass_context
from appliance.cli.terminal import (
    NEVER,
    Column,
    Duration,
    ago,
    confirm,
    on_terminal,
    pairs,
    span,
    table,
    talk,
)
from appliance.client import resource

yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


@click.group(cls=Group)
def nodes() -> None:
    """The machines of the tailnet. NODE is an id, a name or an address."""


@nodes.command("list")
@pass_context
def list_nodes(context: Context) -> None:
    """List all nodes."""
    found = context.ask("GET", resource("nodes"))
    context.show(found, lambda now: _table(found, now))


@nodes.command()
@click.argument("node")
@pass_context
def show(context: Context, node: str) -> None:
    """Show everything about one node."""
    found = context.ask("GET", resource("nodes", node))
    context.show(found, lambda now: _details(found, now))


@nodes.command()
@click.argument("auth_id")
@click.option("--user", metavar="USER", required=True, help="Whose node it becomes.")
@yes_option
@pass_context
def approve(context: Context, auth_id: str, user: str, yes: bool) -> None:
    """Let a waiting login in.

    AUTH_ID is the last part of the address that the client printed, or the whole address.
    """
    auth_id = auth_id.split("?")[0].rstrip("/").rsplit("/", 1)[-1]
    if on_terminal() and not yes:
        # Whoever made a person type this id may not be whom that person thinks of (security.md K4).
        login = context.ask("GET", resource("logins", auth_id))
        talk(_login(login))
        confirm(f"Let this machine in as a node of {user}?", yes=False)
    node = context.ask("POST", resource("logins", auth_id, "approve"), {"user": user})
    context.done(node, f"approved: the client of {user} is being let in")


@nodes.command()
@click.argument("node")
@click.argument("name")
@pass_context
def rename(context: Context, node: str, name: str) -> None:
    """Name a node.

    The name stays when the machine's host name changes; NAME "" lets the host name decide again.
    """
    renamed = context.ask("PATCH", resource("nodes", node), {"name": name})
    context.done(renamed, f"node {node} is now called {renamed['name']}")


@nodes.command()
@click.argument("node")
@click.argument("tags", nargs=-1, required=True, metavar="TAG...")
@pass_context
def tag(context: Context, node: str, tags: tuple[str, ...]) -> None:
    """Replace a node's tags.

    A tag is written tag:name; a tagged node belongs to no person.
    """
    tagged = context.ask("PUT", resource("nodes", node, "tags"), {"tags": list(tags)})
    context.done(tagged, f"node {node} carries {', '.join(tags)}")


@nodes.command()
@click.argument("node")
@pass_context
def expire(context: Context, node: str) -> None:
    """Make a node log in again."""
    expired = context.ask("POST", resource("nodes", node, "expire"))
    context.done(expired, f"expired node {node}; `appliance nodes extend` takes it back")


@nodes.command()
@click.argument("node")
@click.option(
    "--expiry",
    type=Duration(never=True),
    default="180d",
    show_default=True,
    help="From now: 12h, 90d, or never.",
)
@pass_context
def extend(context: Context, node: str, expiry: int | str) -> None:
    """Let a node's key last longer, also after it expired."""
    wanted = {"expiry_s": None if expiry == NEVER else expiry}
    extended = context.ask("POST", resource("nodes", node, "extend"), wanted)
    context.done(extended, f"extended node {node}")


@nodes.command()
@click.argument("node")
@yes_option
@pass_context
def delete(context: Context, node: str, yes: bool) -> None:
    """Delete a node.

    Its client is told to log in, and would be a new node then.
    """
    confirm(f"Delete node {node}?", yes=yes)
    deleted = context.ask("DELETE", resource("nodes", node))
    context.done(deleted, f"deleted node {node}")


@nodes.group(cls=Group)
def routes() -> None:
    """Routes that nodes offer.

    Those are subnets, and the exit to the internet: 0.0.0.0/0 and ::/0.
    """


@routes.command("approve")
@click.argument("node")
@click.argument("prefixes", nargs=-1, required=True, metavar="CIDR...")
@pass_context
def approve_routes(context: Context, node: str, prefixes: tuple[str, ...]) -> None:
    """Let a node serve these prefixes, now or when it offers them."""
    changed = context.ask("POST", resource("nodes", node, "routes", "approve"), {"routes": list(prefixes)})
    context.done(changed, f"node {node} may serve {', '.join(prefixes)}")


@routes.command("revoke")
@click.argument("node")
@click.argument("prefixes", nargs=-1, required=True, metavar="CIDR...")
@pass_context
def revoke_routes(context: Context, node: str, prefixes: tuple[str, ...]) -> None:
    """Take the approval of these prefixes back."""
    changed = context.ask("POST", resource("nodes", node, "routes", "revoke"), {"routes": list(prefixes)})
    context.done(changed, f"node {node} may no longer serve {', '.join(prefixes)}")


def _login(login: dict[str, Any]) -> str:
    return pairs(
        [
            ("host name", login["hostname"]),
            ("os", login["os"]),
            ("from", login["source"]),
            ("machine key", login["machine_key"]),
            ("waiting for", span(login["age_s"])),
        ]
    )


def _seen(node: dict[str, Any], now: datetime) -> str:
    return "online" if node["online"] else ago(node["last_seen"], now)


def _expires(node: dict[str, Any], now: datetime) -> str:
    return "expired" if node["expired"] else ago(node["expires_at"], now)


def _table(found: list[dict[str, Any]], now: datetime) -> str:
    columns: list[Column] = [
        ("ID", lambda node: node["id"]),
        ("NAME", lambda node: node["name"]),
        ("USER", lambda node: node["user"] or node["tags"]),
        ("ADDRESS", lambda node: node["addresses"][0] if node["addresses"] else None),
        ("SEEN", lambda node: _seen(node, now)),
        ("EXPIRES", lambda node: _expires(node, now)),
        ("ROUTES", lambda node: node["routes"]["serving"]),
        ("OS", lambda node: node["os"]),
        ("VERSION", lambda node: node["client_version"]),
    ]
    return table(columns, found)


def _details(node: dict[str, Any], now: datetime) -> str:
    routes = node["routes"]
    return pairs(
        [
            ("id", node["id"]),
            ("name", node["name"]),
            ("user", node["user"]),
            ("tags", node["tags"]),
            ("addresses", node["addresses"]),
            ("seen", _seen(node, now)),
            ("key expires", _expires(node, now)),
            ("ephemeral", node["ephemeral"]),
            ("routes offered", routes["advertised"]),
            ("routes approved", routes["approved"]),
            ("routes served", routes["serving"]),
            ("host name", node.get("hostname")),
            ("os", node["os"]),
            ("client", node["client_version"]),
            ("created", ago(node["created_at"], now)),
        ]
    )
