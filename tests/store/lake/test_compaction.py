"""Many files become few: nothing changes for whoever reads, also while it happens and where it is cut off.
Counterpart: vedette.store.lake.compaction and rewriting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.store.lake.test_lake import HOST, batch_of, batches, headers_of, same

from vedette.app.counters import Counters
from vedette.model.clock import HOUR, MINUTE, SECOND
from vedette.model.errors import StateError
from vedette.model.shipping import BatchKey
from vedette.store.lake import compaction, files, rewriting
from vedette.store.lake.lake import Lake
from vedette.store.lake.reader import Reader, Scan
from vedette.testing.clock import START, FakeClock


def filled(folder: Path, clock: FakeClock, n: int, step: int = SECOND) -> Lake:
    lake = Lake(folder, clock=clock, counter=Counters())
    for number in range(1, n + 1):
        lake.put(BatchKey(HOST, "file", number), batch_of([b"record %d" % number]), headers_of(1, START + number))
        lake.flush()
        clock.advance(step)
    return lake


def on_disk(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.glob("day=*/hour=*/*.parquet")}


def raws(reader: Reader, after: int = 0) -> list[bytes]:
    return [one.batch.raw(0) for one in reader.read(after, 1000)]


@settings(max_examples=6)
@given(put=st.lists(batches(), min_size=1, max_size=8), cut=st.integers(1, 3), rows=st.integers(1, 9))
def test_compaction_changes_nothing_that_is_read(
    tmp_path_factory: pytest.TempPathFactory, put: Any, cut: int, rows: int
):
    clock = FakeClock()
    folder = tmp_path_factory.mktemp("lake")
    lake = Lake(folder, clock=clock, counter=Counters())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "GROUP_ROWS", rows)
        try:
            for number, (batch, headers) in enumerate(put, 1):
                lake.put(BatchKey(HOST, "file", number), batch, headers)
                if number % cut == 0:
                    lake.flush()
            lake.flush()
            before = lake.read(0, 100)
            scanned = [(part.sequence, part.rows.tolist()) for part in lake.scan(Scan())]
            clock.advance(HOUR)
            assert lake.compact().into == 1
            assert len(lake.files()) == any(len(batch) for batch, _ in put)
            after = lake.read(0, 2) + lake.read(2, 100)
            assert [(one.sequence, one.key) for one in after] == [(one.sequence, one.key) for one in before]
            assert all(same(one.batch, batch) for one, (batch, _) in zip(after, put, strict=True))
            assert [(part.sequence, part.rows.tolist()) for part in lake.scan(Scan())] == scanned
            assert sum(pq.read_metadata(path).num_rows for path in lake.files()) == sum(len(batch) for batch, _ in put)
            assert lake.compact().into == 0
        finally:
            lake.close()


def test_an_hour_is_compacted_in_steps_and_old_files_go_after_a_grace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compaction, "SMALL_FILES", 8)
    clock = FakeClock(START // HOUR * HOUR)
    lake = filled(tmp_path, clock, 8 + 3)
    expected = raws(lake)
    assert (lake.compact().into, len(lake.files())) == (1, 4)
    assert (lake.compact().into, len(on_disk(tmp_path))) == (0, 8 + 4)
    clock.advance(HOUR)
    lake.put(BatchKey(HOST, "file", 1000), batch_of([b"later"]), headers_of(1))
    lake.flush()
    done = lake.compact()
    assert (done.files, done.into, done.deleted, len(lake.files())) == (4, 1, 8, 2)
    assert raws(lake) == [*expected, b"later"]
    clock.advance(11 * MINUTE)
    lake.compact()
    assert len(on_disk(tmp_path)) == 2
    lake.close()
    lake = Lake(tmp_path, clock=clock, counter=Counters())
    assert raws(lake) == [*expected, b"later"]
    lake.close()


def test_an_hour_that_grows_has_several_files():
    def file(n: int, hour: int, tier: int, size: int = 10) -> Any:
        return compaction.m.File(n, "", hour, n, n, 1, 1, size, 1, 0, 0, tier)

    live = [file(n, 5, 0) for n in range(1, 8)]
    assert [[one.id for one in run] for _, run in compaction.jobs(live, 6, 30)] == [[1, 2, 3], [4, 5, 6], [7]]
    assert compaction.jobs(live, 5, 30) == []
    # Only neighbours: a whole file between them stays where it is, and one of its own that was compacted as well.
    live = [file(1, 5, 1), file(2, 5, 2), file(3, 5, 0), file(4, 5, 1), file(5, 6, 0), file(6, 5, 0)]
    assert [[one.id for one in run] for _, run in compaction.jobs(live, 6, 99)] == [[3, 4], [6]]


@pytest.mark.parametrize("newest_first", [False, True])
def test_who_began_to_read_goes_on_also_when_the_files_are_gone(tmp_path: Path, newest_first: bool):
    clock = FakeClock()
    lake = filled(tmp_path, clock, 6)
    reader = Reader(tmp_path)
    found = []
    for part in reader.scan(Scan(newest_first=newest_first)):
        found.append((part.key.number, part.batch.raw(0), part.newest_left >= START + part.key.number))
        if len(found) == 2:
            clock.advance(HOUR)
            lake.put(BatchKey(HOST, "file", 50), batch_of([b"more"]), headers_of(1, START + 50))
            lake.flush()
            assert lake.compact().into == 1
            clock.advance(HOUR)
            assert lake.compact().deleted == 6
    numbers = range(6, 0, -1) if newest_first else range(1, 7)
    assert found == [(number, b"record %d" % number, True) for number in numbers]
    reader.close()
    lake.close()


def test_a_reader_that_comes_too_late_for_a_file_looks_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lake = filled(tmp_path, FakeClock(), 3)
    reader, group, lost = Reader(tmp_path), Reader._group, []

    def gone(self: Reader, *arguments: Any) -> Any:
        if not lost:
            lost.append(True)
            raise FileNotFoundError
        return group(self, *arguments)

    monkeypatch.setattr(Reader, "_group", gone)
    assert len(raws(reader)) == 3
    lost.clear()
    assert sum(len(part.rows) for part in reader.scan(Scan())) == 3
    lost.clear()
    assert sum(len(table) for table in reader.columns(Scan(), ["host"])) == 3
    reader.close()
    lake.close()


def test_what_is_cut_off_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clock = FakeClock()
    lake = filled(tmp_path, clock, 3)
    clock.advance(HOUR)
    before = on_disk(tmp_path), raws(lake)
    assert lake.compact(stop=lambda: True).into == 0
    assert (on_disk(tmp_path), raws(lake)) == before

    def refused(*_: Any) -> None:
        raise StateError("disk full")

    for module, name in ((rewriting.m, "add_file"), (files, "sync_folder")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, refused)
            with pytest.raises(StateError, match="disk full"):
                lake.compact()
        assert (on_disk(tmp_path), raws(lake)) == before
    with lake._manifest.reading() as connection:
        file = rewriting.m.live_files(connection)[0]
        held = rewriting.m.contents(connection, file.id)
    assert held is not None
    old = rewriting.Old(file, held, np.ones(len(held), np.bool_))
    with pytest.raises(StateError, match="replaced by another"):
        rewriting.rewrite(tmp_path, lake._manifest, [old, old], tier=2, now=0)
    assert (on_disk(tmp_path), raws(lake)) == before
    assert lake.compact().into == 1
    assert raws(lake) == before[1]
    lake.close()
