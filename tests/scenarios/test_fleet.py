"""What a fleet loses, repeats and says when its parts are killed, cut off, emptied or full: the table of docs/fleet.md.
Counterpart: src/vedette/app/{agent,hub}.py; one fleet goes through all of it, each test with lines of its own."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from tests.scenarios.parts.faults import Faults
from tests.scenarios.parts.fleet import PATIENCE, Fleet, FleetAgent
from tests.scenarios.parts.job import RULE, write_failures
from tests.scenarios.parts.netns import NetLab
from tests.scenarios.parts.processes import short_folder, wait_until
from tests.scenarios.parts.vedette import Vedette
from tests.scenarios.test_lasting import fill

from vedette.app.findings_stream import told_id
from vedette.model.reasons import DropReason
from vedette.model.shipping import Dropped

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(240)]

ABSENT = "liveness-agent-absent"
LOST = "liveness-records-dropped"


@pytest.fixture(scope="module")
def fleet(namespaces: None) -> Iterator[Fleet]:
    """A hub whose lake is on a disk of 64 MiB, agents `web`, `old` and `bad` with their spools on 6 MiB each."""
    with short_folder() as folder:
        lab = NetLab(folder)
        try:
            made = Fleet(lab.namespace(), folder, ["web", "old", "bad"], lake="64m", spool="6m")
            try:
                yield made
            finally:
                made.close()
        finally:
            lab.close()


@pytest.fixture
def web(fleet: Fleet) -> FleetAgent:
    return fleet.agents["web"]


@pytest.fixture(autouse=True)
def proven(fleet: Fleet) -> Iterator[None]:
    """After each of it the ledger proves every record of the lake."""
    yield
    said = fleet.hub.command("ledger", "verify").splitlines()
    # Gaps are told, and wrong with nothing.
    assert said[-1].startswith("intact:")
    assert {line.split(":")[0] for line in said[:-1]} <= {"gap"}


def told(
    faults: Faults, fleet: Fleet, web: FleetAgent, numbers: list[range], fault: str, *reported: str, before: int = 0
) -> None:
    """One row of the table: all of it is there, once, and the agent says of no more that it is lost than `before`."""
    fleet.wait_for(web, numbers)
    assert len(fleet.dropped(web)) == before
    sent = sum(map(len, numbers))
    faults.record(fault, sent, sent, *reported)


def missed(written: list[range]) -> None:
    """Some lines go by while a part is away."""
    there = len(written)
    wait_until("lines meanwhile", lambda: len(written) > there + 5, PATIENCE)


def findings(of: Vedette, prefix: str) -> list[str]:
    """Ids of the findings about addresses that begin so."""
    found = of.query("select id from findings where rule_id = ? and body like ?", [RULE, f"%{prefix}%"])
    return [row[0] for row in found]


def test_an_agent_is_killed_in_traffic(fleet: Fleet, web: FleetAgent, faults: Faults):
    with web.traffic() as written:
        write_failures(web.auth, "203.0.113.11", 5)
        web.wait_for_finding(RULE)
        web.kill()
        write_failures(web.auth, "203.0.113.12", 5)
        web.start()
    told(faults, fleet, web, written, "agent killed and started again", "findings of before and after, once each")
    wait_until(f"both findings:\n{fleet.hub.log}", lambda: len(findings(fleet.hub, "203.0.113.1")) == 2, PATIENCE)
    own = findings(web, "203.0.113.1")
    assert sorted(findings(fleet.hub, "203.0.113.1")) == sorted(told_id(web.host_id, one) for one in own)


def test_a_hub_is_killed_in_traffic(fleet: Fleet, web: FleetAgent, faults: Faults):
    with web.traffic() as written:
        write_failures(web.auth, "203.0.113.21", 5)
        wait_until("a finding", lambda: len(findings(web, "203.0.113.21")) == 1, PATIENCE)
        fleet.hub.kill()
        write_failures(web.auth, "203.0.113.22", 5)
        fleet.hub.start()
    told(faults, fleet, web, written, "hub killed and started again", "an alert for each finding, once")
    wait_until(f"both findings:\n{fleet.hub.log}", lambda: len(findings(fleet.hub, "203.0.113.2")) == 2, PATIENCE)
    found = {one["source.ip"]: one["findings.count"] for one in fleet.hub.alerts(RULE)}
    assert (found["203.0.113.21"], found["203.0.113.22"]) == (1, 1)


def test_a_broker_is_killed_in_traffic(fleet: Fleet, web: FleetAgent, faults: Faults):
    pid = fleet.hub.broker
    with web.traffic() as written:
        fleet.wait_for_flow(web, written)
        os.kill(pid, signal.SIGKILL)
        wait_until("another broker", lambda: fleet.hub.broker not in (0, pid), PATIENCE)
        fleet.wait_for_flow(web, written)
    told(faults, fleet, web, written, "broker killed")


def test_hub_and_agent_are_upgraded_in_traffic(fleet: Fleet, web: FleetAgent, faults: Faults):
    """Each is ended in order and started again, as a package's upgrade does; the lines go on meanwhile."""
    with web.traffic() as written:
        fleet.wait_for_flow(web, written)
        assert fleet.hub.stop() == 0
        missed(written)
        fleet.hub.start()
        assert web.stop() == 0
        missed(written)
        web.start()
        fleet.wait_for_flow(web, written)
    told(faults, fleet, web, written, "hub, then agent, ended in order and started anew (an upgrade)")


def test_streams_are_gone_when_the_hub_starts(fleet: Fleet, web: FleetAgent, faults: Faults):
    with web.traffic() as written:
        fleet.wait_for_flow(web, written)
        fleet.hub.stop()
        shutil.rmtree(fleet.hub.data / "broker" / "streams")
        fleet.hub.start()
    told(faults, fleet, web, written, "the broker's streams gone when the hub starts")


def test_the_streams_are_deleted_while_all_runs(fleet: Fleet, web: FleetAgent, faults: Faults):
    with web.traffic() as written:
        fleet.wait_for_flow(web, written)
        # The server makes files in it all the while.
        shutil.rmtree(fleet.hub.data / "broker" / "streams", ignore_errors=True)
        fleet.wait_for_flow(web, written)
    told(faults, fleet, web, written, "the broker's streams deleted while all runs")


def test_the_lake_is_full_and_gets_room_again(fleet: Fleet, web: FleetAgent, faults: Faults):
    written, fillers = [web.write(10_000, size=150)], []

    def refuses() -> bool:
        # The manifest gives room back now and then, and a small file finds it.
        fillers.append(fleet.lake / f"filler-{len(fillers)}")
        fill(fillers[-1])
        written.append(web.write(10))
        return "THE LAKE CANNOT BE WRITTEN" in fleet.hub.life

    try:
        wait_until("the lake refuses", refuses, PATIENCE)
    finally:
        for filler in fillers:
            filler.unlink(missing_ok=True)
    told(
        faults,
        fleet,
        web,
        written,
        "the lake's disk full, then room again",
        "`THE LAKE CANNOT BE WRITTEN`, then `the lake is written again`",
    )
    assert fleet.hub.life.count("the lake is written again") == fleet.hub.life.count("THE LAKE CANNOT BE WRITTEN")


def test_a_revoked_agent_is_cut_at_once(fleet: Fleet, web: FleetAgent, faults: Faults):
    bad = fleet.agents["bad"]
    before = bad.write(100)
    fleet.wait_for(bad, [before])
    fleet.hub.command("fleet", "revoke", "bad")
    accounts = fleet.hub.data / "broker" / "server.conf"
    wait_until("the broker is told", lambda: bad.host_id not in accounts.read_text(), PATIENCE)
    time.sleep(1)
    bad.write(100)
    fleet.wait_for(web, [web.write(100)])
    assert fleet.arrived(bad).keys() == set(before)
    faults.record("an agent revoked, which goes on", 100, 0, "`broker_complained`")


def test_who_is_away_is_missed_and_who_is_retired_is_not(fleet: Fleet, web: FleetAgent, faults: Faults):
    old = fleet.agents["old"]
    fleet.hub.command("fleet", "retire", "old")
    old.kill()
    web.kill()
    alert = fleet.hub.wait_for_alert(ABSENT, alert__state="open")
    assert alert["host.name"] == "web"
    written = web.write(100)
    web.start()
    fleet.hub.wait_for_alert(ABSENT, alert__state="resolved")
    assert {one["host.name"] for one in fleet.hub.alerts(ABSENT)} == {"web"}
    said = f"`{ABSENT}` for the first, resolved when it is back; nothing for the second"
    told(faults, fleet, web, [written], "agent killed; another retired, then killed", said)


def test_a_spool_is_full_while_the_hub_is_away(fleet: Fleet, web: FleetAgent, faults: Faults):
    fleet.hub.stop()
    written = [web.write(10_000, size=150) for _ in range(8)]
    sent = sum(map(len, written))
    wait_until("it is read", lambda: web.position() == web.app.stat().st_size, PATIENCE)
    fleet.hub.start()

    def lost() -> int:
        return sum(gap.records for gap in fleet.dropped(web))

    def arrived() -> Counter[int]:
        found = fleet.arrived(web)
        return Counter({number: found[number] for one in written for number in one if found[number]})

    wait_until(f"all of it, or word of it: {sent}", lambda: len(arrived()) + lost() >= sent, PATIENCE)
    found = arrived()
    # What was under way already is said to be dropped too, and is none once it arrives.
    assert 0 < sent - lost() <= len(found) < sent
    wait_until("each is there or said to be lost", lambda: len(arrived()) + lost() == sent, PATIENCE)
    assert set(found.values()) == {1}
    assert {gap.reason for gap in fleet.dropped(web)} == {DropReason.SPOOL_FULL}
    fleet.hub.wait_for_alert(LOST)
    said = f"{lost():,} records lost, `spool-full`; `{LOST}`"
    faults.record("the hub is away and the agent's spool is full", sent, len(arrived()), said)


def arrived_or_named(
    fleet: Fleet, web: FleetAgent, written: list[range], reason: DropReason
) -> tuple[set[int], list[Dropped]]:
    """What of it arrived, each once, and the gaps of its stream for this reason: there are some, or all arrived."""
    fleet.wait_for(web, [web.write(100)])
    sent = {number for one in written for number in one}

    def gaps() -> list[Dropped]:
        return [gap for gap in fleet.dropped(web) if gap.reason == reason and str(web.app) in gap.stream]

    wait_until(
        f"all, or a gap: {fleet.dropped(web)}", lambda: bool(gaps()) or sent <= fleet.arrived(web).keys(), PATIENCE
    )
    found = fleet.arrived(web)
    assert set(found.values()) == {1}
    return sent & found.keys(), gaps()


def test_a_lane_of_the_spool_is_lost_alone(fleet: Fleet, web: FleetAgent, faults: Faults):
    fleet.wait_for(web, [web.write(100)])
    fleet.hub.stop()
    written = [web.write(100) for _ in range(20)]
    wait_until("it is read", lambda: web.position() == web.app.stat().st_size, PATIENCE)
    write_failures(web.auth, "203.0.113.31", 5)
    wait_until("a finding", lambda: len(findings(web, "203.0.113.31")) == 1, PATIENCE)
    web.kill()
    shutil.rmtree(web.data / "spool" / "bulk")
    web.start()
    assert "A LANE OF THE SPOOL WAS LOST" in web.life
    written.append(web.write(100))
    fleet.hub.start()
    found, (gap,) = arrived_or_named(fleet, web, written, DropReason.SPOOL_LOST)
    assert gap.records == -1
    assert found == set(written[-1])
    # The other lane has lost nothing.
    wait_until("the finding", lambda: len(findings(fleet.hub, "203.0.113.31")) == 1, PATIENCE)
    sent = sum(map(len, written))
    said = "the numbers of the gap, of unknown size, `spool-lost`; nothing of the other lane"
    faults.record("the folder of one of the agent's lanes lost", sent, len(found), said)


def test_a_lane_of_the_spool_is_deleted_under_a_running_agent(fleet: Fleet, web: FleetAgent, faults: Faults):
    fleet.wait_for(web, [web.write(100)])
    fleet.hub.stop()
    written = [web.write(100) for _ in range(20)]
    wait_until("it is read", lambda: web.position() == web.app.stat().st_size, PATIENCE)
    shutil.rmtree(web.data / "spool" / "bulk")
    fleet.hub.start()
    # What was under way already is in memory, and arrives.
    found, gaps = arrived_or_named(fleet, web, written, DropReason.SPOOL_DAMAGED)
    sent = sum(map(len, written))
    said = "what was not under way is lost, `spool-damaged`" if gaps else "what was under way was in memory"
    faults.record("the same deleted under a running agent, the hub away", sent, len(found), said)
