"""What is missing without a file of the spool, or in one that is damaged: exactly which numbers.
Counterpart: `fleet.spool` says it to the hub in place of what went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from vedette.fleet import messages, segments
from vedette.fleet.segments import FrameKind, Segment
from vedette.model.ranges import Ranges
from vedette.model.reasons import DropReason
from vedette.model.shipping import Dropped


@dataclass(frozen=True, slots=True)
class Lost:
    """What is lost with a file. went: its batches; again: gaps it tells of; missing: what was in it and is not."""

    went: Sequence[Dropped]
    again: Sequence[Dropped]
    missing: Sequence[Dropped]


def lost_with(segment: Segment, reason: DropReason, *, host_id: str, confirmed: Mapping[str, Ranges], now: int) -> Lost:
    """What nobody else has without this file, `reason` why it goes; nothing of what is confirmed (by stream)."""
    went: list[Dropped] = []
    again: list[Dropped] = []
    try:
        data = segments.part(segment.path, 0, segment.size)
    except OSError:
        data = b""
    left = {stream: found.without(confirmed.get(stream, Ranges())) for stream, found in segment.batches.items()}
    for each in segments.frames(data, len(segments.HEADER), resync=True):
        if each.kind is FrameKind.BATCH:
            head = messages.head_of(each.payload)
            if head.number in left.get(head.stream, ()):
                went.append(Dropped(host_id, head.stream, head.number, head.number, head.rows, reason, now))
        elif each.kind is FrameKind.DROPPED:
            gap = messages.unpack_dropped(each.payload)
            if Ranges([(gap.first, gap.last)]).without(confirmed.get(gap.stream, Ranges())) != Ranges():
                again.append(gap)
    for stream, found in segment.said.items():
        # Damaged, too, and more of it than is known.
        left[stream] = Ranges([*left.get(stream, ()), *found.without(confirmed.get(stream, Ranges()))])
    for one in (*went, *again):
        left[one.stream] = left.get(one.stream, Ranges()).without(Ranges([(one.first, one.last)]))
    return Lost(merged(went), again, unknown(left, host_id=host_id, now=now))


def unknown(
    numbers: Mapping[str, Ranges], *, host_id: str, now: int, reason: DropReason = DropReason.SPOOL_DAMAGED
) -> list[Dropped]:
    """Gaps of which nobody knows how much was in them."""
    return [
        Dropped(host_id, stream, first, last, -1, reason, now)
        for stream, found in numbers.items()
        for first, last in found
    ]


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
