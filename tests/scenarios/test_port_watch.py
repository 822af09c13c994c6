"""The port watch, whole: what opens behind policy's back pages within an interval; what is mended resolves its page.
Counterpart: src/vedette/sources/ports/source.py and rules/packs/ports.yml, run by `vedette up`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.scenarios.conftest import StartVedette
from tests.scenarios.parts.certificates import Authority
from tests.scenarios.parts.chef import ChefServer
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
inventories:
  - name: chef
    stale_after: 4s
    chef:
      url: {url}
      user: vedette
      key: {{file: {key}}}
      plain_http: true
      hosts_bag: {{bag: servers}}
      attempts: 1
"""
NEVER = "2100-01-01"


@pytest.fixture
def chef(wire: Wire) -> Iterator[ChefServer]:
    """Three roles and three hosts, as people wrote them; nodes that say the same of themselves."""
    with ChefServer(inside=wire.server.inside) as server:
        server.set_role(
            "bastion",
            default_attributes={
                "vedette": {
                    "gateway": True,
                    "ports": {"22/tcp": {"from": "world", "must_answer": True, "owner": "operations"}},
                }
            },
        )
        set_web_role(server, NEVER)
        server.set_role("db")
        for name, role, last in (("gw1", "bastion", 11), ("web1", "web", 12), ("db1", "db", 13)):
            server.set_item("servers", name, roles=[role], addresses=[f"192.0.2.{last}"])
            server.set_node(name, run_list=[f"role[{role}]"])
        yield server


def set_web_role(chef: ChefServer, until: str) -> None:
    """What a web server may do; its trial ends at `until`."""
    ports = {
        "80/tcp": {"from": "world", "must_answer": True, "owner": "shop"},
        "8443/tcp": {"from": "world", "until": until, "owner": "shop", "reason": "trial"},
    }
    chef.set_role("web", default_attributes={"vedette": {"ports": ports}})


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
    chef: ChefServer,
    start_vedette: StartVedette,
    smtp_inside: SmtpServer,
    pagerduty_inside: PagerDuty,
    authority: Authority,
    scratch: Path,
) -> None:
    policy = scratch / "ports.yml"
    key = scratch / "chef.pem"
    key.write_text(chef.key_pem)
    key.chmod(0o600)
    said = POLICY.format(url=chef.url, key=key)
    policy.write_text(said)
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
    assert "watches: ports of 0 hosts" in vedette.life
    assert "and 1 inventories" in vedette.life
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
    set_web_role(chef, (datetime.now(UTC) + timedelta(seconds=5)).strftime("%Y-%m-%dT%H:%M:%SZ"))
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

    # A node widens its own policy: told as high, and no pass for what it opened.
    chef.set_node("db1", run_list=["role[db]", "role[bastion]"])
    hosts["db1"].listen(22)
    widened = vedette.wait_for_alert("ports-policy-widened", host__name="db1")
    assert widened["level"] == "high"
    assert "chef:node[db1]" in widened["sample"]
    assert "bastion" in widened["sample"]
    opened = vedette.wait_for_alert("ports-open-not-allowed", host__name="db1", alert__state="open")
    assert port_of(opened) == "22"
    hosts["db1"].shut(22)
    chef.set_node("db1", run_list=["role[db]"])
    wait_until("shut again", lambda: not open_alerts(vedette, "ports-open-not-allowed"), PATIENCE)
    # That it was tried is for a person to close.
    tried = open_alerts(vedette, "ports-policy-widened")
    assert {(one["host.name"], port_of(one)) for one in tried} == {("db1", "22"), ("db1", "0")}
    vedette.command("alerts", "resolve", *(one["alert.id"] for one in tried), "--disposition", "true-positive")

    # The Chef server is down: what it said last holds, and after a while it is told how old that is.
    chef.fail_with(500)
    stale = vedette.wait_for_alert("ports-could-not-tell-too-long", host__name="policy")
    assert "the inventory chef" in stale["sample"]
    assert "holds" in stale["sample"]
    hosts["db1"].listen(9000)
    vedette.wait_for_alert("ports-open-not-allowed", host__name="db1", alert__state="open")
    hosts["db1"].shut(9000)
    chef.recover()
    wait_until("the Chef server is back", lambda: not open_alerts(vedette), PATIENCE)

    # A policy file that breaks while it is watched is said, and the last one that was right goes on to hold.
    policy.write_text("version: 1\nhosst: {}\n")
    vedette.wait_for_alert("ports-could-not-tell-too-long", host__name="policy", alert__state="open")
    hosts["db1"].listen(9001)
    vedette.wait_for_alert("ports-open-not-allowed", host__name="db1", alert__state="open")
    hosts["db1"].shut(9001)
    policy.write_text(said)
    wait_until("the policy is mended", lambda: not open_alerts(vedette), PATIENCE)
    wait_until("nobody is called any more", lambda: not pagerduty_inside.open_incidents(), PATIENCE)
    assert "Traceback" not in vedette.log


def open_alerts(vedette: Vedette, rule: str = "") -> list[dict[str, Any]]:
    """Alerts that nobody and nothing resolved."""
    return vedette.alerts(rule, state="open")
