"""Rules for the whole suite."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest
from hypothesis import settings

IN_CI = os.environ.get("CI", "").lower() in {"1", "true"}

# A busy machine is not a bug, so no example has a deadline. In CI the examples are the same in every run:
# new ones are looked for by people, who can act on what they find.
settings.register_profile("house", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if IN_CI else "house")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skipped interop test is a failure: there, everything it needs can be installed."""
    report = yield
    if IN_CI and report.skipped and item.get_closest_marker("interop"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and CI must run it: {report.longrepr}"
    return report
