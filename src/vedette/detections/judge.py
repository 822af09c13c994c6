"""What is known of each leaf on one batch: every leaf is decided once per distinct value, and only when asked.
Counterpart: `conditions` ask row by row or for many rows; `match` writes in what the scan has found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import cast

import numpy as np

from vedette.detections.comparisons import judge_reference
from vedette.detections.leaves import Leaves
from vedette.detections.matches import FEW
from vedette.detections.predicates import Predicate, as_text, fold
from vedette.model.batch import Bool, Int32, Int64
from vedette.model.events import Column, Table, Value
from vedette.model.rules import LogSource, Op, Raw, Test
from vedette.text.escape import decode

_TEXT = {str}
UNKNOWN = 2
"""Beside 0 and 1 the verdict nobody has asked for yet."""


@dataclass(slots=True)
class Known:
    """One leaf on one batch. codes: int32[n] into verdicts, None where the row itself is the place.

    verdicts: one byte a distinct value (or row); for values one more, the last, for records without the
    field, so that code -1 finds it.
    """

    verdicts: bytearray
    codes: Int32 | None


class Judge:
    """The leaves of all rules on one batch.

    found: the leaves whose atoms are looked for wherever their field is scanned; scanned: the fields that were;
    scanned_keywords: the keywords that were looked for in every record.
    """

    def __init__(self, leaves: Leaves, found: AbstractSet[int], table: Table) -> None:
        self.table = table
        self.scanned: set[str] = set()
        self.scanned_keywords: AbstractSet[int] = frozenset()
        self._found = found
        self._leaves = leaves
        self._known: dict[int, Known] = {}
        self._folded: dict[str, dict[int, str]] = {}
        self._strings: dict[int, Sequence[str]] = {}
        self._groups: dict[str, tuple[Int64, Int64]] = {}
        self._covered: dict[LogSource, Bool | None] = {}

    def known(self, number: int) -> Known:
        """What is known of the leaf."""
        known = self._known.get(number)
        if known is None:
            leaf = self._leaves.leaves[number]
            if isinstance(leaf, Test):
                searched = leaf.field in self.scanned and number in self._found
            else:
                searched = number in self.scanned_keywords
            # What was looked for and is not written down yet was not found anywhere.
            known = self._known[number] = self._begin(number, 0 if searched else UNKNOWN)
        return known

    def searched(self, number: int) -> Known:
        """As `known`, for a leaf whose atoms were looked for everywhere: what is not found does not hold."""
        known = self._known.get(number)
        if known is None:
            known = self._known[number] = self._begin(number, 0)
        return known

    def _begin(self, number: int, verdict: int) -> Known:
        leaf, judge = self._leaves.leaves[number], self._leaves.judge(number)
        if not isinstance(judge, Predicate):
            if isinstance(leaf, Test) and (equal := self._equal_rows(leaf)) is not None:
                return Known(bytearray(equal), None)
            return Known(bytearray([verdict]) * len(self.table), None)
        assert isinstance(leaf, Test)
        column = self.table.column(leaf.field)
        verdicts = bytearray([verdict]) * (len(column.values) + 1)
        verdicts[-1] = judge.absent
        return Known(verdicts, column.codes)

    def decide(self, number: int, known: Known, code: int) -> int:
        """Judge the leaf on one distinct value (or row) and remember the verdict."""
        leaf, judge = self._leaves.leaves[number], self._leaves.judge(number)
        if isinstance(judge, Predicate):
            value = self.table.column(judge.test.field).values[code]
            if type(value) is str:
                verdict = judge.text(self._fold(judge.test.field, code, value) if judge.folds else value)
            else:
                verdict = judge.holds(value)
        elif isinstance(leaf, Raw):
            assert judge is not None
            verdict = any(map(judge, self.texts(code)))
        else:
            verdict = self._refers(leaf, code)
        known.verdicts[code] = verdict
        return verdict

    def decide_all(self, number: int, known: Known, codes: Iterable[int]) -> None:
        """`decide` for many."""
        judge, verdicts = self._leaves.judge(number), known.verdicts
        if not isinstance(judge, Predicate):
            for code in codes:
                self.decide(number, known, code)
            return
        field, text = judge.test.field, judge.text
        codes = list(codes)
        values = self.table.column(field).values
        picked = [values[code] for code in codes]
        if set(map(type, picked)) == _TEXT:
            texts = self._folded_all(field, codes, picked) if judge.folds else picked
            for code, verdict in zip(codes, map(text, texts), strict=True):  # type: ignore[arg-type]
                verdicts[code] = verdict
            return
        for code, value in zip(codes, picked, strict=True):
            if type(value) is str:
                verdicts[code] = text(self._fold(field, code, value) if judge.folds else value)
            elif judge.plainly and type(value) is tuple and set(map(type, value)) == _TEXT:
                parts = cast("tuple[str, ...]", value)
                verdicts[code] = any(map(text, map(fold, parts) if judge.folds else parts))
            else:
                verdicts[code] = judge.holds(value)

    def _folded_all(self, field: str, codes: Sequence[int], texts: Sequence[Value]) -> Iterable[str]:
        """`_fold` for many."""
        folded = self._folded.setdefault(field, {})
        if not folded.keys() >= set(codes):
            new = {code: text for code, text in zip(codes, texts, strict=True) if code not in folded}
            folded.update(zip(new, map(fold, new.values()), strict=True))  # type: ignore[arg-type]
        return map(folded.__getitem__, codes)

    def _fold(self, field: str, code: int, value: str) -> str:
        folded = self._folded.setdefault(field, {})
        text = folded.get(code)
        if text is None:
            text = folded[code] = fold(value)
        return text

    def texts(self, row: int) -> Sequence[str]:
        """What keywords look at in the record `row`."""
        texts = self._strings.get(row)
        if texts is None:
            table = self.table
            if table.strings_given:
                texts = table.strings([row])[0]
            else:
                starts, ends = table.message
                texts = (decode(table.batch.block[int(starts[row]) : int(ends[row])]),)
            self._strings[row] = texts
        return texts

    def _refers(self, test: Test, row: int) -> bool:
        """Whether the field stands to one of the fields that `test` names (to all of them) as it says."""
        own = _parts(self.table.column(test.field), row, test.cased)
        return (all if test.all else any)(
            any(
                judge_reference(test.op, one, other)
                for one in own
                for other in _parts(self.table.column(as_text(name)), row, test.cased)
            )
            for name in test.values
        )

    def _equal_rows(self, test: Test) -> Bool | None:
        """bool[n]: two fields with one text each are equal; None where they are not of that simple kind."""
        if test.op is not Op.FIELDREF or len(test.values) != 1:
            return None
        places: dict[str, int] = {}
        numbers = []
        for name in (test.field, as_text(test.values[0])):
            column = self.table.column(name)
            if any(isinstance(value, tuple) or value is None for value in column.values):
                return None
            texts = (as_text(value) for value in column.values)  # type: ignore[arg-type]
            folded = texts if test.cased else map(fold, texts)
            own = np.array([*(places.setdefault(text, len(places)) for text in folded), -1], dtype=np.int64)
            numbers.append(own[column.codes])
        equal: Bool = (numbers[0] == numbers[1]) & (numbers[0] >= 0)
        return equal

    # ------------------------------------------------------------------------------------------------ rows

    def rows_of(self, field: str, codes: Sequence[int]) -> Int64:
        """The rows whose value of `field` is one of these, sorted."""
        column = self.table.column(field)
        if len(column.codes) <= FEW:
            some = set(codes)
            return np.array([row for row, code in enumerate(column.codes.tolist()) if code in some], dtype=np.int64)
        groups = self._groups.get(field)
        if groups is None:
            groups = self._groups[field] = _grouped(column)
        order, bounds = groups
        if len(codes) == 1:
            return order[bounds[codes[0]] : bounds[codes[0] + 1]]
        rows = np.concatenate([order[bounds[code] : bounds[code + 1]] for code in codes])
        rows.sort()
        return rows

    def covered(self, logsource: LogSource) -> Bool | None:
        """bool[n]: the records a log source covers; None where it covers all."""
        if logsource not in self._covered:
            kinds = self.table.kinds
            verdicts = np.array([logsource.covers(kind) for kind in kinds.kinds], dtype=np.bool_)
            self._covered[logsource] = None if verdicts.all() else verdicts[kinds.codes]
        return self._covered[logsource]


def _grouped(column: Column) -> tuple[Int64, Int64]:
    """Rows ordered by code, and where each code's rows begin (one more entry for the end)."""
    codes, n = column.codes, len(column.values)
    # Sorting 16 bits is a radix sort.
    order = np.argsort(codes.astype(np.int16) if n < 32_000 else codes, kind="stable")
    counts = np.bincount(codes + 1, minlength=n + 1)
    return order, np.cumsum(counts)


def _parts(column: Column, row: int, cased: bool) -> set[str]:
    code = int(column.codes[row])
    if code < 0:
        return set()
    value: Value = column.values[code]
    values = value if isinstance(value, tuple) else (value,)
    return {as_text(one) if cased else fold(as_text(one)) for one in values if one is not None}
