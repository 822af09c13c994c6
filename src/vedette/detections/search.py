"""What is looked for on behalf of all rules, and from what is found the rules that may match, with the rows to look at.
Counterpart: `clauses` chose it and `scan` finds it; `match` has the conditions judged on these rows alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vedette.detections.chosen import chosen
from vedette.detections.clauses import Clause
from vedette.detections.judge import UNKNOWN, Judge
from vedette.detections.leaves import Leaves
from vedette.detections.prefilter import Prefilter
from vedette.detections.scan import FieldScan
from vedette.model.batch import Bool, Int64, RecordFormat
from vedette.model.events import RecordKind
from vedette.model.rules import LogSource, Raw, Rule, Test

# How many combinations of kinds are remembered with what is to be done for them.
_PLANS = 512


@dataclass(frozen=True, slots=True)
class _Plan:
    """What records of some kinds need. fields: to be scanned; rules: that cover any; unfound: of these without clause.

    keywords: whether any of them looks for keywords.
    """

    fields: tuple[str, ...]
    rules: frozenset[int]
    unfound: tuple[int, ...]
    keywords: bool


class Search:
    """The search of the rules at `roots` (indexes of those that judge records and have no parents).

    found: numbers of the leaves that are looked for; cache: a folder to keep automata in, and what is looked for
    under `key`, if that is of these rules and no others.
    """

    def __init__(
        self, rules: Sequence[Rule], roots: Sequence[int], leaves: Leaves, cache: Path | None = None, key: str = ""
    ) -> None:
        self._rules = rules
        self._leaves = leaves
        self._cache = cache
        choice = chosen(rules, roots, leaves, cache, key)
        self.clauses: dict[int, Clause | None] = {
            index: clause and Clause(*clause) for index, clause in zip(roots, choice.clauses, strict=True)
        }
        self.found = set(choice.found)
        self._wanted = choice.fields
        self._keywords = choice.keywords
        self._keyword_leaves = {number for number in choice.found if isinstance(leaves.leaves[number], Raw)}
        self._keyword_rules = set(choice.keyword_rules)
        self._fields_of: dict[int, frozenset[str]] = {}
        self._rules_of: dict[int, list[int]] = {}
        self._by_source: dict[LogSource, list[int]] = {}
        # Hashing a log source costs more than all else that is done for a rule of which nothing is found.
        self._source_of: dict[int, int] = {}
        numbers: dict[LogSource, int] = {}
        for index in roots:
            clause = self.clauses[index]
            own = clause.leaves if clause else ()
            for number in own:
                self._rules_of.setdefault(number, []).append(index)
            told = [leaves.leaves[number] for number in own]
            self._fields_of[index] = frozenset(leaf.field for leaf in told if isinstance(leaf, Test))
            source = rules[index].logsource
            self._by_source.setdefault(source, []).append(index)
            self._source_of[index] = numbers.setdefault(source, len(numbers))
        self._needed_keywords = frozenset(self._keyword_leaves & self._rules_of.keys())
        self._scans = {name: FieldScan(wanted.atoms) for name, wanted in self._wanted.items()}
        self._keyword_scan = FieldScan(self._keywords.atoms)
        self._prefilters: dict[bool, Prefilter] = {}
        self._plans: dict[frozenset[RecordKind], _Plan] = {}

    def prepare(self) -> None:
        """Make every automaton now and not when a field is first scanned."""
        for scan in (*self._scans.values(), self._keyword_scan):
            scan.prepare(self._cache)

    def candidates(self, judge: Judge) -> Iterable[tuple[int, Int64]]:
        """The rules that may match, with the rows to look at, in load order; `judge` is told what was found."""
        if not len(judge.table):
            return
        plan = self._plan(judge.table.kinds.kinds)
        pieces: dict[int, list[Int64]] = {}
        for name in plan.fields:
            self._search(judge, name, plan, pieces)
        if plan.keywords:
            self._search_keywords(judge, plan, pieces)
        for index in plan.unfound:
            pieces[index] = [np.arange(len(judge.table), dtype=np.int64)]
        coverage: dict[int, Bool | None] = {}
        for index in sorted(pieces):
            found = pieces[index]
            rows = found[0] if len(found) == 1 else np.unique(np.concatenate(found))
            source = self._source_of[index]
            if source not in coverage:
                coverage[source] = judge.covered(self._rules[index].logsource)
            covered = coverage[source]
            if covered is not None:
                rows = rows[covered[rows]]
            if len(rows):
                yield index, rows

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
            found = {index for index in rules if self.clauses[index] is not None}
            keywords = not self._keyword_rules.isdisjoint(rules)
            if len(self._plans) >= _PLANS:
                self._plans.clear()
            plan = self._plans[key] = _Plan(
                tuple(sorted(fields)),
                frozenset(rules),
                tuple(index for index in rules if index not in found),
                keywords,
            )
        return plan

    def _search(self, judge: Judge, name: str, plan: _Plan, pieces: dict[int, list[Int64]]) -> None:
        column = judge.table.column(name)
        if not len(column.values):
            return
        scan = self._scans[name]
        scan.prepare(self._cache)
        found, odd = scan.find(column.values)
        judge.scanned.add(name)
        for leaf, codes in hit_leaves(judge, self._wanted[name].postings, found, odd).items():
            owners = self._rules_of.get(leaf)
            if owners is None:
                continue
            rows = judge.rows_of(name, codes)
            for index in owners:
                if index in plan.rules:
                    pieces.setdefault(index, []).append(rows)

    def _search_keywords(self, judge: Judge, plan: _Plan, pieces: dict[int, list[Int64]]) -> None:
        table = judge.table
        json = table.batch.format is RecordFormat.JSON
        if json or not table.strings_given:
            # What is written as it is can be looked for in the block, all records at once. A short keyword would be
            # proposed for most of them, so that only those are looked for that a rule must have.
            judge.scanned_keywords = self._needed_keywords
            proposed, unread = self._prefilter(json).candidates(table.batch)
            hits = {leaf: rows.tolist() for leaf, rows in proposed.items()}
            for leaf, rows in hits.items():
                verdicts = judge.searched(leaf).verdicts
                for row in rows:
                    verdicts[row] = UNKNOWN
            self._read_keywords(judge, unread.tolist(), hits)
        else:
            judge.scanned_keywords = self._keyword_leaves
            hits = {}
            self._read_keywords(judge, self._scan_keywords(judge, hits), hits)
        for leaf, held in hits.items():
            owners = self._rules_of.get(leaf)
            if owners is None or not held:
                continue
            found_rows = np.array(sorted(set(held)), dtype=np.int64)
            for index in owners:
                if index in plan.rules:
                    pieces.setdefault(index, []).append(found_rows)

    def _scan_keywords(self, judge: Judge, hits: dict[int, list[int]]) -> Sequence[int]:
        """Look for all keywords before any text is decoded; the rows whose texts must be read instead."""
        table = judge.table
        self._keyword_scan.prepare(self._cache)
        written = table.written() if self._keyword_scan.plain else None
        if written is None:
            return range(len(table))
        places: dict[int, set[int]] = {}
        unread: set[int] = set()
        for texts in written:
            found, odd = self._keyword_scan.find_written(texts)
            unread.update(odd)
            for atom, rows in found.items():
                places.setdefault(atom, set()).update(rows)
        told = {atom: sorted(rows - unread) for atom, rows in places.items()}
        hits |= hit_leaves(judge, self._keywords.postings, told, set())
        return sorted(unread)

    def _read_keywords(self, judge: Judge, rows: Sequence[int], hits: dict[int, list[int]]) -> None:
        """Look for the keywords of `judge.scanned_keywords` in the texts of these rows."""
        if not rows:
            return
        self._keyword_scan.prepare(self._cache)
        table = judge.table
        texts = table.strings(rows) if table.strings_given else [tuple(judge.texts(row)) for row in rows]
        wanted = judge.scanned_keywords
        postings = [[one for one in posting if one[0] in wanted] for posting in self._keywords.postings]
        places = {atom: [rows[at] for at in held] for atom, held in self._keyword_scan.find_in(texts).items()}
        for leaf, more in hit_leaves(judge, postings, places, set()).items():
            hits.setdefault(leaf, []).extend(more)

    def _prefilter(self, json: bool) -> Prefilter:
        prefilter = self._prefilters.get(json)
        if prefilter is None:
            keywords = {leaf: self._leaves.atoms(leaf) or () for leaf in self._needed_keywords}
            prefilter = self._prefilters[json] = Prefilter(keywords, json=json, cache=self._cache)
        return prefilter


def hit_leaves(
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
