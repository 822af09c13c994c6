"""The outbox with real servers: an outage of the pager, from the first alert to the last one told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from tests.notify.conftest import LOGIN
from tests.notify.examples import Counts, item
from tests.notify.test_outbox import play
from tests.scenarios.parts.certificates import Authority
from tests.scenarios.parts.pagerduty import ROUTING_KEY, Answer, PagerDuty
from tests.scenarios.parts.smtp import SmtpServer

from vedette.model.clock import HOUR, MINUTE
from vedette.model.levels import Level
from vedette.model.notifications import NotificationKind, OutboxItem, OutboxState
from vedette.notify.outbox import Outbox
from vedette.notify.receivers import build
from vedette.notify.settings import NotifySettings
from vedette.store.state import State
from vedette.testing.clock import START, FakeClock


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[State]:
    """The real state, for which the tests beside this one have a stand-in."""
    state = State(tmp_path / "state.db")
    yield state
    state.close()


def put(state: State, *items: OutboxItem) -> None:
    with state.transaction() as transaction:
        for one in items:
            transaction.enqueue(one)


async def test_pager_away_mail_instead_then_everything_arrives(
    pagerduty: PagerDuty, smtp: SmtpServer, authority: Authority, password_file: Path, tmp_path: Path, disk: State
):
    (tmp_path / "key").write_text(ROUTING_KEY)
    trust = {"ca_file": str(authority.ca_file)}
    settings = NotifySettings.model_validate(
        {
            "receivers": {
                "pager": {
                    "type": "pagerduty",
                    "routing_key": {"file": str(tmp_path / "key")},
                    "url": pagerduty.enqueue_url,
                    "trust": trust,
                    "fallback": {"receiver": "mail", "after": "10m"},
                },
                "mail": {
                    "type": "email",
                    "host": "localhost",
                    "port": smtp.port,
                    "security": "starttls",
                    "username": LOGIN[0],
                    "password": {"file": str(password_file)},
                    "to": ["ops@example.org"],
                    "trust": trust,
                },
            }
        }
    )
    clock, counts = FakeClock(), Counts()
    notifiers = build(settings, clock, counts)
    box = Outbox(disk, notifiers, settings, clock, counts, random=Random(1).random)
    try:
        await play_outage(box, disk, clock, pagerduty, smtp)
    finally:
        for notifier in notifiers.values():
            await notifier.close()


async def play_outage(box: Outbox, state: State, clock: FakeClock, pagerduty: PagerDuty, smtp: SmtpServer) -> None:
    pagerduty.down()
    put(
        state,
        item("high", level=Level.HIGH),
        item("critical", level=Level.CRITICAL, at=START + 1),
        item("over", level=Level.HIGH, order="high", sequence=2, kind=NotificationKind.RESOLVE),
    )
    await play(box, clock, START + 11 * MINUTE)
    told = {mail.message["X-Vedette-Incident"]: mail.message["Subject"] for mail in smtp.wait_for(2)}
    assert set(told) == {"high", "critical"}

    pagerduty.up()
    pagerduty.plan(Answer("status", 500), Answer("status", 429, (("Retry-After", "120"),)), Answer("cut", applied=True))
    await play(box, clock, START + HOUR)
    assert {one.state for one in state.outbox()} == {OutboxState.DELIVERED}
    incidents = {one.dedup_key: one.state for one in pagerduty.incidents}
    assert incidents == {"critical": "triggered", "high": "resolved"}
    assert len(pagerduty.incidents) == 2
    first = pagerduty.wait_for(3)[0]
    assert first.body["dedup_key"] == "critical"
    # Who was told of the beginning is told of the end, in the same thread; nobody is told twice.
    ended = smtp.wait_for(3)[2]
    assert str(ended.message["Subject"]).strip().startswith("[RESOLVED HIGH]")
    (begun,) = [mail for mail in smtp.mails[:2] if mail.message["X-Vedette-Incident"] == "high"]
    assert ended.message["References"] == begun.message["References"]
    assert len(smtp.mails) == 3


async def test_a_digest_from_disk(
    smtp: SmtpServer, authority: Authority, password_file: Path, disk: State, clock: FakeClock, counts: Counts
):
    mail = {
        "type": "email",
        "host": "localhost",
        "port": smtp.port,
        "security": "starttls",
        "username": LOGIN[0],
        "password": {"file": str(password_file)},
        "to": ["ops@example.org"],
        "trust": {"ca_file": str(authority.ca_file)},
    }
    settings = NotifySettings.model_validate({"receivers": {"mail": mail}})
    low = {"receiver": "mail", "digest": True, "level": Level.LOW}
    put(
        disk,
        item("a", **low),
        item("b1", order="b", sequence=1, at=START + 1, **low),
        item("b2", order="b", sequence=2, at=START + 2, **low),
    )
    box = Outbox(disk, build(settings, clock, counts), settings, clock, counts, random=Random(1).random)
    await play(box, clock, START + 2 * HOUR)
    (told,) = smtp.mails
    assert told.message["Subject"].strip().startswith("[DIGEST LOW] 3 alerts in 3 notifications")
    assert {one.state for one in disk.outbox()} == {OutboxState.DELIVERED}
