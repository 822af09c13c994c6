"""JSON that others post: a sender is answered 200 only once what was made of it was handed on and kept.
Counterpart: http_server.py speaks HTTP, http_bodies.py cuts bodies; otlp.py takes OpenTelemetry by the same rules."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter as Tally
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import orjson
import structlog

from vedette.model.batch import Batch, RecordFormat, Trust, lines_of
from vedette.model.clock import Clock
from vedette.model.errors import ConfigError
from vedette.model.protocols import Counter, Emit
from vedette.model.reasons import DropReason
from vedette.sources.connections import Connection, ConnectionEnd
from vedette.sources.http_bodies import BodyError, BodyTooLargeError, records_of, unpacked
from vedette.sources.http_tokens import Guesses, Tokens
from vedette.sources.http_words import Answer, Asked, RequestEnd
from vedette.sources.relp import Kept, at_once
from vedette.sources.settings import HttpSettings, Transport, seconds
from vedette.sources.syslog import Sender, SyslogSource, tls_context
from vedette.sources.syslog_sockets import Listeners
from vedette.text.escape import terminal

if TYPE_CHECKING:
    from vedette.sources.http_server import HttpServer

log = structlog.get_logger("vedette.sources.http")

NAME = "http"
PATHS = ("/", "/v1/events")
MOST_HELD = 64 << 20
"""Bytes of bodies that are read, unpacked or wait for the engine, of all senders, half of them of one; further ones
come later. More where one request may be larger than a quarter of it."""
LEAST = 1024
"""What a request costs, however short it is."""
BUSY_AFTER = 5.0
"""Seconds a request waits for the engine before its sender is told to come later."""
RETRY_AFTER = 5
SLOWED_BY = 1.0
"""Seconds an address that guesses tokens waits for each answer."""
_UNPACKING = 2
"""Bodies that are unpacked at once."""
_JSON = "application/json"


@dataclass(slots=True, eq=False)
class Taken:
    """Records of one request on their way. dropped: what of it was cut, or not taken."""

    records: list[bytes]
    dropped: dict[DropReason, int] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Offer:
    sender: Sender
    taken: Taken
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    emitted: asyncio.Event = field(default_factory=asyncio.Event)


class _EndedError(Exception):
    def __init__(self, end: RequestEnd) -> None:
        self.end = end


def check_http(settings: HttpSettings, name: str = NAME) -> None:
    """ConfigError where the source could not run: a token, a TLS file or a library that is not there."""
    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise ConfigError(f"sources.{name} needs the extra `hub`", hint="pip install 'vedette[hub]'")
    Tokens(settings.tokens, name)
    tls_context(settings, name)


class HttpSource(SyslogSource):
    """Takes JSON objects posted to `settings.listen`, TCP and TLS. ConfigError where tokens or TLS cannot be had.

    Origins: `http:token/NAME` (forgeable: the sender is sure, what it says is not) and, where that is allowed,
    `http:anonymous/ADDRESS` (network). The position is the sender's count of records since this began. kept: awaits
    until everything emitted so far is safely stored; where that fails nothing is acknowledged, and the sender comes
    again: its records may come twice, they are not lost.
    """

    name = NAME
    paths: tuple[str, ...] = PATHS

    def __init__(
        self,
        settings: HttpSettings,
        listeners: Listeners,
        *,
        host_id: str,
        clock: Clock,
        counter: Counter,
        kept: Kept = at_once,
    ) -> None:
        super().__init__(settings, listeners, host_id=host_id, clock=clock, counter=counter)
        self._http = settings
        self._kept = kept
        self._tokens = Tokens(settings.tokens, self.name)
        self._guesses = Guesses(settings.bad_tokens, clock)
        self._offers: deque[_Offer] = deque()
        self._memory = _Memory(max(MOST_HELD, 4 * (settings.max_body + 2 * settings.max_unpacked)))
        self._unkept: list[asyncio.Future[bool]] = []
        self._more_unkept = asyncio.Event()
        self._unpacking = asyncio.Semaphore(_UNPACKING)
        self._server: HttpServer | None = None

    async def run(self, emit: Emit) -> None:
        """Take and answer until cancelled."""
        # Only the extra `hub` brings what it is made of.
        from vedette.sources.http_server import HttpServer, Limits

        wanted = self._http
        limits = Limits(*map(seconds, (wanted.handshake, wanted.request, wanted.request, wanted.idle)))
        self._server = HttpServer(dict.fromkeys(self.paths, self._answer), self._nowhere, limits)
        try:
            await super().run(emit)
        finally:
            await self._server.stop()

    async def _converse(self, connection: socket.socket, taken: Connection, transport: Transport) -> ConnectionEnd:
        assert self._server is not None
        return await self._server.converse(connection, taken, self._context if transport is Transport.TLS else None)

    # ------------------------------------------------------------------------------------------ answering

    async def _answer(self, asked: Asked) -> Answer:
        """The answer to one request, counted by what became of it."""
        try:
            answer = await self._take_in(asked)
            end = RequestEnd.KEPT if answer.status == 200 else RequestEnd.BAD_BODY
        except _EndedError as ended:
            end = ended.end
            answer = self._refusal(end, asked)
        except asyncio.CancelledError:
            self._counter.add(f"{self.name}_requests", RequestEnd.STOPPED)
            raise
        except Exception as error:  # noqa: BLE001 (a defect that one sender finds must not silence all)
            log.error("REQUEST FAILED", source=self.name, error=terminal(f"{type(error).__name__}: {error}"))
            end = RequestEnd.DEFECT
            answer = self._refusal(end, asked)
        self._counter.add(f"{self.name}_requests", end)
        return answer

    async def _nowhere(self, asked: Asked) -> Answer:
        self._counter.add(f"{self.name}_requests", RequestEnd.NO_SUCH_PATH)
        return self._refusal(RequestEnd.NO_SUCH_PATH, asked)

    def _refusal(self, end: RequestEnd, asked: Asked) -> Answer:
        status, later, close = _REFUSALS[end]
        words = self._words(end.value.replace("-", " "), asked)
        return Answer(self._status(end, status), words, self._answered_as(asked), later, close)

    # What OTLP does otherwise.

    def _takes(self, media_type: str) -> bool:  # noqa: ARG002
        return True

    def _answered_as(self, asked: Asked) -> str:  # noqa: ARG002
        return _JSON

    def _status(self, end: RequestEnd, status: int) -> int:  # noqa: ARG002
        return status

    def _words(self, why: str, asked: Asked) -> bytes:  # noqa: ARG002
        return orjson.dumps({"error": why})

    async def _take_in(self, asked: Asked) -> Answer:
        sender = await self._sender_of_request(asked)
        held = _Held(self._memory, sender)
        try:
            media_type = asked.headers.get("content-type", "").partition(";")[0].strip().lower()
            if not self._takes(media_type):
                raise _EndedError(RequestEnd.BAD_ENCODING)
            body = await self._body(asked, held)
            taken = await asyncio.to_thread(self._read_body, body, media_type)
            del body
            held.only(sum(map(len, taken.records)))
            if taken.records or taken.dropped:
                await self._hand_on(sender, taken)
            return self._taken(taken, asked)
        except BodyError as error:
            return Answer(400, self._words(str(error), asked), self._answered_as(asked))
        except BodyTooLargeError:
            raise _EndedError(RequestEnd.TOO_LARGE) from None
        finally:
            held.release()

    async def _sender_of_request(self, asked: Asked) -> Sender:
        authorization = asked.headers.get("authorization", "")
        if not authorization:
            if self._http.anonymous:
                return self._sender("anonymous", asked.address, Trust.NETWORK)
            end = RequestEnd.NO_TOKEN
        elif name := self._tokens.name_of(authorization):
            asked.is_known()
            return self._sender("token", name, Trust.FORGEABLE)
        else:
            end = RequestEnd.BAD_TOKEN
        if self._guesses.wrong(asked.address):
            # The connections of an address are bounded, so its guesses are now, too.
            await asyncio.sleep(SLOWED_BY)
            end = RequestEnd.BAD_TOKENS_LIMITED
        raise _EndedError(end)

    async def _body(self, asked: Asked, held: _Held) -> bytes:
        encoding = asked.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("identity", "gzip", ""):
            raise _EndedError(RequestEnd.BAD_ENCODING)
        most = self._http.max_body
        length = asked.headers.get("content-length", "")
        if length.isdigit() and (len(length) > 12 or int(length) > most):
            raise _EndedError(RequestEnd.TOO_LARGE)
        parts: list[bytes] = []
        size = 0
        try:
            async for part in asked.body:
                size += len(part)
                if size > most:
                    raise _EndedError(RequestEnd.TOO_LARGE)
                held.grow(len(part))
                parts.append(part)
        except TimeoutError:
            raise _EndedError(RequestEnd.TOO_SLOW) from None
        except ConnectionError:
            raise _EndedError(RequestEnd.CUT_OFF) from None
        body = b"".join(parts)
        if encoding != "gzip":
            return body
        try:
            async with asyncio.timeout(BUSY_AFTER):
                await self._unpacking.acquire()
        except TimeoutError:
            raise _EndedError(RequestEnd.BUSY) from None
        try:
            body = await asyncio.to_thread(unpacked, body, self._http.max_unpacked)
        finally:
            self._unpacking.release()
        held.only(len(body))
        return body

    # ------------------------------------------------------------------------------------------ bodies

    def _read_body(self, body: bytes, media_type: str) -> Taken:  # noqa: ARG002 (OTLP heeds it)
        """What is in a body; runs in a thread. BodyError where nothing can be made of it."""
        made = records_of(body, self._settings.max_record)
        if made.refused and not made.records:
            raise BodyError("no JSON object")
        dropped = {DropReason.JSON_UNREADABLE: made.refused, DropReason.RECORD_TOO_LONG: made.too_long}
        return Taken(made.records, {reason: n for reason, n in dropped.items() if n})

    def _taken(self, taken: Taken, asked: Asked) -> Answer:  # noqa: ARG002 (OTLP heeds it)
        refused = taken.dropped.get(DropReason.JSON_UNREADABLE, 0)
        return Answer(200, orjson.dumps({"taken": len(taken.records), "refused": refused}), _JSON)

    # ------------------------------------------------------------------------------------------ handing on

    async def _hand_on(self, sender: Sender, taken: Taken) -> None:
        """Until it is emitted and kept; _EndedError where the engine or the disk does not take it."""
        offer = _Offer(sender, taken)
        self._offers.append(offer)
        self._more.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(BUSY_AFTER):
                await offer.begun.wait()
        if not offer.begun.is_set():
            self._offers.remove(offer)
            raise _EndedError(RequestEnd.BUSY)
        await offer.emitted.wait()
        kept: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._unkept.append(kept)
        self._more_unkept.set()
        if not await kept:
            raise _EndedError(RequestEnd.NOT_KEPT)

    async def _pump(self, emit: Emit) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._emit_offers(emit))
            group.create_task(self._keep())

    async def _keep(self) -> None:
        """One wait for the disk is for all whose records were emitted before it began."""
        while True:
            self._more_unkept.clear()
            waiting, self._unkept = self._unkept, []
            if not waiting:
                await self._more_unkept.wait()
                continue
            try:
                await self._kept()
                kept = True
            except OSError:
                kept = False
            for one in waiting:
                if not one.done():
                    one.set_result(kept)

    async def _emit_offers(self, emit: Emit) -> None:
        while True:
            while not self._offers:
                self._more.clear()
                await self._more.wait()
            offer = self._offers.popleft()
            offer.begun.set()
            await emit(self._batch_of(offer))
            offer.emitted.set()

    async def _flush(self, emit: Emit) -> None:
        """The end: nothing that waits was acknowledged, and comes again."""

    def _batch_of(self, offer: _Offer) -> Batch:
        sender, records = offer.sender, offer.taken.records
        for reason, n in offer.taken.dropped.items():
            self._count(sender.dropped, reason, n)
        dropped, sender.dropped = sender.dropped, {}
        block, starts, ends = lines_of(records)
        positions = np.arange(sender.position, sender.position + len(records), dtype=np.int64)
        sender.position += len(records)
        number, sender.number = sender.number, sender.number + 1
        return Batch(
            origin=sender.origin,
            number=number,
            block=block,
            starts=starts,
            ends=ends,
            positions=positions,
            read_at=self._clock.now(),
            format=RecordFormat.JSON,
            trust=sender.trust,
            timezone=self._timezone,
            dropped=dropped,
        )


class _Memory:
    """Bytes held by the requests of each sender. most: of all together; one sender may hold half of them."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.size = 0
        self.by_sender: Tally[Sender] = Tally()

    def add(self, sender: Sender, size: int) -> None:
        """So many bytes more or fewer."""
        self.size += size
        self.by_sender[sender] += size
        if not self.by_sender[sender]:
            del self.by_sender[sender]


class _Held:
    """What one request holds of the memory that all share."""

    def __init__(self, of: _Memory, sender: Sender) -> None:
        self._of = of
        self._sender = sender
        self._size = 0
        self.grow(LEAST)

    def grow(self, size: int) -> None:
        """So many bytes more; _EndedError where all together hold too many."""
        memory = self._of
        if memory.size + size > memory.most or memory.by_sender[self._sender] + size > memory.most // 2:
            raise _EndedError(RequestEnd.BUSY)
        memory.add(self._sender, size)
        self._size += size

    def only(self, size: int) -> None:
        """So many bytes instead of what was held; _EndedError as `grow`."""
        self.release()
        self.grow(LEAST + size)

    def release(self) -> None:
        """Give it all back."""
        self._of.add(self._sender, -self._size)
        self._size = 0


_REFUSALS = {
    # Status, seconds until it may be tried again, whether the connection ends.
    RequestEnd.NO_TOKEN: (401, 0, True),
    RequestEnd.BAD_TOKEN: (401, 0, True),
    RequestEnd.BAD_TOKENS_LIMITED: (429, 60, True),
    RequestEnd.TOO_LARGE: (413, 0, True),
    RequestEnd.TOO_SLOW: (408, 0, True),
    RequestEnd.CUT_OFF: (400, 0, True),
    RequestEnd.NO_SUCH_PATH: (404, 0, True),
    RequestEnd.BAD_ENCODING: (415, 0, True),
    RequestEnd.BUSY: (429, RETRY_AFTER, True),
    RequestEnd.NOT_KEPT: (503, RETRY_AFTER, False),
    RequestEnd.DEFECT: (503, RETRY_AFTER, True),
}
