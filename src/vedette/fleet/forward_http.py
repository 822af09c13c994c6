"""HTTP out: records as JSON lines by POST, with a token, as log services take them.
Counterpart: an HTTP log collector such as Sumo Logic's; `fleet.forward` hands in groups and tries again."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable, Iterator, Sequence

import httpx
import orjson

from vedette.fleet.forward import ForwardError, ForwardReason, Heads, Stored
from vedette.fleet.forward_settings import HttpTarget, PostTarget
from vedette.model.errors import ConfigError
from vedette.text.times import rfc3339
from vedette.text.urls import check_url

BODY_BYTES = 1 << 20
"""Of one request, unless a single record is more."""
_ANSWER_BYTES = 64 << 10
_TOO_LARGE = 413
_ABOUT_US = frozenset({401, 403, 404, 407})
"""Answers that say something of the URL or the token, not of the records: mended, they go."""


class Posting:
    """Posts bodies to one URL: 2xx is taken, 4xx never will be, all else is tried again, as are 408, 429 and _ABOUT_US.

    Proxies and certificate settings of the environment are ignored; redirects are not followed.
    """

    def __init__(self, settings: PostTarget, content_type: str) -> None:
        self._settings, self._content_type = settings, content_type
        self._client: httpx.AsyncClient | None = None

    async def send(self, pieces: Sequence[bytes], refused: Callable[[bytes], int] = lambda _answer: 0) -> int:
        """Post the pieces as one body; where that is too much for the target, a half each.

        The answer is how many pieces were refused for ever, and what `refused` reads out of the answers' bodies.
        """
        status, answer = await self._post(b"".join(pieces))
        if status == _TOO_LARGE and len(pieces) > 1:
            half = len(pieces) // 2
            return await self.send(pieces[:half], refused) + await self.send(pieces[half:], refused)
        return len(pieces) if status else refused(answer)

    async def close(self) -> None:
        """Give back the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _post(self, body: bytes) -> tuple[int, bytes]:
        """0 and the start of what was answered where it was taken, else the status by which it never will be."""
        settings = self._settings
        headers = {"User-Agent": "vedette", **settings.headers, "Content-Type": self._content_type}
        answer = b""
        try:
            url = settings.url if isinstance(settings.url, str) else check_url(settings.url.read().strip())
            if settings.token is not None:
                headers["Authorization"] = f"Bearer {settings.token.read()}"
            client = self._client = self._client or httpx.AsyncClient(
                verify=settings.tls_context(), timeout=settings.timeout, trust_env=False, follow_redirects=False
            )
            # The client's own limit is per read; of the answer no more than its start is wanted.
            async with (
                asyncio.timeout(settings.timeout),
                client.stream("POST", url, content=body, headers=headers) as r,
            ):
                status, wait = r.status_code, r.headers.get("retry-after", "").strip()
                if 200 <= status < 300:
                    async for part in r.aiter_bytes():
                        answer += part
                        if len(answer) >= _ANSWER_BYTES:
                            break
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
            return 0, answer
        seconds = float(wait[:9]) if wait.isascii() and wait.isdigit() else 0.0
        detail = f"HTTP {status}"
        if status == 429:
            raise ForwardError(ForwardReason.RATE_LIMITED, detail, retry_after=seconds)
        if status in _ABOUT_US or status < 400:
            raise ForwardError(ForwardReason.MISCONFIGURED, detail)
        if status == 408 or status >= 500:
            raise ForwardError(ForwardReason.SERVER_ERROR, detail, retry_after=seconds)
        return status, b""


class HttpForward:
    """JSON lines; what each answer means is `Posting`'s."""

    def __init__(self, settings: HttpTarget, heads: Heads) -> None:
        self._heads = heads
        self._posting = Posting(settings, "application/x-ndjson")

    async def send(self, group: Sequence[Stored], _after: int) -> int:
        """How many records were refused for ever."""
        bodies = await asyncio.to_thread(lambda: list(bodies_of(line for one in group for line in self._lines(one))))
        return sum([await self._posting.send(body) for body in bodies])

    async def close(self) -> None:
        """Give back the connections."""
        await self._posting.close()

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


def bodies_of(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    """The pieces of one request each, of at most BODY_BYTES."""
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
