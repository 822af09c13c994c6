"""The sliding window of one key that counts up to a threshold, one record at a time: what that means, spelled out.
Counterpart: `columnar` is the short cut for records in order; `measured` has the windows of all other conditions."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field

from vedette.detections.entries import Counted, Entry, Fired, ordinal_of, time_of
from vedette.detections.plans import WindowPlan
from vedette.model.clock import BEGINNING
from vedette.model.rules import Firing

Tally = dict[Counted, int]


@dataclass(slots=True)
class KeyWindow:
    """State of one key: its records in time order while it has not fired, only the last time afterwards.

    newest: the highest time of a record of this key; last: of one that was judged. tally: of each value the repeats
    among the entries, None until somebody asks; change entries by `hold` alone. vouched: while a firing lasts that
    rests on records nobody vouches for, the window of those that are vouched for.
    """

    entries: list[Entry] = field(default_factory=list)
    fired: bool = False
    last: int = BEGINNING
    newest: int = BEGINNING
    inexact: bool = False
    continued: int = 0
    vouched: KeyWindow | None = None
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
        entries.insert(bisect_right(entries, entry.time, key=time_of), entry)
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
        place = bisect_right(entries, entry.time, key=time_of) - 1
        return place if place >= 0 and entries[place] is entry else None

    def _first_full_window(self, plan: WindowPlan, place: int) -> tuple[int, int] | None:
        """The earliest window over the record at `place` that satisfies the condition."""
        if not self._may_hold(plan):
            return None
        entries = self.entries
        time = entries[place].time
        start = bisect_left(entries, time - plan.timespan, hi=place, key=time_of)
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
        best: dict[Counted, int] = {}
        for entry in entries:
            best[entry.value] = max(best.get(entry.value, 0), entry.trust)
        return sorted(best.values(), reverse=True)[plan.threshold - 1]
    missing = plan.threshold
    for entry in sorted(entries, key=lambda one: -one.trust):
        missing -= entry.repeat
        if missing <= 0:
            return entry.trust
    return 0
