"""Which version this is: what the installed distribution says."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version


@cache
def version() -> str:
    """`1.2.3`; in a source tree that was never installed `0+source`."""
    try:
        return installed_version("homeport")
    except PackageNotFoundError:
        return "0+source"
