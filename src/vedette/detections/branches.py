"""Which rule of a decision tree gets each record, in ingest order: what must have come before, what is new.
Counterpart: `trees` says which rules records reach; `branch_state` remembers; `correlate` runs it before it counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from vedette.detections.branch_state import BranchState, Seen
from vedette.detections.entries import Entry, Fired
from vedette.detections.stretch import Firing, Stretch, scalar
from vedette.detections.tree import children_of
from vedette.detections.trees import branch_roots
from vedette.model.batch import Bool, Int32, Int64, Origin
from vedette.model.events import Scalar
from vedette.model.protocols import Counter
from vedette.model.rules import Rule

_MOST_PROGRAMS = 50_000
_ADDRESS = "source.ip"
_SHARED = {_ADDRESS: "ossec.data.srcip", "user.name": "ossec.data.dstuser"}


class _Step(NamedTuple):
    """A rule that a record reaches, and those below it."""

    rule: int
    certain: bool
    passes: bool
    below: tuple[_Step, ...]


@dataclass(frozen=True, slots=True)
class _Program:
    """What is to be done for records that reach the same rules. winner: -1 none, -2 that is for the steps to say."""

    steps: tuple[_Step, ...]
    winner: int


class Branches:
    """The decision trees among `rules`, with what they remember."""

    def __init__(self, rules: Sequence[Rule], counter: Counter, *, max_keys: int, track: bool) -> None:
        self._rules = rules
        self._index = [index for index, rule in enumerate(rules) if rule.branch is not None]
        self._children = children_of(rules) if self._index else {}
        self._roots = branch_roots(rules)
        self._programs: dict[int, _Program] = {}
        rng = np.random.Generator(np.random.PCG64(20))
        self._marks = rng.integers(1, 2**63, size=len(rules), dtype=np.int64)
        by_id = {rule.id: index for index, rule in enumerate(rules)}
        watchers: dict[int, list[int]] = {}
        for index in self._index:
            branch = rules[index].branch
            if branch is not None and branch.precedent is not None:
                for name in branch.precedent.of:
                    if name in by_id:
                        watchers.setdefault(by_id[name], []).append(index)
        self.state = BranchState(rules, watchers, counter, max_keys=max_keys, track=track)
        self._watched = watchers.keys()

    def __bool__(self) -> bool:
        return bool(self._index)

    def run(
        self, stretch: Stretch, origins: Int64, origin_list: Sequence[Origin], trust: Int64, timely: Bool
    ) -> tuple[Stretch, list[Firing]]:
        """The stretch with each record given to one rule of a tree at most, and the firings of rules that count."""
        hits = stretch.matches.hits
        own = [index for index in self._index if index in hits]
        if not own:
            return stretch, []
        signature = np.zeros(len(stretch.matches.rows), dtype=np.int64)
        for index in own:
            signature[hits[index]] ^= self._marks[index]
        found, first, inverse = np.unique(signature, return_index=True, return_inverse=True)
        programs = [
            self._program(code, row, own, hits) for code, row in zip(found.tolist(), first.tolist(), strict=True)
        ]
        winners = np.array([program.winner for program in programs], dtype=np.int64)[inverse.ravel()]
        run = _Run(self, stretch, origins, origin_list, trust, timely)
        sequential = np.flatnonzero(winners == -2)
        if len(sequential):
            codes = inverse.ravel()[sequential].tolist()
            for row, code in zip(sequential.tolist(), codes, strict=True):
                winners[row] = run.decide(row, programs[code].steps)
        given = {index: rows for index, rows in hits.items() if self._rules[index].branch is None}
        order = np.argsort(winners, kind="stable")
        sorted_winners = winners[order]
        begin = int(np.searchsorted(sorted_winners, 0))
        values, starts = np.unique(sorted_winners[begin:], return_index=True)
        bounds = [*starts.tolist(), len(sorted_winners) - begin]
        for place, winner in enumerate(values.tolist()):
            rows = order[begin + bounds[place] : begin + bounds[place + 1]]
            given[winner] = rows.astype(np.int32)
        matches = replace(stretch.matches, hits=dict(sorted(given.items())))
        return replace(stretch, matches=matches), run.firings

    # ------------------------------------------------------------------------------------------------- programs

    def _program(self, code: int, row: int, own: Sequence[int], hits: Mapping[int, Int32]) -> _Program:
        program = self._programs.get(code)
        if program is None:
            reached = {index for index in own if _has(hits[index], row)}
            steps = self._steps(self._roots, reached, {})
            program = _Program(steps, self._stateless(steps, set()))
            if len(self._programs) >= _MOST_PROGRAMS:
                self._programs.clear()
            self._programs[code] = program
        return program

    def _steps(
        self, siblings: Sequence[int], reached: set[int], known: dict[int, tuple[_Step, ...]]
    ) -> tuple[_Step, ...]:
        steps = []
        for index in siblings:
            if index not in reached:
                continue
            branch = self._rules[index].branch
            assert branch is not None
            if index not in known:
                known[index] = ()
                known[index] = self._steps(self._children.get(index, ()), reached, known)
            steps.append(_Step(index, branch.certain, branch.passes, known[index]))
        return tuple(steps)

    def _stateless(self, steps: Sequence[_Step], passed: set[int]) -> int:
        """The winner, where nothing about it hangs on other records; -1 for none, -2 where something does.

        passed: rules that are known to have none, however many ways lead to them.
        """
        for step in steps:
            if step.rule in passed:
                continue
            if not step.certain:
                return -2
            below = self._stateless(step.below, passed)
            if below != -1:
                return below
            if step.passes:
                passed.add(step.rule)
                continue
            branch = self._rules[step.rule].branch
            assert branch is not None
            remembers = branch.quiet or branch.ignores or branch.ignored or step.rule in self._watched
            return -2 if remembers and branch.weight else step.rule
        return -1


class _Run:
    """One stretch, record by record."""

    def __init__(
        self,
        branches: Branches,
        stretch: Stretch,
        origins: Int64,
        origin_list: Sequence[Origin],
        trust: Int64,
        timely: Bool,
    ) -> None:
        self._rules, self._state = branches._rules, branches.state
        self._stretch, self._matches = stretch, stretch.matches
        self._origins, self._origin_list = origins, origin_list
        self._trust, self._timely = trust, timely
        self.firings: list[Firing] = []
        self._columns: dict[tuple[str, ...], list[tuple[Scalar, ...]]] = {}
        self._evidence: dict[int, list[Seen]] = {}

    def decide(self, row: int, steps: Sequence[_Step]) -> int:
        """The rule whose hit the record is; -1 where it is none's, or one's whose firing is told by itself."""
        self._evidence.clear()
        winner = self._walk(row, steps, set())
        if winner < 0:
            return -1
        rule = self._rules[winner]
        branch = rule.branch
        assert branch is not None
        if not branch.weight or not self._timely.item(row):
            return winner
        host = self._origin_list[int(self._origins[row])].host_id
        time = int(self._matches.window[row])
        if branch.quiet and not self._state.may_speak(winner, host, time):
            return -1
        if branch.ignored and self._state.is_ignored(host, branch.ignored, self._values(row, branch.ignored)):
            return -1
        if branch.ignores:
            self._state.ignore(winner, host, branch.ignores, self._values(row, branch.ignores))
        weights = [one.weight for index in self._evidence if (one := self._rules[index].branch) is not None]
        seen = Seen(self._entry(row, time), self._text(row, _ADDRESS), max(weights, default=-1))
        for watcher in self._state.watchers.get(winner, ()):
            precedent = self._rules[watcher].branch.precedent  # type: ignore[union-attr]
            assert precedent is not None
            key = self._values(row, precedent.same)
            if None not in key:
                others = self._values(row, precedent.different)
                self._state.remember(watcher, (host, *key), seen, others)
        if winner in self._evidence:
            self._fire(row, winner, self._evidence[winner], seen)
            return -1
        return winner

    def _walk(self, row: int, steps: Sequence[_Step], failed: set[int]) -> int:
        for step in steps:
            if step.rule in failed or not (step.certain or self._holds(row, step.rule)):
                failed.add(step.rule)
                continue
            below = self._walk(row, step.below, failed) if step.below else -1
            if below >= 0:
                return below
            if not step.passes:
                return step.rule
            failed.add(step.rule)
        return -1

    def _holds(self, row: int, index: int) -> bool:
        branch = self._rules[index].branch
        assert branch is not None
        if not self._timely.item(row):
            return False
        host = self._origin_list[int(self._origins[row])].host_id
        if branch.first:
            value = self._value(row, branch.first)
            if value is None or not self._state.is_new(index, host, str(value)):
                return False
        if branch.changed and not self._state.has_changed(index, host, str(self._value(row, branch.changed))):
            return False
        if branch.precedent is None:
            return True
        precedent = branch.precedent
        key = self._values(row, precedent.same)
        if None in key:
            return False
        others = self._values(row, precedent.different)
        time = int(self._matches.window[row])
        evidence = self._state.before(index, (host, *key), others, time)
        if evidence is None:
            return False
        self._evidence[index] = evidence
        return True

    # -------------------------------------------------------------------------------------------------- records

    def _value(self, row: int, name: str) -> Scalar:
        return self._keys((name,))[row][0]

    def _keys(self, names: tuple[str, ...]) -> list[tuple[Scalar, ...]]:
        """Per record the values of these fields, None where it has none."""
        known = self._columns.get(names)
        if known is None:
            n = len(self._matches.rows)
            listed = []
            for name in names:
                column = self._matches.fields.get(name)
                if column is None:
                    listed.append([None] * n)
                    continue
                # Code -1 finds the last one: absent.
                values = [*map(scalar, column.values), None]
                listed.append([values[code] for code in column.codes.tolist()])
            known = self._columns[names] = list(zip(*listed, strict=True)) if names else [()] * n
        return known

    def _values(self, row: int, names: tuple[str, ...]) -> tuple[Scalar, ...]:
        return self._keys(names)[row]

    def _text(self, row: int, name: str) -> str:
        value = self._value(row, name)
        return "" if value is None else str(value)

    def _entry(self, row: int, time: int) -> Entry:
        matches = self._matches
        return Entry(
            time,
            int(matches.repeat[row]),
            int(self._trust[row]),
            int(self._origins[row]),
            int(matches.position[row]),
            int(matches.check[row]),
            None,
        )

    def _fire(self, row: int, index: int, before: Sequence[Seen], last: Seen) -> None:
        rule = self._rules[index]
        assert rule.branch is not None
        assert rule.branch.precedent is not None
        key: dict[str, Scalar] = {}
        # Whom it names must be one for all that it rests on.
        for name, theirs in _SHARED.items():
            value = self._value(row, name)
            shared = theirs in rule.branch.precedent.same
            if name == _ADDRESS:
                shared = shared and all(seen.address == last.address for seen in before)
            if shared and value is not None:
                key[name] = value
                break
        entries = [*(seen.entry for seen in before), last.entry]
        fired = Fired(entries, sum(entry.repeat for entry in entries), min(entry.trust for entry in entries), 0, False)
        self.firings.append(Firing(row, index, key, fired, entry=None))


def _has(rows: Int32, row: int) -> bool:
    place = int(np.searchsorted(rows, row))
    return place < len(rows) and int(rows[place]) == row
