"""How loud a rule would have been over records that were: what a person looks at before its alerts may go further.
Counterpart: `app.promotion` replays and writes the step, `cli.rules.promoting` prints the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo

from vedette.model.clock import DAY
from vedette.model.findings import Finding

NIGHT = (22, 6)
"""From this hour until before that one people are asleep."""
QUIET = DAY
"""A key that was quiet for so long makes a new alert: until then somebody has looked at the last one."""
SHOWN = 10


def count_of(number: int, what: str) -> str:
    """`3 files`, `1 file`."""
    return f"{number} {what}" + ("" if number == 1 else "s")


@dataclass(frozen=True, slots=True)
class Daily:
    """One day, as its date in the zone of the report."""

    date: str
    findings: int
    alerts: int


@dataclass(frozen=True, slots=True)
class Report:
    """What a rule would have done. begin, end: of the records looked at, microseconds, 0 where there were none.

    days: calendar days from begin to end. alerts: after findings of one key are joined, a key quiet for QUIET
    counting anew. by_day: days with findings, in order. hosts, keys: the loudest, with their findings. night:
    findings from NIGHT on. zone: whose hours these are.
    """

    rule_id: str
    files: int
    records: int
    begin: int
    end: int
    days: int
    findings: int
    alerts: int
    first: int
    last: int
    by_day: tuple[Daily, ...]
    hosts: tuple[tuple[str, int], ...]
    hosts_total: int
    keys: tuple[tuple[str, int], ...]
    keys_total: int
    night: int
    zone: str

    @property
    def busiest(self) -> Daily | None:
        """The day with the most alerts, the first of several."""
        return max(self.by_day, key=lambda day: day.alerts, default=None)

    @property
    def alerts_a_day(self) -> float:
        """On average."""
        return self.alerts / self.days if self.days else 0.0

    def sentence(self) -> str:
        """In one line, as the audit keeps it."""
        if not self.records:
            return "no records looked at"
        of = (
            f"{count_of(self.alerts, 'alert')} ({count_of(self.findings, 'finding')}) "
            f"in {count_of(self.days, 'day')} of {count_of(self.records, 'record')}"
        )
        busiest = self.busiest
        return of + (f", at most {busiest.alerts} a day" if busiest else "")


@dataclass(slots=True)
class Tally:
    """Counts findings of one rule as they come, in order of time; memory goes with distinct keys, not findings."""

    rule_id: str
    zone: tzinfo = UTC
    _days: dict[str, list[int]] = field(default_factory=dict)
    _hosts: Counter[str] = field(default_factory=Counter)
    _keys: Counter[str] = field(default_factory=Counter)
    _heard: dict[str, int] = field(default_factory=dict)
    _findings: int = 0
    _alerts: int = 0
    _night: int = 0
    first: int = 0
    last: int = 0

    def add(self, finding: Finding, alert_key: str, words: str) -> None:
        """Count a finding. alert_key: what its alert is keyed by; words: the same for people."""
        if finding.rule_id != self.rule_id:
            return
        at = datetime.fromtimestamp(finding.time / 1_000_000, self.zone)
        day = self._days.setdefault(at.date().isoformat(), [0, 0])
        heard = self._heard.get(alert_key)
        if heard is None or finding.time - heard > QUIET:
            self._alerts += 1
            day[1] += 1
        self._heard[alert_key] = finding.time if heard is None else max(heard, finding.time)
        day[0] += 1
        self._findings += 1
        self._night += at.hour >= NIGHT[0] or at.hour < NIGHT[1]
        self._hosts[finding.host_name or "(unnamed)"] += 1
        self._keys[words] += 1
        self.first = min(self.first or finding.time, finding.time)
        self.last = max(self.last, finding.time)

    def report(self, *, files: int, records: int, begin: int, end: int, zone: str = "UTC") -> Report:
        """What was counted. begin, end: of the records, microseconds."""
        days = 0
        if records:
            first, last = (datetime.fromtimestamp(time / 1_000_000, self.zone).date() for time in (begin, end))
            days = (last - first).days + 1
        return Report(
            rule_id=self.rule_id,
            files=files,
            records=records,
            begin=begin,
            end=end,
            days=days,
            findings=self._findings,
            alerts=self._alerts,
            first=self.first,
            last=self.last,
            by_day=tuple(Daily(date, *counts) for date, counts in sorted(self._days.items())),
            hosts=_loudest(self._hosts),
            hosts_total=len(self._hosts),
            keys=_loudest(self._keys),
            keys_total=len(self._keys),
            night=self._night,
            zone=zone,
        )


def _loudest(counts: Counter[str]) -> tuple[tuple[str, int], ...]:
    ranked: Sequence[tuple[str, int]] = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    return tuple(ranked[:SHOWN])
