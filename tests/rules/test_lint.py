from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from vedette.model.levels import Level
from vedette.model.rules import (
    Comparison,
    Correlate,
    CorrelationKind,
    LogSource,
    Op,
    Raw,
    Response,
    Rule,
    Test,
    Threshold,
)
from vedette.rules import LoadResult, ProblemKind, lint, load
from vedette.rules.lint import longest_literal, longest_word, refused_by_re2

GOOD = Rule("r-a", "A", Level.LOW, advice="Look.", logsource=LogSource("linux", "", "sshd"), silent=True)
COUNT = Correlate(CorrelationKind.EVENT_COUNT, ("r-gone",), (), 1, (Threshold(Comparison.GTE, 1),))


def kinds(*rules: Rule) -> list[ProblemKind]:
    return [problem.kind for problem in lint(LoadResult(rules, (), ()))]


def test_a_rule_that_is_right_has_no_problem():
    assert kinds(GOOD) == []


@pytest.mark.parametrize(
    ("rule", "kind"),
    [
        (replace(GOOD, response=Response("user.name")), ProblemKind.UNSAFE_RESPONSE),
        (replace(GOOD, response=Response("user.id")), ProblemKind.UNSAFE_RESPONSE),
        (replace(GOOD, response=Response("nobody.declared")), ProblemKind.UNSAFE_RESPONSE),
        (replace(GOOD, when=Test("process.command_line", Op.EQUALS, ("x",))), ProblemKind.FIELD_NOT_GIVEN),
        (replace(GOOD, when=Raw("a?b*")), ProblemKind.NO_ATOM),
        (replace(GOOD, when=Raw("[a-z]+", regex=True)), ProblemKind.NO_ATOM),
        (replace(GOOD, when=Test("message", Op.REGEX, ("(?=x)",))), ProblemKind.REGEX_NOT_LINEAR),
        (replace(GOOD, correlate=COUNT), ProblemKind.MISSING_REFERENCE),
    ],
)
def test_each_thing_that_is_not_right_is_told(rule: Rule, kind: ProblemKind):
    assert kinds(rule) == [kind]


@pytest.mark.parametrize("target", ["source.ip", "vedette.source.prefix", "destination.ip"])
def test_addresses_and_prefixes_may_be_blocked(target: str):
    assert kinds(replace(GOOD, response=Response(target))) == []


def test_a_rule_that_is_heard_needs_cases_and_advice():
    assert kinds(replace(GOOD, silent=False, advice="")) == [
        ProblemKind.NO_CASE,
        ProblemKind.NO_CASE,
        ProblemKind.NO_ADVICE,
    ]


def test_a_title_that_is_there_twice():
    assert kinds(GOOD, replace(GOOD, id="r-b", name="a")) == [ProblemKind.DUPLICATE_NAME]


def test_problems_of_loading_come_first_by_line(tmp_path: Path):
    file = tmp_path / "r.yml"
    file.write_text("title: T\nid: my-rule\nlogsource: {service: sshd}\ndetection: {s: {user.nmae: a}, condition: s}\n")
    problems = lint(load([file], keep_going=True))
    assert [(problem.kind, problem.location.line) for problem in problems] == [(ProblemKind.BROKEN, 4)]


@pytest.mark.parametrize(("pattern", "length"), [("", 0), ("abc", 3), ("a*bcd?e", 3), (r"a\*b\\c", 5), ("***", 0)])
def test_the_longest_literal_of_a_pattern(pattern: str, length: int):
    assert longest_literal(pattern) == length


@pytest.mark.parametrize(
    ("pattern", "length"),
    [("[a-z]+", 0), ("foo*", 2), (r"\d+bar(?:x|y)?", 3), ("(?i)ab", 2), (r"a\.bcd", 3), ("[]abc]d", 1)],
)
def test_the_longest_word_of_an_expression(pattern: str, length: int):
    assert longest_word(pattern) == length


def test_what_re2_refuses():
    assert refused_by_re2("a+") == ""
    assert refused_by_re2(r"(a)\1") != ""
