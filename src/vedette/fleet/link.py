"""One lasting connection to the broker: opened again for ever, exchanged for another one without a gap.
Counterpart: `transport` speaks over it; which subjects it listens to is said anew at each opening."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client

from vedette.fleet.authority import HUB_NAME
from vedette.model.errors import VedetteError
from vedette.model.fleet import LinkReason
from vedette.model.protocols import Counter
from vedette.text.escape import terminal

_log = structlog.get_logger(__name__)

_CONNECT_SECONDS, _WHOLE_SECONDS = 5, 15.0
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 20.0
_EXCHANGE_SECONDS = 10.0
_MOST_PENDING = 32 << 20


class LinkError(VedetteError):
    """A message that did not go through; the caller keeps it and tries again."""

    def __init__(self, reason: LinkReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to connect and as whom. urls: tls://HOST:PORT. name: what the server's certificate must say, "" = its
    host. inbox: what the subjects of answers begin with. credentials: a NATS credentials file, "" = the certificate.
    """

    urls: tuple[str, ...]
    context: ssl.SSLContext
    inbox: str
    name: str = HUB_NAME
    credentials: str = ""


def reason_of(error: BaseException) -> LinkReason:
    """Which of our reasons an error of the library is."""
    text = str(error).lower()
    # Order matters: what the library derives from what.
    if isinstance(error, LinkError):
        return error.reason
    if isinstance(error, ssl.SSLError | ssl.CertificateError) or "ssl" in text or "certificate" in text:
        return LinkReason.TLS
    if isinstance(error, nats.errors.AuthorizationError) or "authorization" in text or "authentication" in text:
        return LinkReason.UNAUTHORIZED
    if "permissions violation" in text:
        return LinkReason.FORBIDDEN
    if isinstance(error, nats.errors.SlowConsumerError) or "slow consumer" in text:
        return LinkReason.SLOW_CONSUMER
    if isinstance(error, nats.errors.MaxPayloadError) or "maximum payload" in text:
        return LinkReason.TOO_LARGE
    if isinstance(error, nats.js.errors.APIError):
        full = "maximum" in text or "resource" in text or "insufficient" in text
        return LinkReason.FULL if full else LinkReason.NO_STREAM
    if isinstance(error, nats.errors.NoRespondersError | nats.js.errors.NoStreamResponseError):
        return LinkReason.NO_STREAM
    if isinstance(error, TimeoutError | nats.errors.TimeoutError):
        return LinkReason.TIMEOUT
    if isinstance(error, nats.errors.NoServersError | OSError) and not isinstance(error, ConnectionResetError):
        return LinkReason.UNREACHABLE
    if isinstance(
        error,
        ConnectionResetError
        | nats.errors.ConnectionClosedError
        | nats.errors.UnexpectedEOF
        | nats.errors.StaleConnectionError
        | nats.errors.ConnectionDrainingError,
    ):
        return LinkReason.CUT
    return LinkReason.FAILED


@contextmanager
def cancellable() -> Iterator[None]:
    """What is done through nats-py stays cancellable: it takes a cancellation in its flush for the flush's end and goes
    on, and whoever cancelled would wait for ever."""
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    yield
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError


def is_worth_saying(record: logging.LogRecord) -> bool:
    """What asyncio says at each end of a connection that the library made TLS of: true, and of no consequence."""
    return "returning true from eof_received()" not in str(record.msg)


class Link:
    """Holds one connection as long as it is entered. ready: called with each new connection before it counts as one:
    subscribes; what it raises is a failed opening. Which errors there were is counted as `link_failed` by reason.
    """

    def __init__(self, endpoint: Endpoint, ready: Callable[[Client], Awaitable[None]], counter: Counter) -> None:
        logging.getLogger("asyncio").addFilter(is_worth_saying)
        self._endpoint = endpoint
        self._ready = ready
        self._counter = counter
        self._client: Client | None = None
        self._closed: dict[Client, asyncio.Event] = {}
        self._users: dict[Client, int] = {}
        self._idle: dict[Client, asyncio.Event] = {}
        self._up = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self.trouble: LinkReason | None = None
        """Why it is not connected; None while it is, or was not tried yet."""

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._up.is_set()

    async def __aenter__(self) -> Self:
        self._keeper = asyncio.create_task(self._keep())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Once is not enough: a cancellation that meets a connection just opened is lost in `wait_for` (Python 3.11).
        while self._keeper is not None and not self._keeper.done():
            self._keeper.cancel()
            await asyncio.wait({self._keeper}, timeout=1)
        self._up.clear()
        for client in list(self._closed):
            await _shut(client)

    @asynccontextmanager
    async def use(self, seconds: float | None = None) -> AsyncIterator[Client]:
        """The connection, waited for up to `seconds` (None: for ever). LinkError for whatever goes wrong."""
        try:
            async with asyncio.timeout(seconds):
                await self._up.wait()
        except TimeoutError:
            raise LinkError(self.trouble or LinkReason.UNREACHABLE, "there is no connection to the hub") from None
        client = self._client
        if client is None:
            raise LinkError(LinkReason.CUT, "there is no connection to the hub")
        self._users[client] = self._users.get(client, 0) + 1
        try:
            with cancellable():
                yield client
        except LinkError as failed:
            self._counter.add("link_failed", failed.reason)
            raise
        except (nats.errors.Error, OSError, ValueError) as failed:
            reason = reason_of(failed)
            self._counter.add("link_failed", reason)
            raise LinkError(reason, str(failed) or reason.value) from None
        finally:
            self._users[client] -= 1
            if not self._users[client]:
                del self._users[client]
                if client in self._idle:
                    self._idle[client].set()

    async def exchange(self, endpoint: Endpoint) -> None:
        """Go over to another identity or place: the new connection is up before the old one goes. LinkError if not.

        Without a connection now, the next one is opened so.
        """
        old = self._client
        if old is not None:
            try:
                new = await self._open(endpoint)
            except BaseException as failed:
                if isinstance(failed, asyncio.CancelledError):
                    raise
                raise LinkError(reason_of(failed), str(failed)) from None
            self._endpoint, self._client = endpoint, new
            self._up.set()
            # What was asked over the old one is answered over it.
            if self._users.get(old, 0):
                self._idle[old] = asyncio.Event()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_EXCHANGE_SECONDS):
                        await self._idle[old].wait()
                self._idle.pop(old, None)
            await _shut(old)
        else:
            self._endpoint = endpoint

    # ---------------------------------------------------------------- keeping it
    async def _keep(self) -> None:
        pause = _SHORTEST_PAUSE
        while True:
            if self._client is None:
                try:
                    self._client = await self._open(self._endpoint)
                except (nats.errors.Error, OSError, TimeoutError, ValueError, LinkError) as error:
                    self._tell(reason_of(error), str(error))
                    # Full jitter: a thousand agents must not come back in the same moment.
                    await asyncio.sleep(random.uniform(pause / 4, pause))
                    pause = min(pause * 2, _LONGEST_PAUSE)
                    continue
                pause = _SHORTEST_PAUSE
                self.trouble = None
                self._up.set()
            client = self._client
            await self._closed[client].wait()
            self._closed.pop(client, None)
            if self._client is client:
                self._client = None
                self._up.clear()
                self._counter.add("link_cut")
                await asyncio.sleep(random.uniform(0, _SHORTEST_PAUSE))

    def _tell(self, reason: LinkReason, words: str) -> None:
        self._counter.add("link_failed", reason)
        if self.trouble is not reason:
            _log.warning("no connection to the hub's broker", reason=reason.value, error=terminal(words))
        self.trouble = reason

    async def _open(self, endpoint: Endpoint) -> Client:
        client, closed = Client(), asyncio.Event()
        last: list[Exception] = []

        async def on_error(error: Exception) -> None:
            last[:] = [error]
            if client.is_connected:
                self._counter.add("link_error", reason_of(error))

        async def on_closed() -> None:
            closed.set()

        try:
            await _within(
                client.connect(
                    list(endpoint.urls),
                    error_cb=on_error,
                    closed_cb=on_closed,
                    allow_reconnect=False,
                    connect_timeout=_CONNECT_SECONDS,
                    # Two tries a server, at once: how long to wait is decided here, and not by the library.
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    ping_interval=10,
                    max_outstanding_pings=2,
                    tls=endpoint.context,
                    tls_hostname=endpoint.name or None,
                    user_credentials=endpoint.credentials or None,
                    inbox_prefix=endpoint.inbox,
                    pending_size=_MOST_PENDING,
                ),
                _WHOLE_SECONDS,
            )
            with cancellable():
                await self._ready(client)
                await client.flush(_CONNECT_SECONDS)
        except BaseException as error:
            await _shut(client)
            # The library says "no servers" and keeps the cause to itself.
            if isinstance(error, nats.errors.NoServersError) and last:
                raise LinkError(reason_of(last[0]), str(last[0])) from None
            raise
        if closed.is_set():
            raise LinkError(reason_of(last[0]) if last else LinkReason.CUT, "cut at once")
        self._closed[client] = closed
        return client


async def _within(work: Coroutine[Any, Any, None], seconds: float) -> None:
    """In a task of its own, which is cancelled after so long (TimeoutError) or with us, whatever it makes of that.

    ConnectionAbortedError where it was given up from elsewhere, which is no cancellation of ours.
    """
    task = asyncio.create_task(work)
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    finally:
        task.cancel()
    if not done:
        raise TimeoutError
    if task.cancelled():
        raise ConnectionAbortedError("given up")
    task.result()


async def _shut(client: Client) -> None:
    try:
        await _within(client.close(), _CONNECT_SECONDS)
    except (nats.errors.Error, OSError, TimeoutError):
        # It is of no use any more, whatever state it is in.
        return
