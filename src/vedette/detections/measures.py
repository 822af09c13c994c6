"""What a window measures: events, distinct values, sums, ranks, which rules matched and in what order.
Counterpart: windows put entries in at the end, take them out at the front, and ask whether the condition holds."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from fractions import Fraction
from math import ceil
from typing import Protocol

from vedette.detections.entries import Counted, Entry
from vedette.detections.plans import WindowPlan
from vedette.model.clock import BEGINNING
from vedette.model.rules import CorrelationKind

Exact = int | Fraction


class Measure(Protocol):
    """Entries come in time order; the oldest goes first."""

    def add(self, entry: Entry) -> None:
        """The window ends with `entry`."""
        ...

    def remove(self, entry: Entry) -> None:
        """The oldest entry is no longer in it."""
        ...

    def holds(self, floor: int) -> bool:
        """Whether the condition is true of what is in it. floor: when the window begins, microseconds."""
        ...


def measure_of(plan: WindowPlan) -> Measure:
    """An empty measure for the plan's condition."""
    match plan.kind:
        case CorrelationKind.EVENT_COUNT:
            return _Events(plan)
        case CorrelationKind.VALUE_COUNT:
            return _Distinct(plan)
        case CorrelationKind.VALUE_SUM | CorrelationKind.VALUE_AVG:
            return _Sum(plan)
        case CorrelationKind.VALUE_PERCENTILE:
            return _Ranks(plan)
        case CorrelationKind.TEMPORAL:
            return _Present(plan)
        case CorrelationKind.TEMPORAL_ORDERED:
            return _Ordered(plan)


def holds_over(plan: WindowPlan, entries: Iterable[Entry], floor: int) -> bool:
    """Whether the condition is true of these entries, which are in time order."""
    measure = measure_of(plan)
    for entry in entries:
        measure.add(entry)
    return measure.holds(floor)


def lowest_needed(plan: WindowPlan, entries: list[Entry], floor: int) -> int:
    """The lowest trust among the records the condition needs, best ones first; of all of them where it needs all."""
    trusts = sorted({entry.trust for entry in entries}, reverse=True)
    if plan.sure is not None:
        for trust in trusts[:-1]:
            if holds_over(plan.sure, (entry for entry in entries if entry.trust >= trust), floor):
                return trust
    return trusts[-1] if trusts else 0


def exact(value: Counted) -> Exact:
    """A number as one that adds up without rounding; ValueError where it is none."""
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return Fraction(value)
    raise ValueError(f"{value!r} is no number")


class _Events:
    def __init__(self, plan: WindowPlan) -> None:
        self._plan = plan
        self._count = 0

    def add(self, entry: Entry) -> None:
        self._count += entry.repeat

    def remove(self, entry: Entry) -> None:
        self._count -= entry.repeat

    def holds(self, _floor: int) -> bool:
        return self._plan.holds(self._count)


class _Distinct:
    def __init__(self, plan: WindowPlan) -> None:
        self._plan = plan
        self._seen: dict[Counted, int] = {}

    def add(self, entry: Entry) -> None:
        self._seen[entry.value] = self._seen.get(entry.value, 0) + 1

    def remove(self, entry: Entry) -> None:
        left = self._seen[entry.value] - 1
        if left:
            self._seen[entry.value] = left
        else:
            del self._seen[entry.value]

    def holds(self, _floor: int) -> bool:
        return self._plan.holds(len(self._seen))


class _Sum:
    """The sum or the mean; exact, so that it does not depend on what has come and gone before."""

    def __init__(self, plan: WindowPlan) -> None:
        self._plan = plan
        self._mean = plan.kind is CorrelationKind.VALUE_AVG
        self._total: Exact = 0
        self._n = 0

    def add(self, entry: Entry) -> None:
        self._total += exact(entry.value)
        self._n += 1

    def remove(self, entry: Entry) -> None:
        self._total -= exact(entry.value)
        self._n -= 1

    def holds(self, _floor: int) -> bool:
        if not self._mean:
            return self._plan.holds(self._total)
        return self._n > 0 and self._plan.holds(Fraction(self._total) / self._n)


class _Ranks:
    """The percentile by nearest rank."""

    def __init__(self, plan: WindowPlan) -> None:
        self._plan = plan
        self._values: list[int | float] = []

    def add(self, entry: Entry) -> None:
        insort(self._values, _number(entry.value))

    def remove(self, entry: Entry) -> None:
        del self._values[bisect_left(self._values, _number(entry.value))]

    def holds(self, _floor: int) -> bool:
        values = self._values
        if not values:
            return False
        rank = max(ceil(Fraction(self._plan.percentile) * len(values) / 100), 1)
        return self._plan.holds(values[rank - 1])


def _number(value: Counted) -> int | float:
    if isinstance(value, int | float):
        return value
    raise ValueError(f"{value!r} is no number")


class _Present:
    """Which rules matched, in any order."""

    def __init__(self, plan: WindowPlan) -> None:
        self._plan = plan
        self._clauses = [(clause.all_needed, clause.without) for clause in plan.clauses]
        self._counts: dict[int, int] = {}
        self._bits = 0

    def add(self, entry: Entry) -> None:
        for bit in _split(entry.value):
            self._counts[bit] = self._counts.get(bit, 0) + 1
            self._bits |= bit

    def remove(self, entry: Entry) -> None:
        for bit in _split(entry.value):
            self._counts[bit] -= 1
            if not self._counts[bit]:
                self._bits &= ~bit

    def holds(self, _floor: int) -> bool:
        bits = self._bits
        if self._plan.bounds:
            return self._plan.holds(bits.bit_count())
        return any(bits & needed == needed and not bits & without for needed, without in self._clauses)


class _Ordered:
    """Which rules matched one after the other: of each beginning of a clause the latest start is enough to know."""

    def __init__(self, plan: WindowPlan) -> None:
        self._plan = plan
        self._present = _Present(plan)
        self._starts = [[BEGINNING] * len(clause.needs) for clause in plan.clauses]

    def add(self, entry: Entry) -> None:
        self._present.add(entry)
        bits = entry.value
        assert isinstance(bits, int)
        for clause, starts in zip(self._plan.clauses, self._starts, strict=True):
            # From the last step to the first, so that one record makes one step.
            for step in range(len(starts) - 1, -1, -1):
                if clause.needs[step] & bits:
                    start = starts[step - 1] if step else entry.time
                    starts[step] = max(starts[step], start)

    def remove(self, entry: Entry) -> None:
        self._present.remove(entry)

    def holds(self, floor: int) -> bool:
        bits = self._present._bits
        return any(
            (not starts or starts[-1] >= floor) and not bits & clause.without
            for clause, starts in zip(self._plan.clauses, self._starts, strict=True)
        )


def _split(bits: Counted) -> list[int]:
    assert isinstance(bits, int)
    found = []
    while bits:
        bit = bits & -bits
        found.append(bit)
        bits ^= bit
    return found
