"""Signed requests to one Chef server: bounded in time and size, tried again only where that can help.
Counterpart: `chef` asks for roles, bags and nodes and knows what they mean."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import orjson

from vedette.inventory.chef_signing import Signer
from vedette.inventory.chef_words import ChefWords
from vedette.model.clock import MINUTE, SECOND, Clock
from vedette.model.errors import ConfigError, InventoryError, Location
from vedette.model.reasons import InventoryReason
from vedette.text.escape import terminal

Pause = Callable[[float], Awaitable[None]]

CHEF_VERSION = "12.0.2"
SKEW = 5 * MINUTE
"""Clocks further apart than this explain a refusal; servers allow about 15 minutes."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
MOST_TOO_LARGE = 16
_NO_TRUST = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For plain HTTP: no certificate is good, and none has to be read."""
_AGAIN = {
    InventoryReason.UNREACHABLE,
    InventoryReason.SLOW,
    InventoryReason.CUT,
    InventoryReason.RATE_LIMITED,
    InventoryReason.SERVER_ERROR,
}
_MOST_SAID = 300
_HINTS = {
    InventoryReason.FORBIDDEN: "give this user the right to read it",
    InventoryReason.UNAUTHENTICATED: "look at `user`, `key` and `version`: is this the key of that user there?",
    InventoryReason.NOT_FOUND: "look at `url` and `organization`, and whether it is still there",
    InventoryReason.TOO_LARGE: "ask for less: `search`, `attributes`, `limits.page`",
    InventoryReason.RATE_LIMITED: "ask less often",
    InventoryReason.SERVER_ERROR: "look at the server's own log",
}


class ChefClient:
    """One organization of one server; closed by whoever opened it.

    Proxies, netrc and certificate settings of the environment are ignored, redirects are not followed.
    """

    def __init__(self, words: ChefWords, clock: Clock, pause: Pause = asyncio.sleep) -> None:
        self._words = words
        self._clock = clock
        self._pause = pause
        self._server, self._organization = words.base()
        try:
            self._signer = Signer(words.user, words.key.read(), words.version)
        except ConfigError as error:
            raise InventoryError(InventoryReason.KEY_UNUSABLE, error.message, hint=error.hint) from None
        self._client = httpx.AsyncClient(
            verify=_trust(words.ca_file) if self._server.startswith("https") else _NO_TRUST,
            timeout=words.timeout_seconds,
            trust_env=False,
            follow_redirects=False,
            limits=httpx.Limits(max_connections=4),
        )

    async def close(self) -> None:
        """Give back the connections."""
        await self._client.aclose()

    async def mapping(self, path: str) -> dict[str, Any]:
        """GET an object; InventoryError where it cannot be had. path: below the organization, `/roles/web`."""
        return self._mapping(await self._ask("GET", path), path)

    async def rows(self, query: str, keys: dict[str, list[str]], most: int) -> AsyncIterator[dict[str, Any]]:
        """The rows of a partial search for nodes: `url`, and `data` with the keys. TOO_MANY past `most`.

        An answer over `limits.answer_bytes` is asked for again in smaller pages; in place of a row that is too
        large alone there is `{"url": "", "data": None}`, at most MOST_TOO_LARGE of them; and once a page for those
        that the server counts and keeps to itself.
        """
        path, content = "/search/node", orjson.dumps(keys)
        start, page, too_large = 0, self._words.limits.page, 0
        while True:
            params = {"q": query, "rows": str(page), "start": str(start)}
            try:
                answer = self._mapping(await self._ask("POST", path, params, content), path)
            except _AnswerTooLargeError:
                if page > 1:
                    page = max(page // 4, 1)
                    continue
                too_large += 1
                if too_large > MOST_TOO_LARGE:
                    raise
                yield {"url": "", "data": None}
                start += 1
                continue
            rows, total = answer.get("rows"), answer.get("total")
            if not isinstance(rows, list) or not isinstance(total, int):
                raise self._wrong_shape(path, "no rows and total")
            if total > most:
                raise InventoryError(
                    InventoryReason.TOO_MANY,
                    f"{total} nodes are found, {most} are taken",
                    location=self._at(path),
                    hint="`search` asks for fewer, `limits.nodes` takes more",
                )
            for row in rows:
                yield self._mapping(row, path)
            if len(rows) < min(page, total - start):
                # The index counts what the server does not hand out: a node we may not read, or one just deleted.
                yield {"url": "", "data": None}
            start += len(rows)
            page = min(page * 4, self._words.limits.page)
            if not rows or start >= total:
                return

    def _mapping(self, value: Any, path: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self._wrong_shape(path, "no JSON object")
        return value

    async def _ask(self, method: str, path: str, params: dict[str, str] | None = None, content: bytes = b"") -> Any:
        for attempt in range(1, self._words.attempts + 1):
            try:
                return await self._once(method, path, params, content)
            except _RefusedError as refused:
                error = refused.error
                if error.reason not in _AGAIN or attempt == self._words.attempts:
                    raise error from None
                await self._pause(min(max(FIRST_PAUSE * 2 ** (attempt - 1), refused.wait), LONGEST_PAUSE))
        raise AssertionError("at least one attempt is made")

    async def _once(self, method: str, path: str, params: dict[str, str] | None, content: bytes) -> Any:
        full = self._organization + path
        headers = {
            "Accept": "application/json",
            # What is not compressed cannot grow beyond its bound.
            "Accept-Encoding": "identity",
            "User-Agent": "vedette",
            "X-Chef-Version": CHEF_VERSION,
            **({"Content-Type": "application/json"} if content else {}),
            **self._signer.headers(method, full, content, self._clock.now()),
        }
        try:
            # The client's own limit is per read: a server that drips would hold us for ever.
            async with asyncio.timeout(self._words.timeout_seconds):
                request = self._client.stream(
                    method, self._server + full, params=params, content=content or None, headers=headers
                )
                async with request as response:
                    body = await self._body(response, path)
        except (TimeoutError, httpx.TimeoutException):
            raise self._refused(InventoryReason.SLOW, path, f"no answer within {self._words.timeout}") from None
        except httpx.ConnectError as error:
            # httpx wraps what the TLS library said into text.
            reason = InventoryReason.TLS if "[SSL" in str(error) else InventoryReason.UNREACHABLE
            hint = "`ca_file`: the authority that signed the server's certificate" if reason == "tls" else ""
            raise self._refused(reason, path, f"no connection: {_said(str(error))}", hint) from None
        except (httpx.ReadError, httpx.RemoteProtocolError) as error:
            raise self._refused(InventoryReason.CUT, path, f"the answer was cut: {_said(str(error))}") from None
        except httpx.TransportError as error:
            raise self._refused(InventoryReason.UNREACHABLE, path, f"no answer: {type(error).__name__}") from None
        except (httpx.InvalidURL, UnicodeError) as error:
            raise self._refused(InventoryReason.WRONG_WORDS, path, f"no URL: {type(error).__name__}") from None
        if response.status_code != 200:
            raise self._status(response, path, body)
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError:
            raise self._refused(
                InventoryReason.NOT_JSON, path, "the answer is no JSON", "is this a Chef server, or its web page?"
            ) from None

    async def _body(self, response: httpx.Response, path: str) -> bytes:
        body, most = bytearray(), self._words.limits.answer_bytes
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > most:
                raise _AnswerTooLargeError(
                    InventoryReason.TOO_LARGE,
                    f"the answer is over {most} bytes",
                    location=self._at(path),
                    hint="`limits.answer_bytes` takes more",
                )
        return bytes(body)

    def _status(self, response: httpx.Response, path: str, body: bytes) -> _RefusedError:
        status = response.status_code
        reason = {
            401: InventoryReason.UNAUTHENTICATED,
            403: InventoryReason.FORBIDDEN,
            404: InventoryReason.NOT_FOUND,
            413: InventoryReason.TOO_LARGE,
            429: InventoryReason.RATE_LIMITED,
        }.get(status, InventoryReason.SERVER_ERROR if status >= 500 else InventoryReason.UNEXPECTED_STATUS)
        message, hint = f"HTTP {status}", _HINTS.get(reason, "")
        if said := _said(_error_text(body)):
            message += f": {said}"
        if status == 401 and (skew := self._skew(response)):
            reason = InventoryReason.CLOCK_SKEW
            message += f"; the server's clock is {abs(skew) // SECOND} s {'ahead' if skew > 0 else 'behind'}"
            hint = "set both clocks right: a signature holds for minutes only"
        if 300 <= status < 400:
            hint = "redirects are not followed: write the URL it leads to"
        after = response.headers.get("retry-after", "").strip()
        wait = float(after[:6]) if after.isascii() and after.isdigit() else 0.0
        return self._refused(reason, path, message, hint, wait)

    def _skew(self, response: httpx.Response) -> int:
        """How far the server's clock is ahead, microseconds; 0 where that is little or not said."""
        try:
            skew = int(parsedate_to_datetime(response.headers.get("date", "")).timestamp()) * SECOND - self._clock.now()
        except (ValueError, TypeError, IndexError, OverflowError):
            return 0
        return skew if abs(skew) > SKEW else 0

    def _wrong_shape(self, path: str, what: str) -> InventoryError:
        return InventoryError(
            InventoryReason.WRONG_SHAPE, what, location=self._at(path), hint="is this a Chef server of version 12 on?"
        )

    def _refused(
        self, reason: InventoryReason, path: str, message: str, hint: str = "", wait: float = 0.0
    ) -> _RefusedError:
        return _RefusedError(InventoryError(reason, message, location=self._at(path), hint=hint), wait)

    def _at(self, path: str) -> Location:
        return Location(self._server + self._organization + path)


class _AnswerTooLargeError(InventoryError):
    """Over our bound, not the server's: less may be asked for."""


class _RefusedError(Exception):
    """One attempt that failed, and how many seconds the server asks to wait."""

    def __init__(self, error: InventoryError, wait: float) -> None:
        super().__init__(error.message)
        self.error = error
        self.wait = wait


def _trust(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise InventoryError(
            InventoryReason.TLS,
            f"ca_file cannot be used: {type(error).__name__}",
            location=Location(ca_file),
            hint="certificates in PEM",
        ) from None


def _error_text(body: bytes) -> str:
    """What a Chef server says of an error: `{"error": ["text"]}`."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    error = said.get("error", said.get("message")) if isinstance(said, dict) else None
    parts = error if isinstance(error, list) else [error]
    return "; ".join(part for part in parts if isinstance(part, str))


def _said(text: str) -> str:
    return terminal(text[:_MOST_SAID])
