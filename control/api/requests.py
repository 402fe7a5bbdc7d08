"""Bodies of the API's calls. A field that is not listed is an error: a misspelt one must not be ignored."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from control.tailcfg.codec import decode


class Body(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Base of the bodies."""


class NewUser(Body, frozen=True):
    name: str
    display_name: str = ""
    email: str = ""


class Rename(Body, frozen=True):
    name: str


class NewKey(Body, frozen=True):
    user: str | None = None
    reusable: bool = False
    ephemeral: bool = False
    tags: list[str] = msgspec.field(default_factory=list)
    expiry_s: float = 3600.0


class Approval(Body, frozen=True):
    user: str


class Tags(Body, frozen=True):
    tags: list[str]


class Extension(Body, frozen=True):
    expiry_s: float | None


class Routes(Body, frozen=True):
    routes: list[str]


B = TypeVar("B", bound=Body)


def parse(body: bytes, kind: type[B]) -> B:
    """Raises DecodeError for what is not such a body."""
    return decode(body or b"{}", kind)
