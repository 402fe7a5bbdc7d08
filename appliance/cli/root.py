"""The command line: `appliance serve` runs the server, everything else asks the running one over its socket.

Data on stdout, talk on stderr. Exit status: 0 done; 1 refused or failed, with `error:` and `hint:` lines; 2 wrong usage or
configuration; 3 the server is not running. A command that asks the server imports neither trio nor the pages' framework.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from appliance.cli.config import config
from appliance.cli.keys import keys
from appliance.cli.nodes import nodes
from appliance.cli.options import Context, Group
from appliance.cli.serve import serve
from appliance.cli.status import status
from appliance.cli.terminal import say_error
from appliance.cli.users import users
from appliance.errors import OperatorError

DONE = 0
WRONG_USAGE = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells say it


@click.group(cls=Group, top=True)
@click.pass_context
def appliance(ctx: click.Context) -> None:
    """Homeport: your own control server, relay and STUN for Tailscale clients.

    The options below are accepted anywhere on the line.
    """
    ctx.ensure_object(Context)


for command in (serve, status, users, keys, nodes, config):
    appliance.add_command(command)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    try:
        return appliance.main(args=argv, prog_name="appliance", standalone_mode=False) or DONE
    except click.UsageError as exc:
        where = exc.ctx.command_path if exc.ctx else "appliance"
        say_error(OperatorError(exc.format_message(), f"{where} -h shows the usage"))
        return WRONG_USAGE
    except click.Abort:
        say_error(OperatorError("nothing was done"))
        return OperatorError.exit_status
    except OperatorError as exc:
        say_error(exc)
        return exc.exit_status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has enough; Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OperatorError.exit_status
