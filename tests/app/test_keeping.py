"""From the shelf into the lake and the ledger: what is kept, masked and proven, over a restart and a disk that refuses.
Counterpart: src/vedette/app/keeping.py."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vedette.app import own
from vedette.app.counters import Counters
from vedette.app.detection import batch_of_lines
from vedette.app.keeping import NO_SEVERITY, LakeKeeping, header_parser, headers_of
from vedette.config.settings import Settings
from vedette.model.batch import Batch, Origin
from vedette.model.clock import SystemClock
from vedette.store.lake.reader import Reader

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


async def test_a_lake_of_one_host_has_nothing_to_run_beside_its_threads(keeping: LakeKeeping):
    assert "keeps" in keeping.words
    await asyncio.wait_for(keeping.run(None), 5)  # type: ignore[arg-type]
