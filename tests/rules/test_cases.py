from __future__ import annotations

import pytest

from vedette.model.errors import Location, RuleError
from vedette.model.findings import Finding
from vedette.model.levels import Level
from vedette.model.rules import Rule
from vedette.rules.cases import Case, read_cases, repeated, report, run_cases
from vedette.rules.documents import parse_documents


def finding(rule: str, count: int = 1, **key: str) -> Finding:
    fields = {name.replace("_", "."): value for name, value in key.items()}
    return Finding("", rule, "", Level.LOW, 0, dict(fields), "", "", "", "", count, ())


def cases(text: str) -> tuple[Case, ...]:
    (document,) = parse_documents(f"vedette:\n  cases:\n{text}".encode(), "f.yml")
    return read_cases(document, "r-a", document.data["vedette"]["cases"])


ONE = """
  - name: it fires
    lines: [x]
    expect: [{source.ip: 192.0.2.1, count: 3}]
"""
RULES = [Rule("r-a", "A", Level.LOW), Rule("r-b", "B", Level.LOW)]


@pytest.mark.parametrize(
    ("text", "found", "disagreements"),
    [
        (ONE, [finding("r-a", 3, source_ip="192.0.2.1")], []),
        (ONE, [finding("r-a", 3, source_ip="192.0.2.1"), finding("r-b")], []),
        (ONE, [], ["expected r-a(source.ip=192.0.2.1) of 3 events, it did not come"]),
        (
            ONE,
            [finding("r-a", 2, source_ip="192.0.2.1")],
            [
                "expected r-a(source.ip=192.0.2.1) of 3 events, it did not come",
                "unexpected r-a(source.ip=192.0.2.1) of 2 events",
            ],
        ),
        (
            ONE.replace("lines:", "quiet: true\n    lines:"),
            [finding("r-a", 3, source_ip="192.0.2.1"), finding("r-b")],
            ["unexpected r-b() of 1 events"],
        ),
        ("  - {name: n, lines: [x], expect: []}\n", [finding("r-a")], ["unexpected r-a() of 1 events"]),
        ("  - {name: n, lines: [x], expect: [{}, {}]}\n", [finding("r-a")], ["expected r-a(), it did not come"]),
        (
            "  - {name: n, lines: [x], expect: [{rule: r-b}, {rule: r-a, source.ip: a}]}\n",
            [finding("r-a", source_ip="a"), finding("r-b")],
            [],
        ),
        ("  - {name: n, lines: [x], expect: [{rule: r-c}]}\n", [], ["no such rule is loaded: r-c"]),
        (
            "  - {name: n, lines: [x], expect: [{}, {source.ip: a}]}\n",
            [finding("r-a", source_ip="a"), finding("r-a", source_ip="b")],
            [],
        ),
    ],
)
def test_findings_are_held_against_what_is_expected(text: str, found: list[Finding], disagreements: list[str]):
    (result,) = run_cases(RULES, cases(text), lambda rules, lines: found)
    assert list(result.disagreements) == disagreements
    assert result.passed is (not disagreements)


def test_an_engine_that_breaks_fails_the_case_and_not_the_run():
    def engine(rules: object, lines: object) -> list[Finding]:
        raise ValueError("no header")

    results = run_cases(RULES, [*cases(ONE), *cases(ONE)], engine)
    assert [result.disagreements for result in results] == [("could not be run: ValueError: no header",)] * 2


def test_the_report_counts_what_could_not_be_read_as_failed():
    results = run_cases(
        RULES, [*cases(ONE), *cases("  - {name: n, lines: [x], expect: []}\n")], lambda rules, lines: []
    )
    lines = report(results, [RuleError("broken", location=Location("g.yml", 3))])
    assert lines == [
        "g.yml:3: broken",
        "f.yml:4:5: r-a: it fires: expected r-a(source.ip=192.0.2.1) of 3 events, it did not come",
        "1 passed, 2 failed",
    ]


@pytest.mark.parametrize(
    ("line", "step", "last"),
    [
        ("Feb 28 23:59:50 h p: {n}", 20_000_000, b"Feb 29 00:00:30 h p: 3"),
        ("Mar  9 23:00:00 h p: x", 3_600_000_000, b"Mar 10 01:00:00 h p: x"),
        ("2026-03-01T10:00:00+02:00 h p: x", 500_000, b"2026-03-01T10:00:01+02:00 h p: x"),
        ("2026-12-31T23:59:59.5Z h p: x", 250_000, b"2027-01-01T00:00:00.000000Z h p: x"),
        ("no time {n}", 0, b"no time 3"),
    ],
)
def test_a_repeated_line_moves_its_time_and_counts(line: str, step: int, last: bytes):
    lines = repeated(line, 3, step)
    assert len(lines) == 3
    assert lines[-1] == last


def test_a_line_without_a_time_cannot_be_moved():
    with pytest.raises(ValueError, match="no time"):
        repeated("x", 2, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("  - {name: n, lines: [x]}\n", "f.yml:3:5: has no 'expect'"),
        ("  - {name: n, lines: [x], expekt: []}\n", "f.yml:3:27: unknown key 'expekt' (hint: did you mean 'expect'?)"),
        ("  - {name: n, lines: [], expect: []}\n", "f.yml:3:15: 'lines' is a list"),
        ("  - {name: n, lines: [{line: x, times: 2, every: 1s}], expect: []}\n", "begins with no time"),
        ("  - {name: n, lines: [{line: x, times: 0}], expect: []}\n", "'times' is a number from 1"),
        ("  - {name: n, lines: [{line: x, times: 2, every: often}], expect: []}\n", "f.yml:3:43: "),
        ("  - {name: n, lines: [x], expect: {}}\n", "'expect' is a list"),
        ("  - {name: n, lines: [x], expect: [{count: many}]}\n", "'count' is a number"),
        ("  - {name: n, lines: [x], expect: []}\n" * 2, "f.yml:4:6: case 'n' is there twice"),
    ],
)
def test_a_case_that_cannot_be_read_is_told_with_its_place(text: str, message: str):
    with pytest.raises(RuleError) as caught:
        cases(text)
    assert message in str(caught.value)
