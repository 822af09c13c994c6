"""Lets mails carry the ledger's head away, and sees that one goes out every so often.
Counterpart: `notify.ledger_head` enqueues and writes it; `app.up` runs this where the ledger is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from vedette.app.keep import Keeping
from vedette.config.settings import Settings
from vedette.model.clock import Clock
from vedette.model.protocols import Counter, Notifier, StateStore
from vedette.notify.ledger_head import HeadCarrier, HeadMails, LedgerHead
from vedette.notify.outbox import Outbox
from vedette.store.ledger.ledger import Ledger
from vedette.store.ledger.notes import VerifierKey


@runtime_checkable
class WithLedger(Protocol):
    """Who keeps a ledger: `up` and a hub do, an agent does not."""

    ledger: Ledger
    log_key: VerifierKey


def head_mails(
    keeping: Keeping | None,
    settings: Settings,
    notifiers: Mapping[str, Notifier],
    state: StateStore,
    outbox: Outbox,
    clock: Clock,
    counter: Counter,
) -> HeadMails | None:
    """What is to run beside the outbox; None where no ledger is kept here."""
    if not isinstance(keeping, WithLedger):
        return None
    ledger, key = keeping.ledger, keeping.log_key

    def read() -> LedgerHead:
        checkpoint = ledger.checkpoint()
        return LedgerHead(checkpoint.size, checkpoint.root.hex(), clock.now(), str(checkpoint), str(key))

    for notifier in notifiers.values():
        if isinstance(notifier, HeadCarrier):
            notifier.carry(read)
    return HeadMails(state, settings.notify, clock, counter, outbox.wake)
