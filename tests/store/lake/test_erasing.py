"""Single records leave the lake with every byte of them; the others are as they were, also after a crash.
Counterpart: vedette.store.lake.erasing and alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.store.lake.test_lake import HOST, batch_of, headers_of

from vedette.app.counters import Counters
from vedette.model.clock import DAY, HOUR
from vedette.model.errors import StateError
from vedette.model.events import Column
from vedette.model.shipping import BatchKey, Headers
from vedette.store.lake import files, words
from vedette.store.lake import manifest as m
from vedette.store.lake.alone import alone
from vedette.store.lake.erasing import Cut, Told, erase, names_in
from vedette.store.lake.lake import Lake
from vedette.store.lake.reader import Literal, Scan
from vedette.store.lake.settings import StreamRetention
from vedette.testing.clock import START, FakeClock

NOBODY = [StreamRetention(streams=("*",), age="2d")]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def lake(tmp_path: Path, clock: FakeClock) -> Any:
    made = Lake(tmp_path / "lake", clock=clock, counter=Counters())
    yield made
    made.close()


def fill(lake: Lake, first: int, last: int, person: int = 1) -> None:
    """Batches of three records each; the one in the place `person` is about mallory, from a host of hers."""
    for number in range(first, last + 1):
        raws = [f"batch {number} record {row}".encode() for row in range(3)]
        raws[person] = f"batch {number} mallory wrote this".encode()
        hosts = ["web01", "web01", "web01"]
        hosts[person] = "mallorys-laptop"
        codes = np.asarray([0 if host == "web01" else 1 for host in hosts], np.int32)
        headers = Headers(
            START + np.arange(3, dtype=np.int64) * 1000,
            Column(codes, ["web01", "mallorys-laptop"]),
            Column.absent(3),
            np.full(3, 255, np.uint8),
        )
        lake.put(BatchKey(HOST, "file", number), batch_of(raws), headers)
    lake.flush()


def cut(lake: Lake, now: int, rows: dict[int, list[int]], told: list[list[Cut]] | None = None) -> list[Any]:
    gone: list[Any] = []

    def prepare(cuts: list[Cut]) -> Told:
        if told is not None:
            told.append(cuts)
        return lambda _: None

    chosen = {sequence: np.asarray(which, np.int64) for sequence, which in rows.items()}
    with alone(lake.folder, wait=True):
        erase(lake.folder, lake._manifest, chosen, now, prepare, gone)
    return gone


def there(lake: Lake) -> list[list[bytes]]:
    return [[taken.batch.raw(row) for row in range(len(taken.batch))] for taken in lake.read(0, 100)]


def bytes_of(folder: Path) -> bytes:
    """Everything that the data files hold, unpacked, with dictionaries and statistics."""
    found = []
    for path in folder.glob("day=*/hour=*/*.parquet"):
        found.append(repr(pq.read_table(str(path)).to_pydict()).encode())
        found.append(repr(names_in(path)).encode())
        file = pq.ParquetFile(str(path))
        for group in range(file.metadata.num_row_groups):
            found += [
                repr(file.metadata.row_group(group).column(column).statistics).encode()
                for column in range(file.metadata.num_columns)
            ]
    return b"".join(found)


@pytest.mark.parametrize("compacted", [False, True])
def test_records_go_with_every_byte_and_the_others_stay(lake: Lake, clock: FakeClock, compacted: bool):
    fill(lake, 1, 4)
    if compacted:
        clock.advance(HOUR)
        fill(lake, 5, 5)
        clock.advance(HOUR)
        lake.compact()
    before = there(lake)
    assert b"mallory wrote" in bytes_of(lake.folder)
    told: list[list[Cut]] = []
    rows = {sequence: [1] for sequence in range(1, len(before) + 1)}
    gone = cut(lake, clock.now(), rows, told)
    assert sum(one.records for one in gone) == len(before)
    assert there(lake) == [[raws[0], raws[2]] for raws in before]
    assert b"mallory" not in bytes_of(lake.folder)
    # The files from before are gone at once, not after a time of grace.
    assert sorted(lake.files()) == sorted(lake.folder.glob("day=*/hour=*/*.parquet"))
    for one in [one for cuts in told for one in cuts]:
        assert [one.rest.raw(row) for row in range(len(one.rest))] == [one.batch.raw(0), one.batch.raw(2)]
        assert one.rest.positions.tolist() == one.batch.positions[[0, 2]].tolist()
    with lake._manifest.reading() as connection:
        held = [m.contents(connection, file.id) for file in m.live_files(connection)]
    assert sum(int(one.records.sum()) for one in held if one is not None) == 2 * len(before)
    assert cut(lake, clock.now(), {}, told) == []


def test_a_search_finds_the_others_through_the_new_filter(lake: Lake, clock: FakeClock):
    fill(lake, 1, 2)
    cut(lake, clock.now(), {1: [1]})
    clock.advance(2 * HOUR)
    lake.compact()

    def found(text: bytes) -> int:
        return sum(len(part.rows) for part in lake.scan(Scan(literals=[[Literal(text)]])))

    assert (found(b"mallory"), found(b"record")) == (1, 4)
    cut(lake, clock.now(), {2: [1]})
    (path,) = lake.files()
    loaded = words.load(files.side_of(path), 1)
    assert loaded is not None
    assert not loaded.may_hold(0, words.keys_of(b"mallory", whole=True))
    assert (found(b"mallory"), found(b"record")) == (0, 4)


def test_a_batch_of_which_nothing_stays_stays_as_an_empty_one(lake: Lake, clock: FakeClock):
    fill(lake, 1, 1)
    cut(lake, clock.now(), {1: [0, 1, 2]})
    assert (there(lake), lake.files()) == ([[]], [])
    assert not lake.put(BatchKey(HOST, "file", 1), batch_of([b"again"]), headers_of(1))
    clock.advance(3 * DAY)
    (stone,) = lake.retain(NOBODY)
    assert (stone.first, stone.last, stone.records) == (1, 1, 0)


def test_erasing_waits_for_who_rewrites_and_compaction_passes_by(lake: Lake, clock: FakeClock):
    fill(lake, 1, 2)
    clock.advance(2 * HOUR)
    with alone(lake.folder) as ours:
        assert ours
        assert lake.compact().into == 0
        assert lake.retain(NOBODY) == []
        with alone(lake.folder) as second:
            assert not second
    assert lake.compact().into == 1


def test_a_file_that_is_being_written_beside_is_not_swept(lake: Lake, tmp_path: Path, clock: FakeClock):
    fill(lake, 1, 1)
    unlisted = lake.files()[0].with_name("000000000009-000000000009-0-new.parquet")
    unlisted.write_bytes(b"not listed yet")
    lake.close()
    with alone(tmp_path / "lake"):
        Lake(tmp_path / "lake", clock=clock, counter=Counters()).close()
        assert unlisted.exists()
    Lake(tmp_path / "lake", clock=clock, counter=Counters()).close()
    assert not unlisted.exists()


def test_what_is_refused_or_fails_leaves_all_as_it_was(lake: Lake, clock: FakeClock):
    fill(lake, 1, 2)
    before, listed = there(lake), lake.files()

    def refuse(_: list[Cut]) -> Told:
        raise StateError("no")

    def fail_inside(_: list[Cut]) -> Told:
        def told(_: Any) -> None:
            raise StateError("disk")

        return told

    for prepare in (refuse, fail_inside):
        with pytest.raises(StateError), alone(lake.folder):
            erase(lake.folder, lake._manifest, {1: np.asarray([1])}, clock.now(), prepare, [])
        assert (there(lake), lake.files()) == (before, listed)
        assert sorted(lake.folder.glob("day=*/hour=*/*")) == sorted(listed)


def test_a_lake_of_a_version_without_erasures_is_read(lake: Lake):
    fill(lake, 1, 1)
    with lake._manifest.writing() as connection:
        connection.exec_driver_sql("DROP TABLE erased")
    with lake._manifest.reading() as connection:
        assert m.all_erased(connection, 0, 2**62) == []
