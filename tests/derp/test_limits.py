from derp.limits import TokenBucket


def test_bucket_allows_its_burst_then_its_rate() -> None:
    bucket = TokenBucket(1.0, 3.0, 100.0)
    assert [bucket.take(100.0) for _ in range(5)] == [True] * 3 + [False] * 2
    assert not bucket.take(100.9)
    assert bucket.take(101.0)
    assert [bucket.take(1e6) for _ in range(4)] == [True] * 3 + [False]


def test_clock_that_goes_back_adds_nothing() -> None:
    bucket = TokenBucket(1.0, 1.0, 100.0)
    assert bucket.take(100.0)
    assert not bucket.take(0.0)
    assert not bucket.take(0.5)
