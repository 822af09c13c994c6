from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.detections.parts import SECOND, Tallies, batch_of, engine_of, run

from vedette.detections import columnar, windows
from vedette.detections.correlate import Correlator
from vedette.detections.keying import group_lists
from vedette.model.batch import Trust
from vedette.model.errors import RuleError, StateError
from vedette.model.levels import Level
from vedette.model.reasons import BlameReason
from vedette.model.rules import (
    Clause,
    Comparison,
    Correlate,
    CorrelationKind,
    Firing,
    LogSource,
    Op,
    Response,
    Rule,
    Test,
    Threshold,
)

FAILED = Rule(
    id="failed", name="failed", level=Level.LOW, when=Test("event.action", Op.EQUALS, ("failed",)), silent=True
)


def counting(
    threshold: int,
    timespan: int,
    *,
    group_by: tuple[str, ...] = ("source.ip",),
    distinct: str = "",
    of: tuple[str, ...] = ("failed",),
    **more: object,
) -> Rule:
    kind = CorrelationKind.VALUE_COUNT if distinct else CorrelationKind.EVENT_COUNT
    bounds = (Threshold(Comparison.GTE, threshold),)
    correlate = Correlate(kind, of, group_by, timespan * SECOND, bounds, (distinct,) if distinct else ())
    return Rule(id="many", name="many", level=Level.HIGH, correlate=replace(correlate, **more))  # type: ignore[arg-type]


def but(rule: Rule, **more: object) -> Rule:
    """The correlation rule with other parts."""
    assert rule.correlate is not None
    return replace(rule, correlate=replace(rule.correlate, **more))  # type: ignore[arg-type]


def failed(time: float, address: str = "192.0.2.1", user: str = "bob", **more: object) -> str:
    extra = "".join(f" {name}={value}" for name, value in more.items())
    return f"t={time} event.action=failed source.ip={address} user.name={user}{extra}"


def fired_at(rules: list[Rule], lines: list[str], cuts: list[int] | None = None) -> list[tuple[float, int, list[str]]]:
    return [
        (one.time / SECOND, one.count, [record.record_id.rpartition(":")[2] for record in one.records])
        for one in run(rules, lines, cuts or [])
    ]


def test_fires_when_the_threshold_is_reached_and_not_before() -> None:
    rules = [FAILED, counting(3, 10)]
    assert fired_at(rules, [failed(0), failed(1)]) == []
    assert fired_at(rules, [failed(0), failed(1), failed(2), failed(3)]) == [(2.0, 3, ["1", "2", "3"])]


def test_the_window_is_closed_at_both_ends() -> None:
    rules = [FAILED, counting(3, 10)]
    assert len(fired_at(rules, [failed(0), failed(5), failed(10)])) == 1
    assert fired_at(rules, [failed(0), failed(5), failed(10.000001)]) == []


def test_it_rearms_after_one_timespan_without_a_match() -> None:
    rules = [FAILED, counting(2, 10)]
    lasting = [failed(0), failed(1), failed(11), failed(21), failed(31)]
    assert [time for time, _, _ in fired_at(rules, lasting)] == [1.0]
    again = [failed(0), failed(1), failed(11.1), failed(12)]
    assert [time for time, _, _ in fired_at(rules, again)] == [1.0, 12.0]


def test_keys_are_apart_and_records_without_the_key_do_not_count() -> None:
    rules = [FAILED, counting(2, 10)]
    lines = [
        failed(0, "192.0.2.1"),
        failed(1, "192.0.2.2"),
        "t=2 event.action=failed user.name=x",
        failed(3, "192.0.2.2"),
    ]
    assert [one.key for one in run(rules, lines)] == [{"source.ip": "192.0.2.2"}]


def test_a_key_of_many_fields_with_many_values_each() -> None:
    fields = ("user.name", "source.ip", "source.port", "host.name", "vedette.ssh.method")
    lines = [
        f"t={n // 1000} event.action=failed " + " ".join(f"{field}={field[0]}{n % 8000}" for field in fields)
        for n in range(16_000)
    ]
    found = run([FAILED, counting(2, 60, group_by=fields)], lines, light=0)
    assert len(found) == 8000
    assert all(len({str(value)[1:] for value in one.key.values()}) == 1 for one in found)


def test_a_repeated_record_counts_as_often_as_it_says_and_is_listed_once() -> None:
    rules = [FAILED, counting(5, 10)]
    assert fired_at(rules, [failed(0), failed(1, repeat=4)]) == [(1.0, 5, ["1", "2"])]
    distinct = [FAILED, counting(2, 10, distinct="user.name")]
    assert fired_at(distinct, [failed(0, repeat=9)]) == []


def test_distinct_values() -> None:
    rules = [FAILED, counting(3, 10, distinct="user.name")]
    lines = [failed(0, user="a"), failed(1, user="b"), failed(2, user="a"), failed(3, user="b"), failed(9, user="c")]
    assert fired_at(rules, lines) == [(9.0, 5, ["1", "2", "3", "4", "5"])]
    assert fired_at(rules, [failed(0, user="a"), failed(1, user="b"), failed(11, user="c")]) == []


def test_a_late_record_is_inserted_at_its_time() -> None:
    rules = [FAILED, counting(3, 10)]
    assert fired_at(rules, [failed(0), failed(12), failed(9)]) == []
    assert fired_at(rules, [failed(2), failed(12), failed(9)]) == [(9.0, 3, ["1", "3", "2"])]


def test_a_record_later_than_the_lateness_is_matched_not_correlated_and_counted() -> None:
    rules = [replace(FAILED, silent=False), counting(2, 100)]
    engine = engine_of(rules)
    findings = engine.process(batch_of([failed(50), failed(44)])).findings
    assert [one.rule_id for one in findings] == ["failed", "failed"]
    assert engine.counter.seen["records_dropped", "late"] == 1  # type: ignore[attr-defined]


def test_preceding_counts_what_came_before() -> None:
    success = Rule(
        id="success-after",
        name="x",
        level=Level.CRITICAL,
        when=Test("event.action", Op.EQUALS, ("accepted",)),
        correlate=Correlate(
            CorrelationKind.EVENT_COUNT,
            ("failed",),
            ("source.ip",),
            60 * SECOND,
            (Threshold(Comparison.GTE, 3),),
            preceding=True,
        ),
    )
    accepted = "t={} event.action=accepted source.ip=192.0.2.1 user.name=bob"
    rules = [FAILED, success]
    assert fired_at(rules, [failed(0), failed(1), accepted.format(2)]) == []
    lines = [failed(0), failed(1), failed(2), accepted.format(3), accepted.format(4)]
    for cuts in ([], [1, 2, 3, 4]):
        assert fired_at(rules, lines, cuts) == [(3.0, 4, ["1", "2", "3", "4"])]
    assert fired_at(rules, [failed(0), failed(1), failed(2), accepted.format(63)]) == []


def test_an_ossec_tree_with_parent_child_and_if_matched() -> None:
    """Base rule, a child that is silent for one user, a child that fires on frequency: OSSEC's shapes by hand."""
    base = Rule(id="5700", name="sshd", level=Level.INFORMATIONAL, logsource=LogSource(service="sshd"), silent=True)
    child = Rule(
        id="5716", name="auth failed", level=Level.MEDIUM, parents=("5700",), stop=True,
        groups=("authentication_failed",), when=Test("event.action", Op.EQUALS, ("failed",)),
    )  # fmt: skip
    ignored = Rule(
        id="100001", name="monitoring", level=Level.INFORMATIONAL, parents=("5716",), stop=True, silent=True,
        when=Test("user.name", Op.EQUALS, ("probe",)),
    )  # fmt: skip
    many = Rule(
        id="5720", name="many failures", level=Level.HIGH, parents=("5716",), order=10,
        correlate=Correlate(
            CorrelationKind.EVENT_COUNT, ("authentication_failed",), ("source.ip",), 120 * SECOND,
            (Threshold(Comparison.GTE, 3),), firing=Firing.OSSEC,
        ),
    )  # fmt: skip
    other = Rule(
        id="5710", name="other", level=Level.LOW, parents=("5700",), stop=True, order=-1,
        when=Test("event.action", Op.EXISTS, (True,)),
    )  # fmt: skip
    lines = [
        failed(0, user="probe"),
        failed(1),
        failed(2),
        failed(3),
        failed(4),
        "t=5 event.action=closed source.ip=192.0.2.1",
        "t=6 event.action=failed service=cron source.ip=192.0.2.1",
    ]
    rules = [base, child, ignored, many, other]
    for cuts in ([], [3], [1, 2, 3, 4, 5, 6]):
        found = [(one.rule_id, one.time // SECOND) for one in run(rules, lines, cuts)]
        assert found == [("5716", 1), ("5716", 2), ("5720", 3), ("5716", 4), ("5710", 5)]


def test_trust_is_the_lowest_the_threshold_needs() -> None:
    rule = replace(counting(3, 60), response=Response())
    engine = engine_of([FAILED, rule])
    engine.process(batch_of([failed(0), failed(1)], trust=Trust.ATTESTED))
    mixed = engine.process(batch_of([failed(2)], trust=Trust.FORGEABLE, source="file:/var/log/auth.log")).findings
    assert [(one.trust, one.blame) for one in mixed] == [(Trust.FORGEABLE, BlameReason.SOURCE_FORGEABLE)]
    engine = engine_of([FAILED, rule])
    engine.process(batch_of([failed(0, repeat=2)], trust=Trust.ATTESTED))
    engine.process(batch_of([failed(1)], trust=Trust.FORGEABLE, source="other"))
    # Those that are vouched for are enough alone now.
    sure = engine.process(batch_of([failed(2)], trust=Trust.ATTESTED)).findings
    assert [(one.trust, one.blame) for one in sure] == [(Trust.ATTESTED, BlameReason.ALLOWED)]


def test_forgeable_records_may_block_only_where_the_operator_accepts_the_source() -> None:
    rule = replace(counting(2, 60), response=Response())
    for accepted, blame in ((set(), "source-forgeable"), ({"stdin"}, "allowed")):
        engine = engine_of([FAILED, rule], accept_forgeable=accepted.__contains__)
        findings = engine.process(batch_of([failed(0), failed(1)], trust=Trust.FORGEABLE)).findings
        assert [one.blame for one in findings] == [blame]
        network = engine_of([FAILED, rule], accept_forgeable=accepted.__contains__)
        findings = network.process(batch_of([failed(0), failed(1)], trust=Trust.NETWORK)).findings
        assert [one.blame for one in findings] == [BlameReason.SOURCE_NETWORK]


def test_an_address_outside_the_key_is_not_blamed_for_the_others() -> None:
    rule = replace(counting(2, 60, group_by=("user.name",)), response=Response())
    findings = run([FAILED, rule], [failed(0, "192.0.2.1"), failed(1, "192.0.2.2")])
    assert [(one.source_ip, one.blame) for one in findings] == [("192.0.2.2", BlameReason.NO_ADDRESS)]


def test_equal_records_get_findings_of_their_own() -> None:
    rule = replace(FAILED, silent=False)
    lines = [failed(0), failed(0), failed(0)]
    ids = [one.id for one in run([rule], lines)]
    assert len(set(ids)) == 3
    assert ids == [one.id for one in run([rule], lines, [1, 2])]


def test_firings_at_one_moment_have_ids_of_their_own() -> None:
    rule = counting(2, 10)
    assert rule.correlate is not None
    often = replace(rule, correlate=replace(rule.correlate, firing=Firing.OSSEC))
    for cuts in ([], [3], list(range(6))):
        found = run([FAILED, often], [failed(1)] * 6, cuts)
        assert len({one.id for one in found}) == len(found) == 3


def test_a_correlated_child_that_fires_wins_over_the_siblings_after_it() -> None:
    parent = replace(FAILED, silent=False)
    counted = Correlate(
        CorrelationKind.EVENT_COUNT,
        ("sibling",),
        ("source.ip",),
        10 * SECOND,
        (Threshold(Comparison.GTE, 2),),
        firing=Firing.OSSEC,
        preceding=True,
    )
    child = Rule(id="child", name="x", level=Level.HIGH, parents=("failed",), order=10, stop=True, correlate=counted)
    sibling = Rule(id="sibling", name="x", level=Level.LOW, parents=("failed",), order=5, stop=True)
    below = Rule(
        id="below", name="x", level=Level.LOW, parents=("sibling",), when=Test("user.name", Op.EQUALS, ("eve",))
    )
    lines = [failed(1), failed(2), failed(3, user="eve"), failed(4)]
    rules = [parent, child, sibling, below]
    assert [one.rule_id for one in run(rules, lines)] == ["sibling", "sibling", "child", "sibling"]
    ordered = [parent, replace(child, order=1), sibling, below]
    assert [one.rule_id for one in run(ordered, lines)] == ["sibling", "sibling", "below", "sibling"]


def test_what_it_cannot_do_is_said() -> None:
    many = counting(3, 10)
    below = Threshold(Comparison.LT, 3)
    other_key = replace(counting(3, 10, of=("many",), group_by=("user.name",)), id="other-key")
    refused: list[tuple[list[Rule], str]] = [
        ([FAILED, counting(0, 10)], "hold for nothing"),
        ([FAILED, counting(3, 10, of=("none",))], "no rule 'none'"),
        ([FAILED, many, other_key], "findings of many have no 'user.name'"),
        ([FAILED, counting(3, 10, of=("many",))], "rule many counts itself"),
        ([FAILED, but(many, threshold=(below,), preceding=True)], "counted with gte or gt"),
        ([FAILED, but(many, threshold=())], "there is no condition"),
        ([FAILED, but(many, kind=CorrelationKind.VALUE_SUM)], "value_sum needs a field"),
        ([FAILED, counting(3, 10, fields=("user.name",))], "event_count has no field"),
        ([FAILED, but(many, kind=CorrelationKind.TEMPORAL_ORDERED)], "not compared with a number"),
        ([FAILED, counting(5000, 10, distinct="user.name")], "at most 4096 distinct"),
        ([FAILED, counting(3, 10, clauses=(Clause(("failed",)),))], "takes no expression"),
    ]
    for rules, why in refused:
        with pytest.raises(RuleError, match="made by hand") as caught:
            Correlator(rules, counter=Tallies())
        assert why in str(caught.value)


def test_a_flood_of_keys_does_not_push_out_the_one_that_fills_up() -> None:
    rules = [FAILED, counting(5, 1000)]
    engine = engine_of(rules, max_keys=2000)
    engine.process(batch_of([failed(0, "192.0.2.1")] * 4))
    flood = [failed(1, f"10.{n >> 8}.{n & 255}.9") for n in range(12_000)]
    for begin in range(0, len(flood), 1500):
        engine.process(batch_of(flood[begin : begin + 1500]))
    assert engine.counter.seen["records_dropped", "state-evicted"] > 0  # type: ignore[attr-defined]
    assert [one.key["source.ip"] for one in engine.process(batch_of([failed(2)])).findings] == ["192.0.2.1"]
    first = engine.process(batch_of([failed(3, "10.0.0.9")] * 6)).findings
    assert [one.inexact for one in first] == [True]


@pytest.mark.parametrize("rule", [counting(3, 1000), counting(2, 1000, distinct="user.name")])
def test_what_a_flood_pushes_out_does_not_depend_on_the_cut(rule: Rule) -> None:
    choose = random.Random(5)
    lines = [
        failed(n // 100, f"10.0.{choose.randrange(12)}.{choose.randrange(256)}", choose.choice("ab"))
        for n in range(9000)
    ]
    whole = run([FAILED, rule], lines, max_keys=1500)
    assert any(one.inexact for one in whole)
    assert not all(one.inexact for one in whole)
    for cuts in ([1234, 5000], list(range(0, 9000, 70)), list(range(0, 9000, 7))):
        assert run([FAILED, rule], lines, cuts, max_keys=1500) == whole


def test_the_next_finding_of_an_evicted_key_is_inexact_however_many_there_were() -> None:
    engine = engine_of([FAILED, counting(3, 1000)], max_keys=1100)
    # Not the oldest, so that it is given up when already more were than are remembered.
    engine.process(batch_of([failed(0, f"10.{n >> 8}.{n & 255}.7") for n in range(2000) for _ in (1, 2)]))
    engine.process(batch_of([failed(0.5, "192.0.2.1")] * 2))
    for begin in range(0, 30_000, 3000):
        flood = [failed(1, f"10.{n >> 8}.{n & 255}.9") for n in range(begin, begin + 3000) for _ in (1, 2)]
        engine.process(batch_of(flood))
    found = [one for n in (0, 1, 2) for one in engine.process(batch_of([failed(2 + n, "192.0.2.1")])).findings]
    assert [one.inexact for one in found] == [True]


def test_a_run_that_keeps_nothing_remembers_no_changes() -> None:
    engine = engine_of([FAILED, counting(3, 10)], max_keys=1100)
    for begin in range(0, 20_000, 2000):
        engine.process(batch_of([failed(n, f"10.{n >> 8}.{n & 255}.9") for n in range(begin, begin + 2000)]))
    assert [len(state.changed) for state in engine.correlator._states] == [0]


def test_work_does_not_grow_with_what_a_window_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """One name again and again, out of order: the window of distinct names is full and never enough."""
    counted = 0
    add = windows._add

    def counting_add(tally: windows.Tally, entry: windows.Entry) -> None:
        nonlocal counted
        counted += 1
        add(tally, entry)

    monkeypatch.setattr(windows, "_add", counting_add)
    lines = [failed(100 + n / 1000 - 2 * (n % 2)) for n in range(6000)]
    rules = [FAILED, counting(3, 600, distinct="user.name")]
    assert run(rules, lines) == []
    assert len(lines) <= counted <= 2 * len(lines)


lines_strategy = st.lists(
    st.builds(
        lambda step, address, user, repeat, action: (step, address, user, repeat, action),
        st.sampled_from([0, 0, 0.5, 1, 2, 4, 6, 11, 30, -1, -3, -8]),
        st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1"]),
        st.sampled_from(["a", "b", "c", "d"]),
        st.sampled_from([1, 1, 1, 2, 3]),
        st.sampled_from(["failed", "failed", "failed", "failed", "accepted", "other"]),
    ),
    max_size=60,
)


def _lines(steps: list[tuple[float, str, str, int, str]]) -> list[str]:
    out, time = [], 100.0
    for step, address, user, repeat, action in steps:
        time += step
        out.append(f"t={time} event.action={action} source.ip={address} user.name={user} repeat={repeat}")
    return out


def _all_rules() -> list[Rule]:
    success = Correlate(
        CorrelationKind.EVENT_COUNT,
        ("failed",),
        ("source.ip",),
        15 * SECOND,
        (Threshold(Comparison.GTE, 2),),
        preceding=True,
    )
    return [
        FAILED,
        replace(counting(3, 5), id="few"),
        replace(counting(6, 10), id="some"),
        replace(counting(3, 10, distinct="user.name"), id="spray"),
        replace(counting(2, 20, group_by=("user.name",), distinct="source.ip"), id="distributed"),
        replace(counting(4, 10, group_by=("source.ip", "user.name")), id="pair"),
        replace(counting(3, 10), id="ossec", correlate=replace(counting(3, 10).correlate, firing=Firing.OSSEC)),  # type: ignore[type-var]
        Rule(
            id="after",
            name="x",
            level=Level.HIGH,
            when=Test("event.action", Op.EQUALS, ("accepted",)),
            correlate=success,
        ),
        Rule(id="seen", name="x", level=Level.LOW, when=Test("event.action", Op.EQUALS, ("other",))),
    ]


@settings(max_examples=150)
@given(lines_strategy, st.lists(st.integers(0, 60), max_size=6))
def test_the_cut_does_not_matter(steps: list[tuple[float, str, str, int, str]], cuts: list[int]) -> None:
    lines = _lines(steps)
    whole = run(_all_rules(), lines, light=0)
    cuts = [cut for cut in cuts if cut < len(lines)]
    for light in (0, 3, columnar.LIGHT):
        assert run(_all_rules(), lines, cuts, light=light) == whole
        assert run(_all_rules(), lines, list(range(len(lines))), light=light) == whole


@settings(max_examples=150)
@given(lines_strategy)
def test_the_columnar_way_is_the_record_by_record_way(steps: list[tuple[float, str, str, int, str]]) -> None:
    lines = _lines(steps)
    quick = run(_all_rules(), lines, light=0)

    def slow(self: columnar.RuleRun, rows: object, codes: object, keys: object) -> None:
        for key, own in group_lists(rows, codes, keys):  # type: ignore[arg-type]
            self._one_by_one(key, own)

    patch = pytest.MonkeyPatch()
    with patch.context() as context:
        context.setattr(columnar.RuleRun, "_columnar", slow)
        assert run(_all_rules(), lines, light=0) == quick


@given(lines_strategy, st.integers(0, 60))
def test_a_restart_does_not_matter(steps: list[tuple[float, str, str, int, str]], cut: int) -> None:
    lines = _lines(steps)
    cut = min(cut, len(lines))
    whole = run(_all_rules(), lines)
    first = engine_of(_all_rules(), track=True)
    stored: dict[tuple[str, str], bytes] = {}
    before = []
    for begin in range(0, cut, 7):
        batch = batch_of(lines[begin : min(begin + 7, cut)], first=begin + 1)
        before.extend(first.process(batch).findings)
        for name, state in first.correlator.changes().items():
            if state is None:
                stored.pop(name, None)
            else:
                stored[name] = state
    second = engine_of(_all_rules(), track=True)
    second.correlator.restore([(*name, state) for name, state in stored.items()])
    after = second.process(batch_of(lines[cut:], first=cut + 1)).findings
    assert before + after == whole


@pytest.mark.parametrize(
    "state", [b"", b"{}", b'["key-window",99,false,0,0,false,[]]', b'["other",1,false,0,0,false,[]]']
)
def test_state_that_cannot_be_read_is_an_error(state: bytes) -> None:
    correlator = Correlator(_all_rules(), counter=Tallies())
    with pytest.raises(StateError):
        correlator.restore([("few", '[["source.ip","192.0.2.1"]]', state)])
