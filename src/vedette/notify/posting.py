"""One HTTP request and what its answer means: the retry rules that all HTTP receivers share.
Counterpart: pagerduty, webhook and heartbeat post through here; `outbox` obeys the Delivery."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpx

from vedette.model.clock import SECOND, Clock
from vedette.model.notifications import Delivery
from vedette.model.reasons import DeliveryReason
from vedette.notify.render import clean
from vedette.notify.settings import TlsTrust

# Of an answer's body only the beginning is read: it is for people.
_MOST_ANSWER = 2048


class Poster:
    """Sends requests to one server. Proxies, netrc and certificate settings of the environment are ignored.

    Redirects are not followed: they would carry secrets elsewhere.
    """

    def __init__(self, trust: TlsTrust, timeout: float, clock: Clock) -> None:
        self._trust = trust
        self._timeout = timeout
        self._clock = clock
        self._client: httpx.AsyncClient | None = None

    async def send(
        self,
        url: str,
        content: bytes,
        headers: Mapping[str, str],
        *,
        method: str = "POST",
        secrets: tuple[str, ...] = (),
    ) -> Delivery:
        """Send once. `secrets` never appear in the detail; the URL never does either.

        2xx delivered; 429, 5xx, network errors and timeouts are retried; everything else is refused.
        """
        try:
            client = self._client = self._client or httpx.AsyncClient(
                verify=self._trust.context(),
                timeout=self._timeout,
                trust_env=False,
                follow_redirects=False,
                limits=httpx.Limits(max_connections=4, keepalive_expiry=30),
            )
        except (OSError, ssl.SSLError) as error:
            return Delivery(DeliveryReason.MISCONFIGURED, detail=f"trust.ca_file: {type(error).__name__}")
        hidden = (url, *_telling_parts(url), *secrets)
        try:
            # The client's own limit is per read: a server that drips would hold us for ever.
            async with asyncio.timeout(self._timeout):
                async with client.stream(method, url, content=content, headers=headers) as response:
                    body = await _beginning(response)
        except httpx.ConnectTimeout:
            # Nothing was sent: the receiver is at fault, whatever the item.
            return Delivery(DeliveryReason.NETWORK_ERROR, retry=True, detail="no connection in time")
        except (TimeoutError, httpx.TimeoutException):
            return Delivery(DeliveryReason.TIMEOUT, retry=True, detail="no answer in time")
        except httpx.TransportError as error:
            detail = _redact(f"{type(error).__name__}: {error}", hidden)
            return Delivery(DeliveryReason.NETWORK_ERROR, retry=True, detail=detail)
        except (httpx.InvalidURL, UnicodeError, ValueError) as error:
            return Delivery(DeliveryReason.MISCONFIGURED, detail=f"cannot be sent: {type(error).__name__}")
        return judge(response.status_code, _redact(body, hidden), self._retry_after(response.headers))

    def _retry_after(self, headers: httpx.Headers) -> int:
        """Microseconds that `Retry-After` asks for: seconds or a date (RFC 9110 section 10.2.3); 0 without."""
        text = headers.get("retry-after", "").strip()
        if text.isascii() and text.isdigit():
            return int(text[:9]) * SECOND
        try:
            at = parsedate_to_datetime(text)
            moment = at if at.tzinfo else at.replace(tzinfo=UTC)
            return max(int(moment.timestamp() * SECOND) - self._clock.now(), 0)
        except (ValueError, TypeError, IndexError, OverflowError):
            return 0

    async def close(self) -> None:
        """Give back the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None


def judge(status: int, body: str, retry_after: int = 0) -> Delivery:
    """What an HTTP status means for a delivery; `body`: what the server said, without secrets."""
    detail = f"HTTP {status} {body}".strip()
    if 200 <= status < 300:
        return Delivery(DeliveryReason.DELIVERED, detail=detail)
    if status == 429:
        return Delivery(DeliveryReason.RATE_LIMITED, retry=True, retry_after=retry_after, detail=detail)
    if status >= 500:
        return Delivery(DeliveryReason.SERVER_ERROR, retry=True, retry_after=retry_after, detail=detail)
    if status == 413:
        return Delivery(DeliveryReason.TOO_LARGE, detail=detail)
    if status in (401, 403, 404):
        return Delivery(DeliveryReason.MISCONFIGURED, detail=detail)
    return Delivery(DeliveryReason.REFUSED, detail=detail)


async def _beginning(response: httpx.Response) -> str:
    body = b""
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) >= _MOST_ANSWER:
            break
    return body[:_MOST_ANSWER].decode("utf-8", "replace")


def _telling_parts(url: str) -> tuple[str, ...]:
    """Path and query: servers like to repeat them, and they may be the secret of the URL."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ()
    return tuple(part for part in (parts.path, parts.path.strip("/"), parts.query) if len(part) > 1)


def _redact(text: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        if secret:
            text = text.replace(secret, "[secret]")
    return clean(text, 300)
