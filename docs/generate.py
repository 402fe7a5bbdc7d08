"""Reference pages made from the program itself: docs/configuration.md from the settings, docs/commands.md from the help.

python -m docs.generate             write them
python -m docs.generate --check     fail if one is not current
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click

HERE = Path(__file__).parent
NOTE = "<!-- Made by `make docs`; do not edit. -->\n"


def configuration() -> Iterator[str]:
    """One table a section."""
    from appliance.config.schema import SECTIONS, SETTINGS

    yield f"{NOTE}\n# Configuration\n\n"
    yield (
        "Only what is needed to start. Each setting is taken from the strongest source that has it: the environment, the\n"
        "file given by `--config` (else `/etc/appliance/config.toml`), `config.toml` in the state folder, the default.\n"
        "`appliance config check` prints every value with where it came from, and starts nothing.\n"
    )
    for section in ("", *SECTIONS):
        about = (SECTIONS[section].__doc__ or "").strip() if section else "At the top of the file."
        yield f"\n## {f'[{section}]' if section else 'Server'}\n\n{about}\n\n"
        yield "| setting | default | environment | meaning |\n| --- | --- | --- | --- |\n"
        for setting in SETTINGS.values():
            if setting.section == section:
                default = (
                    str(setting.default).lower()
                    if isinstance(setting.default, bool)
                    else repr(setting.default)
                )
                yield f"| `{setting.name}` | `{default.replace(chr(39), chr(34))}` | `{setting.env}` | {cell(setting.help)} |\n"


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def commands() -> Iterator[str]:
    """The help of every command, in the order of `appliance -h`."""
    from appliance.cli.root import appliance

    yield f"{NOTE}\n# Commands\n\n"
    yield "Data goes to stdout, talk to stderr. Exit status: 0 done, 1 refused or failed, 2 wrong usage or configuration,\n"
    yield "3 the server is not running.\n"
    yield from command(appliance, context_of(appliance, "appliance", None))


def command(what: click.Command, context: click.Context) -> Iterator[str]:
    yield f"\n## {context.command_path}\n\n```text\n{what.get_help(context)}\n```\n"
    if isinstance(what, click.Group):
        for name in what.list_commands(context):
            inner = what.get_command(context, name)
            if inner and not inner.hidden:
                yield from command(inner, context_of(inner, name, context))


def context_of(what: click.Command, name: str, parent: click.Context | None) -> click.Context:
    return click.Context(
        what, info_name=name, parent=parent, **{**what.context_settings, "max_content_width": 100}
    )


def main() -> int:
    os.environ["COLUMNS"] = "100"  # whoever runs it, the help breaks at the same places
    pages = {"configuration.md": configuration, "commands.md": commands}
    stale = []
    for name, make in pages.items():
        text, path = "".join(make()), HERE / name
        if path.exists() and path.read_text() == text:
            continue
        stale.append(name)
        if "--check" not in sys.argv[1:]:
            path.write_text(text)
    if stale and "--check" in sys.argv[1:]:
        print(f"not current: {', '.join(stale)}; run `make docs`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
