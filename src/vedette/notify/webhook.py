"""Alertmanager's webhook, JSON version 4, to any URL; signed where a secret is set.
Counterpart: whatever already takes Alertmanager's webhooks; `outbox` hands in notifications."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import orjson

from vedette.model.clock import Clock
from vedette.model.errors import ConfigError
from vedette.model.notifications import Delivery, MemberAlert, Notification, NotificationKind
from vedette.model.reasons import DeliveryReason
from vedette.notify.posting import Poster
from vedette.notify.render import MOST_MEMBERS, clean, labels_view, member_view, web_url
from vedette.notify.settings import WebhookSettings
from vedette.system.secrets import Secret
from vedette.text.times import rfc3339
from vedette.text.urls import check_url

# Go's zero time, which Alertmanager sends for "has not ended".
_NOT_ENDED = "0001-01-01T00:00:00Z"
_REASONS = {
    NotificationKind.TRIGGER: "firing",
    NotificationKind.ACKNOWLEDGE: "acknowledged",
    NotificationKind.RESOLVE: "all alerts resolved",
}


class WebhookNotifier:
    """Posts one document an item; any 2xx is delivered, 429 and 5xx are retried, the rest refused.

    `X-Vedette-Item` is stable over retries; `X-Vedette-Signature: v1=<hex HMAC-SHA256 of the body>` with a secret.
    """

    def __init__(self, settings: WebhookSettings, clock: Clock) -> None:
        self._settings = settings
        self._poster = Poster(settings.trust, settings.timeout_seconds, clock)

    async def deliver(self, notification: Notification, *, item_id: str) -> Delivery:
        """Try once."""
        content = orjson.dumps(document(notification))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "vedette",
            "X-Vedette-Item": item_id if item_id.isascii() and item_id.isprintable() else "",
        }
        try:
            url = read_url(self._settings.url)
            secret = self._settings.secret.read() if self._settings.secret else ""
        except ConfigError as error:
            return Delivery(DeliveryReason.MISCONFIGURED, detail=str(error))
        if secret:
            headers["X-Vedette-Signature"] = "v1=" + hmac.new(secret.encode(), content, hashlib.sha256).hexdigest()
        return await self._poster.send(url, content, headers, secrets=(secret,))

    async def close(self) -> None:
        """Give back the connections."""
        await self._poster.close()


def read_url(url: str | Secret) -> str:
    """The URL itself, checked; ConfigError where the secret is not there or no URL."""
    if isinstance(url, str):
        return url
    try:
        return check_url(url.read().strip())
    except ValueError as error:
        raise ConfigError(str(error), hint="the secret holds the whole URL") from None


def document(notification: Notification) -> dict[str, Any]:
    """Alertmanager's webhook message (its notify/webhook/webhook.go and template/template.go), version 4."""
    members = notification.members[:MOST_MEMBERS]
    url = web_url(notification.external_url)
    alerts = [_alert(member, url) for member in members]
    resolved = notification.kind is NotificationKind.RESOLVE
    group_labels = labels_view(notification.group_labels)
    return {
        "version": "4",
        "groupKey": clean(notification.group_key, 500),
        "truncatedAlerts": max(notification.total - len(members), 0),
        "status": "resolved" if resolved else "firing",
        "receiver": clean(notification.receiver, 64),
        "groupLabels": group_labels,
        "commonLabels": _shared([alert["labels"] for alert in alerts]) or group_labels,
        "commonAnnotations": _shared([alert["annotations"] for alert in alerts]),
        "routeLabels": {},
        "notification_reason": _REASONS[notification.kind],
        "externalURL": url,
        "alerts": alerts,
    }


def _alert(member: MemberAlert, url: str) -> dict[str, Any]:
    shown = member_view(member)
    labels = {"alertname": shown.rule_name or shown.rule_id, "severity": shown.level, **labels_view(member.labels)}
    annotations = {
        "summary": shown.summary,
        "description": shown.advice,
        "sample": shown.sample,
        "state": shown.state,
        "count": str(shown.count),
        "alert_id": shown.id,
    }
    return {
        "status": "resolved" if member.resolved_at else "firing",
        "labels": labels,
        "annotations": {name: value for name, value in annotations.items() if value},
        "startsAt": shown.opened,
        "endsAt": rfc3339(member.resolved_at) if member.resolved_at else _NOT_ENDED,
        "generatorURL": url,
        "fingerprint": _fingerprint(labels),
    }


def _fingerprint(labels: dict[str, str]) -> str:
    """16 hex digits that stand for the label set, as Alertmanager's do (it hashes otherwise; only identity counts)."""
    text = "\xff".join(f"{name}\xfe{value}" for name, value in sorted(labels.items()))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _shared(sets: list[dict[str, str]]) -> dict[str, str]:
    """What all of `sets` have with the same value."""
    if not sets:
        return {}
    return {name: value for name, value in sets[0].items() if all(other.get(name) == value for other in sets[1:])}
