"""`appliance users`: the people that nodes belong to."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from appliance.cli.options import Context, Group, pass_context
from appliance.cli.terminal import Column, ago, confirm, table
from appliance.client import resource


@click.group(cls=Group)
def users() -> None:
    """The people that nodes belong to. USER is an id, a name or an address of mail."""


@users.command()
@click.argument("name")
@click.option(
    "--display", "display_name", metavar="TEXT", default="", help="The name that others see in their clients."
)
@click.option(
    "--email", metavar="ADDRESS", default="", help="The address of mail; it is also the login name."
)
@pass_context
def create(context: Context, name: str, display_name: str, email: str) -> None:
    """Add a person."""
    user = context.ask(
        "POST", resource("users"), {"name": name, "display_name": display_name, "email": email}
    )
    context.show(user, lambda now: _table([user], now))


@users.command("list")
@pass_context
def list_users(context: Context) -> None:
    """List all people."""
    found = context.ask("GET", resource("users"))
    context.show(found, lambda now: _table(found, now))


@users.command()
@click.argument("user")
@click.argument("new")
@pass_context
def rename(context: Context, user: str, new: str) -> None:
    """Give USER the name NEW; nodes and rights stay."""
    renamed = context.ask("PATCH", resource("users", user), {"name": new})
    context.done(renamed, f"renamed {user} to {new}")


@users.command()
@click.argument("user")
@click.option(
    "--with-nodes", is_flag=True, help="Delete the person's nodes too; without it a person with nodes stays."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_context
def delete(context: Context, user: str, with_nodes: bool, yes: bool) -> None:
    """Delete a person."""
    confirm(f"Delete user {user}" + (" and all nodes of that person?" if with_nodes else "?"), yes=yes)
    query = {"with_nodes": "1"} if with_nodes else {}
    deleted = context.ask("DELETE", resource("users", user), **query)
    context.done(deleted, f"deleted user {user}")


def _table(found: list[dict[str, Any]], now: datetime) -> str:
    columns: list[Column] = [
        ("ID", lambda user: user["id"]),
        ("NAME", lambda user: user["name"]),
        ("DISPLAY NAME", lambda user: user["display_name"]),
        ("EMAIL", lambda user: user["email"]),
        ("CREATED", lambda user: ago(user["created_at"], now)),
    ]
    return table(columns, found)
