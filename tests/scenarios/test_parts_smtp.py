"""Proves the mail server: what it takes, refuses, cuts, and that it comes back on the same port.
Counterpart: parts/smtp.py."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage

import pytest
from tests.scenarios.parts.certificates import Authority
from tests.scenarios.parts.smtp import SmtpServer


def _mail(number: int = 1) -> EmailMessage:
    mail = EmailMessage()
    mail["From"], mail["To"] = "vedette@example.org", "ops@example.org"
    mail["Subject"], mail["Message-ID"] = "Überfall", f"<{number}@example.org>"
    mail.set_content("text\n")
    mail.add_alternative("<p>html</p>", subtype="html")
    return mail


@contextmanager
def _client(
    smtp: SmtpServer, authority: Authority, *, password: str = "mail secret", tls: bool = True
) -> Iterator[smtplib.SMTP]:
    client = smtplib.SMTP(smtp.host, smtp.port, timeout=10)
    try:
        if tls:
            client.starttls(context=authority.client_context())
            client.login("vedette", password)
        yield client
    finally:
        client.close()


def test_a_mail_is_kept_with_how_it_came(smtp: SmtpServer, authority: Authority):
    with _client(smtp, authority) as client:
        client.send_message(_mail())
        client.send_message(_mail(2), to_addrs=["a@example.org", "b@example.org"])
    first, second = smtp.wait_for(2)
    assert (first.sender, first.recipients) == ("vedette@example.org", ("ops@example.org",))
    assert (first.tls, first.login, first.answered) == (True, "vedette", True)
    assert first.message["Subject"] == "Überfall"
    assert first.message_id == "<1@example.org>"
    assert (first.text(), first.text("html")) == ("text\n", "<p>html</p>\n")
    assert second.recipients == ("a@example.org", "b@example.org")
    assert first.received <= second.received


def test_without_tls_or_with_a_wrong_password_nothing_is_taken(smtp: SmtpServer, authority: Authority):
    with _client(smtp, authority, tls=False) as client, pytest.raises(smtplib.SMTPSenderRefused) as refused:
        client.send_message(_mail())
    assert refused.value.smtp_code == 530
    with pytest.raises(smtplib.SMTPAuthenticationError), _client(smtp, authority, password="wrong"):
        pass
    assert smtp.mails == []


def test_a_client_that_does_not_know_the_authority_refuses(smtp: SmtpServer):
    with smtplib.SMTP(smtp.host, smtp.port, timeout=10) as client, pytest.raises(ssl.SSLCertVerificationError):
        client.starttls(context=ssl.create_default_context())


@pytest.mark.parametrize("stage", ["MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize("code", [451, 554])
def test_refusals_come_in_the_order_planned(smtp: SmtpServer, authority: Authority, code: int, stage: str):
    smtp.fail(code, stage=stage, times=2)  # type: ignore[arg-type]
    errors = {"MAIL": smtplib.SMTPSenderRefused, "RCPT": smtplib.SMTPRecipientsRefused, "DATA": smtplib.SMTPDataError}
    with _client(smtp, authority) as client:
        for _ in range(2):
            with pytest.raises(errors[stage], match=str(code)):
                client.send_message(_mail())
        client.send_message(_mail(3))
    assert [mail.message_id for mail in smtp.mails] == ["<3@example.org>"]
    assert smtp.transactions == 3


def test_it_refuses_until_it_recovers(smtp: SmtpServer, authority: Authority):
    smtp.fail_always(421)
    for _ in range(3):
        with _client(smtp, authority) as client, pytest.raises(smtplib.SMTPDataError):
            client.send_message(_mail())
    smtp.recover()
    with _client(smtp, authority) as client:
        client.send_message(_mail())
    assert len(smtp.mails) == 1


@pytest.mark.parametrize("stored", [True, False])
def test_a_cut_leaves_the_client_not_knowing(smtp: SmtpServer, authority: Authority, stored: bool):
    smtp.cut(stored=stored)
    with _client(smtp, authority) as client, pytest.raises(smtplib.SMTPServerDisconnected):
        client.send_message(_mail())
    with _client(smtp, authority) as client:
        client.send_message(_mail())
    assert [(mail.message_id, mail.answered) for mail in smtp.mails] == [("<1@example.org>", False)] * stored + [
        ("<1@example.org>", True)
    ]


def test_down_means_refused_and_up_is_the_same_port(smtp: SmtpServer, authority: Authority):
    port = smtp.port
    smtp.down()
    with pytest.raises(ConnectionRefusedError), _client(smtp, authority):
        pass
    smtp.up()
    assert smtp.port == port
    with _client(smtp, authority) as client:
        client.send_message(_mail())
    assert len(smtp.mails) == 1
