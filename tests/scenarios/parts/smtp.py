"""A real SMTP server on loopback: STARTTLS, login, and failures in whatever order a test wants.
Counterpart: the mailer that delivers to it."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, Literal

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from .processes import wait_until

Stage = Literal["MAIL", "RCPT", "DATA"]


@dataclass(frozen=True)
class Mail:
    """One mail that the server took (or took and then cut: `answered` is False; the client cannot know).

    received: microseconds UTC. tls and login tell how it came.
    """

    received: int
    sender: str
    recipients: tuple[str, ...]
    message: EmailMessage
    raw: bytes
    tls: bool
    login: str | None
    answered: bool

    @property
    def message_id(self) -> str:
        """The Message-ID header, the same for every delivery of one mail."""
        return str(self.message["Message-ID"])

    def text(self, subtype: str = "plain") -> str:
        """The text (or `html`) part, decoded, with plain line ends."""
        part = self.message.get_body(preferencelist=(subtype,))
        return "" if part is None else str(part.get_content()).replace("\r\n", "\n")


@dataclass(frozen=True)
class Failure:
    """What happens to one transaction: refused with a code at a stage, or cut.

    cut "after-data": stored, then the connection is closed before the answer; "before-data-ends": closed, not stored.
    """

    code: int = 0
    text: str = ""
    stage: Stage = "DATA"
    cut: Literal["", "after-data", "before-data-ends"] = ""

    @property
    def reply(self) -> str:
        """The SMTP reply line."""
        return f"{self.code} {self.text or 'as the test wants it'}"


class _Authenticator:
    def __init__(self, user: str, password: str) -> None:
        self._wanted = (user.encode(), password.encode())

    def __call__(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        if isinstance(data, LoginPassword) and (data.login, data.password) == self._wanted:
            return AuthResult(success=True, auth_data=data.login.decode())
        # handled=False makes aiosmtpd answer 535; otherwise it says nothing.
        return AuthResult(success=False, handled=False)


class _Handler:
    def __init__(self) -> None:
        self.mails: list[Mail] = []
        self.failures: deque[Failure] = deque()
        self.always: Failure | None = None
        self.transactions = 0
        self._current: dict[int, Failure | None] = {}

    def _refused(self, session: Session, stage: Stage) -> Failure | None:
        failure = self._current.get(id(session))
        return failure if failure is not None and failure.stage == stage else None

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        self.transactions += 1
        self._current[id(session)] = self.always or (self.failures.popleft() if self.failures else None)
        if (failure := self._refused(session, "MAIL")) is not None:
            return failure.reply
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if (failure := self._refused(session, "RCPT")) is not None:
            return failure.reply
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        failure = self._refused(session, "DATA")
        if failure is not None and not failure.cut:
            return failure.reply
        if failure is None or failure.cut == "after-data":
            self._store(session, envelope, answered=failure is None)
        if failure is not None:
            transport = server.transport
            assert isinstance(transport, asyncio.Transport)
            transport.abort()
            return "421 cut"
        return "250 OK"

    def _store(self, session: Session, envelope: Envelope, *, answered: bool) -> None:
        raw = envelope.original_content or b""
        login = str(session.auth_data) if session.authenticated else None
        message = message_from_bytes(raw, policy=policy.default)
        assert isinstance(message, EmailMessage)
        self.mails.append(
            Mail(
                time.time_ns() // 1000,
                envelope.mail_from or "",
                tuple(envelope.rcpt_tos),
                message,
                raw,
                session.ssl is not None,
                login,
                answered,
            )
        )


class _Controller(Controller):
    """Takes the port the kernel gives; aiosmtpd itself wants to know it before."""

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        super()._trigger_server()  # type: ignore[no-untyped-call]


class SmtpServer:
    """Starts at once on 127.0.0.1:`port` (the kernel's choice, kept over `down` and `up`).

    With `login` (user, password) it takes no mail without it; login only under TLS. `require_tls` refuses everything
    before STARTTLS. Failures: `fail(...)` queues one for the next transaction each, `fail_always` until `recover`.
    """

    def __init__(self, context: ssl.SSLContext | None, *, login: tuple[str, str] | None = None) -> None:
        self.host = "127.0.0.1"
        self.port = 0
        self._context = context
        self._login = login
        self._handler = _Handler()
        self._controller: _Controller | None = None
        self.up()

    @property
    def mails(self) -> list[Mail]:
        """Mails taken so far, in order of arrival."""
        return list(self._handler.mails)

    @property
    def transactions(self) -> int:
        """How many times a client said MAIL FROM, refused ones included."""
        return self._handler.transactions

    def fail(self, code: int, text: str = "", *, stage: Stage = "DATA", times: int = 1) -> None:
        """Refuse the next `times` transactions with that code (4xx: later please, 5xx: never)."""
        self._handler.failures.extend([Failure(code, text, stage)] * times)

    def cut(self, *, stored: bool, times: int = 1) -> None:
        """Close the next connections at the end of DATA without an answer; `stored`: after taking the mail."""
        kind: Literal["after-data", "before-data-ends"] = "after-data" if stored else "before-data-ends"
        self._handler.failures.extend([Failure(cut=kind)] * times)

    def fail_always(self, code: int, text: str = "", *, stage: Stage = "DATA") -> None:
        """Refuse every transaction until `recover`."""
        self._handler.always = Failure(code, text, stage)

    def recover(self) -> None:
        """No more failures."""
        self._handler.always = None
        self._handler.failures.clear()

    def down(self) -> None:
        """Stop listening: connections are refused."""
        if self._controller is not None:
            self._controller.stop()
            self._controller = None

    def up(self) -> None:
        """Listen (again, on the same port)."""
        if self._controller is not None:
            return
        extra: dict[str, Any] = {}
        if self._context is not None:
            extra |= {"tls_context": self._context, "require_starttls": True}
        if self._login is not None:
            extra |= {"authenticator": _Authenticator(*self._login), "auth_required": True}
        self._controller = _Controller(self._handler, hostname=self.host, port=self.port, **extra)
        self._controller.start()
        self.port = self._controller.port

    def wait_for(self, count: int, timeout: float = 15.0) -> list[Mail]:
        """Mails once there are `count` of them."""
        wait_until(f"{count} mails", lambda: len(self._handler.mails) >= count, timeout)
        return self.mails

    def close(self) -> None:
        """Stop for good."""
        self.down()
