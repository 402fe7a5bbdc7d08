"""TOML texts and the environment become one Config, or all problems at once.

    environment  >  --config FILE, else /etc/appliance/config.toml  >  STATE/config.toml  >  defaults

setting by setting: each value is the strongest source's. Every source is checked whole, even where a stronger one wins. A
problem says file, line, key, what was expected and what to do; `Loaded.origins` says where each value came from.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from appliance.config.check import complete
from appliance.config.draft import DEFAULT, ConfigError, Draft, Origin, Problem, written
from appliance.config.schema import SECTIONS, SETTINGS, Config, build

NOT_SETTINGS = {"APPLIANCE_STATE"}  # environment variables of ours that no setting belongs to


class Source(NamedTuple):
    """A configuration file that was read."""

    name: str  # its path
    text: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that holds together."""

    config: Config
    origins: Mapping[str, Origin]  # by path of the setting
    warnings: tuple[Problem, ...] = ()
    explicit: bool = False  # somebody configured something: no set-up needed

    def problem(self, key: str, message: str, hint: str = "") -> Problem:
        """A problem with `key` that only showed later, such as a port in use: it names file and line too."""
        return Problem(key, message, hint, self.origins[key])


def read(sources: Sequence[Source], environ: Mapping[str, str]) -> Draft:
    """Everything that was set; sources strongest first."""
    draft = Draft()
    _read_environment(draft, environ)
    for source in sources:
        _read_file(draft, source)
    return draft


def load(sources: Sequence[Source], environ: Mapping[str, str]) -> Loaded:
    """The configuration, or ConfigError with every problem."""
    draft = read(sources, environ)
    explicit = bool(sources) or bool(draft.origins)
    warnings = complete(draft)
    if draft.problems:
        raise ConfigError(*draft.problems)
    origins = {path: draft.origins.get(path, DEFAULT) for path in SETTINGS}
    return Loaded(build(draft.values), origins, tuple(warnings), explicit)


def _read_environment(draft: Draft, environ: Mapping[str, str]) -> None:
    twins = {setting.env: setting for setting in SETTINGS.values()}
    for name, text in environ.items():
        origin = Origin(f"environment {name}")
        if name in twins:
            setting = twins[name]
            try:
                value = setting.kind.from_text(text)
            except (ValueError, KeyError):
                value = text  # of the wrong type: `take` says what was expected
            draft.take(setting, value, origin)
        elif name.startswith("APPLIANCE_") and name not in NOT_SETTINGS:
            # Other programs may have variables that begin like ours; only what looks like a slip is one.
            close = difflib.get_close_matches(name, twins, 1, cutoff=0.9)
            if close or any(name.startswith(f"APPLIANCE_{section.upper()}_") for section in SECTIONS):
                hint = (
                    f"did you mean {close[0]}?"
                    if close
                    else "unset it; docs/configuration.md lists all variables"
                )
                draft.problems.append(Problem("", "unknown setting", hint, origin))


def _read_file(draft: Draft, source: Source) -> None:
    try:
        document = tomllib.loads(source.text)
    except tomllib.TOMLDecodeError as exc:
        draft.problems.append(_syntax_problem(source, str(exc)))
        return
    except RecursionError:
        draft.problems.append(
            Problem("", "nested too deeply", "is this the right file?", Origin(source.name))
        )
        return
    lines = lines_of_keys(source.text)
    for path, value in _leaves(document):
        origin = Origin(source.name, lines.get(path, 0))
        if path in SETTINGS:
            draft.take(SETTINGS[path], value, origin)
        elif path in SECTIONS:
            message = f"expected a table [{path}], got {written(value)}"
            draft.problems.append(Problem(path, message, f"write [{path}] and its settings below", origin))
        else:
            draft.problems.append(Problem(path, "unknown setting", _did_you_mean(path), origin))


def _leaves(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(path, value) of the top level and of known sections; an unknown table is one leaf."""
    for name, value in document.items():
        if name in SECTIONS and isinstance(value, dict):
            for inner, leaf in value.items():
                yield f"{name}.{inner}", leaf
        else:
            yield name, value


def lines_of_keys(text: str) -> dict[str, int]:
    """The line on which each key begins, numbered from 1.

    tomllib keeps no positions. But every beginning of a document that ends between two statements is a document too: the
    line after the last one that parsed is where the next statement begins. Quadratic, and configuration files are short.
    """
    found: dict[str, int] = {}
    lines = text.split("\n")
    begin = 1
    for count in range(1, len(lines) + 1):
        try:
            document = tomllib.loads("\n".join(lines[:count]) + "\n")
        except tomllib.TOMLDecodeError:
            continue  # in the middle of a list or of a text of several lines
        for name, value in document.items():
            found.setdefault(name, begin)
            for inner in value if isinstance(value, dict) else ():
                found.setdefault(f"{name}.{inner}", begin)
        begin = count + 1
    return found


def _syntax_problem(source: Source, message: str) -> Problem:
    match = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)", message)
    line = int(match[1]) if match and match[1] else source.text.count("\n") + 1
    said = message[: match.start()] if match else message
    return Problem(
        "",
        f"not TOML: {said[:1].lower()}{said[1:]}",
        'texts are quoted: name = "value"',
        Origin(source.name, line),
    )


def _did_you_mean(path: str) -> str:
    """A hint for an unknown key: a close one, or the one of that name in another table."""
    section, _, name = path.rpartition(".")
    near = [setting.name for setting in SETTINGS.values() if setting.section == section]
    close = difflib.get_close_matches(name, near, 1) or difflib.get_close_matches(
        name, [*(setting.name for setting in SETTINGS.values()), *SECTIONS], 1, cutoff=0.8
    )
    if not close:
        return "remove it; docs/configuration.md lists all settings"
    found = [setting for setting in SETTINGS.values() if setting.name == close[0]]
    if not found:
        return f"did you mean [{close[0]}]?"
    setting = next((each for each in found if each.section == section), found[0])
    if setting.section == section:
        return f"did you mean {setting.name}?"
    return f"did you mean {setting.name} " + (
        f"in [{setting.section}]?" if setting.section else "at the top of the file?"
    )
