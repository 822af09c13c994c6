"""Journal files made from text: fields, trust, cursors, damage; both readers alike.
Counterpart: src/vedette/sources/journal.py and journal_records.py; a real journald is in tests/scenarios."""

from __future__ import annotations

import asyncio
import struct
import subprocess
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.sources.collecting import Collected, Counts, running

from vedette.model.batch import RecordFormat, Trust
from vedette.model.clock import SystemClock
from vedette.model.errors import StateError
from vedette.model.protocols import Emit
from vedette.model.reasons import DropReason
from vedette.sources.journal import JournalSource, Reader
from vedette.sources.journal_records import LIMIT, Attestation, Records, sequence
from vedette.sources.settings import JournalSettings

REMOTE = Path("/lib/systemd/systemd-journal-remote")
BASE = 1_700_000_000_000_000

needs_remote = pytest.mark.skipif(not REMOTE.exists(), reason="systemd-journal-remote is not installed")
readers = pytest.mark.parametrize("reader", ["library", "journalctl"])

SSHD = {"_UID": "0", "_EXE": "/usr/sbin/sshd", "_COMM": "sshd", "SYSLOG_IDENTIFIER": "sshd", "_PID": "77"}


def export(number: int, message: bytes | None, fields: dict[str, str]) -> bytes:
    """One entry in the journal export format."""
    head = {
        "__CURSOR": f"s={'1' * 32};i={number:x};b={'2' * 32};m={number:x};t={BASE + number:x};x={number:x}",
        "__REALTIME_TIMESTAMP": str(BASE + number),
        "__MONOTONIC_TIMESTAMP": str(number),
        "_BOOT_ID": "2" * 32,
        "_HOSTNAME": "web01",
    } | fields
    text = "".join(f"{name}={value}\n" for name, value in head.items()).encode()
    if message is not None:
        text += b"MESSAGE\n" + struct.pack("<Q", len(message)) + message + b"\n"
    return text + b"\n"


class Announcing(JournalSource):
    """Says when it has opened the journal: what is added from then on is new."""

    opened: asyncio.Event

    async def run(self, emit: Emit) -> None:
        self.opened, self._loop = asyncio.Event(), asyncio.get_running_loop()
        await super().run(emit)

    def _open(self) -> Reader:
        reader = super()._open()
        self._loop.call_soon_threadsafe(self.opened.set)
        return reader


class Journal:
    """A folder of journal files that grows by `add`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.counts = Counts()
        self.got = Collected()
        self._number = 0
        self._files = 0

    def add(self, *entries: tuple[bytes | None, dict[str, str]], file: str = "a.journal") -> None:
        text = b""
        for message, fields in entries:
            self._number += 1
            text += export(self._number, message, fields)
        subprocess.run([REMOTE, "-o", self.folder / file, "-"], input=text, check=True, capture_output=True)

    def source(self, reader: str = "library", **words: object) -> Announcing:
        config = {"folder": str(self.folder), "reader": reader, "begin": "beginning", "poll_idle": "2ms"} | words
        cursor = self.got.batches[-1].cursor if self.got.batches else ""
        return Announcing(
            JournalSettings.model_validate(config),
            host_id="h",
            clock=SystemClock(),
            counter=self.counts,
            cursor=cursor,
        )

    def running(self, reader: str = "library", **words: object):
        return running(self.source(reader, **words), self.got)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


@needs_remote
@readers
async def test_messages_come_with_the_header_journald_vouches_for(journal: Journal, reader: str):
    journal.add(
        (b"Failed password for root", SSHD | {"_SOURCE_REALTIME_TIMESTAMP": str(BASE - 500)}),
        (b"two\nlines", {"SYSLOG_IDENTIFIER": "app", "SYSLOG_PID": "5", "_UID": "1000"}),
        (b"oops", {"_TRANSPORT": "kernel"}),
        (b"a\xff\x00b", {"_COMM": "odd", "_UID": "0", "_PID": "x"}),
        (None, {"_COMM": "mute"}),
        (b" ", {}),
    )
    async with journal.running(reader) as got:
        assert await got.count(5) == [b"Failed password for root", b"two\nlines", b"oops", b"a\xff\x00b", b" "]
    # How many batches they come in is the reader's affair: what holds is what each record carries.
    assert {batch.format for batch in got.batches} == {RecordFormat.MESSAGE}
    headers = [batch.header for batch in got.batches if batch.header is not None]
    assert len(headers) == len(got.batches)
    assert [at for header in headers for at in header.time.tolist()] == [
        BASE - 500,
        BASE + 2,
        BASE + 3,
        BASE + 4,
        BASE + 6,
    ]
    assert [host for header in headers for host in header.host] == ["web01"] * 5
    assert [program for header in headers for program in header.program] == ["sshd", "app", "kernel", "odd", ""]
    assert [pid for header in headers for pid in header.pid.tolist()] == [77, 5, -1, -1, -1]
    assert [batch.trust_of(row).name for batch in got.batches for row in range(len(batch))] == [
        "ATTESTED",
        "FORGEABLE",
        "ATTESTED",
        "FORGEABLE",
        "FORGEABLE",
    ]
    assert [at for batch in got.batches for at in batch.positions.tolist()] == [1, 2, 3, 4, 6]
    assert {len(batch.origin.generation) for batch in got.batches} == {32}
    assert journal.counts.seen == {("journal_without_message", ""): 1}


@needs_remote
@readers
async def test_resume_goes_on_after_the_cursor(journal: Journal, reader: str):
    journal.add((b"1", {}), (b"2", {}))
    async with journal.running(reader) as got:
        await got.count(2)
    journal.add((b"3", {}))
    async with journal.running(reader):
        await got.count(3)
        if reader == "library":  # a file written by another program than journald wakes nobody
            journal.add((b"4", {}))
            await got.count(4)
    assert got.records == [b"1", b"2", b"3", b"4"][: len(got.records)]
    assert [batch.number for batch in got.batches] == list(range(len(got.batches)))
    assert not journal.counts.seen


@needs_remote
async def test_live_begins_at_the_end(journal: Journal):
    journal.add((b"old", {}))
    source = journal.source(begin="end")
    async with running(source) as got:
        await asyncio.sleep(0)
        await source.opened.wait()
        journal.add((b"new", {}))
        assert await got.count(1) == [b"new"]


@needs_remote
async def test_an_empty_folder_is_waited_at(journal: Journal):
    source = journal.source(begin="end")
    async with running(source) as got:
        await asyncio.sleep(0)
        await source.opened.wait()
        journal.add((b"first", {}))
        assert await got.count(1) == [b"first"]


async def test_a_folder_that_is_not_there_is_named_once(tmp_path: Path):
    journal = Journal(tmp_path / "none")
    with capture_logs() as said:
        async with journal.running():
            await asyncio.sleep(0.1)
    assert [entry["event"] for entry in said] == ["journal-unreadable"]
    assert journal.counts.seen == {("source_dropped", DropReason.SOURCE_UNREADABLE): 1}


@needs_remote
async def test_a_batch_is_cut_where_the_sequence_changes(journal: Journal):
    journal.add((b"1", {}), (b"2", {}))
    journal.add((b"3", {}), file="b.journal")
    async with journal.running() as got:
        assert await got.count(3) == [b"1", b"2", b"3"]
    assert [len(batch) for batch in got.batches] == [2, 1]
    assert got.batches[0].origin.generation != got.batches[1].origin.generation


@needs_remote
async def test_entries_vacuumed_while_away_are_counted(journal: Journal):
    journal.add((b"1", {}))
    async with journal.running() as got:
        await got.count(1)
    (journal.folder / "a.journal").unlink()
    journal.add((b"2", {}))
    with capture_logs() as said:
        async with journal.running():
            assert (await got.count(2))[1] == b"2"
    assert got.batches[1].dropped == {DropReason.TRUNCATED_UNSEEN: 1}
    assert [entry["event"] for entry in said] == ["journal-truncated-unseen"]


@needs_remote
async def test_a_damaged_file_does_not_stop_the_others(journal: Journal):
    journal.add(*[(b"a%d" % n, {}) for n in range(50)])
    journal.add((b"b", {}), file="b.journal")
    damaged = journal.folder / "a.journal"
    with damaged.open("r+b") as file:
        file.write(b"\0" * 4096)
    async with journal.running() as got:
        assert await got.count(1) == [b"b"]


@needs_remote
@readers
async def test_a_long_message_is_cut_and_counted(journal: Journal, reader: str):
    journal.add((b"y" * (LIMIT + 10), {}), (b"x" * 200_000, {}), (b"next", {}))
    async with journal.running(reader) as got:
        if reader == "library":  # cysystemd leaves fields above 1 MiB out
            assert await got.count(2) == [b"x" * 200_000, b"next"]
            assert journal.counts.seen == {("journal_without_message", ""): 1}
        else:
            assert await got.count(3) == [b"y" * LIMIT, b"x" * 200_000, b"next"]
            assert journal.counts.seen == {("source_dropped", DropReason.RECORD_TOO_LONG): 1}
            assert got.batches[0].dropped == {DropReason.RECORD_TOO_LONG: 1}


@pytest.mark.parametrize(
    ("fields", "trust"),
    [
        (SSHD, Trust.ATTESTED),
        (SSHD | {"_EXE": "/usr/lib/openssh/sshd-session"}, Trust.ATTESTED),
        ({"_UID": "0", "_SYSTEMD_UNIT": "ssh.service"}, Trust.ATTESTED),
        ({"_UID": "0", "_SYSTEMD_UNIT": "ssh@3-10.0.0.1:22-10.0.0.2:5.service"}, Trust.ATTESTED),
        ({"_UID": "0", "_SYSTEMD_UNIT": "ssh.service", "_EXE": "/usr/local/sbin/sshd"}, Trust.ATTESTED),
        ({"_TRANSPORT": "kernel"}, Trust.ATTESTED),
        # what any local user can bring about
        (SSHD | {"_UID": "1000"}, Trust.FORGEABLE),
        ({"_UID": "0", "_COMM": "sshd", "SYSLOG_IDENTIFIER": "sshd"}, Trust.FORGEABLE),
        ({"_UID": "0", "_EXE": "/usr/bin/logger", "SYSLOG_IDENTIFIER": "sshd"}, Trust.FORGEABLE),
        ({"_UID": "0", "_EXE": "/usr/bin/sudo", "_SYSTEMD_UNIT": "ssh.service"}, Trust.FORGEABLE),
        ({"_UID": "0", "_EXE": "/home/eve/sshd"}, Trust.FORGEABLE),
        ({"_UID": "0", "_SYSTEMD_UNIT": "notssh.service"}, Trust.FORGEABLE),
        ({"UID": "0", "EXE": "/usr/sbin/sshd"}, Trust.FORGEABLE),
        ({}, Trust.FORGEABLE),
    ],
)
def test_who_is_attested(fields: dict[str, str], trust: Trust):
    records = Records(Attestation(JournalSettings()))
    assert records.add("s=a;i=1", BASE, {"MESSAGE": "m"} | fields)
    assert records.batch("h", 0, 0).trust_of(0) is trust


def test_an_entry_read_late_is_judged_by_its_own_time():
    records = Records(Attestation(JournalSettings()))
    assert records.add("s=a;i=1", BASE, {"MESSAGE": "m"} | SSHD)
    batch = records.batch("h", 0, BASE + 3_600_000_000)
    assert batch.spooled
    assert batch.header is not None
    assert batch.header.time.tolist() == [BASE]


@pytest.mark.parametrize(
    ("cursor", "wanted"),
    [("s=ab;i=1f;b=0", ("ab", 31)), ("", ("", 0)), ("s=ab;i=zz", ("ab", 0)), ("nonsense", ("", 0))],
)
def test_the_sequence_of_a_cursor(cursor: str, wanted: tuple[str, int]):
    assert sequence(cursor) == wanted


@pytest.mark.parametrize(
    "cursor",
    [
        "{",
        '{"name":"vedette-file-cursor","version":1,"number":0,"cursor":""}',
        '{"name":"vedette-journal-cursor","version":9,"number":0,"cursor":""}',
    ],
)
def test_a_cursor_it_cannot_use_is_refused_with_a_hint(cursor: str):
    with pytest.raises(StateError) as refused:
        JournalSource(JournalSettings(), host_id="h", clock=SystemClock(), counter=Counts(), cursor=cursor)
    assert refused.value.hint
