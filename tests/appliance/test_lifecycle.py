from __future__ import annotations

import signal
from pathlib import Path

import pytest
import trio

from appliance.lifecycle import until_told_to_stop
from appliance.listeners import Listeners
from appliance.notify import Notifier
from appliance.tls.current import CurrentCertificate
from tests.appliance.tls.connected import NAME, authority, certificate


async def test_hangup_reads_the_certificate_again_and_tells_clients_its_new_pin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tls.pem"
    certificate().private_key_and_cert_chain_pem.write_to_path(path)
    current, pins = CurrentCertificate(path), []

    async def serve() -> None:
        await until_told_to_stop(
            Listeners([], [], [], tls=True), Notifier({}), current, lambda: pins.append(current.pin)
        )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await trio.testing.wait_all_tasks_blocked()
        assert capsys.readouterr().err == "ready\n"
        before = current.pin
        another = authority().issue_cert(NAME).private_key_and_cert_chain_pem.bytes()
        for text in (another, b"damaged"):
            path.write_bytes(text)
            signal.raise_signal(signal.SIGHUP)
            await trio.testing.wait_all_tasks_blocked()
        signal.raise_signal(signal.SIGTERM)
    assert pins == [current.pin]
    assert pins != [before]
