"""Chat and push services by way of the library apprise.
Counterpart: `outbox` hands in notifications; apprise says only whether it went well."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from vedette.model.errors import ConfigError
from vedette.model.levels import Level
from vedette.model.notifications import Delivery, Notification, NotificationKind
from vedette.model.reasons import DeliveryReason
from vedette.notify.render import plain_text, view
from vedette.notify.settings import AppriseSettings
from vedette.text.escape import shorten

_MOST_BODY = 10_000


class AppriseNotifier:
    """One message an item. A failure is retried: apprise does not tell refusal from trouble."""

    def __init__(self, settings: AppriseSettings) -> None:
        self._settings = settings
        # A thread of its own: a service that hangs must not take the threads of others.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="apprise")

    async def deliver(self, notification: Notification, *, item_id: str) -> Delivery:
        """Try once; `item_id` has no place in apprise's services."""
        del item_id
        try:
            url = self._settings.url.read().strip()
        except ConfigError as error:
            return Delivery(DeliveryReason.MISCONFIGURED, detail=str(error))
        shown = view(notification)
        title, _, body = plain_text(shown).partition("\n")
        kind = _kind(notification)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                sent = await loop.run_in_executor(
                    self._thread, _send, url, title, shorten(body.strip(), _MOST_BODY), kind
                )
        except TimeoutError:
            return Delivery(DeliveryReason.TIMEOUT, retry=True, detail="the service did not answer in time")
        if sent is None:
            return Delivery(DeliveryReason.MISCONFIGURED, detail="apprise knows no service for this URL")
        if not sent:
            return Delivery(DeliveryReason.SERVER_ERROR, retry=True, detail="apprise could not deliver it")
        return Delivery(DeliveryReason.DELIVERED)

    async def close(self) -> None:
        """Let go of the thread; a call that hangs ends by apprise's own time limit."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _kind(notification: Notification) -> str:
    """apprise's notify type: colour and icon where the service has them."""
    if notification.kind is NotificationKind.RESOLVE:
        return "success"
    if notification.kind is NotificationKind.ACKNOWLEDGE:
        return "info"
    return "failure" if notification.level >= Level.HIGH else "warning"


def _send(url: str, title: str, body: str, kind: str) -> bool | None:
    """True sent, False not sent, None no such service."""
    # Here, because importing it takes as long as starting everything else together.
    import apprise

    service = apprise.Apprise()
    if not service.add(url):
        return None
    return bool(service.notify(title=title, body=body, notify_type=kind, body_format="text"))
