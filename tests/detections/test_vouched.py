"""One record nobody vouches for must not keep an attack from being answered once enough are vouched for.
Counterpart: src/vedette/detections/vouched.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vedette.app.counters import Counters
from vedette.app.detection import batch_of_lines, load_rules, matcher_of
from vedette.detections.correlate import Correlator
from vedette.detections.engine import stretch_of
from vedette.detections.match import Matcher
from vedette.detections.plans import WindowPlan
from vedette.detections.stored import load_window
from vedette.model.batch import Batch, Trust
from vedette.model.findings import Finding
from vedette.model.reasons import BlameReason

RULE = "ssh-brute-force-address"
A, F = Trust.ATTESTED, Trust.FORGEABLE
Record = tuple[int, str, Trust]
"""Second of the day, last number of the address, trust."""


@cache
def matcher() -> Matcher:
    return matcher_of(load_rules([], packs=True), counter=Counters())


def batch(records: Sequence[Record]) -> Batch:
    lines = [
        f"Jan  1 {second // 3600:02}:{second // 60 % 60:02}:{second % 60:02} web sshd[7]: Failed password for root "
        f"from 192.0.2.{last} port 4022 ssh2".encode()
        for second, last, _ in records
    ]
    made = batch_of_lines(lines, year=2026)
    return replace(made, trust=np.array([int(trust) for *_, trust in records], dtype=np.uint8))


def findings(
    records: Sequence[Record], cuts: Sequence[int] = (), *, light: int = 16, restart: bool = False
) -> list[Finding]:
    """The findings of the rule, over batches cut at these places; restart: between any two of them."""
    rules = matcher().rules

    def made() -> Correlator:
        return Correlator(rules, counter=Counters(), track=restart, light=light)

    correlator, out = made(), []
    kept: dict[tuple[str, str], bytes] = {}
    places = sorted({0, *cuts, len(records)})
    for begin, end in pairwise(places):
        part = batch(records[begin:end])
        part = replace(part, positions=part.positions + begin)
        out += correlator.process(stretch_of(part, matcher().match(part))).findings
        if restart:
            for name, data in correlator.changes().items():
                kept = {**kept, name: data} if data is not None else {one: kept[one] for one in kept if one != name}
            correlator = made()
            correlator.restore((*name, data) for name, data in kept.items())
    return [one for one in out if one.rule_id == RULE]


def told(records: Sequence[Record]) -> list[tuple[int, Trust]]:
    """How many records there were at each finding, and how far it is vouched for."""
    return [(one.records[-1].record_id.rpartition(":")[2], one.trust) for one in findings(records)]  # type: ignore[misc]


def test_one_record_nobody_vouches_for_delays_the_answer_by_one_record() -> None:
    records = [(second, "7", F if second == 2 else A) for second in range(9)]
    assert told(records) == [("5", F), ("6", A)]
    first, second = findings(records)
    assert (first.blame, second.blame) == (BlameReason.SOURCE_FORGEABLE, BlameReason.ALLOWED)
    assert second.count == 5
    assert first.id != second.id


def test_what_is_vouched_for_from_the_beginning_is_told_once() -> None:
    assert told([(second, "7", A) for second in range(40)]) == [("5", A)]


def test_what_nobody_vouches_for_is_told_once() -> None:
    assert told([(second, "7", F) for second in range(40)]) == [("5", F)]


def test_what_is_vouched_for_too_seldom_is_no_answer() -> None:
    records = [(second * 140, "7", A if second % 2 else F) for second in range(20)]
    assert {trust for _, trust in told(records)} == {F}


@pytest.mark.parametrize("restart", [False, True])
def test_the_cut_and_a_restart_do_not_matter(restart: bool) -> None:
    records = [(second, "7", F if second in (0, 3) else A) for second in range(12)]
    whole = findings(records)
    assert [one.trust for one in whole] == [F, A]
    for cut in range(1, 12):
        assert findings(records, [cut], restart=restart) == whole


@given(
    st.lists(st.tuples(st.integers(0, 900), st.sampled_from("78"), st.sampled_from([A, F])), max_size=40),
    st.lists(st.integers(0, 40), max_size=3),
    st.booleans(),
)
def test_whoever_is_vouched_for_often_enough_is_answered(
    steps: list[tuple[int, str, Trust]], cuts: list[int], restart: bool
) -> None:
    moment, records = 0, []
    for step, last, trust in steps:
        moment += step % 240
        records.append((moment, last, trust))
    whole = findings(records)
    assert findings(records, [cut for cut in cuts if cut < len(records)], restart=restart) == whole
    assert findings(records, light=0) == whole
    for last in "78":
        own = [(second, trust) for second, one, trust in records if one == last]
        sure = [second for second, trust in own if trust is A]
        enough = any(late - early <= 600 for early, late in zip(sure, sure[4:], strict=False))
        answered = any(one.trust is A for one in whole if one.key["source.ip"] == f"192.0.2.{last}")
        assert answered == enough


def test_a_window_that_an_older_version_kept_doubts_nothing() -> None:
    plan = WindowPlan.of(next(one for one in matcher().rules if one.id == RULE), 0)
    window = load_window(b'["key-window",2,true,5,5,false,[],[],0]', plan, {})
    assert (window.fired, window.vouched) == (True, None)
