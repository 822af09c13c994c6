"""One correlation rule over one stretch of matches: all keys at once where their records come in order.
Counterpart: `windows` is the meaning, one record at a time; a property test holds this to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat as repeated

import numpy as np

from vedette.detections.entries import Entry, Fired, ordinal_of
from vedette.detections.keying import ascending, group_arrays, group_lists, key_codes, scalars, single_keys
from vedette.detections.matches import FEW
from vedette.detections.measured import window_of
from vedette.detections.sorted_records import Source
from vedette.detections.stretch import Firing, Key, Outcome, RuleState, Stretch, group_by, scalar
from vedette.detections.windows import KeyWindow, needed_trust
from vedette.model import rules as model_rules
from vedette.model.batch import Bool, Int64
from vedette.model.clock import BEGINNING
from vedette.model.events import Column, Scalar
from vedette.model.findings import Continuation

LIGHT = 16
"""Up to so many records of a rule are walked one by one: columns cost a millisecond to set up."""

Keyed = tuple[Int64, Int64, Sequence[Key]]
"""Rows, the code of each one's key, and the keys by code."""


class RuleRun:
    """One correlation rule over one stretch. track: remember which windows changed; light: see `LIGHT`.

    sweep: called after every `sweep_every` records of the rule while it has more windows than it need have.
    """

    def __init__(
        self,
        state: RuleState,
        stretch: Stretch,
        origins: Int64,
        trust: Int64,
        timely: Bool,
        outcome: Outcome,
        *,
        track: bool,
        light: int,
        sweep: Callable[[RuleState], None],
        sweep_every: int,
    ) -> None:
        self.state = state
        self._light = light
        self._sweep = sweep
        self._sweep_every = sweep_every
        self.plan = state.plan
        self.stretch = stretch
        self.matches = stretch.matches
        self.origins = origins
        self.trust = trust
        self.timely = timely
        self.outcome = outcome
        self.track = track
        self.firings: list[Firing] = []
        self._texts: list[Scalar] | None = None

    def run(self) -> list[Firing]:
        rows, codes, keys = self.keyed(self.state.bases)
        triggers: Keyed = (rows[:0], codes[:0], [])
        if self.plan.preceding:
            triggers = self.keyed([self.state.index])
        if not len(rows) and not len(triggers[0]):
            return []
        while (room := self._room(len(rows), len(keys))) <= len(rows):
            # All of one record, which may have several keys.
            place = int(np.searchsorted(rows, rows[room - 1], side="right"))
            early = int(np.searchsorted(triggers[0], rows[room - 1], side="right"))
            self._walk(rows[:place], codes[:place], keys, (triggers[0][:early], triggers[1][:early], triggers[2]))
            self._sweep(self.state)
            rows, codes = rows[place:], codes[place:]
            triggers = triggers[0][early:], triggers[1][early:], triggers[2]
        self._walk(rows, codes, keys, triggers)
        return self.firings

    def _room(self, records: int, keys: int) -> int:
        """How many of the next `records` come before a sweep, whose place must not depend on how input is cut."""
        state = self.state
        if len(state.windows) + keys <= state.most:
            return records + 1
        return self._sweep_every - state.seen % self._sweep_every

    def _walk(self, rows: Int64, codes: Int64, keys: Sequence[Key], triggers: Keyed) -> None:
        if not len(rows) and not len(triggers[0]):
            return
        state, window = self.state, self.matches.window
        state.seen += len(rows)
        state.newest = max(state.newest, int(window[rows].max(initial=0)), int(window[triggers[0]].max(initial=0)))
        if self.plan.preceding:
            self._preceding(rows, codes, keys, triggers)
        elif self.plan.firing is model_rules.Firing.SIGMA and len(rows) > self._light:
            self._columnar(rows, codes, keys)
        else:
            for key, own in group_lists(rows, codes, keys):
                self._one_by_one(key, own)

    # -------------------------------------------------------------------------------------- keys

    def keyed(self, rules: Sequence[int]) -> Keyed:
        """The timely matched records of `rules` in ingest order, each with the code of its key."""
        known: dict[Key, int] = {}
        parts: list[tuple[Int64, Int64]] = []
        present = [rule for rule in rules if len(self.matches.hits.get(rule, ()))]
        if sum(len(self.matches.hits[rule]) for rule in present) <= FEW:
            return self._keyed_few(present)
        for rule in present:
            rows = self.matches.hits[rule].astype(np.int64)
            rows = rows[self.timely[rows]]
            columns = [self.matches.fields[name] for name in self.state.fields[rule]]
            alone = single_keys(columns) if len(present) == 1 else None
            codes, keys = (columns[0].codes[rows].astype(np.int64), alone) if alone else key_codes(columns, rows)
            if self.plan.distinct and not (self.plan.preceding and rule == self.state.index):
                counted = self.counted()
                codes = np.where(counted.codes[rows] >= 0, codes, -1)
            if alone:
                kept = codes >= 0
                return rows[kept], codes[kept], alone
            renumber = np.asarray([known.setdefault(key, len(known)) for key in keys] + [-1], dtype=np.int64)
            codes = renumber[codes]
            kept = codes >= 0
            parts.append((rows[kept], codes[kept]))
        if not parts:
            return np.empty(0, np.int64), np.empty(0, np.int64), []
        if len(parts) == 1:
            return *parts[0], list(known)
        rows = np.concatenate([part[0] for part in parts])
        codes = np.concatenate([part[1] for part in parts])
        # A record that matched two of the rules with one key counts once.
        order = np.lexsort((codes, rows))
        rows, codes = rows[order], codes[order]
        first = np.ones(len(rows), dtype=np.bool_)
        first[1:] = (rows[1:] != rows[:-1]) | (codes[1:] != codes[:-1])
        return rows[first], codes[first], list(known)

    def _keyed_few(self, rules: Sequence[int]) -> Keyed:
        """The same without setting up arrays."""
        known: dict[Key, int] = {}
        pairs: set[tuple[int, int]] = set()
        for rule in rules:
            columns = [self.matches.fields[name] for name in self.state.fields[rule]]
            asked = columns
            if self.plan.distinct and not (self.plan.preceding and rule == self.state.index):
                asked = [*columns, self.counted()]
            for at in self.matches.hits[rule].tolist():
                if self.timely[at] and all(column.codes.item(at) >= 0 for column in asked):
                    key = tuple(scalar(column.value(at)) for column in columns)
                    pairs.add((at, known.setdefault(key, len(known))))
        both = sorted(pairs)
        rows = np.array([at for at, _ in both], dtype=np.int64)
        return rows, np.array([code for _, code in both], dtype=np.int64), list(known)

    def counted(self) -> Column:
        correlate = self.state.rule.correlate
        assert correlate is not None
        return self.matches.fields[correlate.field]

    # -------------------------------------------------------------------------------------- one by one

    def _window(self, key: Key) -> KeyWindow:
        window = self.state.windows.get(key)
        if window is None:
            evicted = self.state.evicted.pop(key, None) is not None
            window = self.state.windows[key] = window_of(self.plan, inexact=evicted or self.state.doubtful)
        if self.track:
            self.state.changed.add(key)
        return window

    def _windows(self, keys: Sequence[Key], codes: Sequence[int]) -> dict[int, KeyWindow]:
        """The windows of many keys by code."""
        known = self.state.windows
        found = {}
        for code in codes:
            key = keys[code]
            window = known.get(key)
            found[code] = self._window(key) if window is None or self.track else window
        return found

    def entry(self, at: int) -> Entry:
        """The entry of a matched record, with the value that is counted."""
        entry = self.bare_entry(at)
        return entry._replace(value=scalar(self.counted().value(at))) if self.plan.distinct else entry

    def bare_entry(self, at: int) -> Entry:
        """The entry of a matched record, without its value."""
        matches = self.matches
        return Entry(
            int(matches.window[at]),
            int(matches.repeat[at]),
            int(self.trust[at]),
            int(self.origins[at]),
            int(matches.position[at]),
            int(matches.check[at]),
            None,
        )

    def entries(self, rows: Int64) -> list[Entry]:
        """The entries of some matched records, made together: taking numbers out of arrays singly costs most."""
        matches = self.matches
        values: Iterable[Scalar] = repeated(None)
        if self.plan.distinct:
            texts = self.texts()
            values = [texts[code] for code in self.counted().codes[rows].tolist()]
        columns = zip(
            matches.window[rows].tolist(),
            matches.repeat[rows].tolist(),
            self.trust[rows].tolist(),
            self.origins[rows].tolist(),
            matches.position[rows].tolist(),
            matches.check[rows].tolist(),
            values,
            strict=False,
        )
        return list(map(tuple.__new__, repeated(Entry), columns))

    def texts(self) -> list[Scalar]:
        """The counted field's values by code; the last one, which code -1 finds, is None."""
        if self._texts is None:
            self._texts = [*scalars(self.counted().values), None]
        return self._texts

    def _one_by_one(self, key: Key, rows: Iterable[int]) -> None:
        window = self._window(key)
        for at in rows:
            continued = window.continued
            fired = window.add(self.plan, self.entry(at))
            if fired is not None:
                self._settle(key, continued, self._last_time(at))
                self.firings.append(Firing(at, self.state.index, self.named(key), fired))
        self._settle(key, window.continued, window.last)
        window.continued = 0

    def _last_time(self, at: int) -> int:
        return int(self.matches.window[at])

    def _settle(self, key: Key, continued: int, time: int) -> None:
        if continued and not self.state.rule.silent:
            self.outcome.continuations.append(Continuation(self.state.rule.id, self.named(key), continued, time))

    def named(self, key: Key) -> dict[str, Scalar]:
        """A key by the names of its fields."""
        return dict(zip(group_by(self.state.rule), key, strict=True))

    def _preceding(self, rows: Int64, codes: Int64, keys: Sequence[Key], triggers: Keyed) -> None:
        """Keys with a trigger are walked record by record; for the others the newest records are kept."""
        trigger_rows = dict(group_lists(*triggers))
        quiet: list[tuple[KeyWindow, Int64]] = []
        for key, own in group_arrays(rows, codes, keys):
            waiting = trigger_rows.pop(key, [])
            window = self._window(key)
            if not waiting:
                quiet.append((window, own))
                continue
            # At equal places the record is judged before it is counted: it is not its own precedent.
            for at, is_count in sorted([(at, 0) for at in waiting] + [(at, 1) for at in own.tolist()]):
                self._precede(key, window, at, is_count=bool(is_count))
            self._settle(key, window.continued, window.last)
            window.continued = 0
        self._keep_newest(quiet)
        for key, waiting in trigger_rows.items():
            if key not in self.state.windows:
                continue  # nothing came before it, so it cannot fire and need not be remembered
            window = self._window(key)
            for at in waiting:
                self._precede(key, window, at, is_count=False)
            self._settle(key, window.continued, window.last)
            window.continued = 0

    def _precede(self, key: Key, window: KeyWindow, at: int, *, is_count: bool) -> None:
        if is_count:
            window.count(self.plan, self.entry(at))
            return
        fired = window.trigger(self.plan, self.entry(at))
        if fired is not None:
            self.firings.append(Firing(at, self.state.index, self.named(key), fired))

    def _keep_newest(self, quiet: Sequence[tuple[KeyWindow, Int64]]) -> None:
        """Of keys without a trigger the newest records, in one go where they come in time order."""
        if not quiet:
            return
        if sum(len(own) for _, own in quiet) <= FEW:
            for window, own in quiet:
                for row in own.tolist():
                    window.count(self.plan, self.entry(row))
            return
        keep = self.plan.keep
        times = self.matches.window
        everything = np.concatenate([own for _, own in quiet])
        fallen = np.flatnonzero(times[everything[1:]] < times[everything[:-1]]) + 1
        begins = np.cumsum([0, *(len(own) for _, own in quiet)])
        # A fall between two keys is none; a key with one inside is walked record by record.
        inside = fallen[begins[np.searchsorted(begins, fallen, side="right") - 1] != fallen]
        disordered = set((np.searchsorted(begins, inside, side="right") - 1).tolist())
        first = times[everything[begins[:-1]]].tolist()
        last = times[everything[begins[1:] - 1]].tolist()
        made = self.entries(np.concatenate([own[-keep:] for _, own in quiet]))
        at = 0
        for number, (window, own) in enumerate(quiet):
            count = min(len(own), keep)
            new, at = made[at : at + count], at + count
            if number in disordered or first[number] < window.newest:
                for row in own.tolist():
                    window.count(self.plan, self.entry(row))
                continue
            window.newest = last[number]
            floor = window.newest - self.plan.horizon
            entries = (window.entries + new)[-keep:]
            if entries[0].time < floor:
                entries = [entry for entry in entries if entry.time >= floor]
            window.hold(entries)

    # -------------------------------------------------------------------------------------- columnar

    def _columnar(self, rows: Int64, codes: Int64, keys: Sequence[Key]) -> None:
        """All keys at once where each key's records come in time order; the rest one by one."""
        plan = self.plan
        present = np.flatnonzero(np.bincount(codes, minlength=len(keys)))
        windows = self._windows(keys, present.tolist())
        own = windows.values()
        carried = [entry for window in own for entry in window.entries]
        carried_codes = np.repeat(present, [len(window.entries) for window in own])
        newest = np.full(len(keys), BEGINNING, dtype=np.int64)
        newest[present] = [window.newest for window in own]
        last = np.full(len(keys), BEGINNING, dtype=np.int64)
        last[present] = [window.last if window.fired else BEGINNING for window in own]
        c = len(carried)
        code_all = np.concatenate([carried_codes, codes])
        time_all = np.concatenate(
            [np.asarray([entry.time for entry in carried], dtype=np.int64), self.matches.window[rows]]
        )
        order = np.argsort(code_all, kind="stable")
        code, time = code_all[order], time_all[order]
        is_new = order >= c
        same = np.zeros(len(code), dtype=np.bool_)
        same[1:] = code[1:] == code[:-1]
        step = np.zeros(len(code), dtype=np.int64)
        step[1:] = time[1:] - time[:-1]
        # Records out of time order, or behind the key's clock, need the careful way.
        first_new = is_new & ~(same & np.concatenate([[False], is_new[:-1]]))
        disordered = (same & (step < 0)) | (first_new & (time < newest[code]))
        span = int(time.max() - time.min()) + plan.timespan + 1
        if span > 2**62 // (len(keys) + 1):
            disordered[:] = True
        if disordered.any():
            apart = np.zeros(len(keys), dtype=np.bool_)
            apart[code[disordered]] = True
            for key, own_rows in group_lists(rows[apart[codes]], codes[apart[codes]], keys):
                self._one_by_one(key, own_rows)
            kept = ~apart[code]
            order, code, time, same, step = order[kept], code[kept], time[kept], same[kept], step[kept]
            if not len(code):
                return
        # An episode is a run of one key without a gap longer than the timespan.
        begins = ~same | (step > plan.timespan)
        lasting = ~same & (time - last[code] <= plan.timespan)
        episode = np.cumsum(begins) - 1
        starts = np.flatnonzero(begins)
        already = lasting[starts]
        source = Source(self, carried, rows, order, c)
        scaled: Int64 = code * span + (time - int(time.min()))
        lowest = np.searchsorted(scaled, scaled - plan.timespan)
        repeat = source.repeats()
        total = np.concatenate([[0], np.cumsum(repeat)])
        counted = total[1:] - total[lowest]
        full = (counted >= plan.threshold) & ~already[episode]
        if plan.distinct:
            at, low = self._first_distinct(full, lowest, episode, starts, source, time)
        else:
            hits = np.flatnonzero(full)
            firsts = np.ones(len(hits), dtype=np.bool_)
            firsts[1:] = episode[hits[1:]] != episode[hits[:-1]]
            at = hits[firsts]
            low = lowest[at]
        fired_at = np.full(len(starts), -1, dtype=np.int64)
        for place, lower in zip(at.tolist(), low.tolist(), strict=True):
            fired_at[episode[place]] = place
            entries = [source.entry(index) for index in range(lower, place + 1)]
            key = keys[int(code[place])]
            window = windows[int(code[place])]
            inexact, window.inexact = window.inexact, False
            fired = Fired(
                entries=entries,
                count=int(total[place + 1] - total[lower]),
                trust=needed_trust(plan, entries),
                ordinal=ordinal_of(entries, entries[-1]),
                inexact=inexact,
            )
            self.firings.append(Firing(source.row(place), self.state.index, self.named(key), fired))
        self._close(keys, windows, code, time, scaled, span, starts, already, fired_at, total, source)

    def _first_distinct(
        self, full: Bool, lowest: Int64, episode: Int64, starts: Int64, source: Source, time: Int64
    ) -> tuple[Int64, Int64]:
        """Per episode the first record at which enough distinct values are in the window, and the window's start."""
        plan = self.plan
        at: list[int] = []
        low: list[int] = []
        if full.any():
            values = source.values()
            width = int(values.max()) + 1
            pairs = ascending(episode * width + values)
            enough = np.bincount(pairs // width, minlength=len(starts)) >= plan.threshold
            hopeful = np.flatnonzero(full & enough[episode])
            firsts = np.ones(len(hopeful), dtype=np.bool_)
            firsts[1:] = episode[hopeful[1:]] != episode[hopeful[:-1]]
            # Enough values need as many records: before the first full window and after the last there is nothing.
            begins = np.maximum(lowest[hopeful[firsts]], starts[episode[hopeful[firsts]]])
            ends = hopeful[np.append(firsts[1:], True)] + 1 if len(hopeful) else hopeful
            for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
                seen: dict[int, int] = {}
                lower = begin
                times, own = time[begin:end].tolist(), values[begin:end].tolist()
                for place, (moment, value) in enumerate(zip(times, own, strict=True)):
                    seen[value] = seen.get(value, 0) + 1
                    floor = moment - plan.timespan
                    while times[lower - begin] < floor or begin + place - lower >= plan.keep:
                        old = own[lower - begin]
                        seen[old] -= 1
                        if not seen[old]:
                            del seen[old]
                        lower += 1
                    if len(seen) >= plan.threshold:
                        at.append(begin + place)
                        low.append(lower)
                        break
        return np.asarray(at, dtype=np.int64), np.asarray(low, dtype=np.int64)

    def _close(
        self,
        keys: Sequence[Key],
        windows: Mapping[int, KeyWindow],
        code: Int64,
        time: Int64,
        scaled: Int64,
        span: int,
        starts: Int64,
        already: Bool,
        fired_at: Int64,
        total: Int64,
        source: Source,
    ) -> None:
        """Count what continued, and leave each key as the record-by-record way would have left it."""
        plan = self.plan
        ends = np.append(starts[1:], len(code))
        lasting = already | (fired_at >= 0)
        after = np.where(already, starts, fired_at + 1)
        for one in np.flatnonzero(lasting & (after < ends)).tolist():
            continued = int(total[ends[one]] - total[after[one]])
            self._settle(keys[int(code[starts[one]])], continued, int(time[ends[one] - 1]))
        final = np.ones(len(starts), dtype=np.bool_)
        final[:-1] = code[starts[1:]] != code[starts[:-1]]
        spent = np.maximum.accumulate(np.where(lasting, ends, 0))
        # Per key, whose last episode ends at `end`: what is newer than the horizon and came after what fired.
        episodes = np.flatnonzero(final)
        end = ends[episodes]
        newest = time[end - 1]
        begin = np.concatenate([[0], end[:-1]])
        own = code[starts[episodes]]
        floor = np.searchsorted(scaled, own * span + (newest - plan.horizon - int(time.min())))
        low = np.maximum.reduce([begin, spent[episodes], end - plan.keep, floor])
        low = np.where(lasting[episodes], end, low)
        kept = source.entries(low, end)
        at = 0
        left: list[list[int]] = [own.tolist(), newest.tolist(), lasting[episodes].tolist(), (end - low).tolist()]
        for one, moment, fired, count in zip(*left, strict=True):
            window = windows[one]
            # A carried window's clock may be ahead of the records left in it.
            if moment > window.last:
                window.last = moment
            if window.last > window.newest:
                window.newest = window.last
            window.fired = bool(fired)
            window.hold(kept[at : at + count])
            at += count
