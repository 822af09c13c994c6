from __future__ import annotations

import re
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.notify.conftest import LOGIN
from tests.notify.examples import HOSTILE, Counts, member, notification
from tests.scenarios.parts.certificates import Authority
from tests.scenarios.parts.smtp import SmtpServer

from vedette.model.levels import Level
from vedette.model.notifications import Notification, NotificationKind
from vedette.model.reasons import DeliveryReason
from vedette.notify.email import EmailNotifier, _hello, compose
from vedette.notify.settings import EmailSettings

ITEM = "01930000-0000-7000-8000-00000000000a"
PLAIN = EmailSettings.model_validate(
    {"to": ["ops@example.org", "Second <second@example.org>"], "from": "Vedette <vedette@web01.example.org>"}
)


def settings(smtp: SmtpServer, authority: Authority, password: Path, **changes: Any) -> EmailSettings:
    values = {
        "to": ["ops@example.org", "second@example.org"],
        "from": "Vedette <vedette@web01.example.org>",
        "host": "localhost",
        "port": smtp.port,
        "security": "starttls",
        "username": LOGIN[0],
        "password": {"file": str(password)},
        "trust": {"ca_file": str(authority.ca_file)},
        "timeout": "5s",
    }
    return EmailSettings.model_validate(values | changes)


@pytest.fixture
def mailer(smtp: SmtpServer, authority: Authority, password_file: Path, counts: Counts) -> EmailNotifier:
    return EmailNotifier("mail", settings(smtp, authority, password_file), counts)


def parsed(*notifications: Notification, item_id: str = ITEM) -> tuple[EmailMessage, bytes]:
    raw = compose("mail", PLAIN, list(notifications), item_id).as_bytes()
    message = message_from_bytes(raw, policy=policy.default)
    assert isinstance(message, EmailMessage)
    return message, raw


def body(message: EmailMessage, subtype: str) -> str:
    part = message.get_body((subtype,))
    assert part is not None
    return str(part.get_content())


# ---------------------------------------------------------------------------------------------- over the wire


async def test_a_mail_arrives_encrypted_and_authenticated(smtp: SmtpServer, mailer: EmailNotifier):
    delivery = await mailer.deliver(notification(), item_id=ITEM)
    assert delivery.reason is DeliveryReason.DELIVERED
    (mail,) = smtp.wait_for(1)
    assert mail.tls
    assert mail.login == LOGIN[0]
    assert mail.sender == "vedette@web01.example.org"
    assert mail.recipients == ("ops@example.org", "second@example.org")
    assert mail.message["Subject"] == "[HIGH] SSH brute force by one address: web01, source.ip=198.51.100.7"
    assert "Failed password for root from 198.51.100.7" in mail.text()
    assert "Failed password for root from 198.51.100.7" in mail.text("html")


async def test_a_mail_cut_before_the_answer_comes_again_under_its_id(smtp: SmtpServer, mailer: EmailNotifier):
    smtp.cut(stored=True)
    first = await mailer.deliver(notification(), item_id=ITEM)
    assert (first.reason, first.retry) == (DeliveryReason.NETWORK_ERROR, True)
    second = await mailer.deliver(notification(), item_id=ITEM)
    assert second.reason is DeliveryReason.DELIVERED
    once, again = smtp.wait_for(2)
    assert once.message_id == again.message_id
    assert once.raw == again.raw


@pytest.mark.parametrize("stage", ["MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize(
    ("code", "reason", "retry"),
    [
        (421, None, True),  # the connection is over then, which may be seen first
        (451, DeliveryReason.SERVER_ERROR, True),
        (550, DeliveryReason.REFUSED, False),
        (552, DeliveryReason.TOO_LARGE, False),
    ],
)
async def test_4xx_comes_again_and_5xx_is_final(
    smtp: SmtpServer, mailer: EmailNotifier, stage: Any, code: int, reason: DeliveryReason | None, retry: bool
):
    smtp.fail(code, "\x1b[31mno", stage=stage)
    delivery = await mailer.deliver(notification(), item_id=ITEM)
    assert delivery.retry is retry
    assert reason in (None, delivery.reason)
    assert "\x1b" not in delivery.detail
    assert smtp.mails == []


async def test_wrong_credentials_are_a_misconfiguration(
    smtp: SmtpServer, authority: Authority, tmp_path: Path, counts: Counts
):
    wrong = tmp_path / "wrong"
    wrong.write_text("guess-work")
    mailer = EmailNotifier("mail", settings(smtp, authority, wrong), counts)
    delivery = await mailer.deliver(notification(), item_id=ITEM)
    assert (delivery.reason, delivery.retry) == (DeliveryReason.MISCONFIGURED, False)
    assert "guess-work" not in delivery.detail


async def test_a_missing_password_is_a_misconfiguration(
    smtp: SmtpServer, authority: Authority, tmp_path: Path, counts: Counts
):
    mailer = EmailNotifier("mail", settings(smtp, authority, tmp_path / "absent"), counts)
    delivery = await mailer.deliver(notification(), item_id=ITEM)
    assert delivery.reason is DeliveryReason.MISCONFIGURED
    assert "absent" in delivery.detail


async def test_nothing_is_said_to_a_server_we_do_not_trust(
    smtp: SmtpServer, tmp_path: Path, password_file: Path, counts: Counts
):
    stranger = Authority(tmp_path / "stranger")
    mailer = EmailNotifier("mail", settings(smtp, stranger, password_file), counts)
    delivery = await mailer.deliver(notification(), item_id=ITEM)
    assert (delivery.reason, delivery.retry) == (DeliveryReason.NETWORK_ERROR, True)
    assert smtp.transactions == 0


async def test_without_starttls_no_mail_leaves(authority: Authority, password_file: Path, counts: Counts):
    bare = SmtpServer(None)
    try:
        mailer = EmailNotifier("mail", settings(bare, authority, password_file), counts)
        delivery = await mailer.deliver(notification(), item_id=ITEM)
        assert (delivery.reason, delivery.retry) == (DeliveryReason.MISCONFIGURED, True)
        assert bare.transactions == 0
    finally:
        bare.close()


async def test_plain_mail_to_this_machine(counts: Counts):
    bare = SmtpServer(None)
    try:
        plain = PLAIN.model_copy(update={"host": "127.0.0.1", "port": bare.port})
        delivery = await EmailNotifier("mail", plain, counts).deliver(notification(), item_id=ITEM)
        assert delivery.reason is DeliveryReason.DELIVERED
        assert not bare.wait_for(1)[0].tls
    finally:
        bare.close()


async def test_a_server_that_is_down_is_a_network_error(smtp: SmtpServer, mailer: EmailNotifier):
    smtp.down()
    delivery = await mailer.deliver(notification(), item_id=ITEM)
    assert (delivery.reason, delivery.retry) == (DeliveryReason.NETWORK_ERROR, True)


async def test_a_digest_is_one_mail(smtp: SmtpServer, mailer: EmailNotifier):
    low = [notification(level=Level.LOW, members=[member(rule_name=f"Rule {n}")]) for n in range(3)]
    delivery = await mailer.deliver_digest(low, item_id="digest-1")
    assert delivery.reason is DeliveryReason.DELIVERED
    (mail,) = smtp.wait_for(1)
    assert mail.message["Subject"].startswith("[DIGEST LOW] 3 alerts in 3 notifications: Rule 0, Rule 1")
    for n in range(3):
        assert f"Rule {n}" in mail.text()
        assert f"Rule {n}" in mail.text("html")


async def test_who_has_the_mail_does_not_get_it_again(
    authority: Authority, password_file: Path, counts: Counts, smtp: SmtpServer, monkeypatch: pytest.MonkeyPatch
):
    put_off = {"second@example.org"}

    async def handle_rcpt(server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        if address in put_off:
            return "450 greylisted"
        if address == "gone@example.org":
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    monkeypatch.setattr(smtp._handler, "handle_RCPT", handle_rcpt)
    to = ["ops@example.org", "second@example.org", "gone@example.org"]
    mailer = EmailNotifier("mail", settings(smtp, authority, password_file, to=to), counts)
    first = await mailer.deliver(notification(), item_id=ITEM)
    assert (first.reason, first.retry) == (DeliveryReason.SERVER_ERROR, True)
    put_off.clear()
    second = await mailer.deliver(notification(), item_id=ITEM)
    assert second.reason is DeliveryReason.DELIVERED
    assert [mail.recipients for mail in smtp.wait_for(2)] == [("ops@example.org",), ("second@example.org",)]
    assert counts.of("notify_recipient_refused") == {"mail": 1}


@pytest.mark.parametrize(
    ("domain", "machine", "said"),
    [
        ("web01.example.org", "web01", "web01.example.org"),
        ("localhost", "web01", "web01"),
        ("localhost", "w\u00e9b \x00", "localhost"),
        ("[192.0.2.1]", "web01", "localhost"),
    ],
)
def test_the_greeting_asks_no_resolver(domain: str, machine: str, said: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("socket.gethostname", lambda: machine)
    assert _hello(domain) == said


# ---------------------------------------------------------------------------------------------- what it looks like


def test_a_digest_names_all_but_does_not_grow_without_end():
    many = [notification(members=[member()] * 50, total=50, group_labels={"n": str(n)}) for n in range(300)]
    message, raw = parsed(*many)
    assert message["Subject"].startswith("[DIGEST HIGH] 15000 alerts in 300 notifications")
    text = body(message, "plain")
    assert text.count("Group: n=") == 300
    assert text.count("  Sample: ") == 200
    assert text.count("and 50 more alerts") == 296
    assert len(raw) < 2_000_000


def test_headers_of_a_mail():
    message, _ = parsed(notification())
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["List-Id"] == "<mail.vedette.web01.example.org>"
    assert message["X-Vedette-Level"] == "high"
    assert message["X-Vedette-Rule"] == "ssh-brute-force-address"
    assert message["X-Vedette-Kind"] == "trigger"
    assert message["X-Vedette-Item"] == ITEM
    assert message["Date"] == "Tue, 24 Nov 2026 00:00:00 +0000"
    assert message["Importance"] == "high"
    assert message["To"] == "ops@example.org, Second <second@example.org>"


def test_mails_of_one_incident_are_one_thread():
    trigger, _ = parsed(notification(), item_id="a")
    resolve, _ = parsed(notification(kind=NotificationKind.RESOLVE), item_id="b")
    other, _ = parsed(notification(dedup_key="e" * 64), item_id="c")
    assert trigger["References"] == resolve["References"] == resolve["In-Reply-To"]
    assert trigger["References"] != other["References"]
    assert len({message["Message-ID"] for message in (trigger, resolve, other)}) == 3


def test_the_same_item_gives_the_same_bytes():
    assert parsed(notification())[1] == parsed(notification())[1]


def test_the_page_is_escaped():
    message, _ = parsed(notification(members=[member(sample=HOSTILE, rule_name="<b>&", advice='"><img src=x>')]))
    page = body(message, "html")
    assert "<script>" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "&lt;b&gt;&amp;" in page


def test_non_ascii_survives():
    message, raw = parsed(notification(members=[member(rule_name="Anmeldung über Größe – 日本語", sample="пароль")]))
    assert raw.isascii()
    assert "Anmeldung über Größe – 日本語" in message["Subject"]
    assert "пароль" in body(message, "plain")
    assert "пароль" in body(message, "html")


KNOWN_HEADERS = {
    *("Date", "From", "To", "Subject", "Message-ID", "In-Reply-To", "References", "List-Id", "Auto-Submitted"),
    *("X-Auto-Response-Suppress", "X-Vedette-Level", "X-Vedette-Rule", "X-Vedette-Kind", "X-Vedette-Group"),
    *("X-Vedette-Incident", "X-Vedette-Item", "Importance", "MIME-Version", "Content-Type"),
}
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]")


@given(
    hostile=st.one_of(
        st.text(alphabet=st.characters(), max_size=400),
        st.text(alphabet="a \r\n\t=?_é日.@<>\x00\x1b", max_size=400),
        st.just("=?utf-8?q?=0D=0ABcc:_a@b?="),
        st.just("A" * 3000),
        st.just("é" * 3000),
    )
)
def test_no_log_text_breaks_out_of_a_mail(hostile: str):
    bad = member(
        rule_id=hostile, rule_name=hostile, summary=hostile, sample=hostile, labels={"host.name": hostile, "k": hostile}
    )
    told = notification(members=[bad], dedup_key=hostile, group_key=hostile, group_labels={hostile: hostile})
    raw = compose("mail", PLAIN, [told], hostile).as_bytes()
    assert raw.isascii()
    lines = raw.split(b"\r\n")
    assert max(len(line) for line in lines) <= 998
    assert not any(b"\r" in line or b"\n" in line for line in lines)
    head, _, rest = raw.partition(b"\r\n\r\n")
    assert not re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", head)
    assert max(len(line) for line in rest.split(b"\r\n")) <= 78
    message = message_from_bytes(raw, policy=policy.default)
    assert set(message.keys()) == KNOWN_HEADERS
    assert len(message.keys()) == len(KNOWN_HEADERS)
    for name in message:
        assert not CONTROL.search(str(message[name])), name
    assert not CONTROL.search(body(message, "plain").replace("\r\n", "\n"))
    assert not CONTROL.search(body(message, "html").replace("\r\n", "\n"))
    assert message.defects == []
