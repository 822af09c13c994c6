"""Searches the lake: candidates by literals, confirmed by the very parsers and matcher that rules run on.
Counterpart: `store.lake` scans, `rules.query` says what is asked for; `cli.search` and `cli.tail` print."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import orjson

from vedette.app.routed import routed_parser
from vedette.app.search_plan import literals_of
from vedette.detections.match import Matcher
from vedette.model.batch import Batch, GivenHeader, Int64, RecordFormat, Trust
from vedette.model.events import Table, Value
from vedette.model.levels import Level
from vedette.model.protocols import Counter
from vedette.model.rules import Node, Rule
from vedette.model.shipping import BatchKey
from vedette.store.lake.reader import Part, Scan
from vedette.text.escape import decode

if TYPE_CHECKING:
    from vedette.rules.query import Query

MOST_FIELDS, DEEPEST = 500, 8
"""Of a JSON record: so many of its own fields are shown, nested so deeply."""


class CutReason(StrEnum):
    """Why a result is not all there is."""

    LIMIT = "limit"
    """As many records as were asked for; there are more, older ones."""
    TIMEOUT = "timeout"
    GROUPS = "groups"
    """More different values than are kept; the counts of those that are shown are right."""
    CLUSTERS = "clusters"


class Scanned(Protocol):
    """What is searched: the lake, from whichever process."""

    def scan(self, scan: Scan) -> Iterator[Part]:
        """Every record that may match, batch by batch."""
        ...

    def columns(self, scan: Scan, names: Sequence[str]) -> Iterator[Any]:
        """Header columns of what may match, as Arrow tables."""
        ...


@dataclass(slots=True)
class Limits:
    """When to stop. until: on the clock `now` (seconds, monotonic); cut: why the result is not all there is."""

    until: float = float("inf")
    now: Callable[[], float] = lambda: 0.0
    cut: dict[CutReason, None] = field(default_factory=dict)

    def over(self) -> bool:
        """Whether the time is up; noted."""
        if self.now() < self.until:
            return False
        self.cut[CutReason.TIMEOUT] = None
        return True


@dataclass(frozen=True, slots=True)
class Found:
    """Records of one batch for which the query holds: `rows` of `table`; time: int64, one each."""

    part: Part
    table: Table
    rows: Int64
    time: Int64


@dataclass(frozen=True, slots=True)
class Hit:
    """One record. index: in its stored batch; batch, row: where it stands now."""

    time: int
    sequence: int
    index: int
    key: BatchKey
    batch: Batch
    row: int

    @property
    def raw(self) -> bytes:
        """The record, byte for byte."""
        return self.batch.raw(self.row)

    @property
    def record_id(self) -> str:
        """host id / source / position."""
        return self.batch.origin.record_id(int(self.batch.positions[self.row]))


class Confirming:
    """A query's condition on batches, by the parsers and the matcher that rules run on."""

    def __init__(self, node: Node, counter: Counter) -> None:
        rule = Rule("search", "search", Level.INFORMATIONAL, when=node)
        self._parser = routed_parser([rule], counter)
        self._matcher = Matcher([rule], self._parser)

    def holds(self, batch: Batch) -> tuple[Table, Int64]:
        """The parsed batch, and its rows for which the condition holds."""
        judge = self._matcher.judge(batch)
        rows = self._matcher.candidates(judge).get(0)
        condition = self._matcher.condition(0)
        assert condition is not None
        if rows is None or not len(rows):
            return judge.table, np.empty(0, np.int64)
        return judge.table, rows[condition.many(judge, rows)]

    def table(self, batch: Batch) -> Table:
        """The parsed batch."""
        return self._parser.parse(batch)


class Search:
    """One query over a time range of the lake; since <= `@timestamp` < until, microseconds.

    hosts: host ids, streams: names; empty = all.
    """

    def __init__(
        self,
        lake: Scanned,
        query: Query,
        *,
        since: int,
        until: int,
        counter: Counter,
        hosts: frozenset[str] = frozenset(),
        streams: frozenset[str] = frozenset(),
        limits: Limits | None = None,
    ) -> None:
        from vedette.rules.query import EVERYTHING

        self.since = since if query.since is None else max(since, query.since)
        self.until = until if query.until is None else min(until, query.until)
        self.limits = limits or Limits()
        self.confirming = Confirming(query.node, counter)
        literals = literals_of(query.node)
        self.scan = Scan(self.since, self.until, hosts, streams, literals, stop=self.limits.over)
        self.candidates = self.matched = 0
        self.everything = query.node == EVERYTHING
        self._lake = lake

    def moved(self, since: int, until: int) -> Search:
        """The same question about another range, with the same limits."""
        other = object.__new__(Search)
        other.since, other.until, other.limits = since, until, self.limits
        other.confirming, other._lake, other.everything = self.confirming, self._lake, self.everything
        other.scan = replace(self.scan, since=since, until=until)
        other.candidates = other.matched = 0
        return other

    def found(self, *, newest_first: bool = False) -> Iterator[Found]:
        """Every record for which the query holds, batch by batch, until the time is up."""
        if self.since >= self.until:
            return
        for part in self._lake.scan(replace(self.scan, newest_first=newest_first)):
            if self.limits.over():
                return
            self.candidates += len(part.rows)
            table, rows = self.confirming.holds(part.batch)
            self.matched += len(rows)
            yield Found(part, table, rows, part.time[rows])
            table.close()

    def times(self) -> Iterator[Int64]:
        """`@timestamp` of every record for which the query holds, in pieces; of every record no raw is read."""
        if not self.everything:
            for found in self.found():
                yield found.time
            return
        if self.since >= self.until:
            return
        for table in self._lake.columns(self.scan, ["time"]):
            if self.limits.over():
                return
            self.matched += len(table)
            yield table.column("time").cast("int64").to_numpy()

    def newest(self, limit: int) -> list[Hit]:
        """At most `limit` records, newest first; those of one time, what came last first."""
        heap: list[tuple[int, int, int, Hit]] = []
        for found in self.found(newest_first=True):
            rows = found.rows[np.argsort(found.time, kind="stable")][-limit - 1 :]
            kept = take(found.part.batch, rows)
            for place, row in enumerate(rows.tolist()):
                index, time = int(found.part.rows[row]), int(found.part.time[row])
                sequence = found.part.sequence
                entry = (time, sequence, index, Hit(time, sequence, index, found.part.key, kept, place))
                # One more than asked for, to know whether there are more.
                (heapq.heappush if len(heap) <= limit else heapq.heappushpop)(heap, entry)
            if len(heap) > limit and heap[0][0] > found.part.newest_left:
                break
        hits = [entry[-1] for entry in sorted(heap, key=lambda entry: entry[:3], reverse=True)]
        if len(hits) > limit:
            self.limits.cut[CutReason.LIMIT] = None
        return hits[:limit]

    def records(self, hits: Sequence[Hit]) -> Iterator[dict[str, Any]]:
        """Hits as flat objects, each batch parsed once."""
        parsed: dict[int, Table] = {}
        for hit in hits:
            table = parsed.get(id(hit.batch))
            if table is None:
                table = parsed[id(hit.batch)] = self.confirming.table(hit.batch)
            yield record_of(hit, table)


def record_of(hit: Hit, table: Table) -> dict[str, Any]:
    """A record with its fields under their flat names, and where it stands."""
    out: dict[str, Any] = {}
    for name in table.fields():
        value = table.column(name).value(hit.row)
        if value is not None:
            out[name] = list(value) if isinstance(value, tuple) else value
    if hit.batch.format is RecordFormat.JSON:
        for name, value in native_fields(hit.raw).items():
            out.setdefault(name, value)
    out["event.original"] = decode(hit.raw)
    out["host.id"] = hit.key.host_id
    out["vedette.stream"] = hit.key.stream
    out["record.id"] = hit.record_id
    return out


def native_fields(raw: bytes) -> Mapping[str, Value]:
    """The fields of a JSON object by their own names, nested ones joined by dots."""
    try:
        top = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return {}
    out: dict[str, Any] = {}
    left: list[tuple[str, Any, int]] = [("", top, 0)]
    while left and len(out) < MOST_FIELDS:
        name, value, depth = left.pop()
        if isinstance(value, dict) and depth < DEEPEST:
            left += [(f"{name}.{key}" if name else key, one, depth + 1) for key, one in reversed(value.items())]
        elif name and value is not None:
            out[name] = value
    return out


def take(batch: Batch, rows: Int64) -> Batch:
    """These records of a batch and their bytes only, so that the rest of its block can be let go."""
    pieces = [batch.raw(row) for row in rows.tolist()]
    lengths = np.fromiter(map(len, pieces), np.int64, len(pieces))
    ends = np.cumsum(lengths + 1) - 1
    header = batch.header
    if header is not None:
        chosen = rows.tolist()
        header = GivenHeader(
            header.time[rows],
            [header.host[row] for row in chosen],
            [header.program[row] for row in chosen],
            header.pid[rows],
        )
    return replace(
        batch,
        block=b"\n".join([*pieces, b""]),
        starts=ends - lengths,
        ends=ends,
        positions=batch.positions[rows],
        trust=batch.trust if isinstance(batch.trust, Trust) else batch.trust[rows],
        header=header,
    )
