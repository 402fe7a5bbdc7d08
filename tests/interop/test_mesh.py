"""An independent client joins and talks to an official one: what we speak is the protocol, not one program's habits."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from tests.interop.netns import wait_for
from tests.interop.server import NAME
from tests.interop.trial import MB, PORT, Trial

MESH = Path(__file__).with_name("mesh_client.py")


PLAIN = {"url": f"http://{NAME}", "tls": "self-signed"}  # it trusts public authorities only, or none at all


@pytest.mark.main
@pytest.mark.parametrize("options", [PLAIN], indirect=True, ids=["plain-http"])
def test_arkitekt_mesh_joins_and_moves_data_to_an_official_client(trial: Trial) -> None:
    if importlib.util.find_spec("arkitekt_mesh") is None:
        pytest.skip("arkitekt-mesh is not installed: `make test-all` does that")
    ann = trial.join("ann")
    ann.host.serve(PORT)
    host = trial.lab.host("mesh")
    log = trial.lab.logs / "mesh.log"
    words = (str(trial.lab.dir / "mesh"), trial.server.url, trial.key(), ann.address, str(PORT))
    program = host.spawn(sys.executable, str(MESH), *words, log=log)

    def step(name: str) -> object:
        assert program.poll() is None, log.read_text()
        rows = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
        return next((row[name] for row in rows if name in row), None)

    addresses = wait_for(lambda: step("addresses"), 50, "arkitekt-mesh has joined")
    assert set(trial.server.node("mesh").addresses) >= set(addresses)  # type: ignore[call-overload]
    ann.wait_peer("mesh")
    local, _, port = str(wait_for(lambda: step("forward"), 20, "a way to ann")).rpartition(":")
    for verb in ("put", "get"):
        assert host.probe(verb, local, port, str(5 * MB), timeout=60)["ok"]
    ann.ping("mesh")
