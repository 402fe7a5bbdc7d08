"""control/noise/early.py: nine bytes of head, then JSON."""

from __future__ import annotations

import json

from control.noise.early import encode_early_payload


def test_the_layout_is_the_reference_clients() -> None:
    payload = encode_early_payload(bytes(range(32)))
    assert payload[:9] == b"\xff\xff\xffTS" + (len(payload) - 9).to_bytes(4, "big")
    assert json.loads(payload[9:]) == {"nodeKeyChallenge": "chalpub:" + bytes(range(32)).hex()}


def test_its_head_cannot_be_a_frame_of_http2() -> None:
    """Its length would be over the 16 KiB that a client allows."""
    assert int.from_bytes(encode_early_payload(bytes(32))[:3], "big") > 16384
