"""Every rule of SigmaHQ loads, or is listed here with the reason that its authors give."""

from __future__ import annotations

from pathlib import Path

import pytest

from vedette.model.rules import Any, NotifyStep, Op, Test
from vedette.rules.loading import load
from vedette.rules.settings import RulesSettings

FOLDERS = ("rules", "rules-emerging-threats", "rules-threat-hunting")
# "should be populated with all known legitimate DC hostnames and IPs": a list only the site has.
NEED_A_LIST = {
    "c4a1f389-2e6b-4d9a-8f0c-b73e5a12d947": "known_cdcs",
    "8b7e2c54-1f93-4a6d-b8e0-3c9d7f25a168": "known_cdcs",
}


@pytest.mark.corpus
@pytest.mark.slow
def test_every_rule_of_sigmahq_loads_but_those_that_need_a_list_of_the_site(corpus: Path):
    paths = [corpus / "sigma" / folder for folder in FOLDERS]
    files = sum(1 for path in paths for _ in path.rglob("*.yml"))
    result = load(paths, keep_going=True)
    assert {problem.rule_id for problem in result.errors} == set(NEED_A_LIST)
    assert all(f"%{NEED_A_LIST[problem.rule_id]}%" in problem.message for problem in result.errors)
    assert len(result.rules) == files - len(NEED_A_LIST)
    assert {rule.step for rule in result.rules} == {NotifyStep.STORE}
    listed = load(paths, settings=RulesSettings(placeholders={"known_cdcs": ("dc1", "dc2")}))
    assert len(listed.rules) == files


@pytest.mark.corpus
def test_the_names_sudo_writes_are_those_of_its_parser(corpus: Path):
    (file,) = (corpus / "sigma").rglob("lnx_sudo_exploit_cve_2019_14287.yml")
    (rule,) = load([file]).rules
    assert isinstance(rule.when, Any)
    test = rule.when.parts[0]
    assert isinstance(test, Test)
    assert (test.field, test.op) == ("user.effective.name", Op.STARTSWITH)
