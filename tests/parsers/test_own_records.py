from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from vedette.app.counters import Counters
from vedette.app.detection import batch_of_lines, load_rules, matcher_of
from vedette.detections.correlate import Correlator
from vedette.detections.engine import Engine
from vedette.model.batch import Trust
from vedette.model.levels import Level

LINE = (
    b'{"message":"web1 192.0.2.7 22/tcp: open","event":{"action":"port-drifted","dataset":"vedette.ports"},'
    b'"host":{"name":"web1"},"destination":{"address":"192.0.2.7","port":22},"network":{"transport":"tcp"},'
    b'"vedette":{"ports":{"kind":"open-not-allowed","level":"medium","vantage":"outside"}}}'
)


@pytest.mark.parametrize(("trust", "found"), [(Trust.ATTESTED, 1), (Trust.FORGEABLE, 0), (Trust.NETWORK, 0)])
def test_only_what_our_own_sources_wrote_is_believed(trust: Trust, found: int) -> None:
    """A line in somebody's log in our words must not open, and above all not end, an alert."""
    counter = Counters()
    matcher = matcher_of(load_rules([], packs=True), counter=counter)
    engine = Engine(matcher, Correlator(matcher.rules, counter=counter), counter)
    outcome = engine.process(replace(batch_of_lines([LINE], year=2026), trust=trust))
    assert [one.rule_id for one in outcome.findings] == ["ports-open-not-allowed"] * found
    for finding in outcome.findings:
        assert finding.level is Level.MEDIUM
        assert finding.sample == "web1 192.0.2.7 22/tcp: open"
        assert finding.key["destination.port"] == 22


def test_a_level_that_is_none_leaves_the_rule_s_own() -> None:
    counter = Counters()
    matcher = matcher_of(load_rules([], packs=True), counter=counter)
    engine = Engine(matcher, Correlator(matcher.rules, counter=counter), counter)
    line = LINE.replace(b'"level":"medium"', b'"level":"whatever"')
    [finding] = engine.process(batch_of_lines([line], year=2026)).findings
    assert finding.level is Level.HIGH


RULE = """\
title: Evil
id: test-evil
level: high
logsource: {category: process_creation, product: windows}
detection: {evil: {Image|endswith: evil.exe}, condition: evil}
"""
SYSMON = b'{"message":"%s","EventID":1,"Channel":"Microsoft-Windows-Sysmon/Operational","Image":"C:\\\\evil.exe"}'


@pytest.mark.parametrize("message", [b"all is well", b"a\xff", b"\\u001b" * 10_000])
def test_a_record_of_others_is_shown_as_it_is_whatever_its_message(tmp_path: Path, message: bytes) -> None:
    """It may be no UTF-8, and what it says of itself must not hide what it was found for."""
    (tmp_path / "rule.yml").write_text(RULE)
    counter = Counters()
    matcher = matcher_of(load_rules([tmp_path], packs=False), counter=counter)
    engine = Engine(matcher, Correlator(matcher.rules, counter=counter), counter)
    batch = replace(batch_of_lines([SYSMON % message], year=2026), trust=Trust.FORGEABLE)
    [finding] = engine.process(batch).findings
    assert finding.sample.startswith('{"message":"')
    assert len(finding.sample) <= 500
