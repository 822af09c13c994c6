"""The spool keeps what was put, in order and once, over crashes, full disks and damage; what goes is said.
Counterpart: vedette.fleet.spool, vedette.fleet.spool_reading, vedette.fleet.segments."""

from __future__ import annotations

import errno
import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.app.counters import Counters
from vedette.fleet import messages
from vedette.fleet.gaps import merged
from vedette.fleet.segments import START
from vedette.fleet.settings import SpoolSettings
from vedette.fleet.spool import Spool
from vedette.model.batch import Batch, Origin
from vedette.model.errors import StateError
from vedette.model.reasons import DropReason
from vedette.model.shipping import Dropped, Lane
from vedette.testing.clock import FakeClock

HOST = "host"
SMALL = SpoolSettings(security=4 << 20, bulk=4 << 20, segment=64 * 1024)


def batch(
    first: int, n: int = 3, *, source: str = "a", generation: str = "0", cursor: str = "c", size: int = 0
) -> Batch:
    filler = random.Random(first).randbytes(size // 2).hex().encode()
    records = [b"%d %s" % (position, filler) for position in range(first, first + n)]
    lengths = np.array([len(record) for record in records], dtype=np.int64)
    starts = np.cumsum(lengths + 1) - lengths - 1
    positions = np.arange(first, first + n, dtype=np.int64)
    block = b"".join(record + b"\n" for record in records)
    return Batch(Origin(HOST, source, generation), 0, block, starts, starts + lengths, positions, 7, cursor=cursor)


@pytest.fixture
def counter() -> Counters:
    return Counters()


Make = Callable[..., Spool]


@pytest.fixture
def make(tmp_path: Path, counter: Counters) -> Iterator[Make]:
    made: list[Spool] = []

    def new(folder: Path = tmp_path / "spool", **more: object) -> Spool:
        given = {"settings": SMALL, **more}
        made.append(Spool(folder, HOST, clock=FakeClock(), counter=counter, **given))  # type: ignore[arg-type]
        return made[-1]

    yield new
    for spool in made:
        spool.close()


def put(spool: Spool, *batches: Batch) -> None:
    for each in batches:
        spool.put(each)
    assert spool.settled(30)


def got(spool: Spool, lane: Lane | None = None) -> list[tuple[str, int, list[int]]]:
    """What waits: (stream, number, positions)."""
    out = []
    for entry in spool.pending(lane):
        if not entry.gap:
            key, back = messages.unpack(entry.packed)
            assert key == entry.key
            out.append((key.stream, key.number, back.positions.tolist()))
    return out


def read(spool: Spool) -> list[int]:
    return [position for _, _, positions in got(spool) for position in positions]


def gaps(spool: Spool) -> list[Dropped]:
    return [messages.unpack_dropped(entry.packed) for entry in spool.pending() if entry.gap]


def crashed(spool: Spool, folder: Path, to: Path) -> Path:
    """The folder as it lies there now, as if the process had been killed."""
    shutil.copytree(folder, to)
    return to


def test_what_was_put_waits_in_order_until_it_is_freed(make: Make) -> None:
    spool = make()
    put(spool, batch(0), batch(3), batch(0, source="b"))
    assert got(spool) == [("a", 1, [0, 1, 2]), ("a", 2, [3, 4, 5]), ("b", 1, [0, 1, 2])]
    spool.free(HOST, "a", 1)
    assert got(spool) == [("a", 2, [3, 4, 5]), ("b", 1, [0, 1, 2])]
    spool.free("another", "a", 2)
    assert len(got(spool)) == 2
    states = spool.states()
    assert (states["a"].number, states["a"].position, states["a"].generation, states["a"].read_at) == (2, 5, "0", 7)


def test_a_listener_hears_of_what_is_new_and_reading_goes_on_behind_a_place(make: Make) -> None:
    spool = make()
    heard: list[int] = []
    spool.listen(lambda: heard.append(1))
    put(spool, batch(0))
    first = spool.read(Lane.BULK, START)
    put(spool, batch(3))
    second = spool.read(Lane.BULK, first[-1].place)
    assert [each.key.number for each in (*first, *second)] == [1, 2]
    assert not spool.read(Lane.BULK, second[-1].place)
    spool.close()
    assert heard


def test_as_much_is_read_as_is_asked_for_and_at_least_one(make: Make) -> None:
    spool = make()
    put(spool, *(batch(first, 1, size=4000) for first in range(6)))
    assert [each.key.number for each in spool.read(Lane.BULK, START, 1)] == [1]
    some = spool.read(Lane.BULK, START, 5000)
    assert [each.key.number for each in some] == [1, 2]
    assert [each.key.number for each in spool.read(Lane.BULK, some[-1].place, 1)] == [3]


@pytest.mark.parametrize("clean", [True, False])
def test_numbers_and_positions_outlive_a_restart(make: Make, tmp_path: Path, counter: Counters, clean: bool) -> None:
    spool = make()
    put(spool, batch(0), batch(3))
    spool.free(HOST, "a", 1)
    if clean:
        spool.close()
    folder = crashed(spool, tmp_path / "spool", tmp_path / "after")
    again = make(folder)
    put(again, batch(4), batch(7), batch(0, generation="1"), batch(0, cursor=""))
    assert got(again)[-4:] == [
        ("a", 3, [6]),
        ("a", 4, [7, 8, 9]),
        ("a", 5, [0, 1, 2]),
        ("a", 6, [0, 1, 2]),
    ]
    assert (got(again)[0][1] == 2) is clean
    assert counter.value("records_read_twice") == 2


def test_numbers_outlive_that_everything_was_freed(make: Make, tmp_path: Path) -> None:
    spool = make()
    for first in range(40):
        put(spool, batch(first, 1, size=16_000))
    spool.free(HOST, "a", 40)
    assert not got(spool)
    assert spool.waiting == 0
    assert len(list((tmp_path / "spool" / "bulk").iterdir())) == 1
    again = make(crashed(spool, tmp_path / "spool", tmp_path / "after"))
    put(again, batch(99, 1))
    assert got(again)[-1] == ("a", 41, [99])


def test_the_oldest_of_a_full_lane_goes_and_is_said(make: Make, counter: Counters) -> None:
    spool = make(
        split=lambda each: [(each.origin.source, Lane.SECURITY if each.origin.source == "s" else Lane.BULK, each)]
    )
    put(spool, batch(0, 2, source="s"))
    for first in range(100):
        put(spool, batch(first * 2, 2, size=120_000))
    kept = [number for stream, number, _ in got(spool) if stream == "a"]
    said = gaps(spool)
    assert got(spool)[0] == ("s", 1, [0, 1])
    assert kept == list(range(kept[0], 101))
    assert kept[0] > 1
    assert [number for gap in said for number in range(gap.first, gap.last + 1)] == list(range(1, kept[0]))
    assert {(gap.stream, gap.reason) for gap in said} == {("a", DropReason.SPOOL_FULL)}
    lost = sum(gap.records for gap in said)
    assert lost == 2 * (kept[0] - 1) == counter.value("records_dropped", DropReason.SPOOL_FULL)
    assert spool.states()["a"].dropped == {"spool-full": lost}
    assert spool.waiting <= SMALL.bulk + SMALL.segment
    spool.free(HOST, "a", kept[0] - 1)
    assert not gaps(spool)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_crash_at_any_byte_keeps_all_that_was_settled(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("crash")
    spool = Spool(folder / "spool", HOST, clock=FakeClock(), counter=Counters(), settings=SMALL)
    position, ends = 0, []
    for n in data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=6)):
        put(spool, batch(position, n, size=data.draw(st.sampled_from([0, 40_000]))))
        position += n
        ends.append((position, sum(each.stat().st_size for each in (folder / "spool" / "bulk").iterdir())))
    shutil.copytree(folder / "spool", folder / "after")
    spool.close()
    newest = max((folder / "after" / "bulk").iterdir())
    before = sum(each.stat().st_size for each in (folder / "after" / "bulk").iterdir()) - newest.stat().st_size
    size = newest.stat().st_size * data.draw(st.integers(0, 1000)) // 1000
    os.truncate(newest, size)
    if data.draw(st.booleans()):
        with newest.open("ab") as file:
            file.write(data.draw(st.binary(max_size=40)))
    settled = max((position for position, end in ends if end <= before + size), default=0)
    again = Spool(folder / "after", HOST, clock=FakeClock(), counter=Counters(), settings=SMALL)
    assert read(again)[:settled] == list(range(settled))
    # Everything is read anew; what is there already is left out.
    put(again, batch(0, position + 2))
    assert read(again) == list(range(position + 2))
    numbers = [number for _, number, _ in got(again)]
    assert numbers == list(range(1, len(numbers) + 1))
    again.close()


class Disk:
    """Refuses to write to files of the spool while `error` is set."""

    def __init__(self, patch: pytest.MonkeyPatch, call: str) -> None:
        self.error = 0
        real = getattr(os, call)

        def refusing(descriptor: int, *rest: object) -> object:
            if self.error and ".spool" in os.readlink(f"/proc/self/fd/{descriptor}"):
                raise OSError(self.error, os.strerror(self.error))
            return real(descriptor, *rest)

        patch.setattr(os, call, refusing)


TINY = SpoolSettings.model_construct(security=512 << 10, bulk=512 << 10, segment=64 << 10)
STEPS = ["put"] * 6 + ["refuse", "free", "beyond", "restart", "crash"]


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_each_number_is_stored_or_waits_or_is_said_to_be_lost(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, counter = tmp_path_factory.mktemp("each") / "0", Counters()
    stored: set[int] = set()
    said: set[int] = set()
    known: set[int] = set()
    rows: dict[int, int] = {}
    position = 0

    def opened() -> Spool:
        return Spool(folder, HOST, clock=FakeClock(), counter=counter, settings=TINY)

    def look() -> set[int]:
        """What waits, by number; every gap counts exactly what was in it."""
        # A number is in no file twice, and gaps are said again in other bounds only.
        waits = [number for _, number, _ in got(spool)]
        assert len(waits) == len(set(waits))
        for gap in gaps(spool):
            numbers = set(range(gap.first, gap.last + 1))
            assert gap.records == sum(rows[number] for number in numbers)
            said.update(numbers)
        assert not set(waits) & said
        assert set(waits) | said | stored == rows.keys()
        assert not said & stored
        lost = sum(rows[number] for number in said)
        reasons = (DropReason.SPOOL_FULL, DropReason.SPOOL_REFUSED)
        assert lost == sum(counter.value("records_dropped", one) for one in reasons)
        return set(waits)

    spool = opened()
    try:
        with pytest.MonkeyPatch.context() as patch:
            disk = Disk(patch, "write")
            for step in data.draw(st.lists(st.sampled_from(STEPS), min_size=5, max_size=40)):
                if step in ("put", "refuse"):
                    disk.error = data.draw(st.sampled_from([errno.ENOSPC, errno.EIO])) if step == "refuse" else 0
                    for _ in range(data.draw(st.integers(1, 4))):
                        n = data.draw(st.integers(1, 3))
                        rows[max(rows, default=0) + 1] = n
                        spool.put(batch(position, n, size=data.draw(st.sampled_from([0, 30_000, 90_000]))))
                        position += n
                        assert spool.settled(30)
                    disk.error = 0
                    # What is owed is said with the next that is put.
                    rows[max(rows) + 1] = 1
                    put(spool, batch(position, 1))
                    position += 1
                elif step == "free" and rows:
                    through = data.draw(st.integers(0, max(rows)))
                    look()
                    spool.free(HOST, "a", through)
                    stored |= {number for number in rows if number <= through} - said
                    known |= {number for number in rows if number <= through}
                elif step == "beyond" and rows:
                    waits = look()
                    chosen = {number for number in waits if data.draw(st.booleans())}
                    spool.free_all(HOST, {}, {"a": [(number, number) for number in sorted(chosen)]})
                    stored |= chosen
                    known |= chosen
                elif step in ("restart", "crash"):
                    look()
                    spool.close() if step == "restart" else None
                    after = crashed(spool, folder, folder.with_name(str(int(folder.name) + 1)))
                    spool.close()
                    folder = after
                    spool = opened()
                    # How far was confirmed is not synced by itself: the hub says it again.
                    spool.free_all(HOST, {}, {"a": [(number, number) for number in sorted(known)]})
                spool.answer({})
                look()
    finally:
        spool.close()


@pytest.mark.parametrize("call", ["write", "fdatasync"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_what_the_disk_refuses_is_said_and_it_works_again(
    make: Make, monkeypatch: pytest.MonkeyPatch, counter: Counters, tmp_path: Path, call: str, error: int
) -> None:
    spool = make()
    put(spool, batch(0))
    disk = Disk(monkeypatch, call)
    disk.error = error
    put(spool, batch(3), batch(6))
    assert spool.lost == 2
    assert counter.value("records_dropped", DropReason.SPOOL_REFUSED) == 6
    disk.error = 0
    put(spool, batch(9))
    assert got(spool) == [("a", 1, [0, 1, 2]), ("a", 4, [9, 10, 11])]
    assert [(gap.first, gap.last, gap.records, gap.reason) for gap in gaps(spool)] == [(2, 3, 6, "spool-refused")]
    again = make(crashed(spool, tmp_path / "spool", tmp_path / "after"))
    assert got(again) == got(spool)
    assert gaps(again) == gaps(spool)


def test_damage_is_said_and_the_rest_is_read(make: Make, tmp_path: Path, counter: Counters) -> None:
    spool = make()
    put(spool, batch(0))
    (path,) = (tmp_path / "spool" / "bulk").iterdir()
    size = path.stat().st_size
    put(spool, batch(3))
    put(spool, batch(6))
    with path.open("r+b") as file:
        file.seek(size + 30)
        file.write(b"\xff\x00\xff")
    assert [number for _, number, _ in got(spool)] == [1, 3]
    put(spool, batch(9))
    assert [number for _, number, _ in got(spool)] == [1, 3, 4]
    assert [(gap.first, gap.last, gap.reason) for gap in gaps(spool)] == [(2, 2, "spool-damaged")]
    assert counter.value("spool_files_damaged") == 1


def test_a_file_taken_away_is_a_gap(make: Make, tmp_path: Path) -> None:
    spool = make()
    for first in range(10):
        put(spool, batch(first, 1, size=40_000))
    min((tmp_path / "spool" / "bulk").iterdir()).unlink()
    left = [number for _, number, _ in got(spool)]
    put(spool, batch(50, 1))
    (gap,) = gaps(spool)
    assert (gap.first, gap.last, gap.records) == (1, left[0] - 1, -1)


def test_a_batch_that_is_too_large_is_cut(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "BLOCK_LIMIT", 40)
    spool = make()
    put(spool, batch(0, 30))
    assert read(spool) == list(range(30))
    assert len(got(spool)) > 1


def test_numbers_go_on_behind_what_the_hub_knows(make: Make, counter: Counters) -> None:
    spool = make()
    spool.free(HOST, "a", 7)
    put(spool, batch(0))
    assert got(spool) == [("a", 8, [0, 1, 2])]
    assert counter.value("spool_numbers_behind") == 1


def test_a_defect_in_a_mask_ships_nothing_and_is_counted(make: Make, counter: Counters) -> None:
    def broken(each: Batch) -> Batch:
        raise ZeroDivisionError

    spool = make(mask=broken)
    put(spool, batch(0))
    assert not got(spool)
    assert counter.value("records_dropped", DropReason.DEFECT) == 3


def test_files_of_a_newer_version_are_refused_and_others_left_alone(
    make: Make, tmp_path: Path, counter: Counters
) -> None:
    folder = tmp_path / "spool" / "bulk"
    folder.mkdir(parents=True)
    (folder / "0000000000000009.spool").write_bytes(b"something else entirely")
    (folder / "zz.spool").write_bytes(b"")
    spool = make()
    put(spool, batch(0))
    assert counter.value("spool_files_unreadable") == 2
    spool.close()
    (folder / "00000000000000ff.spool").write_bytes(b"vedette-spool 2\n")
    with pytest.raises(StateError):
        make()


def test_gaps_that_follow_each_other_become_one() -> None:
    one, two = Dropped(HOST, "a", 1, 2, 5, "x", 1), Dropped(HOST, "a", 3, 3, 1, "x", 2)
    other = Dropped(HOST, "a", 4, 4, 1, "y", 2)
    assert merged([other, two, one]) == [Dropped(HOST, "a", 1, 3, 6, "x", 2), other]


def test_a_spool_that_was_lost_numbers_on_behind_what_the_hub_knows_and_says_so(
    make: Make, tmp_path: Path, counter: Counters
) -> None:
    spool = make(ask=True)
    put(spool, batch(0), batch(0, source="b"))
    # Nothing can be shipped before it is known which numbers were used.
    assert (spool.asks, got(spool), gaps(spool), spool.states()) == (True, [], [], {})
    again = make(crashed(spool, tmp_path / "spool", tmp_path / "after"), ask=True)
    assert again.asks
    heard = threading.Event()
    again.listen(lambda: None if again.asks else heard.set())
    again.answer({"a": 7, "c": 9})
    assert heard.wait(30)
    put(again, batch(3), batch(0, source="c"), batch(0, source="d"))
    (a, b, *more), said = got(again), gaps(again)
    assert a[0] == "a"
    assert a[1] > 1 << 31
    assert more == [("a", a[1] + 1, [3, 4, 5]), ("c", more[1][1], [0, 1, 2]), ("d", 1, [0, 1, 2])]
    assert b == ("b", 1, [0, 1, 2])
    assert [(gap.stream, gap.first, gap.last, gap.records, gap.reason) for gap in said] == [
        ("a", 8, a[1] - 1, -1, "spool-lost"),
        ("c", 10, more[1][1] - 1, -1, "spool-lost"),
    ]
    assert {stream: state.number for stream, state in again.states().items()} == {
        "a": a[1] + 1,
        "b": 1,
        "c": more[1][1],
        "d": 1,
    }
    # It is asked once.
    third = make(crashed(again, tmp_path / "after", tmp_path / "third"), ask=True)
    assert not third.asks
    assert (got(third), gaps(third)) == (got(again), said)
    third.free(HOST, "a", a[1] + 1)
    assert [stream for stream, _, _ in got(third)] == ["b", "c", "d"]
    assert [gap.stream for gap in gaps(third)] == ["c"]
    assert counter.value("spool_lost", "a") == 1


def by_lane(batch: Batch) -> list[tuple[str, Lane, Batch]]:
    name = batch.origin.source
    return [(name, Lane.SECURITY if name.startswith("s") else Lane.BULK, batch)]


@pytest.mark.parametrize("lost", [Lane.BULK, Lane.SECURITY])
def test_a_lane_that_was_lost_alone_numbers_on_far_behind_and_is_said_and_the_other_goes_on(
    make: Make, tmp_path: Path, counter: Counters, lost: Lane
) -> None:
    gone, left = ("b", "s") if lost is Lane.BULK else ("s", "b")
    spool = make(split=by_lane)
    put(spool, batch(0, source=gone), batch(0, source=left))
    spool.free(HOST, gone, 1)
    # Of a file each in the middle, so that what is left knows of the other as it was then.
    put(spool, *(batch(9 + at, 1, source=left, size=40_000) for at in range(3)))
    put(spool, batch(3, source=gone), batch(6, source=gone), batch(0, source=f"{gone}-new"))
    after = crashed(spool, tmp_path / "spool", tmp_path / "after")
    shutil.rmtree(after / lost.value)
    again = make(after, split=by_lane)
    assert not again.asks
    put(again, batch(9, source=gone), batch(20, 1, source=left), batch(7, source=f"{gone}-other"))
    heard = threading.Event()
    again.listen(heard.set)
    # The hub has one that was under way, too.
    again.free_all(HOST, {gone: 2, left: 1, f"{gone}-new": 1})
    again.answer({gone: 2, left: 1, f"{gone}-new": 1})
    assert heard.wait(30)
    put(again, batch(12, source=gone), batch(3, source=f"{gone}-new"))
    numbers = {stream: [n for name, n, _ in got(again) if name == stream] for stream in (gone, f"{gone}-new", left)}
    assert numbers[left] == [2, 3, 4, 5]
    first, second = numbers[gone]
    assert (first > 1 << 32, second) == (True, first + 1)
    (new,) = numbers[f"{gone}-new"]
    said = {(gap.stream, gap.first, gap.last, gap.records, str(gap.reason)) for gap in gaps(again)}
    assert said == {
        (gone, 3, first - 1, -1, "spool-lost"),
        (f"{gone}-new", 2, new - 1, -1, "spool-lost"),
        # Nobody knows whether there was something of it.
        (f"{gone}-other", 1, 1 << 32, -1, "spool-lost"),
    }
    assert counter.value("spool_lanes_lost", lost.value) == 1
    # It is said once, and known from then on.
    third = make(crashed(again, after, tmp_path / "third"), split=by_lane)
    put(third, batch(15, source=gone))
    assert [n for name, n, _ in got(third) if name == gone] == [first, second, second + 1]
    assert {(gap.stream, gap.first, gap.last) for gap in gaps(third)} == {one[:3] for one in said}
    assert counter.value("spool_lanes_lost", lost.value) == 1


def test_a_lane_lost_twice_gives_no_number_twice(make: Make, tmp_path: Path) -> None:
    spool = make(split=by_lane)
    put(spool, batch(0, source="s"), batch(0, source="b"))
    given: list[int] = []
    folder = crashed(spool, tmp_path / "spool", tmp_path / "after")
    for turn in range(1, 4):
        shutil.rmtree(folder / "bulk")
        again = make(folder, split=by_lane)
        # Nothing goes by the lane that is left.
        put(again, batch(9 * turn, source="b"), batch(9 * turn + 3, source="b"), batch(9 * turn, source="b-new"))
        given += [number * 2 + (name == "b") for name, number, _ in got(again) if name != "s"]
        assert len(given) == 3 * turn
        folder = crashed(again, folder, tmp_path / f"after{turn}")
    assert len(set(given)) == len(given)


def test_a_lost_lane_is_remembered_until_the_hub_was_heard(make: Make, tmp_path: Path) -> None:
    spool = make(split=by_lane)
    put(spool, batch(0, source="s"))
    put(spool, batch(0, source="b-new"), batch(3, source="b-new"))
    folder = crashed(spool, tmp_path / "spool", tmp_path / "after")
    shutil.rmtree(folder / "bulk")
    for turn in range(3):
        again = make(folder, split=by_lane)
        put(again, batch(20 + 3 * turn, source="s"), batch(0, source=f"b-{turn}"))
        folder = crashed(again, folder, tmp_path / f"after{turn}")
    # Of this stream nothing is known here, and the hub has 1 and 2 of it.
    again = make(folder, split=by_lane)
    put(again, batch(9, source="b-new"))
    (number,) = [number for name, number, _ in got(again) if name == "b-new"]
    assert number > 1 << 32
    heard = threading.Event()
    again.listen(heard.set)
    again.answer({"b-new": 2, "s": 1})
    assert heard.wait(30)
    # From then on a new stream is one that begins.
    put(again, batch(30, source="s"))
    again.close()
    last = make(folder, split=by_lane)
    put(last, batch(0, source="b-later"))
    assert [number for name, number, _ in got(last) if name == "b-later"] == [1]


def test_a_lane_that_has_had_nothing_is_not_lost(make: Make, tmp_path: Path, counter: Counters) -> None:
    put(make(split=by_lane), batch(0, source="s"))
    again = make(crashed(make(), tmp_path / "spool", tmp_path / "after"), split=by_lane)
    put(again, batch(0, source="b"))
    assert [(stream, number) for stream, number, _ in got(again)] == [("s", 1), ("b", 1)]
    assert not [name for name in ("bulk", "security") if counter.value("spool_lanes_lost", name)]


@pytest.mark.parametrize("read_first", [False, True])
def test_what_comes_after_a_lane_was_deleted_under_it_is_read_and_what_was_in_it_is_said(
    make: Make, tmp_path: Path, read_first: bool
) -> None:
    spool = make()
    put(spool, batch(0), batch(3))
    shutil.rmtree(tmp_path / "spool" / "bulk")
    assert not read_first or got(spool) == []
    put(spool, batch(6))
    put(spool, batch(9))
    assert got(spool) == [("a", 3, [6, 7, 8]), ("a", 4, [9, 10, 11])]
    assert [(gap.first, gap.last, gap.records, gap.reason) for gap in gaps(spool)] == [(1, 2, -1, "spool-damaged")]


def test_files_that_are_turned_over_go_as_soon_as_all_of_them_is_confirmed(make: Make, tmp_path: Path) -> None:
    spool = make(split=lambda one: [(one.origin.source, Lane.SECURITY if one.origin.source == "s" else Lane.BULK, one)])
    folder = tmp_path / "spool"
    put(spool, batch(0, source="a"), batch(0, source="s"))
    before = set(folder.rglob("*.spool")) or set(folder.glob("*/*"))
    spool.free(HOST, "a", 1)
    turned = threading.Event()
    spool.listen(turned.set)
    spool.turn_over()
    assert turned.wait(30)
    # What is confirmed went at once; the other waits, and is read as before.
    assert got(spool) == [("s", 1, [0, 1, 2])]
    left = before & set(folder.glob("*/*"))
    assert [path.parent.name for path in left] == ["security"]
    spool.free(HOST, "s", 1)
    assert not before & set(folder.glob("*/*"))
    # Numbers go on, here and after a start.
    put(spool, batch(3, source="a"))
    assert got(spool) == [("a", 2, [3, 4, 5])]
    spool.close()
    assert got(make(folder)) == [("a", 2, [3, 4, 5])]


def test_files_in_which_nothing_is_are_not_turned_over(make: Make, tmp_path: Path) -> None:
    spool = make()
    turned = threading.Event()
    spool.listen(turned.set)
    for _ in range(3):
        turned.clear()
        spool.turn_over()
        assert turned.wait(30)
    put(spool, batch(0))
    spool.free(HOST, "a", 1)
    for _ in range(3):
        turned.clear()
        spool.turn_over()
        assert turned.wait(30)
    assert len(list((tmp_path / "spool" / "bulk").iterdir())) == 1
