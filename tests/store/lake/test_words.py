"""A filter never leaves out a row group that holds a literal, and leaves out nearly all that do not.
Counterpart: vedette.store.lake.words."""

from __future__ import annotations

import mmap
import re
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.store.lake.test_lake import HOST, batch_of, headers_of

from vedette.app.counters import Counters
from vedette.model.batch import RecordFormat
from vedette.model.clock import HOUR
from vedette.model.shipping import BatchKey
from vedette.store.lake import files, words
from vedette.store.lake.lake import Lake
from vedette.store.lake.reader import Literal, Reader, Scan
from vedette.testing.clock import FakeClock

pieces = st.sampled_from(
    [b"a", b"B", b"7", b".", b" ", b"\n", b"\0", b"\xc3\xa9", b"word", b"Alice", b"10.0.0.9", b"x" * 9]
)
numbers = st.integers(0, 99)
records = st.lists(st.lists(pieces, max_size=12).map(b"".join), min_size=1, max_size=6)


def bounded(record: bytes, start: int, end: int) -> bool:
    before, behind = record[max(start - 1, 0) : start], record[end : end + 1]
    return not re.fullmatch(rb"[A-Za-z0-9]", before) and not re.fullmatch(rb"[A-Za-z0-9]", behind)


@settings(max_examples=100)
@given(
    held=records, which=st.integers(0, 99), start=st.integers(0, 99), size=st.integers(0, 40), piece=st.integers(1, 50)
)
def test_what_is_there_is_never_left_out(held: list[bytes], which: int, start: int, size: int, piece: int):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "_PIECE", piece)
        made = words.build(b"".join(record + b"\n" for record in held))
    record = held[which % len(held)]
    start = start % (len(record) + 1)
    literal = record[start : start + size]
    for spelled in (literal, literal.swapcase(), literal.upper()):
        if spelled.lower() != literal.lower():
            continue  # bytes beyond ASCII
        assert words.may_hold(made, words.keys_of(spelled, whole=False))
        if bounded(record, start, start + len(literal)):
            assert words.may_hold(made, words.keys_of(spelled, whole=True))


def test_what_is_not_there_is_nearly_always_left_out():
    said = b"Nov 24 sshd[%d]: Failed password for user%d from 10.%d.%d.9"
    lines = [said % (n, n, n % 250, n % 77) for n in range(20_000)]
    made = words.build(b"\n".join(lines) + b"\n")
    assert len(made) <= 64 * 1024
    absent = [b"zebra%d" % n for n in range(200)] + [b"192.168.%d.4" % n for n in range(200)]
    found = sum(words.may_hold(made, words.keys_of(text, whole=False)) for text in absent)
    assert found < 20
    # A whole word where its parts are there, and one inside a literal that may go on outside.
    assert words.may_hold(made, words.keys_of(b"user19", whole=True))
    assert sum(words.may_hold(made, words.keys_of(b"ser%d" % n, whole=True)) for n in range(200)) < 90
    assert sum(words.may_hold(made, words.keys_of(b" 10.%d.3" % n, whole=False)) for n in range(300, 400)) < 40


def test_words_are_hashed_alike_wherever_they_stand():
    data = np.frombuffer(b"abc, abcd abc;x-ABC".lower(), np.uint8)
    starts, ends, keys = words._tokens(data)
    first = keys[: len(starts)]
    assert (starts.tolist(), ends.tolist()) == ([0, 5, 10, 14, 16], [3, 9, 13, 15, 19])
    assert first[0] == first[2] == first[4]
    assert len(set(first.tolist())) == 3


def first_version(data: bytes, groups: int) -> bytes:
    """A side file as the first version wrote it, with the filters of this one."""
    sizes = words._of(mapped := memory(data))._sizes  # type: ignore[union-attr]
    body = bytes(mapped[len(mapped) - sum(sizes) :])
    ends = np.cumsum(sizes).tolist()
    filters = [body[end - size : end] for end, size in zip(ends, sizes, strict=True)]
    assert len(filters) == groups
    return msgspec.msgpack.encode([words.NAME, 1, zlib.crc32(body), filters])


def memory(data: bytes) -> mmap.mmap:
    made = mmap.mmap(-1, len(data))
    made.write(data)
    return made


def test_a_literal_that_one_format_alone_writes_is_looked_for_there_alone(tmp_path: Path):
    clock = FakeClock()
    lake = Lake(tmp_path, clock=clock, counter=Counters())
    for number, form in enumerate((RecordFormat.SYSLOG, RecordFormat.AUDIT), 1):
        batch = replace(batch_of([b"proctitle=726D"]), format=form)
        lake.put(BatchKey(HOST, "file", number), batch, headers_of(1))
        lake.flush()
    for _ in range(2):
        scan = Scan(literals=[[Literal(b"absent"), Literal(b"726D", format=RecordFormat.AUDIT)]])
        assert [part.key.number for part in lake.scan(scan)] == [2]
        clock.advance(HOUR)
    lake.close()


def test_a_search_skips_what_cannot_hold_and_a_side_file_is_never_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(files, "GROUP_ROWS", 10)
    clock = FakeClock()
    lake = Lake(tmp_path, clock=clock, counter=Counters())
    for number in range(1, 9):
        rows = [b"plain record number %d" % row for row in range(9)] + [b"rare-word%d" % number]
        lake.put(BatchKey(HOST, "file", number), batch_of(rows), headers_of(10))
    lake.flush()
    clock.advance(HOUR)
    lake.compact()
    (path,) = lake.files()
    side = files.side_of(path)
    opened: list[int] = []
    group = Reader._group

    def counted(self: Reader, path: str, number: int, *more: Any) -> object:
        opened.append(number)
        return group(self, path, number, *more)

    monkeypatch.setattr(Reader, "_group", counted)

    def found(*literals: bytes) -> tuple[list[int], set[int]]:
        opened.clear()
        scan = Scan(literals=[[Literal(text) for text in literals]])
        return [part.key.number for part in lake.scan(scan)], set(opened)

    assert found(b"RARE-word3") == ([3], {2})
    assert found(b"rare-word3", b"word7") == ([3, 7], {2, 6})
    assert found(b"absent") == ([], set())
    assert found(b"rar") == (list(range(1, 9)), set(range(8)))
    good = side.read_bytes()
    for bad in (
        b"",
        good[:-1],
        good.replace(words.NAME.encode(), b"x" * len(words.NAME)),
        good[:30] + b"x" + good[31:],
    ):
        side.write_bytes(bad)
        assert found(b"rare-word3") == ([3], set(range(8)))
    # Of a filter that is damaged nothing is believed, of the others all.
    side.write_bytes(good[:-9] + bytes(9))
    assert found(b"rare-word3") == ([3], {2, 7})
    side.write_bytes(first_version(good, 8))
    assert found(b"rare-word3") == ([3], {2})
    side.unlink()
    assert found(b"rare-word3") == ([3], set(range(8)))
    # With the data file goes what lies beside it, and alone it is swept.
    lake.close()
    side.with_name("gone.parquet.words").write_bytes(good)
    side.write_bytes(good)
    Lake(tmp_path, clock=clock, counter=Counters()).close()
    assert {one.name for one in path.parent.iterdir() if one.suffix == ".words"} == {side.name}
