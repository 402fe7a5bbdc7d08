"""What has been read of a configuration so far, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from appliance.config.schema import Setting
from appliance.errors import OperatorError
from appliance.printable import printable

SHOWN_MAX = 80


class Origin(NamedTuple):
    """Where a value came from: a file and its line, an environment variable, the default, or other settings."""

    place: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.place}:{self.line}" if self.line else self.place


DEFAULT = Origin("default")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with the configuration."""

    key: str  # "" when it belongs to no setting
    message: str
    hint: str = ""
    origin: Origin = DEFAULT

    def __str__(self) -> str:
        where = () if self.origin == DEFAULT else (str(self.origin),)
        return ": ".join((*where, *((self.key,) if self.key else ()), self.message))


class ConfigError(OperatorError):
    """The configuration is wrong: every problem that was found."""

    exit_status = 2

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(map(str, problems)), *(problem.hint for problem in problems))
        self.problems = problems

    def lines(self) -> Iterator[tuple[str, str]]:
        """Every problem with its own hint below it."""
        for problem in self.problems:
            yield "error", str(problem)
            if problem.hint:
                yield "hint", problem.hint


@dataclass(slots=True)
class Draft:
    """What has been read so far; `check.complete` turns it into a configuration."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def take(self, setting: Setting, value: Any, origin: Origin) -> None:
        """Keep a value unless a stronger source has the setting; a bad one is a problem either way."""
        try:
            parsed = setting.kind.parse(value)
        except (ValueError, TypeError) as exc:
            detail = f" ({exc})" if str(exc) else ""
            message = f"expected {setting.kind.expected}, got {written(value)}{detail}"
            example = (
                f"for example {setting.name} = {as_toml(setting.default)}" if setting.default else "that"
            )
            hint = f"write {example}, or leave it out"
            self.problems.append(Problem(setting.path, message, hint, origin))
            parsed = setting.kind.parse(setting.default)
        if setting.path not in self.origins:
            self.values[setting.path] = parsed
            self.origins[setting.path] = origin


def as_toml(value: Any) -> str:
    """A default as it stands in a file."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(as_toml(item) for item in value) + "]"
    return str(value) if isinstance(value, int) else f'"{value}"'


def written(value: Any) -> str:
    """A value as it was written, more or less, for a message."""
    if isinstance(value, str):
        return f'"{printable(value, SHOWN_MAX)}"'
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, bool):
        return str(value).lower()
    return printable(str(value), SHOWN_MAX)
