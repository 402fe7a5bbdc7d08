"""The bytes of a message."""

from __future__ import annotations

import json

import pytest

from control.mapper.encode import FRAME_MAX, Writer, encode_message, encode_object, encode_text
from tests.control.mapper.client import decompress, documents

TEXT = json.dumps({"Domain": "x" * 100}).encode()


@pytest.mark.parametrize("compressed", [False, True])
def test_message_is_length_and_one_document(compressed: bool) -> None:
    message = encode_message(TEXT, compressed)
    assert int.from_bytes(message[:4], "little") == len(message) - 4
    assert documents(message * 2, compressed) == [json.loads(TEXT)] * 2


def test_pieces_and_text_join_in_order() -> None:
    for compressed in (False, True):
        writer = Writer(compressed)
        for part in (b'{"Domain":', encode_text(b'"a"', compressed), b"}"):
            writer.text(part) if part in (b'{"Domain":', b"}") else writer.encoded(part)
        assert documents(writer.finish(), compressed) == [{"Domain": "a"}]


def test_no_frame_holds_more_than_the_loop_can_spare() -> None:
    text = bytes(range(256)) * 512
    first = encode_text(text[:FRAME_MAX], zstd=True)
    encoded = encode_text(text, zstd=True)
    assert encoded.startswith(first)
    assert len(encoded) == 4 * len(first)
    assert decompress(encoded) == text


def test_object_keeps_order_and_values() -> None:
    assert encode_object([("B", b"[]"), ("A", b"null")]) == b'{"B":[],"A":null}'
    assert encode_object([]) == b"{}"
