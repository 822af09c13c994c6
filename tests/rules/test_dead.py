"""Rules cut off from every match: children, siblings, correlations.
Counterpart: vedette.rules.dead."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vedette.model.levels import Level
from vedette.model.rules import (
    All,
    Clause,
    Comparison,
    Correlate,
    CorrelationKind,
    LogSource,
    Not,
    Op,
    Rule,
    Test,
    Threshold,
)
from vedette.rules.dead import find_dead
from vedette.rules.problems import ProblemKind

A = Test("event.action", Op.EQUALS, ("a",))
B = Test("event.action", Op.EQUALS, ("b",))
BASE = Rule("base", "Base", Level.LOW, A, groups=("bases",))
DEAD = Rule("gone", "Gone", Level.LOW, All((A, B)))
CHILD = Rule("child", "Child", Level.LOW, Test("user.name", Op.EQUALS, ("root",)), parents=("base",))


def count(*of: str, kind: CorrelationKind = CorrelationKind.EVENT_COUNT, least: int = 3) -> Rule:
    correlate = Correlate(kind, of, (), 1, (Threshold(Comparison.GTE, least),))
    return Rule("count", "Count", Level.LOW, correlate=correlate)


def dead(*rules: Rule) -> dict[str, str]:
    found = [problem for problem in find_dead(rules) if problem.kind is ProblemKind.DEAD_RULE]
    return {problem.rule_id: problem.message.removeprefix("can never fire: ") for problem in found}


def test_what_can_fire_is_not_accused():
    assert dead(BASE, CHILD, replace(CHILD, id="other", parents=("bases",)), count("base"), count("bases")) == {}


def test_a_child_of_what_never_matches():
    found = dead(DEAD, replace(CHILD, parents=("gone",)), replace(CHILD, id="grandchild", parents=("child",)))
    assert list(found) == ["gone", "child", "grandchild"]
    assert found["child"] == "its parent 'gone' can never match"


def test_a_child_with_one_parent_alive_lives():
    assert list(dead(DEAD, BASE, replace(CHILD, parents=("gone", "base")))) == ["gone"]


def test_a_child_that_contradicts_its_parent():
    assert dead(BASE, replace(CHILD, when=B)) == {
        "child": "its condition and that of its parent 'base' exclude each other"
    }
    elsewhere = replace(CHILD, logsource=LogSource("windows"))
    found = dead(replace(BASE, logsource=LogSource("linux")), elsewhere)
    assert found == {"child": "its parent 'base' looks at product 'linux', itself at 'windows'"}
    # A record may be of several services, auth and sshd for example.
    assert (
        dead(replace(BASE, logsource=LogSource(service="auth")), replace(CHILD, logsource=LogSource(service="sshd")))
        == {}
    )


@pytest.mark.parametrize("first", [All(()), CHILD.when])
def test_a_child_whose_sibling_takes_everything(first: All | Test):
    sibling = Rule("first", "First", Level.LOW, first, parents=("base",), order=9, stop=True)
    assert list(dead(BASE, sibling, CHILD)) == ["child"]
    assert dead(BASE, replace(sibling, stop=False), CHILD) == {}
    assert dead(BASE, replace(sibling, when=Not(CHILD.when)), CHILD) == {}
    assert dead(BASE, replace(sibling, order=-1), CHILD) == {}


def test_correlations_over_what_never_fires():
    assert dead(DEAD, count("gone")) == {
        "gone": "'event.action equals 'a'' and 'event.action equals 'b'' cannot both hold",
        "count": "it counts 'gone', which can never fire",
    }
    assert list(dead(DEAD, BASE, count("gone", "base"))) == ["gone"]
    assert list(dead(DEAD, BASE, count("gone", "base", kind=CorrelationKind.TEMPORAL))) == ["gone", "count"]


@pytest.mark.parametrize(
    ("thresholds", "never"),
    [
        ([(Comparison.GTE, 5), (Comparison.LT, 5)], True),
        ([(Comparison.GT, 5), (Comparison.LT, 7)], False),
        ([(Comparison.EQ, 5), (Comparison.GT, 5)], True),
        ([(Comparison.LT, 0)], True),
        ([(Comparison.LTE, 0)], False),
    ],
)
def test_thresholds_no_count_satisfies(thresholds: list[tuple[Comparison, int]], never: bool):
    made = count("base")
    assert made.correlate is not None
    rule = replace(made, correlate=replace(made.correlate, threshold=tuple(Threshold(*one) for one in thresholds)))
    assert bool(dead(BASE, rule)) is never


def test_of_windows_data_what_may_repeat_is_told_from_what_stands_once():
    windows = LogSource("windows", service="security")
    for name, dies in (("EventID", True), ("Data", False)):
        when = All((Test(name, Op.EQUALS, (1,)), Test(name, Op.EQUALS, (2,))))
        assert bool(dead(Rule("w", "W", Level.LOW, when, logsource=windows))) is dies


@pytest.mark.parametrize(
    ("clauses", "least", "dies"),
    [
        ((Clause(("gone",)), Clause(("base",))), None, False),  # gone or base
        ((Clause(("base",), ("gone",)),), None, False),  # base and not gone
        ((Clause(("base", "gone")),), None, True),  # base and gone
        ((Clause(("gone",)), Clause(("gone", "base"))), None, True),
        ((), None, True),  # all of them
        ((), 1, False),
        ((), 2, True),
    ],
)
def test_a_temporal_correlation_dies_with_a_rule_it_cannot_do_without(
    clauses: tuple[Clause, ...], least: int | None, dies: bool
):
    bounds = () if least is None else (Threshold(Comparison.GTE, least),)
    correlate = Correlate(CorrelationKind.TEMPORAL, ("gone", "base"), (), 1, bounds, clauses=clauses)
    rule = Rule("count", "Count", Level.LOW, correlate=correlate)
    assert ("count" in dead(DEAD, BASE, rule)) is dies
