"""What goes goes whole, is told, and never comes back; what stays is as it was.
Counterpart: vedette.store.lake.retention and settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tests.store.lake.test_lake import HOST, batch_of, headers_of

from vedette.app.counters import Counters
from vedette.model.clock import DAY, HOUR
from vedette.model.errors import StateError
from vedette.model.shipping import BatchKey
from vedette.store.lake import manifest as m
from vedette.store.lake.lake import Lake
from vedette.store.lake.retention import _Held, chosen
from vedette.store.lake.settings import LakeSettings, StreamRetention
from vedette.store.ledger.leaves import Batches, ErasureKind
from vedette.store.ledger.ledger import Ledger
from vedette.store.ledger.notes import Signer
from vedette.testing.clock import FakeClock

AGES = (
    StreamRetention(streams=("audit",), age="10d"),
    StreamRetention(streams=("*",), age="2d"),
)


def filled(folder: Path, clock: FakeClock, counter: Counters) -> Lake:
    """A file an hour, four hours; in each a batch of `audit`, of `file`, and of the security lane of `file`."""
    lake = Lake(folder, clock=clock, counter=counter)
    for number in range(1, 5):
        for stream in ("audit", "file", "file#security"):
            text = f"{stream} {number}".encode()
            lake.put(BatchKey(HOST, stream, number), batch_of([text, b"more"]), headers_of(2))
        lake.flush()
        clock.advance(HOUR)
    return lake


def there(lake: Lake) -> list[bytes]:
    return [taken.batch.raw(0) for taken in lake.read(0, 100)]


def test_whole_batches_go_by_age_with_a_tombstone_and_never_come_back(tmp_path: Path):
    clock, counter = FakeClock(), Counters()
    lake = filled(tmp_path, clock, counter)
    everything = there(lake)
    assert lake.retain(AGES) == []
    clock.advance(2 * DAY - 2 * HOUR)
    told: list[m.Tombstone] = []

    def erased(_: Any, stones: Sequence[m.Tombstone]) -> None:
        told.extend(stones)

    gone = lake.retain(AGES, erased)
    assert told == gone
    assert [(one.stream, one.first, one.last, one.records, one.reason) for one in gone] == [
        ("file", 1, 1, 2, "age"),
        ("file#security", 1, 1, 2, "age"),
        ("file", 2, 2, 2, "age"),
        ("file#security", 2, 2, 2, "age"),
    ]
    left = [text for text in everything if text.startswith(b"audit") or text[-1:] in b"34"]
    assert there(lake) == left
    assert lake.retain(AGES) == []
    assert not lake.put(BatchKey(HOST, "file", 1), batch_of([b"file 1"]), headers_of(1))
    assert lake.stored_through(HOST, "file") == 4
    clock.advance(20 * DAY)
    gone = lake.retain(AGES)
    assert [(one.stream, one.first, one.last, one.records) for one in gone] == [
        ("audit", 1, 4, 8),
        ("file", 3, 4, 4),
        ("file#security", 3, 4, 4),
    ]
    assert (there(lake), lake.files()) == ([], [])
    clock.advance(HOUR)
    lake.compact()
    assert list(tmp_path.glob("day=*")) == []
    assert counter.value("lake_let_go_batches", "age") == 12
    lake.close()
    lake = Lake(tmp_path, clock=clock, counter=counter)
    with lake._manifest.reading() as connection:
        assert sum(stone.records for stone in m.all_tombstones(connection)) == 24
    assert lake.put(BatchKey(HOST, "file", 5), batch_of([b"next"]), headers_of(1))
    lake.flush()
    assert [taken.sequence for taken in lake.read(0, 9)] == [13]
    lake.close()


def test_what_the_ledger_refuses_does_not_go(tmp_path: Path):
    clock = FakeClock()
    lake = filled(tmp_path, clock, Counters())
    before = there(lake), sorted(tmp_path.glob("day=*/hour=*/*"))
    clock.advance(5 * DAY)

    def refuses(*_: Any) -> None:
        raise StateError("refused")

    with pytest.raises(StateError, match="refused"):
        lake.retain(AGES, refuses)
    assert (there(lake), sorted(tmp_path.glob("day=*/hour=*/*"))) == before
    assert lake.retain(AGES, stop=lambda: True) == []
    assert there(lake) == before[0]
    lake.close()


def test_the_oldest_go_until_the_rest_fits_each_policy_by_itself():
    def held(n: int, stream: int, size: int) -> _Held:
        return _Held(m.File(n, "", n, n, n, 1, 1, size, size, 0, 0, 2), stream, size)

    names = {1: (HOST, "file"), 2: (HOST, "file#security"), 3: (HOST, "audit")}
    policies = (
        StreamRetention(streams=("audit",), age="90d"),
        StreamRetention(streams=("fi*",), age="90d", size="10%"),
    )
    lake = [held(1, 1, 50), held(1, 3, 900), held(2, 2, 50), held(3, 1, 50), held(4, 2, 60)]
    assert chosen(lake, policies, names, 5 * HOUR, 2100) == {}
    assert chosen(lake, policies, names, 5 * HOUR, 2099) == {1: {1: "size"}}
    assert chosen(lake, policies, names, 5 * HOUR, 1100) == {1: {1: "size"}, 2: {2: "size"}}
    assert chosen(lake, policies[:1], names, 5 * HOUR, 10) == {}


def test_settings_say_how_long_and_how_much():
    own, rest = LakeSettings().retention
    assert (own.streams[0], own.age_us(), own.most_bytes(1000)) == ("findings", 400 * DAY, None)
    assert (rest.age_us(), rest.most_bytes(1001)) == (90 * DAY, 500)
    assert StreamRetention(streams=("*",), size="20GB").most_bytes(1) == 20 * 10**9
    for wrong in ({"size": "20"}, {"size": "99%"}, {"size": "0GB"}, {"age": "5m"}, {"streams": ()}):
        with pytest.raises(ValidationError):
            StreamRetention(**{"streams": ("*",), **wrong})


def test_the_ledger_says_what_went_and_still_proves_what_stays(tmp_path: Path):
    clock = FakeClock()
    ledger = Ledger(tmp_path / m.FILE_NAME, Signer.generate("vedette/test"), clock=clock)
    lake = Lake(tmp_path, clock=clock, counter=Counters(), ledger=ledger)
    for stream in ("audit", "file"):
        lake.put(BatchKey(HOST, stream, 1), batch_of([b"one"]), headers_of(1))
    lake.flush()
    clock.advance(5 * DAY)

    def erased(connection: Any, stones: Sequence[m.Tombstone]) -> None:
        what = [Batches(stone.host_id, stone.stream, stone.first, stone.last) for stone in stones]
        ledger.erase(connection, what, kind=ErasureKind.RETENTION, who="retention", why=stones[0].reason)

    assert lake.compact().into == 1
    assert [stone.stream for stone in lake.retain(AGES, erased)] == ["file"]
    with ledger.reading() as connection:
        assert ledger.size(connection) == 3
        assert ledger.spoken_of(connection, BatchKey(HOST, "file", 1)) == [2]
        assert ledger.spoken_of(connection, BatchKey(HOST, "audit", 1)) == []
    assert ledger.inclusion(BatchKey(HOST, "audit", 1)) is not None
    lake.close()
    ledger.close()
