from __future__ import annotations

import random
import re
from pathlib import Path

import orjson
import pytest
from bench.agreement import (
    FOLDERS,
    KNOWN,
    Coverage,
    Known,
    Maker,
    Sample,
    compare,
    flat,
    from_pattern,
    known,
    made,
    rules_of,
    samples_of,
    table,
    unknown,
)
from sigma.rule import SigmaRule

from vedette.model.rules import LogSource

RULE = """\
title: Made up
id: 11111111-2222-4333-8444-555555555555
status: test
level: low
logsource:
    product: windows
    category: process_creation
detection:
    selection:
        Image|endswith: '\\made.exe'
        CommandLine|contains|all: ['-a', 'b*c']
    filter_main_parent:
        ParentImage: null
    condition: selection and not filter_main_parent
---
title: Beyond ASCII
id: 21111111-2222-4333-8444-555555555555
status: test
level: low
logsource:
    product: windows
    category: process_creation
detection:
    selection:
        CommandLine|contains: 'à distance'
    condition: selection
---
title: Placeholder
id: 31111111-2222-4333-8444-555555555555
status: test
level: low
logsource:
    product: windows
    category: process_creation
detection:
    selection:
        User|expand: '%someone%'
    condition: selection
"""
TABLE = """\
logsources:
    process_creation:
        category: process_creation
        product: windows
        conditions: {EventID: 1}
        rewrite: {product: windows, service: sysmon}
    windows-sysmon:
        product: windows
        service: sysmon
        sources: ["WinEventLog:Microsoft-Windows-Sysmon/Operational"]
"""


def sample(**fields: object) -> Sample:
    return Sample("made", orjson.dumps(fields), fields)  # type: ignore[arg-type]


def test_agreement_and_difference_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "made.yml").write_text(RULE)
    rules = rules_of([tmp_path / "rules"])
    assert list(rules.apart) == ["31111111-2222-4333-8444-555555555555"]
    samples = [
        sample(Image="C:\\MADE.exe", CommandLine="x -A bxxC", ParentImage="p"),
        sample(Image="C:\\made.exe", CommandLine="x -A bxxC"),
        sample(Image="C:\\made.exe", CommandLine="x -A"),
        sample(CommandLine="À DISTANCE"),
    ]
    outcome = compare("it", rules, samples)
    assert (outcome.pairs, outcome.both, outcome.only_theirs) == (8, 1, {})
    assert outcome.only_ours == {"21111111-2222-4333-8444-555555555555": [samples[3]]}
    assert table([outcome])[-1] == "| it | 2 | 4 | 8 | 1 | 1 | 0 |"
    (left,) = unknown(outcome, [])
    assert "only ours" in left
    assert unknown(outcome, [Known("21111111-2222-4333-8444-555555555555", "theirs", "")]) == [left]
    assert unknown(outcome, [Known("21111111-2222-4333-8444-555555555555", "ours", "")]) == []


def test_coverage_is_by_channel_and_event(tmp_path: Path) -> None:
    (tmp_path / "table.yml").write_text(TABLE)
    coverage = Coverage(tmp_path / "table.yml")
    event = {"Channel": "Microsoft-Windows-Sysmon/Operational", "EventID": 1}
    covered = [
        LogSource("windows", "process_creation"),
        LogSource("", "process_creation"),
        LogSource("windows", "", "sysmon"),
        LogSource("windows"),
        LogSource("windows", "process_creation", "sysmon"),
    ]
    assert all(coverage.covers(one, event) for one in covered)
    assert not any(coverage.covers(one, {**event, "EventID": 3}) for one in covered[:2])
    assert not any(coverage.covers(one, {**event, "Channel": "Security"}) for one in covered[:3])
    other = [LogSource("linux", "process_creation"), LogSource("windows", "file_event"), LogSource("", "", "security")]
    assert not any(coverage.covers(one, event) for one in other)


def test_an_event_is_one_row() -> None:
    system = {"Provider": {"#attributes": {"Name": "P"}}, "EventID": 1, "Channel": "C", "TimeCreated": {}}
    event = {"Event": {"System": system, "EventData": {"Image": "i", "Odd": [1]}}}
    assert flat(event) == {"EventID": 1, "Channel": "C", "Provider_Name": "P", "Image": "i"}


def test_events_are_made_from_what_a_rule_looks_for() -> None:
    rule = SigmaRule.from_yaml(RULE.split("---")[0])
    events = list(Maker(1).events(rule, 30))
    assert events == list(Maker(1).events(rule, 30))
    assert len({str(event) for event in events}) > 5
    assert any(str(event.get("Image", "")).endswith("\\made.exe") for event in events)
    assert any("-a" in str(event.get("CommandLine")) for event in events)


@pytest.mark.parametrize("pattern", [r"^a{2,4}(b|c)+\d\s?[x-z]$", r"(?i)power\w+\.exe", r"C:\\[a-f0-9]{8}\\"])
def test_texts_are_made_that_a_pattern_finds(pattern: str) -> None:
    pick = random.Random(1)
    for _ in range(20):
        assert re.search(pattern, from_pattern(pattern, pick) or "")
    assert from_pattern("(?<=a)b", pick) is None
    assert from_pattern("(", pick) is None


def test_each_difference_is_argued_once() -> None:
    argued = known()
    assert argued
    assert len({(one.rule, one.only) for one in argued}) == len(argued)
    assert all(one.only in ("ours", "theirs") and len(one.because) > 20 for one in argued)
    assert KNOWN.name == "agreement_known.yml"


@pytest.mark.corpus
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_sigmahq_rule_says_what_the_judge_says(corpus: Path) -> None:
    folder = corpus / "sigma"
    rules = rules_of([folder / name for name in FOLDERS])
    assert len(rules.ours) > 3700
    assert all("placeholder" in why for why in rules.apart.values()), rules.apart
    samples = samples_of(folder / "regression_data")
    outcomes = [
        compare("samples", rules, samples, Coverage(folder / "thor.yml")),
        compare("samples, log sources left out", rules, samples),
        compare("made", rules, made(rules, 1, 1)),
    ]
    assert [line for outcome in outcomes for line in unknown(outcome, known())] == []
    # Where little matches, agreement says little.
    assert [outcome.both >= least for outcome, least in zip(outcomes, (150, 300, 9000), strict=True)] == [True] * 3
