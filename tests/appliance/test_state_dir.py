"""The state folder is ours alone, held by one process, and its secrets are written whole or not at all."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance.errors import OperatorError
from appliance.state_dir import (
    check_modes,
    is_locked,
    load_or_create_secret,
    lock_state,
    open_state,
    read_secret,
    write_secret,
)


@pytest.fixture(autouse=True)
def umask_restored() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    path.mkdir(mode=0o700)
    return path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_folder_is_made_closed_with_what_is_above_it(tmp_path: Path) -> None:
    path = tmp_path / "a" / "state"
    with open_state(path):
        (path / "file").touch()
        assert (mode(path), mode(path / "file"), mode(path / "lock")) == (0o700, 0o600, 0o600)


def loose_folder(state: Path) -> None:
    state.chmod(0o750)


def loose_file(state: Path) -> None:
    (state / "noise.key").touch(0o644)


def loose_file_below(state: Path) -> None:
    (state / "tls").mkdir(mode=0o700)
    (state / "tls" / "key.pem").touch(0o640)


def linked_file(state: Path) -> None:
    (state / "noise.key").symlink_to("/etc/hostname")


def linked_folder(state: Path) -> None:
    real = state.with_name("real")
    state.rename(real)
    state.symlink_to(real)


def somebody_elses_file(state: Path) -> None:
    (state / "noise.key").touch(0o600)
    os.chown(state / "noise.key", 12345, 12345)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.mark.parametrize(
    ("spoil", "message", "hint"),
    [
        (loose_folder, "{state} has mode 0750: others can reach it", "chmod go= {state}"),
        (loose_file, "{state}/noise.key has mode 0644: others can reach it", "chmod go= {state}/noise.key"),
        (loose_file_below, "{state}/tls/key.pem has mode 0640: others can reach it", "chmod go= "),
        (linked_file, "{state}/noise.key is a symlink", "put the real file or folder there"),
        (linked_folder, "{state} is a symlink", "point --state at it"),
        pytest.param(
            somebody_elses_file, "{state}/noise.key belongs to user 12345", "chown -R", marks=needs_root
        ),
    ],
)
def test_loose_modes_refuse_start(
    spoil: Callable[[Path], None], message: str, hint: str, state: Path
) -> None:
    """D1: what others could have read or replaced is looked at by a person first."""
    spoil(state)
    with pytest.raises(OperatorError) as caught, open_state(state):
        pass
    assert message.format(state=state) in caught.value.message
    assert hint.format(state=state) in " ".join(caught.value.hints)


def test_hand_written_config_and_the_socket_are_no_reason_to_refuse(state: Path) -> None:
    (state / "config.toml").touch(0o644)
    check_modes(state)


def test_a_file_in_the_folders_place_is_said(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(OperatorError, match="is not a folder"), open_state(tmp_path / "state"):
        pass


def test_second_process_is_kept_out_and_told_whom_to_stop(state: Path) -> None:
    assert not is_locked(state)
    with open_state(state):
        assert is_locked(state)
        with pytest.raises(OperatorError) as caught, lock_state(state):
            pass
        assert caught.value.message == f"the state folder {state} is in use by process {os.getpid()}"
    assert not is_locked(state)
    with open_state(state):
        pass


class TestSecrets:
    def test_is_made_once_and_kept(self, state: Path) -> None:
        path = state / "noise.key"
        assert load_or_create_secret(path, lambda: b"one") == b"one"
        assert load_or_create_secret(path, lambda: b"two") == b"one"
        assert mode(path) == 0o600
        assert [entry.name for entry in state.iterdir()] == ["noise.key"]

    def test_replacing_never_shows_a_part(self, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = state / "noise.key"
        write_secret(path, b"old")

        def full(file: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OperatorError, match="No space left on device"):
            write_secret(path, b"new")
        assert path.read_bytes() == b"old"
        assert [entry.name for entry in state.iterdir()] == ["noise.key"]

    def test_a_disk_that_takes_only_a_part_leaves_the_old_one(self, state: Path) -> None:
        path = state / "noise.key"
        write_secret(path, b"old")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4, hard))
        try:
            with pytest.raises(OperatorError, match="cannot write"):
                write_secret(path, b"longer than four bytes")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert path.read_bytes() == b"old"

    def test_loose_or_linked_secret_is_not_used(self, state: Path) -> None:
        path = state / "noise.key"
        path.touch(0o644)
        with pytest.raises(OperatorError, match="mode 0644"):
            read_secret(path)
        path.unlink()
        path.symlink_to(state / "elsewhere")
        with pytest.raises(OperatorError, match="cannot read"):
            read_secret(path)

    def test_a_link_in_its_place_is_replaced_and_not_followed(self, state: Path) -> None:
        victim = state / "victim"
        victim.write_bytes(b"untouched")
        (state / "noise.key").symlink_to(victim)
        write_secret(state / "noise.key", b"new")
        assert victim.read_bytes() == b"untouched"
        assert read_secret(state / "noise.key") == b"new"
