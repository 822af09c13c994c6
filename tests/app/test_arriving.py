"""What a hostile agent may send: nothing of it ends the hub, and nothing stands for another host.
Counterpart: src/vedette/app/arriving.py, src/vedette/app/hub.py."""

from __future__ import annotations

import asyncio
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from vedette.app import own
from vedette.app.arriving import Refused, known_reason, refusal, report_refusal
from vedette.app.counters import Counters
from vedette.app.hub import HubKeeping
from vedette.config.settings import Settings
from vedette.fleet.enrolment import Registrar
from vedette.fleet.messages import pack, pack_dropped, unpack_confirm
from vedette.fleet.transport import HubTransport
from vedette.model.batch import Batch, GivenHeader, Origin, RecordFormat
from vedette.model.clock import LATEST, SystemClock
from vedette.model.errors import VedetteError
from vedette.model.reasons import DropReason
from vedette.model.shipping import BatchKey, Dropped, Report, SourceState
from vedette.store.lake.reader import Reader

AGENT = "6f1c9f5e-0000-4000-8000-00000000a9e7"
HUB = "6f1c9f5e-0000-4000-8000-00000000a9e8"
SOURCE = "file:/var/log/messages"
GAP = Dropped(AGENT, SOURCE, 1, 2, 5, DropReason.SPOOL_FULL, 1)
REPORT = Report(AGENT, "web1", "s", 1, 1, 1, "0", {SOURCE: SourceState()})


def batch(**more: Any) -> Batch:
    line = b"Jan  1 00:00:01 web1 app: one"
    given: dict[str, Any] = {"origin": Origin(AGENT, SOURCE), "year": 2026, "read_at": 10**15, **more}
    starts, ends = np.array([0]), np.array([len(line)])
    return Batch(number=0, block=line, starts=starts, ends=ends, positions=starts, **given)


def header(time: int = 0, host: str = "web1", program: str = "app") -> GivenHeader:
    return GivenHeader(np.array([time]), [host], [program], np.array([1]))


HOSTILE = [
    (batch(timezone="Nowhere/Nope"), Refused.TIMEZONE),
    (batch(timezone="../../etc/passwd"), Refused.TIMEZONE),
    (batch(read_at=2**63 - 1), Refused.TIME),
    (batch(header=header(2**62), format=RecordFormat.MESSAGE), Refused.TIME),
    (batch(header=header(host="\ud800"), format=RecordFormat.MESSAGE), Refused.TEXT),
    (batch(header=header(program="\ud800"), format=RecordFormat.MESSAGE), Refused.TEXT),
    (batch(dropped={"x" * 5000: 1}), Refused.TEXT),
    (batch(origin=Origin(AGENT, "findings")), Refused.OF_ANOTHER_SOURCE),
    (batch(origin=Origin(HUB, SOURCE)), Refused.OF_ANOTHER_HOST),
]


@pytest.mark.parametrize(("sent", "reason"), HOSTILE)
def test_a_hostile_batch_is_refused(sent: Batch, reason: Refused):
    assert refusal((BatchKey(AGENT, SOURCE, 1), sent), AGENT) is reason


def test_what_an_agent_sends_is_taken():
    assert refusal((BatchKey(AGENT, SOURCE, 1), batch(header=header(), format=RecordFormat.MESSAGE)), AGENT) is None
    assert refusal((BatchKey(AGENT, SOURCE + "#security", 1), batch()), AGENT) is None
    assert refusal(GAP, AGENT) is None
    assert report_refusal(REPORT, AGENT) is None


def test_a_hostile_gap_is_refused_or_named_as_known():
    assert refusal(replace(GAP, at=2**63), AGENT) is Refused.TIME
    assert refusal(replace(GAP, stream="x" * 5000), AGENT) is Refused.TEXT
    assert refusal(GAP, HUB) is Refused.OF_ANOTHER_HOST
    assert known_reason(GAP) == DropReason.SPOOL_FULL
    assert known_reason(replace(GAP, reason="anything")) == DropReason.DEFECT


def test_a_hostile_report_is_refused():
    assert report_refusal(REPORT, HUB) is Refused.OF_ANOTHER_HOST
    assert report_refusal(replace(REPORT, at=LATEST + 1), AGENT) is Refused.TIME
    assert report_refusal(replace(REPORT, spooled=2**64 - 1), AGENT) is Refused.NUMBER
    assert report_refusal(replace(REPORT, version="x" * 5000), AGENT) is Refused.TEXT
    state = SourceState(loggers_stopped={"rsyslogd": -1})
    assert report_refusal(replace(REPORT, sources={SOURCE: state}), AGENT) is Refused.TIME


@dataclass
class FakeArrival:
    """What the broker hands out."""

    packed: bytes
    host_id: str = AGENT
    acked: int = 0
    settled: asyncio.Event = field(default_factory=asyncio.Event)

    async def ack(self) -> None:
        self.acked += 1
        self.settled.set()


@dataclass
class FakeTransport:
    """Hands out what it is given, in order; keeps what is confirmed."""

    given: list[FakeArrival]
    confirmed: list[bytes] = field(default_factory=list)

    async def arrivals(self) -> Any:
        for one in self.given:
            yield one

    async def confirm(self, _host_id: str, packed: bytes) -> None:
        self.confirmed.append(packed)


async def taken(tmp_path: Path, *messages: bytes) -> SimpleNamespace:
    """What becomes of these messages on a hub, one after the other, each stored before the next comes."""
    counters = Counters()
    settings = Settings.model_validate({"data": tmp_path})
    keeping = HubKeeping(settings, own.Self(HUB, "hub"), clock=SystemClock(), counter=counters)
    arrivals = [FakeArrival(packed) for packed in messages]
    transport = FakeTransport([])
    confirming = asyncio.create_task(keeping._confirm(cast("HubTransport", transport)))
    try:
        for one in arrivals:
            transport.given = [one]
            await keeping._take_arrivals(cast("HubTransport", transport))
            await asyncio.wait_for(one.settled.wait(), 10)
    finally:
        confirming.cancel()
        await asyncio.gather(confirming, return_exceptions=True)
        await asyncio.to_thread(keeping.close)
    return SimpleNamespace(keeping=keeping, counters=counters, arrivals=arrivals, transport=transport)


async def test_a_hostile_message_ends_nothing(tmp_path: Path):
    key = BatchKey(AGENT, SOURCE, 1)
    sent = [pack(key, batch(timezone="Nowhere/Nope")), pack_dropped(replace(GAP, at=2**63)), pack(key, batch())]
    got = await taken(tmp_path, *sent)
    assert got.counters.value("batches_refused", Refused.TIMEZONE) == 1
    assert got.counters.value("batches_refused", Refused.TIME) == 1
    assert unpack_confirm(got.transport.confirmed[-1]).through == {SOURCE: 1}


async def test_a_batch_that_is_refused_is_a_gap_and_its_stream_goes_on(tmp_path: Path):
    good = pack(BatchKey(AGENT, SOURCE, 2), batch())
    torn, newer = pack(BatchKey(AGENT, SOURCE, 1), batch())[:-1], bytearray(pack(BatchKey(AGENT, SOURCE, 3), batch()))
    newer[7] += 1
    got = await taken(tmp_path, torn, good, torn, bytes(newer), pack(BatchKey(HUB, SOURCE, 1), batch()))
    with closing(Reader(tmp_path / "lake")) as reader:
        (gap,) = reader.dropped()
    assert (gap.first, gap.last, gap.records, gap.reason) == (1, 1, 1, DropReason.REFUSED)
    assert unpack_confirm(got.transport.confirmed[-1]).through == {SOURCE: 2}
    assert [one.acked for one in got.arrivals] == [1] * 5


async def test_what_cannot_be_taken_in_is_counted_and_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_given: object) -> bool:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(HubKeeping, "take_in", fail)
    got = await taken(tmp_path, pack(BatchKey(AGENT, SOURCE, 1), batch()))
    assert got.counters.value("batches_refused", Refused.DEFECT) == 1
    assert not got.keeping._arrived


async def test_a_batch_behind_a_gap_that_comes_again_is_acknowledged_and_named(tmp_path: Path):
    second = pack(BatchKey(AGENT, SOURCE, 2), batch())
    got = await taken(tmp_path, second, second)
    assert [one.acked for one in got.arrivals] == [1, 1]
    assert not got.keeping._arrived
    confirm = unpack_confirm(got.transport.confirmed[-1])
    assert (confirm.through, confirm.beyond) == ({SOURCE: 0}, {SOURCE: ((2, 2),)})


async def test_a_host_gets_so_many_streams_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("vedette.app.hub.MOST_STREAMS", 2)

    def of(stream: str, number: int = 1) -> bytes:
        return pack(BatchKey(AGENT, stream, number), batch(origin=Origin(AGENT, stream)))

    gap = pack_dropped(replace(GAP, stream="e"))
    got = await taken(tmp_path, of("a"), of("b"), of("c", 7), of("d")[:-1], gap, of("a", 2))
    assert got.keeping.lake.streams_of(AGENT) == {"a": 2, "b": 1}
    assert got.counters.value("batches_refused", Refused.TOO_MANY_STREAMS) == 3
    # What is not kept must not hold up what is.
    through = [unpack_confirm(one).through for one in got.transport.confirmed]
    assert {"c": 7} in through
    assert through[-1] == {"a": 2}
    assert [one.acked for one in got.arrivals] == [1] * 6


async def test_a_door_that_cannot_be_opened_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    opened = asyncio.Event()
    tried: list[int] = []

    class FakeDoor:
        def __init__(self, *_given: object, **_more: object) -> None:
            tried.append(1)

        async def __aenter__(self) -> None:
            if len(tried) < 3:
                raise VedetteError("cannot listen")
            opened.set()

        async def __aexit__(self, *_given: object) -> None:
            """Nothing is held."""

    monkeypatch.setattr("vedette.app.hub.Door", FakeDoor)
    monkeypatch.setattr("vedette.app.hub.DOOR_AGAIN", 0.0)
    counters = Counters()
    settings = Settings.model_validate({"data": tmp_path})
    keeping = HubKeeping(settings, own.Self(HUB, "hub"), clock=SystemClock(), counter=counters)
    task = asyncio.create_task(keeping._let_in(cast("Registrar", None)))
    try:
        await asyncio.wait_for(opened.wait(), 10)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.to_thread(keeping.close)
    assert counters.value("door_shut") == 2
