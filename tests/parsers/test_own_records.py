from __future__ import annotations

from dataclasses import replace

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
