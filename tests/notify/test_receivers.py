from __future__ import annotations

from typing import Any, get_args

from tests.notify.examples import Counts

from vedette.notify.receivers import NOTIFIERS, build
from vedette.notify.settings import NotifySettings, Receiver
from vedette.testing.clock import FakeClock

SETTINGS: dict[str, dict[str, Any]] = {
    "email": {"to": ["ops@example.org"]},
    "pagerduty": {"routing_key": {"env": "KEY"}},
    "webhook": {"url": "https://hooks.example.org/"},
    "apprise": {"url": {"env": "URL"}},
}


def test_every_type_of_settings_has_its_notifier():
    types = {kind.model_fields["type"].default for kind in get_args(get_args(Receiver)[0])}
    assert types == set(NOTIFIERS) == set(SETTINGS)


async def test_build_makes_one_a_receiver_and_opens_nothing():
    receivers = {f"my-{name}": values | {"type": name} for name, values in SETTINGS.items()}
    built = build(NotifySettings.model_validate({"receivers": receivers}), FakeClock(), Counts())
    assert [type(one).__name__ for one in built.values()] == [
        "EmailNotifier",
        "PagerDutyNotifier",
        "WebhookNotifier",
        "AppriseNotifier",
    ]
    for one in built.values():
        await one.close()
