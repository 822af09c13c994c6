"""Why each rule does or does not match one record: its tests, one by one, with the values they saw.
Counterpart: `cli.explain` prints it; the verdicts are those of `match` itself, not a second opinion."""

from __future__ import annotations

from dataclasses import dataclass

from vedette.detections.clauses import told
from vedette.detections.judge import UNKNOWN, Judge
from vedette.detections.match import Matcher
from vedette.model.batch import Batch
from vedette.model.events import Value
from vedette.model.rules import Raw, Rule, Test, tests_of


@dataclass(frozen=True, slots=True)
class TestVerdict:
    """One leaf of a condition. value: what the field held (None for keywords)."""

    __test__ = False

    words: str
    value: Value
    held: bool


@dataclass(frozen=True, slots=True)
class RuleVerdict:
    """One rule on one record.

    covered: the record is of the rule's log source. candidate: something of it was found, so that it was
    looked at. matched: its condition holds and, for a child, a parent's does too. parent_missing: only that
    was wanting. feeds: correlations it counts for.
    """

    rule: Rule
    covered: bool
    candidate: bool
    matched: bool
    parent_missing: bool
    tests: tuple[TestVerdict, ...]
    atoms: tuple[str, ...]
    feeds: tuple[str, ...]


def explain(matcher: Matcher, batch: Batch) -> list[RuleVerdict]:
    """Every rule that judges records, on the first record of `batch`; matching ones first, then load order."""
    judge = matcher.judge(batch)
    candidates = matcher.candidates(judge)
    holding = _holding(matcher, judge)
    verdicts = []
    for index, rule in enumerate(matcher.rules):
        if matcher.condition(index) is None:
            continue
        covering = judge.covered(rule.logsource)
        covered = covering is None or bool(covering[0])
        reached = not rule.parents or any(
            holding[at] for at, other in enumerate(matcher.rules) if {other.id, *other.groups} & set(rule.parents)
        )
        leaves = list(dict.fromkeys(tests_of(rule.when)))
        verdicts.append(
            RuleVerdict(
                rule=rule,
                covered=covered,
                candidate=index in candidates or (bool(rule.parents) and reached),
                matched=holding[index] and reached,
                parent_missing=holding[index] and not reached,
                tests=tuple(_tested(matcher, judge, leaf) for leaf in leaves) if covered else (),
                atoms=told(matcher.clause(index), matcher.leaves),
                feeds=tuple(
                    other.id
                    for other in matcher.rules
                    if other.correlate is not None and {rule.id, *rule.groups} & set(other.correlate.of)
                ),
            )
        )
    return sorted(verdicts, key=lambda verdict: (not verdict.matched, not verdict.covered))


def _holding(matcher: Matcher, judge: Judge) -> list[bool]:
    """Per rule whether the record is covered and the condition holds, whatever its parents say."""
    out = []
    for index, rule in enumerate(matcher.rules):
        condition, covering = matcher.condition(index), judge.covered(rule.logsource)
        covered = covering is None or bool(covering[0])
        out.append(condition is not None and covered and condition.one(judge, 0))
    return out


def _tested(matcher: Matcher, judge: Judge, leaf: Test | Raw) -> TestVerdict:
    number = matcher.leaves.add(leaf)
    known = judge.known(number)
    code = 0 if known.codes is None else int(known.codes[0])
    verdict = known.verdicts[code]
    held = bool(judge.decide(number, known, code) if verdict == UNKNOWN else verdict)
    if isinstance(leaf, Raw):
        return TestVerdict(f"record has {leaf.pattern!r}", None, held)
    values = ", ".join(repr(value) for value in leaf.values[:5]) + (", ..." if len(leaf.values) > 5 else "")
    every = " (all)" if leaf.all else ""
    part = f" {leaf.part.value}" if leaf.part else ""
    words = f"{leaf.field}{part} {leaf.op.value}{every} {values}"
    return TestVerdict(words, judge.table.column(leaf.field).value(0), held)
