"""How far a response has climbed (observe, simulate, canary, enforce), how long it blocks, and the fuse.
Counterpart: policy asks for rung, lease and fuse; `config` sets them, `doctor` shows them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from vedette.model.clock import MINUTE
from vedette.model.decisions import Rung
from vedette.model.rules import Response
from vedette.respond.settings import FuseSettings


def rung_of(rungs: Mapping[str, Rung], rule_id: str) -> Rung:
    """The rung of a rule; one nobody spoke of observes."""
    return rungs.get(rule_id, Rung.OBSERVE)


def is_canary(patterns: Iterable[str], host_id: str, host_name: str) -> bool:
    """Whether a host is one of those named, by its id or its name."""
    return any(fnmatchcase(text, pattern) for pattern in patterns for text in (host_id, host_name) if text)


def lease_of(response: Response, offence: int) -> int:
    """Microseconds the `offence`-th block (from 1) of a target lasts: lease * factor**(offence-1), at most longest."""
    lease = response.lease
    if response.factor > 1:
        # Beyond 64 doublings every lease is the longest; the bound keeps a long history from making huge numbers.
        lease *= response.factor ** min(max(offence, 1) - 1, 64)
    return min(lease, max(response.longest, response.lease))


class FuseLimit(StrEnum):
    """Which limit blew the fuse."""

    PER_MINUTE = "per-minute"
    ACTIVE = "active"


@dataclass(frozen=True, slots=True)
class FuseBlown:
    """Said once when the fuse blows, again only after it held in between. A high-level event of ours."""

    limit: FuseLimit
    allowed: int
    at: int
    rule_id: str
    target: str


class Fuse:
    """At most so many new enforced decisions a minute and so many in all."""

    def __init__(self, settings: FuseSettings) -> None:
        self._settings = settings
        self._starts: deque[int] = deque()
        self.blown = False

    def reload(self, starts: Iterable[int]) -> None:
        """Begin from the start times (microseconds) of decisions that are known."""
        self._starts = deque(sorted(starts)[-self._settings.per_minute :])

    def check(self, now: int, active: int) -> FuseLimit | None:
        """The limit one more decision would break, or None."""
        while self._starts and self._starts[0] <= now - MINUTE:
            self._starts.popleft()
        while self._starts and self._starts[-1] > now:  # the clock was set back
            self._starts.pop()
        if len(self._starts) >= self._settings.per_minute:
            return FuseLimit.PER_MINUTE
        return FuseLimit.ACTIVE if active >= self._settings.active else None

    def count(self, now: int) -> None:
        """One more enforced decision."""
        self._starts.append(now)

    def allowed(self, limit: FuseLimit) -> int:
        """What is set for `limit`."""
        return self._settings.per_minute if limit is FuseLimit.PER_MINUTE else self._settings.active
