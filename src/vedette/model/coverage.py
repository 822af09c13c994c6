"""Which minutes of which host are not covered, and why: what a search result says of itself.
Counterpart: `app.coverage` finds it out from the lake; `cli.fleet_coverage` and search results show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from vedette.model.clock import MINUTE, SECOND

MOST_WORDS = 20


class GapReason(StrEnum):
    """Why something is not covered. Those that a `Fault` is behind are spelled as it is."""

    AGENT_ABSENT = "agent-absent"
    AGENT_STOPPED = "agent-stopped"
    SOURCE_ABSENT = "source-absent"
    SOURCE_STOPPED = "source-stopped"
    SOURCE_SHRUNK = "source-shrunk"
    STREAM_BEHIND = "stream-behind"
    """What was written is not here yet."""
    BATCHES_MISSING = "batches-missing"
    RECORDS_DROPPED = "records-dropped"
    UPSTREAM_DROPPED = "upstream-dropped"
    """Whoever wrote the log said that it lost some."""
    LOGGER_STOPPED = "logger-stopped"
    HUB_BEHIND = "hub-storage-behind"
    LET_GO = "let-go"
    """It was stored, and is kept no longer, on purpose."""
    NOT_WATCHED = "not-watched"
    """The lake has nothing of this host that is so old."""


@dataclass(frozen=True, slots=True)
class Gap:
    """since <= `@timestamp` < until of this host's stream is not covered, or not whole; microseconds.

    stream: "" = all of them. detail: in whose words, or a `DropReason`; "" where there is no more to say.
    """

    host_id: str
    host_name: str
    stream: str
    since: int
    until: int
    reason: GapReason
    detail: str = ""

    @property
    def minutes(self) -> int:
        """How many minutes of the clock it touches."""
        return -(-self.until // MINUTE) - self.since // MINUTE

    @property
    def words(self) -> str:
        """Why, as a person reads it."""
        where = f" ({self.stream})" if self.stream else ""
        return f"{self.reason.value.replace('-', ' ')}{where}"


@dataclass(frozen=True, slots=True)
class Erased:
    """Single records of a host that were erased because somebody asked: how many, when the last of them went.

    Of batches with a record in the time that is asked for; whether the erased ones were in it, nobody knows any more.
    """

    host_id: str
    host_name: str
    records: int
    at: int

    @property
    def words(self) -> str:
        """As a person reads it."""
        count = f"{self.records} {'record' if self.records == 1 else 'records'}"
        day = datetime.fromtimestamp(self.at // SECOND, UTC)
        return f"{self.host_name or self.host_id}: {count} erased on request, last on {day:%Y-%m-%d}"


@dataclass(frozen=True, slots=True)
class Statement:
    """What is known of the coverage of since <= `@timestamp` < until; gaps: by host, then by time.

    erased: a host each. What is here is whole but for those, and the ledger says who asked, and why.
    """

    since: int
    until: int
    gaps: Sequence[Gap] = ()
    erased: Sequence[Erased] = ()

    @property
    def complete(self) -> bool:
        """Whether no time is known to be missing."""
        return not self.gaps

    @property
    def minutes(self) -> Mapping[str, int]:
        """Host id -> minutes of the clock that are not covered; of hosts with a gap."""
        counts: dict[str, int] = {}
        last: dict[str, int] = {}
        for gap in sorted(self.gaps, key=lambda gap: gap.since):
            first, end = gap.since // MINUTE, -(-gap.until // MINUTE)
            first = max(first, last.get(gap.host_id, first))
            counts[gap.host_id] = counts.get(gap.host_id, 0) + max(end - first, 0)
            last[gap.host_id] = max(end, first)
        return counts

    @property
    def words(self) -> Sequence[str]:
        """One a host, most minutes first: `web03: 14 minutes not covered: agent absent`."""
        said = []
        minutes = self.minutes
        for host_id in sorted(minutes, key=lambda one: (-minutes[one], one))[:MOST_WORDS]:
            mine = sorted((gap for gap in self.gaps if gap.host_id == host_id), key=lambda gap: gap.since - gap.until)
            why = list(dict.fromkeys(gap.words for gap in mine))
            more = f" and {len(why) - 3} more" if len(why) > 3 else ""
            count = minutes[host_id]
            said.append(
                f"{mine[0].host_name or host_id}: {count} {'minute' if count == 1 else 'minutes'} not covered: "
                f"{', '.join(why[:3])}{more}"
            )
        if len(minutes) > MOST_WORDS:
            said.append(f"{len(minutes) - MOST_WORDS} more hosts with gaps")
        said += [one.words for one in self.erased[:MOST_WORDS]]
        if len(self.erased) > MOST_WORDS:
            said.append(f"{len(self.erased) - MOST_WORDS} more hosts with erased records")
        return said

    def __str__(self) -> str:
        if self.complete:
            return "complete" + (f" but for {'; '.join(self.words)}" if self.erased else "")
        return "; ".join(self.words)
