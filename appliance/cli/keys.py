"""`appliance keys`: auth keys, with which a client joins without anybody approving."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from appliance.cli.options import Context, Group, pass_context
from appliance.cli.terminal import Column, Duration, ago, confirm, span, table
from appliance.client import resource


@click.group(cls=Group)
def keys() -> None:
    """Auth keys, with which a client joins without anybody approving."""


@keys.command()
@click.option("--user", metavar="USER", help="Whose nodes they become; not needed with --tag.")
@click.option("--reusable", is_flag=True, help="Good for more than one node.")
@click.option("--ephemeral", is_flag=True, help="Its nodes vanish a while after they go offline.")
@click.option(
    "--tag",
    "tags",
    metavar="TAG",
    multiple=True,
    help="A tag its nodes carry, such as tag:server; repeatable.",
)
@click.option(
    "--expiry",
    type=Duration(),
    default="1h",
    show_default=True,
    help="How long it can be used: 30m, 12h, 90d.",
)
@pass_context
def create(
    context: Context, user: str | None, reusable: bool, ephemeral: bool, tags: tuple[str, ...], expiry: int
) -> None:
    """Make a key and print it: now and never again."""
    if user is None and not tags:
        raise click.UsageError("name a --user or at least one --tag: a node belongs to one or the other")
    wanted = {
        "user": user,
        "reusable": reusable,
        "ephemeral": ephemeral,
        "tags": list(tags),
        "expiry_s": expiry,
    }
    key = context.ask("POST", resource("keys"), wanted)
    context.show(key, lambda now: str(key["key"]))
    often = "any number of times" if reusable else "once"
    context.talk(
        f"This key can be used {often} within {span(expiry)}. It is not shown again; its id is {key['id']}."
    )


@keys.command("list")
@pass_context
def list_keys(context: Context) -> None:
    """List the keys; the keys themselves are not kept."""
    found = context.ask("GET", resource("keys"))
    context.show(found, lambda now: _table(found, now))


@keys.command()
@click.argument("id")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_context
def revoke(context: Context, id: str, yes: bool) -> None:  # noqa: A002  (the name people read in the usage line)
    """Revoke a key by its ID. Nodes that joined with it stay."""
    if id.startswith("tskey-"):
        raise click.UsageError("give the key's id, which `appliance keys list` shows, not the key")
    confirm(f"Revoke key {id}?", yes=yes)
    revoked = context.ask("DELETE", resource("keys", id))
    context.done(revoked, f"revoked key {id}")


def _table(found: list[dict[str, Any]], now: datetime) -> str:
    columns: list[Column] = [
        ("ID", lambda key: key["id"]),
        ("USER", lambda key: key["user"]),
        ("TAGS", lambda key: key["tags"]),
        ("REUSABLE", lambda key: key["reusable"]),
        ("EPHEMERAL", lambda key: key["ephemeral"]),
        ("STATE", lambda key: key["state"]),
        ("EXPIRES", lambda key: ago(key["expires_at"], now)),
    ]
    return table(columns, found)
