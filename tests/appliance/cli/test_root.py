"""What holds for every command: global options anywhere, exit statuses, questions, quick starts."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from appliance.cli import config as config_command
from appliance.config.load import Source, load
from appliance.state_dir import lock_state
from tests.appliance.cli.fake_server import Ran, run_command, serving

LINES = [
    ["--state", "{state}", "--json", "nodes", "list"],
    ["nodes", "--state", "{state}", "list", "--json"],
    ["nodes", "--json", "list", "--state={state}"],
    ["--json", "nodes", "list", "--quiet", "--state", "{state}"],
]


@pytest.mark.parametrize("line", LINES, ids=" ".join)
async def test_global_options_are_accepted_anywhere(line: list[str], tmp_path: Path) -> None:
    async with serving(tmp_path):
        ran = await run([word.format(state=tmp_path) for word in line])
        assert ran.status == 0
        assert [node["id"] for node in json.loads(ran.out)] == ["7", "8"]
        assert ran.err == ""


async def run(args: list[str]) -> Ran:
    return await trio.to_thread.run_sync(run_command, args)


async def test_state_comes_from_the_environment_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPLIANCE_STATE", str(tmp_path))
    async with serving(tmp_path):
        assert (await run(["users", "list"])).status == 0


async def test_a_path_longer_than_the_kernel_allows_is_served_and_reached(tmp_path: Path) -> None:
    state = tmp_path / ("x" * 100) / ("y" * 100)
    state.mkdir(parents=True)
    async with serving(state) as server:
        assert (await server.run("users", "list")).status == 0


class TestQuestions:
    async def test_delete_asks_on_a_terminal_and_no_changes_nothing(self, tmp_path: Path) -> None:
        async with serving(tmp_path) as server:
            ran = await server.run("nodes", "delete", "laptop", typed="n\n")
            assert (ran.status, server.requests) == (1, [])
            assert "Delete node laptop?" in ran.err
            assert "error: nothing was done" in ran.err
            ran = await server.run("nodes", "delete", "laptop", typed="y\n")
            assert (ran.status, len(server.requests)) == (0, 1)

    async def test_yes_and_scripts_are_not_asked(self, tmp_path: Path) -> None:
        async with serving(tmp_path) as server:
            assert "?" not in (await server.run("nodes", "delete", "laptop", "--yes", typed="")).err
            assert "?" not in (await server.run("users", "delete", "alice")).err
            assert len(server.requests) == 2

    async def test_end_of_input_is_a_no(self, tmp_path: Path) -> None:
        async with serving(tmp_path) as server:
            assert (await server.run("keys", "revoke", "Ab3dEf6hIj9k", typed="")).status == 1
            assert server.requests == []

    async def test_approval_needs_confirmation_and_binds_machine(self, tmp_path: Path) -> None:
        """K4: the approver sees which machine asks, and answers."""
        async with serving(tmp_path) as server:
            ran = await server.run("nodes", "approve", "abc", "--user", "alice", typed="n\n")
            assert ran.status == 1
            for shown in ("phone", "iOS", "198.51.100.7", "[mZ3dK]", "1m15s", "as a node of alice?"):
                assert shown in ran.err
            assert [request.call for request in server.requests] == ["GET /api/v1/logins/abc"]
            assert (await server.run("nodes", "approve", "abc", "--user", "alice", typed="y\n")).status == 0
            assert server.requests[-1].call == "POST /api/v1/logins/abc/approve"


def test_server_that_is_not_there_is_exit_3(tmp_path: Path) -> None:
    ran = run_command(["status", "--state", str(tmp_path)])
    assert ran.status == 3
    assert f"hint: start it with: appliance serve --state {tmp_path}" in ran.err


def test_leftover_socket_of_a_killed_server_is_exit_3(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "appliance.sock"))
    assert run_command(["status", "--state", str(tmp_path)]).status == 3


def test_serve_without_any_configuration_says_what_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.config.files.SYSTEM_FILE", tmp_path / "none")
    ran = run_command(["serve", "--state", str(tmp_path)])
    assert ran.status == 1
    assert "has not been configured" in ran.err


class TestConfigCheck:
    def test_shows_every_value_with_where_it_came_from(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "c.toml"
        file.write_text(
            'server_url = "http://127.0.0.1:1"\n[listen]\nhttp = ""\nhttps = "127.0.0.1:0"\nstun = ""\n'
        )
        monkeypatch.setenv("APPLIANCE_LOG_LEVEL", "debug")
        line = ["config", "check", "--config", str(file), "--state", str(tmp_path)]
        ran = run_command([*line, "--json"])
        assert ran.status == 0
        rows = {row["key"]: (row["value"], row["from"]) for row in json.loads(ran.out)["values"]}
        assert rows["server_url"] == ("http://127.0.0.1:1", f"{file}:1")
        assert rows["listen.https"] == ("127.0.0.1:0", f"{file}:4")
        assert rows["log.level"] == ("debug", "environment APPLIANCE_LOG_LEVEL")
        assert rows["tls.mode"] == ("self-signed", "follows from server_url, which is not public")
        assert rows["limits.nodes"] == (10000, "default")

    def test_port_in_use_names_line_and_setting_unless_our_server_has_it(self, tmp_path: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            file = tmp_path / "c.toml"
            file.write_text(
                f'server_url = "http://127.0.0.1:1"\n[listen]\nhttps = ""\nhttp = "127.0.0.1:{port}"\nstun = ""\n'
            )
            line = ["config", "check", "--config", str(file), "--state", str(tmp_path)]
            ran = run_command(line)
            assert ran.status == 2
            assert f"error: {file}:4: listen.http: 127.0.0.1:{port} is in use" in ran.err
            assert run_command(["serve", *line[2:]]) == ran
            with lock_state(tmp_path):
                assert run_command(line).status == 0

    def test_wildcard_ports_are_tried_on_both_families(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            loaded = load(
                [Source("c", f'[listen]\nhttp = "127.0.0.1:0"\nhttps = ""\nstun = ":{port}"')],
                {"APPLIANCE_SERVER_URL": "http://127.0.0.1:1"},
            )
            assert [problem.key for problem in config_command.taken_ports(loaded)] == ["listen.stun"]


HEAVY = (
    "trio",
    "quart",
    "hypercorn",
    "h11",
    "msgspec",
    "cryptography",
    "sqlite3",
    "control",
    "appliance.config.schema",
)


def test_a_command_that_asks_the_server_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from appliance.cli.root import main; "
        f"status = main(['nodes', 'list', '--state', {str(tmp_path)!r}]); "
        f"print(status, [name for name in {HEAVY} if name in sys.modules])"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    assert done.stdout == "3 []\n"
