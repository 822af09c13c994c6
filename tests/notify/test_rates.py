from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vedette.model.clock import HOUR, MINUTE, SECOND
from vedette.notify.rates import TokenBucket, back_off
from vedette.notify.settings import Rate


@given(
    per_minute=st.integers(2, 200),
    share=st.floats(0, 1),
    pauses=st.lists(st.integers(0, 90 * SECOND), max_size=400),
)
def test_no_minute_has_more_calls_than_allowed(per_minute: int, share: float, pauses: list[int]):
    rate = Rate(per_minute=per_minute, burst=min(int(share * per_minute), per_minute - 1))
    now = 1_000 * HOUR
    bucket = TokenBucket(rate, now)
    calls = []
    for pause in [*pauses, *[0] * (2 * per_minute)]:
        now = bucket.ready_at(now + pause)
        bucket.take(now)
        calls.append(now)
    for earlier, later in zip(calls, calls[per_minute:], strict=False):
        assert later - earlier >= MINUTE


def test_a_burst_goes_at_once_and_the_rest_at_the_pace():
    bucket = TokenBucket(Rate(per_minute=100, burst=20), 0)
    for _ in range(20):
        assert bucket.ready_at(0) == 0
        bucket.take(0)
    assert bucket.ready_at(0) == 750_000


def test_a_clock_set_back_does_not_lock_the_bucket():
    bucket = TokenBucket(Rate(per_minute=100, burst=20), 10 * HOUR)
    bucket.take(10 * HOUR)
    assert bucket.ready_at(9 * HOUR) <= 9 * HOUR + SECOND


@pytest.mark.parametrize(("failures", "longest"), [(1, 1), (2, 2), (3, 4), (7, 60), (10_000, 60)])
def test_back_off_doubles_up_to_its_limit(failures: int, longest: int):
    assert back_off(failures, MINUTE, lambda: 0.0) == longest * SECOND // 2
    assert back_off(failures, MINUTE, lambda: 1.0) == longest * SECOND
