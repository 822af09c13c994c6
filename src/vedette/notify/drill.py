"""A page that is only a drill: triggered and resolved at once, at a receiver of one's own, so that the way is known.
Counterpart: `app.pipeline` makes an alert where it is not taken; settings name the receiver."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from vedette.model.clock import MINUTE, SECOND, Clock
from vedette.model.ids import uuid7
from vedette.model.levels import Level
from vedette.model.notifications import Delivery, MemberAlert, Notification, NotificationKind
from vedette.model.protocols import Counter, Notifier
from vedette.model.reasons import DeliveryReason
from vedette.notify.settings import DrillSettings
from vedette.text.times import parse_duration

RULE_ID, RULE_NAME = "vedette-drill", "Only a drill"
_TRIES = 5
"""Of each of both, as far apart as the receiver asks: one answer of a busy service is no news."""
_FIRST_AFTER = MINUTE


class Drill:
    """Sends them every so often. `tell` hears of each drill: the receiver, and why it did not take it, "" where it did.

    It goes past the outbox, so that it waits behind nothing and nobody is told of it: the receiver is to be a
    service that wakes nobody.
    """

    def __init__(
        self,
        settings: DrillSettings,
        notifier: Notifier,
        tell: Callable[[str, str], None],
        clock: Clock,
        counter: Counter,
        *,
        host: str,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._settings, self._notifier, self._tell = settings, notifier, tell
        self._clock, self._counter, self._host = clock, counter, host
        self._sleep = sleep
        self._number = 0

    async def run(self) -> None:
        """Until cancelled."""
        interval = parse_duration(self._settings.interval)
        await self._sleep(min(_FIRST_AFTER, interval) / SECOND)
        while True:
            why = await self.once()
            self._counter.add("drills", "failed" if why else "taken")
            self._tell(self._settings.receiver, why)
            await self._sleep(interval / SECOND)

    async def once(self) -> str:
        """One drill; why it was not taken, "" where it was."""
        trigger = self._notification()
        delivered = await self._deliver(trigger)
        # Also what may have been taken without our knowing must not stay open.
        ended = await self._deliver(replace(trigger, kind=NotificationKind.RESOLVE))
        for kind, delivery in ((NotificationKind.TRIGGER, delivered), (NotificationKind.RESOLVE, ended)):
            if delivery.reason is not DeliveryReason.DELIVERED:
                return (
                    f"{self._settings.receiver} did not take a {kind.value}: {delivery.reason.value} {delivery.detail}"
                )
        return ""

    async def _deliver(self, notification: Notification) -> Delivery:
        item_id = uuid7(self._clock.now())
        for left in reversed(range(_TRIES)):
            delivery = await self._notifier.deliver(notification, item_id=item_id)
            if not delivery.retry or not left:
                break
            await self._sleep(max(delivery.retry_after / SECOND, 2.0 ** (_TRIES - left)))
        return delivery

    def _notification(self) -> Notification:
        now = self._clock.now()
        self._number += 1
        about = MemberAlert(
            id=uuid7(now),
            rule_id=RULE_ID,
            rule_name=RULE_NAME,
            level=Level.HIGH,
            state="open",
            labels={"host.name": self._host},
            summary=f"{RULE_NAME}: nothing happened on {self._host}",
            advice="Nothing to do: this is sent and resolved at once, to know that paging works.",
            sample="",
            count=1,
            opened_at=now,
            last_event_at=now,
        )
        return Notification(
            kind=NotificationKind.TRIGGER,
            receiver=self._settings.receiver,
            group_key=RULE_ID,
            group_labels={"rule.id": RULE_ID},
            episode=self._number,
            dedup_key=f"{RULE_ID}/{self._host}/{about.id}",
            level=Level.HIGH,
            members=[about],
            total=1,
            created_at=now,
        )
