from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.notify.examples import member, notification
from tests.notify.servers import Echo
from tests.notify.test_pagerduty import _assert_harmless

from vedette.model.clock import SECOND
from vedette.model.errors import ConfigError
from vedette.model.levels import Level
from vedette.model.notifications import NotificationKind
from vedette.model.reasons import DeliveryReason
from vedette.notify.settings import WebhookSettings
from vedette.notify.webhook import WebhookNotifier, document, read_url
from vedette.system.secrets import Secret
from vedette.testing.clock import START, FakeClock

# Alertmanager's webhook message, version 4: every field and its JSON type.
SHAPE = {
    "version": str,
    "groupKey": str,
    "truncatedAlerts": int,
    "status": str,
    "receiver": str,
    "groupLabels": dict,
    "commonLabels": dict,
    "commonAnnotations": dict,
    "routeLabels": dict,
    "notification_reason": str,
    "externalURL": str,
    "alerts": list,
}
ALERT_SHAPE = {
    "status": str,
    "labels": dict,
    "annotations": dict,
    "startsAt": str,
    "endsAt": str,
    "generatorURL": str,
    "fingerprint": str,
}


def test_the_document_has_alertmanagers_shape():
    made = document(notification(total=51, external_url="https://vedette.example.org/"))
    assert {name: type(value) for name, value in made.items()} == SHAPE
    (alert,) = made["alerts"]
    assert {name: type(value) for name, value in alert.items()} == ALERT_SHAPE
    assert (made["version"], made["status"], made["truncatedAlerts"]) == ("4", "firing", 50)
    assert made["groupKey"] == "default/rule.id=ssh-brute-force-address"
    assert made["commonLabels"]["host.name"] == "web01"
    assert alert["labels"]["alertname"] == "SSH brute force by one address"
    assert alert["labels"]["severity"] == "high"
    assert (alert["status"], alert["startsAt"], alert["endsAt"]) == (
        "firing",
        "2026-11-24T00:00:00.000000Z",
        "0001-01-01T00:00:00Z",
    )


def test_a_resolved_group():
    ended = member(state="resolved", resolved_at=START + 60 * SECOND)
    made = document(notification(kind=NotificationKind.RESOLVE, members=[ended, member()], total=2))
    assert made["status"] == "resolved"
    assert [alert["status"] for alert in made["alerts"]] == ["resolved", "firing"]
    assert made["alerts"][0]["endsAt"] == "2026-11-24T00:01:00.000000Z"


def test_common_labels_are_those_all_share():
    other = member(level=Level.LOW, labels={"host.name": "web02", "rule.id": "ssh-brute-force-address"})
    common = document(notification(members=[member(), other]))["commonLabels"]
    assert common == {"alertname": "SSH brute force by one address", "rule.id": "ssh-brute-force-address"}


def test_a_fingerprint_stands_for_the_labels():
    one, same, other = (
        document(notification(members=[member(labels=labels)]))["alerts"][0]["fingerprint"]
        for labels in ({"a": "1", "b": "2"}, {"b": "2", "a": "1"}, {"a": "12", "b": ""})
    )
    assert one == same != other
    assert len(one) == 16


@given(st.text(alphabet=st.characters(), max_size=2000))
def test_hostile_text_stays_harmless(text: str):
    bad = member(id=text, rule_id=text, rule_name=text, summary=text, advice=text, sample=text, labels={text: text})
    made = document(notification(members=[bad], group_key=text, group_labels={text: text}, external_url=text))
    _assert_harmless(json.loads(json.dumps(made)))


async def test_the_body_is_signed(tmp_path: Path):
    (tmp_path / "secret").write_text("s3cret")
    async with Echo() as server:
        settings: dict[str, Any] = {"url": server.url, "secret": {"file": str(tmp_path / "secret")}}
        hook = WebhookNotifier(WebhookSettings.model_validate(settings), FakeClock())
        delivery = await hook.deliver(notification(), item_id="item-1")
        await hook.close()
    assert delivery.reason is DeliveryReason.DELIVERED
    (request,) = server.requests
    wanted = hmac.new(b"s3cret", request.body, hashlib.sha256).hexdigest()
    assert request.headers["x-vedette-signature"] == f"v1={wanted}"
    assert request.headers["x-vedette-item"] == "item-1"
    assert json.loads(request.body)["version"] == "4"


async def test_what_the_server_echoes_is_redacted(tmp_path: Path):
    async with Echo(status=400) as server:
        (tmp_path / "url").write_text(server.url + "T0KEN")
        hook = WebhookNotifier(WebhookSettings.model_validate({"url": {"file": str(tmp_path / "url")}}), FakeClock())
        server.answer = f"no such hook: {server.url}T0KEN \x1b[31m (/T0KEN)".encode()
        delivery = await hook.deliver(notification(), item_id="a")
        await hook.close()
    assert delivery.detail == "HTTP 400 no such hook: [secret] \\x1b[31m ([secret])"


async def test_a_server_that_drips_is_a_timeout():
    async with Echo(drip=True) as server:
        hook = WebhookNotifier(WebhookSettings.model_validate({"url": server.url, "timeout": "200ms"}), FakeClock())
        delivery = await hook.deliver(notification(), item_id="a")
        await hook.close()
    assert (delivery.reason, delivery.retry) == (DeliveryReason.TIMEOUT, True)


async def test_of_an_endless_answer_only_the_beginning_is_read():
    async with Echo(status=500, answer=b"x" * 5_000_000) as server:
        hook = WebhookNotifier(WebhookSettings.model_validate({"url": server.url}), FakeClock())
        delivery = await hook.deliver(notification(), item_id="a")
        await hook.close()
    assert delivery.reason is DeliveryReason.SERVER_ERROR
    assert len(delivery.detail) < 400


@pytest.mark.parametrize("content", ["http://elsewhere.example.org/", "ftp://x/", "", "https://a\nb"])
def test_a_secret_that_is_no_url_says_so_without_repeating_it(tmp_path: Path, content: str):
    (tmp_path / "url").write_text(content)
    with pytest.raises(ConfigError) as caught:
        read_url(Secret(file=str(tmp_path / "url")))
    assert not content or content not in str(caught.value)
