from __future__ import annotations

import json
from pathlib import Path

from tests.detections.parts import batch_of, engine_of
from tests.detections.test_correlate import _all_rules, counting, failed
from tests.detections.test_correlations import BASES, WIDE, Line, bound, rule_of, run

from vedette.detections.correlate import Correlator
from vedette.model.reasons import DropReason
from vedette.model.rules import CorrelationKind

SAMPLE = json.loads((Path(__file__).parent / "state-v1.json").read_text("utf-8"))


def test_what_version_1_wrote_goes_on_as_if_it_had_not_stopped() -> None:
    """The sample was written by version 1 after the lines beside it."""
    before, after = SAMPLE["lines"], [failed(105), failed(106, "192.0.2.2"), failed(107, "2001:db8::1", user="b")]
    whole = engine_of(_all_rules())
    whole.process(batch_of(before))
    expected = whole.process(batch_of(after, first=len(before) + 1)).findings
    restored = engine_of(_all_rules())
    restored.correlator.restore([(rule, key, state.encode()) for rule, key, state in SAMPLE["state"]])
    assert restored.process(batch_of(after, first=len(before) + 1)).findings == expected
    assert {one.rule_id for one in expected} >= {"few", "ossec"}


def test_state_of_a_rule_that_measures_something_else_now_is_left_out() -> None:
    changed = counting(3, 10)
    for kind in (CorrelationKind.VALUE_SUM, CorrelationKind.TEMPORAL):
        fields = ("source.port",) if kind is CorrelationKind.VALUE_SUM else ()
        rule = rule_of("few", kind, ["failed"], 10, threshold=bound("gte", 1), fields=fields)
        engine = engine_of([_all_rules()[0], rule])
        engine.correlator.restore([(rule_id, key, state.encode()) for rule_id, key, state in SAMPLE["state"]])
        found = engine.process(batch_of([failed(200, **{"source.port": 5})], first=9)).findings
        assert [one.count for one in found] == [1]
    assert isinstance(Correlator([_all_rules()[0], changed], counter=engine.counter), Correlator)


def test_a_flood_of_one_rules_matches_does_not_push_out_the_match_of_another() -> None:
    for kind, lines in (
        (CorrelationKind.TEMPORAL, [("a", 1), ("b", 9000), ("c", 1)]),
        (CorrelationKind.TEMPORAL_ORDERED, [("a", 1), ("b", 1), ("a", 9000), ("c", 1)]),
    ):
        rule = rule_of("r", kind, ["a", "b", "c"], 1000)
        actions = [action for action, times in lines for _ in range(times)]
        found = run([*BASES, WIDE, rule], [Line(n / 100, action, "192.0.2.1") for n, action in enumerate(actions)])
        assert len(found) == 1
        assert not found[0].inexact


def test_a_burst_that_overflows_still_misses_what_stops_after_it() -> None:
    rule = rule_of("r", CorrelationKind.EVENT_COUNT, ["a"], 10, threshold=bound("eq", 0))
    lines = [Line(1.0, "a", "192.0.2.1") for _ in range(500)] + [Line(30.0)]
    assert [(one.time, one.count) for one in run([*BASES, WIDE, rule], lines)] == [(1_000_000, 0)]


def test_what_is_no_number_is_counted_as_dropped() -> None:
    rule = rule_of("r", CorrelationKind.VALUE_SUM, ["failed"], 10, threshold=bound("gte", 7), fields=("source.port",))
    engine = engine_of([_all_rules()[0], rule])
    values = ["4", "x", "0x10", "1_0", "nan", "3"]
    found = engine.process(batch_of([failed(1, **{"source.port": value}) for value in values])).findings
    assert [one.count for one in found] == [2]
    assert engine.counter.seen["records_dropped", DropReason.NOT_A_NUMBER] == 4  # type: ignore[attr-defined]
