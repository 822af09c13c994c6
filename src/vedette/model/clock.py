"""Time as the house counts it: int64 microseconds UTC, handed in, never looked up.
Counterpart: `app` hands the system's clock in, tests hand in `testing.FakeClock`."""

from __future__ import annotations

import time
from typing import Protocol

MILLISECOND = 1_000
SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
BEGINNING = -(2**62)
"""Earlier than any time; far enough from the end of int64 that spans may be taken from it."""
LATEST = 253_402_300_799_000_000
"""The end of the year 9999: what is later cannot be written as a date."""


class Clock(Protocol):
    """Where a stage gets the time from."""

    def now(self) -> int:
        """Wall time, microseconds UTC since the epoch."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> int:
        """Wall time, microseconds UTC since the epoch."""
        return time.time_ns() // 1000  # noqa: TID251 (the one place that asks the machine)
