"""What people did in PagerDuty comes back: a small listener for its signed webhooks, version 3.
Counterpart: PagerDuty's webhook subscriptions; the callback of `app` changes the alerts."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ssl
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import h11
import orjson
import structlog

from vedette.model.clock import Clock
from vedette.model.errors import ConfigError, StateError
from vedette.model.protocols import Counter
from vedette.notify.render import clean
from vedette.notify.settings import PagerDutyWebhookSettings
from vedette.text.times import parse_rfc3339

_log = structlog.get_logger(__name__)

MOST_BODY = 1 << 20
_MOST_HEADERS = 16 * 1024
_MOST_CONNECTIONS = 16
_MOST_SIGNATURES = 8
_MOST_REMEMBERED = 4096
# PagerDuty itself waits 5 seconds for an answer (its documentation, Webhooks, Behavior).
_REQUEST_SECONDS = 10.0
_LINGER_SECONDS = 1.0


class PagerVerb(StrEnum):
    """What was done to an incident; past tense, as PagerDuty calls it."""

    ACKNOWLEDGED = "acknowledged"
    UNACKNOWLEDGED = "unacknowledged"
    RESOLVED = "resolved"
    REOPENED = "reopened"


class RequestOutcome(StrEnum):
    """What became of a request to the listener."""

    TOLD = "told"
    REPEATED = "repeated"
    NOT_ABOUT_US = "not-about-us"
    BAD_SIGNATURE = "bad-signature"
    BAD_REQUEST = "bad-request"
    TOO_LARGE = "too-large"
    TOO_SLOW = "too-slow"
    TOO_MANY = "too-many"
    NOT_FOUND = "not-found"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class PagerEvent:
    """One verb on one incident. at: microseconds UTC, when PagerDuty says it happened; who: harmless text."""

    id: str
    dedup_key: str
    verb: PagerVerb
    who: str
    at: int


# Given dedup_key, verb, who, at (microseconds). Must take repeats and unknown keys calmly; StateError = come again.
PagerCallback = Callable[[str, PagerVerb, str, int], Awaitable[None]]

_STATUS = {
    RequestOutcome.TOLD: 202,
    RequestOutcome.REPEATED: 202,
    RequestOutcome.NOT_ABOUT_US: 202,
    RequestOutcome.BAD_SIGNATURE: 401,
    RequestOutcome.BAD_REQUEST: 400,
    RequestOutcome.TOO_LARGE: 413,
    RequestOutcome.TOO_SLOW: 408,
    RequestOutcome.TOO_MANY: 503,
    RequestOutcome.NOT_FOUND: 404,
    RequestOutcome.UNAVAILABLE: 503,
}


def signed(body: bytes, header: bytes, secrets: Sequence[str]) -> bool:
    """Whether one `v1=<hex HMAC-SHA256 of body>` of the header is of one of `secrets`; in constant time."""
    offered = [part.strip() for part in header.split(b",")[:_MOST_SIGNATURES]]
    good = False
    for secret in secrets:
        wanted = b"v1=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest().encode()
        for signature in offered:
            good |= hmac.compare_digest(wanted, signature)
    return good


def parse_event(body: bytes) -> PagerEvent | None:
    """The event in a webhook v3 body; None where it is not about an incident of ours; ValueError where it is none."""
    event = _member(orjson.loads(body), "event")
    kind = event.get("event_type")
    if not isinstance(kind, str):
        raise ValueError("no event_type")
    resource, _, verb = kind.partition(".")
    if resource != "incident" or verb not in {one.value for one in PagerVerb}:
        return None
    data = _member(event, "data")
    key = data.get("incident_key")
    if not isinstance(key, str) or not key:
        # Incidents that people open by hand have none.
        return None
    if len(key) > 255:
        raise ValueError("incident_key is over 255 characters")
    agent = event.get("agent")
    who = agent.get("summary") if isinstance(agent, dict) else None
    at = event.get("occurred_at")
    if not isinstance(at, str):
        raise ValueError("no occurred_at")
    identity = event.get("id")
    return PagerEvent(
        id=identity if isinstance(identity, str) else "",
        dedup_key=key,
        verb=PagerVerb(verb),
        who=clean(who, 120) if isinstance(who, str) and who else "PagerDuty",
        at=parse_rfc3339(at),
    )


def _member(value: Any, name: str) -> dict[str, Any]:
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, dict):
        raise ValueError(f"no object {name}")
    return found


class PagerDutyListener:
    """Serves until cancelled. One request a connection; at most 16 connections, 1 MiB and 10 seconds each.

    Answers 202 taken (also what is not about us), 400, 401, 404, 408, 413, and 503 for "come again".
    A repeated event is answered 202 and not told again.
    """

    def __init__(
        self, settings: PagerDutyWebhookSettings, callback: PagerCallback, clock: Clock, counter: Counter
    ) -> None:
        self._settings = settings
        self._callback = callback
        self._clock = clock
        self._counter = counter
        self._connections = 0
        self._told: OrderedDict[str, None] = OrderedDict()
        self._refusing = False
        self._secretless = False
        self.port = 0

    async def run(self, started: asyncio.Event | None = None) -> None:
        """Listen until cancelled; `started` is set once `port` is known. ConfigError where that cannot be."""
        settings = self._settings
        try:
            context = None
            if settings.certificate:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(settings.certificate, settings.key)
            server = await asyncio.start_server(
                self._serve,
                settings.listen,
                settings.port,
                ssl=context,
                ssl_handshake_timeout=_REQUEST_SECONDS if context else None,
                limit=_MOST_HEADERS,
                backlog=_MOST_CONNECTIONS,
            )
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"cannot listen for PagerDuty on {settings.listen} port {settings.port}: {error}",
                hint="notify.pagerduty_webhook: listen, port, certificate, key",
            ) from None
        async with server:
            self.port = server.sockets[0].getsockname()[1]
            if started is not None:
                started.set()
            await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_MOST_HEADERS)
        try:
            if self._connections > _MOST_CONNECTIONS:
                outcome = RequestOutcome.TOO_MANY
            else:
                try:
                    async with asyncio.timeout(_REQUEST_SECONDS):
                        outcome = await self._request(connection, reader)
                except TimeoutError:
                    outcome = RequestOutcome.TOO_SLOW
        except (ConnectionError, ssl.SSLError):
            # They left in the middle: whoever signs properly comes again.
            outcome = RequestOutcome.BAD_REQUEST
        self._count(outcome)
        try:
            await _answer(connection, writer, _STATUS[outcome])
            if connection.their_state is not h11.DONE:
                await _linger(reader)
        except (ConnectionError, ssl.SSLError, TimeoutError):
            # Nobody is there to hear the answer; what was told stays told.
            return
        finally:
            self._connections -= 1
            writer.close()

    def _count(self, outcome: RequestOutcome) -> None:
        self._counter.add("pagerduty_webhook", outcome)
        if outcome is RequestOutcome.BAD_SIGNATURE and not self._refusing:
            # Once: anybody can send these.
            self._refusing = True
            _log.warning("a webhook with a wrong signature was refused; further ones are only counted")

    async def _request(self, connection: h11.Connection, reader: asyncio.StreamReader) -> RequestOutcome:
        header: bytes | None = None
        body = b""
        try:
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    if connection.they_are_waiting_for_100_continue:
                        # Nobody who signs webhooks asks first.
                        return RequestOutcome.BAD_REQUEST
                    connection.receive_data(await reader.read(65536))
                elif isinstance(event, h11.Request):
                    if event.method != b"POST" or event.target.split(b"?")[0] != self._settings.path.encode():
                        return RequestOutcome.NOT_FOUND
                    headers = dict(event.headers)
                    length = headers.get(b"content-length", b"0")
                    if len(length) > 12 or int(length) > MOST_BODY:
                        return RequestOutcome.TOO_LARGE
                    header = headers.get(b"x-pagerduty-signature", b"")
                elif isinstance(event, h11.Data):
                    body += event.data
                    if len(body) > MOST_BODY:
                        return RequestOutcome.TOO_LARGE
                elif isinstance(event, h11.EndOfMessage):
                    break
                else:
                    return RequestOutcome.BAD_REQUEST
        except (h11.RemoteProtocolError, ValueError):
            return RequestOutcome.BAD_REQUEST
        return await self._judge(body, header or b"")

    async def _judge(self, body: bytes, header: bytes) -> RequestOutcome:
        try:
            secrets = [secret.read().strip() for secret in self._settings.secrets]
        except ConfigError as error:
            if not self._secretless:
                # Once: anybody can send these.
                self._secretless = True
                _log.error("the secret of PagerDuty's webhook cannot be read", error=str(error))
            return RequestOutcome.UNAVAILABLE
        self._secretless = False
        if not all(secrets) or not signed(body, header, secrets):
            return RequestOutcome.BAD_SIGNATURE
        try:
            event = parse_event(body)
        except ValueError:
            return RequestOutcome.BAD_REQUEST
        if event is None:
            return RequestOutcome.NOT_ABOUT_US
        if event.id and event.id in self._told:
            return RequestOutcome.REPEATED
        try:
            # A clock that is ahead there must not put things in our future.
            await self._callback(event.dedup_key, event.verb, event.who, min(event.at, self._clock.now()))
        except StateError as error:
            _log.error("an answer of the pager cannot be stored; it will come again", error=str(error))
            return RequestOutcome.UNAVAILABLE
        if event.id:
            self._told[event.id] = None
            while len(self._told) > _MOST_REMEMBERED:
                self._told.popitem(last=False)
        return RequestOutcome.TOLD


async def _linger(reader: asyncio.StreamReader) -> None:
    """Take a little of what still comes: closing at once would reset the connection and lose our answer."""
    left = 2 * MOST_BODY
    try:
        async with asyncio.timeout(_LINGER_SECONDS):
            while left > 0 and (data := await reader.read(65536)):
                left -= len(data)
    except TimeoutError:
        return


async def _answer(connection: h11.Connection, writer: asyncio.StreamWriter, status: int) -> None:
    if connection.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
        return
    headers = [("Content-Length", "0"), ("Connection", "close")]
    data = connection.send(h11.Response(status_code=status, headers=headers, reason=b""))
    writer.write((data or b"") + (connection.send(h11.EndOfMessage()) or b""))
    async with asyncio.timeout(_REQUEST_SECONDS):
        await writer.drain()
