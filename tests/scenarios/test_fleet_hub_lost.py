"""A hub that does not answer is told by the agent that was named for it, to a real pager.
Counterpart: src/vedette/app/{agent_control,hub_eye}.py."""

from __future__ import annotations

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
