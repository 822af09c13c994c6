"""What Vedette notices of itself while it judges: each is said as a finding, not too often, and over when it is over.
Counterpart: `app.own` has the rules, `app.pipeline` commits what is said; `self_test` and drills call from outside."""

from __future__ import annotations

import structlog

from vedette.app import own
from vedette.app.standing import Say, Standing
from vedette.model.batch import Batch
from vedette.model.clock import MINUTE
from vedette.store.state import State
from vedette.text.times import rfc3339

log = structlog.get_logger()

SAID_EVERY = 60 * MINUTE
_MOST = 10_000
"""Things said lately that are remembered; whoever can be a source must not fill our memory."""


class Noticing:
    """The engine's thread uses it. say: makes a finding of our own. Times in microseconds."""

    def __init__(self, state: State, say: Say) -> None:
        self._say = say
        self._lake = Standing(own.LAKE_REFUSED, own.LAKE_MENDED, state, say)
        self._dead = Standing(own.RULE_DEAD, own.RULE_ALIVE, state, say)
        self._unpaged = Standing(own.PAGER_FAILED, own.PAGER_MENDED, state, say)
        self._alive_at: dict[str, int] = {}
        self._said: dict[str, int] = {}

    def set_back(self, now: int) -> None:
        """The clock was set back: nothing waits for the old time to come round again."""
        self._said = {about: min(at, now) for about, at in self._said.items()}

    def skewed(self, batch: Batch, count: int, now: int) -> None:
        """So many of its records are far from the time of reading."""
        if self._is_time_to_say(batch.origin.source, now):
            words = f"{count} of {len(batch)} records of {batch.origin.source} differ from the time of reading"
            self._say(own.CLOCK_SKEWED, {"vedette.source": batch.origin.source}, now, words)

    def undecided(self, rule_id: str, batch: Batch, now: int) -> None:
        """A pattern of the rule could not decide a value of this batch."""
        if self._is_time_to_say(f"{own.PATTERN_UNDECIDED.id} {rule_id}", now):
            words = f"a pattern of {rule_id} could not decide a value of {batch.origin.source} within its limit"
            self._say(own.PATTERN_UNDECIDED, {"vedette.rule": rule_id}, now, words)

    def lake(self, trouble: str, now: int) -> None:
        """trouble: why what is read cannot be kept, "" while it can."""
        self._lake.tell(trouble, now, "the lake is written again")

    def tried(self, rule_id: str, why: str, now: int) -> None:
        """A rule's case was put in; why: it made no finding, "" where it did."""
        if not why:
            self._alive_at[rule_id] = now
        elif since := self._alive_at.get(rule_id):
            why += f"; it was alive at {rfc3339(since)}"
        words = f"{rule_id} is dead: {why}" if why else ""
        if self._dead.tell(words, now, f"{rule_id} is alive again", rule_id) and why:
            log.error("RULE DEAD", rule=rule_id, reason=why)

    def paged(self, receiver: str, why: str, now: int) -> None:
        """A drill went to this receiver; why: it was not taken, "" where it was."""
        if self._unpaged.tell(why, now, f"{receiver} takes what it is sent", receiver) and why:
            log.error("NOBODY COULD BE PAGED", receiver=receiver, reason=why)

    def _is_time_to_say(self, about: str, now: int) -> bool:
        """Whether nothing was said about it lately; from now on it was."""
        if now - self._said.get(about, -SAID_EVERY) < SAID_EVERY:
            return False
        self._said.pop(about, None)
        self._said[about] = now
        if len(self._said) > _MOST:
            del self._said[next(iter(self._said))]
        return True
