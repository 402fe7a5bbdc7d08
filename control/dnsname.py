"""Names of nodes: one DNS label each, made from whatever a client calls itself.

A host name is a claim by a stranger. It becomes an LDH label (letters, digits, hyphen; RFC 1123 §2.1) of at most
63 octets, is never one that means something else in a network (`RESERVED`), and is unique in its tailnet by suffix.
"""

from __future__ import annotations

import re
from collections.abc import Callable

LABEL_MAX = 63
FALLBACK = "node"

# Names that browsers, resolvers or ACME give a meaning of their own.
RESERVED = frozenset(
    {"localhost", "wpad", "isatap", "broadcasthost", "ip6-localhost", "ip6-loopback", "magicdns"}
)

_NOT_LDH = re.compile(r"[^a-z0-9-]+")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")


def is_label(text: str) -> bool:
    """Whether `text` is a lower-case LDH label."""
    return bool(_LABEL.match(text))


def may_name(label: str) -> bool:
    """Whether a node may be called so. Digits alone are an id to us, and an IPv4 address to many programs."""
    return is_label(label) and label not in RESERVED and not label.isdigit()


def label_from_hostname(hostname: str) -> str:
    """The label for a reported host name: its first part, lower case, LDH only; `node` when nothing is left.

    macOS and iOS report "Ann's iPhone.local"; Windows "DESKTOP-1A2B".
    """
    name = hostname[:255].strip().lower().removesuffix(".").removesuffix(".local").removesuffix(".lan")
    name = name.split(".", 1)[0] if _dotted_host(name) else name
    label = _NOT_LDH.sub("-", name.replace("'", "").replace("’", "")).strip("-")[:LABEL_MAX].strip("-")
    if not label:
        return FALLBACK
    return label if may_name(label) else f"{FALLBACK}-{label}"[:LABEL_MAX].rstrip("-")


def unique_label(label: str, taken: Callable[[str], bool]) -> str:
    """`label`, or `label-1`, `label-2`, … : the first that is not taken. Bounded by the number of names taken."""
    if not taken(label):
        return label
    number = 1
    while True:
        suffix = f"-{number}"
        candidate = label[: LABEL_MAX - len(suffix)].rstrip("-") + suffix
        if not taken(candidate):
            return candidate
        number += 1


def _dotted_host(name: str) -> bool:
    return "." in name and " " not in name
