"""The lake is joined and let go of in the background, never by a clock that was just set.
Counterpart: src/vedette/app/tidying.py."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vedette.app.counters import Counters
from vedette.app.detection import batch_of_lines
from vedette.app.keeping import header_parser, headers_of
from vedette.app.tidying import Tidying
from vedette.model.batch import Origin
from vedette.model.clock import DAY, HOUR, SECOND
from vedette.model.shipping import BatchKey
from vedette.store.lake.lake import Lake
from vedette.store.lake.manifest import ErasedRecords, add_erased
from vedette.store.lake.settings import LakeSettings
from vedette.store.ledger.keys import signing_key
from vedette.store.ledger.ledger import Ledger
from vedette.testing.clock import FakeClock

HOST = "6f1c9f5e-0000-4000-8000-00000000a9e7"


class Rig:
    """A lake with one batch, a ledger beside it, and time in hand."""

    def __init__(self, folder: Path) -> None:
        self.clock, self.counters, self.steady = FakeClock(), Counters(), 0.0
        signer = signing_key(folder / "ledger.key", "vedette/test")
        self.ledger = Ledger(folder / "lake" / "manifest.db", signer, clock=self.clock)
        self.lake = Lake(folder / "lake", clock=self.clock, counter=self.counters, ledger=self.ledger)
        batch = batch_of_lines([b"Jan  1 00:00:01 web1 app: one"], year=2026)
        batch = replace(batch, origin=Origin(HOST, "file"), positions=np.array([0]))
        self.lake.put(BatchKey(HOST, "file", 1), batch, headers_of(batch, header_parser(self.counters)))
        self.lake.flush()
        self.lake.compact()
        settings = LakeSettings.model_validate({"retention": [{"streams": ["*"], "age": "90d"}]})
        self.tidying = Tidying(
            self.lake, self.ledger, settings, clock=self.clock, counter=self.counters, steady=lambda: self.steady
        )

    def pass_by(self, time: int) -> None:
        self.clock.advance(time)
        self.steady += time / SECOND

    def close(self) -> None:
        self.tidying.close()
        self.lake.close()
        self.ledger.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def test_what_is_old_is_let_go_and_the_ledger_says_so(rig: Rig):
    rig.pass_by(89 * DAY)
    assert list(rig.tidying.let_go()) == []
    rig.pass_by(3 * DAY)
    assert [(one.stream, one.first, one.last) for one in rig.tidying.let_go()] == [("file", 1, 1)]
    assert rig.ledger.head().size == 2


def test_a_clock_that_jumped_lets_go_of_nothing(rig: Rig):
    rig.clock.advance(1000 * DAY)
    assert list(rig.tidying.let_go()) == []
    assert rig.counters.value("lake_retention_postponed") == 1
    rig.clock.advance(-1000 * DAY)
    assert list(rig.tidying.let_go()) == []
    rig.pass_by(HOUR)
    assert list(rig.tidying.let_go()) == []
    assert rig.counters.value("lake_retention_postponed") == 2


def test_what_fails_is_counted_and_ends_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    rig.tidying.close()
    called = threading.Semaphore(0)

    def fails(stop: Any) -> None:
        called.release()
        raise OSError(28, "no room")

    monkeypatch.setattr(rig.lake, "compact", fails)
    rig.tidying = Tidying(
        rig.lake, rig.ledger, LakeSettings(), clock=rig.clock, counter=rig.counters, steady=lambda: 0.0, every=0.01
    )
    assert called.acquire(timeout=30)
    assert called.acquire(timeout=30)
    assert rig.counters.value("lake_not_tidied", "OSError") >= 1


def test_the_shelf_hears_of_an_erasure_once_and_once_after_a_start(rig: Rig) -> None:
    heard: list[int] = []

    def look(tidying: Tidying) -> int:
        tidying.look_for_erasures()
        return len(heard)

    def start() -> Tidying:
        settings = LakeSettings()
        return Tidying(
            rig.lake, rig.ledger, settings, clock=rig.clock, counter=rig.counters, erased=lambda: heard.append(1)
        )

    first = start()
    try:
        assert look(first) == 0
        with rig.lake._manifest.writing() as connection:
            add_erased(connection, [ErasedRecords(HOST, "file", 1, 2, 3, 4, 5, 1)])
        assert (look(first), look(first)) == (1, 1)
        second = start()
        try:
            assert (look(second), look(second)) == (2, 2)
        finally:
            second.close()
    finally:
        first.close()
