"""Rules in service are tried, and one that finds nothing is an alert until it does again.
Counterpart: src/vedette/app/self_test.py, src/vedette/app/pipeline.py."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from tests.app.parts import Rig

from vedette.app import own
from vedette.app.counters import Counters
from vedette.app.detection import matcher_of
from vedette.app.self_test import SelfTest, cases_of
from vedette.detections.match import Matcher
from vedette.model.alerts import AlertState
from vedette.model.levels import Level
from vedette.model.rules import Op, Rule, Test
from vedette.rules.cases import Case
from vedette.rules.loading import LoadResult, load
from vedette.rules.settings import RulesSettings


@pytest.fixture(scope="module")
def loaded() -> LoadResult:
    return load([], packs=True, settings=RulesSettings())


@pytest.fixture(scope="module")
def matcher(loaded: LoadResult) -> Matcher:
    return matcher_of(list(loaded.rules), counter=Counters(), skew_limit=1)


@pytest.fixture(scope="module")
def cases(loaded: LoadResult, matcher: Matcher) -> list[Case]:
    return SelfTest([matcher], Counters()).wanted(loaded.cases)


def deaf(rules: Sequence[Rule], rule_id: str) -> list[Rule]:
    """These rules, one of which asks for what no record has."""
    return [
        replace(rule, when=Test("event.action", Op.EQUALS, ("never",))) if rule.id == rule_id else rule
        for rule in rules
    ]


def test_every_rule_of_ours_that_tells_somebody_has_a_case_and_is_alive(
    loaded: LoadResult, matcher: Matcher, cases: list[Case]
):
    assert {case.rule for case in cases} == {rule.id for rule in loaded.rules if not rule.silent}
    trying = SelfTest([matcher], Counters())
    assert {case.rule: trying.dead(case) for case in cases if trying.dead(case)} == {}


def test_one_that_finds_nothing_and_one_that_breaks_are_dead(
    loaded: LoadResult, matcher: Matcher, cases: list[Case], monkeypatch: pytest.MonkeyPatch
):
    [case] = [case for case in cases if case.rule == "ssh-root-login"]
    trying = SelfTest([matcher_of(deaf(loaded.rules, case.rule), counter=Counters())], Counters())
    assert "made no finding" in trying.dead(case)

    def broken(*_given: object) -> None:
        raise ValueError("automaton unreadable")

    monkeypatch.setattr(matcher, "match", broken)
    assert SelfTest([matcher], Counters()).dead(case) == "ValueError: automaton unreadable"


async def test_they_are_tried_one_by_one_again_and_again_until_the_end(matcher: Matcher, cases: list[Case]):
    counters = Counters()
    pauses: list[float] = []
    tried: list[str] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if pauses.count(3600.0) == 2:
            raise asyncio.CancelledError
        await asyncio.sleep(0)

    def load_some() -> Sequence[Case]:
        if len(tried) == 2:
            raise OSError("away")
        return cases[:2]

    with pytest.raises(asyncio.CancelledError):
        await SelfTest([matcher], counters).run(
            load_some, 3600.0, lambda work: work(), lambda rule, why: tried.append(rule + why), sleep=sleep
        )
    assert tried == [cases[0].rule, cases[1].rule]
    assert pauses == [300.0, 0.1, 0.1, 3600.0, 3600.0]
    assert counters.value("self_tests", "alive") == 2
    assert counters.value("self_tests", "unreadable") == 1


def test_a_dead_rule_is_one_alert_until_it_lives_over_a_restart():
    rig = Rig()
    rig.pipeline.tried("brute", "")
    rig.pipeline.tried("brute", "the case of three made no finding")
    rig.pipeline.tried("brute", "the case of three made no finding")
    rig.wait(2_000_000)
    [alert] = rig.alerts_of(own.RULE_DEAD.id)
    assert (alert.state, alert.level, alert.finding_count) == (AlertState.OPEN, Level.MEDIUM, 1)
    [finding] = rig.state.recent_findings()
    assert finding.sample.startswith("brute is dead: the case of three made no finding; it was alive at 20")
    rig.start()
    rig.pipeline.tried("other", "")
    rig.pipeline.tried("brute", "")
    rig.wait(2_000_000)
    [alert] = rig.alerts_of(own.RULE_DEAD.id)
    assert alert.state is AlertState.RESOLVED


def test_the_cases_are_those_of_the_rules_in_service(loaded: LoadResult):
    assert {case.rule for case in cases_of(RulesSettings())} == {case.rule for case in loaded.cases}
    assert cases_of(RulesSettings(packs=False)) == ()
