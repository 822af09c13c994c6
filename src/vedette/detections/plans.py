"""What one correlation asks of its windows, worked out once from the rule; refuses what can never be judged.
Counterpart: `rules` write the `Correlate`, windows and measures follow the plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, floor

from vedette.model.errors import RuleError
from vedette.model.rules import Comparison, Correlate, CorrelationKind, Firing, Rule, Threshold

# A window holds at most this many records; counts of events never need more than twice their threshold.
WINDOW_LIMIT = 4096
# Each record of a window that is judged when it closes begins one, and has a card of its own.
CLOSING_LIMIT = 1024

_COUNTS = (CorrelationKind.EVENT_COUNT, CorrelationKind.VALUE_COUNT)
_TEMPORAL = (CorrelationKind.TEMPORAL, CorrelationKind.TEMPORAL_ORDERED)
_NUMBERS = (CorrelationKind.VALUE_SUM, CorrelationKind.VALUE_AVG, CorrelationKind.VALUE_PERCENTILE)
_LOWER = (Comparison.GT, Comparison.GTE)

Amount = int | float | Fraction


@dataclass(frozen=True, slots=True)
class Steps:
    """A clause in bits: needs, the bit of each rule in order; without: the bits of which none may be there."""

    needs: tuple[int, ...]
    without: int

    @property
    def all_needed(self) -> int:
        """The bits of `needs` together."""
        bits = 0
        for bit in self.needs:
            bits |= bit
        return bits


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """What a rule's correlation asks of each window.

    timespan, lateness: microseconds. quick: the condition is `at least so many` events or distinct values, which
    more records cannot make false; threshold: how many. closing: judged when the window closes. keep: how many
    records a window holds at most. sure: the part of the condition that more records cannot make false, by which
    it is told which records it needs; None where it needs all of them.
    """

    timespan: int
    lateness: int
    kind: CorrelationKind
    bounds: tuple[Threshold, ...]
    clauses: tuple[Steps, ...]
    percentile: float
    firing: Firing
    preceding: bool
    quick: bool
    closing: bool
    empty: bool
    threshold: int
    keep: int
    sure: WindowPlan | None

    @classmethod
    def of(cls, rule: Rule, lateness: int) -> WindowPlan:
        """The plan of a correlation rule; RuleError with the rule's place where it cannot be judged."""
        correlate = rule.correlate
        if correlate is None:
            raise ValueError(f"rule {rule.id} correlates nothing")
        if why := _wrong(correlate):
            raise RuleError(f"rule {rule.id}: {why}", location=rule.origin)
        kind, bounds = correlate.kind, correlate.threshold
        clauses = _clauses(correlate)
        quick = kind in _COUNTS and all(bound.comparison in _LOWER for bound in bounds)
        empty = _holds_empty(kind, bounds, clauses)
        closing = empty or any(clause.without for clause in clauses)
        threshold = max((_least(bound) for bound in bounds), default=0) if quick else 0
        if correlate.preceding and not quick:
            raise RuleError(f"rule {rule.id}: what comes before is counted with gte or gt", location=rule.origin)
        if kind is CorrelationKind.EVENT_COUNT:
            # Twice the threshold, so that a late record still finds the ones before it.
            keep = 2 * (threshold or max(floor(max(bound.value for bound in bounds)) + 1, 1))
        else:
            keep = CLOSING_LIMIT if closing else WINDOW_LIMIT
        plan = cls(
            timespan=correlate.timespan,
            lateness=lateness,
            kind=kind,
            bounds=bounds,
            clauses=clauses,
            percentile=correlate.percentile,
            firing=correlate.firing,
            preceding=correlate.preceding,
            quick=quick,
            closing=closing,
            empty=empty,
            threshold=threshold,
            keep=keep,
            sure=None,
        )
        return replace(plan, sure=_sure(plan))

    @property
    def horizon(self) -> int:
        """How far behind the newest record of its key a record still counts."""
        return self.timespan + self.lateness

    @property
    def distinct(self) -> bool:
        """Whether distinct values are counted."""
        return self.kind is CorrelationKind.VALUE_COUNT

    @property
    def numbers(self) -> bool:
        """Whether the values must be numbers."""
        return self.kind in _NUMBERS

    @property
    def temporal(self) -> bool:
        """Whether entries hold the bits of the rules that matched."""
        return self.kind in _TEMPORAL

    def holds(self, amount: Amount) -> bool:
        """Whether `amount` satisfies every comparison; exact, whatever types meet."""
        return all(compare(bound, amount) for bound in self.bounds)


def compare(bound: Threshold, amount: Amount) -> bool:
    """`amount <comparison> value`."""
    value = bound.value
    match bound.comparison:
        case Comparison.GT:
            return amount > value
        case Comparison.GTE:
            return amount >= value
        case Comparison.LT:
            return amount < value
        case Comparison.LTE:
            return amount <= value
        case Comparison.EQ:
            return amount == value
        case Comparison.NEQ:
            return amount != value


def bits_of(correlate: Correlate, names: Sequence[str]) -> int:
    """The bits of the rules in `of` that `names` (the id and groups of one rule) are."""
    bits = 0
    for place, name in enumerate(dict.fromkeys(correlate.of)):
        if name in names:
            bits |= 1 << place
    return bits


def _least(bound: Threshold) -> int:
    return floor(bound.value) + 1 if bound.comparison is Comparison.GT else ceil(bound.value)


def _wrong(correlate: Correlate) -> str:
    """What makes a correlation impossible to judge; "" where nothing does."""
    kind, bounds, fields = correlate.kind, correlate.threshold, correlate.fields
    if correlate.timespan <= 0:
        return "the timespan is nothing"
    if kind not in _TEMPORAL:
        if correlate.clauses:
            return f"{kind.value} compares a number, it takes no expression"
        if not bounds:
            return "there is no condition"
    if (kind is CorrelationKind.VALUE_COUNT or kind in _NUMBERS) != bool(fields):
        return f"{kind.value} needs a field" if not fields else f"{kind.value} has no field"
    if len(fields) > 1 and kind is not CorrelationKind.VALUE_COUNT:
        return f"{kind.value} looks at one field"
    if not 0 <= correlate.percentile <= 100:
        return "a percentile is from 0 to 100"
    if kind in _TEMPORAL and (unknown := _unnamed(correlate)):
        return f"the condition names {unknown!r}, which is not among the rules"
    if kind is CorrelationKind.TEMPORAL_ORDERED and bounds:
        return "an order is not compared with a number"
    least = [_least(bound) for bound in bounds if bound.comparison in _LOWER]
    if kind not in _NUMBERS and bounds and len(least) == len(bounds) and max(least) < 1:
        return "the condition would hold for nothing at all"
    return _too_much(correlate)


def _too_much(correlate: Correlate) -> str:
    """What would not fit into a window; "" where it does."""
    kind, bounds = correlate.kind, correlate.threshold
    closing = _holds_empty(kind, bounds, ())
    most = max((bound.value for bound in bounds), default=0)
    if kind is CorrelationKind.VALUE_COUNT and most > (limit := CLOSING_LIMIT // 2 if closing else WINDOW_LIMIT):
        return f"at most {limit} distinct values"
    if kind is CorrelationKind.EVENT_COUNT and closing and most > CLOSING_LIMIT:
        return f"at most {CLOSING_LIMIT} events where the window is judged when it closes"
    return ""


def _unnamed(correlate: Correlate) -> str:
    named = [name for clause in correlate.clauses for name in (*clause.needs, *clause.without)]
    return next((name for name in named if name not in correlate.of), "")


def _clauses(correlate: Correlate) -> tuple[Steps, ...]:
    if correlate.kind not in _TEMPORAL:
        return ()
    bit = {name: 1 << place for place, name in enumerate(dict.fromkeys(correlate.of))}
    if correlate.clauses:
        return tuple(
            Steps(tuple(bit[name] for name in clause.needs), sum({bit[name] for name in clause.without}))
            for clause in correlate.clauses
        )
    return () if correlate.threshold else (Steps(tuple(bit[name] for name in correlate.of), 0),)


def _holds_empty(kind: CorrelationKind, bounds: tuple[Threshold, ...], clauses: tuple[Steps, ...]) -> bool:
    """Whether the condition is true of a window without a record; it has no mean and no percentile."""
    if kind in (CorrelationKind.VALUE_AVG, CorrelationKind.VALUE_PERCENTILE):
        return False
    if clauses:
        return any(not clause.needs for clause in clauses)
    return all(compare(bound, 0) for bound in bounds)


_TO_LOWER: Mapping[Comparison, Comparison] = {
    Comparison.GT: Comparison.GT,
    Comparison.GTE: Comparison.GTE,
    Comparison.EQ: Comparison.GTE,
}


def _sure(plan: WindowPlan) -> WindowPlan | None:
    if plan.empty or plan.kind in (CorrelationKind.VALUE_AVG, CorrelationKind.VALUE_PERCENTILE):
        return None
    if plan.clauses:
        return replace(plan, clauses=tuple(replace(clause, without=0) for clause in plan.clauses))
    bounds = []
    for bound in plan.bounds:
        if bound.comparison in _TO_LOWER:
            bounds.append(replace(bound, comparison=_TO_LOWER[bound.comparison]))
        elif bound.comparison is Comparison.NEQ and bound.value == 0 and plan.kind is not CorrelationKind.VALUE_SUM:
            bounds.append(replace(bound, comparison=Comparison.GT))
    return replace(plan, bounds=tuple(bounds)) if bounds else None
