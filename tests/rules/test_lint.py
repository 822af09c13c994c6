from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from vedette.app.abilities import abilities
from vedette.model.levels import Level
from vedette.model.rules import (
    Comparison,
    Correlate,
    CorrelationKind,
    LogSource,
    Op,
    Response,
    Rule,
    Test,
    Threshold,
)
from vedette.rules.lint import Abilities, lint, refused_by_re2
from vedette.rules.loading import LoadResult, load
from vedette.rules.problems import ProblemKind, Severity

GOOD = Rule(
    "r-a",
    "A",
    Level.LOW,
    Test("event.action", Op.EQUALS, ("ssh-login-failed",)),
    advice="Look.",
    logsource=LogSource("linux", "", "sshd"),
    silent=True,
)
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
        (replace(GOOD, when=Test("message", Op.REGEX, ("abcd(?=x)",))), ProblemKind.REGEX_NOT_LINEAR),
        (replace(GOOD, correlate=COUNT), ProblemKind.MISSING_REFERENCE),
    ],
)
def test_each_thing_that_is_not_right_is_told(rule: Rule, kind: ProblemKind):
    assert kinds(rule) == [kind]


@pytest.mark.parametrize("target", ["source.ip", "vedette.source.prefix", "destination.ip"])
def test_addresses_and_prefixes_may_be_blocked(target: str):
    assert kinds(replace(GOOD, response=Response(target))) == []


def test_a_rule_that_is_heard_needs_cases_and_advice():
    assert sorted(kinds(replace(GOOD, silent=False, advice=""))) == [
        ProblemKind.NO_ADVICE,
        ProblemKind.NO_CASE,
        ProblemKind.NO_CASE,
    ]


def test_a_title_that_is_there_twice():
    assert kinds(GOOD, replace(GOOD, id="r-b", name="a")) == [ProblemKind.DUPLICATE_NAME]


def test_problems_of_loading_come_first_by_line(tmp_path: Path):
    file = tmp_path / "r.yml"
    file.write_text("title: T\nid: my-rule\nlogsource: {service: sshd}\ndetection: {s: {user.nmae: a}, condition: s}\n")
    problems = lint(load([file], keep_going=True))
    assert [(problem.kind, problem.location.line) for problem in problems] == [(ProblemKind.BROKEN, 4)]


def test_what_re2_refuses():
    assert refused_by_re2("a+") == ""
    assert refused_by_re2(r"(a)\1") != ""


# ---------------------------------------------------------------------------------------------- each by its file

SIGMA = """title: {title}
id: {id}
status: test
level: low
logsource: {{{logsource}}}
detection:
  selection:
{tests}
  condition: selection
"""


def problems_of(tmp_path: Path, *rules: tuple[str, str]) -> list[tuple[str, int, int, str]]:
    """Kind, line, column and hint of what is found in rules of a log source with these tests, notes on cases apart."""
    for number, (logsource, tests) in enumerate(rules):
        lines = "\n".join(f"    {line}" for line in tests.splitlines())
        text = SIGMA.format(title=f"Rule {number}", id=f"my-rule-{number}", logsource=logsource, tests=lines)
        (tmp_path / f"{number}.yml").write_text(text)
    return [
        (problem.kind.value, problem.location.line, problem.location.column, problem.hint)
        for problem in lint(load([tmp_path], keep_going=True))
        if problem.kind not in (ProblemKind.NO_CASE, ProblemKind.NO_ADVICE)
    ]


def test_a_field_no_event_of_the_category_has_is_told_at_its_line(tmp_path: Path):
    windows = "product: windows, category: image_load"
    found = problems_of(tmp_path, (windows, "ImageLoaded|endswith: x.dll\nImages|endswith: .exe"))
    assert found == [("field-not-given", 9, 5, "did you mean 'Image'?")]
    assert problems_of(tmp_path, (windows, "ImageLoaded: x\nEventID: 7\nImage: y")) == []


def test_fields_of_other_products_are_their_makers_matter(tmp_path: Path):
    assert problems_of(tmp_path, ("product: okta, service: okta", "eventType: x\nactor.alternateId: y")) == []


def test_audit_records_name_their_own_fields(tmp_path: Path):
    assert problems_of(tmp_path, ("product: linux, service: auditd", "type: EXECVE\nprocess.command_line: x")) == []


def test_a_spelling_that_others_do_not_have(tmp_path: Path):
    azure = "product: azure, service: signinlogs"
    usual = [(azure, f"ResultType: {number}") for number in range(4)]
    found = problems_of(tmp_path, *usual, (azure, "Resulttype: 9"))
    assert found == [("field-spelling", 8, 5, "did you mean 'ResultType'?")]


def test_pairing_that_flattening_loses(tmp_path: Path):
    cloud = "product: azure, service: auditlogs"
    tests = "targetResources.type: User\ntargetResources.displayName: admin\nCategory: x"
    assert [kind for kind, *_ in problems_of(tmp_path, (cloud, tests))] == ["pairing-lost"]
    apart = "targetResources.type: User\nCategory: x"
    assert problems_of(tmp_path, (cloud, apart)) == []


def test_what_the_condition_language_gave_up_is_named_as_such(tmp_path: Path):
    windows = "product: windows, service: security"
    (found,) = problems_of(tmp_path, (windows, "EventID: 4625\ntimeframe: 5m"))[:1] or [("none", 0, 0, "")]
    assert found[0] != "deprecated"  # a field may be called so
    (tmp_path / "0.yml").write_text(
        SIGMA.format(title="T", id="my-rule", logsource=windows, tests="    EventID: 4625").replace(
            "  condition:", "  timeframe: 5m\n  condition:"
        )
    )
    kinds_found = [(problem.kind, problem.severity) for problem in lint(load([tmp_path], keep_going=True))]
    assert kinds_found == [(ProblemKind.DEPRECATED, Severity.ERROR)]


def test_log_sources_no_parser_gives():
    windows = replace(GOOD, id="w", name="W", logsource=LogSource("windows", "process_creation"))
    found = lint(LoadResult((GOOD, windows), (), ()), Abilities(covered=lambda source: source.product == "linux"))
    assert [(problem.kind, problem.rule_id) for problem in found] == [(ProblemKind.NO_PARSER, "w")]
    assert "product 'windows', category 'process_creation'" in found[0].message


def test_a_count_the_attacker_spreads():
    correlate = replace(COUNT, of=("r-a",), group_by=("source.ip", "user.name"))
    blocking = Rule("r-b", "B", Level.LOW, advice="x", silent=True, correlate=correlate, response=Response())
    assert kinds(GOOD, blocking) == [ProblemKind.CHOSEN_KEY]
    (noted,) = lint(LoadResult((GOOD, replace(blocking, response=None)), (), ()))
    assert (noted.kind, noted.severity) == (ProblemKind.CHOSEN_KEY, Severity.NOTE)
    assert kinds(replace(GOOD, key=("user.name",))) == [ProblemKind.CHOSEN_KEY]
    assert kinds(replace(GOOD, key=("source.ip", "not.declared"))) == []


def test_a_rule_for_which_nothing_is_looked_up():
    found = lint(LoadResult((GOOD,), (), ()), Abilities(atoms=lambda _rule: ()))
    assert [(problem.kind, problem.rule_id) for problem in found] == [(ProblemKind.NO_ATOM, "r-a")]
    assert lint(LoadResult((GOOD,), (), ()), Abilities(atoms=lambda _rule: ("ssh-login-failed",))) == []
    only_counts = replace(GOOD, correlate=replace(COUNT, of=("r-a",)))
    assert lint(LoadResult((only_counts,), (), ()), Abilities(atoms=lambda _rule: ())) == []


def test_our_packs_have_neither_errors_nor_warnings():
    told = lint(load([], packs=True, examples=True), abilities())
    assert [str(problem) for problem in told if problem.severity is not Severity.NOTE] == []


def test_our_packs_are_held_to_cases_and_advice():
    packs = load([], packs=True, examples=True)
    rules = tuple(replace(rule, advice="") for rule in packs.rules)
    told = lint(LoadResult(rules, (), ()))
    assert {problem.kind for problem in told if problem.severity is Severity.ERROR} == {
        ProblemKind.NO_CASE,
        ProblemKind.NO_ADVICE,
    }


@pytest.mark.corpus
@pytest.mark.slow
def test_what_is_found_in_the_rules_of_sigmahq(corpus: Path):
    folders = [corpus / "sigma" / name for name in ("rules", "rules-emerging-threats", "rules-threat-hunting")]
    told = lint(load(folders, keep_going=True), abilities())
    found = {(problem.kind.value, Path(problem.location.file).name) for problem in told}
    # Each was looked at by hand and is so.
    assert {
        ("dead-branch", "win_av_relevant_match.yml"),
        ("idle-filter", "file_event_win_create_evtx_non_common_locations.yml"),
        ("field-spelling", "azure_conditional_access_failure.yml"),
        ("field-not-given", "net_connection_win_wuauclt_network_connection.yml"),
        ("no-atom", "zeek_rdp_public_listener.yml"),
    } <= found
    assert not [problem for problem in told if problem.kind is ProblemKind.DEAD_RULE]
