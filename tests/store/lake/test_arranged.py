"""Rows that were arranged come back in ingest order with every position, also of files an older version wrote.
Counterpart: vedette.store.lake.arranged."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.store.lake.test_lake import HOST, batch_of, headers_of

from vedette.app.counters import Counters
from vedette.model.clock import HOUR
from vedette.model.errors import StateError
from vedette.model.events import Column
from vedette.model.shipping import BatchKey, Headers
from vedette.store.lake import contents
from vedette.store.lake.arranged import arranged, read_group
from vedette.store.lake.columns import SCHEMA, contents_of, rows_of, table_of
from vedette.store.lake.lake import Lake
from vedette.testing.clock import FakeClock

record = st.sampled_from([b"", b"a", b"bb", b"ccc ccc"])
step = st.sampled_from(["bytes", "count", "same", "back", "far"])
batches = st.lists(
    st.tuples(st.sampled_from(["bytes", "count", "mixed"]), st.lists(st.tuples(record, step), min_size=1, max_size=7)),
    min_size=1,
    max_size=5,
)
PROGRAMS, HOSTS = ["sshd", "cron", ""], ["web", "db"]


def positions(rows: list[tuple[bytes, str]], kind: str) -> list[int]:
    found = [100]
    for text, way in rows[:-1]:
        way = way if kind == "mixed" else kind
        steps = {"bytes": len(text) + 1, "count": 1, "same": 0, "back": -7, "far": 1000}
        found.append(found[-1] + steps[way])
    return found


def table_with(parts: list[tuple[str, list[tuple[bytes, str]]]], dice: int) -> pa.Table:
    draw = np.random.default_rng(dice)
    rows = []
    for number, (kind, held) in enumerate(parts, 1):
        batch = batch_of([text for text, _ in held])
        batch = replace(batch, positions=np.asarray(positions(held, kind), np.int64))
        n = len(held)
        headers = headers_of(n)
        headers = Headers(
            headers.time,
            Column(draw.integers(-1, 2, n).astype(np.int32), HOSTS),
            Column(draw.integers(-1, 3, n).astype(np.int32), PROGRAMS),
            headers.severity,
        )
        rows.append(rows_of(BatchKey(HOST, "file", number), batch, headers))
    return table_of(rows, 7, 40).combine_chunks()


@settings(max_examples=200, deadline=None)
@given(parts=batches, dice=st.integers(0, 9))
def test_what_was_arranged_comes_back_as_it_was(parts: list[tuple[str, list[tuple[bytes, str]]]], dice: int):
    table = table_with(parts, dice)
    sink = pa.BufferOutputStream()
    pq.write_table(arranged(table), sink)
    with pq.ParquetFile(pa.BufferReader(sink.getvalue())) as file:
        assert read_group(file, 0).to_pylist() == table.to_pylist()
        position = table.column("position").to_pylist()
        assert read_group(file, 0, ["position"]).column("position").to_pylist() == position
        sizes = np.asarray([len(raw) for raw in table.column("raw").to_pylist()], np.int64)
        assert read_group(file, 0, ["position", "time"], sizes).column("position").to_pylist() == position
        assert read_group(file, 0, ["raw"]).column_names == ["raw"]
        assert read_group(file, 0, ["raw"]).column("raw").to_pylist() == table.column("raw").to_pylist()


@pytest.mark.parametrize(("kind", "told"), [("bytes", 1), ("count", 2)])
def test_positions_that_follow_are_not_told(kind: str, told: int):
    table = arranged(table_with([(kind, [(b"some text", "far")] * 20)] * 3, 1))
    assert len(table) - table.column("position").null_count == 3 * told


def test_lines_of_one_program_and_host_lie_together():
    table = arranged(table_with([("bytes", [(b"x", "far")] * 60)], 1))
    pairs = list(zip(table.column("program").to_pylist(), table.column("host").to_pylist(), strict=True))
    assert len({*pairs}) == 1 + sum(one != other for one, other in pairwise(pairs)) > 4


def test_files_of_an_older_version_are_read_and_compacted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clock = FakeClock()
    lake = Lake(tmp_path, clock=clock, counter=Counters())
    with monkeypatch.context() as patch:
        patch.setattr(contents, "VERSION", 1)
        for number in (1, 2, 3):
            lake.put(BatchKey(HOST, "file", number), batch_of([b"one %d" % number, b"two"]), headers_of(2))
            lake.flush()
    for path in lake.files():
        # As version 1 had them: no `sequence`, and `index` in place of `place`.
        table = pq.read_table(path, partitioning=None)
        rows = pa.array(range(len(table)), pa.int32())
        pq.write_table(table.drop_columns(["sequence", "place"]).append_column("index", rows), path)
    before = lake.read(0, 9)
    assert [taken.batch.raw(0) for taken in before] == [b"one 1", b"one 2", b"one 3"]
    clock.advance(HOUR)
    lake.compact()
    (path,) = lake.files()
    assert pq.read_schema(path).names == SCHEMA.names
    after = lake.read(0, 9)
    assert [(one.sequence, one.batch.positions.tolist()) for one in after] == [
        (one.sequence, one.batch.positions.tolist()) for one in before
    ]
    assert pq.read_table(path, partitioning=None).sort_by([("sequence", "ascending"), ("place", "ascending")]).column(
        "raw"
    ).to_pylist() == [b"one 1", b"two", b"one 2", b"two", b"one 3", b"two"]
    lake.close()


def test_an_older_program_refuses_what_it_would_read_in_another_order():
    rows = rows_of(BatchKey(HOST, "file", 1), batch_of([b"x"]), headers_of(1))
    held = contents_of([rows], [1], 1, 7)
    with pytest.MonkeyPatch.context() as patch:
        written = contents.encode(held)
        patch.setattr(contents, "VERSION", 1)
        with pytest.raises(StateError, match="version 2"):
            contents.decode(written)


@pytest.mark.parametrize(
    "batches",
    [
        # By bytes but for the last one, which stands as many behind the first as there are records.
        [([b"a"] * 4, [100, 102, 104, 103])],
        # Counted, and the next batch begins one byte behind it.
        [([b"12345"] * 3, [100, 101, 102]), ([b"12345"] * 3, [108, 114, 120])],
        [([b"", b""], [5, 6]), ([b""], [7]), ([b"x"] * 3, [8, 9, 10])],
    ],
    ids=["looks-counted", "goes-on", "empty-records"],
)
def test_positions_that_could_be_read_in_two_ways_come_back_as_they_were(batches: list[tuple[list[bytes], list[int]]]):
    rows = []
    for number, (records, told) in enumerate(batches, 1):
        batch = replace(batch_of(records), positions=np.asarray(told, np.int64))
        rows.append(rows_of(BatchKey(HOST, "file", number), batch, headers_of(len(records))))
    sink = pa.BufferOutputStream()
    pq.write_table(arranged(table_of(rows, 7, 1).combine_chunks()), sink)
    with pq.ParquetFile(pa.BufferReader(sink.getvalue())) as file:
        assert read_group(file, 0).column("position").to_pylist() == [one for _, told in batches for one in told]
