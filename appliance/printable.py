"""Text from strangers, made fit for one line of a terminal or a log."""

from __future__ import annotations


def printable(text: str, limit: int | None = None) -> str:
    """`text` with control characters, line breaks and invisible marks as escapes, cut at `limit` characters."""
    if limit is not None and len(text) > limit:
        text = text[: limit - 1] + "…"
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
