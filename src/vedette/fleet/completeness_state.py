"""What is remembered of hosts and streams to tell what is missing; kept in a cursor over restarts.
Counterpart: `completeness` judges by it."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from vedette.model.clock import DAY, MINUTE, SECOND
from vedette.model.errors import StateError

NAME, VERSION = "vedette-liveness", 1


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how much is waited for before it is said; microseconds and bytes.

    absent: without a report; stopped: the same after an agent said that it ends. gather: how long others are waited
    for that went at the same time; group: from so many on they are one fault. missing: batches that do not come while
    later ones did. behind: what the agent read and the hub has not. hold: a thing that happened counts as over after so
    long without another. clock: seconds of a host's clock off ours. lag: bytes of a file not yet read. spool: of what
    waits on an agent that does not say how much may. silent: the least; learn: how long a stream is listened to first.
    """

    absent: int = 20 * SECOND
    stopped: int = 2 * MINUTE
    gather: int = 10 * SECOND
    group: int = 5
    missing: int = 15 * SECOND
    behind: int = MINUTE
    hold: int = 5 * MINUTE
    clock: int = MINUTE
    lag: int = 64 << 20
    spool: int = 256 << 20
    logger: int = MINUTE
    hub: int = 30 * SECOND
    silent: int = 10 * MINUTE
    learn: int = DAY
    forget: int = DAY


class Stream(msgspec.Struct):
    """One stream of a host. number, position, size, generation, alive, reason: as last reported. high: the highest
    number ever; low_since: since when the reported one is below it. marks: (number, when reported) of what is not yet
    stored. first_missing: the oldest number that should be here; given_up: ranges that are waited for no longer. beats,
    longest, week: how often it speaks, this week and the one before."""

    number: int = 0
    high: int = 0
    low_since: int = 0
    position: int = -1
    size: int = -1
    generation: str = ""
    alive: bool = True
    reason: str = ""
    gone_since: int = 0
    dead_since: int = 0
    lag_since: int = 0
    dropped: dict[str, int] = {}
    upstream: dict[str, int] = {}
    loggers: dict[str, int] = {}
    marks: list[tuple[int, int]] = []
    stored_high: int = 0
    first_missing: int = 0
    missing: int = 0
    missing_since: int = 0
    given_up: list[tuple[int, int]] = []
    given_up_at: int = 0
    dropped_at: int = 0
    first_at: int = 0
    advanced_at: int = 0
    beats: int = 0
    longest: int = 0
    longest_before: int = 0
    week: int = 0

    def spoke(self, now: int, counts: bool) -> None:
        """Its number went up. counts: whether the time since it last did says something of its rhythm."""
        week = now // (7 * DAY)
        if week != self.week:
            self.longest_before, self.longest, self.week = self.longest, 0, week
        if counts and self.advanced_at:
            self.beats += 1
            self.longest = max(self.longest, now - self.advanced_at)
        elif not counts:
            self.beats, self.first_at = 0, now
        self.first_at = self.first_at or now
        self.advanced_at = now

    def silent_after(self, limits: Limits) -> int:
        """How long it may say nothing; 0 where it speaks too rarely, or was not listened to long enough."""
        listened = self.advanced_at - self.first_at
        if listened < limits.learn or self.beats * 10 * MINUTE < listened:
            return 0
        return max(limits.silent, 3 * max(self.longest, self.longest_before))


class Host(msgspec.Struct):
    """One agent. heard: when, by our clock; skew: its clock less ours then; former: sessions before, with their last
    sequence; doubled_at: when a session before the present one was last seen alive."""

    name: str = ""
    retired: bool = False
    session: str = ""
    sequence: int = 0
    at: int = 0
    started_at: int = 0
    heard: int = 0
    stopping: bool = False
    spooled: int = 0
    spool_room: int = 0
    skew: int = 0
    former: dict[str, int] = {}
    streams: dict[str, Stream] = {}


class Standing(msgspec.Struct):
    """A fault that was said. session: of the host then; members: of a group, host id -> session."""

    since: int
    name: str
    reason: str
    count: int
    session: str = ""
    hosts: list[str] = []
    members: dict[str, str] = {}


class Held(msgspec.Struct):
    """Something that happened: first, last, how much since."""

    first: int
    last: int
    count: int


class Remembered(msgspec.Struct):
    """All of it. standing, held: by a fault's key as JSON."""

    name: str = NAME
    version: int = VERSION
    hosts: dict[str, Host] = {}
    standing: dict[str, Standing] = {}
    held: dict[str, Held] = {}
    groups: dict[str, list[str]] = {}


def restored(cursor: str) -> Remembered:
    """What a cursor holds; StateError where it is newer or none of ours."""
    if not cursor:
        return Remembered()
    try:
        head = msgspec.json.decode(cursor)
        if head.get("name") != NAME or head.get("version") != VERSION:
            raise StateError(
                f"liveness: a cursor of version {head.get('version')}, this version knows {VERSION}",
                hint="run the version that wrote it or a newer one",
            )
        return msgspec.json.decode(cursor, type=Remembered)
    except (msgspec.MsgspecError, AttributeError) as error:
        raise StateError(f"liveness: the cursor cannot be read: {error}", hint="restore the state's file") from error
