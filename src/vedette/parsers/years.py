"""Times of logs that name neither year nor zone, made absolute.
Counterpart: `parsers.syslog` and `parsers.headers` read month, day and clock; this says when that was."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np

from vedette.model.batch import Batch, Int64
from vedette.model.clock import DAY, HOUR, MINUTE

MONTHS = {name: number for number, name in enumerate(b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)}

_EPOCH = date(1970, 1, 1).toordinal()


def start_of(year: int, month: int, day: int) -> int:
    """Microseconds of a day's beginning, UTC; the day must exist."""
    return (date(year, month, day).toordinal() - _EPOCH) * DAY


class Calendar:
    """Times without year and zone made absolute; a pure function of the record, `year`, `read_at` and the zone.

    `year` 0: the latest year that puts the record at most a day after `read_at`, by date; a Feb 29 falls
    back to the latest year that has one. `year` N: N, but N-1 where `read_at` lies in N and the record
    would lie more than a day after it. So a file that crosses New Year is read right, however it is cut, when
    it is given the year of its LAST record and that record's time as `read_at` (`span_of_file`).
    A local time that a change of clocks skipped or doubled is read with the offset before the change.
    Source: RFC 3164 section 4.1.2; PEP 495 (fold 0).
    """

    def __init__(self, year: int, read_at: int, timezone: str) -> None:
        self.year = year
        self.zone = None if timezone == "UTC" else ZoneInfo(timezone)
        latest = date.fromordinal(min(max(_EPOCH + (read_at + DAY) // DAY, 1), date.max.toordinal()))
        now = date.fromordinal(min(max(_EPOCH + read_at // DAY, 1), date.max.toordinal()))
        self._limit = (latest.year, latest.month, latest.day)
        self._now_year = now.year

    @classmethod
    def of(cls, batch: Batch) -> Calendar:
        """The calendar of a batch."""
        return cls(batch.year, batch.read_at, batch.timezone)

    def year_of(self, month: int, day: int) -> int | None:
        """The year of a month and day, or None where that year has no such day."""
        year, *rest = self._limit
        if self.year:
            if self._now_year == self.year and (self.year, month, day) > self._limit:
                year = self.year - 1
            else:
                year = self.year
            return year if exists(year, month, day) else None
        if (month, day) > (rest[0], rest[1]):
            year -= 1
        if (month, day) == (2, 29):
            year = next((past for past in range(year, year - 9, -1) if exists(past, 2, 29)), year)
        return year if exists(year, month, day) else None

    def absolute(self, year: int, month: int, day: int, hour: int, minute: int) -> int:
        """Microseconds UTC of a local minute that exists in the calendar."""
        local = start_of(year, month, day) + hour * HOUR + minute * MINUTE
        return local - self._offset(year, month, day, hour, minute)

    def hour(self, year: int, month: int, day: int, hour: int) -> Int64:
        """Microseconds UTC of the sixty minutes of a local hour."""
        first, last = (self._offset(year, month, day, hour, minute) for minute in (0, 59))
        if first == last:
            return self.absolute(year, month, day, hour, 0) + np.arange(60, dtype=np.int64) * MINUTE
        return np.array([self.absolute(year, month, day, hour, minute) for minute in range(60)], dtype=np.int64)

    def _offset(self, year: int, month: int, day: int, hour: int, minute: int) -> int:
        if self.zone is None:
            return 0
        offset = datetime(year, month, day, hour, minute, tzinfo=self.zone).utcoffset() or timedelta()
        return offset // timedelta(microseconds=1)


@lru_cache(maxsize=4096)
def exists(year: int, month: int, day: int) -> bool:
    """Whether there is such a day."""
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True
