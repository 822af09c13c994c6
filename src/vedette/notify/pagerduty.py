"""PagerDuty Events API v2: trigger, acknowledge, resolve.
Counterpart: `outbox` keeps rate and order; pagerduty_webhook takes what people answer there."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import orjson

from vedette.model.clock import Clock
from vedette.model.errors import ConfigError
from vedette.model.levels import Level
from vedette.model.notifications import Delivery, Notification, NotificationKind
from vedette.model.reasons import DeliveryReason
from vedette.notify.posting import Poster
from vedette.notify.render import View, clean, view
from vedette.notify.settings import PagerDutySettings
from vedette.text.times import rfc3339

# Limits of the Events API v2.
MOST_BYTES = 512_000
MOST_SUMMARY = 1024
MOST_DEDUP_KEY = 255

_SEVERITY = {Level.CRITICAL: "critical", Level.HIGH: "error", Level.MEDIUM: "warning"}
_ROUTING_KEY = re.compile(r"[A-Za-z0-9]{32}")
_SLUG_PACK = re.compile(r"([a-z][a-z0-9]*)-[a-z]")


class PagerDutyNotifier:
    """Sends one event an item; never raises for a failed delivery.

    202 is delivered; 400 never retried; 429, 5xx, network errors and timeouts are. The routing key appears
    in no detail. Repeats are harmless: PagerDuty joins them by dedup_key.
    """

    def __init__(self, settings: PagerDutySettings, clock: Clock) -> None:
        self._settings = settings
        self._poster = Poster(settings.trust, settings.timeout_seconds, clock)

    async def deliver(self, notification: Notification, *, item_id: str) -> Delivery:
        """Try once. `item_id` is not needed: the dedup_key makes repeats harmless."""
        del item_id
        try:
            key = self._settings.routing_key.read().strip()
        except ConfigError as error:
            return Delivery(DeliveryReason.MISCONFIGURED, detail=str(error))
        if not _ROUTING_KEY.fullmatch(key):
            return Delivery(DeliveryReason.MISCONFIGURED, detail="the routing key is not 32 letters and digits")
        content = event_bytes(notification, key)
        headers = {"Content-Type": "application/json", "User-Agent": "vedette"}
        return await self._poster.send(self._settings.url, content, headers, secrets=(key,))

    async def close(self) -> None:
        """Give back the connections."""
        await self._poster.close()


def dedup_key(notification: Notification) -> str:
    """The key PagerDuty joins by: ours, hashed where it is longer than PagerDuty takes."""
    key = notification.dedup_key
    if 0 < len(key) <= MOST_DEDUP_KEY and key.isascii() and key.isprintable():
        return key
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def event_bytes(notification: Notification, routing_key: str) -> bytes:
    """The event as JSON, never over MOST_BYTES: custom_details go first, with a note."""
    content = orjson.dumps(event(notification, routing_key))
    if len(content) <= MOST_BYTES:
        return content
    smaller = event(notification, routing_key)
    smaller["payload"]["custom_details"] = {"note": "the details were left out: more than PagerDuty takes"}
    return orjson.dumps(smaller)


def event(notification: Notification, routing_key: str) -> dict[str, Any]:
    """The event (Events API v2, "Send an alert event"); acknowledge and resolve need only the keys."""
    made: dict[str, Any] = {
        "routing_key": routing_key,
        "event_action": notification.kind.value,
        "dedup_key": dedup_key(notification),
    }
    if notification.kind is not NotificationKind.TRIGGER:
        return made
    shown = view(notification)
    hosts = list(dict.fromkeys(member.host for member in shown.members if member.host))
    opened = [member.opened_at for member in notification.members]
    payload: dict[str, Any] = {
        "summary": clean(shown.title, MOST_SUMMARY),
        # PagerDuty wants one: the first of several, the number in the details.
        "source": hosts[0] if hosts else "vedette",
        "severity": _SEVERITY.get(notification.level, "info"),
        "timestamp": rfc3339(min(opened, default=notification.created_at)),
        "group": clean(shown.group_text, 255) or "all",
        "custom_details": _details(shown, notification, hosts),
    }
    rules = list(dict.fromkeys(member.rule_id for member in shown.members))
    if rules:
        payload["class"] = rules[0]
        pack = _SLUG_PACK.match(rules[0])
        if pack:
            payload["component"] = pack[1]
    made["payload"] = payload
    made["client"] = "Vedette"
    if shown.url:
        made["client_url"] = shown.url
        made["links"] = [{"href": shown.url, "text": "Alerts in Vedette"}]
    return made


def _details(shown: View, notification: Notification, hosts: list[str]) -> dict[str, Any]:
    """Stable keys, so that PagerDuty's Event Orchestration rules can be written on them."""
    first = shown.members[0] if shown.members else None
    return {
        "level": shown.level,
        "group_labels": shown.group,
        "episode": notification.episode,
        "alerts_total": shown.total,
        "alerts_shown": len(shown.members),
        "hosts": hosts,
        "rule_id": first.rule_id if first else "",
        "rule_name": first.rule_name if first else "",
        "key": first.key if first else {},
        "advice": first.advice if first else "",
        "alerts": [
            {
                "alert_id": member.id,
                "rule_id": member.rule_id,
                "level": member.level,
                "state": member.state,
                "host": member.host,
                "key": member.key,
                "count": member.count,
                "opened_at": member.opened,
                "last_event_at": member.last,
                "summary": member.summary,
                "sample": member.sample,
            }
            for member in shown.members
        ],
    }
