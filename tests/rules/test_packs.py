from __future__ import annotations

from collections import Counter

import pytest

from vedette.app.detection import CaseEngine
from vedette.model.levels import Level
from vedette.model.rules import Comparison, Threshold
from vedette.rules.cases import report, run_cases
from vedette.rules.lint import lint
from vedette.rules.loading import LoadResult, load, load_packs
from vedette.rules.parameters import PARAMETER_NAMES, UNSET
from vedette.rules.problems import Severity
from vedette.rules.settings import RulesSettings, parameters


@pytest.fixture(scope="module")
def packs() -> LoadResult:
    """Every rule of our packs, those that are off without settings too."""
    return load((), packs=True, examples=True)


def test_every_case_beside_our_rules_comes_out_as_written(packs: LoadResult):
    results = run_cases(packs.rules, packs.cases, CaseEngine())
    *disagreements, last = report(results)
    assert not disagreements
    assert last == f"{len(packs.cases)} passed, 0 failed"
    assert len(packs.cases) > 60


def test_every_rule_that_can_be_heard_has_a_positive_and_a_negative_case(packs: LoadResult):
    kinds = {(case.rule, case.positive) for case in packs.cases}
    heard = [rule.id for rule in packs.rules if not rule.silent]
    assert len(heard) > 20
    assert [rule for rule in heard if (rule, True) not in kinds] == []
    assert [rule for rule in heard if (rule, False) not in kinds] == []


def test_a_case_that_is_wrong_is_told(packs: LoadResult):
    """The engine is not the judge's friend: without its findings every positive case fails."""
    results = run_cases(packs.rules, packs.cases, lambda rules, lines: [])
    assert {result.passed for result in results if result.case.positive} == {False}
    assert {result.passed for result in results if not result.case.positive} == {True}


def test_lint_has_nothing_to_say_about_our_packs(packs: LoadResult):
    assert [str(problem) for problem in lint(packs) if problem.severity is not Severity.NOTE] == []


def test_ids_are_slugs_of_their_pack_and_titles_differ(packs: LoadResult):
    assert {rule.id.split("-")[0] for rule in packs.rules} == {
        "ssh",
        "privilege",
        "logging",
        "ports",
        "attacks",
        "liveness",
        "fleet",
        "operators",
        "integrity",
        "odd",
        "service",
        "firewall",
        "web",
        "rootkit",
        "container",
    }
    assert max(Counter(rule.name for rule in packs.rules).values()) == 1


def test_the_rule_of_the_command_contract(packs: LoadResult):
    rule = {rule.id: rule for rule in packs.rules}["ssh-brute-force-address"]
    assert rule.correlate is not None
    assert rule.correlate.threshold == (Threshold(Comparison.GTE, 5),)
    assert rule.correlate.timespan == 600_000_000
    assert rule.key == rule.correlate.group_by == ("source.ip",)
    assert rule.level is Level.MEDIUM


def test_a_response_blocks_an_address_or_a_prefix_that_is_in_the_key(packs: LoadResult):
    targets = {rule.response.target for rule in packs.rules if rule.response}
    assert targets == {"source.ip", "vedette.source.prefix"}
    assert all(rule.response.target in rule.key for rule in packs.rules if rule.response)


def test_rules_that_need_a_setting_are_off_without_it_and_leave_nothing_behind():
    ids = {rule.id for rule in load_packs()}
    assert "ssh-brute-force-address" in ids
    off = {
        "ssh-login-not-from-gateway",
        "ssh-root-attempts",
        "ssh-brute-force-known-users",
        "ssh-brute-force-unknown-users",
        "ssh-guess-root",
        "ssh-guess-ordinary-user",
        "ssh-guess-unknown-user",
    }
    assert ids & off == set()


def test_the_thresholds_of_denyhosts_are_one_setting():
    settings = RulesSettings.model_validate({"ssh": {"attempts": {"root": 3}}})
    rules = {rule.id: rule for rule in load_packs(settings)}
    found = {
        name: rules[name].correlate.threshold[0].value
        for name in ("ssh-brute-force-unknown-users", "ssh-brute-force-known-users", "ssh-root-attempts")
    }
    assert found == {"ssh-brute-force-unknown-users": 5, "ssh-brute-force-known-users": 10, "ssh-root-attempts": 3}
    assert "ssh-login-not-from-gateway" not in rules


def test_gateways_are_taken_from_the_settings():
    settings = RulesSettings.model_validate({"ssh": {"gateways": ["192.0.2.77", "2001:db8::/32"]}})
    rules = load_packs(settings)
    line = "Mar  1 10:00:00 web1 sshd[812]: Accepted password for alice from {} port 4022 ssh2"
    lines = [line.format(address).encode() for address in ("192.0.2.77", "2001:db8::5", "192.0.2.10")]
    found = [f.source_ip for f in CaseEngine()(rules, lines) if f.rule_id == "ssh-login-not-from-gateway"]
    assert found == ["192.0.2.10"]


def test_every_parameter_has_a_rule_that_needs_it(packs: LoadResult):
    everything = RulesSettings.model_validate({"ssh": {"attempts": {}, "gateways": ["192.0.2.1"]}})
    assert None not in parameters(everything).values()
    assert {rule.id for rule in load_packs(everything)} == {rule.id for rule in packs.rules}
    assert parameters(RulesSettings()) == UNSET
    assert len(PARAMETER_NAMES) == 4


@pytest.mark.parametrize("value", ["192.0.2.300", "gateway.example", "192.0.2.1/33"])
def test_a_gateway_that_is_no_address_is_refused(value: str):
    with pytest.raises(ValueError, match="gateways"):
        RulesSettings.model_validate({"ssh": {"gateways": [value]}})
