"""A set of numbers that come nearly in order, kept as ranges: which batches of a stream are there.
Counterpart: `store.lake` keeps what arrived so, `fleet.spool` what it holds; completeness reads the gaps."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator


class Ranges:
    """Whole numbers as ranges (first, last), both included, sorted, never touching each other."""

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in ranges:
            self.add(first, last)

    def add(self, first: int, last: int | None = None) -> None:
        """Put `first` to `last` in (one number without `last`); what is there already stays."""
        last = first if last is None else last
        if last < first:
            return
        # The ranges that overlap or touch the new one are those from `low` up to `high`.
        low = bisect_right(self._firsts, first)
        if low and self._lasts[low - 1] >= first - 1:
            low -= 1
        high = bisect_right(self._firsts, last + 1, low)
        if low < high:
            first = min(first, self._firsts[low])
            last = max(last, self._lasts[high - 1])
        self._firsts[low:high] = [first]
        self._lasts[low:high] = [last]

    def __contains__(self, number: int) -> bool:
        place = bisect_right(self._firsts, number) - 1
        return place >= 0 and number <= self._lasts[place]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(tuple(self._firsts), tuple(self._lasts), strict=True))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ranges) and self._firsts == other._firsts and self._lasts == other._lasts

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"Ranges({list(self)})"

    def count(self) -> int:
        """How many numbers."""
        return sum(self._lasts) - sum(self._firsts) + len(self._firsts)

    @property
    def last(self) -> int:
        """The highest number; 0 where there is none."""
        return self._lasts[-1] if self._lasts else 0

    def through(self, start: int = 1) -> int:
        """The last number of the run that begins at `start`; `start` - 1 where `start` is not there."""
        place = bisect_right(self._firsts, start) - 1
        return self._lasts[place] if place >= 0 and self._lasts[place] >= start else start - 1

    def gaps(self, start: int = 1) -> Iterator[tuple[int, int]]:
        """The ranges that are missing from `start` up to the highest number."""
        expected = start
        for first, last in self:
            if first > expected:
                yield expected, first - 1
            expected = max(expected, last + 1)

    def within(self, first: int, last: int) -> Ranges:
        """Those of `first` to `last`, both included."""
        made = Ranges()
        for place in range(max(bisect_right(self._firsts, first) - 1, 0), len(self._firsts)):
            if self._firsts[place] > last:
                break
            made.add(max(first, self._firsts[place]), min(last, self._lasts[place]))
        return made

    def without(self, other: Ranges) -> Ranges:
        """Those that are not in `other`."""
        made = Ranges()
        for first, last in self:
            at = first
            for low, high in other.within(first, last):
                made.add(at, low - 1)
                at = high + 1
            made.add(at, last)
        return made

    def behind(self, number: int, most: int) -> tuple[tuple[int, int], ...]:
        """The first `most` ranges that begin behind this number."""
        start = bisect_right(self._firsts, number)
        return tuple(zip(self._firsts[start : start + most], self._lasts[start : start + most], strict=True))

    def copy(self) -> Ranges:
        """One that does not change with this one."""
        made = Ranges()
        made._firsts, made._lasts = self._firsts.copy(), self._lasts.copy()
        return made
