"""Decision trees over a batch: which rules of a tree a record reaches, whatever the records before it were.
Counterpart: `branches` decides among them in ingest order; `match` hands in what is known of each condition."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from vedette.detections.chosen import Wanted, looked_for
from vedette.detections.judge import Judge
from vedette.detections.leaves import Leaves
from vedette.detections.scan import FieldScan
from vedette.detections.search import hit_leaves
from vedette.model.batch import Bool, Int64
from vedette.model.rules import All, Node, Op, Rule, Test, tests_of

_LONG = frozenset({"ossec.log", "ossec.data.url"})
_TEXT_OPS = frozenset({Op.CONTAINS, Op.STARTSWITH, Op.ENDSWITH, Op.EQUALS, Op.REGEX})

Held = Callable[[Judge, int, Int64], Int64]
"""Those of some rows for which the condition of a rule holds."""


def branch_roots(rules: Sequence[Rule]) -> list[int]:
    """The rules of trees that have no parents, in the order they are tried."""
    roots = [index for index, rule in enumerate(rules) if rule.branch is not None and not rule.parents]
    return sorted(roots, key=lambda index: (-rules[index].order, index))


class Trees:
    """The trees of `rules`. children: of each rule, in the order they are tried."""

    def __init__(
        self,
        rules: Sequence[Rule],
        children: Mapping[int, Sequence[int]],
        leaves: Leaves,
        cache: Path | None = None,
    ) -> None:
        self._rules = rules
        self._children = children
        self._roots = branch_roots(rules)
        self._cache = cache
        self._wanted = self._looked_for(leaves)
        self._scans = {name: FieldScan(wanted.atoms) for name, wanted in self._wanted.items()}
        self.found = {leaf for wanted in self._wanted.values() for posting in wanted.postings for leaf, _ in posting}
        """The leaves that are looked for."""
        self._equal = {
            index: wanted
            for index, rule in enumerate(rules)
            if rule.branch is not None and (wanted := _named(rule.when)) is not None
        }
        self._certain = [rule.branch is not None and rule.branch.certain for rule in rules]
        self._passes = [rule.branch is not None and rule.branch.passes for rule in rules]

    def _looked_for(self, leaves: Leaves) -> dict[str, Wanted]:
        """What is looked for in the texts that nearly every record has another one of, in one pass."""
        asked: dict[int, None] = {}
        for rule in self._rules:
            if rule.branch is not None:
                for leaf in tests_of(rule.when):
                    if isinstance(leaf, Test) and leaf.field in _LONG and leaf.op in _TEXT_OPS:
                        number = leaves.add(leaf)
                        if leaves.atoms(number) is not None:
                            asked[number] = None
        return looked_for(asked, leaves)

    def __bool__(self) -> bool:
        return bool(self._roots)

    def reach(self, judge: Judge, held: Held) -> dict[int, Int64]:
        """The rules that records reach: those whose condition holds and that no sibling before has to itself.

        Where that hangs on earlier records, the siblings after it are reached too.
        """
        for name, scan in self._scans.items():
            column = judge.table.column(name)
            if len(column.values):
                scan.prepare(self._cache)
                hit_leaves(judge, self._wanted[name].postings, *scan.find(column.values))
                judge.scanned.add(name)
        visit = _Visit(self, judge, held)
        rows = np.arange(len(judge.table), dtype=np.int64)
        visit.below(self._roots, rows)
        return {
            index: found[0] if len(found) == 1 else np.unique(np.concatenate(found))
            for index, found in visit.reached.items()
        }


class _Visit:
    """One batch on its way down."""

    def __init__(self, trees: Trees, judge: Judge, held: Held) -> None:
        self._trees, self._judge, self._held = trees, judge, held
        self.reached: dict[int, list[Int64]] = {}
        self._present: dict[str, frozenset[object]] = {}
        self._mark: Bool = np.zeros(len(judge.table), dtype=np.bool_)

    def below(self, siblings: Sequence[int], rows: Int64) -> Int64:
        """Try `siblings` on `rows`; the rows that none of them has for certain."""
        trees = self._trees
        for index in siblings:
            if not len(rows):
                break
            if not self._possible(index):
                continue
            won = self._held(self._judge, index, rows)
            before = self.reached.get(index)
            if before is not None and len(won):
                # Reached by another way: what is below it is known.
                for known in before:
                    won = self._without(won, known)
            if not len(won):
                continue
            self.reached.setdefault(index, []).append(won)
            children = trees._children.get(index)
            left = self.below(children, won) if children else won
            if trees._certain[index]:
                rows = self._without(rows, self._without(won, left) if trees._passes[index] else won)
        return rows

    def _without(self, rows: Int64, gone: Int64) -> Int64:
        if not len(gone):
            return rows
        self._mark[gone] = True
        rest = rows[~self._mark[rows]]
        self._mark[gone] = False
        return rest

    def _possible(self, index: int) -> bool:
        """Whether some record has the value that the rule's first question names."""
        named = self._trees._equal.get(index)
        if named is None:
            return True
        name, wanted = named
        present = self._present.get(name)
        if present is None:
            present = self._present[name] = frozenset(self._judge.table.column(name).values)
        return not wanted.isdisjoint(present)


def _named(node: Node) -> tuple[str, frozenset[object]] | None:
    """The field and values of an exact comparison that must hold, where the condition has one."""
    parts = node.parts if isinstance(node, All) else (node,)
    for part in parts:
        if isinstance(part, Test) and part.op is Op.EQUALS and part.cased and part.part is None:
            return part.field, frozenset(part.values)
    return None
