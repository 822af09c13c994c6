from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sigma.correlations import (
    CorrelationConditionAND,
    CorrelationConditionNOT,
    SigmaExtendedCorrelationCondition,
    SigmaRuleReference,
)

from vedette.model.errors import RuleError
from vedette.model.rules import Clause, Comparison, Correlate, CorrelationKind, Threshold
from vedette.rules.cache import keep, kept
from vedette.rules.correlations import clauses_of
from vedette.rules.expressions import parse_expression
from vedette.rules.loading import LoadResult, load

BASE = """
title: Base {name}
id: rule-{name}
name: {name}
level: low
logsource: {{product: linux, service: sshd}}
detection: {{s: {{user.name: {name}}}, condition: s}}
---
"""
BASES = "".join(BASE.format(name=name) for name in "abc")


def correlation(body: str, name: str = "many") -> str:
    return f"title: T {name}\nid: my-{name}\nname: {name}\nlevel: high\ncorrelation: {{{body}}}\n---\n"


def loaded(tmp_path: Path, text: str, **options: bool) -> LoadResult:
    file = tmp_path / "r.yml"
    file.write_text(BASES + text, "utf-8")
    return load([file], **options)


def correlate_of(tmp_path: Path, body: str) -> Correlate:
    rule = next(rule for rule in loaded(tmp_path, correlation(body)).rules if rule.id == "my-many")
    assert rule.correlate is not None
    return rule.correlate


def test_every_type_loads(tmp_path: Path) -> None:
    rest = "group-by: source.ip, timespan: 1h"
    ids = ("rule-a", "rule-b")
    gte, lt = Threshold(Comparison.GTE, 2), Threshold(Comparison.LT, 7)
    hour, key = 3_600_000_000, ("source.ip",)
    both = f"rules: [a, rule-b], {rest}"
    expected = {
        f"type: event_count, {both}, condition: {{gte: 2, lt: 7}}": Correlate(
            CorrelationKind.EVENT_COUNT, ids, key, hour, (gte, lt)
        ),
        f"type: value_count, {both}, condition: {{gte: 2, field: [user.name, source.port]}}": Correlate(
            CorrelationKind.VALUE_COUNT, ids, key, hour, (gte,), ("user.name", "source.port")
        ),
        f"type: value_sum, {both}, condition: {{gt: 1.5, field: source.port}}": Correlate(
            CorrelationKind.VALUE_SUM, ids, key, hour, (Threshold(Comparison.GT, 1.5),), ("source.port",)
        ),
        f"type: value_avg, {both}, condition: {{neq: -3, field: source.port}}": Correlate(
            CorrelationKind.VALUE_AVG, ids, key, hour, (Threshold(Comparison.NEQ, -3),), ("source.port",)
        ),
        f"type: value_percentile, {both}, condition: {{gte: 2, field: source.port, percentile: 99}}": Correlate(
            CorrelationKind.VALUE_PERCENTILE, ids, key, hour, (gte,), ("source.port",), percentile=99
        ),
        f"type: value_median, {both}, condition: {{gte: 2, field: source.port}}": Correlate(
            CorrelationKind.VALUE_PERCENTILE, ids, key, hour, (gte,), ("source.port",), percentile=50
        ),
        f"type: temporal, {both}": Correlate(CorrelationKind.TEMPORAL, ids, key, hour),
        f"type: temporal, {both}, condition: {{gte: 2}}": Correlate(CorrelationKind.TEMPORAL, ids, key, hour, (gte,)),
        f"type: temporal_ordered, rules: [b, a, b], {rest}": Correlate(
            CorrelationKind.TEMPORAL_ORDERED, ("rule-b", "rule-a", "rule-b"), key, hour
        ),
        f"type: temporal, {rest}, condition: b and not a": Correlate(
            CorrelationKind.TEMPORAL, ("rule-b", "rule-a"), key, hour, clauses=(Clause(("rule-b",), ("rule-a",)),)
        ),
        f"type: temporal_ordered, {both.replace('rule-b', 'b')}, condition: b and a": Correlate(
            CorrelationKind.TEMPORAL_ORDERED, ids, key, hour, clauses=(Clause(("rule-b", "rule-a")),)
        ),
    }
    for body, correlate in expected.items():
        assert correlate_of(tmp_path, body) == correlate, body


def test_what_is_compiled_is_kept_whole(tmp_path: Path) -> None:
    body = "type: temporal, timespan: 1h, condition: b and not a or c"
    rules = loaded(tmp_path, correlation(body)).rules
    keep("key", rules, [], tmp_path / "cache")
    assert kept("key", tmp_path / "cache") == (list(rules), [])


EVENTS = "type: event_count, rules: a, timespan: 1h"
BROKEN = {
    "type": ("type: evnt_count, rules: a, timespan: 1h", "unknown correlation type", "event_count"),
    "extended": ("type: temporal_extended, rules: a, timespan: 1h", "unknown correlation type", "temporal"),
    "no condition": (EVENTS, "has no 'condition'", ""),
    "expression": (f"{EVENTS}, condition: a and b", "is a mapping", ""),
    "field": (f"{EVENTS}, condition: {{gte: 1, field: user.name}}", "event_count has no 'field'", ""),
    "fields": (
        "type: value_sum, rules: a, timespan: 1h, condition: {gte: 1, field: [user.name, user.id]}",
        "value_sum looks at one field",
        "",
    ),
    "no field": ("type: value_avg, rules: a, timespan: 1h, condition: {gte: 1}", "value_avg needs a 'field'", ""),
    "percentile": (
        "type: value_percentile, rules: a, timespan: 1h, condition: {gte: 1, field: user.id}",
        "needs a 'percentile' from 0 to 100",
        "percentile: 95",
    ),
    "percent": (
        "type: value_percentile, rules: a, timespan: 1h, condition: {gte: 1, field: user.id, percentile: 101}",
        "needs a 'percentile' from 0 to 100",
        "",
    ),
    "median": (
        "type: value_median, rules: a, timespan: 1h, condition: {gte: 1, field: user.id, percentile: 5}",
        "value_median has no 'percentile'",
        "",
    ),
    "fraction": (f"{EVENTS}, condition: {{gte: 1.5}}", "compares with a whole number", ""),
    "negative": (f"{EVENTS}, condition: {{gte: -1}}", "compares with a whole number", ""),
    "word": (f"{EVENTS}, condition: {{gte: many}}", "no valid Sigma correlation condition count", ""),
    "nothing": (f"{EVENTS}, condition: {{gte: 0}}", "hold for nothing at all", ""),
    "three": (f"{EVENTS}, condition: {{gte: 1, lte: 5, neq: 3}}", "one comparison, or two", ""),
    "key": (f"{EVENTS}, condition: {{gtee: 1}}", "unknown key 'gtee'", "gte"),
    "span": (EVENTS.replace("1h", "1 hour") + ", condition: {gte: 1}", "Timespan", "10m"),
    "no such rule": ("type: temporal, rules: [a, bb], timespan: 1h", "there is no rule 'bb'", ""),
    "twice": ("type: temporal, rules: [a, a], timespan: 1h", "names something twice", ""),
    "order": (
        "type: temporal_ordered, rules: [a, b], timespan: 1h, condition: {gte: 1}", "not compared with a number", "",
    ),
    "too few": ("type: temporal, rules: [a, b], timespan: 1h, condition: {gte: 3}", "only 2 rules", ""),
    "unnamed": ("type: temporal, rules: [a], timespan: 1h, condition: a and not c", "'c' is not among the rules", ""),
    "unused": ("type: temporal, rules: [a, b], timespan: 1h, condition: not a", "'b' is not in the condition", ""),
    "selector": ("type: temporal, rules: [a, b], timespan: 1h, condition: 1 of them", "stands for no rule", ""),
    "never": ("type: temporal, rules: [a], timespan: 1h, condition: a and not a", "can never hold", ""),
    "syntax": ("type: temporal, rules: [a, b], timespan: 1h, condition: a and (b", "ends too early", ""),
    "generate": (f"{EVENTS}, generate: maybe, condition: {{gte: 1}}", "'generate' is true or false", ""),
    "alias": (f"{EVENTS}, aliases: {{who: {{a: user.name}}}}, condition: {{gte: 1}}", "alias 'who' is never used", ""),
    "explodes": (
        "type: temporal, timespan: 1h, condition: " + " and ".join(["(a or b)"] * 7), "more than 64 ways to hold", "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_told_with_its_place(name: str, tmp_path: Path) -> None:
    body, message, hint = BROKEN[name]
    with pytest.raises(RuleError) as caught:
        loaded(tmp_path, correlation(body))
    error = caught.value
    assert error.location is not None
    assert error.location.line > BASES.count("\n")
    assert message in str(error)
    assert hint in error.hint


INNER = correlation("type: event_count, rules: a, group-by: source.ip, timespan: 1m, condition: {gte: 2}", "inner")


def test_a_correlation_may_count_the_findings_of_another(tmp_path: Path) -> None:
    outer = "type: value_count, rules: inner, timespan: 1h, condition: {gte: 2, field: source.ip}"
    rules = {rule.id: rule for rule in loaded(tmp_path, INNER + correlation(outer, "outer")).rules}
    assert rules["my-outer"].correlate is not None
    assert rules["my-outer"].correlate.of == ("my-inner",)
    assert [rules[name].silent for name in ("rule-a", "my-inner", "my-outer")] == [True, True, False]
    outer = outer.replace("timespan", "generate: true, timespan")
    rules = {rule.id: rule for rule in loaded(tmp_path, INNER + correlation(outer, "outer")).rules}
    assert [rules[name].silent for name in ("rule-a", "my-inner", "my-outer")] == [True, False, False]


def test_generate_may_stand_beside_the_correlation(tmp_path: Path) -> None:
    text = correlation(f"{EVENTS}, condition: {{gte: 1}}").replace("level:", "generate: true\nlevel:")
    assert [rule.silent for rule in loaded(tmp_path, text).rules if rule.id == "rule-a"] == [False]


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            INNER
            + correlation("type: event_count, rules: inner, group-by: user.name, timespan: 1h, condition: {gte: 2}"),
            "findings of 'inner' have no 'user.name'",
            "source.ip",
        ),
        (
            INNER + correlation("type: value_sum, rules: inner, timespan: 1h, condition: {gte: 2, field: source.port}"),
            "findings of 'inner' have no 'source.port'",
            "source.ip",
        ),
        (INNER.replace("rules: a", "rules: inner"), "a rule cannot count itself", ""),
        (
            INNER.replace("rules: a", "rules: many")
            + correlation("type: temporal, rules: [a, inner], group-by: source.ip, timespan: 1h"),
            "a rule cannot count itself, here through",
            "",
        ),
    ],
)
def test_chains_that_cannot_be_are_told_with_their_place(text: str, message: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(RuleError) as caught:
        loaded(tmp_path, text)
    assert caught.value.location is not None
    assert caught.value.location.line > BASES.count("\n")
    assert message in str(caught.value)
    assert hint in caught.value.hint
    kept = loaded(tmp_path, text, keep_going=True)
    assert {rule.id for rule in kept.rules} >= {"rule-a", "rule-b", "rule-c"}


def test_an_alias_of_the_inner_key_is_a_field_of_its_findings(tmp_path: Path) -> None:
    inner = correlation(
        "type: event_count, rules: [a, b], group-by: who, timespan: 1m, condition: {gte: 2},"
        " aliases: {who: {a: user.name, b: user.effective.name}}",
        "inner",
    )
    outer = (
        "type: temporal, rules: [inner, c], group-by: name, timespan: 1h, aliases: {name: {inner: who, c: user.name}}"
    )
    result = loaded(tmp_path, inner + correlation(outer))
    assert not result.problems
    assert len(result.rules) == 5


expressions = st.recursive(
    st.sampled_from("abcd"),
    lambda inner: st.one_of(
        inner.map(lambda one: f"not {one}"),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda one: f"({one[0]} {one[1]} {one[2]})"),
    ),
    max_leaves=5,
)


@settings(max_examples=60)
@given(expressions)
def test_an_expression_means_what_pysigma_reads(text: str) -> None:
    clauses = clauses_of(parse_expression(text), [])
    theirs = SigmaExtendedCorrelationCondition(text).parsed
    for values in product([False, True], repeat=4):
        true = {name for name, value in zip("abcd", values, strict=True) if value}
        ours = any({*clause.needs} <= true and not {*clause.without} & true for clause in clauses)
        assert ours == _judge(theirs, true)


def _judge(node: object, true: set[str]) -> bool:
    if isinstance(node, SigmaRuleReference):
        return node.reference in true
    parts = [_judge(one, true) for one in node.args]  # type: ignore[attr-defined]
    if isinstance(node, CorrelationConditionNOT):
        return not parts[0]
    return all(parts) if isinstance(node, CorrelationConditionAND) else any(parts)
