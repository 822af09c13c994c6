"""A walk from the newest is told truly what may still come, and opens no more than it must.
Counterpart: vedette.store.lake.reader."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.store.lake.test_lake import HOST, batch_of

from vedette.app.counters import Counters
from vedette.model.clock import HOUR, SECOND
from vedette.model.events import Column
from vedette.model.shipping import BatchKey, Headers
from vedette.store.lake import files
from vedette.store.lake import manifest as m
from vedette.store.lake.lake import Lake
from vedette.store.lake.reader import Scan
from vedette.testing.clock import START, FakeClock


def put(lake: Lake, number: int, times: list[int]) -> None:
    n = len(times)
    headers = Headers(np.asarray(times, np.int64), Column.absent(n), Column.absent(n), np.full(n, 255, np.uint8))
    lake.put(BatchKey(HOST, "file", number), batch_of([b"%d" % time for time in times]), headers)


times = st.lists(st.integers(0, 50), max_size=4)


@settings(max_examples=8)
@given(flushes=st.lists(st.lists(times, min_size=1, max_size=3), min_size=1, max_size=4), compacted=st.integers(0, 4))
def test_no_later_part_is_newer_than_was_said(tmp_path_factory: pytest.TempPathFactory, flushes: Any, compacted: int):
    clock = FakeClock()
    lake = Lake(tmp_path_factory.mktemp("lake"), clock=clock, counter=Counters())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "GROUP_ROWS", 4)
        try:
            number = 0
            for place, flush in enumerate(flushes):
                if place == compacted:
                    clock.advance(HOUR)
                    lake.compact()
                for one in flush:
                    number += 1
                    put(lake, number, one)
                lake.flush()
            for since, until in ((0, 100), (10, 30)):
                expected = sorted(t for flush in flushes for one in flush for t in one if since <= t < until)
                for newest_first in (False, True):
                    parts = list(lake.scan(Scan(since=since, until=until, newest_first=newest_first)))
                    assert sorted(t for part in parts for t in part.time.tolist()) == expected
                    for place, part in enumerate(parts):
                        assert all(later.time.max() <= part.newest_left for later in parts[place + 1 :])
                    if not newest_first:
                        assert [part.sequence for part in parts] == sorted(part.sequence for part in parts)
        finally:
            lake.close()


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_walk_that_ends_early_opens_little(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, newest_first: bool):
    lake = Lake(tmp_path, clock=FakeClock(), counter=Counters())
    for number in range(1, 11):
        put(lake, number, [START + number * SECOND])
        lake.flush()
    looked: list[int] = []
    contents = m.contents

    def counted(connection: Any, file_id: int) -> Any:
        looked.append(file_id)
        return contents(connection, file_id)

    monkeypatch.setattr(m, "contents", counted)
    walk = lake.scan(Scan(newest_first=newest_first))
    assert next(walk).key.number == (10 if newest_first else 1)
    assert len(looked) <= 2
    rest = [part.key.number for part in walk]
    assert rest == (list(range(9, 0, -1)) if newest_first else list(range(2, 11)))
    lake.close()
