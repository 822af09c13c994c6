"""Where hosts enrol: a small HTTPS listener, bounded in everything a stranger can ask of it.
Counterpart: `enrolment.enrol` comes here; `Registrar` decides."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import ssl
from collections import OrderedDict
from types import TracebackType
from typing import Any, Self

import msgspec
import structlog
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from vedette.fleet.authority import SERVER_LIFE
from vedette.fleet.enrolment import MOST_BODY, EnrolRequest, Refused, Registrar
from vedette.fleet.hub_settings import HubSettings
from vedette.model.clock import MINUTE, Clock
from vedette.model.errors import StateError, VedetteError
from vedette.model.fleet import EnrolReason
from vedette.model.protocols import Counter
from vedette.text.escape import terminal

_log = structlog.get_logger(__name__)

_HANDSHAKE_SECONDS, _CONNECTION_SECONDS = 5.0, 15.0
_MOST_REMEMBERED = 4096
_PART_OF_CONNECTIONS = 4
_STATUS = {
    EnrolReason.ENROLLED: 200,
    EnrolReason.REPEATED: 200,
    EnrolReason.RATE_LIMITED: 429,
    EnrolReason.TOO_LARGE: 413,
    EnrolReason.UNAVAILABLE: 503,
    EnrolReason.BAD_REQUEST: 400,
    EnrolReason.BAD_HOST_ID: 400,
    EnrolReason.BAD_CSR: 400,
    EnrolReason.HOST_ID_TAKEN: 409,
}
_GUESSES = frozenset({EnrolReason.UNKNOWN_TOKEN, EnrolReason.BAD_REQUEST})


class Patience:
    """How often an address was wrong lately. most: within a minute; beyond that it is not listened to."""

    def __init__(self, most: int, clock: Clock) -> None:
        self._most = most
        self._clock = clock
        self._wrong: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def spent(self, address: str) -> bool:
        """Whether this address has used it up."""
        began, wrong = self._wrong.get(_network_of(address), (0, 0))
        return wrong >= self._most and abs(self._clock.now() - began) < MINUTE

    def wrong(self, address: str) -> None:
        """It was wrong once more."""
        key, now = _network_of(address), self._clock.now()
        began, wrong = self._wrong.pop(key, (now, 0))
        if abs(now - began) >= MINUTE:
            began, wrong = now, 0
        self._wrong[key] = (began, wrong + 1)
        if len(self._wrong) > _MOST_REMEMBERED:
            self._wrong.popitem(last=False)


def _network_of(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(parsed, ipaddress.IPv6Address):
        # One subscriber has a whole /64 to come from.
        return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


_silent = logging.getLogger("vedette.fleet.door.uvicorn")
# It says a line at every bad request, which any stranger can make.
_silent.setLevel(logging.CRITICAL + 1)
_silent.propagate = False


class _Connection(H11Protocol):
    """uvicorn's protocol that says when it is over, and counts what is no HTTP."""

    def __init__(self, config: Config, state: ServerState, counter: Counter) -> None:
        super().__init__(config, state, {})
        self.logger = _silent
        self.over = asyncio.Event()
        self._counter = counter

    @property
    def asking(self) -> bool:
        """Whether there is a request that is not answered; who answers counts it."""
        # None until the first, whatever it is declared as.
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def send_400_response(self, msg: str) -> None:
        if not self.asking:
            self._counter.add("enrolments", EnrolReason.BAD_REQUEST)
        super().send_400_response(msg)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.over.set()


class Door:
    """The listener; as an async context manager it is open while inside. `port`: where, once it is open.

    At most `most_connections` at once, a quarter of them from one address; each has 15 seconds for everything.
    """

    def __init__(self, registrar: Registrar, settings: HubSettings, *, clock: Clock, counter: Counter) -> None:
        self._registrar = registrar
        self._settings = settings
        self._clock = clock
        self._counter = counter
        self._patience = Patience(settings.bad_tokens, clock)
        self._open: dict[asyncio.Task[None], str] = {}
        self._acceptor: asyncio.Task[None] | None = None
        self._socket: socket.socket | None = None
        self._context: ssl.SSLContext | None = None
        self._renew_at = 0
        self.port = 0

    async def __aenter__(self) -> Self:
        host, _, port = self._settings.enrol.rpartition(":")
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = socket.create_server((host, max(int(port), 0)), family=family, backlog=128)
        except OSError as error:
            raise VedetteError(
                f"cannot listen on {self._settings.enrol}: {error.strerror}", hint="set hub.enrol"
            ) from None
        self._socket.setblocking(False)
        self.port = self._socket.getsockname()[1]
        routes = [
            Route("/v1/authority", self._authority, methods=["GET"]),
            Route("/v1/enrol", self._enrol, methods=["POST"]),
        ]
        app = Starlette(routes=routes, exception_handlers={404: self._nowhere, 405: self._nowhere})
        app.router.redirect_slashes = False
        config = Config(
            app,
            http=_Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=1,
            h11_max_incomplete_event_size=MOST_BODY,
        )
        config.load()
        self._acceptor = asyncio.create_task(self._accept(self._socket, config, ServerState()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = [*self._open, *([self._acceptor] if self._acceptor is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()

    # ---------------------------------------------------------------- connections
    async def _accept(self, listening: socket.socket, config: Config, state: ServerState) -> None:
        loop = asyncio.get_running_loop()
        most = self._settings.most_connections
        share = max(most // _PART_OF_CONNECTIONS, 1)
        while True:
            try:
                accepted, peer = await loop.sock_accept(listening)
            except OSError:
                # No descriptors left, or the peer went before we came.
                self._counter.add("enrolments", EnrolReason.UNAVAILABLE)
                await asyncio.sleep(0.1)
                continue
            address = str(peer[0])
            if len(self._open) >= most or sum(one == address for one in self._open.values()) >= share:
                self._counter.add("enrolments", EnrolReason.TOO_MANY)
                accepted.close()
                continue
            task = asyncio.create_task(self._serve(accepted, config, state))
            self._open[task] = address
            task.add_done_callback(self._open.pop)

    async def _serve(self, accepted: socket.socket, config: Config, state: ServerState) -> None:
        transport: asyncio.BaseTransport | None = None
        connection: _Connection | None = None
        try:
            transport, connection = await asyncio.get_running_loop().connect_accepted_socket(
                lambda: _Connection(config, state, self._counter),
                accepted,
                ssl=self._tls(),
                ssl_handshake_timeout=_HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=1,
            )
            async with asyncio.timeout(_CONNECTION_SECONDS):
                await connection.over.wait()
        except TimeoutError:
            if connection is None or not connection.asking:
                self._counter.add("enrolments", EnrolReason.TOO_SLOW)
        except OSError:
            # Not TLS, or gone in the middle of it.
            self._counter.add("enrolments", EnrolReason.BAD_REQUEST)
        finally:
            if isinstance(transport, asyncio.WriteTransport):
                transport.abort()
            accepted.close()

    def _tls(self) -> ssl.SSLContext:
        now = self._clock.now()
        if self._context is None or now >= self._renew_at:
            identity = self._registrar.authority.identity("door", server=True, names=self._settings.broker.names)
            self._context, self._renew_at = identity.server_context(clients=False), now + SERVER_LIFE * 2 // 3
        return self._context

    # ---------------------------------------------------------------- requests
    async def _authority(self, _request: Request) -> Response:
        return Response(self._registrar.authority.certificate, media_type="application/x-pem-file")

    async def _nowhere(self, _request: Request, _error: Exception) -> Response:
        self._counter.add("enrolments", EnrolReason.NOT_FOUND)
        body = msgspec.json.encode(Refused(EnrolReason.NOT_FOUND.value))
        return Response(body, 404, {"Connection": "close"}, media_type="application/json")

    async def _enrol(self, request: Request) -> Response:
        address = request.client.host if request.client is not None else ""
        try:
            reason, answer = await self._decide(request, address)
        except ClientDisconnect:
            reason, answer = EnrolReason.TOO_SLOW, None
        except StateError as error:
            _log.error("nobody can join", error=str(error))
            reason, answer = EnrolReason.UNAVAILABLE, None
        except Exception as error:  # noqa: BLE001 (a defect that a stranger finds is counted as all else is)
            _log.error("REQUEST TO JOIN FAILED", error=terminal(f"{type(error).__name__}: {error}"))
            reason, answer = EnrolReason.UNAVAILABLE, None
        self._counter.add("enrolments", reason)
        if reason in _GUESSES:
            self._patience.wrong(address)
        body = msgspec.json.encode(answer if answer is not None else Refused(reason.value))
        headers = {"Connection": "close"}
        return Response(body, _STATUS.get(reason, 403), headers, media_type="application/json")

    async def _decide(self, request: Request, address: str) -> tuple[EnrolReason, Any]:
        if self._patience.spent(address):
            return EnrolReason.RATE_LIMITED, None
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MOST_BODY:
                return EnrolReason.TOO_LARGE, None
        try:
            asked = msgspec.json.decode(body, type=EnrolRequest)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return EnrolReason.BAD_REQUEST, None
        host = request.url.hostname or ""
        with contextlib.suppress(ValueError):
            host = f"[{host}]" if ipaddress.ip_address(host).version == 6 else host
        reason, answer = await asyncio.to_thread(self._registrar.join, asked, host)
        if answer is not None:
            await self._registrar.changed()
        return reason, answer
