"""Ranges are what a set of the same numbers is.
Counterpart: vedette.model.ranges."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vedette.model.ranges import Ranges

spans = st.lists(
    st.tuples(st.integers(1, 30), st.integers(0, 5)).map(lambda one: (one[0], one[0] + one[1])), max_size=6
)


def numbers(ranges: Ranges) -> set[int]:
    return {number for first, last in ranges for number in range(first, last + 1)}


@given(spans, spans, st.integers(1, 30), st.integers(0, 20))
def test_they_are_as_sets_are(
    some: list[tuple[int, int]], others: list[tuple[int, int]], first: int, more: int
) -> None:
    left, right = Ranges(some), Ranges(others)
    held = {number for low, high in some for number in range(low, high + 1)}
    assert numbers(left) == held
    assert left.count() == len(held)
    assert numbers(left.without(right)) == held - numbers(right)
    assert numbers(left.within(first, first + more)) == held & set(range(first, first + more + 1))
    assert left == Ranges(sorted(left)) == left.copy()
    # Never touching each other.
    assert all(after[0] > before[1] + 1 for before, after in zip(list(left), list(left)[1:], strict=False))
