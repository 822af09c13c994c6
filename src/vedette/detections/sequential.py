"""One correlation rule over one stretch, event by event: conditions of every kind, findings of other correlations.
Counterpart: `columnar` does the same for plain counts all at once; `correlate` runs both in order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop
from math import isfinite

import numpy as np

from vedette.detections.columnar import RuleRun
from vedette.detections.entries import Card, Counted, Entry, Fired
from vedette.detections.keying import key_codes
from vedette.detections.measured import ClosingWindow
from vedette.detections.stretch import Firing, Key, card_of, scalar
from vedette.model.batch import Int64
from vedette.model.events import Column, Value
from vedette.model.findings import key_text
from vedette.model.protocols import Counter
from vedette.model.reasons import DropReason

_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_DIGITS = 64
# What every store and every peer can hold as a whole number; beyond it a float is near enough.
_LARGEST = 2**63 - 1


@dataclass(slots=True)
class Event:
    """What a correlation takes in: a matched record, or a finding of another correlation at its firing record.

    place, due: see `Firing`. rank: among events of one place, records before findings. row: the matched record; -1
    where it is long gone, then `card` tells of it.
    """

    place: int
    due: int
    rank: tuple[int, str]
    key: Key
    entry: Entry
    row: int = -1
    card: Card | None = None
    trigger: bool = False


class EventRun(RuleRun):
    """One correlation rule, event by event.

    given: what the correlations it counts fired in this stretch. clock: int64[m], the engine's clock at each
    matched record; until: after the stretch.
    """

    def sequence(self, given: Sequence[Firing], clock: Int64, until: int, counter: Counter) -> list[Firing]:
        """Take the events of the stretch in order and judge the windows that close meanwhile; what fired."""
        self._clock = clock
        self._touched: dict[Key, int] = {}
        events = self._records(counter) + self._findings(given, counter)
        events.sort(key=lambda one: (one.place, one.due, one.rank))
        closing = self.plan.closing
        for event in events:
            if closing:
                self._close_before(self._moment(event))
            self._take(event, counter)
        if closing:
            self._close_before(until)
        for key, time in self._touched.items():
            window = self.state.windows.get(key)
            if window is not None and window.continued:
                self._settle(key, window.continued, time)
                window.continued = 0
        return self.firings

    # -------------------------------------------------------------------------------------- events

    def _records(self, counter: Counter) -> list[Event]:
        """The timely matched records of the rules counted, and those of the rule itself that ask what came before."""
        state, plan = self.state, self.plan
        found: dict[tuple[int, Key], tuple[Counted, int]] = {}
        dropped = 0
        for base in state.bases:
            rows = self._rows(base)
            if not len(rows):
                continue
            codes, keys = key_codes([self.matches.fields[name] for name in state.fields[base]], rows)
            values = self._values([self.matches.fields[name] for name in state.counted[base]], rows)
            for row, code, value in zip(rows.tolist(), codes.tolist(), values, strict=True):
                if code < 0:
                    continue
                measured = state.bits[base] if plan.temporal else measured_of(value, numbers=plan.numbers)
                if measured is None and state.counted[base]:
                    dropped += plan.numbers
                    continue
                # A record that matched several of the rules with one key is one event.
                before = found.get((row, keys[code]))
                if before is None:
                    found[row, keys[code]] = measured, base
                elif plan.temporal:
                    found[row, keys[code]] = int(before[0]) | state.bits[base], base  # type: ignore[arg-type]
        if dropped:
            counter.add("records_dropped", DropReason.NOT_A_NUMBER, dropped)
        events = [
            Event(2 * row + 1, 0, (0, ""), key, self.bare_entry(row)._replace(value=value), row)
            for (row, key), (value, _base) in found.items()
        ]
        if plan.preceding:
            rows = self._rows(state.index)
            codes, keys = key_codes([self.matches.fields[name] for name in state.fields[state.index]], rows)
            events += [
                # Judged before it is counted: it is not its own precedent.
                Event(2 * row + 1, 0, (-1, ""), keys[code], self.bare_entry(row), row, trigger=True)
                for row, code in zip(rows.tolist(), codes.tolist(), strict=True)
                if code >= 0
            ]
        return events

    def _rows(self, rule: int) -> Int64:
        hits = self.matches.hits.get(rule)
        if hits is None:
            return np.empty(0, np.int64)
        rows = hits.astype(np.int64)
        return rows[self.timely[rows]]

    def _values(self, columns: Sequence[Column], rows: Int64) -> list[tuple[Value, ...] | None]:
        """Per row the values of the counted fields, None where it lacks one."""
        parts = [column.codes[rows].tolist() for column in columns]
        if not parts:
            return [None] * len(rows)
        return [
            None if min(codes) < 0 else tuple(column.values[code] for column, code in zip(columns, codes, strict=True))
            for codes in zip(*parts, strict=True)
        ]

    def _findings(self, given: Sequence[Firing], counter: Counter) -> list[Event]:
        """Findings of other correlations with the fields of their keys."""
        state, plan = self.state, self.plan
        events = []
        for firing in given:
            names = state.fields[firing.rule]
            if any(firing.key.get(name) is None for name in names):
                continue
            values = [firing.key.get(name) for name in state.counted[firing.rule]]
            measured: Counted = state.bits[firing.rule] if plan.temporal else None
            if values:
                measured = None if None in values else measured_of(tuple(values), numbers=plan.numbers)
                if measured is None:
                    if plan.numbers:
                        counter.add("records_dropped", DropReason.NOT_A_NUMBER)
                    continue
            at = firing.entry
            if at is None:
                at = self.bare_entry(firing.index)
            entry = at._replace(repeat=1, trust=firing.fired.trust, value=measured)
            rank = (firing.rule + 1, key_text(firing.key))
            key = tuple(firing.key[name] for name in names)
            events.append(Event(*firing.order, rank, key, entry, firing.index, firing.card))
        return events

    # -------------------------------------------------------------------------------------- windows

    def _take(self, event: Event, counter: Counter) -> None:
        state, plan, entry = self.state, self.plan, event.entry
        if event.trigger and event.key not in state.windows:
            return  # nothing came before it, so it cannot fire and need not be remembered
        window = self._window(event.key)
        continued = window.continued
        state.newest = max(state.newest, entry.time)
        fired: Fired | None = None
        if isinstance(window, ClosingWindow):
            self._wait(window, event, counter)
        elif event.trigger:
            fired = window.trigger(plan, entry)
        elif plan.preceding:
            window.count(plan, entry)
        else:
            fired = window.add(plan, entry)
        if fired is not None:
            self._settle(event.key, continued, entry.time)
            self.firings.append(
                Firing(event.row, state.index, self.named(event.key), fired, event.card, entry, event.place, event.due)
            )
        elif window.continued:
            self._touched[event.key] = window.last
        if event.trigger:
            return
        state.seen += 1
        if state.seen % self._sweep_every == 0:
            self._sweep(state)

    def _moment(self, event: Event) -> int:
        """What the engine's clock shows when `event` comes."""
        return int(self._clock[event.place >> 1]) if event.place & 1 else event.due

    def _wait(self, window: ClosingWindow, event: Event, counter: Counter) -> None:
        """Begin a window; where the key has too many already the oldest is judged at once."""
        card, entry = event.card, event.entry
        opened = max(entry.time, self._moment(event))
        card = card_of(self.stretch, event.row, opened) if card is None else card._replace(opened=opened)
        first = window.entries[0].time if window.entries else None
        if not window.wait(entry, card):
            counter.add("records_dropped", DropReason.LATE)
            return
        while len(window.entries) > self.plan.keep:
            self._judge(event.key, window, event.place, event.due, entry.time, over=False)
        if window.entries and window.entries[0].time != first:
            self.state.expect(event.key, window)

    def _close_before(self, clock: int) -> None:
        """Judge every window whose time is over before the engine's clock shows `clock`."""
        due = self.state.due
        while due and due[0][0] < clock:
            moment, _text, beginning, key = heappop(due)
            window = self.state.windows.get(key)
            if not isinstance(window, ClosingWindow) or not window.entries or window.entries[0].time != beginning:
                continue
            if self.track:
                self.state.changed.add(key)
            passed = int(np.searchsorted(self._clock, moment, side="right"))
            self._judge(key, window, 2 * passed, moment, beginning + self.plan.timespan)
            if window.entries:
                self.state.expect(key, window, moment)

    def _judge(self, key: Key, window: ClosingWindow, place: int, due: int, moment: int, *, over: bool = True) -> None:
        fired, first, card = window.close(self.plan, over=over)
        if fired is not None:
            first = first._replace(time=moment)
            self.firings.append(Firing(-1, self.state.index, self.named(key), fired, card, first, place, due))
        if window.continued:
            self._touched[key] = window.last


def measured_of(values: tuple[Value, ...] | None, *, numbers: bool) -> Counted:
    """What a window measures of these values: a number (None where it is none), one scalar, or all of them."""
    if values is None:
        return None
    if numbers:
        return number_of(values[0])
    return scalar(values[0]) if len(values) == 1 else tuple(map(scalar, values))


def number_of(value: Value) -> int | float | None:
    """A number, or the number a text is; None for everything else."""
    if isinstance(value, bool) or value is None or isinstance(value, tuple):
        return None
    if isinstance(value, str):
        text = value.strip()
        if len(text) > _DIGITS or not _NUMBER.fullmatch(text):
            return None
        value = int(text) if text.lstrip("+-").isdigit() else float(text)
    if isinstance(value, int):
        return value if abs(value) <= _LARGEST else float(value)
    if not isfinite(value):
        return None
    return int(value) if value.is_integer() and abs(value) <= _LARGEST else value
