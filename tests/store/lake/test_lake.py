"""What is put comes back byte for byte, once, in order, also after the lake was closed.
Counterpart: vedette.store.lake."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from vedette.app.counters import Counters
from vedette.model.batch import Batch, GivenHeader, Origin, RecordFormat, Trust
from vedette.model.errors import StateError
from vedette.model.events import Column
from vedette.model.ranges import Ranges
from vedette.model.shipping import BatchKey, Dropped, Headers
from vedette.store.lake import manifest as m
from vedette.store.lake.lake import Lake
from vedette.store.lake.reader import Literal, Reader, Scan
from vedette.testing.clock import START, FakeClock

HOST = "11111111-1111-4111-8111-111111111111"


def batch_of(records: list[bytes], **more: Any) -> Batch:
    ends = np.cumsum([len(record) + 1 for record in records], dtype=np.int64) - 1
    starts = ends - np.asarray([len(record) for record in records], np.int64)
    fields: dict[str, Any] = {"origin": Origin(HOST, "file"), "number": 1, "positions": starts, "read_at": START}
    block = b"".join(record + b"\n" for record in records)
    return Batch(block=block, starts=starts, ends=ends, **{**fields, **more})


def headers_of(n: int, time: int = START) -> Headers:
    times = np.arange(n, dtype=np.int64) + time
    return Headers(times, Column.constant(n, "web01"), Column.absent(n), np.full(n, 255, np.uint8))


def lake_in(folder: Path, **more: Any) -> Lake:
    return Lake(folder, clock=FakeClock(), counter=more.pop("counter", Counters()), **more)


def same(one: Batch, other: Batch) -> bool:
    simple = ("origin", "number", "block", "read_at", "format", "timezone", "year", "spooled", "cursor", "dropped")
    arrays = [(one.starts, other.starts), (one.ends, other.ends), (one.positions, other.positions)]
    if (one.header is None) != (other.header is None) or type(one.trust) is not type(other.trust):
        return False
    if one.header is not None and other.header is not None:
        arrays += [(one.header.time, other.header.time), (one.header.pid, other.header.pid)]
        if (one.header.host, one.header.program) != (other.header.host, other.header.program):
            return False
    arrays.append((np.asarray(one.trust), np.asarray(other.trust)))
    return all(getattr(one, name) == getattr(other, name) for name in simple) and all(
        np.array_equal(left, right) for left, right in arrays
    )


texts = st.sampled_from(["", "web01", "ümläut", "\U0010fff0", "a\0b"])
int64 = st.integers(-(2**63), 2**63 - 1)


@st.composite
def batches(draw: st.DrawFn) -> tuple[Batch, Headers]:
    records = draw(st.lists(st.one_of(st.binary(max_size=20), st.just(b"\0\n\xff"), st.just(b"x" * 9000)), max_size=6))
    n = len(records)
    many = {"min_size": n, "max_size": n}
    header = None
    times = np.asarray(draw(st.lists(int64, **many)), np.int64)
    hosts = draw(st.lists(texts, **many))
    if draw(st.booleans()):
        own = times if draw(st.booleans()) else times[::-1].copy()
        header = GivenHeader(
            own, hosts, draw(st.lists(texts, **many)), np.asarray(draw(st.lists(int64, **many)), np.int64)
        )
    trust: Any = draw(st.sampled_from(Trust))
    if draw(st.booleans()):
        trust = np.asarray(draw(st.lists(st.integers(0, 2), **many)), np.uint8)
    batch = batch_of(
        records,
        origin=Origin(HOST, draw(texts), draw(texts)),
        number=draw(st.integers(0, 2**40)),
        positions=np.asarray(draw(st.lists(int64, **many)), np.int64),
        read_at=draw(st.integers(0, 2**60)),
        trust=trust,
        header=header,
        format=draw(st.sampled_from(RecordFormat)),
        timezone=draw(texts),
        year=draw(st.integers(0, 9999)),
        spooled=draw(st.booleans()),
        cursor=draw(texts),
        dropped=draw(st.dictionaries(texts, st.integers(0, 9), max_size=2)),
    )
    column = Column.from_values([host or None for host in hosts])
    return batch, Headers(times, column, Column.absent(n), np.full(n, 255, np.uint8))


@settings(max_examples=12)
@given(put=st.lists(batches(), min_size=1, max_size=5), cut=st.integers(1, 5))
def test_batches_come_back_as_they_were_put(tmp_path_factory: pytest.TempPathFactory, put: Any, cut: int):
    lake = lake_in(tmp_path_factory.mktemp("lake"))
    try:
        for number, (batch, headers) in enumerate(put, 1):
            assert lake.put(BatchKey(HOST, "file", number), batch, headers)
            if number % cut == 0:
                lake.flush()
        lake.flush()
        taken = lake.read(0, 2) + lake.read(2, 100)
        assert [one.sequence for one in taken] == list(range(1, len(put) + 1))
        assert [one.key.number for one in taken] == list(range(1, len(put) + 1))
        for one, (batch, _) in zip(taken, put, strict=True):
            assert same(one.batch, batch)
        assert sum(pq.read_metadata(path).num_rows for path in lake.files()) == sum(len(batch) for batch, _ in put)
    finally:
        lake.close()


def test_a_key_is_stored_once_for_ever_and_gaps_are_seen(tmp_path: Path):
    counter = Counters()
    for _ in range(2):
        lake = lake_in(tmp_path, counter=counter)
        with pytest.raises(StateError, match="another program"):
            lake_in(tmp_path)
        for number in (1, 2, 2, 5):
            lake.put(BatchKey(HOST, "file", number), batch_of([b"one"]), headers_of(1))
        lake.flush()
        assert list(lake.stored()[HOST, "file"]) == [(1, 2), (5, 5)]
        lake.close()
    assert counter.value("lake_repeats") == 1 + 4
    lake = lake_in(tmp_path)
    assert lake.stored_through(HOST, "file") == 2
    for _ in range(2):
        lake.drop(Dropped(HOST, "file", 3, 4, 7, "spool-full", START))
    assert (lake.stored_through(HOST, "file"), len(lake.dropped()), len(lake.read(0, 9))) == (5, 1, 3)
    lake.close()


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_a_number_is_stored_or_said_to_be_dropped_and_what_is_stored_wins(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
):
    folder, most = tmp_path_factory.mktemp("gaps"), 12
    lake = lake_in(folder)
    said: set[int] = set()
    stored: set[int] = set()
    for _ in range(data.draw(st.integers(1, 8))):
        if data.draw(st.booleans()):
            number = data.draw(st.integers(1, most))
            lake.put(BatchKey(HOST, "file", number), batch_of([b"x"] * number), headers_of(number))
            stored.add(number)
            if data.draw(st.booleans()):
                lake.flush()
        else:
            # As an agent does: what it says again lies whole in what it says now, or the other way round.
            first, last = data.draw(st.sampled_from([(1, 2), (3, 3), (1, 4), (5, 8), (1, 8), (9, 12), (1, 12)]))
            lake.drop(Dropped(HOST, "file", first, last, sum(range(first, last + 1)), "spool-full", START))
            said.update(range(first, last + 1))
        if data.draw(st.integers(0, 5)) == 0:
            lake.flush()
            lake.close()
            lake = lake_in(folder)
    lake.flush()
    gaps = [one for one in lake.dropped() if one.records >= 0]
    assert lake.stored().get((HOST, "file"), Ranges()) == Ranges((number, number) for number in stored)
    lost = Ranges((one.first, one.last) for one in lake.dropped()).without(lake.stored().get((HOST, "file"), Ranges()))
    assert lost == Ranges((number, number) for number in said - stored)
    if len(gaps) == len(lake.dropped()):
        assert sum(one.records for one in gaps) == sum(said - stored)
    lake.close()


def test_a_batch_that_comes_after_all_shortens_its_gap_by_its_records(tmp_path: Path):
    counter = Counters()
    lake = lake_in(tmp_path, counter=counter)
    lake.put(BatchKey(HOST, "file", 1), batch_of([b"a"] * 3), headers_of(3))
    lake.flush()
    lake.drop(Dropped(HOST, "file", 1, 4, 10, "spool-full", START))
    lake.drop(Dropped(HOST, "file", 1, 4, 10, "spool-full", START))
    assert lake.dropped() == [Dropped(HOST, "file", 2, 4, 7, "spool-full", START)]
    lake.put(BatchKey(HOST, "file", 4), batch_of([b"b"] * 2), headers_of(2))
    lake.flush()
    assert lake.dropped() == [Dropped(HOST, "file", 2, 3, 5, "spool-full", START)]
    assert (counter.value("lake_dropped_came"), lake.stored_through(HOST, "file")) == (1, 4)
    for number, n in ((2, 1), (3, 4)):
        lake.put(BatchKey(HOST, "file", number), batch_of([b"b"] * n), headers_of(n))
    lake.flush()
    assert not lake.dropped()
    lake.drop(Dropped(HOST, "file", 1, 4, 10, "spool-full", START))
    assert not lake.dropped()
    lake.close()


def test_what_no_manifest_speaks_of_is_swept_and_a_reader_sees_what_is_flushed(tmp_path: Path):
    lake = lake_in(tmp_path)
    reader = Reader(tmp_path)
    lake.put(BatchKey(HOST, "file", 1), batch_of([b"one", b"two WORD", b"three"]), headers_of(3))
    assert reader.read(0, 9) == []
    lake.flush()
    (path,) = reader.files()
    (path.parent / "orphan.parquet").write_bytes(b"half")
    lake.close()
    counter = Counters()
    lake = lake_in(tmp_path, counter=counter)
    assert (counter.value("lake_orphans_swept"), [p.name for p in path.parent.iterdir()]) == (1, [path.name])
    (part,) = reader.scan(Scan(literals=[[Literal(b"word")]]))
    assert (part.rows.tolist(), part.batch.raw(0), part.key.number) == ([1], b"two WORD", 1)
    assert not list(reader.scan(Scan(literals=[[Literal(b"word", cased=True)]])))
    assert not list(reader.scan(Scan(since=START + 3)))
    assert sum(len(table) for table in reader.columns(Scan(since=START + 1), ["host"])) == 2
    sql = reader.sql_view()
    assert sql.execute("SELECT count(*), min(host) FROM events").fetchall() == [(3, "web01")]
    sql.close()
    reader.close()
    lake.close()


class Refusing:
    """A ledger that refuses its first append and keeps what it is given after that."""

    def __init__(self) -> None:
        self.leaves: list[int] = []
        self.refused = False

    def leaf(self, key: BatchKey, batch: Batch) -> int:
        return key.number

    def append(self, connection: Any, leaves: Any) -> None:
        if not self.refused:
            self.refused = True
            raise OSError("refused")
        self.leaves += leaves

    def dropped(self, connection: Any, dropped: Dropped) -> None:
        self.leaves.append(-dropped.first)


def test_the_ledger_is_told_of_a_gap_once(tmp_path: Path):
    ledger = Refusing()
    lake = lake_in(tmp_path, ledger=ledger)
    gap = Dropped(HOST, "file", 2, 3, 7, "spool-full", START)
    lake.drop(gap)
    lake.drop(gap)
    assert (ledger.leaves, lake.dropped()) == ([-2], [gap])
    lake.close()


def test_what_the_ledger_refuses_is_not_stored_and_waits(tmp_path: Path):
    ledger = Refusing()
    lake = lake_in(tmp_path, ledger=ledger)
    lake.put(BatchKey(HOST, "file", 1), batch_of([b"one"]), headers_of(1))
    with pytest.raises(OSError, match="refused"):
        lake.flush()
    assert (lake.read(0, 9), lake.stored(), list(tmp_path.glob("day=*/hour=*/*"))) == ([], {}, [])
    assert lake.waiting > 0
    assert (lake.flush(), ledger.leaves, lake.waiting) == ([BatchKey(HOST, "file", 1)], [1], 0)
    lake.close()


def test_a_lake_that_could_not_be_opened_can_be_opened_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as broken:
        broken.setattr("vedette.store.lake.lake.files.sweep", lambda *_: (_ for _ in ()).throw(OSError(5, "no disk")))
        with pytest.raises(OSError, match="no disk"):
            lake_in(tmp_path)
    lake = lake_in(tmp_path)
    assert lake.put(BatchKey(HOST, "file", 1), batch_of([b"one"]), headers_of(1))
    lake.close()


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("looked", ["at once", "later"])
def test_a_write_of_which_nobody_knows_whether_it_was_kept_is_stored_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool, looked: str
) -> None:
    counter = Counters()
    lake = lake_in(tmp_path, counter=counter)
    lake.drop(Dropped(HOST, "file", 1, 1, 1, "spool-full", START))
    writing, reading = m.Manifest.writing, m.Manifest.reading
    first = [BatchKey(HOST, "file", number) for number in (1, 2)]
    for key in first:
        assert lake.put(key, batch_of([b"%d" % key.number]), headers_of(1))
    with monkeypatch.context() as patch:

        @contextmanager
        def in_doubt(manifest: m.Manifest) -> Iterator[Connection]:
            if looked == "later":
                patch.setattr(m.Manifest, "reading", unreadable)
            with writing(manifest) as connection:
                yield connection
                if not kept:
                    raise StateError("the disk does not answer")
            raise StateError("the disk does not answer")

        @contextmanager
        def unreadable(manifest: m.Manifest) -> Iterator[Connection]:
            raise StateError("the disk does not answer now either")
            yield

        patch.setattr(m.Manifest, "writing", in_doubt)
        if kept and looked == "at once":
            assert lake.flush() == first
        else:
            with pytest.raises(StateError, match=r"does not answer$"):
                lake.flush()
        if looked == "later":
            with pytest.raises(StateError, match="now either"):
                lake.flush()
    assert m.Manifest.reading is reading
    third = BatchKey(HOST, "file", 3)
    assert lake.put(third, batch_of([b"3"]), headers_of(1))
    safe = [*lake.flush(), *lake.flush()]
    assert safe == ([third] if kept and looked == "at once" else [*first, third])
    assert lake.waiting == 0
    assert [(one.sequence, one.key.number) for one in lake.read(0, 9)] == [(1, 1), (2, 2), (3, 3)]
    assert lake.dropped() == []
    assert len(lake.files()) == len(list(tmp_path.rglob("*.parquet"))) == (2 if kept else 1)
    assert counter.value("lake_dropped_came") == 1
    assert not lake.put(first[0], batch_of([b"1"]), headers_of(1))
    lake.close()


class Slow(Refusing):
    """A ledger in which a gap takes until it is let through."""

    def __init__(self) -> None:
        super().__init__()
        self.refused = True
        self.inside, self.through = threading.Event(), threading.Event()

    def dropped(self, connection: Any, dropped: Dropped) -> None:
        self.inside.set()
        assert self.through.wait(60)


def test_closing_waits_for_whoever_writes_and_loses_nothing(tmp_path: Path) -> None:
    ledger = Slow()
    lake = lake_in(tmp_path, ledger=ledger)
    gap = Dropped(HOST, "file", 2, 3, 7, "spool-full", START)
    with ThreadPoolExecutor() as threads:
        dropping = threads.submit(lake.drop, gap)
        assert ledger.inside.wait(60)
        closing = threads.submit(lake.close)
        # Its end would let another program write beside it.
        with pytest.raises(FutureTimeoutError):
            closing.result(0.2)
        with pytest.raises(StateError, match="another program"):
            lake_in(tmp_path)
        ledger.through.set()
        dropping.result(60)
        closing.result(60)
    lake = lake_in(tmp_path)
    assert lake.dropped() == [gap]
    lake.close()


def test_threads_that_go_on_while_the_lake_closes_hear_that_it_is_closed(tmp_path: Path) -> None:
    lake = lake_in(tmp_path)
    lake.put(BatchKey(HOST, "file", 1), batch_of([b"one"]), headers_of(1))
    lake.flush()
    running = threading.Barrier(5)
    noted: list[int] = []

    def drop() -> None:
        number = 2 + 2 * len(noted)
        lake.drop(Dropped(HOST, "file", number, number, 1, "spool-full", START))
        noted.append(number)

    def until_closed(work: Callable[[], object]) -> str:
        work()
        running.wait(60)
        while True:
            try:
                work()
            except StateError as error:
                return str(error)

    work = [lambda: lake.read(0, 9), drop, lake.compact, lambda: lake.retain([])]
    with ThreadPoolExecutor() as threads:
        done = [threads.submit(until_closed, one) for one in work]
        running.wait(60)
        lake.close()
        assert all("is closed" in one.result(60) for one in done)
    lake = lake_in(tmp_path)
    assert [gap.first for gap in lake.dropped()] == noted
    assert len(lake.read(0, 9)) == 1
    lake.close()


def lost(lake: Lake) -> int:
    return sum(one.records for one in lake.dropped())


def test_two_batches_of_one_write_are_both_taken_from_their_gap(tmp_path: Path):
    lake = lake_in(tmp_path)
    lake.drop(Dropped(HOST, "file", 1, 4, 10, "spool-full", START))
    for number in (1, 2):
        lake.put(BatchKey(HOST, "file", number), batch_of([b"x"] * number), headers_of(number))
    lake.flush()
    assert [(one.first, one.last, one.records) for one in lake.dropped()] == [(3, 4, 7)]
    lake.close()


def test_a_batch_is_taken_from_the_innermost_gap_alone(tmp_path: Path):
    lake = lake_in(tmp_path)
    lake.drop(Dropped(HOST, "file", 5, 8, 26, "spool-full", START))
    lake.drop(Dropped(HOST, "file", 1, 12, 78, "spool-full", START))
    assert lost(lake) == 78
    lake.put(BatchKey(HOST, "file", 5), batch_of([b"x"] * 5), headers_of(5))
    lake.flush()
    assert lost(lake) == 73
    lake.close()
