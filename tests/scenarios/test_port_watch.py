"""The port watch, whole: what opens behind policy's back pages within an interval; what is mended resolves its page.
Counterpart: src/vedette/sources/ports/source.py and rules/packs/ports.yml, run by `vedette up`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.scenarios.conftest import StartVedette
from tests.scenarios.parts.certificates import Authority
from tests.scenarios.parts.hosts import WatchedHost
from tests.scenarios.parts.job import PATIENCE, ROUTES, receivers
from tests.scenarios.parts.netns import NetLab, Wire
from tests.scenarios.parts.pagerduty import PagerDuty
from tests.scenarios.parts.processes import wait_until
from tests.scenarios.parts.smtp import SmtpServer
from tests.scenarios.parts.vedette import Vedette

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(240)]

POLICY = """\
version: 1
own_networks: [192.0.2.0/24]
only_on_gateways: [22/tcp]
probe: {{tcp: 1-10000}}
roles:
  bastion:
    gateway: true
    ports:
      22/tcp: {{from: world, must_answer: true, owner: operations}}
  web:
    ports:
      80/tcp: {{from: world, must_answer: true, owner: shop}}
hosts:
  gw1: {{addresses: [192.0.2.11], roles: [bastion]}}
  web1:
    addresses: [192.0.2.12]
    roles: [web]
    ports:
      8443/tcp: {{from: world, until: "{until}", owner: shop, reason: trial}}
  db1: {{addresses: [192.0.2.13]}}
"""


@pytest.fixture
def hosts(lab: NetLab, wire: Wire) -> dict[str, WatchedHost]:
    """gw1, web1 and db1, each with what policy wants of it."""
    made = {
        name: WatchedHost(lab, wire.server, name, f"192.0.2.{last}", f"192.0.2.{last + 100}")
        for last, name in enumerate(("gw1", "web1", "db1"), 11)
    }
    made["gw1"].listen(22)
    made["web1"].listen(80)
    made["web1"].listen(8443)
    return made


def looked_once(vedette: Vedette) -> bool:
    """Whether a look was committed."""
    return bool(vedette.query("select 1 from cursors where source = 'ports' and cursor like '%192.0.2.12%'"))


def port_of(alert: dict[str, Any]) -> str:
    """Which port it is about."""
    return str(alert["labels"]["destination.port"])


def test_the_port_watch(
    wire: Wire,
    hosts: dict[str, WatchedHost],
    start_vedette: StartVedette,
    smtp_inside: SmtpServer,
    pagerduty_inside: PagerDuty,
    authority: Authority,
    scratch: Path,
) -> None:
    policy = scratch / "ports.yml"
    policy.write_text(POLICY.format(until="2100-01-01"))
    policy.chmod(0o644)
    log = scratch / "auth.log"
    log.touch()
    vedette = start_vedette(
        {
            "sources": {
                "file": [{"paths": [log]}],
                "ports": {"policy": policy, "every": "2s", "critical_every": "1s", "confirm_after": "200ms", "rate": 0},
            },
            "alerts": {"route": ROUTES},
            "notify": {"receivers": receivers(smtp_inside, pagerduty_inside, authority, scratch)},
        }
    )
    assert "watches: ports of 3 hosts" in vedette.life
    wait_until("a first look", lambda: looked_once(vedette), PATIENCE)
    assert vedette.alerts() == []

    # Something opens behind policy's back: a page that says what, where and what to do; it is shut, and resolved.
    hosts["db1"].listen(8080)
    alert = vedette.wait_for_alert("ports-open-not-allowed")
    assert (alert["level"], alert["host.name"], port_of(alert)) == ("high", "db1", "8080")
    assert "close 8080/tcp" in alert["sample"]
    (request,) = pagerduty_inside.wait_for(1, PATIENCE)
    assert request.errors == ()
    details = request.body["payload"]["custom_details"]["alerts"][0]
    assert "db1 192.0.2.13 8080/tcp from local: open-not-allowed: close 8080/tcp" in details["sample"]
    assert "db1" in request.body["payload"]["summary"]
    hosts["db1"].shut(8080)
    wait_until("resolved at the pager", lambda: not pagerduty_inside.open_incidents(), PATIENCE)
    assert vedette.alerts("ports-open-not-allowed")[0]["alert.state"] == "resolved"

    # A service that must be up stops, and comes back.
    hosts["web1"].shut(80)
    down = vedette.wait_for_alert("ports-must-answer", host__name="web1")
    assert (down["level"], port_of(down)) == ("high", "80")
    wait_until("paged", lambda: bool(pagerduty_inside.open_incidents()), PATIENCE)
    hosts["web1"].listen(80)
    wait_until("resolved at the pager", lambda: not pagerduty_inside.open_incidents(), PATIENCE)

    # A temporary opening ends while its port goes on answering.
    policy.write_text(POLICY.format(until=(datetime.now(UTC) + timedelta(seconds=5)).strftime("%Y-%m-%dT%H:%M:%SZ")))
    expired = vedette.wait_for_alert("ports-opening-expired", host__name="web1")
    assert port_of(expired) == "8443"
    hosts["web1"].shut(8443)
    wait_until("resolved at the pager", lambda: not pagerduty_inside.open_incidents(), PATIENCE)

    # A host that is down is no pass and no drift of its ports: it cannot be told.
    hosts["gw1"].go_down()
    untold = vedette.wait_for_alert("ports-could-not-tell", host__name="gw1")
    assert untold["level"] == "low"
    assert vedette.alerts("ports-must-answer", state="open") == []

    # A restart in the middle says nothing anew, and what was mended meanwhile is resolved.
    before = vedette.query("select count(*) from findings")
    assert vedette.stop() == 0
    hosts["gw1"].come_back()
    vedette.start()
    wait_until(
        "told again",
        lambda: vedette.query("select state from alerts where rule_id = 'ports-could-not-tell'") == [("resolved",)],
        PATIENCE,
    )
    assert vedette.query("select count(*) from findings")[0][0] == before[0][0] + 1

    # A policy that breaks while it is watched is said, and the last one that was right goes on to hold.
    policy.write_text("version: 1\nhosst: {}\n")
    broken = vedette.wait_for_alert("ports-could-not-tell-too-long", host__name="policy")
    assert "the policy cannot be read" in broken["sample"]
    hosts["db1"].listen(9000)
    vedette.wait_for_alert("ports-open-not-allowed", host__name="db1")
    policy.write_text(POLICY.format(until="2100-01-01"))
    wait_until(
        "the policy is mended",
        lambda: not [one for one in vedette.alerts(state="open") if one["host.name"] == "policy"],
        PATIENCE,
    )
    assert "Traceback" not in vedette.log
