"""E-mail over SMTP: one mail a group, a digest for what may wait; text and HTML, threaded by incident.
Counterpart: `outbox` hands in notifications and judges the Delivery; `render` gives the words."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import socket
import ssl
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime

import aiosmtplib
import jinja2

from vedette.model.clock import SECOND
from vedette.model.errors import ConfigError, StateError
from vedette.model.levels import Level
from vedette.model.notifications import Delivery, Notification
from vedette.model.protocols import Counter
from vedette.model.reasons import DeliveryReason
from vedette.notify.ledger_head import LEDGER_HEAD, Head, head_text
from vedette.notify.render import View, clean, digest_text, digest_title, plain_text, view
from vedette.notify.settings import NEVER, EmailSettings, mail_address

# Bounded: what was accepted for some recipients of a mail, until the others have it too.
_MOST_PARTIAL = 1000
_MOST_DIGEST_MEMBERS = 200

_pages = jinja2.Environment(
    loader=jinja2.PackageLoader("vedette.notify", "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


class EmailNotifier:
    """One mail an item; never raises for a failed delivery.

    4xx and lost connections are retried, 5xx refused, refused credentials are MISCONFIGURED. Recipients
    that took the mail do not get it again when others are retried.
    """

    def __init__(self, name: str, settings: EmailSettings, counter: Counter) -> None:
        self._name = name
        self._settings = settings
        self._counter = counter
        self._recipients = [mail_address(text).addr_spec for text in settings.to]
        self._accepted: dict[str, set[str]] = {}
        self._head: Head | None = None

    def carry(self, head: Head) -> None:
        """Put the ledger's head under every digest from now on, unless the receiver is set to have none."""
        self._head = head if self._settings.ledger_head != NEVER else None

    async def deliver(self, notification: Notification, *, item_id: str) -> Delivery:
        """Try once to send the mail of `notification`."""
        return await self._send(compose(self._name, self._settings, [notification], item_id), item_id)

    async def deliver_digest(self, notifications: Sequence[Notification], *, item_id: str) -> Delivery:
        """Try once to send one mail about all `notifications`."""
        carries, head = self._head is not None, None
        if self._head is not None:
            try:
                head = await asyncio.to_thread(self._head)
            except StateError:
                self._counter.add("notify_ledger_head_failed", self._name)
        below = head_text(head) if carries else ""
        return await self._send(compose(self._name, self._settings, notifications, item_id, below), item_id)

    async def close(self) -> None:
        """Nothing stays open between mails."""

    async def _send(self, message: EmailMessage, item_id: str) -> Delivery:
        try:
            password = self._settings.password.read() if self._settings.password else None
            context = self._settings.trust.context()
        except ConfigError as error:
            return Delivery(DeliveryReason.MISCONFIGURED, detail=str(error))
        except (OSError, ssl.SSLError) as error:
            return Delivery(DeliveryReason.MISCONFIGURED, detail=f"trust.ca_file: {type(error).__name__}")
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                return await self._converse(message, item_id, password, context)
        except (TimeoutError, aiosmtplib.SMTPTimeoutError):
            return Delivery(DeliveryReason.TIMEOUT, retry=True, detail="the mail server did not answer in time")
        except aiosmtplib.SMTPAuthenticationError as error:
            if 400 <= error.code < 500:
                return _answered(error.code, error.message)
            return Delivery(DeliveryReason.MISCONFIGURED, detail=f"credentials refused: {error.code}")
        except aiosmtplib.SMTPRecipientsRefused as error:
            codes = [refused.code for refused in error.recipients]
            worst = min(codes, default=550)  # one temporary refusal is reason enough to try again
            return _answered(worst, "; ".join(f"{refused.code} {refused.message}" for refused in error.recipients))
        except aiosmtplib.SMTPResponseException as error:
            return _answered(error.code, error.message)
        except ssl.SSLError as error:
            return Delivery(DeliveryReason.NETWORK_ERROR, retry=True, detail=f"TLS: {error.reason or error}")
        except (aiosmtplib.SMTPServerDisconnected, aiosmtplib.SMTPConnectError, OSError) as error:
            return Delivery(DeliveryReason.NETWORK_ERROR, retry=True, detail=f"{type(error).__name__}: {error}")
        except aiosmtplib.SMTPException as error:
            # No STARTTLS or AUTH on offer: perhaps somebody in between; so it is tried again, and never in the clear.
            return Delivery(DeliveryReason.MISCONFIGURED, retry=True, detail=str(error))

    async def _converse(
        self, message: EmailMessage, item_id: str, password: str | None, context: ssl.SSLContext
    ) -> Delivery:
        accepted = self._accepted.get(item_id, set())
        recipients = [recipient for recipient in self._recipients if recipient not in accepted]
        mode = self._settings.mode
        client = aiosmtplib.SMTP(
            hostname=self._settings.host.strip("[]"),
            port=self._settings.effective_port,
            use_tls=mode == "tls",
            start_tls=mode == "starttls",
            tls_context=context if mode != "none" else None,
            timeout=self._settings.timeout_seconds,
            local_hostname=_hello(mail_address(self._settings.sender).domain),
        )
        transport: asyncio.BaseTransport | None = None
        try:
            await client.connect()
            transport = client.transport
            if password is not None:
                await client.login(self._settings.username, password)
            sender = mail_address(self._settings.sender).addr_spec
            refused, answer = await client.sendmail(sender, recipients, message.as_bytes())
            # The mail is theirs by now, however the farewell goes.
            with contextlib.suppress(aiosmtplib.SMTPException, OSError):
                await client.quit()
        finally:
            client.close()
            if isinstance(transport, asyncio.WriteTransport):
                # A server that does not answer the end of TLS would keep the connection open.
                transport.abort()
            await asyncio.sleep(0)  # closing takes one turn of the loop
        later = {recipient for recipient, response in refused.items() if 400 <= response.code < 500}
        for _ in range(len(refused) - len(later)):
            self._counter.add("notify_recipient_refused", self._name)
        if later:
            while len(self._accepted) >= _MOST_PARTIAL:
                self._accepted.pop(next(iter(self._accepted)))
            self._accepted[item_id] = set(self._recipients) - later
            return Delivery(DeliveryReason.SERVER_ERROR, retry=True, detail=f"{len(later)} recipients put off")
        self._accepted.pop(item_id, None)
        detail = clean(answer, 200)
        if refused:
            detail = f"but refused for {', '.join(sorted(refused))}: {detail}"
        return Delivery(DeliveryReason.DELIVERED, detail=detail)


def _hello(domain: str) -> str:
    """The name to greet with: the sender's domain where it is a full one, else this machine's.

    The library would ask the resolver for it, in the loop, and wait for it as long as that takes.
    """
    name = domain if "." in domain else socket.gethostname()
    return name if re.fullmatch(r"[A-Za-z0-9.-]{1,255}", name) else "localhost"


def _answered(code: int, message: str) -> Delivery:
    detail = f"{code} {clean(message, 300)}"
    if 400 <= code < 500:
        return Delivery(DeliveryReason.SERVER_ERROR, retry=True, detail=detail)
    if code == 552:
        return Delivery(DeliveryReason.TOO_LARGE, detail=detail)
    return Delivery(DeliveryReason.REFUSED, detail=detail)


def compose(
    name: str, settings: EmailSettings, notifications: Sequence[Notification], item_id: str, head: str = ""
) -> EmailMessage:
    """The mail about `notifications` (several: a digest); the same bytes every time for the same input.

    head: what is said of the ledger's head, at the end; "" = nothing.
    """
    shown = [view(notification) for notification in notifications if notification.group_key != LEDGER_HEAD]
    if len(shown) > 1:
        shown = _bounded(shown)
    if not shown:
        subject, text = f"[DIGEST] the ledger's head of {socket.gethostname()}", ""
    else:
        subject = shown[0].title if len(shown) == 1 else digest_title(shown)
        text = plain_text(shown[0]) if len(shown) == 1 else digest_text(shown)
    if head:
        text += f"\n{'-' * 72}\n\n{head}" if text else head
    level = max(notification.level for notification in notifications)
    sender = mail_address(settings.sender)
    domain = sender.domain
    message = EmailMessage(policy=SMTP_POLICY)
    message["Date"] = _date(max(notification.created_at for notification in notifications))
    message["From"] = sender
    message["To"] = [mail_address(recipient) for recipient in settings.to]
    message["Subject"] = _no_encoded_words(subject)
    message["Message-ID"] = f"<{_digits(item_id, name)}@{domain}>"
    if len(notifications) == 1 and shown:
        # Nobody has the root of the thread; readers put together what refers to the same one.
        thread = f"<thread-{_digits(notifications[0].dedup_key)}@{domain}>"
        message["In-Reply-To"] = thread
        message["References"] = thread
        message["X-Vedette-Kind"] = shown[0].kind
        message["X-Vedette-Group"] = _header(notifications[0].group_key)
        message["X-Vedette-Incident"] = _header(notifications[0].dedup_key)
    message["List-Id"] = f"<{name}.vedette.{domain}>"
    message["Auto-Submitted"] = "auto-generated"
    message["X-Auto-Response-Suppress"] = "All"
    message["X-Vedette-Level"] = level.label
    rules = dict.fromkeys(member.rule_id for one in shown for member in one.members)
    message["X-Vedette-Rule"] = _header(", ".join(list(rules)[:10]))
    message["X-Vedette-Item"] = _header(item_id)
    if level >= Level.HIGH:
        message["Importance"] = "high"
    message.set_content(text, cte="quoted-printable")
    message.add_alternative(_page(subject, shown, head), subtype="html", cte="quoted-printable")
    # A boundary that does not change from one attempt to the next.
    message.set_boundary(f"=_{_digits(item_id, name, 'boundary')}")
    return message


def _bounded(shown: list[View]) -> list[View]:
    """A digest names every notification, but tells only the first alerts in full."""
    left = _MOST_DIGEST_MEMBERS
    bounded = []
    for one in shown:
        bounded.append(replace(one, members=one.members[:left]))
        left -= len(bounded[-1].members)
    return bounded


def _page(title: str, shown: list[View], head: str) -> str:
    return _pages.get_template("mail.html").render(title=title, shown=shown, head=head)


def _header(text: str) -> str:
    """`text` fit for a header of ours: ASCII, clean, short enough for one line (RFC 5322 section 2.1.1)."""
    return _no_encoded_words(clean(text, 200)).encode("ascii", "backslashreplace").decode("ascii")[:400]


def _no_encoded_words(text: str) -> str:
    """`text` in which no reader sees an encoded word (RFC 2047): they may hide line breaks."""
    return text.replace("=?", "=\\x3f")


def _digits(*parts: str) -> str:
    """Letters and digits that stand for `parts`, whatever is in them."""
    return hashlib.blake2b("\n".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _date(at: int) -> str:
    """RFC 5322 date of `at` (microseconds UTC)."""
    return format_datetime(datetime.fromtimestamp(min(max(at, 0), 253_402_300_799 * SECOND) / SECOND, UTC))
