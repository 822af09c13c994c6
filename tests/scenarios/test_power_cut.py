"""The power fails at random moments: what was acknowledged or enforced is there afterwards, nothing is half there.
Counterpart: src/vedette/store; tests/store/test_crash.py kills the process alone."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.scenarios.conftest import StartVedette
from tests.scenarios.parts.disk import Disk
from tests.scenarios.parts.job import PATIENCE, RULE, blocked, file_source, write_failures
from tests.scenarios.parts.netns import Wire
from tests.scenarios.parts.processes import wait_until
from tests.store.test_crash import WRITER

from vedette.store.state import State

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(240)]

CUTS = 12


@pytest.fixture
def disk(scratch: Path) -> Iterator[Disk]:
    made = Disk(scratch)
    yield made
    made.close()


def test_what_was_acknowledged_is_there_after_every_cut(disk: Disk, scratch: Path):
    path, output = disk.place / "state.db", scratch / "said"
    chance = random.Random(7)
    before = 0
    for _ in range(CUTS):
        with output.open("wb") as file:
            writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=file, stderr=subprocess.DEVNULL)
        wait_until("the writer", lambda: _said(output) > 0)
        time.sleep(chance.uniform(0.0, 0.3))
        acknowledged = _said(output)
        disk.cut()
        # It fails at its next commit. What it says meanwhile was said after the lights went out.
        assert writer.wait(30) != 0
        disk.unmount()
        disk.mount()
        store = State(path)
        try:
            committed = int(store.cursors()["file"])
            assert before < acknowledged <= committed <= _said(output) + 1
            before = committed
            numbers = sorted(int(alert.id.split("-")[0]) for alert in store.alerts(limit=1_000_000))
            assert numbers == [number for number in range(1, committed + 1) for _ in range(5)]
            assert list(store.correlation()) == [("rule", "key", str(committed).encode())]
            with store.reading() as connection:
                assert connection.exec_driver_sql("PRAGMA integrity_check").scalars().all() == ["ok"]
        finally:
            store.close()


def _said(output: Path) -> int:
    """The number of the last transaction that the writer was told is committed."""
    whole, _, _ = output.read_text().rpartition("\n")
    return int(whole.rpartition("\n")[2] or 0)


def test_every_block_in_the_kernel_is_known_after_a_cut(
    wire: Wire, disk: Disk, start_vedette: StartVedette, scratch: Path
):
    log = scratch / "auth.log"
    log.touch()
    settings = {"sources": file_source(log, accept=True), "respond": {RULE: "enforce"}}
    vedette = start_vedette(settings, data=disk.place / "data")
    chance = random.Random(11)
    attackers = [f"198.18.{number}.{chance.randrange(1, 255)}" for number in range(60)]
    for round_, begin in enumerate(range(0, len(attackers), 20)):
        some = attackers[begin : begin + 20]
        for address in some[:15]:
            write_failures(log, address, 5)
        wait_until(
            "some blocks", lambda some=some, n=3 + 4 * round_: len(blocked(wire.server) & {*some}) >= n, PATIENCE
        )
        disk.cut_between_calls(vedette.process.pid)
        for address in some[15:]:
            write_failures(log, address, 5)
        vedette.wait_for("STATE CANNOT BE WRITTEN", timeout=PATIENCE)
        enforced = blocked(wire.server)
        vedette.kill()
        disk.unmount()
        disk.mount()
        with closing(State(vedette.data / "state.db")) as state:
            assert enforced <= {one.target.value for one in state.decisions(limit=1000)}
        # Started again it has lost none, and reads on where the last commit stood: nobody's failures are forgotten.
        vedette.start()
        wait_until(f"all blocked; {vedette.log}", lambda some=some: {*some} <= blocked(wire.server), PATIENCE)
    assert blocked(wire.server) == {*attackers} == vedette.blocked()
    assert sorted(one["count"] for one in vedette.alerts(RULE)) == [5] * 60
    assert vedette.stop() == 0
