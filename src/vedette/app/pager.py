"""What people do in PagerDuty comes back: acknowledged and resolved incidents become acknowledged and resolved alerts.
Counterpart: `notify.pagerduty_webhook` hands over what was signed; `alerts.lifecycle` does the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from vedette.alerts import lifecycle
from vedette.alerts.routing import Router, group_of_incident
from vedette.model.clock import Clock
from vedette.notify.pagerduty_webhook import PagerVerb
from vedette.store.state import State


def on_pager_event(
    state: State, router: Router, clock: Clock, then: Sequence[Callable[[], None]]
) -> Callable[[str, PagerVerb, str, int], Awaitable[None]]:
    """The callback for the listener. then: called after each change that was committed.

    An incident nobody knows, a repeat, and the two verbs that undo (we never take back an acknowledgement)
    change nothing. StateError where the disk refuses: PagerDuty then comes again.
    """

    def apply(key: str, verb: PagerVerb, who: str) -> bool:
        group = group_of_incident(state.groups(), key)
        if group is None or verb not in (PagerVerb.ACKNOWLEDGED, PagerVerb.RESOLVED):
            return False
        now = clock.now()
        with state.transaction() as tx:
            # All members at once: an incident may have thousands, and decisions wait for this transaction.
            if verb is PagerVerb.ACKNOWLEDGED:
                changes = lifecycle.acknowledge_all(tx, group.members, who, now)
            else:
                changes = lifecycle.resolve_all(tx, group.members, who, now)
            router.plan(changes, tx, now)
            router.flush(tx, now)
        return bool(changes)

    async def on_event(key: str, verb: PagerVerb, who: str, _at: int) -> None:
        if await asyncio.to_thread(apply, key, verb, who):
            for call in then:
                call()

    return on_event
