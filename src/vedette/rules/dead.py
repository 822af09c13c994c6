"""Rules that can never fire: conditions that contradict themselves, children and correlations cut off from matches.
Counterpart: `contradictions` judges one condition; `lint` tells what is found here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from math import ceil, floor, inf, nextafter

from vedette.model.fields import FIELDS
from vedette.model.rules import (
    All,
    Clause,
    Comparison,
    Correlate,
    CorrelationKind,
    LogSource,
    Rule,
    Threshold,
    tests_of,
)
from vedette.rules.contradictions import Single, Verdict, can_hold_together, judge
from vedette.rules.problems import Problem, ProblemKind, Severity
from vedette.rules.schemas import single

_SEVERAL = frozenset({"vedette.source.candidates"})
_TEMPORAL = frozenset({CorrelationKind.TEMPORAL, CorrelationKind.TEMPORAL_ORDERED})
_MEASURES = frozenset({CorrelationKind.VALUE_SUM, CorrelationKind.VALUE_AVG, CorrelationKind.VALUE_PERCENTILE})


def find_dead(rules: Sequence[Rule]) -> Iterator[Problem]:
    """Every rule that can never fire and why, and the parts of the others that can never hold."""
    verdicts = {rule.id: judge(rule.when, _single(rule.logsource)) for rule in rules}
    dead = {rule.id: verdicts[rule.id].dead for rule in rules if verdicts[rule.id].dead}
    named: dict[str, list[Rule]] = defaultdict(list)
    for rule in rules:
        for name in dict.fromkeys((rule.id, *rule.groups)):
            named[name].append(rule)
    _spread(rules, named, dead)
    for rule in rules:
        if rule.correlate is not None and any(name not in named for name in rule.correlate.of):
            continue  # told as the error it is
        if why := dead.get(rule.id):
            yield Problem(ProblemKind.DEAD_RULE, Severity.WARNING, rule.origin, rule.id, f"can never fire: {why}")
        else:
            yield from _parts(rule, verdicts[rule.id])


def _parts(rule: Rule, verdict: Verdict) -> Iterator[Problem]:
    for why in dict.fromkeys(verdict.branches):
        message = f"one of its alternatives can never hold: {why}"
        yield Problem(ProblemKind.DEAD_BRANCH, Severity.WARNING, rule.origin, rule.id, message)
    for why in dict.fromkeys(verdict.filters):
        message = f"an exclusion excludes nothing: {why}"
        yield Problem(ProblemKind.IDLE_FILTER, Severity.NOTE, rule.origin, rule.id, message)


def _single(logsource: LogSource) -> Single:
    def at_most_one(name: str) -> bool:
        known = single(logsource, name)
        return known if known is not None else name in FIELDS and name not in _SEVERAL

    return at_most_one


def _spread(rules: Sequence[Rule], named: dict[str, list[Rule]], dead: dict[str, str]) -> None:
    """Rules that die with others: until nothing changes."""
    before = -1
    while before != len(dead):
        before = len(dead)
        for rule in rules:
            if rule.id not in dead and (why := _cut_off(rule, named, dead)):
                dead[rule.id] = why


def _cut_off(rule: Rule, named: dict[str, list[Rule]], dead: dict[str, str]) -> str:
    if rule.parents:
        reasons = [_child(rule, parent, dead) for name in rule.parents for parent in named.get(name, ())]
        if all(reasons):
            return reasons[0] if reasons else f"there is no parent {rule.parents[0]!r}"
        if why := _shadowed(rule, named):
            return why
    correlate = rule.correlate
    if correlate is None:
        return ""
    if why := _never(correlate):
        return why
    low, _ = _range(correlate)
    lost = [name for name in correlate.of if all(other.id in dead for other in named.get(name, ()))]
    if not lost or (low <= 0 and not correlate.clauses and correlate.threshold):
        # A condition that holds of nothing needs no match.
        return ""
    if correlate.kind in _TEMPORAL:
        ways = correlate.clauses or (() if correlate.threshold else (Clause(correlate.of),))
        cut = all(set(way.needs) & set(lost) for way in ways) if ways else len(correlate.of) - len(lost) < low
    else:
        cut = len(lost) == len(correlate.of)
    if not cut:
        return ""
    return f"it counts {lost[0]!r}, which {'can never fire' if lost[0] in named else 'is no rule'}"


def _child(rule: Rule, parent: Rule, dead: dict[str, str]) -> str:
    """Why a match of `parent` can never be one of its child `rule`."""
    if parent.id in dead:
        return f"its parent {parent.id!r} can never match"
    ours, its = rule.logsource, parent.logsource
    for key, mine, other in (
        ("product", ours.product, its.product),
        ("service", ours.service, its.service),
        ("category", ours.category, its.category),
    ):
        # One record may be of several services and categories, but of one product.
        if key == "product" and mine and other and mine != other:
            return f"its parent {parent.id!r} looks at {key} {other!r}, itself at {mine!r}"
    if not can_hold_together(parent.when, rule.when, _single(ours)):
        return f"its condition and that of its parent {parent.id!r} exclude each other"
    return ""


def _shadowed(rule: Rule, named: dict[str, list[Rule]]) -> str:
    """A sibling that is tried before, takes every record, and stops."""
    parents = {parent.id for name in rule.parents for parent in named.get(name, ())}
    for others in named.values():
        for other in others:
            if other.id == rule.id or not other.stop or other.correlate is not None or other.order <= rule.order:
                continue
            theirs = {parent.id for name in other.parents for parent in named.get(name, ())}
            all_taken = not list(tests_of(other.when)) and isinstance(other.when, All)
            if parents <= theirs and other.logsource == LogSource() and (all_taken or other.when == rule.when):
                return f"its sibling {other.id!r} is tried first, takes all it could match, and stops"
    return ""


def _never(correlate: Correlate) -> str:
    """Why no measure satisfies the thresholds; "" where one does."""
    low, high = _range(correlate)
    return "no count satisfies its condition" if low > high else ""


def _range(correlate: Correlate) -> tuple[float, float]:
    """The least and the greatest measure that satisfy the thresholds; the first above the second where none does."""
    whole = correlate.kind not in _MEASURES
    low, high = (0.0 if whole else -inf), inf
    for one in correlate.threshold:
        low, high = _narrowed(one, low, high, whole)
    return low, high


def _narrowed(threshold: Threshold, low: float, high: float, whole: bool) -> tuple[float, float]:
    value = threshold.value
    # Counts are whole numbers; of other measures the next one above or below is meant.
    above, below = (floor(value) + 1, ceil(value) - 1) if whole else (nextafter(value, inf), nextafter(value, -inf))
    least, most = (ceil(value), floor(value)) if whole else (value, value)
    match threshold.comparison:
        case Comparison.GTE:
            return max(low, least), high
        case Comparison.GT:
            return max(low, above), high
        case Comparison.LTE:
            return low, min(high, most)
        case Comparison.LT:
            return low, min(high, below)
        case Comparison.EQ:
            return max(low, least), min(high, most)
        case Comparison.NEQ:
            return low, high
