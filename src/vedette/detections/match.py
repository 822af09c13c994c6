"""Whole batches against all rules: which records match which rule, as row sets.
Counterpart: parsers fill the tables it reads; `correlate` takes the matches in ingest order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as attribute
from pathlib import Path

import numpy as np

from vedette.detections.atoms import Atom
from vedette.detections.clauses import Clause, beside, clause_of
from vedette.detections.conditions import Condition, compile_condition
from vedette.detections.judge import UNKNOWN, Judge
from vedette.detections.leaves import Leaves
from vedette.detections.matches import Matches, checks, narrow
from vedette.detections.prefilter import Prefilter
from vedette.detections.scan import FieldScan
from vedette.detections.tree import children_of, looks_at_records
from vedette.model.batch import Batch, Int64, RecordFormat, Trust
from vedette.model.clock import BEGINNING
from vedette.model.errors import RuleError
from vedette.model.events import Column, RecordKind, Table
from vedette.model.protocols import Parser
from vedette.model.rules import LogSource, Raw, Rule, Test, tests_of

# What every finding says besides its key.
OUTPUT_FIELDS = ("host.name", "source.ip", "user.name")

# Up to so many rows a condition is asked row by row.
_FEW = 12
# How many combinations of kinds are remembered with what is to be done for them.
_PLANS = 512


@dataclass(slots=True)
class _Wanted:
    """The atoms looked for in one field, and whose they are. postings: per atom (leaf, whether it decides)."""

    atoms: list[Atom] = attribute(default_factory=list)
    places: dict[tuple[str, bool, bool, bool], int] = attribute(default_factory=dict)
    postings: list[list[tuple[int, bool]]] = attribute(default_factory=list)

    def add(self, atom: Atom, leaf: int) -> None:
        """Look for `atom` on behalf of `leaf`."""
        key = (atom.text, atom.at_start, atom.at_end, atom.pattern)
        place = self.places.get(key)
        if place is None:
            place = self.places[key] = len(self.atoms)
            self.atoms.append(atom)
            self.postings.append([])
        self.postings[place].append((leaf, atom.decides))


@dataclass(frozen=True, slots=True)
class _Plan:
    """What records of some kinds need. fields: to be scanned; rules: that cover any; unfound: of these without clause.

    keywords: whether any of them looks for keywords.
    """

    fields: tuple[str, ...]
    rules: frozenset[int]
    unfound: tuple[int, ...]
    keywords: bool


class Matcher:
    """Compiled rules over parsed batches; pure, so that workers may each have one.

    skew_limit: microseconds by which event time and `event.created` may differ before windows use the
    latter; 0 switches the check off (replay). cache: a folder to keep automata in. RuleError names the
    rule's place where a test cannot be used.
    """

    def __init__(
        self, rules: Sequence[Rule], parser: Parser, *, skew_limit: int = 0, cache: Path | None = None
    ) -> None:
        self.rules = list(rules)
        self._parser = parser
        self._skew_limit = skew_limit
        self._cache = cache
        self._undecided = 0
        self.leaves = Leaves()
        self._conditions: list[Condition | None] = [self._compiled(rule) for rule in self.rules]
        self._children = children_of(self.rules)
        self._roots = [index for index, rule in enumerate(self.rules) if looks_at_records(rule) and not rule.parents]
        self._clauses: dict[int, Clause | None] = {
            index: clause_of(self.rules[index].when, self.leaves) for index in self._roots
        }
        self._wanted: dict[str, _Wanted] = {}
        self._fields_of: dict[int, frozenset[str]] = {}
        self._rules_of: dict[int, list[int]] = {}
        self._found: set[int] = set()
        self._keywords = _Wanted()
        self._keyword_leaves: set[int] = set()
        for index, clause in self._clauses.items():
            self._look_for(index, clause)
        self._scans = {name: FieldScan(wanted.atoms) for name, wanted in self._wanted.items()}
        self._keyword_scan = FieldScan(self._keywords.atoms)
        self._prefilters: dict[bool, Prefilter] = {}
        self._by_source: dict[LogSource, list[int]] = {}
        for index in self._roots:
            self._by_source.setdefault(self.rules[index].logsource, []).append(index)
        self._plans: dict[frozenset[RecordKind], _Plan] = {}
        self._users = needed_fields(self.rules)
        self.logsources = log_sources(self.rules)

    def _compiled(self, rule: Rule) -> Condition | None:
        try:
            for leaf in tests_of(rule.when):
                self.leaves.add(leaf)
        except RuleError as error:
            raise RuleError(f"rule {rule.id}: {error.message}", location=rule.origin) from None
        return compile_condition(rule.when, self.leaves) if looks_at_records(rule) else None

    def _look_for(self, index: int, clause: Clause | None) -> None:
        fields = set()
        for number in clause.leaves if clause else ():
            self._find(number)
            self._rules_of.setdefault(number, []).append(index)
            if isinstance(leaf := self.leaves.leaves[number], Test):
                fields.add(leaf.field)
        for number in beside(self.rules[index].when, clause, self.leaves) if clause else ():
            # In a field nothing else asks for, finding costs more than asking.
            if isinstance(leaf := self.leaves.leaves[number], Test) and leaf.field in self._wanted:
                self._find(number)
        self._fields_of[index] = frozenset(fields)

    def _find(self, number: int) -> None:
        """Have a leaf looked for."""
        if number in self._found:
            return
        self._found.add(number)
        leaf = self.leaves.leaves[number]
        if isinstance(leaf, Raw):
            wanted = self._keywords
            self._keyword_leaves.add(number)
        else:
            wanted = self._wanted.setdefault(leaf.field, _Wanted())
        for atom in self.leaves.atoms(number) or ():
            wanted.add(atom, number)

    # ------------------------------------------------------------------------------------------------ one batch

    def clause(self, index: int) -> Clause | None:
        """What is looked for on behalf of rule `index`; None where it looks at every record, or is no root."""
        return self._clauses.get(index)

    def judge(self, batch: Batch) -> Judge:
        """Parse `batch` and make every leaf ready to be asked."""
        return Judge(self.leaves, self._found, self._parser.parse(batch))

    def prepare(self) -> None:
        """Make every automaton now and not when a field is first scanned."""
        for scan in (*self._scans.values(), self._keyword_scan):
            scan.prepare(self._cache)

    def candidates(self, judge: Judge) -> dict[int, Int64]:
        """The rules without parents that may match, with the rows that are looked at for each."""
        if not len(judge.table):
            return {}
        return dict(self._candidates(judge, self._plan(judge.table.kinds.kinds)))

    def condition(self, index: int) -> Condition | None:
        """The condition of rule `index`; None where it judges no records."""
        return self._conditions[index]

    def match(self, batch: Batch) -> Matches:
        """Parse `batch` and judge every rule on it."""
        judge = self.judge(batch)
        table = judge.table
        hit_rows: dict[int, Int64] = {}
        if len(table):
            plan = self._plan(table.kinds.kinds)
            for index, rows in self._candidates(judge, plan):
                held = self._held(judge, index, rows)
                if len(held):
                    self._descend(judge, index, held, hit_rows)
        matches = self._collect(table, hit_rows)
        table.close()
        return matches

    def _plan(self, kinds: Sequence[RecordKind]) -> _Plan:
        key = frozenset(kinds)
        plan = self._plans.get(key)
        if plan is None:
            rules = [
                index
                for source, indexes in self._by_source.items()
                if any(map(source.covers, key))
                for index in indexes
            ]
            fields = frozenset[str]().union(*(self._fields_of[index] for index in rules))
            found = {index for index in rules if self._clauses[index] is not None}
            keywords = any(
                leaf in self._keyword_leaves and not found.isdisjoint(owners) for leaf, owners in self._rules_of.items()
            )
            if len(self._plans) >= _PLANS:
                self._plans.clear()
            plan = self._plans[key] = _Plan(
                tuple(sorted(fields)),
                frozenset(rules),
                tuple(index for index in rules if index not in found),
                keywords,
            )
        return plan

    def _candidates(self, judge: Judge, plan: _Plan) -> Iterable[tuple[int, Int64]]:
        """The rules that may match, with the rows to look at, in load order."""
        pieces: dict[int, list[Int64]] = {}
        for name in plan.fields:
            self._search(judge, name, plan, pieces)
        if plan.keywords:
            self._search_keywords(judge, plan, pieces)
        for index in plan.unfound:
            pieces[index] = [np.arange(len(judge.table), dtype=np.int64)]
        for index in sorted(pieces):
            found = pieces[index]
            rows = found[0] if len(found) == 1 else np.unique(np.concatenate(found))
            covered = judge.covered(self.rules[index].logsource)
            if covered is not None:
                rows = rows[covered[rows]]
            if len(rows):
                yield index, rows

    def _search(self, judge: Judge, name: str, plan: _Plan, pieces: dict[int, list[Int64]]) -> None:
        column = judge.table.column(name)
        if not len(column.values):
            return
        scan = self._scans[name]
        scan.prepare(self._cache)
        found, odd = scan.find(column.values)
        judge.scanned.add(name)
        for leaf, codes in self._hit_leaves(judge, self._wanted[name].postings, found, odd).items():
            owners = self._rules_of.get(leaf)
            if owners is None:
                continue
            rows = judge.rows_of(name, codes)
            for index in owners:
                if index in plan.rules:
                    pieces.setdefault(index, []).append(rows)

    @staticmethod
    def _hit_leaves(
        judge: Judge,
        postings: Sequence[Sequence[tuple[int, bool]]],
        found: Mapping[int, list[int]],
        odd: set[int],
    ) -> dict[int, list[int]]:
        """Write down which leaves hold for which codes, or may; gives the codes of each, without repeats."""
        hits: dict[int, list[int]] = {}
        for atom, codes in found.items():
            for leaf, decides in postings[atom]:
                verdicts = judge.searched(leaf).verdicts
                of = hits.setdefault(leaf, [])
                for code in codes:
                    verdict = verdicts[code]
                    if verdict == 0:
                        of.append(code)
                    if verdict != 1:
                        verdicts[code] = 1 if decides and code not in odd else UNKNOWN
        return hits

    def _search_keywords(self, judge: Judge, plan: _Plan, pieces: dict[int, list[Int64]]) -> None:
        table = judge.table
        hits: dict[int, list[int]] = {}
        unread: Sequence[int] = range(len(table))
        json = table.batch.format is RecordFormat.JSON
        if json or not table.strings_given:
            # What is written as it is can be looked for in the block, all records at once.
            proposed, rows = self._prefilter(json).candidates(table.batch)
            for leaf, found in proposed.items():
                hits[leaf] = found.tolist()
                verdicts = judge.searched(leaf).verdicts
                for row in hits[leaf]:
                    verdicts[row] = UNKNOWN
            unread = rows.tolist()
        if unread:
            self._keyword_scan.prepare(self._cache)
            texts = table.strings(unread) if table.strings_given else [tuple(judge.texts(row)) for row in unread]
            places = {atom: [unread[at] for at in held] for atom, held in self._keyword_scan.find_in(texts).items()}
            for leaf, more in self._hit_leaves(judge, self._keywords.postings, places, set()).items():
                hits.setdefault(leaf, []).extend(more)
        for leaf, held in hits.items():
            owners = self._rules_of.get(leaf)
            if owners is None or not held:
                continue
            found_rows = np.array(sorted(set(held)), dtype=np.int64)
            for index in owners:
                if index in plan.rules:
                    pieces.setdefault(index, []).append(found_rows)

    def _prefilter(self, json: bool) -> Prefilter:
        prefilter = self._prefilters.get(json)
        if prefilter is None:
            keywords = {leaf: self.leaves.atoms(leaf) or () for leaf in self._keyword_leaves}
            prefilter = self._prefilters[json] = Prefilter(keywords, json=json)
        return prefilter

    def _held(self, judge: Judge, index: int, rows: Int64) -> Int64:
        """Those of `rows` for which the condition of rule `index` holds."""
        condition = self._conditions[index]
        assert condition is not None
        if len(rows) <= _FEW:
            return np.array([row for row in rows.tolist() if condition.one(judge, row)], dtype=np.int64)
        return rows[condition.many(judge, rows)]

    def _descend(self, judge: Judge, index: int, rows: Int64, hit_rows: dict[int, Int64]) -> None:
        """Give each record to the deepest rule that wins it; a correlated child only proposes (see correlate)."""
        children = self._children.get(index)
        rest = rows
        if children:
            open_rows = rows
            for child in children:
                rule = self.rules[child]
                covered = judge.covered(rule.logsource)
                won = self._held(judge, child, open_rows if covered is None else open_rows[covered[open_rows]])
                if not len(won):
                    continue
                self._descend(judge, child, won, hit_rows)
                if rule.correlate is not None:
                    continue
                rest = np.setdiff1d(rest, won, assume_unique=True)
                if rule.stop:
                    open_rows = np.setdiff1d(open_rows, won, assume_unique=True)
        if len(rest):
            earlier = hit_rows.get(index)
            hit_rows[index] = rest if earlier is None else np.union1d(earlier, rest)

    def _collect(self, table: Table, hit_rows: dict[int, Int64]) -> Matches:
        batch = table.batch
        n = len(batch)
        marked = np.zeros(n, dtype=np.bool_)
        for found in hit_rows.values():
            marked[found] = True
        rows = np.flatnonzero(marked)
        place = np.cumsum(marked, dtype=np.int32) - 1
        moments, skewed = table.time, 0
        if self._skew_limit and not batch.spooled:
            off = np.abs(moments - batch.read_at) > self._skew_limit
            skewed = int(off[rows].sum())
            # A clock that is wrong must not make every later record of its source a late one.
            moments = np.where(off, batch.read_at, moments)
        window = moments[rows]
        if len(table.untimed):
            # When a record was read says nothing of when the ones after it happened.
            moments = moments.copy()
            moments[table.untimed] = BEGINNING
            if batch.spooled:
                window = moments[rows]
        high = np.maximum.accumulate(moments)
        ambiguous = np.zeros(len(rows), dtype=np.bool_)
        if len(table.ambiguous):
            ambiguous = np.isin(rows, table.ambiguous)
        return Matches(
            rows=rows,
            time=table.time[rows],
            window=window,
            high=high[rows],
            position=batch.positions[rows],
            repeat=np.ones(len(rows), dtype=np.int32) if table.repeat is None else table.repeat[rows],
            trust=(
                np.full(len(rows), batch.trust, dtype=np.uint8) if isinstance(batch.trust, Trust) else batch.trust[rows]
            ),
            check=checks(batch.block, batch.starts[rows], batch.ends[rows]),
            ambiguous=ambiguous,
            hits={index: place[found] for index, found in sorted(hit_rows.items())},
            fields=self._columns(table, rows, hit_rows) if len(rows) else {},
            n=n,
            bytes=len(batch.block),
            unreadable=table.unreadable,
            batch_high=int(high[-1]) if n else BEGINNING,
            skewed=skewed,
            undecided=self._newly_undecided(),
        )

    def _newly_undecided(self) -> int:
        total = self.leaves.undecided
        new, self._undecided = total - self._undecided, total
        return new

    def _columns(self, table: Table, rows: Int64, hit_rows: Mapping[int, Int64]) -> dict[str, Column]:
        """The needed fields of the matched records; one that few rules need is made for their records alone."""
        fields = {}
        for field, users in self._users.items():
            column = table.column(field)
            if users is None:
                fields[field] = narrow(column, rows)
                continue
            wanted = np.zeros(len(table), dtype=np.bool_)
            for index in users & hit_rows.keys():
                wanted[hit_rows[index]] = True
            fields[field] = narrow(column, rows, wanted[rows])
        return fields


def needed_fields(rules: Sequence[Rule]) -> dict[str, frozenset[int] | None]:
    """The fields that keys, windows and output need, with the rules whose matches need them (None: all), sorted."""
    users: dict[str, set[int]] = {}
    for index, rule in enumerate(rules):
        fields = set(rule.key)
        if rule.response is not None:
            fields.add(rule.response.target)
        needing = {index}
        if rule.correlate is not None:
            fields.update(rule.correlate.group_by)
            fields.update(field for _, _, field in rule.correlate.aliases)
            fields.update(rule.correlate.fields)
            of = set(rule.correlate.of)
            needing |= {at for at, other in enumerate(rules) if other.id in of or of & set(other.groups)}
        for field in fields:
            users.setdefault(field, set()).update(needing)
    everywhere: dict[str, frozenset[int] | None] = dict.fromkeys(OUTPUT_FIELDS)
    everywhere |= {field: frozenset(needing) for field, needing in users.items() if field not in everywhere}
    return dict(sorted(everywhere.items()))


def log_sources(rules: Iterable[Rule]) -> frozenset[LogSource]:
    """The log sources whose records some rule looks at."""
    return frozenset(rule.logsource for rule in rules if looks_at_records(rule))
