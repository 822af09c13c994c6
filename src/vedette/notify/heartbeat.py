"""Calls somebody outside as long as we live, so that our death is noticed by them.
Counterpart: a dead man's switch elsewhere; `app` hands in how to tell that the engine still moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from vedette.model.clock import SECOND, Clock
from vedette.model.errors import ConfigError
from vedette.model.protocols import Counter
from vedette.model.reasons import DeliveryReason
from vedette.notify.posting import Poster
from vedette.notify.settings import HeartbeatSettings
from vedette.notify.webhook import read_url
from vedette.text.times import parse_duration

_log = structlog.get_logger(__name__)


class Heartbeat:
    """Beats every interval. last_sign: when the engine last committed or went round, microseconds."""

    def __init__(
        self, settings: HeartbeatSettings, last_sign: Callable[[], int], clock: Clock, counter: Counter
    ) -> None:
        self._settings = settings
        self._last_sign = last_sign
        self._clock = clock
        self._counter = counter
        self._interval = parse_duration(settings.interval)
        self._stale_after = parse_duration(settings.stale_after)
        self._poster = Poster(settings.trust, parse_duration(settings.timeout) / SECOND, clock)
        self._failing = False

    async def run(self) -> None:
        """Beat until cancelled."""
        try:
            while True:
                await self.beat()
                await asyncio.sleep(self._interval / SECOND)
        finally:
            await self.close()

    async def close(self) -> None:
        """Give back the connection."""
        await self._poster.close()

    async def beat(self) -> bool:
        """One beat, if the engine gave a sign of life lately; whether it was heard."""
        silent_for = self._clock.now() - self._last_sign()
        if silent_for > self._stale_after:
            self._counter.add("heartbeat_withheld")
            self._tell("the engine gives no sign of life: no heartbeat", seconds=silent_for // SECOND)
            return False
        try:
            url = read_url(self._settings.url)
        except ConfigError as error:
            self._counter.add("heartbeat_failed", DeliveryReason.MISCONFIGURED)
            self._tell("the heartbeat has nowhere to go", error=str(error))
            return False
        delivery = await self._poster.send(url, b"", {"User-Agent": "vedette"}, method=self._settings.method)
        if delivery.reason is not DeliveryReason.DELIVERED:
            self._counter.add("heartbeat_failed", delivery.reason)
            self._tell("the heartbeat was not heard", reason=delivery.reason.value, detail=delivery.detail)
            return False
        self._counter.add("heartbeat_sent")
        self._failing = False
        return True

    def _tell(self, message: str, **fields: object) -> None:
        """Say it once, until a beat was heard again."""
        if not self._failing:
            self._failing = True
            _log.error(message, **fields)
