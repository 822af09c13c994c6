"""Matches in ingest order become findings: windows per key, columnar where records come in order.
Counterpart: `match` hands the matches in; `windows` says what a window means, one record at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import msgspec
import numpy as np

from vedette.detections.branch_state import origins_in
from vedette.detections.branches import Branches
from vedette.detections.columnar import LIGHT, RuleRun
from vedette.detections.gate import Gate
from vedette.detections.measured import ClosingWindow
from vedette.detections.plans import WindowPlan, bits_of
from vedette.detections.report import MakeEvidence, Reporter, plain_evidence
from vedette.detections.sequential import EventRun
from vedette.detections.stored import dump_window, load_window
from vedette.detections.stretch import Firing, Outcome, RuleState, Stretch, group_by
from vedette.detections.vouched import vouched
from vedette.detections.windows import KeyWindow
from vedette.detections.wire import no_matches
from vedette.model.batch import Bool, Int64, Origin, Trust
from vedette.model.clock import BEGINNING
from vedette.model.errors import RuleError, StateError
from vedette.model.events import Scalar
from vedette.model.findings import key_text
from vedette.model.protocols import Counter
from vedette.model.reasons import DropReason
from vedette.model.rules import Rule

LATENESS = 5_000_000
MAX_KEYS = 200_000

# Rows of the stored state that belong to no rule.
_HIGH, _ORDINALS, _CLOCK = "", "ordinals", "clock"
_LINES = "lines "


class Correlator:
    """Keeps every window. Same matches in the same order give the same findings, however they are cut.

    accept_forgeable: of a source name, whether the operator lets its forgeable records cause blocks. lateness:
    microseconds behind a source's highest event time after which a record is matched, not correlated.
    track: remember which windows changed, for `changes` at the commit point. light: up to so many records
    of a rule are walked one by one.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        *,
        counter: Counter,
        lateness: int = LATENESS,
        accept_forgeable: Callable[[str], bool] = lambda _source: False,
        max_keys: int = MAX_KEYS,
        evidence: MakeEvidence = plain_evidence,
        track: bool = False,
        light: int = LIGHT,
    ) -> None:
        self.rules = list(rules)
        self._counter = counter
        self._lateness = lateness
        self._accept = accept_forgeable
        self._max_keys = max_keys
        self._track = track
        self._light = light
        self._origins: dict[tuple[str, str, str], int] = {}
        self._origin_list: list[Origin] = []
        self._highs: dict[tuple[str, str], int] = {}
        self._clock = BEGINNING
        self._states = self._in_order(
            [self._state(index, rule) for index, rule in enumerate(self.rules) if rule.correlate is not None]
        )
        self._counted = {base for state in self._states for base in state.inner}
        self._closing = any(state.plan.closing for state in self._states)
        self._by_id = {state.rule.id: state for state in self._states}
        self._branches = Branches(self.rules, counter, max_keys=max_keys, track=track)
        self._reporter = Reporter(self.rules, self._replaced(), evidence)
        self._gate = Gate(self.rules, counter)

    def _state(self, index: int, rule: Rule) -> RuleState:
        correlate = rule.correlate
        assert correlate is not None
        bases: set[int] = set()
        for name in correlate.of:
            named = {at for at, other in enumerate(self.rules) if name == other.id or name in other.groups}
            if not named:
                raise RuleError(f"rule {rule.id}: no rule {name!r} to correlate", location=rule.origin)
            bases |= named
        fields, counted, bits = {}, {}, {}
        for at in [*bases, index]:
            base = self.rules[at]
            aliases = {alias: name for alias, rule_id, name in correlate.aliases if rule_id == base.id}
            fields[at] = tuple(aliases.get(name, name) for name in correlate.group_by)
            counted[at] = tuple(aliases.get(name, name) for name in correlate.fields)
            bits[at] = bits_of(correlate, (base.id, *base.groups))
            if at != index and base.correlate is not None:
                self._check_inner(rule, base, {*fields[at], *counted[at]})
        inner = {at for at in bases if self.rules[at].correlate is not None}
        plan = WindowPlan.of(rule, self._lateness)
        return RuleState(index, rule, plan, sorted(bases - inner), sorted(inner), fields, counted, bits)

    def _check_inner(self, rule: Rule, base: Rule, needed: set[str]) -> None:
        missing = sorted(needed - set(group_by(base)))
        if missing:
            raise RuleError(
                f"rule {rule.id}: findings of {base.id} have no {missing[0]!r}, only the fields of its key",
                location=rule.origin,
                hint=f"the key is {', '.join(group_by(base)) or 'empty'}",
            )

    def _in_order(self, states: list[RuleState]) -> list[RuleState]:
        """Each correlation after those it counts, else as they were; RuleError for one that counts itself."""
        left, done = {state.index: state for state in states}, set[int]()
        ordered: list[RuleState] = []
        while left:
            ready = [state for state in left.values() if done.issuperset(state.inner)]
            if not ready:
                rule = next(iter(left.values())).rule
                names = ", ".join(sorted(state.rule.id for state in left.values()))
                raise RuleError(f"rule {rule.id} counts itself, through {names}", location=rule.origin)
            ordered += ready
            done.update(state.index for state in ready)
            left = {index: state for index, state in left.items() if index not in done}
        return ordered

    def _replaced(self) -> dict[int, list[int]]:
        """Per correlated child the rules whose finding on a record its firing replaces.

        These are its parents and, where it stops, the siblings after it with all that are below them.
        """
        replaced: dict[int, list[int]] = {}
        for state in self._states:
            rule, parents = state.rule, set(state.rule.parents)
            gone = {at for at, other in enumerate(self.rules) if parents & {other.id, *other.groups}}
            if rule.stop:
                place = (-rule.order, state.index)
                families = {name for at in gone for name in (self.rules[at].id, *self.rules[at].groups)}
                after = {
                    at
                    for at, other in enumerate(self.rules)
                    if families & set(other.parents) and (-other.order, at) > place
                }
                gone |= after
                while after:
                    names = {name for at in after for name in (self.rules[at].id, *self.rules[at].groups)}
                    after = {at for at, other in enumerate(self.rules) if names & set(other.parents)} - gone
                    gone |= after
            replaced[state.index] = sorted(gone - {state.index})
        return replaced

    def process(self, stretch: Stretch) -> Outcome:
        """Take the next matches; the findings they make."""
        outcome = Outcome()
        origins = self._learn_origins(stretch)
        stretch, timely = self._placed(stretch)
        stretch = self._gate.through(stretch)
        clock = np.maximum(np.maximum.accumulate(stretch.matches.high), self._clock)
        self._clock = max(self._clock, *stretch.highs) if stretch.highs else self._clock
        if not len(stretch.matches.rows) and not self._closing:
            return outcome
        trust = self._effective_trust(stretch)
        fired: dict[int, list[Firing]] = {}
        firings: list[Firing] = []
        if self._branches:
            stretch, firings = self._branches.run(stretch, origins, self._origin_list, trust, timely)
        matched = stretch.matches.hits.keys()
        for state in self._states:
            if state.simple and matched.isdisjoint(state.looked_at):
                if state.index in self._counted:
                    fired[state.index] = []
                continue
            kind = RuleRun if state.simple else EventRun
            rule_run = kind(
                state,
                stretch,
                origins,
                trust,
                timely,
                outcome,
                track=self._track,
                light=self._light,
                sweep=self._sweep,
                sweep_every=max(self._max_keys // 8, 1),
            )
            if isinstance(rule_run, EventRun):
                given = [firing for base in state.inner for firing in fired[base]]
                found = rule_run.sequence(given, clock, self._clock, self._counter)
            else:
                found = rule_run.run()
                if state.blames:
                    # Told and answered as firings of their own; other correlations count the first one alone.
                    firings.extend(vouched(rule_run, found))
            if state.index in self._counted:
                fired[state.index] = found
            firings.extend(found)
        outcome.findings = self._reporter.report(stretch, firings, trust, self._origin_list)
        return outcome

    def advance(self, now: int) -> Outcome:
        """Let the engine's clock go on to `now` (microseconds) although no record came: windows close.

        For quiet times, when the wall clock is known to be ahead of all that is still to be read, and for the end
        of a replay with the highest time that was read.
        """
        if not self._closing or now <= self._clock:
            return Outcome()
        nothing = np.empty(0, dtype=np.int64)
        stretch = Stretch(no_matches(), [], nothing, [now], now, lambda _index: b"")
        return self.process(stretch)

    def _learn_origins(self, stretch: Stretch) -> Int64:
        codes = []
        for origin in stretch.origins:
            key = (origin.host_id, origin.source, origin.generation)
            code = self._origins.setdefault(key, len(self._origins))
            if code == len(self._origin_list):
                self._origin_list.append(origin)
            codes.append(code)
        return np.asarray(codes, dtype=np.int64)[stretch.codes]

    def _placed(self, stretch: Stretch) -> tuple[Stretch, Bool]:
        """Every record with a time for windows; bool[m]: not later than its source's highest minus lateness."""
        matches = stretch.matches
        prior = np.asarray(
            [self._highs.get((origin.host_id, origin.source), BEGINNING) for origin in stretch.origins], dtype=np.int64
        )
        high = np.maximum(matches.high, prior[stretch.codes]) if len(matches.rows) else matches.high
        untimed = matches.window == BEGINNING
        if untimed.any():
            # It happened with the latest before it; where there is none, before everything else.
            matches = replace(matches, window=np.where(untimed, np.maximum(high, 0), matches.window))
            stretch = replace(stretch, matches=matches)
        timely: Bool = (matches.time >= high - self._lateness) | (matches.window != matches.time)
        late = int(len(timely) - np.count_nonzero(timely))
        if late:
            self._counter.add("records_dropped", DropReason.LATE, late)
        for origin, highest in zip(stretch.origins, stretch.highs, strict=False):
            if highest > BEGINNING:
                source = (origin.host_id, origin.source)
                self._highs[source] = max(self._highs.get(source, highest), highest)
        return stretch, timely

    def _effective_trust(self, stretch: Stretch) -> Int64:
        trust = stretch.matches.trust.astype(np.int64)
        accepted = np.asarray([self._accept(origin.source) for origin in stretch.origins], dtype=np.bool_)
        lifted = accepted[stretch.codes] & (trust == int(Trust.FORGEABLE))
        return np.where(lifted, int(Trust.ATTESTED), trust)

    def _sweep(self, state: RuleState) -> None:
        """Forget windows that nothing can reach; past the limit the least filled and oldest go, counted."""
        windows = state.windows
        if len(windows) <= state.most:
            return
        floor = state.newest - state.plan.horizon
        gone = [key for key, window in windows.items() if window.newest < floor and not _waits(window)]
        state.evicted = {key: newest for key, newest in state.evicted.items() if newest >= floor}
        excess = len(windows) - len(gone) - self._max_keys * 3 // 4
        if len(windows) - len(gone) > self._max_keys:
            ended = set(gone)
            lasting = [(key, window) for key, window in windows.items() if key not in ended]
            # A flood of new keys must not push out a key that has been filling up. The order of `windows` is that
            # of the batches, so keys must not be told apart by it.
            lasting.sort(key=lambda one: (one[1].fired, len(one[1].entries), one[1].newest, str(one[0])))
            for key, window in lasting[:excess]:
                gone.append(key)
                if len(state.evicted) < self._max_keys:
                    state.evicted[key] = window.newest
                else:
                    state.forgotten = max(state.forgotten, window.newest)
            self._counter.add("records_dropped", DropReason.STATE_EVICTED, excess)
        state.doubtful = state.forgotten >= floor
        state.doubted.difference_update(gone)
        for key in gone:
            del windows[key]
        if self._track:
            state.changed.update(gone)
        state.swept_at = len(windows)

    def changes(self) -> dict[tuple[str, str], bytes | None]:
        """Per (rule id, key text) the state since the last call; None = forgotten."""
        out: dict[tuple[str, str], bytes | None] = {}
        names = [(one.host_id, one.source, one.generation) for one in self._origin_list]
        for state in self._states:
            for key in state.changed:
                window = state.windows.get(key)
                name = key_text(dict(zip(group_by(state.rule), key, strict=True)))
                out[state.rule.id, name] = None if window is None else dump_window(window, names)
            state.changed.clear()
        out |= self._branches.state.changes(names)
        for (host_id, source), high in self._highs.items():
            out[_HIGH, key_text({"host.id": host_id, "source": source})] = str(high).encode()
        if self._closing:
            out[_HIGH, _CLOCK] = str(self._clock).encode()
        ordinals = self._reporter.ordinals(self.highest - 2 * self._lateness)
        for rule_id, data in self._gate.changes().items():
            out[_HIGH, _LINES + rule_id] = data
        out[_HIGH, _ORDINALS] = msgspec.json.encode(ordinals)
        return out

    @property
    def highest(self) -> int:
        """The highest event time of any source, microseconds; 0 before the first record."""
        return max(self._highs.values(), default=0)

    def set_back(self, now: int) -> None:
        """The clock was set back to `now`: forget what was seen after it, else every record until that time is late."""
        latest = now + self._lateness
        self._highs = {source: min(high, latest) for source, high in self._highs.items()}
        self._clock = min(self._clock, latest)
        self._branches.state.set_back(latest)
        for state in self._states:
            for key in [key for key, window in state.windows.items() if window.newest > latest]:
                del state.windows[key]
                state.doubted.discard(key)
                state.changed.add(key)
            state.newest = min(state.newest, latest)
            state.due.clear()
            for key, window in state.windows.items():
                if isinstance(window, ClosingWindow) and window.entries:
                    window.cards = [card._replace(opened=min(card.opened, latest)) for card in window.cards]
                    state.expect(key, window)

    def restore(self, stored: Iterable[tuple[str, str, bytes]]) -> None:
        """Take up the state that `changes` gave; state of rules that are no longer loaded is ignored.

        StateError where it cannot be read.
        """
        try:
            for rule_id, name, data in stored:
                if rule_id != _HIGH:
                    self._restore_window(rule_id, dict(msgspec.json.decode(name)), data)
                elif name == _ORDINALS:
                    self._reporter.restore(msgspec.json.decode(data))
                elif name == _CLOCK:
                    self._clock = int(data)
                elif name.startswith(_LINES):
                    self._gate.restore(name.removeprefix(_LINES), data)
                else:
                    pairs = dict(msgspec.json.decode(name))
                    self._highs[str(pairs["host.id"]), str(pairs["source"])] = int(data)
        except (msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
            raise StateError(f"correlation state is damaged: {error}") from None

    def _restore_window(self, rule_id: str, pairs: dict[str, Scalar], data: bytes) -> None:
        if self._branches.state.knows(rule_id):
            for host_id, source, generation in origins_in([data]):
                if self._origins.setdefault((host_id, source, generation), len(self._origins)) == len(
                    self._origin_list
                ):
                    self._origin_list.append(Origin(host_id, source, generation))
            self._branches.state.restore(rule_id, pairs, data, self._origins)
            return
        state = self._by_id.get(rule_id)
        if state is None or set(pairs) != set(group_by(state.rule)):
            return
        window = load_window(data, state.plan, self._origins)
        for host_id, source, generation in list(self._origins)[len(self._origin_list) :]:
            self._origin_list.append(Origin(host_id, source, generation))
        key = tuple(pairs[name] for name in group_by(state.rule))
        state.windows[key] = window
        if window.vouched is not None:
            state.doubted.add(key)
        if isinstance(window, ClosingWindow) and window.entries:
            state.expect(key, window)
        state.newest = max(state.newest, window.newest)


def _waits(window: KeyWindow) -> bool:
    """Whether it holds what has not been judged yet, however long ago that was."""
    return isinstance(window, ClosingWindow) and bool(window.entries)
