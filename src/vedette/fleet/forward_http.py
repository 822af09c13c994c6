"""HTTP out: records as JSON lines by POST, with a token, as log services take them.
Counterpart: an HTTP log collector such as Sumo Logic's; `fleet.forward` hands in groups and tries again."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator, Sequence

import httpx
import orjson

from vedette.fleet.forward import ForwardError, ForwardReason, Heads, Stored
from vedette.fleet.forward_settings import HttpTarget, check_url
from vedette.model.errors import ConfigError
from vedette.text.times import rfc3339

BODY_BYTES = 1 << 20
"""Of one request, unless a single record is more."""
_TOO_LARGE = 413
_ABOUT_US = frozenset({401, 403, 404, 407})
"""Answers that say something of the URL or the token, not of the records: mended, they go."""


class HttpForward:
    """Posts; 2xx is sent, 4xx is refused for ever, all else is tried again, as are 408, 429 and _ABOUT_US.

    Proxies and certificate settings of the environment are ignored; redirects are not followed.
    """

    def __init__(self, settings: HttpTarget, heads: Heads) -> None:
        self._settings, self._heads = settings, heads
        self._client: httpx.AsyncClient | None = None

    async def send(self, group: Sequence[Stored], _after: int) -> int:
        """How many records were refused for ever."""
        bodies = await asyncio.to_thread(lambda: list(_bodies(line for one in group for line in self._lines(one))))
        return sum([await self._send(body) for body in bodies])

    async def close(self) -> None:
        """Give back the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _send(self, lines: Sequence[bytes]) -> int:
        """Post them; where that is too much for the target, a half each. How many were refused for ever."""
        status = await self._post(b"".join(lines))
        if status == _TOO_LARGE and len(lines) > 1:
            half = len(lines) // 2
            return await self._send(lines[:half]) + await self._send(lines[half:])
        return len(lines) if status else 0

    async def _post(self, body: bytes) -> int:
        """0 where it was taken, else the status by which it never will be."""
        settings = self._settings
        headers = {"User-Agent": "vedette", **settings.headers, "Content-Type": "application/x-ndjson"}
        try:
            url = settings.url if isinstance(settings.url, str) else check_url(settings.url.read().strip())
            if settings.token is not None:
                headers["Authorization"] = f"Bearer {settings.token.read()}"
            client = self._client = self._client or httpx.AsyncClient(
                verify=settings.tls_context(), timeout=settings.timeout, trust_env=False, follow_redirects=False
            )
            # The client's own limit is per read; of the answer nothing but the status is wanted.
            async with (
                asyncio.timeout(settings.timeout),
                client.stream("POST", url, content=body, headers=headers) as r,
            ):
                status, wait = r.status_code, r.headers.get("retry-after", "").strip()
        except ConfigError as error:
            raise ForwardError(ForwardReason.MISCONFIGURED, str(error)) from None
        except (TimeoutError, httpx.TimeoutException):
            raise ForwardError(ForwardReason.TIMEOUT, "no answer in time") from None
        except httpx.TransportError as error:
            # Its words may hold the URL.
            raise ForwardError(ForwardReason.NETWORK_ERROR, type(error).__name__) from None
        except (httpx.InvalidURL, ValueError, OSError, ssl.SSLError) as error:
            raise ForwardError(ForwardReason.MISCONFIGURED, f"cannot be sent: {type(error).__name__}") from None
        if 200 <= status < 300:
            return 0
        seconds = float(wait[:9]) if wait.isascii() and wait.isdigit() else 0.0
        detail = f"HTTP {status}"
        if status == 429:
            raise ForwardError(ForwardReason.RATE_LIMITED, detail, retry_after=seconds)
        if status in _ABOUT_US or status < 400:
            raise ForwardError(ForwardReason.MISCONFIGURED, detail)
        if status == 408 or status >= 500:
            raise ForwardError(ForwardReason.SERVER_ERROR, detail, retry_after=seconds)
        return status

    def _lines(self, stored: Stored) -> Iterator[bytes]:
        """A JSON object a record; `event.id` is the record id, by which what came twice is found."""
        batch = stored.batch
        headed = self._heads(batch)
        created = rfc3339(batch.read_at)
        times, positions = headed.time.tolist(), batch.positions.tolist()
        for row in range(len(batch)):
            line: dict[str, object] = {
                "@timestamp": rfc3339(times[row]),
                "event.created": created,
                "event.id": batch.origin.record_id(positions[row]),
                # Bytes that are no UTF-8 are written as \xNN: nothing of a record is lost.
                "event.original": batch.raw(row).decode("utf-8", "backslashreplace"),
                "host.id": stored.key.host_id,
            }
            for name, column in (("host.name", headed.host), ("process.name", headed.program)):
                if column.value(row):
                    line[name] = column.value(row)
            yield orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _bodies(lines: Iterator[bytes]) -> Iterator[list[bytes]]:
    """The lines of one request each."""
    body: list[bytes] = []
    size = 0
    for line in lines:
        if body and size + len(line) > BODY_BYTES:
            yield body
            body, size = [], 0
        body.append(line)
        size += len(line)
    if body:
        yield body
