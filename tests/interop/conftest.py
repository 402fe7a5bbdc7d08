"""What the interop tests stand on: a lab, a server in it, and the official clients in the versions asked for.

A test takes `trial` and gets the current clients. `@pytest.mark.main` repeats it in the same run with 1.80 clients;
every other mix of versions runs in `make test-long`.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.interop.lab import Lab
from tests.interop.netns import sweep
from tests.interop.server import ROOT, URL, Server
from tests.interop.trial import Trial

HERE = Path(__file__).parent
PROGRAMS = (
    "ip",
    "ss",
    "nft",
    "iptables",
    "ping",
    "curl",
    "openssl",
    "unshare",
    "nsenter",
    "sysctl",
    "hostname",
)

# name → client versions, dealt to a test's clients in turn
MIXES = {
    "current": ("current",),
    "1.80": ("1.80",),
    "current+1.80": ("current", "1.80"),
    "1.80+current": ("1.80", "current"),
}
TIMEOUT_S = 180  # for one test; the slow ones are the 100 MB through the relay on a busy machine
FAILED = ROOT / ".cache" / "interop-failed"
CLIENTS = Path(os.environ.get("HOMEPORT_CLIENTS", ROOT / ".cache" / "interop"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "main: runs with 1.80 clients as well, not only in test-long")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.interop)
            if not item.get_closest_marker("timeout"):
                item.add_marker(pytest.mark.timeout(TIMEOUT_S))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "mix" not in metafunc.fixturenames:
        return
    now = (
        {"current", "1.80"}
        if any(mark.name == "main" for mark in metafunc.definition.iter_markers())
        else {"current"}
    )
    marks = {name: () if name in now else (pytest.mark.long,) for name in MIXES}
    metafunc.parametrize("mix", [pytest.param(name, marks=marks[name]) for name in MIXES])


@pytest.fixture(scope="session")
def machine() -> None:
    """Skip with the reason where this machine cannot make networks."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    if not Path("/dev/net/tun").exists():
        pytest.skip("no /dev/net/tun")
    sweep()


def binaries(version: str) -> Path:
    """The folder of that version's programs."""
    folder = CLIENTS / version
    if not (folder / "tailscaled").exists():
        pytest.skip(f"no clients in {folder}: `make test-all` builds them")
    return folder


@pytest.fixture
def ipv6(request: pytest.FixtureRequest) -> bool:
    """Whether the lab has IPv6: `@pytest.mark.parametrize("ipv6", [True])`."""
    return bool(getattr(request, "param", False))


@pytest.fixture
def lab(machine: None, ipv6: bool) -> Iterator[Lab]:
    """A small internet, gone afterwards."""
    with Lab(ipv6=ipv6) as lab:
        yield lab


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows the end of the server's log, and keeps all logs of its lab."""
    report = yield
    fixtures = getattr(item, "funcargs", {}).values()
    labs = [lab for value in fixtures if isinstance(lab := getattr(value, "lab", value), Lab)]
    if report.failed and report.when != "teardown" and labs:
        kept = FAILED / re.sub(r"[^\w.+-]+", "-", item.name)
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(labs[0].logs, kept)
        report.sections.append((f"server log; all logs in {kept}", tail(labs[0].logs / "server.log")))
    return report


def tail(log: Path, lines: int = 40) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""


@pytest.fixture
def options(request: pytest.FixtureRequest) -> dict[str, str]:
    """How the server differs from the usual: `@pytest.mark.parametrize("options", [{…}], indirect=True)`."""
    return dict(getattr(request, "param", {}))


@pytest.fixture
def server(lab: Lab, options: dict[str, str]) -> Server:
    """The appliance, running, with the user alice."""
    server = Server(lab, url=options.get("url", URL), tls=options.get("tls", "files"))
    server.start()
    server.create_user("alice")
    return server


@pytest.fixture
def trial(lab: Lab, server: Server, mix: str) -> Trial:
    return Trial(lab, server, [binaries(version) for version in MIXES[mix]])


@pytest.fixture
def tools(machine: None) -> Path:
    """stunc and derper, of the current release."""
    return binaries("current")
