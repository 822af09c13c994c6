"""Pipes and plain files as standard input.
Counterpart: src/vedette/sources/stdin.py."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.sources.collecting import Collected, Counts, running

from vedette.model.batch import Trust
from vedette.model.clock import SystemClock
from vedette.model.reasons import DropReason
from vedette.sources import lines
from vedette.sources.settings import StdinSettings
from vedette.sources.stdin import StdinSource


def source(descriptor: int, counts: Counts | None = None, **words: object) -> StdinSource:
    return StdinSource(
        StdinSettings.model_validate(words),
        host_id="h",
        clock=SystemClock(),
        counter=counts or Counts(),
        descriptor=descriptor,
    )


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    try:
        os.close(writing)
    except OSError:
        pass  # the test closed it


async def test_a_pipe_is_read_as_it_comes_and_to_its_end(pipe: tuple[int, int]):
    reading, writing = pipe
    got = Collected()
    task = asyncio.create_task(source(reading).run(got.emit))
    os.write(writing, b"one\r\ntw")
    assert await got.count(1) == [b"one"]
    os.write(writing, b"o\nlast")
    os.close(writing)
    await task
    assert got.records == [b"one", b"two", b"last"]
    assert got.ids == ["h/stdin/0:0", "h/stdin/0:5", "h/stdin/0:9"]
    assert [batch.number for batch in got.batches] == list(range(len(got.batches)))
    assert {batch.cursor for batch in got.batches} == {""}
    assert got.batches[0].trust is Trust.FORGEABLE
    assert {batch.spooled for batch in got.batches} == {True}, "its age says nothing of a clock"


async def test_a_plain_file_is_read_to_its_end(tmp_path: Path):
    path = tmp_path / "in"
    path.write_bytes(b"".join(b"%d\n" % n for n in range(500_000)))
    got = Collected()
    with path.open("rb") as file:
        await source(file.fileno()).run(got.emit)
    assert got.records == [b"%d" % n for n in range(500_000)]


async def test_a_pipe_on_which_nothing_comes_can_be_left(pipe: tuple[int, int]):
    async with running(source(pipe[0])) as got:
        await asyncio.sleep(0.01)
    assert got.batches == []


async def test_held_lines_go_when_nothing_follows(pipe: tuple[int, int]):
    async with running(source(pipe[0], multiline={"flush": "10ms"})) as got:
        os.write(pipe[1], b"a\n b\n")
        assert await got.count(1) == [b"a\n b"]


async def test_records_of_an_audit_event_come_together(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lines, "AUDIT_WAIT", 0.05)
    kinds = [b"type=%s msg=audit(1795132800.005:1): x" % kind for kind in (b"SYSCALL", b"CWD", b"PROCTITLE")]
    other = b"type=LOGIN msg=audit(1795132800.005:2): x"
    async with running(source(pipe[0], format="audit")) as got:
        for kind in kinds:
            os.write(pipe[1], kind + b"\n")
            await asyncio.sleep(0)
        assert await got.count(1) == [b"\n".join(kinds)]
        os.write(pipe[1], other + b"\n")
        assert await got.count(2) == [b"\n".join(kinds), other]


async def test_a_line_too_long_is_counted(pipe: tuple[int, int]):
    counts = Counts()
    async with running(source(pipe[0], counts, max_record=1024)) as got:
        os.write(pipe[1], b"x" * 2000 + b"\ny\n")
        assert await got.count(2) == [b"x" * 1024, b"y"]
    assert counts.seen == {("source_dropped", DropReason.RECORD_TOO_LONG): 1}
    assert got.batches[0].dropped == {"record-too-long": 1}
