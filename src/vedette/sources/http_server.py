"""HTTP/1.1 on connections that were accepted: bounded in header, body and time, and silent about what it was sent.
Counterpart: http.py and otlp.py answer what is asked; syslog.py accepts connections and counts their ends."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from vedette.sources.connections import Connection, ConnectionEnd
from vedette.sources.http_words import Answer, Asked

MOST_HEADER = 16_384
"""Bytes of a request's header."""
MOST_OF_REQUEST = 120.0
"""Seconds from a request's header to its answer, whatever holds it up."""
_PASSED_OVER = 1 << 18
"""Bytes of a body that is not wanted, read so that its sender hears the answer."""
_GOODBYE = 1.0
_TAKEN = "vedette.connection"

_silent = logging.getLogger("vedette.sources.http_server.uvicorn")
# It names paths and peers, which is hostile text, at every bad request.
_silent.setLevel(logging.CRITICAL + 1)
_silent.propagate = False

Handle = Callable[[Asked], Awaitable[Answer]]


class _Connection(H11Protocol):
    """uvicorn's protocol, with a limit on every time it may wait, that says how it ended."""

    def __init__(self, config: Config, state: ServerState, taken: Connection, header: float, idle: float) -> None:
        # What is in the last comes with every request.
        super().__init__(config, state, {_TAKEN: taken})
        self.logger = _silent
        self._taken = taken
        self.over = asyncio.Event()
        self.end = ConnectionEnd.CLOSED
        self._header = header
        self._idle = idle
        self._limit: asyncio.TimerHandle | None = None
        self._asking = self._answering = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._within(self._header)

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        if not self._asking:
            self._asking = True
            self._within(self._header)
        super().data_received(data)
        if self.cycle is not before:
            self._within(MOST_OF_REQUEST)
            self._answering = True
        self._say_who_waits()

    def on_response_complete(self) -> None:
        self._asking = self._answering = False
        before = self.cycle
        self._within(self._idle)
        super().on_response_complete()
        if self.cycle is not before:
            # Another request had come already.
            self._asking = self._answering = True
            self._within(MOST_OF_REQUEST)
        self._say_who_waits()

    def _say_who_waits(self) -> None:
        """It is ours to work on from a request's last byte to its answer; else more has to come."""
        if self._answering and not self.cycle.more_body:
            self._taken.heard()
        else:
            self._taken.waits()

    def send_400_response(self, msg: str) -> None:
        self.end = ConnectionEnd.BAD_FRAME
        super().send_400_response(msg)
        self._within(_GOODBYE)

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and self.end is ConnectionEnd.CLOSED:
            self.end = ConnectionEnd.RESET
        elif self._asking and self.end is ConnectionEnd.CLOSED:
            self.end = ConnectionEnd.CUT_OFF
        if self._limit is not None:
            self._limit.cancel()
        super().connection_lost(exc)
        self.over.set()

    def _within(self, seconds: float) -> None:
        if self._limit is not None:
            self._limit.cancel()
        if self.over.is_set():
            return
        self._limit = self.loop.call_later(seconds, self._too_long)

    def _too_long(self) -> None:
        if self.end is ConnectionEnd.CLOSED:
            self.end = ConnectionEnd.IDLE
        self.transport.abort()


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds: handshake of TLS, header of a request, body of one, and idle between two."""

    handshake: float
    header: float
    body: float
    idle: float


class HttpServer:
    """Serves connections one by one; `paths`: who answers a POST there; other: everything else."""

    def __init__(self, paths: Mapping[str, Handle], other: Handle, limits: Limits) -> None:
        self._limits = limits
        self._state = ServerState()
        routes = [Route(path, self._endpoint(handle), methods=["POST"]) for path, handle in paths.items()]
        elsewhere = self._endpoint(other)

        async def nowhere(request: Request, _error: Exception) -> Response:
            return await elsewhere(request)

        # Any other path, target or method, also one nobody ever heard of.
        app = Starlette(routes=routes, exception_handlers={404: nowhere, 405: nowhere})
        app.router.redirect_slashes = False
        self._config = Config(
            app,
            http=_Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            # Ours are in force before it.
            timeout_keep_alive=int(limits.idle) + 60,
            h11_max_incomplete_event_size=MOST_HEADER,
        )
        self._config.load()

    async def converse(
        self, connection: socket.socket, taken: Connection, context: ssl.SSLContext | None
    ) -> ConnectionEnd:
        """One connection to its end."""
        limits = self._limits
        try:
            transport, served = await asyncio.get_running_loop().connect_accepted_socket(
                lambda: _Connection(self._config, self._state, taken, limits.header, limits.idle),
                connection,
                ssl=context,
                ssl_handshake_timeout=limits.handshake if context else None,
                ssl_shutdown_timeout=_GOODBYE if context else None,
            )
        except OSError:  # also ssl.SSLError, and the end of patience
            connection.close()
            return ConnectionEnd.HANDSHAKE_FAILED
        if context is not None and context.verify_mode is ssl.CERT_REQUIRED:
            taken.is_known()
        try:
            await served.over.wait()
        finally:
            transport.abort()
        return served.end

    async def stop(self) -> None:
        """End what is being answered; nothing of it was acknowledged."""
        tasks = list(self._state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _endpoint(self, handle: Handle) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            body = request.stream()
            asked = Asked(
                path=request.url.path,
                # Latin-1, as HTTP has them.
                headers={name.lower(): value for name, value in request.headers.items()},
                address=request.client.host if request.client is not None else "",
                body=self._in_time(body),
                is_known=request.scope["state"][_TAKEN].is_known,
            )
            answer = await handle(asked)
            if answer.close:
                await _pass_over(body)
            headers = {"Connection": "close"} if answer.close else {}
            if answer.retry_after:
                headers["Retry-After"] = str(answer.retry_after)
            if answer.status == 401:
                headers["WWW-Authenticate"] = "Bearer"
            return Response(answer.body, answer.status, headers, media_type=answer.media_type)

        return endpoint

    async def _in_time(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        until = asyncio.get_running_loop().time() + self._limits.body
        while True:
            async with asyncio.timeout_at(until):
                try:
                    part = await anext(body)
                except StopAsyncIteration:
                    return
                except ClientDisconnect:
                    raise ConnectionResetError from None
            yield part


async def _pass_over(body: AsyncIterator[bytes]) -> None:
    """Closed with bytes unread a connection is reset, and the answer may be lost with it."""
    size = 0
    try:
        async with asyncio.timeout(_GOODBYE):
            async for part in body:
                size += len(part)
                if size > _PASSED_OVER:
                    return
    except (TimeoutError, ClientDisconnect, RuntimeError):
        # RuntimeError: it was read already.
        return
