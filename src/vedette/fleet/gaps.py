"""What is missing without a file of the spool, or in one that is damaged: exactly which numbers.
Counterpart: `fleet.spool` says it to the hub in place of what went."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from vedette.fleet import messages, segments
from vedette.fleet.segments import FrameKind, Segment
from vedette.model.reasons import DropReason
from vedette.model.shipping import Dropped


def gaps_of(
    segment: Segment,
    reason: DropReason,
    *,
    host_id: str,
    through: Mapping[str, int],
    others: Iterable[Segment],
    owed: Sequence[Dropped],
    now: int,
) -> list[Dropped]:
    """What would be missing without this file, or is missing in it where `reason` is damage.

    That is unconfirmed numbers (through: stream -> last confirmed), and gaps the file itself tells of. others: the
    files that stay; owed: gaps that are known and not written yet.
    """
    there: list[Dropped] = []
    try:
        data = segments.part(segment.path, 0, segment.size)
    except OSError:
        data = b""
    reached, whole = len(segments.HEADER), True
    for each in segments.frames(data, reached, resync=True):
        reached, whole = each.end, whole and not each.bad
        if each.kind is FrameKind.BATCH:
            head = messages.head_of(each.payload)
            there.append(Dropped(host_id, head.stream, head.number, head.number, head.rows, reason, now))
        elif each.kind is FrameKind.DROPPED:
            there.append(messages.unpack_dropped(each.payload))
    there = merged([one for one in there if one.last > through.get(one.stream, 0)])
    missing: list[Dropped] = []
    if not whole or reached != segment.size:
        ends = [end for each in others for end in each.spans.items()]
        ends += [*through.items(), *((one.stream, one.last) for one in owed)]
        for stream, last in segment.spans.items():
            before = [number for name, number in ends if name == stream and number < last]
            mine = [one for one in there if one.stream == stream]
            example = Dropped(host_id, stream, last, last, -1, DropReason.SPOOL_DAMAGED, now)
            missing += _missing(mine, max(before, default=0), example)
    return missing if reason is DropReason.SPOOL_DAMAGED else merged([*there, *missing])


def _missing(there: Sequence[Dropped], expected: int, last: Dropped) -> list[Dropped]:
    """What is not there behind `expected` up to the number of `last`."""
    missing: list[Dropped] = []
    for one in there:
        if one.first > expected + 1:
            missing.append(replace(last, first=expected + 1, last=one.first - 1))
        expected = max(expected, one.last)
    if expected < last.last:
        missing.append(replace(last, first=expected + 1))
    return missing


def merged(gaps: Sequence[Dropped]) -> list[Dropped]:
    """Gaps of a stream that follow each other for the same reason become one; the rest as they are, by stream."""
    out: list[Dropped] = []
    for gap in sorted(gaps, key=lambda one: (one.stream, one.first)):
        last = out[-1] if out else None
        if last and (last.stream, last.reason) == (gap.stream, gap.reason) and gap.first == last.last + 1:
            records = -1 if -1 in (last.records, gap.records) else last.records + gap.records
            out[-1] = replace(last, last=gap.last, records=records, at=max(last.at, gap.at))
        else:
            out.append(gap)
    return out
