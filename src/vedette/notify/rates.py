"""When the next attempt may be: token bucket and back-off, pure.
Counterpart: `outbox` asks both before and after every attempt."""

from __future__ import annotations

from collections.abc import Callable

from vedette.model.clock import HOUR, SECOND
from vedette.notify.settings import Rate

# A server may ask for more patience than that; then it is asked again and says so again.
LONGEST_RETRY_AFTER = HOUR


class TokenBucket:
    """Lets at most `rate.per_minute` calls go in any 60 seconds; starts full. Times are microseconds."""

    def __init__(self, rate: Rate, now: int) -> None:
        self._interval = rate.interval
        self._span = rate.interval * rate.at_once
        # The time at which the bucket would be full again (GCRA's "theoretical arrival time").
        self._full_at = now

    def ready_at(self, now: int) -> int:
        """The earliest time a call may go: `now` or later."""
        # A clock that was set back must not lock the bucket for the difference.
        self._full_at = min(self._full_at, now + self._span)
        return max(now, self._full_at - self._span + self._interval)

    def take(self, now: int) -> None:
        """A call goes now; only after ready_at(now) == now."""
        self._full_at = max(self._full_at, now) + self._interval


def back_off(failures: int, longest: int, random: Callable[[], float]) -> int:
    """Microseconds to wait after the n-th failure in a row: 1, 2, 4 … seconds up to `longest`, half of it jitter."""
    delay = min(SECOND << min(max(failures - 1, 0), 40), longest)
    return delay // 2 + int(delay / 2 * random())
