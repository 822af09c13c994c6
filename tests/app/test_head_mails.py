"""Where a ledger is kept, mails carry its head; on an agent there is none.
Counterpart: vedette.app.head_mails."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.store.ledger.parts import SIGNER, Hub

from vedette.app.counters import Counters
from vedette.app.head_mails import head_mails
from vedette.config.settings import Settings
from vedette.notify.email import EmailNotifier
from vedette.notify.ledger_head import LedgerHead
from vedette.notify.outbox import Outbox
from vedette.notify.receivers import build
from vedette.store.ledger.notes import Checkpoint
from vedette.testing.clock import START, FakeClock
from vedette.testing.state import MemoryState


def run(keeping: Any) -> tuple[Any, EmailNotifier, MemoryState]:
    settings = Settings.model_validate({"notify": {"receivers": {"mail": {"type": "email", "to": ["a@example.org"]}}}})
    clock, counters, state = FakeClock(), Counters(), MemoryState()
    notifiers = build(settings.notify, clock, counters)
    outbox = Outbox(state, notifiers, settings.notify, clock, counters, random=lambda: 0.5)
    made = head_mails(keeping, settings, notifiers, state, outbox, clock, counters)
    mail = notifiers["mail"]
    assert isinstance(mail, EmailNotifier)
    return made, mail, state


def test_mails_carry_the_head_of_the_ledger_as_it_is_then(tmp_path: Path):
    hub = Hub(tmp_path)
    hub.take(1)
    made, mail, state = run(SimpleNamespace(ledger=hub.ledger, log_key=SIGNER.verifier))
    assert made.once() == 1
    assert len(state.outbox()) == 1
    hub.take(2, 3)
    assert mail._head is not None
    head = mail._head()
    assert isinstance(head, LedgerHead)
    assert (head.size, head.at, head.key) == (3, START, str(SIGNER.verifier))
    assert Checkpoint.parse(head.note) == hub.ledger.checkpoint()
    hub.close()


def test_an_agent_has_no_ledger_and_mails_no_head():
    for keeping in (None, SimpleNamespace(shelf=None)):
        made, mail, _ = run(keeping)
        assert (made, mail._head) == (None, None)
