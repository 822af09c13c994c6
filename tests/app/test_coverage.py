"""What is missing is said with its minutes, what is only silent or late is not.
Counterpart: src/vedette/app/coverage.py."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from vedette.app.counters import Counters
from vedette.app.coverage import statement
from vedette.app.host import host_id
from vedette.model.batch import Batch, Origin, RecordFormat, Trust
from vedette.model.clock import BEGINNING, DAY, HOUR, MINUTE, SECOND
from vedette.model.coverage import Gap, GapReason, Statement
from vedette.model.events import Column
from vedette.model.liveness import STANDS, Fault, LivenessEvent
from vedette.model.shipping import BatchKey, Dropped, Headers
from vedette.sources.liveness import NAME, record
from vedette.store.lake import manifest
from vedette.store.lake.lake import Lake
from vedette.testing.clock import START, FakeClock

HUB, WEB, DB = "hub", "w-3", "d-1"


class World:
    """A lake of one hub, and a clock."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock(START + DAY)
        self.lake = Lake(folder, clock=self.clock, counter=Counters())
        self.told = 0

    def put(self, host: str, stream: str, number: int, at: int, lines: list[bytes] | None = None) -> None:
        lines = [b"line"] if lines is None else lines
        lengths = np.array([len(line) for line in lines], np.int64)
        ends = np.cumsum(lengths + 1) - 1
        batch = Batch(
            Origin(host, stream),
            number,
            b"".join(line + b"\n" for line in lines),
            ends - lengths,
            ends,
            np.arange(len(lines), dtype=np.int64),
            at,
            RecordFormat.JSON,
            Trust.ATTESTED,
        )
        n = len(lines)
        headers = Headers(np.full(n, at, np.int64), Column.absent(n), Column.absent(n), np.full(n, 255, np.uint8))
        assert self.lake.put(BatchKey(host, stream, number), batch, headers)

    def tell(self, fault: Fault, since: int, at: int, *, behind: str = "", by: str = HUB, **more: Any) -> None:
        fields: dict[str, Any] = {"over": False, "host_id": WEB, "host_name": "web03", "stream": "", "reason": ""}
        event = LivenessEvent(fault, since=since, at=at, **{**fields, **more})
        self.told += 1
        self.put(by, NAME, self.told, at, [orjson.dumps(record(event, behind))])

    def asked(self, since: int = START, until: int = START + HOUR, hosts: frozenset[str] = frozenset()) -> Statement:
        self.lake.flush()
        return statement(self.lake, hosts, since, until, self.clock.now(), hub=HUB)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "lake")
    # Heard before anything here begins, and then again and again.
    for number, host in enumerate((WEB, WEB, DB), 1):
        made.put(host, "journal", number if host == WEB else 1, START - HOUR + number * SECOND)
    made.put(HUB, "journal", 1, START - 60 * DAY)
    yield made
    made.lake.close()


def test_silence_is_no_gap(world: World) -> None:
    assert world.asked().complete
    assert str(world.asked()) == "complete"


def test_an_absent_agent_is_said_with_its_minutes(world: World) -> None:
    world.tell(Fault.AGENT_ABSENT, START + 10 * MINUTE, START + 11 * MINUTE, reason="no-report")
    world.tell(Fault.AGENT_ABSENT, START + 10 * MINUTE, START + 24 * MINUTE, over=True, reason="back")
    assert str(world.asked()) == "web03: 14 minutes not covered: agent absent"
    [gap] = world.asked().gaps
    assert gap == Gap(WEB, "web03", "", START + 10 * MINUTE, START + 24 * MINUTE, GapReason.AGENT_ABSENT)
    assert world.asked(hosts=frozenset({DB})).complete
    assert world.asked(until=START + 10 * MINUTE).complete
    assert world.asked(since=START + 23 * MINUTE).minutes == {WEB: 1}
    assert world.asked(since=START + 24 * MINUTE).complete


def test_an_agent_that_had_run_all_the_time_has_sent_what_it_read(world: World) -> None:
    since = START + 10 * MINUTE
    world.tell(Fault.AGENT_ABSENT, since, since + MINUTE, reason="no-report")
    assert world.asked().minutes == {WEB: 50}
    world.tell(Fault.AGENT_ABSENT, since, since + DAY // 2, over=True, resumed=True)
    assert world.asked().complete


def test_what_stands_since_long_is_known_from_what_is_told_every_hour(world: World) -> None:
    since = START - 50 * DAY
    world.tell(Fault.SOURCE_STOPPED, since, START + 50 * MINUTE, behind=STANDS, stream="file:/var/log/a")
    world.tell(Fault.SOURCE_STOPPED, since, START + 110 * MINUTE, behind=STANDS, stream="file:/var/log/a")
    assert world.asked().words == ["web03: 60 minutes not covered: source stopped (file:/var/log/a)"]
    assert len(world.asked(until=START + DAY).gaps) == 1
    world.tell(Fault.SOURCE_STOPPED, since, START + 120 * MINUTE, over=True, stream="file:/var/log/a")
    assert world.asked(until=START + DAY).minutes == {WEB: 120}


def test_missing_numbers_are_between_their_neighbours(world: World) -> None:
    world.put(WEB, "journal", 3, START + 5 * MINUTE)
    world.put(WEB, "journal", 6, START + 7 * MINUTE)
    assert world.asked().gaps == [
        Gap(WEB, "", "journal", START + 5 * MINUTE, START + 7 * MINUTE, GapReason.BATCHES_MISSING)
    ]
    assert str(world.asked()) == "w-3: 2 minutes not covered: batches missing (journal)"
    world.lake.drop(Dropped(WEB, "journal", 4, 5, 70, "spool-full", START + HOUR))
    assert [(gap.reason, gap.detail) for gap in world.asked().gaps] == [(GapReason.RECORDS_DROPPED, "spool-full")]
    world.lake.drop(Dropped(WEB, "journal", 7, 9, 70, "spool-full", START + 9 * MINUTE))
    assert [gap.minutes for gap in world.asked().gaps] == [2, 2]
    world.put(WEB, "journal", 4, START + 5 * MINUTE)
    world.put(WEB, "journal", 5, START + 6 * MINUTE)
    assert [gap.minutes for gap in world.asked().gaps] == [2]


def test_a_first_batch_that_is_missing_is_not_older_than_the_host(world: World) -> None:
    world.put(WEB, "file:/a", 2, START + 3 * MINUTE)
    assert world.asked(since=START - DAY, hosts=frozenset({WEB})).gaps == [
        Gap(WEB, "", "", START - DAY, START - HOUR + SECOND, GapReason.NOT_WATCHED),
        Gap(WEB, "", "file:/a", START - HOUR + SECOND, START + 3 * MINUTE, GapReason.BATCHES_MISSING),
    ]


def test_before_its_first_record_a_host_was_not_watched_unless_all_there_is_was_asked_for(world: World) -> None:
    assert [gap.reason for gap in world.asked(since=START - DAY).gaps] == [GapReason.NOT_WATCHED] * 2
    assert world.asked(since=BEGINNING).complete
    assert world.asked(hosts=frozenset({"never-seen"})).minutes == {"never-seen": 60}


def test_what_was_let_go_is_told_from_loss(world: World) -> None:
    world.put(WEB, "journal", 3, START + 5 * MINUTE)
    world.lake.flush()
    with world.lake._manifest.writing() as connection:
        stream = manifest.stream_id(connection, (WEB, "journal"))
        stone = manifest.Tombstone(WEB, "journal", 1, 2, 2, 10, "age", START + DAY)
        manifest.add_tombstones(connection, [(stream, stone)])
    assert world.asked(hosts=frozenset({WEB})).gaps == [
        Gap(WEB, "", "journal", START, START + 5 * MINUTE, GapReason.LET_GO, "age")
    ]


def test_a_stop_on_purpose_costs_only_what_nobody_can_read_later(world: World) -> None:
    since = START + 10 * MINUTE
    for fault in (Fault.AGENT_STOPPED, Fault.AGENT_ABSENT):
        world.tell(fault, since, since, reason="stopped")
    assert world.asked().minutes == {WEB: 50}
    for fault in (Fault.AGENT_STOPPED, Fault.AGENT_ABSENT):
        world.tell(fault, since, since + 5 * MINUTE, over=True, reason="back")
    assert world.asked().complete
    world.put(WEB, "syslog:udp/10.0.0.1", 1, START)
    assert world.asked().words == [
        "web03: 5 minutes not covered: agent absent (syslog:udp/10.0.0.1), agent stopped (syslog:udp/10.0.0.1)"
    ]


def test_what_is_late_is_missing_until_it_is_here(world: World) -> None:
    since = START + 30 * MINUTE
    world.tell(Fault.STREAM_BEHIND, since, since, stream="journal", reason="shipping")
    world.tell(Fault.HUB_BEHIND, since, since, host_id="", host_name="")
    assert world.asked().minutes == dict.fromkeys((WEB, DB, HUB), 30)
    world.tell(Fault.STREAM_BEHIND, since, START + HOUR, stream="journal", reason="shipping", over=True)
    world.tell(Fault.HUB_BEHIND, since, START + HOUR, host_id="", host_name="", over=True)
    assert world.asked(hosts=frozenset({WEB})).complete


def test_moments_cost_their_minutes_and_loggers_keep_their_words(world: World) -> None:
    at = START + 10 * MINUTE
    world.tell(Fault.UPSTREAM_DROPPED, at + SECOND, at, stream="journal", reason="web.service")
    world.tell(Fault.UPSTREAM_DROPPED, at + SECOND, at + 6 * MINUTE, stream="journal", reason="web.service", over=True)
    [gap] = world.asked().gaps
    assert (gap.minutes, gap.detail) == (3, "web.service")


def test_hosts_of_a_group_that_had_run_on_miss_nothing(world: World) -> None:
    group: dict[str, Any] = {"host_id": "", "host_name": "", "group": "1", "count": 5}
    since = START + 10 * MINUTE
    world.tell(Fault.AGENTS_ABSENT, since, since + MINUTE, **group, host_ids=(WEB, DB))
    assert world.asked().minutes == {WEB: 50, DB: 50}
    world.tell(Fault.AGENTS_ABSENT, since, since + 9 * MINUTE, **group, over=True, host_ids=(DB,))
    assert world.asked().minutes == {DB: 9}


def test_only_the_hub_is_believed_and_nonsense_is_not(world: World) -> None:
    world.tell(Fault.AGENT_ABSENT, START, START, by=DB)
    world.put(
        HUB, NAME, 7, START, [b"{", b"[]", b"{}", b'{"event":{"action":"agent-absent"},"vedette":{"liveness":7}}']
    )
    world.lake.drop(Dropped(HUB, NAME, 1, 6, 0, "stopped", START - HOUR))
    assert world.asked(hosts=frozenset({WEB, DB})).complete


def test_without_a_word_the_hub_of_this_folder_is_believed(world: World) -> None:
    world.tell(Fault.AGENT_ABSENT, START, START + MINUTE)
    world.lake.flush()
    hub = host_id(world.lake.folder.parent)
    now = world.clock.now()
    assert statement(world.lake, {WEB}, START, START + HOUR, now).complete
    assert not statement(world.lake, {WEB}, START, START + HOUR, now, hub="").complete
    [gap] = statement(world.lake, {hub}, START, START + HOUR, now).gaps
    assert (gap.reason, gap.host_name) == (GapReason.NOT_WATCHED, socket.gethostname())
