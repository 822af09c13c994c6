"""A real rsyslogd sends by omrelp while the disk is slow and we are started anew: what it was told is kept is not lost.
Counterpart: src/vedette/sources/relp.py."""

from __future__ import annotations

import asyncio
import re
import socket
from contextlib import closing
from pathlib import Path

import pytest
from tests.scenarios.parts.processes import Processes
from tests.scenarios.parts.syslogs import RelpSender
from tests.sources.collecting import Collected, Counts, running

from vedette.model.batch import Batch, Trust
from vedette.model.clock import SystemClock
from vedette.sources.relp import RelpSource
from vedette.sources.settings import RelpSettings
from vedette.sources.syslog_sockets import Listeners

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

MESSAGES = 400


class Disk(Collected):
    """Where emitted batches go; `kept` lets `quick` calls through at once and holds the others until the end."""

    def __init__(self, quick: int) -> None:
        super().__init__()
        self._quick = quick
        self.safe: list[Batch] = []
        self.stuck = asyncio.Event()

    async def kept(self) -> None:
        until = len(self.batches)
        if self._quick <= 0:
            self.stuck.set()
            await asyncio.Event().wait()
        self._quick -= 1
        self.safe = self.batches[: max(until, len(self.safe))]


async def test_what_was_acknowledged_is_not_lost_when_we_begin_anew(processes: Processes, tmp_path: Path):
    wanted = RelpSettings.model_validate({"listen": [{"tcp": "127.0.0.1:0"}]})
    with closing(Listeners()) as listeners:
        port = listeners.open(wanted.places[0]).getsockname()[1]
        first, second = Disk(quick=2), Disk(quick=1_000_000)

        def source(disk: Disk) -> RelpSource:
            return RelpSource(wanted, listeners, host_id="h", clock=SystemClock(), counter=Counts(), kept=disk.kept)

        async with running(source(first), first):
            sender = await asyncio.to_thread(RelpSender, processes, tmp_path / "sender", port)
            await asyncio.to_thread(write, sender.devlog)
            async with asyncio.timeout(30):
                await first.stuck.wait()
        # What was emitted and was not safe is gone, as with a host that fell.
        assert len(numbers(first.safe)) < MESSAGES
        async with running(source(second), second):
            await second.until(lambda got: numbers(first.safe) | numbers(got.batches) == set(range(MESSAGES)), 40)
        sender.close()
    assert numbers(first.safe), "some were acknowledged before"
    assert {(batch.origin.source, batch.trust) for batch in second.batches} == {("relp:tcp/127.0.0.1", Trust.NETWORK)}


def write(devlog: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as writing:
        writing.connect(str(devlog))
        for number in range(MESSAGES):
            writing.send(b"<38>shop[7]: payment %d declined" % number)


def numbers(batches: list[Batch]) -> set[int]:
    return {int(found) for batch in batches for found in re.findall(rb"payment (\d+) declined", batch.block)}
