"""One table of answers over all notifiers that speak HTTP: what is tried again, and what is final."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.notify.examples import Counts, notification
from tests.scenarios.parts.certificates import Authority
from tests.scenarios.parts.pagerduty import ROUTING_KEY, Answer, PagerDuty

from vedette.model.clock import HOUR, SECOND
from vedette.model.notifications import Delivery
from vedette.model.protocols import Notifier
from vedette.model.reasons import DeliveryReason
from vedette.notify.heartbeat import Heartbeat
from vedette.notify.pagerduty import PagerDutyNotifier
from vedette.notify.posting import judge
from vedette.notify.settings import HeartbeatSettings, PagerDutySettings, WebhookSettings
from vedette.notify.webhook import WebhookNotifier
from vedette.testing.clock import FakeClock

R = DeliveryReason
TABLE = [
    (Answer("status", 202), R.DELIVERED, False, 0),
    (Answer("status", 301, (("Location", "https://localhost/elsewhere"),)), R.REFUSED, False, 0),
    (Answer("status", 400), R.REFUSED, False, 0),
    (Answer("status", 403), R.MISCONFIGURED, False, 0),
    (Answer("status", 404), R.MISCONFIGURED, False, 0),
    (Answer("status", 413), R.TOO_LARGE, False, 0),
    (Answer("status", 429), R.RATE_LIMITED, True, 0),
    (Answer("status", 429, (("Retry-After", "30"),)), R.RATE_LIMITED, True, 30 * SECOND),
    (Answer("status", 429, (("Retry-After", "Tue, 24 Nov 2026 01:00:00 GMT"),)), R.RATE_LIMITED, True, HOUR),
    (Answer("status", 429, (("Retry-After", "Tue, 24 Nov 1026 01:00:00 GMT"),)), R.RATE_LIMITED, True, 0),
    (Answer("status", 429, (("Retry-After", "soon"),)), R.RATE_LIMITED, True, 0),
    (Answer("status", 500), R.SERVER_ERROR, True, 0),
    (Answer("status", 503, (("Retry-After", "7"),)), R.SERVER_ERROR, True, 7 * SECOND),
    (Answer("hang"), R.TIMEOUT, True, 0),
    (Answer("cut"), R.NETWORK_ERROR, True, 0),
]

Make = Callable[[str], Notifier]


@pytest.fixture(params=["pagerduty", "webhook"])
def notifier(request: pytest.FixtureRequest, pagerduty: PagerDuty, authority: Authority, tmp_path: Path) -> Make:
    def make(timeout: str) -> Notifier:
        trust = {"trust": {"ca_file": str(authority.ca_file)}, "timeout": timeout}
        if request.param == "pagerduty":
            (tmp_path / "key").write_text(ROUTING_KEY)
            values = trust | {"routing_key": {"file": str(tmp_path / "key")}, "url": pagerduty.enqueue_url}
            return PagerDutyNotifier(PagerDutySettings.model_validate(values), FakeClock())
        return WebhookNotifier(WebhookSettings.model_validate(trust | {"url": pagerduty.enqueue_url}), FakeClock())

    return make


@pytest.mark.parametrize(("answer", "reason", "retry", "after"), TABLE, ids=lambda value: str(value)[:40])
async def test_answers(
    notifier: Make, pagerduty: PagerDuty, answer: Answer, reason: DeliveryReason, retry: bool, after: int
):
    pagerduty.plan(answer)
    one = notifier("100ms" if answer.kind == "hang" else "5s")
    delivery = await one.deliver(notification(), item_id="a")
    await one.close()
    assert (delivery.reason, delivery.retry, delivery.retry_after) == (reason, retry, after)
    assert len(pagerduty.requests) == 1
    assert ROUTING_KEY not in delivery.detail
    assert pagerduty.enqueue_url not in delivery.detail


async def test_nobody_there(notifier: Make, pagerduty: PagerDuty):
    pagerduty.down()
    one = notifier("5s")
    delivery = await one.deliver(notification(), item_id="a")
    await one.close()
    assert (delivery.reason, delivery.retry) == (R.NETWORK_ERROR, True)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(row[0], row[1]) for row in TABLE if row[0].status in (202, 400, 500)],
    ids=lambda value: str(value)[:40],
)
async def test_heartbeats_are_judged_the_same(
    pagerduty: PagerDuty, authority: Authority, answer: Answer, reason: DeliveryReason
):
    pagerduty.plan(answer)
    counts, clock = Counts(), FakeClock()
    settings = HeartbeatSettings.model_validate(
        {
            "url": pagerduty.enqueue_url,
            "method": "POST",
            "timeout": "100ms" if answer.kind == "hang" else "5s",
            "trust": {"ca_file": str(authority.ca_file)},
        }
    )
    heart = Heartbeat(settings, clock.now, clock, counts)
    heard = await heart.beat()
    await heart.close()
    assert heard is (reason is R.DELIVERED)
    assert counts.of("heartbeat_failed") == ({} if heard else {str(reason): 1})


def test_what_a_server_says_is_kept_short_and_harmless():
    assert judge(400, "no").detail == "HTTP 400 no"
    assert judge(299, "") == Delivery(R.DELIVERED, detail="HTTP 299")
