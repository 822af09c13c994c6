"""A real journald under our journal source: what sshd says is attested, what anybody says is not, nothing is lost.
Counterpart: src/vedette/sources/journal.py."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from tests.scenarios.conftest import StartSshd
from tests.scenarios.parts import netns
from tests.scenarios.parts.attacker import Attacker
from tests.scenarios.parts.syslogs import Journald, log_as
from tests.sources.collecting import Collected, Counts, running

from vedette.model.batch import Trust
from vedette.model.clock import SystemClock
from vedette.sources.journal import JournalSource
from vedette.sources.settings import JournalSettings

pytestmark = pytest.mark.root

StartJournald = Callable[..., Journald]
readers = pytest.mark.parametrize("reader", ["library", "journalctl"])


def source(folder: Path, got: Collected, counts: Counts, reader: str) -> AbstractAsyncContextManager[Collected]:
    settings = JournalSettings.model_validate({"folder": str(folder), "reader": reader, "begin": "beginning"})
    cursor = got.batches[-1].cursor if got.batches else ""
    made = JournalSource(settings, host_id="h", clock=SystemClock(), counter=counts, cursor=cursor)
    return running(made, got)


def send(devlog: Path, messages: range) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(str(devlog))
        for number in messages:
            sender.send(b"<38>counter[1]: number %d" % number)


def numbers(got: Collected) -> list[int]:
    return [int(record.split()[1]) for record in got.records if record.startswith(b"number ")]


@readers
async def test_sshd_is_attested_and_nobody_else(
    start_sshd: StartSshd, attacker: Attacker, scratch: Path, start_journald: StartJournald, reader: str
):
    journal = start_journald(scratch / "journal")
    start_sshd(devlog=journal.devlog)
    async with source(scratch / "journal", Collected(), Counts(), reader) as got:
        attacker.guess("alice", ["x"])
        line = f"Failed password for alice from {netns.ATTACKER}"
        log_as(journal.devlog, f"{line} port 1 ssh2")
        await got.until(lambda got: sum(record.startswith(line.encode()) for record in got.records) == 2)
    found = {
        batch.raw(row).rpartition(b" port ")[2] == b"1 ssh2": (batch, row)
        for batch in got.batches
        for row in range(len(batch))
        if batch.raw(row).startswith(line.encode())
    }
    for forged, (batch, row) in found.items():
        assert batch.trust_of(row) is (Trust.FORGEABLE if forged else Trust.ATTESTED)
        assert batch.header is not None
        assert batch.header.program[row] == "sshd"
        assert batch.header.pid[row] > 0
        assert abs(int(batch.header.time[row]) - batch.read_at) < 60_000_000
    assert set(found) == {True, False}


@readers
async def test_none_of_20000_is_lost_over_rotations_and_restarts(
    scratch: Path, start_journald: StartJournald, reader: str
):
    journal = start_journald(scratch / "journal")
    got, counts = Collected(), Counts()
    for part in range(4):
        async with source(scratch / "journal", got, counts, reader):
            send(journal.devlog, range(part * 5000, part * 5000 + 2500))
            journal.rotate()
            await got.until(lambda got, part=part: len(numbers(got)) >= part * 5000 + 1000, 30)  # type: ignore[misc]
        # While nobody reads it rotates again.
        journal.rotate()
        send(journal.devlog, range(part * 5000 + 2500, part * 5000 + 5000))
    async with source(scratch / "journal", got, counts, reader):
        await got.until(lambda got: len(numbers(got)) >= 20_000, 30)
    assert numbers(got) == list(range(20_000))
    assert len(set(got.ids)) == len(got.ids)
    assert [batch.number for batch in got.batches] == list(range(len(got.batches)))
    assert len({batch.origin.generation for batch in got.batches}) == 1
    assert not counts.seen


async def test_a_killed_journald_is_followed_into_its_next_life(scratch: Path, start_journald: StartJournald):
    first = start_journald(scratch / "journal")
    counts = Counts()
    async with source(scratch / "journal", Collected(), counts, "library") as got:
        send(first.devlog, range(10))
        await got.until(lambda got: len(numbers(got)) == 10)
        first.process.kill()
        second = start_journald(scratch / "journal")
        send(second.devlog, range(10, 20))
        await got.until(lambda got: len(numbers(got)) == 20)
    assert numbers(got) == list(range(20))
