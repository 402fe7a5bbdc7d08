"""The generated pages are current, and nothing is missing from them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from appliance.config.schema import SETTINGS

ROOT = Path(__file__).parent.parent


def test_generated_pages_are_current() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "docs.generate", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0


def test_every_setting_and_its_environment_twin_is_documented() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert [
        path
        for path, setting in SETTINGS.items()
        if f"| `{setting.name}` |" not in page or setting.env not in page
    ] == []
    assert all(setting.help.endswith(".") for setting in SETTINGS.values())
