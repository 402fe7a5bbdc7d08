"""The command line by transcripts: commands, what they print, how they end.

    $ appliance nodes list          a command
    NAME …                          what it writes to stdout
    ! approved: …                   what it writes to stderr
    [exit 1]                        when it is not 0
    (POST /api/v1/nodes …)          what the server was asked, when it changes something

To refresh one after a change: copy the text that the failing test prints, after reading it.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.appliance.cli.fake_server import FakeServer, run_command, serving

FOLDER = Path(__file__).parent / "transcripts"
TRANSCRIPTS = {path.stem: path.read_text() for path in sorted(FOLDER.glob("*.txt"))}


@pytest.mark.parametrize("name", TRANSCRIPTS)
async def test_transcript(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    monkeypatch.delenv("APPLIANCE_STATE", raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    written = TRANSCRIPTS[name]
    async with serving(tmp_path / "s") as server:
        found = [await transcribe(server, line) for line in written.splitlines() if line.startswith("$ ")]
    assert "\n".join(found).replace(str(tmp_path), "TMP") == written


async def transcribe(server: FakeServer, line: str) -> str:
    before = len(server.requests)
    program, *args = shlex.split(line.removeprefix("$ "))
    assert program == "appliance"
    ran = run_command(args) if "--state" in args else await server.run(*args)
    lines = [line, *ran.out.splitlines(), *(f"! {text}" for text in ran.err.splitlines())]
    if ran.status:
        lines.append(f"[exit {ran.status}]")
    for request in server.requests[before:]:
        if not request.call.startswith("GET "):
            query = "&".join(f"{name}={value}" for name, value in request.query.items())
            lines.append(
                f"({request.call}{'?' + query if query else ''} {request.body.decode()}".rstrip() + ")"
            )
    return "\n".join(lines) + "\n"
