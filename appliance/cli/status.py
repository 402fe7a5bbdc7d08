"""`appliance status`: how the running server is."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from appliance.cli.options import Command, Context, pass_context
from appliance.cli.terminal import ago, pairs, size, span
from appliance.client import resource


@click.command(cls=Command)
@pass_context
def status(context: Context) -> None:
    """Show how the running server is."""
    found = context.ask("GET", resource("status"))
    context.show(found, lambda now: _text(found, now))


def _text(found: dict[str, Any], now: datetime) -> str:
    nodes, relay, tls = found["nodes"], found["relay"], found["tls"]
    certificate = tls["mode"] + (f", expires {ago(tls['expires_at'], now)}" if tls["expires_at"] else "")
    traffic = f"{size(relay['bytes_in'])} in, {size(relay['bytes_out'])} out"
    lines = [
        ("version", found["version"]),
        ("server url", found["server_url"]),
        ("ready", found["ready"]),
        ("up", span(found["uptime_s"])),
        ("certificate", certificate),
        ("storage", found["storage"]),
        ("nodes", f"{nodes['online']} online of {nodes['total']}"),
        ("relay", f"{relay['clients']} clients, {traffic}"),
    ]
    if found.get("pending_logins"):
        lines.append(("waiting logins", found["pending_logins"]))
    lines += [
        ("failing", f"{each['who']}: {each['why']} ({ago(each['at'], now)})")
        for each in found.get("failing", ())
    ]
    return pairs(lines)
