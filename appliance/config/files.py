"""The configuration's files: which are read, and whether those it names can be."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from appliance.config.draft import ConfigError, Origin, Problem
from appliance.config.load import Loaded, Source, load

SYSTEM_FILE = Path("/etc/appliance/config.toml")
STATE_FILE = "config.toml"  # what `init` writes
FILE_MAX = 256 * 1024  # a configuration is a page or two; anything larger is another file by mistake


def load_files(named: Path | None, state: Path, environ: Mapping[str, str]) -> Loaded:
    """Read what there is, strongest first, and load it; ConfigError with every problem.

    `named` is `--config FILE` and must exist; without it the system's file is read if there is one.
    """
    sources = [
        source
        for path, needed in ((named or SYSTEM_FILE, named is not None), (state / STATE_FILE, False))
        if (source := _read(path, needed))
    ]
    loaded = load(sources, environ)
    problems = unreadable_files(loaded)
    if problems:
        raise ConfigError(*problems)
    return loaded


def unreadable_files(loaded: Loaded) -> list[Problem]:
    """Certificate and key that the configuration names but we cannot read."""
    if loaded.config.tls.mode != "files":
        return []
    problems = []
    for key, path in (("tls.cert", loaded.config.tls.cert), ("tls.key", loaded.config.tls.key)):
        try:
            with open(path, "rb") as file:
                file.read(1)
        except OSError as exc:
            hint = f"put the file there, readable for user {os.geteuid()}, or change {key}"
            problems.append(loaded.problem(key, f"cannot read {path}: {exc.strerror}", hint))
    return problems


def _read(path: Path, needed: bool) -> Source | None:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_MAX + 1)
        if len(data) > FILE_MAX:
            raise ConfigError(_about(path, f"larger than {FILE_MAX // 1024} KiB", "is this the right file?"))
        return Source(str(path), data.decode())
    except (FileNotFoundError, NotADirectoryError):
        if not needed:
            return None
        raise ConfigError(
            _about(path, "there is no such file", "create it, or name another with --config")
        ) from None
    except OSError as exc:
        hint = "run this as root or as the user that the server runs as"
        raise ConfigError(_about(path, f"cannot be read: {exc.strerror}", hint)) from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(_about(path, f"not UTF-8 at byte {exc.start}", "save it as UTF-8")) from exc


def _about(path: Path, message: str, hint: str) -> Problem:
    return Problem("", message, hint, Origin(str(path)))
