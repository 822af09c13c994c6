"""The ledger's head in mails that may wait: a mailbox elsewhere is a witness, so one goes out every so often.
Counterpart: `app.ledger` reads the head, `email` writes it under a digest; `outbox` delivers what is enqueued here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from vedette.model.clock import MINUTE, SECOND, Clock
from vedette.model.errors import StateError
from vedette.model.ids import uuid7
from vedette.model.levels import Level
from vedette.model.notifications import Notification, NotificationKind, OutboxItem, OutboxState
from vedette.model.protocols import Counter, StateStore
from vedette.notify.settings import NEVER, EmailSettings, NotifySettings
from vedette.text.times import parse_duration, rfc3339

LEDGER_HEAD = "vedette-ledger-head"
"""Group key of a notification that says nothing but this; no route makes one that is called so."""

_EVERY = 5 * MINUTE
_LOOK = 1000
_MADE = {OutboxState.PENDING, OutboxState.DELIVERED, OutboxState.FAILED}
"""A head that was refused for good counts: whoever refuses it would be sent another every few minutes."""


@dataclass(frozen=True, slots=True)
class LedgerHead:
    """How far the ledger went at `at` (microseconds). note: the signed checkpoint; key: the log's public key."""

    size: int
    root: str
    at: int
    note: str
    key: str

    @property
    def words(self) -> str:
        """What a person is told of it, on one line."""
        return f"{self.size} leaves, root {self.root}, {rfc3339(self.at)}"


Head = Callable[[], LedgerHead]
"""Reads it; StateError where it cannot be read. From any thread."""


@runtime_checkable
class HeadCarrier(Protocol):
    """A notifier whose messages can carry the head away."""

    def carry(self, head: Head) -> None:
        """Put it under every digest from now on."""
        ...


def head_text(head: LedgerHead | None) -> str:
    """As it stands in a mail: `vedette ledger verify --head` takes the mail as it is."""
    if head is None:
        return "The ledger's head could not be read: see `vedette doctor`.\n"
    return (
        f"The ledger's head: {head.words}\n"
        "Keep this mail: `vedette ledger verify --head FILE` tells from it whether anything stored until then was\n"
        "changed, cut or left out, whoever has the key by then.\n"
        f"\n{head.note}\nkey: {head.key}\n"
    )


class HeadMails:
    """Enqueues a mail about the head alone for each receiver that had no digest for as long as it is set to.

    What was made and not delivered yet, or was refused, counts: at most one is made in that time, also over restarts.
    """

    def __init__(
        self,
        store: StateStore,
        settings: NotifySettings,
        clock: Clock,
        counter: Counter,
        wake: Callable[[], None],
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store, self._clock, self._counter, self._wake, self._sleep = store, clock, counter, wake, sleep
        self._intervals: Mapping[str, int] = {
            name: parse_duration(one.ledger_head)
            for name, one in settings.receivers.items()
            if isinstance(one, EmailSettings) and one.ledger_head != NEVER
        }

    async def run(self) -> None:
        """Until cancelled."""
        while self._intervals:
            try:
                await asyncio.to_thread(self.once)
            except StateError:
                self._counter.add("notify_state_failed")
            await self._sleep(_EVERY / SECOND)

    def once(self) -> int:
        """Enqueue what is due; how many. StateError where the state cannot be read or written."""
        now = self._clock.now()
        last: dict[str, int] = {}
        for item in self._store.outbox(_MADE, _LOOK):
            if item.state is OutboxState.FAILED and item.notification.group_key != LEDGER_HEAD:
                continue  # another digest carried nothing away
            name, at = item.notification.receiver, item.delivered_at or item.created_at
            # What was made in our future: the clock was set back, and the next one must not wait for that.
            if item.notification.digest and at <= now + self._intervals.get(name, 0):
                last[name] = max(last.get(name, 0), min(at, now))
        due = [name for name, interval in self._intervals.items() if now - last.get(name, -interval) >= interval]
        if due:
            with self._store.transaction() as transaction:
                for name in due:
                    transaction.enqueue(self._item(name, now))
            self._counter.add("notify_ledger_heads", n=len(due))
            self._wake()
        return len(due)

    @staticmethod
    def _item(name: str, now: int) -> OutboxItem:
        made = uuid7(now)
        notification = Notification(
            kind=NotificationKind.TRIGGER,
            receiver=name,
            group_key=LEDGER_HEAD,
            group_labels={},
            episode=0,
            dedup_key=f"{LEDGER_HEAD}/{made}",
            level=Level.INFORMATIONAL,
            members=[],
            total=0,
            created_at=now,
            digest=True,
        )
        # No fallback: nobody is to be paged about a head that could not be mailed.
        return OutboxItem(made, notification, LEDGER_HEAD, now, created_at=now, next_try_at=now, fallback_sent=True)
