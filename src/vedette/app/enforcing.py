"""What was committed is put in force, compared with what the kernel holds, and said where it cannot be.
Counterpart: `app.pipeline` commits before it calls here; the enforcers are of `respond`."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from vedette.app import own
from vedette.app.standing import Say, Standing
from vedette.model.clock import SECOND
from vedette.model.decisions import Decision
from vedette.model.errors import EnforcementError, StateError
from vedette.model.protocols import Counter, Enforcer
from vedette.respond.policy import Outcome, Policy
from vedette.store.state import State

log = structlog.get_logger()

FLEET = "fleet"
"""What the enforcer is called that has agents block."""
SYNC_EVERY = 10 * SECOND
"""How often what the enforcers hold is compared with what is in force."""
RETRY_AFTER = SECOND


class Enforcing:
    """The enforcers of this process, which one thread uses.

    say: makes a finding of our own.
    """

    def __init__(
        self,
        enforcers: Sequence[Enforcer],
        state: State,
        policy: Policy,
        counter: Counter,
        *,
        say: Say,
    ) -> None:
        self._enforcers = list(enforcers)
        self._state = state
        self._policy = policy
        self._counter = counter
        self._broken = Standing(own.ENFORCER_FAILED, own.ENFORCER_MENDED, state, say)
        self.sync_at = 0
        """When to compare next."""

    def carry_out(self, decided: Outcome, now: int) -> None:
        """Add and remove; one that fails is said, and tried again by `sync`."""
        for enforcer in self._enforcers:
            try:
                if mine := self._for(enforcer, decided.enforce):
                    enforcer.add(mine, now)
                if decided.remove:
                    enforcer.remove(decided.remove)
            except EnforcementError as error:
                self._on_broken(enforcer, error, now)

    def sync(self, now: int) -> None:
        """Make every enforcer hold exactly what is in force."""
        self.sync_at = now + SYNC_EVERY
        if not self._enforcers:
            return
        try:
            with self._state.transaction() as tx:
                active = self._policy.active(tx, now)
        except StateError:
            return  # said at the commit point; the kernel keeps what it has
        for enforcer in self._enforcers:
            try:
                mended = enforcer.sync(self._for(enforcer, active), now)
            except EnforcementError as error:
                self._on_broken(enforcer, error, now)
                continue
            if mended:
                self._counter.add("enforcer_mended", enforcer.name, mended)
            if self._broken.tell("", now, f"{enforcer.name} works again", enforcer.name):
                log.warning("enforcer works again", enforcer=enforcer.name)

    def _for(self, enforcer: Enforcer, decisions: Sequence[Decision]) -> Sequence[Decision]:
        """Those it is to hold: what agents try first is not enforced by the hub on itself meanwhile."""
        if enforcer.name == FLEET or not self._policy.staged:
            return decisions
        return [one for one in decisions if one.owner not in self._policy.staged]

    def _on_broken(self, enforcer: Enforcer, error: EnforcementError, now: int) -> None:
        self._counter.add("enforcer_failed", enforcer.name)
        self.sync_at = min(self.sync_at, now + RETRY_AFTER)
        if self._broken.tell(str(error) or type(error).__name__, now, "", enforcer.name):
            log.error("BLOCKS ARE NOT IN FORCE", enforcer=enforcer.name, reason=str(error))
