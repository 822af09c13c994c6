"""Whole batches against all rules: which records match which rule, as row sets.
Counterpart: parsers fill the tables it reads; `correlate` takes the matches in ingest order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vedette.detections.clauses import Clause
from vedette.detections.conditions import Condition, compile_condition
from vedette.detections.judge import Judge
from vedette.detections.leaves import Leaves
from vedette.detections.matches import Matches, checks, narrow
from vedette.detections.needs import log_sources, needed_fields
from vedette.detections.search import Search
from vedette.detections.tree import children_of, looks_at_records
from vedette.detections.trees import Trees
from vedette.model.batch import Batch, Int64, Trust
from vedette.model.clock import BEGINNING
from vedette.model.errors import RuleError
from vedette.model.events import Column, Table
from vedette.model.protocols import Parser
from vedette.model.rules import Rule, tests_of

# Up to so many rows a condition is asked row by row.
_FEW = 12


class Matcher:
    """Compiled rules over parsed batches; pure, so that workers may each have one.

    skew_limit: microseconds by which event time and `event.created` may differ before windows use the
    latter; 0 switches the check off (replay). cache: a folder to keep automata in, and what is looked for if there
    is a `key` of these rules alone. RuleError names the rule's place where a test cannot be used.
    """

    def __init__(
        self, rules: Sequence[Rule], parser: Parser, *, skew_limit: int = 0, cache: Path | None = None, key: str = ""
    ) -> None:
        self.rules = list(rules)
        self._parser = parser
        self._skew_limit = skew_limit
        self._undecided = 0
        self.leaves = Leaves()
        self._conditions: list[Condition | None] = [self._compiled(rule) for rule in self.rules]
        self._children = children_of(self.rules)
        self._trees = Trees(self.rules, self._children, self.leaves, cache)
        roots = [
            index
            for index, rule in enumerate(self.rules)
            if looks_at_records(rule) and not rule.parents and rule.branch is None
        ]
        self._search = Search(self.rules, roots, self.leaves, cache, key)
        self._found = self._search.found | self._trees.found
        self._users = needed_fields(self.rules)
        self.logsources = log_sources(self.rules)

    def _compiled(self, rule: Rule) -> Condition | None:
        try:
            for leaf in tests_of(rule.when):
                self.leaves.add(leaf)
        except RuleError as error:
            raise RuleError(f"rule {rule.id}: {error.message}", location=rule.origin) from None
        return compile_condition(rule.when, self.leaves) if looks_at_records(rule) else None

    def clause(self, index: int) -> Clause | None:
        """What is looked for on behalf of rule `index`; None where it looks at every record, or is no root."""
        return self._search.clauses.get(index)

    def condition(self, index: int) -> Condition | None:
        """The condition of rule `index`; None where it judges no records."""
        return self._conditions[index]

    def prepare(self) -> None:
        """Make every automaton now and not when a field is first scanned."""
        self._search.prepare()

    # ------------------------------------------------------------------------------------------------ one batch

    def judge(self, batch: Batch) -> Judge:
        """Parse `batch` and make every leaf ready to be asked."""
        return Judge(self.leaves, self._found, self._parser.parse(batch))

    def candidates(self, judge: Judge) -> dict[int, Int64]:
        """The rules without parents that may match, with the rows that are looked at for each."""
        return dict(self._search.candidates(judge))

    def match(self, batch: Batch) -> Matches:
        """Parse `batch` and judge every rule on it."""
        judge = self.judge(batch)
        hit_rows: dict[int, Int64] = {}
        for index, rows in self._search.candidates(judge):
            held = self._held(judge, index, rows)
            if len(held):
                self._descend(judge, index, held, hit_rows)
        if self._trees:
            hit_rows |= self._trees.reach(judge, self._held)
        matches = self._collect(judge.table, hit_rows)
        judge.table.close()
        return matches

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
        nothing = Column.absent(len(rows))
        for field, users in self._users.items():
            if users is None:
                fields[field] = narrow(table.column(field), rows)
                continue
            asking = users & hit_rows.keys()
            if not asking:
                fields[field] = nothing
                continue
            wanted = np.zeros(len(table), dtype=np.bool_)
            for index in asking:
                wanted[hit_rows[index]] = True
            fields[field] = narrow(table.column(field), rows, wanted[rows])
        return fields
