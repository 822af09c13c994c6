"""The power of the hub, then that of the agent fails in traffic: what was confirmed is there, and nothing twice.
Counterpart: src/vedette/app/{agent,hub}.py; parts/disk.py is the disk that is cut off."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from tests.scenarios.parts.disk import Disk
from tests.scenarios.parts.faults import Faults
from tests.scenarios.parts.fleet import Fleet, FleetAgent, FleetHub
from tests.scenarios.parts.netns import NetLab
from tests.scenarios.parts.processes import wait_until

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize("whose", ["hub", "agent"])
def test_the_power_fails_in_traffic(lab: NetLab, scratch: Path, faults: Faults, whose: str):
    disk = Disk(scratch, "256M")
    after: Disk | None = None
    name = "hub" if whose == "hub" else "web"
    fleet = Fleet(lab.namespace(), scratch / "fleet", ["web"], data={name: disk.place / "data"})
    try:
        web = fleet.agents["web"]
        cut: FleetHub | FleetAgent = fleet.hub if whose == "hub" else web
        with web.traffic() as written:
            fleet.wait_for_flow(web, written)
            broker = fleet.hub.broker
            disk.cut_between_calls(cut.process.pid)
            # Nobody is there after a power cut to go on with what the disk refuses.
            cut.kill()
            if whose == "hub":
                os.kill(broker, signal.SIGKILL)
                wait_until("the broker is gone", lambda: not Path(f"/proc/{broker}").exists())
            there = len(written)
            wait_until("lines meanwhile", lambda: len(written) > there + 5)
            after = Disk(scratch / "after", of=disk)
            cut.data = after.place / "data"
            cut.start()
            fleet.wait_for_flow(web, written)
        fleet.wait_for(web, written)
        assert not fleet.dropped(web)
        assert fleet.hub.command("ledger", "verify").splitlines()[-1].startswith("intact:")
        sent = sum(map(len, written))
        faults.record(f"the {whose}'s power fails (its disk is cut off), and comes back", sent, sent)
    finally:
        fleet.close()
        for one in (disk, after):
            if one is not None:
                one.close()
