"""Drills against a real server: triggered, resolved, and said where they are not taken.
Counterpart: src/vedette/notify/drill.py."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from pydantic import ValidationError
from tests.scenarios.parts.certificates import Authority
from tests.scenarios.parts.pagerduty import ROUTING_KEY, Answer, PagerDuty

from vedette.app.counters import Counters
from vedette.notify.drill import Drill
from vedette.notify.pagerduty import PagerDutyNotifier
from vedette.notify.settings import DrillSettings, NotifySettings, PagerDutySettings
from vedette.testing.clock import FakeClock


class Rig:
    def __init__(self, server: PagerDuty, authority: Authority, folder: Path, key: str = ROUTING_KEY) -> None:
        (folder / "key").write_text(key)
        values = {
            "routing_key": {"file": str(folder / "key")},
            "url": server.enqueue_url,
            "trust": {"ca_file": str(authority.ca_file)},
        }
        self.pager = PagerDutyNotifier(PagerDutySettings.model_validate(values), FakeClock())
        self.counters = Counters()
        self.told: list[tuple[str, str]] = []
        self.pauses: list[float] = []
        self.drill = Drill(
            DrillSettings(receiver="drills"),
            self.pager,
            lambda receiver, why: self.told.append((receiver, why)),
            FakeClock(),
            self.counters,
            host="web1",
            sleep=self._sleep,
        )

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        if self.pauses.count(86_400.0) == 2:
            raise asyncio.CancelledError
        await asyncio.sleep(0)


async def test_a_drill_is_an_incident_that_ends_at_once(pagerduty: PagerDuty, authority: Authority, tmp_path: Path):
    rig = Rig(pagerduty, authority, tmp_path)
    with pytest.raises(asyncio.CancelledError):
        await rig.drill.run()
    await rig.pager.close()
    assert [incident.state for incident in pagerduty.incidents] == ["resolved", "resolved"]
    assert rig.told == [("drills", ""), ("drills", "")]
    assert rig.pauses == [60.0, 86_400.0, 86_400.0]
    assert rig.counters.value("drills", "taken") == 2


async def test_a_busy_service_is_asked_again(pagerduty: PagerDuty, authority: Authority, tmp_path: Path):
    rig = Rig(pagerduty, authority, tmp_path)
    pagerduty.plan(Answer("status", 503), Answer("status", 429, (("Retry-After", "7"),)))
    assert await rig.drill.once() == ""
    await rig.pager.close()
    assert rig.pauses == [2.0, 7.0]
    assert [incident.state for incident in pagerduty.incidents] == ["resolved"]


async def test_a_pager_that_takes_nothing_is_said_with_its_words(
    pagerduty: PagerDuty, authority: Authority, tmp_path: Path
):
    rig = Rig(pagerduty, authority, tmp_path, key="not a key")
    assert (await rig.drill.once()).startswith("drills did not take a trigger: misconfigured the routing key")
    await rig.pager.close()
    assert pagerduty.incidents == []


def test_a_drill_goes_to_a_receiver_there_is():
    with pytest.raises(ValidationError, match="drill: nobody is not a receiver"):
        NotifySettings.model_validate({"drill": {"receiver": "nobody"}})
