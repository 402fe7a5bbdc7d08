"""The rate limits, without sockets."""

import struct
import sys

import pytest

from stun.limits import ALL_BURST, ALL_PER_S, SLOTS, SOURCE_BURST, SOURCE_PER_S, SourceLimit


def test_one_source_gets_its_burst_then_its_rate() -> None:
    limit = SourceLimit(b"secret", 100.0)
    admitted = sum(limit.admit_source(b"\1\2\3\4", 100.0) for _ in range(5_000))
    assert admitted == SOURCE_BURST
    assert sum(limit.admit_source(b"\1\2\3\4", 101.0) for _ in range(5_000)) == SOURCE_PER_S
    assert sum(limit.admit_source(b"\1\2\3\4", 1e6) for _ in range(5_000)) == SOURCE_BURST


def test_addresses_of_one_v6_prefix_share_a_bucket() -> None:
    limit = SourceLimit(b"secret", 0.0)
    prefix = bytes.fromhex("20010db800000001")
    admitted = sum(limit.admit_source(prefix + struct.pack(">Q", i), 0.0) for i in range(5_000))
    assert admitted == SOURCE_BURST


def test_everybody_together_gets_the_global_rate() -> None:
    limit = SourceLimit(b"secret", 0.0)
    assert sum(limit.admit_any(0.0) for _ in range(50_000)) == ALL_BURST
    assert sum(limit.admit_any(0.5) for _ in range(50_000)) == ALL_PER_S / 2


@pytest.mark.slow
def test_million_sources_no_growth() -> None:
    """S1: forged sources cost no memory, and nobody can aim at a victim's slot."""
    limit = SourceLimit(b"secret", 0.0)
    size = sys.getsizeof(limit._tokens) + sys.getsizeof(limit._updated_at)
    for i in range(1_000_000):
        limit.admit_source(struct.pack(">I", i), i / 1e6)
    assert len(limit._tokens) == len(limit._updated_at) == SLOTS
    assert sys.getsizeof(limit._tokens) + sys.getsizeof(limit._updated_at) == size

    def slot(secret: bytes) -> int:
        limit = SourceLimit(secret, 0.0)
        limit.admit_source(b"\1\2\3\4", 0.0)
        return next(i for i, tokens in enumerate(limit._tokens) if tokens < SOURCE_BURST)

    assert len({slot(bytes((i,))) for i in range(20)}) > 10
