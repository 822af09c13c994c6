from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from tests.notify.examples import Counts

from vedette.model.reasons import DeliveryReason
from vedette.notify.receivers import NOTIFIERS, build
from vedette.notify.settings import (
    Fallback,
    HeartbeatSettings,
    NotifySettings,
    PagerDutyWebhookSettings,
    Rate,
    Receiver,
    TlsTrust,
)
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


def test_every_setting_and_reason_is_in_the_document(project: Path):
    text = (project / "docs" / "paging.md").read_text("utf-8")
    kinds: list[type[BaseModel]] = list(get_args(get_args(Receiver)[0]))
    named = {one.value for one in DeliveryReason}
    for kind in [*kinds, HeartbeatSettings, PagerDutyWebhookSettings, NotifySettings]:
        named |= {field.alias or name for name, field in kind.model_fields.items()}
    named |= {name for kind in (Rate, Fallback, TlsTrust) for name in kind.model_fields}
    missing = sorted(name for name in named if f"`{name}`" not in text and f"{name}:" not in text)
    assert missing == []


def test_every_counter_is_in_the_document(project: Path):
    text = (project / "docs" / "paging.md").read_text("utf-8").partition("## What is counted")[2]
    sources = "".join(path.read_text("utf-8") for path in (project / "src" / "vedette" / "notify").glob("*.py"))
    counted = set(re.findall(r'counter\.add\(\s*"(\w+)"', sources))
    assert "notify_failed" in counted
    assert {name for name in counted if f"`{name}`" not in text} == set()


@pytest.mark.parametrize("name", sorted(NOTIFIERS))
def test_every_type_has_its_chapter_and_its_docstring(project: Path, name: str):
    assert f"\n## {name}\n" in (project / "docs" / "paging.md").read_text("utf-8")
    built = build(
        NotifySettings.model_validate({"receivers": {"x": SETTINGS[name] | {"type": name}}}), FakeClock(), Counts()
    )
    assert type(built["x"]).__doc__
