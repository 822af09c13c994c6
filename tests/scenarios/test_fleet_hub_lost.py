"""A hub that does not answer, and one that comes back with another past: both are told by its agents.
Counterpart: src/vedette/app/{agent_control,hub_eye}.py and vedette.store.ledger; a real broker, pager and ledger."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.scenarios.parts.certificates import Authority
from tests.scenarios.parts.fleet import PATIENCE, Fleet
from tests.scenarios.parts.job import RULE, write_failures
from tests.scenarios.parts.netns import NetLab
from tests.scenarios.parts.pagerduty import ROUTING_KEY, PagerDuty
from tests.scenarios.parts.processes import wait_until

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(300)]

LONG = 2 * PATIENCE


def test_a_named_agent_pages_by_itself_that_the_hub_is_lost_and_of_nothing_else(
    lab: NetLab, scratch: Path, authority: Authority
):
    space = lab.namespace()
    pager = space.inside(lambda: PagerDuty(authority.server_context()))
    fleet = Fleet(space, scratch / "fleet", ["web", "db"])
    try:
        web, db = fleet.agents.values()
        (scratch / "routing-key").write_text(ROUTING_KEY + "\n")
        receiver = {
            "type": "pagerduty",
            "routing_key": {"file": scratch / "routing-key"},
            "url": pager.enqueue_url,
            "trust": {"ca_file": authority.ca_file},
        }
        named = {
            "shipping": {"hub_lost": {"receiver": "pager", "after": "5s"}},
            "notify": {"receivers": {"pager": receiver}},
        }
        web.configure({**web.settings, **named})
        web.stop()
        web.start()
        # Of what else it finds the agent tells nobody by itself.
        write_failures(web.auth, "203.0.113.41", 5)
        web.wait_for_finding(RULE)
        fleet.hub.kill()
        pager.wait_for(1, LONG)
        web.wait_for_alert("fleet-hub-lost", alert__state="open")
        fleet.hub.start()
        wait_until(f"resolved\n{web.log}", lambda: pager.incidents[0].state == "resolved", LONG)
        (incident,) = pager.incidents
        assert incident.triggers == 1
        assert "hub" in str(incident.events[0]).lower()
        web.wait_for_alert("fleet-hub-lost", alert__state="resolved")
        assert db.query("select count(*) from alerts where rule_id = ?", ["fleet-hub-lost"]) == [(0,)]
    finally:
        fleet.close()
        pager.close()


def test_a_hub_that_comes_back_with_another_past_is_told_by_those_who_saw_the_other(lab: NetLab, scratch: Path):
    fleet = Fleet(lab.namespace(), scratch / "fleet", ["web"])
    try:
        web, hub = fleet.agents["web"], fleet.hub
        fleet.wait_for(web, [web.write(100)])
        assert hub.stop() == 0
        shutil.copytree(hub.data, scratch / "before")
        hub.start()
        fleet.wait_for(web, [web.write(100)])
        seen = int(hub.records("ledger", "head")[0]["size"])

        def cosigned() -> bool:
            found = hub.records("fleet", "witnesses")
            return bool(found) and int(found[0]["size"]) >= seen

        wait_until(f"its head was cosigned\n{web.log}\n{hub.log}", cosigned, LONG)
        assert hub.stop() == 0
        shutil.rmtree(hub.data)
        shutil.copytree(scratch / "before", hub.data)
        for place in (hub.data, *hub.data.rglob("*")):
            shutil.chown(place, 65534, 65534)
        hub.start()
        web.write(100)
        wait_until(f"it is seen\n{web.log}", lambda: "DOES NOT GO ON" in web.log, LONG)
        alert = hub.wait_for_alert("fleet-checkpoint-inconsistent", LONG)
        assert alert["level"] == "critical"
    finally:
        fleet.close()
