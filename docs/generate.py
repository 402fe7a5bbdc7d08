"""Write docs/configuration.md and docs/cli.md from the settings' rows and the commands' help: `make docs`.

python -m docs.generate            write them
python -m docs.generate --check    exit 1 when they are not current
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from appliance.cli.options import HELP
from appliance.cli.root import appliance
from appliance.config.draft import as_toml
from appliance.config.schema import SECTIONS, SETTINGS, Setting

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 100

CONFIGURATION = """\
# Configuration

Only what is needed to start is configured here: addresses, TLS, logs, limits. Everything that changes while the server
runs lives in its database and is changed with the commands of [cli.md](cli.md).

Each setting is taken from the first place that has it:

1. the environment variable named below,
2. the file given with `--config FILE`, else `/etc/appliance/config.toml`,
3. `config.toml` in the state folder,
4. its default.

`appliance config check` says what is wrong with a configuration, and shows each value with where it came from. A server
that nobody configured does not start: an empty `/etc/appliance/config.toml` is enough to say that the defaults are meant.

A minimal file for a server with a certificate of its own:

```toml
server_url = "https://vpn.example.com"

[tls]
mode = "files"
cert = "/etc/appliance/tls.crt"
key = "/etc/appliance/tls.key"
```

Lists in environment variables are separated by commas. The state folder is not a setting: it is `--state DIR`, else
`APPLIANCE_STATE`, else `/var/lib/appliance`.

"""

CLI = """\
# Command line

`appliance serve` runs the server; the other commands ask the running one over the socket in its state folder, which only
root and the server's user may use. Data goes to stdout, everything else to stderr.

| exit status | means |
| --- | --- |
| 0 | done |
| 1 | refused or failed; `error:` and `hint:` lines say why and what to do |
| 2 | wrong usage or configuration |
| 3 | the server is not running |

`--state DIR`, `--json`, `--quiet`, `--version` and `-h` are accepted anywhere on the line. With `--json` a command prints one
JSON document: ids are texts, times are RFC 3339, an absent value is null. USER is an id, a name or an address of mail; NODE is an
id, a name or an address.

"""


def configuration_page() -> str:
    return CONFIGURATION + "\n".join(_sections())


def _sections() -> Iterator[str]:
    top = [setting for setting in SETTINGS.values() if not setting.section]
    yield "## At the top of the file\n"
    yield from _table(top)
    for name, owner in SECTIONS.items():
        yield f"## [{name}]\n"
        yield f"{owner.__doc__}\n"
        yield from _table([setting for setting in SETTINGS.values() if setting.section == name])


def _table(settings: list[Setting]) -> Iterator[str]:
    yield "| setting | default | what it is | environment |"
    yield "| --- | --- | --- | --- |"
    for setting in settings:
        yield f"| `{setting.name}` | `{as_toml(setting.default)}` | {setting.help} | `{setting.env}` |"
    yield ""


def cli_page() -> str:
    return CLI + "\n".join(
        _commands(appliance, click.Context(appliance, info_name="appliance", terminal_width=WIDTH, **HELP))
    )


def _commands(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"## {context.command_path}\n"
    yield f"```\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.commands[name]
            yield from _commands(inner, click.Context(inner, info_name=name, parent=context, **HELP))


PAGES = {"configuration.md": configuration_page, "cli.md": cli_page}


def main(arguments: list[str]) -> int:
    check = "--check" in arguments
    stale = [name for name, page in PAGES.items() if not _current(ROOT / "docs" / name, page())]
    for name in stale:
        print(f"docs/{name} is not current: make docs" if check else f"wrote docs/{name}", file=sys.stderr)
        if not check:
            (ROOT / "docs" / name).write_text(PAGES[name]())
    return 1 if check and stale else 0


def _current(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
