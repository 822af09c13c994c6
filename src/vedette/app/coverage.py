"""Says from the lake alone which minutes of which host are not covered, and why; silence is not a gap.
Counterpart: `sources.liveness` tells faults into the lake; `cli.fleet_coverage` and search results show it."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import orjson

from vedette.app.host import known_host_id
from vedette.model.clock import BEGINNING, MINUTE, SECOND
from vedette.model.coverage import Erased, Gap, GapReason, Statement
from vedette.model.liveness import DATASET, KEYED, NAME, OVER, RESTATED, STANDS, Fault, LivenessReason
from vedette.model.ranges import Ranges
from vedette.model.shipping import BatchKey, Dropped
from vedette.store.lake.listing import Tombstone
from vedette.store.lake.reader import END, Reader, Scan
from vedette.store.lake.spans import Span, erasures, spans, tombstones
from vedette.text.times import parse_rfc3339

_SECURITY = "#security"
_REPORTED = 10 * SECOND
"""A loss that a report tells of lies so long before it at most."""
_HELD = 5 * MINUTE
"""What happened once is told as over so long after it happened last."""
_MOMENTS = frozenset({Fault.SOURCE_SHRUNK, Fault.RECORDS_DROPPED, Fault.UPSTREAM_DROPPED})
_LATE = frozenset({Fault.STREAM_BEHIND, Fault.HUB_BEHIND})
"""Once it is over, all is here."""
_REASONS = {
    Fault.AGENTS_ABSENT: GapReason.AGENT_ABSENT,
    **{Fault(one.value): one for one in GapReason if one.value in {fault.value for fault in Fault}},
}
_LISTENING = frozenset({"syslog", "stdin"})
_BY_NUMBER = frozenset({Fault.BATCHES_MISSING})
"""The lake knows better which."""

StreamName = tuple[str, str]


def statement(
    reader: Reader,
    hosts: AbstractSet[str],
    since: int,
    until: int,
    now: int,
    *,
    hub: str | None = None,
    names: Mapping[str, str] | None = None,
) -> Statement:
    """What is not covered of since <= `@timestamp` < until, on these hosts (ids; empty = all that are known).

    hub: the host id whose faults are believed, "" = anybody's; None = that of the data folder this lake lies in.
    names: host id -> name, where faults do not tell it.
    since BEGINNING asks for what there is: then nobody was watched too late.
    """
    until = max(min(until, now), since)
    hub = known_host_id(reader.folder.parent) if hub is None else hub
    known = _Known(reader)
    faults = _faults(reader, min(since, known.newest(hub)), until, now, hub)
    wanted = set(hosts) or {host_id for host_id, _ in known.streams} | {one.host_id for one in faults if one.host_id}
    called = {hub: socket.gethostname(), **(names or {})} | {
        one.host_id: one.host_name for one in faults if one.host_name
    }
    found = [*known.gaps(wanted, since), *_of_faults(faults, known, wanted, now)]
    gaps = {
        Gap(gap.host_id, called.get(gap.host_id, ""), gap.stream, begin, end, gap.reason, gap.detail)
        for gap in found
        if (begin := max(gap.since, since)) < (end := min(gap.until, until))
    }
    ordered = sorted(gaps, key=lambda gap: (gap.host_id, gap.since, gap.stream, gap.reason))
    return Statement(since, until, ordered, _erased(reader, wanted, called, since, until))


def _erased(
    reader: Reader, hosts: AbstractSet[str], called: Mapping[str, str], since: int, until: int
) -> Sequence[Erased]:
    counts: dict[str, tuple[int, int]] = {}
    for one in erasures(reader, since, until):
        if one.host_id in hosts:
            records, at = counts.get(one.host_id, (0, 0))
            counts[one.host_id] = records + one.records, max(at, one.at)
    return [Erased(host_id, called.get(host_id, ""), *found) for host_id, found in sorted(counts.items())]


# ------------------------------------------------------------------------------------------------------ by number


class _Known:
    """What numbers are here, which are not, and when those must have been."""

    def __init__(self, reader: Reader) -> None:
        self.streams: dict[StreamName, Ranges] = {name: found.copy() for name, found in reader.stored().items()}
        self._reader = reader
        self._dropped: dict[StreamName, list[Dropped]] = {}
        for dropped in reader.dropped():
            self._dropped.setdefault((dropped.host_id, dropped.stream), []).append(dropped)
            self.streams.setdefault((dropped.host_id, dropped.stream), Ranges())
        self._gone: dict[StreamName, list[Tombstone]] = {}
        for stone in tombstones(reader):
            self._gone.setdefault((stone.host_id, stone.stream), []).append(stone)

    def gaps(self, hosts: AbstractSet[str], since: int) -> Iterator[Gap]:
        """Gaps of these hosts, not yet cut to the time that is asked for; nothing is told that ends before since."""
        here = {name: self._here(name) for name in self.streams if name[0] in hosts}
        missing = {name: list(self._missing(name, ranges)) for name, ranges in here.items()}
        keys: set[BatchKey] = set()
        for name, ranges in here.items():
            keys.update(BatchKey(*name, first) for first, _ in list(ranges)[:1])
            for first, last in missing[name]:
                keys.update((BatchKey(*name, first - 1), BatchKey(*name, last + 1)))
        found = spans(self._reader, sorted(keys))
        begun: dict[str, int] = {}
        for (host_id, stream), ranges in here.items():
            for first, _ in list(ranges)[:1]:
                span = found.get(BatchKey(host_id, stream, first))
                if span is not None:
                    begin = min(span.earliest, span.read_at)
                    begun[host_id] = min(begun.get(host_id, begin), begin)
        for name, numbers in missing.items():
            for first, last in numbers:
                yield from self._gap(name, first, last, found, begun)
        gone = {host_id for host_id, _ in self._gone}
        for host_id in hosts:
            begin = begun.get(host_id, END)
            if since > BEGINNING and since < begin and host_id not in gone:
                yield Gap(host_id, "", "", since, begin, GapReason.NOT_WATCHED)

    def newest(self, hub: str) -> int:
        """When the source `liveness` told something last; END where it never did."""
        last = [
            BatchKey(*name, ranges.last)
            for name, ranges in self.streams.items()
            if name[1] == NAME and (not hub or name[0] == hub)
        ]
        return max((span.read_at for span in spans(self._reader, last).values()), default=END)

    def _here(self, name: StreamName) -> Ranges:
        gone = Ranges((one.first, one.last) for one in self._gone.get(name, ()))
        kept = Ranges()
        for first, last in self.streams[name]:
            at = first
            for low, high in gone:
                if high >= at and low <= last:
                    kept.add(at, low - 1)
                    at = high + 1
            kept.add(at, last)
        return kept

    def _missing(self, name: StreamName, here: Ranges) -> Iterator[tuple[int, int]]:
        yield from here.gaps()
        told = (*self._dropped.get(name, ()), *self._gone.get(name, ()))
        last = max((one.last for one in told), default=0)
        if last > here.last:
            yield here.last + 1, last

    def _gap(
        self, name: StreamName, first: int, last: int, found: Mapping[BatchKey, Span], begun: Mapping[str, int]
    ) -> Iterator[Gap]:
        """Between the batch before and the one behind: at most so long is what these numbers were of."""
        told = Ranges()
        reasons: dict[tuple[GapReason, str], int] = {}
        for dropped in self._dropped.get(name, ()):
            if dropped.first <= last and dropped.last >= first:
                told.add(dropped.first, dropped.last)
                reasons[GapReason.RECORDS_DROPPED, dropped.reason] = dropped.at
        for stone in self._gone.get(name, ()):
            if stone.first <= last and stone.last >= first:
                told.add(stone.first, stone.last)
                reasons[GapReason.LET_GO, stone.reason] = stone.at
        if told.through(first) < last:
            reasons[GapReason.BATCHES_MISSING, ""] = 0
        before, behind = found.get(BatchKey(*name, first - 1)), found.get(BatchKey(*name, last + 1))
        begin = END if before is None else min(before.latest, before.read_at)
        if behind is None:
            end = max(reasons.values())
        else:
            end = min(behind.latest, behind.read_at)
            if before is not None and end < begin:
                end = behind.read_at
        for reason, detail in reasons:
            low = begin
            if before is None:
                low = BEGINNING if reason is GapReason.LET_GO else min(begun.get(name[0], end), end)
            yield Gap(name[0], "", name[1].removesuffix(_SECURITY), low, max(end, low + 1), reason, detail)


# -------------------------------------------------------------------------------------------------- by what was said


@dataclass(slots=True)
class _Fault:
    """A fault of one host, or of all ("")."""

    fault: Fault
    host_id: str
    host_name: str
    stream: str
    since: int
    reason: str
    over: int = 0
    ended_by: str = ""
    resumed: bool = False


@dataclass(slots=True)
class _Folded:
    """Records of the source `liveness` in their order, as faults that stand and that are over."""

    open: dict[tuple[str, ...], list[_Fault]] = field(default_factory=dict)
    over: list[_Fault] = field(default_factory=list)

    def take(self, record: Mapping[str, Any]) -> None:
        """One record; what does not look like one of ours is none."""
        try:
            action, about = record["event"]["action"], record["vedette"]["liveness"]
            if record["event"]["dataset"] != DATASET:
                return
            ended, stands = action.endswith(OVER), action.endswith(STANDS)
            fault = Fault(action.removesuffix(OVER).removesuffix(STANDS))
            host = record.get("host", {})
            members = about.get("host_ids", ()) if fault is Fault.AGENTS_ABSENT else (host.get("id", ""),)
            reason = str(about.get("reason", ""))
            since, at = parse_rfc3339(about["since"]), parse_rfc3339(record["@timestamp"])
            stream = str(about.get("stream", ""))
            key = (fault, str(about.get("host_id", "")), stream, about["since"], reason if fault in KEYED else "")
            if stands and key in self.open and fault is not Fault.AGENTS_ABSENT:
                return
            before = self.open.pop(key, [])
            found = [
                _Fault(fault, str(one), str(host.get("name", "")), stream.removesuffix(_SECURITY), since, reason)
                for one in members
            ]
        except (KeyError, TypeError, ValueError, AttributeError):
            return
        if not ended:
            self.open[key] = found
            return
        for one in found:
            one.over, one.ended_by, one.resumed = at, reason, about.get("resumed") is True
            one.reason = before[0].reason if before else ""
            self.over.append(one)


def _faults(reader: Reader, since: int, until: int, now: int, hub: str) -> list[_Fault]:
    """All that stood at any moment of this time, and how it ended."""
    folded = _Folded()
    # All that stands is told every hour again: nothing older needs to be read.
    enough = until + RESTATED + 10 * MINUTE
    _fold(reader, folded, since - RESTATED - 10 * MINUTE, enough, hub)
    if enough < now and folded.open:
        _fold(reader, folded, enough, END, hub)
    return [*folded.over, *(one for faults in folded.open.values() for one in faults)]


def _fold(reader: Reader, folded: _Folded, since: int, until: int, hub: str) -> None:
    scan = Scan(since=since, until=until, hosts=frozenset({hub} if hub else ()), streams=frozenset({NAME}))
    for part in reader.scan(scan):
        for row in range(len(part.batch)):
            try:
                record = orjson.loads(part.batch.raw(row))
            except orjson.JSONDecodeError:
                continue
            if isinstance(record, dict):
                folded.take(record)


def listens(stream: str) -> bool:
    """Whether what nobody hears is lost; all others read on where they stopped, or are sent it again."""
    return stream.removesuffix(_SECURITY).split(":", 1)[0] in _LISTENING


def _of_faults(faults: Iterable[_Fault], known: _Known, hosts: AbstractSet[str], now: int) -> Iterator[Gap]:
    faults = list(faults)
    stopped = {(one.host_id, one.since) for one in faults if one.fault is Fault.AGENT_STOPPED}
    for one in faults:
        reason = _REASONS.get(one.fault)
        if reason is None or one.fault in _BY_NUMBER:
            continue
        begin, end = one.since, one.over or now
        if one.fault in _MOMENTS:
            begin -= _REPORTED
            end = max(one.since, one.over - _HELD) + 1 if one.over else now
        streams = [one.stream]
        if one.over and one.fault in _LATE:
            continue
        if one.over and reason in (GapReason.AGENT_ABSENT, GapReason.AGENT_STOPPED):
            if one.resumed or (one.ended_by == LivenessReason.RETIRED and one.fault is Fault.AGENT_STOPPED):
                continue  # it read on, and numbers say what did not come
            if one.fault is Fault.AGENT_STOPPED or (one.host_id, one.since) in stopped:
                streams = sorted(
                    {
                        stream.removesuffix(_SECURITY)
                        for host_id, stream in known.streams
                        if host_id == one.host_id and listens(stream)
                    }
                )
        for host_id in hosts if not one.host_id else hosts & {one.host_id}:
            for stream in streams:
                detail = one.reason if one.fault in KEYED else ""
                yield Gap(host_id, one.host_name, stream, begin, max(end, begin + 1), reason, detail)
