"""A mailbox as a witness: the head under every digest, and a mail of its own where no digest went out for long.
Counterpart: vedette.notify.ledger_head and email."""

from __future__ import annotations

from dataclasses import replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tests.notify.examples import HOSTILE, Counts, State, item, member, notification
from tests.notify.test_email import settings as mail_settings
from tests.scenarios.parts.certificates import Authority
from tests.scenarios.parts.smtp import SmtpServer

from vedette.model.clock import DAY, HOUR, MINUTE
from vedette.model.errors import StateError
from vedette.model.levels import Level
from vedette.model.notifications import Delivery, OutboxItem, OutboxState
from vedette.model.reasons import DeliveryReason
from vedette.notify.email import EmailNotifier, compose
from vedette.notify.ledger_head import LEDGER_HEAD, HeadMails, LedgerHead, head_text
from vedette.notify.outbox import Outbox
from vedette.notify.settings import EmailSettings, NotifySettings
from vedette.store.ledger.notes import Signer, checkpoints_in, make_checkpoint
from vedette.testing.clock import START, FakeClock

SIGNER = Signer.generate("vedette/web01")
NOTE = make_checkpoint(SIGNER, 1234, bytes(range(32)))
HEAD = LedgerHead(1234, NOTE.root.hex(), START, str(NOTE), str(SIGNER.verifier))
MAIL = {"type": "email", "to": ["ops@example.org"]}
PLAIN = EmailSettings.model_validate({key: value for key, value in MAIL.items() if key != "type"})


def head_only() -> OutboxItem:
    state, clock = State(), FakeClock()
    heads(state, clock).once()
    (made,) = state.outbox()
    return made


def heads(state: State, clock: FakeClock, woken: list[int] | None = None, **changes: Any) -> HeadMails:
    settings = NotifySettings.model_validate({"receivers": {"mail": MAIL | changes}})
    return HeadMails(state, settings, clock, Counts(), lambda: woken.append(1) if woken is not None else None)


def sent(state: OutboxState = OutboxState.DELIVERED, **changes: Any) -> OutboxItem:
    """A digest that was delivered at START."""
    values = {"level": Level.LOW, "digest": True, "receiver": "mail"}
    return replace(item("low", **(values | changes)), state=state, delivered_at=START)


def bodies(raw: bytes) -> tuple[str, str]:
    message = message_from_bytes(raw, policy=policy.default)
    assert isinstance(message, EmailMessage)
    text, page = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None
    assert page is not None
    return str(text.get_content()), str(page.get_content())


def test_a_digest_ends_with_the_head_in_text_and_html():
    low = [notification(level=Level.LOW, digest=True), notification(level=Level.LOW, digest=True, episode=2)]
    text, page = bodies(compose("mail", PLAIN, low, "id", head_text(HEAD)).as_bytes())
    for said in (text, page.replace("&#43;", "+")):
        assert "1234 leaves" in said
        assert HEAD.root in said
        assert "2026-11-24T00:00:00" in said
        (found,) = checkpoints_in(said)
        assert found == NOTE
        assert str(SIGNER.verifier) in said
    assert text.index("Alerts:") < text.index("1234 leaves")


def test_a_mail_about_the_head_alone_has_a_title_and_is_of_no_incident():
    made = head_only()
    message = compose("mail", PLAIN, [made.notification], made.id, head_text(HEAD))
    assert message["Subject"].startswith("[DIGEST] the ledger's head of ")
    assert message["References"] is None
    text, _ = bodies(message.as_bytes())
    assert checkpoints_in(text) == [NOTE]


def test_beside_others_the_mail_about_the_head_is_none_of_them():
    low = notification(level=Level.LOW, digest=True, members=[member(summary=HOSTILE)])
    message = compose("mail", PLAIN, [head_only().notification, low], "id", head_text(HEAD))
    text, page = bodies(message.as_bytes())
    assert "SSH brute force" in message["Subject"]
    assert "<script>" not in page
    assert checkpoints_in(text) == [NOTE]


async def test_a_head_that_cannot_be_read_is_said_and_the_digest_goes_out(
    smtp: SmtpServer, authority: Authority, password_file: Path, counts: Counts
):
    low = notification(level=Level.LOW, digest=True)

    def refuse() -> LedgerHead:
        raise StateError("no ledger")

    said = {}
    for name, read, every in (("well", lambda: HEAD, "24h"), ("refused", refuse, "24h"), ("never", refuse, "never")):
        chosen = mail_settings(smtp, authority, password_file, ledger_head=every)
        notifier = EmailNotifier(name, chosen, counts)
        notifier.carry(read)
        assert (await notifier.deliver_digest([low], item_id=name)).reason is DeliveryReason.DELIVERED
        said[name] = smtp.mails[-1].text()
        # What cannot wait carries none.
        assert (await notifier.deliver(low, item_id=name)).reason is DeliveryReason.DELIVERED
        assert "ledger" not in smtp.mails[-1].text()
    assert checkpoints_in(said["well"]) == [NOTE]
    assert "The ledger's head could not be read" in said["refused"]
    assert "ledger" not in said["never"]
    assert counts.of("notify_ledger_head_failed") == {"refused": 1}


def test_one_goes_out_daily_where_no_digest_did():
    state, clock, woken = State(), FakeClock(), list[int]()
    mails = heads(state, clock, woken)
    assert (mails.once(), woken) == (1, [1])
    # Also where it was not delivered yet, and after a start.
    for _ in range(20):
        clock.advance(HOUR)
        assert heads(state, clock, woken).once() == 0
    clock.advance(4 * HOUR)
    assert mails.once() == 1
    assert len(state.outbox()) == 2
    made = state.outbox()[0]
    assert (made.notification.group_key, made.notification.level) == (LEDGER_HEAD, Level.INFORMATIONAL)


def test_one_that_was_refused_is_not_made_again_until_the_next_is_due():
    state, clock = State(), FakeClock()
    assert heads(state, clock).once() == 1
    (made,) = state.outbox()
    state.put(replace(made, state=OutboxState.FAILED, last_reason=DeliveryReason.REFUSED))
    clock.advance(DAY - MINUTE)
    assert heads(state, clock).once() == 0
    clock.advance(MINUTE)
    assert heads(state, clock).once() == 1


def test_a_digest_that_went_out_carried_it():
    state, clock = State(), FakeClock()
    state.put(sent())
    clock.advance(23 * HOUR)
    assert heads(state, clock).once() == 0
    clock.advance(HOUR)
    assert heads(state, clock).once() == 1


@pytest.mark.parametrize(
    ("more", "due"),
    [
        pytest.param({"digest": False}, 1, id="a-mail-that-is-no-digest"),
        pytest.param({"receiver": "other"}, 1, id="a-digest-for-another"),
        pytest.param({"state": OutboxState.FAILED}, 1, id="one-that-failed"),
        pytest.param({}, 0, id="a-digest"),
    ],
)
def test_what_counts_as_a_head_that_went_out(more: dict[str, Any], due: int):
    state, clock = State(), FakeClock()
    state.put(sent(**more))
    clock.advance(HOUR)
    assert heads(state, clock).once() == due


def test_how_often_is_a_setting_and_never_is_one():
    state, clock = State(), FakeClock()
    assert heads(state, clock, ledger_head="never").once() == 0
    assert heads(state, clock, ledger_head="7d").once() == 1
    clock.advance(6 * DAY)
    assert heads(state, clock, ledger_head="7d").once() == 0
    for wrong in ("10m", "often"):
        with pytest.raises(ValidationError):
            heads(state, clock, ledger_head=wrong)


def test_a_clock_that_was_set_back_does_not_silence_it():
    state, clock = State(), FakeClock(START + 30 * DAY)
    assert heads(state, clock).once() == 1
    clock.set(START + 29 * DAY + HOUR)
    assert heads(state, clock).once() == 0  # set back a little: none at once
    clock.set(START)
    assert heads(state, clock).once() == 1
    clock.advance(HOUR)
    assert heads(state, clock).once() == 0
    clock.set(START + 2 * DAY)
    assert heads(state, clock).once() == 1


async def test_it_is_delivered_as_a_digest_and_pages_nobody_when_it_is_not():
    state, clock = State(), FakeClock()
    receivers = {
        "mail": MAIL | {"fallback": {"receiver": "pager", "after": "10m"}},
        "pager": {"type": "pagerduty", "routing_key": {"env": "KEY"}},
    }
    settings = NotifySettings.model_validate({"receivers": receivers})
    told: list[str] = []
    others: list[str] = []

    class Mail:
        async def deliver(self, notification: Any, *, item_id: str) -> Any:
            others.append(f"mail {notification.group_key}")  # what it raised would be taken for a defect
            return Delivery(DeliveryReason.DELIVERED)

        async def deliver_digest(self, notifications: Any, *, item_id: str) -> Any:
            told.append(notifications[0].group_key)
            return Delivery(DeliveryReason.NETWORK_ERROR, retry=True)

        async def close(self) -> None: ...

    class Pager(Mail):
        async def deliver(self, notification: Any, *, item_id: str) -> Any:
            others.append(f"page {notification.group_key}")
            return Delivery(DeliveryReason.DELIVERED)

    counts = Counts()
    box = Outbox(state, {"mail": Mail(), "pager": Pager()}, settings, clock, counts, random=lambda: 0.5)
    HeadMails(state, settings, clock, counts, box.wake).once()
    for _ in range(8):
        clock.advance(30 * MINUTE)
        await box.flush()
    assert set(told) == {LEDGER_HEAD}
    clock.advance(8 * DAY)
    await box.flush()
    assert [one.state for one in state.outbox()] == [OutboxState.FAILED]
    assert others == []
