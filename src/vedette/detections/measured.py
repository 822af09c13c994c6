"""Windows of every other condition: judged with each event, or, where absence can make it true, when they close.
Counterpart: `measures` say what is in a window and whether the condition holds; `sequential` hands the events in."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field

from vedette.detections.entries import Card, Entry, Fired, ordinal_of, time_of
from vedette.detections.measures import Measure, holds_over, lowest_needed, measure_of
from vedette.detections.plans import WindowPlan
from vedette.detections.windows import KeyWindow
from vedette.model.clock import BEGINNING
from vedette.model.rules import Firing


@dataclass(slots=True)
class MeasuredWindow(KeyWindow):
    """A key whose condition is judged with each event.

    _measure: of the entries from _low on, which are the window that ends with the newest of them; None until
    somebody asks.
    """

    _measure: Measure | None = None
    _low: int = 0

    def hold(self, entries: list[Entry]) -> None:
        """Take `entries`, in time order, for those held so far."""
        self.entries = entries
        self._measure, self._low = None, 0

    def add(self, plan: WindowPlan, entry: Entry) -> Fired | None:
        """Take `entry`; the earliest window over it that makes the condition true, `continued` grows if it was."""
        if self._advance(plan, entry.time):
            self.continued += entry.repeat
            return None
        if entry.time < self.newest - plan.horizon:
            return None
        if not self.entries or entry.time >= self.entries[-1].time:
            window = self._append(plan, entry)
        else:
            window = self._insert_late(plan, entry)
        if not window:
            return None
        floor = window[-1].time - plan.timespan
        inexact, self.inexact = self.inexact, False
        fired = Fired(
            entries=window,
            count=sum(one.repeat for one in window),
            trust=lowest_needed(plan, window, floor),
            ordinal=ordinal_of(window, entry),
            inexact=inexact,
        )
        self.hold([])
        self.fired = plan.firing is Firing.SIGMA
        self.continued = 0
        return fired

    def _append(self, plan: WindowPlan, entry: Entry) -> list[Entry]:
        """The window that ends with `entry`, the newest, if the condition is true of it."""
        self.entries.append(entry)
        self._trim(plan)
        measure = self._measure
        if measure is None:
            measure = self._measure = measure_of(plan)
            for one in self.entries:
                measure.add(one)
            self._low = 0
        else:
            measure.add(entry)
        floor = entry.time - plan.timespan
        low = self._low
        while self.entries[low].time < floor:
            measure.remove(self.entries[low])
            low += 1
        self._low = low
        return self.entries[low:] if measure.holds(floor) else []

    def _insert_late(self, plan: WindowPlan, entry: Entry) -> list[Entry]:
        """The earliest window over `entry`, which came after newer ones, of which the condition is true."""
        self.entries.insert(bisect_right(self.entries, entry.time, key=time_of), entry)
        self._measure, self._low = None, 0
        self._trim(plan)
        entries = self.entries
        place = bisect_right(entries, entry.time, key=time_of) - 1
        if place < 0 or entries[place] is not entry:
            return []
        start = bisect_left(entries, entry.time - plan.timespan, key=time_of)
        measure = measure_of(plan)
        for one in entries[start:place]:
            measure.add(one)
        for end in range(place, len(entries)):
            moment = entries[end].time
            if moment - entry.time > plan.timespan:
                break
            measure.add(entries[end])
            # Records of one moment come into the window together.
            if end + 1 < len(entries) and entries[end + 1].time == moment:
                continue
            floor = moment - plan.timespan
            while entries[start].time < floor:
                measure.remove(entries[start])
                start += 1
            if measure.holds(floor):
                return entries[start : end + 1]
        return []

    def _trim(self, plan: WindowPlan) -> None:
        """Drop what no window can reach, and of too many entries those that matter least."""
        entries, floor = self.entries, self.newest - plan.horizon
        drop = 0
        while entries[drop].time < floor:
            drop += 1
        if len(entries) - drop <= plan.keep:
            if drop:
                self._forget(drop)
            return
        if not plan.temporal:
            self._forget(len(entries) - plan.keep)
            self.inexact |= plan.numbers
            return
        # A flood of one rule's matches must not push out the single match of another.
        kept = without_runs(entries[drop:], max((len(clause.needs) for clause in plan.clauses), default=1))
        if len(kept) > plan.keep * 3 // 4:
            kept = kept[-(plan.keep * 3 // 4) :]
            self.inexact = True
        self.hold(kept)

    def _forget(self, drop: int) -> None:
        if self._measure is not None:
            for one in self.entries[self._low : drop]:
                self._measure.remove(one)
        self._low = max(self._low - drop, 0)
        del self.entries[:drop]


def without_runs(entries: list[Entry], most: int) -> list[Entry]:
    """Of entries that say the same one after the other only the newest `most`; more of them change no verdict."""
    kept: list[Entry] = []
    run = 0
    for one in reversed(entries):
        run = run + 1 if kept and kept[-1].value == one.value else 1
        if run <= most:
            kept.append(one)
    kept.reverse()
    return kept


@dataclass(slots=True)
class ClosingWindow(KeyWindow):
    """A key whose condition is judged when a window closes: each event begins one, one timespan long.

    cards[i]: what a finding at entries[i] would say. judged: the beginning of the last window judged; what comes
    later with a time not after it reaches no window.
    """

    cards: list[Card] = field(default_factory=list)
    judged: int = BEGINNING

    def wait(self, entry: Entry, card: Card) -> bool:
        """Take `entry`; false where its window has been judged already."""
        self.newest = max(self.newest, entry.time)
        if entry.time <= self.judged:
            return False
        place = bisect_right(self.entries, entry.time, key=time_of)
        self.entries.insert(place, entry)
        self.cards.insert(place, card)
        return True

    def due(self, plan: WindowPlan) -> int:
        """When the engine's clock has passed this, the first window may be judged: late records have come too."""
        return max(self.entries[0].time, self.cards[0].opened) + plan.horizon

    def close(self, plan: WindowPlan, *, over: bool = True) -> tuple[Fired | None, Entry, Card]:
        """Judge the window the first entry begins; that entry and its card, which a finding is about.

        Where no event followed the first one within the timespan, the empty window after it is judged too. over:
        the window has closed; if not, it is judged because the key has more entries than it may.
        """
        first, card = self.entries[0], self.cards[0]
        end = first.time + plan.timespan
        window = self.entries[: bisect_right(self.entries, end, key=time_of)]
        begun = bisect_right(window, first.time, key=time_of) if over else 1
        lasting = self.fired and first.time - self.last <= plan.timespan
        self.last = first.time
        self.fired = False
        fired: Fired | None = None
        if holds_over(plan, window, first.time):
            fired = self._judged(plan, window, lasting, sum(one.repeat for one in window))
            if lasting:
                self.continued += sum(one.repeat for one in window[:begun])
        if over and len(window) == begun and plan.empty and not self.fired and fired is None:
            fired = self._judged(plan, window, False, 0)
        del self.entries[:begun], self.cards[:begun]
        if not self.entries or self.entries[0].time > first.time:
            self.judged = first.time
        return fired, first, card

    def _judged(self, plan: WindowPlan, window: list[Entry], lasting: bool, count: int) -> Fired | None:
        self.fired = plan.firing is Firing.SIGMA
        if lasting:
            return None
        inexact, self.inexact = self.inexact, False
        trust = lowest_needed(plan, window, window[0].time)
        return Fired(entries=window, count=count, trust=trust, ordinal=0, inexact=inexact)


def window_of(plan: WindowPlan, *, inexact: bool = False) -> KeyWindow:
    """An empty window for the plan."""
    made = KeyWindow if plan.quick else ClosingWindow if plan.closing else MeasuredWindow
    return made(inexact=inexact)
