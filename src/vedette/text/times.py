"""Times and durations as text: RFC 3339 with six digits, durations as people write them.
Counterpart: cli, notify and settings read and print times only through here."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
_PART = re.compile(r"([0-9]{1,12})(us|ms|s|m|h|d|w)")


def rfc3339(time: int) -> str:
    """Microseconds UTC as `2026-11-24T02:53:13.000000Z`; times outside year 1-9999 are clamped."""
    seconds, micros = divmod(time, 1_000_000)
    text = _second(seconds)
    return f"{text}.{micros:06d}Z" if text else _LATEST if time > 0 else _EARLIEST


_EARLIEST, _LATEST = "0001-01-01T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z"


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    """Seconds UTC as text; "" outside year 1-9999. Kept: most times that are printed share theirs with others."""
    try:
        moment = _EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        return ""
    return moment.replace(tzinfo=None).isoformat(timespec="seconds")


def parse_rfc3339(text: str) -> int:
    """The time `text` names in microseconds UTC; ValueError without a zone or where it is no time."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no zone: add Z or an offset")
    return (moment - _EPOCH) // timedelta(microseconds=1)


def parse_duration(text: str) -> int:
    """`90s`, `1h30m`, `7d`, `250ms` in microseconds; ValueError where it is none."""
    position = total = 0
    for part in _PART.finditer(text):
        if part.start() != position:
            break
        total += int(part[1]) * _UNITS[part[2]]
        position = part.end()
    if not text or position != len(text):
        raise ValueError(f"{text!r} is not a duration: write 90s, 10m, 1h30m, 7d")
    return total


def positive_duration(text: str) -> str:
    """`text` itself, a duration longer than nothing; ValueError where it is none. For settings, which keep the text."""
    if parse_duration(text) <= 0:
        raise ValueError("a duration above zero is needed")
    return text


def duration_text(duration: int) -> str:
    """Microseconds as the two largest units, `1h30m`; `0s` for nothing."""
    parts: list[str] = []
    rest = abs(duration)
    for unit in ("w", "d", "h", "m", "s", "ms", "us"):
        count, rest = divmod(rest, _UNITS[unit])
        if count:
            parts.append(f"{count}{unit}")
        if len(parts) == 2:
            break
    return ("-" if duration < 0 else "") + ("".join(parts) or "0s")
