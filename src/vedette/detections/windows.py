"""The sliding window of one key, one record at a time: what a correlation means, spelled out.
Counterpart: `correlate` runs it, and takes a columnar short cut wherever records come in order."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from vedette.model.clock import BEGINNING
from vedette.model.errors import RuleError, StateError
from vedette.model.events import Scalar
from vedette.model.rules import Comparison, CorrelationKind, Firing, Rule

# A window holds at most this many records; only counts of distinct values can ever need more.
WINDOW_LIMIT = 4096

_STATE_VERSION = 1


Tally = dict[Scalar, int]


class Entry(NamedTuple):
    """One record in a window. origin: index into the correlator's origins; check: of its bytes (`match.checks`)."""

    time: int
    repeat: int
    trust: int
    origin: int
    position: int
    check: int
    value: Scalar


@dataclass(frozen=True, slots=True)
class Fired:
    """A window when its condition became true. ordinal: equal records of the firing one's source before it."""

    entries: list[Entry]
    count: int
    trust: int
    ordinal: int
    inexact: bool


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """What a rule's correlation asks of each window; derived once from the rule.

    timespan, lateness: microseconds. threshold: the least count that makes the condition true.
    keep: how many records a window holds at most.
    """

    timespan: int
    lateness: int
    threshold: int
    distinct: bool
    firing: Firing
    preceding: bool
    keep: int

    @classmethod
    def of(cls, rule: Rule, lateness: int) -> WindowPlan:
        """The plan of a correlation rule; RuleError for comparisons that only an empty window could decide."""
        correlate = rule.correlate
        if correlate is None:
            raise ValueError(f"rule {rule.id} correlates nothing")
        least = 0
        for bound in correlate.threshold:
            if bound.comparison is Comparison.GTE:
                least = max(least, bound.value)
            elif bound.comparison is Comparison.GT:
                least = max(least, bound.value + 1)
            else:
                raise RuleError(
                    f"rule {rule.id}: the condition {bound.comparison.value} {bound.value} is not supported yet",
                    location=rule.origin,
                    hint="use gte or gt",
                )
        if least < 1:
            raise RuleError(f"rule {rule.id}: the condition would hold for nothing at all", location=rule.origin)
        distinct = correlate.kind is CorrelationKind.VALUE_COUNT
        if distinct and not correlate.field:
            raise RuleError(f"rule {rule.id}: value_count needs a field", location=rule.origin)
        if least > WINDOW_LIMIT and distinct:
            raise RuleError(f"rule {rule.id}: at most {WINDOW_LIMIT} distinct values", location=rule.origin)
        return cls(
            timespan=correlate.timespan,
            lateness=lateness,
            threshold=least,
            distinct=distinct,
            firing=correlate.firing,
            preceding=correlate.preceding,
            # Twice the threshold, so that a late record still finds the ones before it.
            keep=WINDOW_LIMIT if distinct else 2 * least,
        )

    @property
    def horizon(self) -> int:
        """How far behind the newest record of its key a record still counts."""
        return self.timespan + self.lateness


@dataclass(slots=True)
class KeyWindow:
    """State of one key: its records in time order while it has not fired, only the last time afterwards.

    tally: of each value the repeats among the entries, None until somebody asks; change entries by `hold` alone.
    """

    entries: list[Entry] = field(default_factory=list)
    fired: bool = False
    last: int = BEGINNING
    newest: int = BEGINNING
    inexact: bool = False
    continued: int = 0
    _tally: Tally | None = None

    def hold(self, entries: list[Entry]) -> None:
        """Take `entries`, in time order, for those held so far."""
        self.entries = entries
        self._tally = None

    def add(self, plan: WindowPlan, entry: Entry) -> Fired | None:
        """Count `entry`; the window if that makes the condition true, `continued` grows if it was already."""
        if self._advance(plan, entry.time):
            self.continued += entry.repeat
            return None
        place = self._insert(plan, entry)
        if place is None:
            return None
        found = self._first_full_window(plan, place)
        if found is None:
            return None
        window = self.entries[found[0] : found[1]]
        fired = self._fire(window, entry, needed_trust(plan, window))
        self._spend(plan)
        return fired

    def count(self, plan: WindowPlan, entry: Entry) -> None:
        """Count `entry` towards a later trigger (preceding correlations)."""
        self.newest = max(self.newest, entry.time)
        self._insert(plan, entry)

    def trigger(self, plan: WindowPlan, entry: Entry) -> Fired | None:
        """Judge the records before `entry`, which is not one of them itself."""
        if self._advance(plan, entry.time):
            self.continued += entry.repeat
            return None
        if not self._may_hold(plan):
            return None
        before = [one for one in self.entries if entry.time - plan.timespan <= one.time <= entry.time]
        if _amount(plan, tally_of(before)) < plan.threshold:
            return None
        fired = self._fire([*before, entry], entry, min(needed_trust(plan, before), entry.trust))
        self._spend(plan)
        return fired

    def _advance(self, plan: WindowPlan, time: int) -> bool:
        """Move the key's clock to `time`; True while a firing still lasts."""
        lasts = self.fired and time - self.last <= plan.timespan
        self.fired = lasts
        self.last = max(self.last, time)
        self.newest = max(self.newest, time)
        return lasts

    def _insert(self, plan: WindowPlan, entry: Entry) -> int | None:
        """Put `entry` at its time and drop what no window can reach; its place, None if it is itself too old."""
        floor = self.newest - plan.horizon
        if entry.time < floor:
            return None
        entries = self.entries
        tally = self._counted()
        entries.insert(bisect_right(entries, entry.time, key=_time), entry)
        _add(tally, entry)
        drop = 0
        while entries[drop].time < floor:
            drop += 1
        if len(entries) - drop > plan.keep:
            drop = len(entries) - plan.keep
        if drop:
            for old in entries[:drop]:
                _remove(tally, old)
            del entries[:drop]
        place = bisect_right(entries, entry.time, key=_time) - 1
        return place if place >= 0 and entries[place] is entry else None

    def _first_full_window(self, plan: WindowPlan, place: int) -> tuple[int, int] | None:
        """The earliest window over the record at `place` that satisfies the condition."""
        if not self._may_hold(plan):
            return None
        entries = self.entries
        time = entries[place].time
        start = bisect_left(entries, time - plan.timespan, hi=place, key=_time)
        tally = tally_of(entries[start:place])
        for end in range(place, len(entries)):
            if entries[end].time - time > plan.timespan:
                return None
            _add(tally, entries[end])
            # Records of one moment come into the window together.
            if end + 1 < len(entries) and entries[end + 1].time == entries[end].time:
                continue
            floor = entries[end].time - plan.timespan
            while entries[start].time < floor:
                _remove(tally, entries[start])
                start += 1
            if _amount(plan, tally) >= plan.threshold:
                return start, end + 1
        return None

    def _counted(self) -> Tally:
        if self._tally is None:
            self._tally = tally_of(self.entries)
        return self._tally

    def _may_hold(self, plan: WindowPlan) -> bool:
        """Whether all entries together are enough: where not, no window over them needs to be looked at."""
        return _amount(plan, self._counted()) >= plan.threshold

    def _fire(self, window: list[Entry], entry: Entry, trust: int) -> Fired:
        inexact, self.inexact = self.inexact, False
        return Fired(
            entries=window,
            count=sum(one.repeat for one in window),
            trust=trust,
            ordinal=ordinal_of(window, entry),
            inexact=inexact,
        )

    def _spend(self, plan: WindowPlan) -> None:
        self.hold([])
        self.fired = plan.firing is Firing.SIGMA
        self.continued = 0

    def dump(self, origins: list[tuple[str, str, str]]) -> bytes:
        """The state as versioned bytes that mean the same after a restart."""
        return msgspec.json.encode(
            [
                "key-window",
                _STATE_VERSION,
                self.fired,
                self.last,
                self.newest,
                self.inexact,
                [[*entry[:3], *origins[entry.origin], *entry[4:]] for entry in self.entries],
            ]
        )


_STATE_DECODER = msgspec.json.Decoder(
    tuple[str, int, bool, int, int, bool, list[tuple[int, int, int, str, str, str, int, int, Scalar]]]
)


def load_window(state: bytes, origin_index: dict[tuple[str, str, str], int]) -> KeyWindow:
    """A window from `dump`'s bytes; origins not seen yet are added. StateError where it cannot be read."""
    try:
        kind, version, fired, last, newest, inexact, rows = _STATE_DECODER.decode(state)
    except msgspec.MsgspecError as error:
        raise StateError(f"correlation state is damaged: {error}") from None
    if kind != "key-window" or version > _STATE_VERSION:
        raise StateError(f"correlation state is {kind} version {version}", hint="written by a newer version")
    entries = [
        Entry(row[0], row[1], row[2], origin_index.setdefault(row[3:6], len(origin_index)), *row[6:]) for row in rows
    ]
    return KeyWindow(entries=entries, fired=fired, last=last, newest=newest, inexact=inexact)


def _time(entry: Entry) -> int:
    return entry.time


def tally_of(entries: Iterable[Entry]) -> Tally:
    """Of each value the repeats among `entries`; correlations that count events have the one value None."""
    tally: Tally = {}
    for entry in entries:
        _add(tally, entry)
    return tally


def _add(tally: Tally, entry: Entry) -> None:
    tally[entry.value] = tally.get(entry.value, 0) + entry.repeat


def _remove(tally: Tally, entry: Entry) -> None:
    left = tally[entry.value] - entry.repeat
    if left:
        tally[entry.value] = left
    else:
        del tally[entry.value]


def _amount(plan: WindowPlan, tally: Tally) -> int:
    return len(tally) if plan.distinct else tally.get(None, 0)


def needed_trust(plan: WindowPlan, entries: list[Entry]) -> int:
    """The lowest trust among the records the threshold needs, best ones first."""
    if plan.distinct:
        best: dict[Scalar, int] = {}
        for entry in entries:
            best[entry.value] = max(best.get(entry.value, 0), entry.trust)
        return sorted(best.values(), reverse=True)[plan.threshold - 1]
    missing = plan.threshold
    for entry in sorted(entries, key=lambda one: -one.trust):
        missing -= entry.repeat
        if missing <= 0:
            return entry.trust
    return 0


def ordinal_of(window: list[Entry], entry: Entry) -> int:
    """How many records before `entry` in its source have the same bytes; equal ones share the moment."""
    equal = 0
    for one in window:
        if one is entry:
            break
        if one.time == entry.time and one.check == entry.check and one.origin == entry.origin:
            equal += 1
    return equal
