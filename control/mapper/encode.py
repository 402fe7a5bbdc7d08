"""Bytes of a map stream (control.md §7.3).

    | u32 little-endian n | n bytes: one MapResponse as zstd frames, or as plain JSON |

A client joins the content of all frames of a message before it parses, so a message is put together from text written
for one session and from frames that were compressed once for many. No frame holds more than `FRAME_MAX` bytes of text:
compressing one takes about 50 µs, which the loop can spare, and the one compressor stays small.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdCompressor
else:
    from backports.zstd import ZstdCompressor

FRAME_MAX = 32 * 1024
_LEVEL = 1  # smaller than level 3 on this input, and twice as fast

# Frames are stateless. One compressor for the process, used on the loop only: a new one for each frame costs 10 µs.
_compressor = ZstdCompressor(level=_LEVEL)


def encode_text(text: bytes, zstd: bool) -> bytes:
    """`text` as it goes into a payload: unchanged, or as frames."""
    if not zstd:
        return text
    return b"".join(
        _compressor.compress(text[start : start + FRAME_MAX], ZstdCompressor.FLUSH_FRAME)
        for start in range(0, len(text), FRAME_MAX)
    )


class Writer:
    """One message, from literal text and from pieces that `encode_text` made earlier."""

    __slots__ = ("_literal", "_pieces", "zstd")

    def __init__(self, zstd: bool) -> None:
        self.zstd = zstd
        self._literal: list[bytes] = []
        self._pieces: list[bytes] = [b""]  # the first is the length

    def text(self, text: bytes) -> None:
        self._literal.append(text)

    def encoded(self, piece: bytes) -> None:
        self._flush()
        self._pieces.append(piece)

    def finish(self) -> bytes:
        self._flush()
        size = sum(map(len, self._pieces))
        self._pieces[0] = size.to_bytes(4, "little")
        return b"".join(self._pieces)

    def _flush(self) -> None:
        if self._literal:
            self._pieces.append(encode_text(b"".join(self._literal), self.zstd))
            self._literal.clear()


def encode_message(document: bytes, zstd: bool) -> bytes:
    """A whole message from one JSON document."""
    writer = Writer(zstd)
    writer.text(document)
    return writer.finish()


def encode_array(elements: Iterable[bytes]) -> bytes:
    """A JSON array of encoded values."""
    return b"[" + b",".join(elements) + b"]"


def encode_object(members: list[tuple[str, bytes]]) -> bytes:
    """A JSON object from names and encoded values. The names are ours: nothing in them needs escaping."""
    return b"{" + b",".join(b'"%s":%s' % (name.encode(), value) for name, value in members) + b"}"
