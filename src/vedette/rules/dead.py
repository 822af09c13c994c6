"""Rules that can never fire: conditions that contradict themselves, children and correlations cut off from matches.
Counterpart: `contradictions` judges one condition; `lint` tells what is found here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from vedette.model.fields import FIELDS
from vedette.model.rules import All, Comparison, Correlate, CorrelationKind, LogSource, Rule, Threshold, tests_of
from vedette.rules.contradictions import Single, Verdict, can_hold_together, judge
from vedette.rules.problems import Problem, ProblemKind, Severity
from vedette.rules.schemas import single

_SEVERAL = frozenset({"vedette.source.candidates"})
_TEMPORAL = frozenset({CorrelationKind.TEMPORAL, CorrelationKind.TEMPORAL_ORDERED})


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
        if known is not None:
            return known
        field = FIELDS.get(name)
        if field is None or name in _SEVERAL:
            return False
        # Any field of an audit event may have several values, and whatever stands in JSON.
        return logsource.service != "auditd" and "json" not in field.given_by

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
    counted = [(name, [other.id for other in named.get(name, ()) if other.id not in dead]) for name in correlate.of]
    lost = [name for name, alive in counted if not alive]
    if lost and (len(lost) == len(counted) or _needs(correlate, lost)):
        gone = "is no rule" if lost[0] not in named else "can never fire"
        return f"it counts {lost[0]!r}, which {gone}"
    return ""


def _needs(correlate: Correlate, lost: Sequence[str]) -> bool:
    """Whether a temporal condition cannot hold without the rules that are lost."""
    if correlate.kind not in _TEMPORAL:
        return False
    if correlate.clauses:
        return all(any(name in lost for name in clause.needs) for clause in correlate.clauses)
    if correlate.threshold:
        alive = len(dict.fromkeys(correlate.of)) - len(dict.fromkeys(lost))
        low = 0.0
        for one in correlate.threshold:
            low, _ = _narrowed(one, low, float("inf"))
        return low > alive
    return True


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
    """Why no number of matches satisfies the thresholds; "" where one does."""
    low, high = 0.0, float("inf")
    for one in correlate.threshold:
        low, high = _narrowed(one, low, high)
    counts = correlate.kind in (CorrelationKind.EVENT_COUNT, CorrelationKind.VALUE_COUNT)
    if low > high or (counts and high < 0):
        return "no count satisfies its condition"
    return ""


def _narrowed(threshold: Threshold, low: float, high: float) -> tuple[float, float]:
    value = threshold.value
    match threshold.comparison:
        case Comparison.GTE:
            return max(low, value), high
        case Comparison.GT:
            return max(low, value + 1), high
        case Comparison.LTE:
            return low, min(high, value)
        case Comparison.LT:
            return low, min(high, value - 1)
        case Comparison.EQ:
            return max(low, value), min(high, value)
        case _:
            return low, high
