"""What correlations mean, the slow and obvious way: every key for itself, every window looked at from the start.
Counterpart: `vedette.detections` must give the same; nothing here is taken from it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, floor
from typing import Any

from vedette.model.rules import Comparison, Correlate, CorrelationKind, Firing, Rule

LATENESS = 5_000_000


@dataclass(frozen=True)
class Record:
    """One record in ingest order: which base rules it matched, and what it says."""

    position: int
    time: int
    matched: frozenset[str]
    fields: dict[str, str]
    repeat: int = 1
    trust: int = 2
    source: str = "a"


@dataclass(frozen=True)
class Event:
    """What a correlation counts: (order) when it comes, (names) as which of the rules it counts."""

    order: tuple[int, int, int, str]
    time: int
    names: frozenset[str]
    key: tuple[Any, ...]
    value: Any
    repeat: int
    trust: int
    record: Record
    clock: int


@dataclass(frozen=True)
class Found:
    """A finding: `record` is the firing one."""

    order: tuple[int, int, int, str]
    rule: str
    key: dict[str, Any]
    record: int
    count: int
    records: tuple[int, ...]
    trust: int
    time: int = field(compare=False, default=0)
    clock: int = field(compare=False, default=0)


def findings(rules: Sequence[Rule], records: Sequence[Record]) -> list[Found]:
    """Every finding of the correlations among `rules` that is not silent, in order."""
    made = _Run(rules, records)
    out = [one for rule in rules if rule.correlate and not rule.silent for one in made.fired(rule.id)]
    return sorted(out, key=lambda one: one.order)


class _Run:
    def __init__(self, rules: Sequence[Rule], records: Sequence[Record]) -> None:
        self.rules = {rule.id: rule for rule in rules}
        self.index = {rule.id: at for at, rule in enumerate(rules)}
        self.records = records
        self.clocks = [max(one.time for one in records[: at + 1]) for at in range(len(records))]
        self.memo: dict[str, list[Found]] = {}

    def timely(self, at: int) -> bool:
        record = self.records[at]
        return record.time >= max(o.time for o in self.records[: at + 1] if o.source == record.source) - LATENESS

    def fired(self, rule_id: str) -> list[Found]:
        if rule_id not in self.memo:
            rule = self.rules[rule_id]
            events = self.events(rule)
            keys = list(dict.fromkeys(event.key for event in events))
            found = []
            for key in keys:
                own = [event for event in events if event.key == key]
                found += self.closing(rule, own) if closes(rule.correlate) else self.at_once(rule, own)
            self.memo[rule_id] = sorted(found, key=lambda one: one.order)
        return self.memo[rule_id]

    # ---------------------------------------------------------------------------------------------- events

    def events(self, rule: Rule) -> list[Event]:
        correlate = rule.correlate
        out: list[Event] = []
        for at, record in enumerate(self.records):
            if not self.timely(at):
                continue
            ways: dict[tuple[Any, ...], tuple[frozenset[str], Any]] = {}
            # In the order of the rules: the value of the first one counts where several give one.
            for name in sorted({*correlate.of} & record.matched, key=lambda one: self.index[one]):
                found = self.measured(correlate, name, record.fields)
                if found is not None:
                    names, value = ways.get(found[0], (frozenset(), found[1]))
                    ways[found[0]] = names | {name}, value
            for key, (names, value) in ways.items():
                order = (2 * at + 1, 0, 0, "")
                out.append(
                    Event(order, record.time, names, key, value, record.repeat, record.trust, record, self.clocks[at])
                )
        for name in {*correlate.of}:
            if self.rules[name].correlate is None:
                continue
            for one in self.fired(name):
                found = self.measured(correlate, name, one.key)
                if found is not None:
                    key, value = found
                    order = (*one.order[:2], self.index[name] + 1, text_of(one.key))
                    record = next(r for r in self.records if r.position == one.record)
                    out.append(Event(order, one.time, frozenset([name]), key, value, 1, one.trust, record, one.clock))
        return sorted(out, key=lambda event: event.order)

    def measured(self, correlate: Correlate, name: str, fields: dict[str, Any]) -> tuple[tuple[Any, ...], Any] | None:
        alias = {alias: field for alias, rule, field in correlate.aliases if rule == name}
        key = tuple(fields.get(alias.get(one, one)) for one in correlate.group_by)
        values = tuple(fields.get(alias.get(one, one)) for one in correlate.fields)
        if None in key or None in values:
            return None
        if correlate.kind in (
            CorrelationKind.VALUE_SUM,
            CorrelationKind.VALUE_AVG,
            CorrelationKind.VALUE_PERCENTILE,
        ):
            try:
                return key, Fraction(values[0]) if "/" not in values[0] and "_" not in values[0] else Fraction("x")
            except ValueError:
                return None
        return key, values

    # ---------------------------------------------------------------------------------------------- judged at once

    def at_once(self, rule: Rule, events: list[Event]) -> list[Found]:
        correlate = rule.correlate
        span = correlate.timespan
        found: list[Found] = []
        kept: list[Event] = []
        fired, last, newest = False, -(10**18), -(10**18)
        for event in events:
            fired = fired and event.time - last <= span
            last, newest = max(last, event.time), max(newest, event.time)
            if fired or event.time < newest - span - LATENESS:
                continue
            kept = sorted([*kept, event], key=lambda one: one.time)
            kept = [one for one in kept if one.time >= newest - span - LATENESS]
            if correlate.kind is CorrelationKind.EVENT_COUNT:
                kept = kept[-2 * most_needed(correlate) :]
            if not any(one is event for one in kept):
                continue
            for end in sorted({one.time for one in kept if event.time <= one.time <= event.time + span}):
                window = [one for one in kept if end - span <= one.time <= end]
                if holds(correlate, window):
                    found.append(self.found(rule, event.order, event.record, window, event.time, event.clock))
                    kept, fired = [], correlate.firing is Firing.SIGMA
                    break
        return found

    # ---------------------------------------------------------------------------------------------- when it closes

    def closing(self, rule: Rule, events: list[Event]) -> list[Found]:
        """Each event begins a window; it is judged when the clock has passed its end and the lateness."""
        correlate = rule.correlate
        span = correlate.timespan
        found: list[Found] = []
        pending: list[Event] = []
        fired, last, judged = False, -(10**18), -(10**18)

        def judge(order: tuple[int, int], time: int, clock: int, *, over: bool) -> None:
            nonlocal pending, fired, last, judged
            first = pending[0]
            window = [one for one in pending if one.time <= first.time + span]
            same = [one for one in pending if one.time == first.time] if over else [first]
            lasting = fired and first.time - last <= span
            fired, last = False, first.time
            if holds(correlate, window):
                fired = correlate.firing is Firing.SIGMA
                if not lasting:
                    found.append(self.found(rule, order, first.record, window, time, clock))
            elif over and len(window) == len(same) and holds(correlate, []):
                fired = correlate.firing is Firing.SIGMA
                one = self.found(rule, order, first.record, window, time, clock)
                found.append(Found(**{**one.__dict__, "count": 0}))
            pending = pending[len(same) :]
            if not pending or pending[0].time > first.time:
                judged = first.time

        def judge_before(place: int, clock: int) -> None:
            after = -(10**18)
            while pending:
                first = pending[0]
                due = max(max(first.time, first.clock) + span + LATENESS, after)
                if due >= clock:
                    break
                after = due
                judge((place, due), first.time + span, due, over=True)

        def take(event: Event) -> None:
            nonlocal pending
            if event.time <= judged:
                return  # what belongs to a window that has been judged is left out
            pending = sorted([*pending, event], key=lambda one: one.time)
            while correlate.kind is CorrelationKind.EVENT_COUNT and len(pending) > 2 * most_needed(correlate):
                judge(event.order[:2], event.time, event.clock, over=False)

        queue = list(events)
        for at in range(len(self.records)):
            while queue and queue[0].order[0] == 2 * at:
                event = queue.pop(0)
                judge_before(2 * at, event.clock)
                take(event)
            judge_before(2 * at, self.clocks[at])
            while queue and queue[0].order[0] == 2 * at + 1:
                take(queue.pop(0))
        return found

    def found(
        self, rule: Rule, order: tuple[int, ...], record: Record, window: list[Event], time: int, clock: int
    ) -> Found:
        key = dict(zip(rule.correlate.group_by, window[0].key, strict=True))
        return Found(
            (order[0], order[1], self.index[rule.id], text_of(key)),
            rule.id,
            key,
            record.position,
            sum(one.repeat for one in window),
            tuple(one.record.position for one in window),
            trust_of(rule.correlate, window),
            time,
            clock,
        )


def text_of(key: dict[str, Any]) -> str:
    """As findings are sorted."""
    return json.dumps(sorted(key.items()), separators=(",", ":"), ensure_ascii=False)


# ------------------------------------------------------------------------------------------------- conditions


def closes(correlate: Correlate) -> bool:
    """Whether an empty window satisfies it, or a later record can take it back by being there."""
    return holds(correlate, []) or any(clause.without for clause in correlate.clauses)


def most_needed(correlate: Correlate) -> int:
    """The least number of events that makes `at least` conditions true; else one more than the highest bound."""
    if all(one.comparison in (Comparison.GT, Comparison.GTE) for one in correlate.threshold):
        return max(
            floor(one.value) + 1 if one.comparison is Comparison.GT else ceil(one.value) for one in correlate.threshold
        )
    return max(floor(max(one.value for one in correlate.threshold)) + 1, 1)


def holds(correlate: Correlate, window: list[Event]) -> bool:
    """Whether the condition is true of these events in time order."""
    numbers = [one.value for one in window]
    match correlate.kind:
        case CorrelationKind.EVENT_COUNT:
            return compared(correlate, sum(one.repeat for one in window))
        case CorrelationKind.VALUE_COUNT:
            return compared(correlate, len({one.value for one in window}))
        case CorrelationKind.VALUE_SUM:
            return compared(correlate, sum(numbers))
        case CorrelationKind.VALUE_AVG:
            return bool(window) and compared(correlate, Fraction(sum(numbers)) / len(numbers))
        case CorrelationKind.VALUE_PERCENTILE:
            part = Fraction(correlate.percentile) / 100
            enough = [n for n in numbers if sum(m <= n for m in numbers) >= part * len(numbers)]
            return bool(window) and compared(correlate, min(enough))
        case _:
            return temporal(correlate, window)


def temporal(correlate: Correlate, window: list[Event]) -> bool:
    there = {name for one in window for name in one.names}
    if correlate.threshold:
        return compared(correlate, len(there))
    ways = [(clause.needs, clause.without) for clause in correlate.clauses] or [(correlate.of, ())]
    for needs, without in ways:
        if {*without} & there:
            continue
        if correlate.kind is CorrelationKind.TEMPORAL:
            if {*needs} <= there:
                return True
        elif in_order(needs, window):
            return True
    return False


def in_order(needs: Sequence[str], window: list[Event]) -> bool:
    """Whether the rules matched one after the other, each step an event of its own."""
    for name in needs:
        place = next((at for at, one in enumerate(window) if name in one.names), None)
        if place is None:
            return False
        window = window[place + 1 :]
    return True


def compared(correlate: Correlate, amount: Any) -> bool:
    """Every comparison."""
    judge = {
        Comparison.GT: lambda value: amount > value,
        Comparison.GTE: lambda value: amount >= value,
        Comparison.LT: lambda value: amount < value,
        Comparison.LTE: lambda value: amount <= value,
        Comparison.EQ: lambda value: amount == value,
        Comparison.NEQ: lambda value: amount != value,
    }
    return all(judge[one.comparison](Fraction(one.value)) for one in correlate.threshold)


def trust_of(correlate: Correlate, window: list[Event]) -> int:
    """The highest trust such that the records of at least that trust would have been enough; else the lowest."""
    lowest = min(one.trust for one in window)
    if holds(correlate, []) or correlate.kind in (CorrelationKind.VALUE_AVG, CorrelationKind.VALUE_PERCENTILE):
        return lowest
    for trust in sorted({one.trust for one in window}, reverse=True):
        if enough(correlate, [one for one in window if one.trust >= trust]):
            return trust
    return lowest


def enough(correlate: Correlate, window: list[Event]) -> bool:
    """Whether what more events cannot make false is true."""
    if correlate.kind in (CorrelationKind.TEMPORAL, CorrelationKind.TEMPORAL_ORDERED) and not correlate.threshold:
        there = [
            Correlate(correlate.kind, correlate.of, (), 1, clauses=(type(clause)(clause.needs),))
            for clause in correlate.clauses
        ] or [correlate]
        return any(temporal(one, window) for one in there)
    lower = []
    for one in correlate.threshold:
        if one.comparison in (Comparison.GT, Comparison.GTE):
            lower.append(one)
        elif one.comparison is Comparison.EQ:
            lower.append(type(one)(Comparison.GTE, one.value))
        elif one.comparison is Comparison.NEQ and one.value == 0 and correlate.kind is not CorrelationKind.VALUE_SUM:
            lower.append(type(one)(Comparison.GT, 0))
    if not lower:
        return False
    return holds(
        Correlate(correlate.kind, correlate.of, (), 1, tuple(lower), correlate.fields, percentile=correlate.percentile),
        window,
    )
