"""Filters: which rules they narrow, as pySigma narrows them, and what is wrong with one."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import yaml
from sigma.filters import SigmaFilter
from tests.detections.reference import holds
from tests.rules.judge import pysigma_rule, verdict

from vedette.model.errors import RuleError
from vedette.model.rules import All, Not, Op, Test
from vedette.rules.loading import LoadResult, load
from vedette.rules.problems import ProblemKind, Severity

RULE = """\
title: Powershell
id: 5f0d2a2e-0000-4000-8000-000000000001
name: powershell
level: high
logsource: {product: windows, category: process_creation}
detection:
  selection:
    Image|endswith: powershell.exe
  condition: selection
"""
OTHER = RULE.replace("0001", "0002").replace("name: powershell", "name: pwsh").replace("powershell.exe", "pwsh.exe")
FILTER = """\
title: Administrators
id: 5f0d2a2e-0000-4000-8000-00000000000f
logsource: {product: windows, category: process_creation}
filter:
  rules: [5f0d2a2e-0000-4000-8000-000000000001]
  selection:
    User|startswith: adm_
  condition: not selection
"""

SHELL = Test("Image", Op.ENDSWITH, ("powershell.exe",))
ADMIN = Test("User", Op.STARTSWITH, ("adm_",))


def loaded(tmp_path: Path, *texts: str, keep_going: bool = False) -> LoadResult:
    file = tmp_path / "r.yml"
    file.write_text("---\n".join(texts))
    return load([file], keep_going=keep_going)


def test_a_filter_narrows_the_rule_it_names_and_no_other(tmp_path: Path):
    first, second = loaded(tmp_path, RULE, OTHER, FILTER).rules
    assert first.when == All((SHELL, Not(ADMIN)))
    assert second.when == Test("Image", Op.ENDSWITH, ("pwsh.exe",))


def test_the_order_of_files_and_documents_says_nothing(tmp_path: Path):
    texts = [RULE, OTHER, FILTER]
    found = set()
    for order in itertools.permutations(texts):
        found.add(frozenset((rule.id, repr(rule.when)) for rule in loaded(tmp_path, *order).rules))
    assert len(found) == 1
    (tmp_path / "r.yml").unlink()
    (tmp_path / "a_filter.yml").write_text(FILTER)
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "rule.yml").write_text(RULE)
    assert load([tmp_path]).rules[0].when == All((SHELL, Not(ADMIN)))


@pytest.mark.parametrize(
    ("rules", "narrowed"),
    [
        ("any", [True, True]),
        ("Any", [True, True]),
        ("[]", [True, True]),
        ("powershell", [True, False]),
        ("[powershell, pwsh]", [True, True]),
        ("5F0D2A2E-0000-4000-8000-000000000002", [False, True]),
        ("[pwsh, 5f0d2a2e-0000-4000-8000-000000000002]", [False, True]),
    ],
)
def test_rules_are_named_by_id_or_name_or_are_all_of_the_log_source(tmp_path: Path, rules: str, narrowed: list[bool]):
    text = FILTER.replace("[5f0d2a2e-0000-4000-8000-000000000001]", rules)
    result = loaded(tmp_path, RULE, OTHER, text)
    assert [isinstance(rule.when, All) for rule in result.rules] == narrowed
    assert {problem.kind for problem in result.problems} <= {ProblemKind.UNKNOWN_FIELD}


def test_any_takes_only_rules_whose_log_source_says_what_the_filter_says(tmp_path: Path):
    linux = OTHER.replace("windows", "linux")
    for logsource, narrowed in [
        ("product: windows", [True, False]),
        ("category: process_creation", [True, True]),
        ("product: linux, category: process_creation", [False, True]),
    ]:
        text = FILTER.replace("[5f0d2a2e-0000-4000-8000-000000000001]", "any")
        text = text.replace("product: windows, category: process_creation", logsource)
        result = loaded(tmp_path, RULE, linux, text)
        assert [isinstance(rule.when, All) for rule in result.rules] == narrowed


def test_several_filters_on_one_rule_all_count(tmp_path: Path):
    second = FILTER.replace("Administrators", "Backup").replace("adm_", "bkp_").replace("000f", "000e")
    (rule,) = loaded(tmp_path, FILTER, RULE, second).rules
    assert rule.when == All((SHELL, Not(ADMIN), Not(Test("User", Op.STARTSWITH, ("bkp_",)))))


EVENTS = [
    {"Image": image, "User": user, "Host": host}
    for image in ("c:\\powershell.exe", "c:\\pwsh.exe")
    for user in ("ADM_jo", "jo", None)
    for host in ("dc1", "pc1")
]


@pytest.mark.parametrize(
    "condition",
    [
        "not selection",
        "not 1 of selection*",
        "not (selection and selection_host)",
        "not all of them",
        "not 1 of *_host",
        "selection or not selection_host",
    ],
)
@pytest.mark.parametrize("own", ["selection", "selection or selection_host", "1 of selection*", "all of them"])
def test_filters_mean_what_they_mean_to_pysigma(tmp_path: Path, own: str, condition: str):
    text = FILTER.replace("condition: not selection", f"selection_host:\n    Host: dc1\n  condition: {condition}")
    rule_text = RULE.replace("condition: selection", f"selection_host:\n    Host: pc1\n  condition: {own}")
    (rule,) = loaded(tmp_path, rule_text, text, keep_going=True).rules
    theirs = SigmaFilter.from_dict(yaml.safe_load(text)).apply_on_rule(pysigma_rule(rule_text))
    ours = [holds(rule.when, event, "") for event in EVENTS]
    assert ours == [verdict(theirs, event) for event in EVENTS]
    assert any(ours) or condition == "selection or not selection_host"


def test_a_condition_that_leaves_nothing_out_is_a_warning(tmp_path: Path):
    result = loaded(tmp_path, RULE, FILTER.replace("not selection", "selection"))
    (problem,) = [one for one in result.problems if one.kind is ProblemKind.FILTER_KEEPS]
    assert problem.severity is Severity.WARNING
    assert problem.location.line > 0
    assert result.rules[0].when == All((SHELL, ADMIN))
    # `neq` negates as well.
    text = FILTER.replace("User|startswith", "User|neq").replace("not selection", "selection")
    assert not [one for one in loaded(tmp_path, RULE, text).problems if one.kind is ProblemKind.FILTER_KEEPS]


def test_placeholders_are_taken_by_filters_too(tmp_path: Path):
    from vedette.rules.settings import RulesSettings

    (tmp_path / "r.yml").write_text(RULE + "---\n" + FILTER.replace("User|startswith: adm_", "User|expand: '%admins%'"))
    result = load([tmp_path], settings=RulesSettings(placeholders={"admins": ("jo", "di*")}))
    test = Test("User", Op.EQUALS, ("jo",)), Test("User", Op.STARTSWITH, ("di",))
    assert [repr(one) in repr(result.rules[0].when) for one in test] == [True, True]


CORRELATION = """\
title: Many
id: my-many
name: many
level: high
correlation: {type: event_count, rules: [powershell], group-by: [User], timespan: 5m, condition: {gte: 3}}
"""


def test_what_a_correlation_counts_is_filtered(tmp_path: Path):
    result = loaded(tmp_path, CORRELATION, FILTER, RULE)
    assert {rule.id: isinstance(rule.when, All) and len(rule.when.parts) for rule in result.rules} == {
        "my-many": 0,
        "5f0d2a2e-0000-4000-8000-000000000001": 2,
    }


BROKEN = {
    "no rules": (FILTER.replace("  rules: [5f0d2a2e-0000-4000-8000-000000000001]\n", ""), "has no 'rules'", ""),
    "rules of another kind": (FILTER.replace("[5f0d2a2e-0000-4000-8000-000000000001]", "{a: b}"), "ids or names", ""),
    "no condition": (FILTER.replace("  condition: not selection\n", ""), "has no 'condition'", ""),
    "two conditions": (FILTER.replace("not selection", "[not selection, not selection]"), "has one condition", ""),
    "nothing looked for": (
        FILTER.replace("  selection:\n    User|startswith: adm_\n", ""),
        "nothing to look for",
        "",
    ),
    "a name that is not there": (FILTER.replace("not selection", "not selektion"), "names 'selektion'", "selection"),
    "no log source": (FILTER.replace("logsource:", "x-source:"), "'logsource' is a mapping", ""),
    "another log source": (
        FILTER.replace("product: windows, ", "product: linux, "),
        "of another log source",
        "windows",
    ),
    "a slip in a name": (
        FILTER.replace("[5f0d2a2e-0000-4000-8000-000000000001]", "powrshell"),
        "there is no",
        "powersh",
    ),
    "a correlation": (FILTER.replace("[5f0d2a2e-0000-4000-8000-000000000001]", "many"), "filter the rules it", ""),
    "a detection besides": (FILTER + "detection: {s: {a: b}, condition: s}\n", "a filter has no 'detection'", ""),
    "a filter that is a list": (FILTER[: FILTER.index("filter:")] + "filter: [a]\n", "'filter' is a mapping", ""),
    "a mapping of ours": (FILTER + "vedette: {advice: a}\n", "a filter has no 'vedette'", ""),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_told_with_its_place_and_the_rules_run(name: str, tmp_path: Path):
    text, message, hint = BROKEN[name]
    with pytest.raises(RuleError) as caught:
        loaded(tmp_path, RULE, CORRELATION, text)
    assert message in str(caught.value)
    assert hint in caught.value.hint
    assert caught.value.location is not None
    assert caught.value.location.line > 15
    result = loaded(tmp_path, RULE, CORRELATION, text, keep_going=True)
    assert len(result.rules) == 2
    assert [problem.message for problem in result.errors if message in problem.message]


def test_a_rule_of_others_that_is_not_loaded_is_a_warning(tmp_path: Path):
    result = loaded(tmp_path, RULE, FILTER.replace("000000000001]", "000000000009]"))
    (problem,) = [one for one in result.problems if one.kind is ProblemKind.MISSING_REFERENCE]
    assert (problem.severity, problem.location.line > 10) == (Severity.WARNING, True)
    result = loaded(tmp_path, FILTER.replace("[5f0d2a2e-0000-4000-8000-000000000001]", "any"))
    assert [one.kind for one in result.problems if one.kind is ProblemKind.MISSING_REFERENCE]
