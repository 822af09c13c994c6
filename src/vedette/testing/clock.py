"""A clock that stands still until it is told to go on.
Counterpart: model.clock.Clock, for which tests hand it in."""

from __future__ import annotations

# 2026-11-24T00:00:00Z, a fixed moment like any other.
START = 1_795_478_400_000_000


class FakeClock:
    """A Clock under the test's control; starts at `now` (microseconds UTC)."""

    def __init__(self, now: int = START) -> None:
        self._now = now

    def now(self) -> int:
        """Where it stands, microseconds UTC."""
        return self._now

    def advance(self, us: int) -> int:
        """Go on by `us` microseconds (negative: a clock that was set back); gives the new time."""
        self._now += us
        return self._now

    def set(self, us: int) -> int:
        """Jump to `us`; gives the new time."""
        self._now = us
        return self._now
