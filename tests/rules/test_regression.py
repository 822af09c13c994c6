from __future__ import annotations

from pathlib import Path

import pytest

from vedette.model.batch import REPLAY_HOST_ID
from vedette.model.findings import Finding
from vedette.model.levels import Level
from vedette.rules.cases import CaseResult, report, run_cases
from vedette.rules.regression import Regression, read, records_of, split

RULE = "11111111-2222-4333-8444-555555555555"
INFO = f"""\
id: 99999999-2222-4333-8444-555555555555
description: N/A
rule_metadata:
    - id: {RULE.upper()}
      title: Made up
regression_tests_info:
    - name: Positive
      type: evtx
      path: regression_data/rules/windows/made_up/{RULE}.evtx
      match_count: 2
"""
SIGMA = f"""\
title: Made up
id: {RULE}
status: test
level: low
logsource:
    product: windows
    category: process_creation
detection:
    selection:
        Image|endswith: '\\made.exe'
    condition: selection
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository like SigmaHQ's with one rule and one sample of two events."""
    data = tmp_path / "regression_data" / "rules" / "windows" / "made_up"
    data.mkdir(parents=True)
    (data / "info.yml").write_text(INFO)
    (data / f"{RULE}.json").write_text('{\n  "Image": "C:\\\\made.exe"\n}\n{"Image": "\u2028"}')
    rules = tmp_path / "rules" / "windows"
    rules.mkdir(parents=True)
    (rules / "made_up.yml").write_text(SIGMA)
    (rules / "other.yml").write_text("no rule at all")
    return tmp_path


def finding_of(rule: str) -> Finding:
    return Finding("0" * 32, rule, "x", Level.LOW, 0, {}, REPLAY_HOST_ID, "", "", "", 1, ())


def run(found: Regression, came: int) -> list[CaseResult]:
    return run_cases(found.rules.rules, found.cases, lambda rules, lines: [finding_of(RULE)] * came)


def test_cases_are_found_with_the_rule_beside(folder: Path) -> None:
    infos, others = split([folder / "regression_data"])
    assert (infos, others) == ([folder / "regression_data/rules/windows/made_up/info.yml"], [])
    found = read(infos, [])
    assert [rule.id for rule in found.rules.rules] == [RULE]
    assert found.errors == found.rules.errors == found.untested == ()
    (case,) = found.cases
    assert case.lines == (b'{   "Image": "C:\\\\made.exe" }', '{"Image": "\u2028"}'.encode())
    assert (case.rule, case.name, case.least, case.positive) == (RULE, "Positive", 2, True)
    assert str(case.location).endswith("info.yml:7:7")


@pytest.mark.parametrize(("came", "last"), [(0, "0 passed, 1 failed"), (1, "0 passed, 1 failed")])
def test_fewer_matches_than_named_are_a_disagreement(folder: Path, came: int, last: str) -> None:
    lines = report(run(read(split([folder])[0], []), came))
    assert len(lines) == 2
    assert f"{RULE}: Positive: expected at least 2 findings, {came} came" in lines[0]
    assert lines[1] == last


@pytest.mark.parametrize("came", [2, 3])
def test_as_many_as_named_or_more_pass(folder: Path, came: int) -> None:
    assert report(run(read(split([folder])[0], []), came)) == ["1 passed, 0 failed"]


def test_no_count_means_any_and_none_means_none(folder: Path) -> None:
    info = split([folder])[0]
    info[0].write_text(INFO.replace("      match_count: 2\n", ""))
    assert report(run(read(info, []), 0))[-1] == "0 passed, 1 failed"
    assert report(run(read(info, []), 1)) == ["1 passed, 0 failed"]
    info[0].write_text(INFO.replace("match_count: 2", "match_count: 0"))
    assert report(run(read(info, []), 1))[-1] == "0 passed, 1 failed"
    assert report(run(read(info, []), 0)) == ["1 passed, 0 failed"]


def test_rules_are_taken_from_where_one_says(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "moved.yml").write_text(SIGMA)
    infos = split([folder])[0]
    found = read(infos, [elsewhere])
    assert [str(rule.origin.file) for rule in found.rules.rules] == [str(elsewhere / "moved.yml")]
    (elsewhere / "moved.yml").unlink()
    assert "no such rule is loaded" in report(run(read(infos, [elsewhere]), 2))[0]
    assert "no such file" in str(read(infos, [tmp_path / "gone"]).rules.errors[0])


def test_a_rule_that_is_only_counted_is_asked_for_itself(folder: Path) -> None:
    counting = f"---\ntitle: Many\nname: many\nlevel: low\ncorrelation:\n    type: event_count\n    rules: [{RULE}]\n"
    counting += "    group-by: [host.name]\n    timespan: 5m\n    condition: {gte: 9}\n"
    (folder / "rules/windows/made_up.yml").write_text(SIGMA + counting)
    found = read(split([folder])[0], [])
    assert [(rule.id, rule.silent) for rule in found.rules.rules] == [(RULE, False), ("many", False)]


def test_other_rule_files_stay_what_they_are(folder: Path) -> None:
    named_like = folder / "rules" / "info.yml"
    named_like.write_text(SIGMA)
    infos, others = split([folder, folder / "gone"])
    assert len(infos) == 1
    assert [path.name for path in others] == ["info.yml", "made_up.yml", "other.yml", "gone"]


def test_an_info_without_samples_holds_no_case_and_is_named(folder: Path) -> None:
    infos = split([folder])[0]
    infos[0].write_text(INFO[: INFO.index("regression_tests_info")])
    found = read(infos, [])
    assert (found.cases, found.errors) == ((), ())
    assert str(found.untested[0]).endswith("info.yml:1:1")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("match_count: 2", "match_count: many", "'match_count' is a number"),
        (RULE.upper(), "none", "a rule is named by its id"),
        (f"{RULE}.evtx", "../../gone.evtx", "there is no sample gone.json beside it"),
        ("      path: ", "      where: ", "a test has no 'path'"),
        ("rule_metadata:\n", "rule_metadata: 1\nmore:\n", "'rule_metadata' names the rule"),
        ("id: 9", "id: [9", "no valid YAML"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(folder: Path, old: str, new: str, words: str) -> None:
    infos = split([folder])[0]
    infos[0].write_text(INFO.replace(old, new))
    found = read(infos, [])
    assert found.cases == ()
    (error,) = found.errors
    assert str(error).startswith(str(infos[0]))
    assert words in str(error)
    assert report([], found.errors)[-1] == "0 passed, 1 failed"


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        *[(b'{"a": 1} x', "no JSON in line 1"), (b"{}\n[1]", "an event is an object, line 2"), (b"\xff", "UTF-8")],
        *[(b"[" * 100_000, "no JSON"), (b"7", "an event is an object"), (b'{"a": ', "no JSON")],
    ],
)
def test_a_sample_that_is_no_json(raw: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        list(records_of(raw))


def test_samples_hold_objects_in_a_row_or_in_a_list() -> None:
    assert list(records_of(b'\xef\xbb\xbf{"a": 1, "a": 2}{"b":\r\n\t3} ')) == [b'{"a": 1, "a": 2}', b'{"b":  \t3}']
    assert list(records_of(b'[{"a": "\\ud800"}, {}]')) == [b'{"a": "\\ud800"}', b"{}"]
    assert list(records_of(b" \n")) == []
