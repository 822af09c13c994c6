from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.notify.examples import HOSTILE, member, notification
from tests.notify.test_render import CONTROL
from tests.scenarios.parts.certificates import Authority
from tests.scenarios.parts.pagerduty import ROUTING_KEY, Answer, PagerDuty, faults

from vedette.model.levels import Level
from vedette.model.notifications import NotificationKind
from vedette.model.reasons import DeliveryReason
from vedette.notify.pagerduty import MOST_BYTES, PagerDutyNotifier, dedup_key, event, event_bytes
from vedette.notify.settings import PagerDutySettings
from vedette.testing.clock import START, FakeClock


def settings(server: PagerDuty, authority: Authority, key_file: Path, **changes: Any) -> PagerDutySettings:
    values = {
        "routing_key": {"file": str(key_file)},
        "url": server.enqueue_url,
        "trust": {"ca_file": str(authority.ca_file)},
        "timeout": "5s",
    }
    return PagerDutySettings.model_validate(values | changes)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "routing-key"
    path.write_text(ROUTING_KEY + "\n")
    return path


# ---------------------------------------------------------------------------------------------- over the wire


async def test_trigger_acknowledge_resolve(pagerduty: PagerDuty, authority: Authority, key_file: Path):
    pager = PagerDutyNotifier(settings(pagerduty, authority, key_file), FakeClock())
    for kind, state in (
        (NotificationKind.TRIGGER, "triggered"),
        (NotificationKind.ACKNOWLEDGE, "acknowledged"),
        (NotificationKind.RESOLVE, "resolved"),
    ):
        delivery = await pager.deliver(notification(kind=kind), item_id="a")
        assert delivery.reason is DeliveryReason.DELIVERED
        (incident,) = pagerduty.incidents
        assert (incident.state, incident.dedup_key) == (state, "d" * 64)
    await pager.close()
    assert [request.status for request in pagerduty.requests] == [202, 202, 202]


async def test_a_trigger_cut_after_it_took_effect_is_one_incident(
    pagerduty: PagerDuty, authority: Authority, key_file: Path
):
    pager = PagerDutyNotifier(settings(pagerduty, authority, key_file), FakeClock())
    pagerduty.plan(Answer("cut", applied=True))
    first = await pager.deliver(notification(), item_id="a")
    assert (first.reason, first.retry) == (DeliveryReason.NETWORK_ERROR, True)
    assert (await pager.deliver(notification(), item_id="a")).reason is DeliveryReason.DELIVERED
    await pager.close()
    assert len(pagerduty.incidents) == 1


@pytest.mark.parametrize("key", ["", "short", "x" * 33, "0123456789abcdef0123456789abcde!", "key with spaces"])
async def test_a_key_that_cannot_be_one_is_not_sent(
    pagerduty: PagerDuty, authority: Authority, tmp_path: Path, key: str
):
    path = tmp_path / "key"
    path.write_text(key)
    pager = PagerDutyNotifier(settings(pagerduty, authority, path), FakeClock())
    delivery = await pager.deliver(notification(), item_id="a")
    assert (delivery.reason, delivery.retry) == (DeliveryReason.MISCONFIGURED, False)
    assert not key or key not in delivery.detail
    assert pagerduty.requests == []


async def test_a_key_that_is_not_there(pagerduty: PagerDuty, authority: Authority, tmp_path: Path):
    pager = PagerDutyNotifier(settings(pagerduty, authority, tmp_path / "absent"), FakeClock())
    assert (await pager.deliver(notification(), item_id="a")).reason is DeliveryReason.MISCONFIGURED


async def test_the_environment_does_not_redirect_pages(
    pagerduty: PagerDuty, authority: Authority, key_file: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    pager = PagerDutyNotifier(settings(pagerduty, authority, key_file), FakeClock())
    assert (await pager.deliver(notification(), item_id="a")).reason is DeliveryReason.DELIVERED
    await pager.close()


async def test_a_server_we_do_not_trust_sees_no_key(pagerduty: PagerDuty, tmp_path: Path, key_file: Path):
    pager = PagerDutyNotifier(settings(pagerduty, Authority(tmp_path / "stranger"), key_file), FakeClock())
    delivery = await pager.deliver(notification(), item_id="a")
    assert (delivery.reason, delivery.retry) == (DeliveryReason.NETWORK_ERROR, True)
    await pager.close()
    assert pagerduty.requests == []


# ---------------------------------------------------------------------------------------------- the event


@pytest.mark.parametrize(
    ("level", "severity"),
    [
        (Level.CRITICAL, "critical"),
        (Level.HIGH, "error"),
        (Level.MEDIUM, "warning"),
        (Level.LOW, "info"),
        (Level.INFORMATIONAL, "info"),
    ],
)
def test_severity(level: Level, severity: str):
    assert event(notification(level=level), ROUTING_KEY)["payload"]["severity"] == severity


def test_fields_for_orchestration_rules():
    members = [member(opened_at=START + 5), member(labels={"host.name": "web02"}, opened_at=START)]
    made = event(notification(members=members, total=70, external_url="https://vedette.example.org/a"), ROUTING_KEY)
    payload = made["payload"]
    assert payload["source"] == "web01"
    assert payload["class"] == "ssh-brute-force-address"
    assert payload["component"] == "ssh"
    assert payload["group"] == "rule.id=ssh-brute-force-address"
    assert payload["timestamp"] == "2026-11-24T00:00:00.000000Z"
    details = payload["custom_details"]
    assert (details["alerts_total"], details["alerts_shown"], details["hosts"]) == (70, 2, ["web01", "web02"])
    assert details["key"] == {"source.ip": "198.51.100.7"}
    assert made["links"] == [{"href": "https://vedette.example.org/a", "text": "Alerts in Vedette"}]


def test_acknowledge_and_resolve_carry_keys_only():
    made = event(notification(kind=NotificationKind.RESOLVE), ROUTING_KEY)
    assert set(made) == {"routing_key", "event_action", "dedup_key"}


@pytest.mark.parametrize("key", ["", "k" * 256, "ключ", "a\nb"])
def test_a_dedup_key_pagerduty_cannot_take_is_hashed(key: str):
    assert len(dedup_key(notification(dedup_key=key))) == 64
    assert dedup_key(notification(dedup_key=key)) == dedup_key(notification(dedup_key=key))


def test_too_much_loses_its_details_but_not_the_page():
    # The renderer's own limits keep 50 alerts of ASCII far below; so many labels of wide text are over.
    labels = {f"{'日' * 60}{n}": "日" * 300 for n in range(10)}
    wide = [member(summary="日" * 600, sample="日" * 1200, labels=labels) for _ in range(60)]
    raw = event_bytes(notification(members=wide, total=60), ROUTING_KEY)
    assert len(raw) <= MOST_BYTES
    body = json.loads(raw)
    assert "left out" in body["payload"]["custom_details"]["note"]
    assert body["payload"]["summary"].startswith("[HIGH]")


@given(st.text(alphabet=st.characters(), max_size=3000), st.sampled_from(NotificationKind))
def test_every_event_is_one_pagerduty_takes(text: str, kind: NotificationKind):
    bad = member(id=text, rule_id=text, rule_name=text, summary=text, sample=text, labels={text: text})
    told = notification(kind=kind, members=[bad], dedup_key=text, group_labels={text: text}, external_url=text)
    raw = event_bytes(told, ROUTING_KEY)
    assert faults(json.loads(raw), len(raw)) == []
    _assert_harmless(json.loads(raw))


def _assert_harmless(value: Any) -> None:
    if isinstance(value, str):
        assert not CONTROL.search(value)
        assert "\n" not in value
    elif isinstance(value, dict):
        for name, inner in value.items():
            _assert_harmless(name)
            _assert_harmless(inner)
    elif isinstance(value, list):
        for inner in value:
            _assert_harmless(inner)


def test_hostile_text_is_written_out():
    raw = event_bytes(notification(members=[member(rule_name=HOSTILE)]), ROUTING_KEY)
    assert "x\\x0d\\x0aBcc" in json.loads(raw)["payload"]["summary"]
