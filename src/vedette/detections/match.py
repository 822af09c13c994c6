"""Whole batches against all rules: which records match which rule, as row sets.
Counterpart: parsers fill the tables it reads; `correlate` takes the matches in ingest order."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vedette.detections.predicates import Predicate, fieldref_rows, raw_judge
from vedette.detections.prefilter import Prefilter
from vedette.model.batch import Batch, Bool, Int32, Int64, Trust, UInt8
from vedette.model.clock import BEGINNING
from vedette.model.errors import RuleError
from vedette.model.events import Column, RecordKind, Table
from vedette.model.protocols import Parser
from vedette.model.rules import All, Any, LogSource, Node, Not, Op, Raw, Rule, Test, tests_of
from vedette.text.escape import decode

UInt32 = npt.NDArray[np.uint32]

# What every finding says besides its key.
OUTPUT_FIELDS = ("host.name", "source.ip", "user.name")


@dataclass(frozen=True, slots=True)
class Matches:
    """The `m` records of one batch that matched any rule, in ingest order.

    rows: int64[m] in the batch. time: int64[m] event time; window: int64[m] the time windows use, BEGINNING
    where that is the one of the records before it (a spooled record whose header names no time). high:
    int64[m] the highest event time of the batch up to that record, BEGINNING before the first. position,
    repeat, trust: per record; check: uint32[m] of the raw record's bytes, to tell equal records. hits: per
    rule index the sorted indexes into these m records. fields: columns over the m records. ambiguous: bool[m].
    n, bytes, unreadable: of the whole batch; batch_high: its highest event time, BEGINNING where it has none.
    """

    rows: Int64
    time: Int64
    window: Int64
    high: Int64
    position: Int64
    repeat: Int32
    trust: UInt8
    check: UInt32
    ambiguous: Bool
    hits: dict[int, Int32]
    fields: dict[str, Column]
    n: int
    bytes: int
    unreadable: int
    batch_high: int
    skewed: int


class Scan:
    """One batch while it is matched: every test is judged once, however many rules make it."""

    def __init__(self, table: Table, predicates: Mapping[Test, Predicate], prefilter: Prefilter | None) -> None:
        self.table = table
        self._predicates = predicates
        self._memo: dict[Test | Raw, Bool | None] = {}
        self._proposed = prefilter.candidates(table.batch) if prefilter else {}

    def leaf(self, test: Test | Raw) -> Bool | None:
        """bool[n] for one test or keyword, None where no record satisfies it."""
        if test not in self._memo:
            self._memo[test] = self._keyword(test) if isinstance(test, Raw) else self._test(test)
        return self._memo[test]

    def _test(self, test: Test) -> Bool | None:
        column = self.table.column(test.field)
        if test.op is not Op.FIELDREF:
            return self._predicates[test].rows(column)
        found: Bool | None = None
        for value in test.values:
            rows = fieldref_rows(column, self.table.column(str(value)), cased=test.cased)
            found = rows if found is None else found if rows is None else found | rows
        return found

    def _keyword(self, raw: Raw) -> Bool | None:
        judge = raw_judge(raw)
        out = np.zeros(len(self.table), dtype=np.bool_)
        block = self.table.batch.block
        starts, ends = self.table.message
        for row in self._proposed.get(raw, ()):
            out[row] = judge(decode(block[int(starts[row]) : int(ends[row])]))
        return out if out.any() else None

    def evaluate(self, node: Node, within: Bool | None) -> Bool | None:
        """The rows of `within` (None: all) for which `node` holds; None where none does."""
        match node:
            case All(parts):
                rows = within
                for part in parts:
                    held = self.evaluate(part, rows)
                    if held is None:
                        return None
                    rows = held
                return np.ones(len(self.table), dtype=np.bool_) if rows is None else rows
            case Any(parts):
                union: Bool | None = None
                for part in parts:
                    held = self.evaluate(part, within)
                    if held is not None:
                        union = held if union is None else union | held
                return union
            case Not(part):
                held = self.evaluate(part, within)
                if held is None:
                    return np.ones(len(self.table), dtype=np.bool_) if within is None else within
                rest = ~held if within is None else within & ~held
                return rest if rest.any() else None
            case _:
                rows = self.leaf(node)
                if rows is None or within is None:
                    return rows
                both = rows & within
                return both if both.any() else None


class Matcher:
    """Compiled rules over parsed batches; pure, so that workers may each have one.

    skew_limit: microseconds by which event time and `event.created` may differ before windows use the
    latter; 0 switches the check off (replay). RuleError names the rule's place where a test cannot be used.
    """

    def __init__(self, rules: Sequence[Rule], parser: Parser, *, skew_limit: int = 0) -> None:
        self.rules = list(rules)
        self._parser = parser
        self._skew_limit = skew_limit
        self._index = {rule.id: index for index, rule in enumerate(self.rules)}
        self._predicates: dict[Test, Predicate] = {}
        raws: list[Raw] = []
        for rule in self.rules:
            for leaf in tests_of(rule.when):
                self._compile_leaf(rule, leaf, raws)
        self._prefilter = Prefilter(raws) if raws else None
        self._runnable = [index for index, rule in enumerate(self.rules) if looks_at_records(rule)]
        self._children = self._tree()
        self._users = needed_fields(self.rules)
        self.logsources = log_sources(self.rules)

    def _compile_leaf(self, rule: Rule, leaf: Test | Raw, raws: list[Raw]) -> None:
        try:
            if isinstance(leaf, Raw):
                raw_judge(leaf)
                raws.append(leaf)
            elif leaf not in self._predicates:
                self._predicates[leaf] = Predicate(leaf)
        except RuleError as error:
            raise RuleError(f"rule {rule.id}: {error.message}", location=rule.origin) from None

    def _tree(self) -> dict[int, list[int]]:
        """Children by parent, in the order they are tried; a parent is named by id or by one of its groups."""
        by_group: dict[str, list[int]] = {}
        for index, rule in enumerate(self.rules):
            for name in (rule.id, *rule.groups):
                by_group.setdefault(name, []).append(index)
        children: dict[int, list[int]] = {}
        for index, rule in enumerate(self.rules):
            for name in rule.parents:
                if name not in by_group:
                    raise RuleError(f"rule {rule.id}: no parent {name!r}", location=rule.origin)
                for parent in by_group[name]:
                    if self.rules[parent].correlate is not None:
                        raise RuleError(
                            f"rule {rule.id}: a child of the correlation {self.rules[parent].id} is not supported yet",
                            location=rule.origin,
                        )
                    if index not in children.setdefault(parent, []):
                        children[parent].append(index)
        for parent, siblings in children.items():
            children[parent] = siblings = [index for index in siblings if looks_at_records(self.rules[index])]
            siblings.sort(key=lambda index: (-self.rules[index].order, index))
        self._check_cycles(children)
        return children

    def _check_cycles(self, children: Mapping[int, list[int]]) -> None:
        state: dict[int, int] = {}
        for root in range(len(self.rules)):
            stack = [(root, iter(children.get(root, ())))]
            if state.setdefault(root, 1) == 2:
                continue
            while stack:
                index, rest = stack[-1]
                child = next(rest, None)
                if child is None:
                    state[index] = 2
                    stack.pop()
                elif state.get(child) == 1:
                    rule = self.rules[child]
                    raise RuleError(f"rule {rule.id} is its own ancestor", location=rule.origin)
                elif child not in state:
                    state[child] = 1
                    stack.append((child, iter(children.get(child, ()))))

    def scan(self, batch: Batch) -> Scan:
        """Parse `batch` and make its tests ready to be judged."""
        return Scan(self._parser.parse(batch), self._predicates, self._prefilter)

    def match(self, batch: Batch) -> Matches:
        """Parse `batch` and judge every rule on it."""
        scan = self.scan(batch)
        table = scan.table
        hit_rows: dict[int, Int64] = {}
        for index in self._runnable:
            rule = self.rules[index]
            if rule.parents:
                continue
            rows = scan.evaluate(rule.when, covered_rows(table, rule.logsource))
            if rows is not None and rows.any():
                self._descend(scan, index, rows, hit_rows)
        matches = self._collect(table, hit_rows)
        table.close()
        return matches

    def _descend(self, scan: Scan, index: int, rows: Bool, hit_rows: dict[int, Int64]) -> None:
        """Give each record to the deepest rule that wins it; a correlated child only proposes (see correlate)."""
        rest = rows
        taken: Bool | None = None
        for child in self._children.get(index, ()):
            rule = self.rules[child]
            open_rows = rows if taken is None else rows & ~taken
            covered = covered_rows(scan.table, rule.logsource)
            won = scan.evaluate(rule.when, open_rows if covered is None else open_rows & covered)
            if won is None or not won.any():
                continue
            self._descend(scan, child, won, hit_rows)
            if rule.correlate is not None:
                continue
            rest = rest & ~won
            if rule.stop:
                taken = won if taken is None else taken | won
        found = np.flatnonzero(rest)
        if len(found):
            earlier = hit_rows.get(index)
            hit_rows[index] = found if earlier is None else np.union1d(earlier, found)

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
        )

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


def covers(logsource: LogSource, kind: RecordKind) -> bool:
    """Whether records of `kind` are what a rule of `logsource` looks at."""
    return (
        logsource.product in ("", kind.product)
        and (not logsource.category or logsource.category in kind.categories)
        and (not logsource.service or logsource.service in kind.services)
    )


def covered_rows(table: Table, logsource: LogSource) -> Bool | None:
    """bool[n]: the records a log source covers; None where it covers all."""
    verdicts = np.array([covers(logsource, kind) for kind in table.kinds.kinds], dtype=np.bool_)
    if verdicts.all():
        return None
    rows: Bool = verdicts[table.kinds.codes]
    return rows


def narrow(column: Column, rows: Int64, wanted: Bool | None = None) -> Column:
    """A column over some of its records, with only the values they use. wanted: bool[len(rows)], others are absent."""
    codes = column.codes[rows]
    if wanted is not None:
        codes = np.where(wanted, codes, np.int32(-1))
    used = np.zeros(len(column.values) + 1, dtype=np.bool_)
    used[codes] = True
    used[-1] = False
    kept = np.flatnonzero(used)
    renumber = np.full(len(column.values) + 1, -1, dtype=np.int32)
    renumber[kept] = np.arange(len(kept), dtype=np.int32)
    return Column(renumber[codes], [column.values[index] for index in kept.tolist()])


# Odd multipliers of 64-bit mixing; which ones does not matter, that they stay does (checks are kept over restarts).
_MIX = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F)
_CHECK_WORDS = 24


def checks(block: bytes, starts: Int64, ends: Int64) -> UInt32:
    """uint32[m]: a check of each record's bytes, a pure function of them, to tell equal records of one moment."""
    lengths = ends - starts
    mixed = lengths.astype(np.uint64) * np.uint64(_MIX[1])
    if len(block) >= 8 and len(starts):
        words: npt.NDArray[np.uint64] = np.ndarray(len(block) - 7, dtype="<u8", buffer=block, strides=(1,))
        rows = np.arange(len(starts))
        for word in range(min(int(lengths.max()) // 8, _CHECK_WORDS)):
            if word:
                rows = rows[lengths[rows] >= 8 * (word + 1)]
            elif int(lengths.min()) < 8:
                rows = rows[lengths[rows] >= 8]
            mixed[rows] = (mixed[rows] ^ words[starts[rows] + 8 * word]) * np.uint64(_MIX[0])
        # The bytes after the last whole word, together with some before them.
        rows = np.flatnonzero((lengths >= 8) & (lengths % 8 != 0))
        mixed[rows] = (mixed[rows] ^ words[ends[rows] - 8]) * np.uint64(_MIX[0])
    # What is shorter than a word or longer than the words looked at is checked byte by byte.
    for row in np.flatnonzero((lengths < 8) | (lengths >= 8 * (_CHECK_WORDS + 1))).tolist():
        mixed[row] = np.uint64(zlib.crc32(block[int(starts[row]) : int(ends[row])]) << 32)
    return (mixed >> np.uint64(32)).astype(np.uint32)


def looks_at_records(rule: Rule) -> bool:
    """Whether the rule judges records itself; a plain correlation only counts the matches of others."""
    return rule.correlate is None or rule.correlate.preceding or bool(rule.parents)


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
            fields.update([rule.correlate.field] if rule.correlate.field else [])
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
