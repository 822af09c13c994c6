from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tests.detections import reference_correlations as reference
from tests.detections.parts import SECOND, batch_of, engine_of

from vedette.detections.correlate import Correlator
from vedette.model.batch import Trust
from vedette.model.errors import RuleError
from vedette.model.findings import Finding
from vedette.model.levels import Level
from vedette.model.rules import (
    Clause,
    Comparison,
    Correlate,
    CorrelationKind,
    Firing,
    Op,
    Rule,
    Test,
    Threshold,
)

ACTIONS = ("a", "b", "c")
BASES = [
    Rule(id=name, name=name, level=Level.LOW, when=Test("event.action", Op.EQUALS, (name,)), silent=True)
    for name in ACTIONS
]
# A record may match several rules.
WIDE = Rule(id="wide", name="wide", level=Level.LOW, when=Test("user.name", Op.EQUALS, ("eve",)), silent=True)


@dataclass(frozen=True)
class Line:
    """One record to be: `t` in seconds."""

    t: float
    action: str = "x"
    address: str = ""
    user: str = ""
    port: str = ""
    repeat: int = 1
    source: str = "s1"
    trust: int = 2

    def text(self, position: int) -> str:
        parts = [f"t={self.t}", f"event.action={self.action}", f"n={position}", f"repeat={self.repeat}"]
        for name, value in (("source.ip", self.address), ("user.name", self.user), ("source.port", self.port)):
            if value:
                parts.append(f"{name}={value}")
        return " ".join(parts)

    def record(self, position: int) -> reference.Record:
        fields = {"source.ip": self.address, "user.name": self.user, "source.port": self.port}
        matched = {name for name in ACTIONS if name == self.action} | ({"wide"} if self.user == "eve" else set())
        return reference.Record(
            position,
            int(self.t * SECOND),
            frozenset(matched),
            {name: value for name, value in fields.items() if value},
            self.repeat,
            self.trust,
            self.source,
        )


def rule_of(name: str, kind: CorrelationKind, of: Sequence[str], timespan: float, **more: Any) -> Rule:
    silent = more.pop("silent", False)
    group_by = more.pop("group_by", ("source.ip",))
    correlate = Correlate(kind, tuple(of), group_by, int(timespan * SECOND), **more)
    return Rule(id=name, name=name, level=Level.HIGH, correlate=correlate, key=group_by, silent=silent)


def bound(comparison: str, value: float) -> tuple[Threshold, ...]:
    return (Threshold(Comparison(comparison), value),)


Told = tuple[str, dict[str, Any], str, int, tuple[int, ...], int]


def told(finding: Finding) -> Told:
    """What is compared: rule, key, firing record, count, records, trust."""
    record = next(part for part in finding.sample.split() if part.startswith("n="))
    positions = tuple(int(one.record_id.rpartition(":")[2]) for one in finding.records)
    return finding.rule_id, finding.key, record, finding.count, positions, int(finding.trust)


def expected(rules: Sequence[Rule], lines: Sequence[Line]) -> list[Told]:
    records = [line.record(at + 1) for at, line in enumerate(lines)]
    return [
        (one.rule, one.key, f"n={one.record}", one.count, one.records, one.trust)
        for one in reference.findings(rules, records)
    ]


def run(
    rules: Sequence[Rule], lines: Sequence[Line], cuts: Sequence[int] = (), *, restart: int = -1, light: int = 16
) -> list[Finding]:
    """The findings over `lines`, cut before each index in `cuts` and wherever source or trust change."""
    engine = engine_of(rules, light=light, track=restart >= 0)
    stored: dict[tuple[str, str], bytes] = {}
    changes = [at for at in range(1, len(lines)) if _origin(lines[at]) != _origin(lines[at - 1])]
    bounds = [0, *sorted({*cuts, *changes, max(restart, 0)} - {0}), len(lines)]
    out: list[Finding] = []
    for begin, end in pairwise(bounds):
        if begin == restart:
            engine = engine_of(rules, light=light, track=True)
            engine.correlator.restore([(*name, state) for name, state in stored.items()])
        if begin == end:
            continue
        texts = [line.text(at + 1) for at, line in enumerate(lines)][begin:end]
        batch = batch_of(texts, first=begin + 1, source=lines[begin].source, trust=Trust(lines[begin].trust))
        out.extend(engine.process(batch).findings)
        if restart >= 0:
            for name, state in engine.correlator.changes().items():
                if state is None:
                    stored.pop(name, None)
                else:
                    stored[name] = state
    return out


def _origin(line: Line) -> tuple[str, int]:
    return line.source, line.trust


# ------------------------------------------------------------------------------------------------- held equal


lines_strategy = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 0.5, 0.5, 1, 1, 2, 2, 4, 6, 11, 30, -1, -3, -8]),
        st.builds(
            Line,
            t=st.just(0.0),
            action=st.sampled_from([*ACTIONS, *ACTIONS, "x"]),
            address=st.sampled_from(["192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2", ""]),
            user=st.sampled_from(["a", "a", "b", "eve", ""]),
            port=st.sampled_from(["1", "5", "-3", "2.5", "0.1", "1e2", "x", ""]),
            repeat=st.sampled_from([1, 1, 1, 2]),
            source=st.sampled_from(["s1", "s1", "s1", "s2"]),
            trust=st.sampled_from([2, 2, 1]),
        ),
    ),
    min_size=5,
    max_size=40,
).map(lambda steps: _timed(steps))


def _timed(steps: list[tuple[float, Line]]) -> list[Line]:
    time, out = 100.0, []
    for step, line in steps:
        time += step
        out.append(replace(line, t=time))
    return out


NAMES = (*ACTIONS, "wide")
bounds_strategy = st.lists(
    st.builds(Threshold, st.sampled_from(list(Comparison)), st.sampled_from([0, 1, 2, 2, 3])), min_size=1, max_size=2
).map(tuple)
number_bounds = st.lists(
    st.builds(Threshold, st.sampled_from(list(Comparison)), st.sampled_from([-3, 0, 2, 2.5, 5.1, 7])),
    min_size=1,
    max_size=2,
).map(tuple)


@st.composite
def correlate_strategy(draw: st.DrawFn, names: Sequence[str], keys: Sequence[tuple[str, ...]]) -> Correlate:
    kind = draw(st.sampled_from(list(CorrelationKind)))
    of = tuple(draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True)))
    group_by = draw(st.sampled_from(keys))
    more: dict[str, Any] = {}
    if kind in (CorrelationKind.TEMPORAL, CorrelationKind.TEMPORAL_ORDERED):
        shape = draw(st.sampled_from(["all", "clauses", "number"]))
        if shape == "number" and kind is CorrelationKind.TEMPORAL:
            more["threshold"] = draw(bounds_strategy)
        elif shape == "clauses":
            more["clauses"] = tuple(
                draw(
                    st.lists(
                        st.builds(
                            lambda needs, without: Clause(tuple(needs), tuple({*without} - {*needs})),
                            st.lists(st.sampled_from(of), max_size=3, unique=kind is CorrelationKind.TEMPORAL),
                            st.lists(st.sampled_from(of), max_size=2, unique=True),
                        ).filter(lambda clause: clause.needs or clause.without),
                        min_size=1,
                        max_size=2,
                    )
                )
            )
        elif kind is CorrelationKind.TEMPORAL_ORDERED and draw(st.booleans()):
            of = (*of, of[0])
    elif kind is CorrelationKind.EVENT_COUNT:
        more["threshold"] = draw(bounds_strategy)
    elif kind is CorrelationKind.VALUE_COUNT:
        more["threshold"] = draw(bounds_strategy)
        more["fields"] = draw(st.sampled_from([("user.name",), ("source.ip",), ("user.name", "source.ip")]))
    else:
        more["threshold"] = draw(number_bounds)
        more["fields"] = ("source.port",)
        more["percentile"] = draw(st.sampled_from([0, 25, 50, 90, 99.5, 100]))
    if draw(st.integers(0, 5)) == 0:
        more["firing"] = Firing.OSSEC
    return Correlate(kind, of, group_by, draw(st.sampled_from([3, 10, 10, 20])) * SECOND, **more)


@st.composite
def rules_strategy(draw: st.DrawFn) -> list[Rule]:
    """Base rules and up to four correlations, of which the later ones may count the earlier ones."""
    rules = [*BASES, WIDE]
    names = list(NAMES)
    for number in range(draw(st.integers(1, 4))):
        keys: list[tuple[str, ...]] = [(), ("source.ip",), ("source.ip",), ("user.name",), ("source.ip", "user.name")]
        counted = names
        if number and rules[-1].correlate is not None and draw(st.booleans()):
            counted = [rules[-1].id, *draw(st.sampled_from([[], ["a"], names]))]
            keys = [(), rules[-1].correlate.group_by]
        correlate = draw(correlate_strategy(counted, keys))
        if correlate.kind is CorrelationKind.EVENT_COUNT and draw(st.integers(0, 3)) == 0 and correlate.group_by:
            first = correlate.group_by[0]
            correlate = replace(correlate, aliases=((first, "a", "user.name"),))
        rule = Rule(
            id=f"r{number}",
            name="r",
            level=Level.HIGH,
            correlate=correlate,
            key=correlate.group_by,
            silent=draw(st.booleans()),
        )
        try:
            Correlator([*rules, rule], counter=NoCounter())
        except RuleError:
            continue
        rules.append(rule)
        names.append(rule.id)
    assume(len(rules) > 4)
    # The order of the rules must not matter to who counts whom.
    return [*rules[4:][::-1], *rules[:4]] if draw(st.booleans()) else rules


class NoCounter:
    def add(self, name: str, reason: object = "", n: int = 1) -> None:
        """Counts nothing."""


def check(rules: list[Rule], lines: list[Line], cuts: list[int], restart: int) -> None:
    cuts = [cut for cut in cuts if cut < len(lines)]
    whole = run(rules, lines)
    assert list(map(told, whole)) == expected(rules, lines)
    assert len({one.id for one in whole}) == len(whole)
    for light in (0, 16):
        assert run(rules, lines, cuts, light=light) == whole
        assert run(rules, lines, list(range(len(lines))), light=light) == whole
    if restart < len(lines):
        assert run(rules, lines, cuts, restart=restart) == whole


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(rules_strategy(), lines_strategy, st.lists(st.integers(0, 30), max_size=4), st.integers(0, 30))
def test_it_is_what_the_reference_finds_however_it_is_cut(
    rules: list[Rule], lines: list[Line], cuts: list[int], restart: int
) -> None:
    check(rules, lines, cuts, restart)


@pytest.mark.slow
@settings(max_examples=1000, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(rules_strategy(), lines_strategy, st.lists(st.integers(0, 30), max_size=4), st.integers(0, 30))
def test_it_is_what_the_reference_finds_in_many_more_cases(
    rules: list[Rule], lines: list[Line], cuts: list[int], restart: int
) -> None:
    check(rules, lines, cuts, restart)
