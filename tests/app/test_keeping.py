"""From the shelf into the lake and the ledger: what is kept, masked and proven, over a restart and a disk that refuses.
Counterpart: src/vedette/app/keeping.py."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.app.search_parts import EVER

from vedette.app import own
from vedette.app.counters import Counters
from vedette.app.detection import batch_of_lines
from vedette.app.erasing import Eraser
from vedette.app.keeping import NO_SEVERITY, LakeKeeping, header_parser, headers_of
from vedette.app.search import Search
from vedette.config.settings import Settings
from vedette.model.batch import Batch, Origin
from vedette.model.clock import SECOND, SystemClock
from vedette.model.shipping import BatchKey
from vedette.rules.query import parse_query
from vedette.store.lake.reader import Reader
from vedette.testing.clock import FakeClock

HOST = "6f1c9f5e-0000-4000-8000-00000000a9e7"
NAME = "file:/var/log/messages"


def read(*lines: bytes, first: int = 0) -> Batch:
    batch = batch_of_lines(lines, year=2026)
    positions = np.arange(first, first + len(lines), dtype=np.int64)
    return replace(batch, origin=Origin(HOST, NAME), positions=positions, cursor=f"{first + len(lines)}")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate({"data": tmp_path, "shipping": {"masks": {"key": "token=([a-z]+)"}}})


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def keeping(settings: Settings, counters: Counters) -> Iterator[LakeKeeping]:
    made = LakeKeeping(settings, own.Self(HOST, "web1"), clock=SystemClock(), counter=counters)
    yield made
    made.close()


def lines_in(folder: Path) -> list[bytes]:
    with_reader = Reader(folder / "lake")
    try:
        return [one.batch.raw(row) for one in with_reader.read(0, 1 << 20) for row in range(len(one.batch))]
    finally:
        with_reader.close()


def test_headers_are_those_of_the_records():
    batch = read(b"<38>Jan  1 00:00:01 web1 sshd[1]: hello", b"no header at all")
    headers = headers_of(batch, header_parser(Counters()))
    assert headers.severity.tolist() == [6, NO_SEVERITY]
    assert headers.host.value(0) == "web1"
    assert headers.program.value(0) == "sshd"
    assert len(headers.time) == 2


def test_what_was_put_is_in_the_lake_at_the_end_once_and_masked(tmp_path: Path, settings: Settings, counters: Counters):
    for _ in range(2):
        made = LakeKeeping(settings, own.Self(HOST, "web1"), clock=SystemClock(), counter=counters)
        # The second time as after a restart: read again.
        made.shelf.put(read(b"Jan  1 00:00:01 web1 app: token=abc", b"Jan  1 00:00:02 web1 app: two"))
        made.close()
    assert lines_in(tmp_path) == [b"Jan  1 00:00:01 web1 app: token=***", b"Jan  1 00:00:02 web1 app: two"]
    assert counters.value("secrets_masked", "key") > 0


def test_what_is_in_the_lake_is_proven_and_freed_on_the_shelf(keeping: LakeKeeping):
    keeping.shelf.put(read(b"Jan  1 00:00:01 web1 app: one"))
    keeping.close()
    assert keeping.ledger.head().size == 1
    assert keeping.lake.stored_through(HOST, NAME) == 1


def test_a_lake_that_refuses_holds_nothing_up_and_loses_nothing(
    tmp_path: Path, settings: Settings, counters: Counters, monkeypatch: pytest.MonkeyPatch
):
    made = LakeKeeping(settings, own.Self(HOST, "web1"), clock=SystemClock(), counter=counters)
    with monkeypatch.context() as broken:
        broken.setattr(made.lake, "flush", lambda: (_ for _ in ()).throw(OSError(28, "no room")))
        made.shelf.put(read(b"Jan  1 00:00:01 web1 app: one"))
        assert made.shelf.settled(5)
        made.close()
    assert counters.value("lake_refused") > 0
    assert lines_in(tmp_path) == []
    again = LakeKeeping(settings, own.Self(HOST, "web1"), clock=SystemClock(), counter=counters)
    again.close()
    assert lines_in(tmp_path) == [b"Jan  1 00:00:01 web1 app: one"]


def test_while_the_lake_refuses_what_is_read_waits_on_the_disk_and_not_in_memory(
    settings: Settings, counters: Counters, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("vedette.app.keeping.FLUSH_BYTES", 1)
    made = LakeKeeping(settings, own.Self(HOST, "web1"), clock=SystemClock(), counter=counters)
    try:
        with monkeypatch.context() as broken:
            broken.setattr(made.lake, "flush", lambda: (_ for _ in ()).throw(OSError(28, "no room")))
            made.shelf.put(read(b"Jan  1 00:00:01 web1 app: one"))
            assert made.shelf.settled(5)
            refused(made)
            before = made.lake.waiting
            for number in range(1, 4):
                made.shelf.put(read(b"Jan  1 00:00:01 web1 app: more", first=number))
                assert made.shelf.settled(5)
                refused(made)
            assert made.lake.waiting <= max(before, 2000)
    finally:
        made.close()
    assert made.lake.stored_through(HOST, NAME) == 4


def refused(keeping: LakeKeeping) -> None:
    """Have it try, where it does not by itself."""
    with pytest.raises(OSError, match="no room"):
        keeping._take(everything=True)


def test_a_shelf_that_was_lost_gives_no_number_again(tmp_path: Path, settings: Settings, counters: Counters):
    for line in (b"Jan  1 00:00:01 web1 app: one", b"Jan  1 00:00:01 web1 app: two"):
        made = LakeKeeping(settings, own.Self(HOST, "web1"), clock=SystemClock(), counter=counters)
        made.shelf.put(read(line))
        made.close()
        shutil.rmtree(tmp_path / "spool")
    assert lines_in(tmp_path) == [b"Jan  1 00:00:01 web1 app: one", b"Jan  1 00:00:01 web1 app: two"]


def test_what_cannot_be_taken_in_holds_up_nothing_and_is_a_gap(
    keeping: LakeKeeping, counters: Counters, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as broken:
        broken.setattr("vedette.app.keeping.headers_of", lambda *_: (_ for _ in ()).throw(ValueError("hostile")))
        keeping.shelf.put(read(b"Jan  1 00:00:01 web1 app: one"))
        keeping.close()
    assert keeping.lake.stored_through(HOST, NAME) == 1
    assert counters.value("lake_dropped_batches", "defect") == 1


def test_a_clock_that_was_set_back_puts_no_flush_off(settings: Settings, counters: Counters):
    clock = FakeClock()
    made = LakeKeeping(settings, own.Self(HOST, "web1"), clock=clock, counter=counters)
    try:
        made.take_in(BatchKey(HOST, NAME, 1), read(b"Jan  1 00:00:01 web1 app: one"))
        clock.advance(-3600 * SECOND)
        assert made._due() == 0
    finally:
        made.close()


async def test_a_lake_of_one_host_has_nothing_to_run_beside_its_threads(keeping: LakeKeeping):
    assert "keeps" in keeping.words
    await asyncio.wait_for(keeping.run(None), 5)  # type: ignore[arg-type]


def test_what_is_erased_beside_it_is_on_its_shelf_no_more(tmp_path: Path, settings: Settings, counters: Counters):
    made = LakeKeeping(settings, own.Self(HOST, "web1"), clock=SystemClock(), counter=counters)
    try:
        made.shelf.put(read(b"Jan  1 00:00:01 web1 app: mallory", b"Jan  1 00:00:02 web1 app: two"))
        assert made.shelf.settled(30)
        wait_until(lambda: len(lines_in(tmp_path)) == 2 and not list(made.shelf.pending()))
        before = held_back(tmp_path)
        assert before
        eraser = Eraser(tmp_path, SystemClock())
        try:
            with eraser.alone():
                query = Search(eraser.lake, parse_query("mallory"), since=-EVER, until=EVER, counter=counters)
                assert eraser.carry_out(eraser.choose(query), who="alice", why="ticket 17").records == 1
        finally:
            eraser.close()
        made._tidying.look_for_erasures()
        wait_until(lambda: not before & held_back(tmp_path))
        made.shelf.put(read(b"Jan  1 00:00:03 web1 app: three", first=2))
        assert made.shelf.settled(30)
    finally:
        made.close()
    assert lines_in(tmp_path) == [b"Jan  1 00:00:02 web1 app: two", b"Jan  1 00:00:03 web1 app: three"]


def held_back(folder: Path) -> set[Path]:
    """The files of the shelf in which something is."""
    return {path for path in (folder / "spool").glob("bulk/*") if path.is_file()}


def wait_until(holds: Callable[[], bool]) -> None:
    for _ in range(3000):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError("it never came to that")
