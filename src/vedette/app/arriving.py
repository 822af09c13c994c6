"""What an agent sent is looked at before it is let in: nothing in it may end the hub, or stand for another host.
Counterpart: `app.hub` asks; `fleet.messages` has seen to it that the parts of a message fit together."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from zoneinfo import ZoneInfo

from vedette.fleet.messages import MessageError, head_of
from vedette.model.batch import Batch
from vedette.model.clock import LATEST
from vedette.model.reasons import DropReason
from vedette.model.shipping import BatchKey, Dropped, Report

_INT64 = 1 << 63
_NAME = 1024
_SOURCES = 10_000


class Refused(StrEnum):
    """Why a batch, a gap or a report was not taken."""

    OF_ANOTHER_HOST = "of-another-host"
    """An agent ships what its own host reads and nothing else."""
    OF_ANOTHER_SOURCE = "of-another-source"
    """The stream is not that of the source."""
    TIMEZONE = "timezone"
    TIME = "time"
    TEXT = "text"
    """Too long, or no text that can be kept."""
    NUMBER = "number"
    TOO_MANY_STREAMS = "too-many-streams"
    """A host has a stream a source and sender, not one a message."""
    DEFECT = "defect"
    """It could not be taken in, for whatever reason."""


def refusal(event: tuple[BatchKey, Batch] | Dropped, host_id: str) -> Refused | None:
    """Why what came as this host's cannot be let into the lake; None where it can."""
    if isinstance(event, Dropped):
        if event.host_id != host_id:
            return Refused.OF_ANOTHER_HOST
        if not 0 <= event.at <= LATEST:
            return Refused.TIME
        return None if _are_names((event.stream, event.reason)) else Refused.TEXT
    key, batch = event
    if not key.host_id == batch.origin.host_id == host_id:
        return Refused.OF_ANOTHER_HOST
    if key.stream.removesuffix("#security") != batch.origin.source:
        return Refused.OF_ANOTHER_SOURCE
    if not _is_zone(batch.timezone):
        return Refused.TIMEZONE
    if not 0 <= batch.read_at <= LATEST:
        return Refused.TIME
    texts = {key.stream, batch.origin.generation, *batch.dropped}
    if batch.header is not None:
        if len(batch) and (int(batch.header.time.max()) > LATEST or int(batch.header.time.min()) < -LATEST):
            return Refused.TIME
        if not _can_be_kept({*batch.header.host, *batch.header.program}):
            return Refused.TEXT
    return None if _are_names(texts) and _can_be_kept((batch.cursor,)) else Refused.TEXT


def gap_of(packed: bytes, host_id: str, now: int) -> Dropped | None:
    """What is said in place of a batch of this host that is not taken, so that its stream goes on; None for others.

    A newer version's is none of them: its agent keeps it until this hub is as new.
    """
    try:
        head = head_of(packed)
    except MessageError:
        return None
    if head.host_id != host_id or not _are_names((head.stream,)):
        return None
    return Dropped(host_id, head.stream, head.number, head.number, head.rows, DropReason.REFUSED, now)


def known_reason(dropped: Dropped) -> str:
    """The reason of a gap, among those there are: what others say counts nothing under names of their own."""
    return dropped.reason if dropped.reason in set(DropReason) else DropReason.DEFECT


def report_refusal(report: Report, host_id: str) -> Refused | None:
    """Why what came as this host's report says nothing; None where it does."""
    if report.host_id != host_id:
        return Refused.OF_ANOTHER_HOST
    if not _are_names((report.host_name, report.session, report.version, *report.sources)):
        return Refused.TEXT
    if len(report.sources) > _SOURCES:
        return Refused.NUMBER
    times, numbers = [report.at, report.started_at], [report.sequence, report.bundle, report.spooled, report.spool_room]
    for state in report.sources.values():
        if not _are_names((state.generation, state.reason, *state.dropped, *state.upstream, *state.loggers_stopped)):
            return Refused.TEXT
        times += [state.read_at, *state.loggers_stopped.values()]
        numbers += [state.number, *state.dropped.values(), *state.upstream.values()]
        numbers += [state.position + 1, state.size + 1]
    if not all(0 <= time <= LATEST for time in times):
        return Refused.TIME
    return None if all(0 <= number < _INT64 for number in numbers) else Refused.NUMBER


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return False
    return True


def _are_names(texts: Iterable[str]) -> bool:
    each = list(texts)
    return all(len(text) <= _NAME for text in each) and _can_be_kept(each)


def _can_be_kept(texts: Iterable[str]) -> bool:
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return False
    return True
