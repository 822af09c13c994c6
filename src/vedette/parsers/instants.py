"""Times that JSON events and web logs carry as text or number, made microseconds UTC, a whole column at a time.
Counterpart: `parsers.json`, `audit` and `access` find the values; `parsers.years` does syslog headers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from vedette.model.batch import Int64
from vedette.model.clock import DAY, HOUR, MINUTE, SECOND
from vedette.parsers.years import start_of

NO_TIME = np.iinfo(np.int64).min
"""What stands for "no time" in arrays of this module."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# Years outside are mistakes; within them no arithmetic leaves 64 bits.
_FIRST, _LAST = start_of(1601, 1, 1), start_of(9998, 1, 1)

_FRACTION = re.compile(r"([.,]\d{6})\d+")
_MANAGED = re.compile(r"\\?/Date\((-?\d{1,16})(?:[+-]\d{4})?\)\\?/")
_NUMBER = re.compile(r"-?\d{1,20}(?:\.\d{1,9})?")


def micros_of(value: object, zone: ZoneInfo | None = None) -> int | None:
    """One time: ISO 8601, an epoch in seconds to nanoseconds, or .NET's `/Date(ms)/`; None where it is none.

    zone: of texts that name none; None is UTC.
    """
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return _epoch(value)
    if not isinstance(value, str) or not 8 <= len(value) <= 48:
        return None
    text = value.strip()
    if _NUMBER.fullmatch(text):
        return _epoch(float(text) if "." in text else int(text))
    if managed := _MANAGED.fullmatch(text):
        return _within(int(managed[1]) * 1000)
    text = _FRACTION.sub(r"\1", text).removesuffix(" UTC")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone or UTC)
    try:
        return _within((moment - _EPOCH) // _MICROSECOND)
    except OverflowError:
        return None


def _epoch(number: float) -> int | None:
    """Seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by size; 1973 to 2255."""
    for limit, scale in ((1e10, 1_000_000.0), (1e13, 1000.0), (1e16, 1.0), (1e19, 0.001)):
        if 1e8 <= number < limit:
            if isinstance(number, int):
                return _within(number // 1000 if scale < 1 else number * int(scale))
            return _within(round(number * scale))
    return None


def _within(micros: int) -> int | None:
    return micros if _FIRST <= micros < _LAST else None


def column_of(values: Sequence[object], zone: ZoneInfo | None = None) -> Int64:
    """int64[n] of `micros_of` each value, NO_TIME where it is None."""
    n = len(values)
    if n >= 16 and set(map(type, values)) == {str}:
        found = _same_layout([value for value in values if isinstance(value, str)], zone)
        if found is not None:
            return found
    out = np.empty(n, dtype=np.int64)
    known: dict[object, int] = {}
    for row, value in enumerate(values):
        micros = known.get(value) if type(value) is str else None
        if micros is None:
            made = micros_of(value, zone)
            micros = NO_TIME if made is None else made
            if type(value) is str:
                known[value] = micros
        out[row] = micros
    return out


def _same_layout(texts: list[str], zone: ZoneInfo | None) -> Int64 | None:
    """Texts of one length, `YYYY-MM-DD?HH:MM:SS[.fraction][Z]` in ASCII; None where one is otherwise."""
    width = len(texts[0])
    if not 19 <= width <= 30 or (zone is not None and not texts[0].endswith("Z")):
        return None
    joined = "".join(texts)
    if not joined.isascii() or len(joined) != width * len(texts):
        return None
    grid = np.frombuffer(joined.encode(), dtype=np.uint8).reshape(len(texts), width).T
    end = width - (texts[0][-1] == "Z")
    if end != 19 and not (texts[0][19] == "." and end > 20):
        return None
    for place, mark in ((4, b"-"), (7, b"-"), (13, b":"), (16, b":"), *(((19, b"."),) if end > 19 else ())):
        if not (grid[place] == mark[0]).all():
            return None
    if not ((grid[10] == 0x54) | (grid[10] == 0x20)).all() or (end < width and not (grid[end] == 0x5A).all()):
        return None
    digits = (grid - 48).astype(np.int64)
    places = [0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18, *range(20, end)]
    if any((grid[place] - 48 > 9).any() for place in places):
        return None

    def number(start: int, stop: int) -> Int64:
        total: Int64 = digits[start]
        for place in range(start + 1, stop):
            total = total * 10 + digits[place]
        return total

    year, month, day = number(0, 4), number(5, 7), number(8, 10)
    hour, minute, second = number(11, 13), number(14, 16), number(17, 19)
    bad = (year < 1601) | (year > 9997) | (month < 1) | (month > 12) | (day < 1) | (day > _days(year, month))
    bad |= (hour > 23) | (minute > 59) | (second > 59)
    if bad.any():
        return None
    fraction = np.zeros(len(texts), dtype=np.int64)
    if end > 20:
        kept = min(end, 26)
        fraction = number(20, kept) * 10 ** (26 - kept)
    days = _days_since_epoch(year, month, day)
    micros: Int64 = days * DAY + hour * HOUR + minute * MINUTE + second * SECOND + fraction
    return micros


_LENGTHS = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], dtype=np.int64)


def _leap(year: Int64) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    return found


def _days(year: Int64, month: Int64) -> Int64:
    lengths: Int64 = _LENGTHS[np.clip(month, 0, 12)] + ((month == 2) & _leap(year))
    return lengths


def _days_since_epoch(year: Int64, month: Int64, day: Int64) -> Int64:
    """Days of the proleptic Gregorian calendar: a year begins in March, so that the leap day is its last."""
    shifted = year - (month <= 2)
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    found: Int64 = shifted * 365 + shifted // 4 - shifted // 100 + shifted // 400 + of_year - 719_468
    return found
