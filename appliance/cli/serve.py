"""`appliance serve`: run the server."""

from __future__ import annotations

import os
from pathlib import Path

import click

from appliance.cli.config import config_option, refuse_taken_ports
from appliance.cli.options import Command, Context, pass_context
from appliance.errors import OperatorError


@click.command(cls=Command)
@config_option
@pass_context
def serve(context: Context, config_file: Path | None) -> None:
    """Run the server in the foreground."""
    from appliance.config.files import load_files
    from appliance.state_dir import is_locked

    loaded = load_files(config_file, context.places.state, os.environ)
    if not loaded.explicit:
        raise OperatorError(
            "this server has not been configured: there is no configuration file and no APPLIANCE_… variable",
            "write /etc/appliance/config.toml, or name a file with --config; docs/configuration.md has an example",
        )
    if "LISTEN_FDS" not in os.environ and not is_locked(context.places.state):
        # Said here with file and line; whoever takes a port after this is met by the listener itself.
        refuse_taken_ports(loaded)
    from appliance.main import serve_main  # trio, the door and everything behind it: only here

    serve_main(loaded, context.places)
