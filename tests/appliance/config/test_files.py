"""Which files are read, and what is said of one that cannot be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appliance.config import files
from appliance.config.draft import ConfigError
from appliance.config.files import load_files

TEXT = 'server_url = "http://127.0.0.1:8080"\n'


@pytest.fixture(autouse=True)
def no_system_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "etc.toml"
    monkeypatch.setattr(files, "SYSTEM_FILE", path)
    return path


def test_named_file_stands_in_for_the_systems(tmp_path: Path, no_system_file: Path) -> None:
    no_system_file.write_text(TEXT + '[listen]\nstun = ":1"\nhttp = ":2"')
    named = tmp_path / "named.toml"
    named.write_text('[listen]\nstun = ":3"')
    (tmp_path / "config.toml").write_text(TEXT + '[listen]\nhttp = ":4"')
    assert load_files(None, tmp_path, {}).config.listen.stun == ("", 1)
    listen = load_files(named, tmp_path, {}).config.listen
    assert (listen.stun, listen.http) == (("", 3), ("", 4))


def test_nothing_anywhere_is_not_explicit(tmp_path: Path) -> None:
    assert not load_files(None, tmp_path / "nowhere", {}).explicit


def message(named: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_files(named, Path("/nonexistent"), {})
    assert caught.value.hints
    return str(caught.value.problems[0])


def test_missing_file_folder_binary_and_huge_file_are_said(tmp_path: Path) -> None:
    assert message(tmp_path / "no.toml") == f"{tmp_path}/no.toml: there is no such file"
    assert message(tmp_path) == f"{tmp_path}: cannot be read: Is a directory"
    bad = tmp_path / "bad"
    bad.write_bytes(b"abc\xff")
    assert message(bad) == f"{bad}: not UTF-8 at byte 3"
    bad.write_bytes(b"#" * 300_000)
    assert message(bad) == f"{bad}: larger than 256 KiB"


def test_unreadable_certificate_names_the_line_that_asks_for_it(tmp_path: Path) -> None:
    named = tmp_path / "c.toml"
    key = tmp_path / "tls.key"
    key.write_text("")
    named.write_text(TEXT + f'[tls]\nmode = "files"\ncert = "{tmp_path}/tls.crt"\nkey = "{key}"')
    with pytest.raises(ConfigError) as caught:
        load_files(named, tmp_path, {})
    (problem,) = caught.value.problems
    assert str(problem) == f"{named}:4: tls.cert: cannot read {tmp_path}/tls.crt: No such file or directory"
    assert problem.hint == f"put the file there, readable for user {os.geteuid()}, or change tls.cert"
