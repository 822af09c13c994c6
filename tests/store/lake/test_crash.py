"""A lake killed at any moment of putting, compacting and letting go: what was said to be safe is there, once.
Counterpart: vedette.store.lake."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.store.lake.test_lake import HOST

from vedette.app.counters import Counters
from vedette.model.clock import DAY, MINUTE
from vedette.store.lake import files
from vedette.store.lake import manifest as m
from vedette.store.lake.lake import Lake
from vedette.store.lake.reader import Literal, Scan
from vedette.testing.clock import START, FakeClock

# Puts and flushes for ever, an hour in six steps, and says what is safe; another thread compacts and lets go.
WRITER = """
import sys, threading
from pathlib import Path
from tests.store.lake.test_lake import HOST, batch_of, headers_of
from vedette.app.counters import Counters
from vedette.model.clock import MINUTE
from vedette.model.shipping import BatchKey
from vedette.store.lake import files
from vedette.store.lake.lake import Lake
from vedette.store.lake.settings import StreamRetention
from vedette.testing.clock import START, FakeClock

files.GROUP_ROWS = 20
clock = FakeClock()
lake = Lake(Path(sys.argv[1]), clock=clock, counter=Counters())
number = lake.stored_through(HOST, "kept")
clock.set(START + number * 10 * MINUTE)

def tidy():
    while True:
        lake.compact()
        lake.retain([StreamRetention(streams=("short",), age="1h")])

threading.Thread(target=tidy, daemon=True).start()
while True:
    number += 1
    for stream in ("kept", "short"):
        text = f"{stream} batch{number}x".encode()
        lake.put(BatchKey(HOST, stream, number), batch_of([text] * 7), headers_of(7))
    for key in lake.flush():
        print(key.stream, key.number)
    sys.stdout.flush()
    clock.advance(10 * MINUTE)
"""


def crash(folder: Path, lines: int, wait: float) -> set[tuple[str, int]]:
    """What the writer said until it was killed, so many lines and seconds after it began."""
    project = Path(__file__).parents[3]
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True, cwd=project
    )
    assert writer.stdout is not None
    said: list[str] = []
    try:
        said += [writer.stdout.readline() for _ in range(lines)]
        time.sleep(wait)
    finally:
        writer.send_signal(signal.SIGKILL)
        said += writer.stdout.readlines()
        writer.stdout.close()
        writer.wait()
    whole = [line.split() for line in said if line.endswith("\n")]
    assert len(whole) >= lines
    return {(stream, int(number)) for stream, number in whole}


def look(folder: Path, said: set[tuple[str, int]], looks: int = 0) -> int:
    """Everything that was said is there or was let go, and nothing twice; how many batches are there."""
    clock = FakeClock()
    lake = Lake(folder, clock=clock, counter=Counters())
    try:
        taken = lake.read(0, 1_000_000)
        found = [(one.key.stream, one.key.number) for one in taken]
        assert len(set(found)) == len(found)
        assert [one.sequence for one in taken] == sorted(one.sequence for one in taken)
        assert all(one.batch.raw(6) == f"{one.key.stream} batch{one.key.number}x".encode() for one in taken)
        with lake._manifest.reading() as connection:
            stones, listed = m.all_tombstones(connection), m.all_paths(connection)
        gone = [("short", number) for stone in stones for number in range(stone.first, stone.last + 1)]
        assert {stone.stream for stone in stones} <= {"short"}
        assert len(set(gone)) == len(gone)
        assert not set(gone) & set(found)
        through = lake.stored_through(HOST, "kept")
        everything = {(stream, number) for stream in ("kept", "short") for number in range(1, through + 1)}
        assert set(found) | set(gone) == everything
        assert said <= everything
        assert sorted((part.key.stream, part.key.number) for part in lake.scan(Scan())) == sorted(found)
        (part,) = lake.scan(Scan(literals=[[Literal(b"batch1x")]], streams=frozenset({"kept"})))
        assert (part.key.number, len(part.rows)) == (1, 7)
        on_disk = {str(path.relative_to(folder)) for path in folder.glob("day=*/hour=*/*")}
        assert {path.removesuffix(files.SIDE) for path in on_disk} <= listed
        assert {str(path.relative_to(folder)) for path in lake.files()} <= on_disk
        # In the end there is one file an hour, and nothing else; two where an hour went on after it was looked at.
        clock.set(START + through * 10 * MINUTE + DAY)
        lake.compact()
        clock.advance(DAY)
        lake.compact()
        assert [one.key for one in lake.read(0, 1_000_000)] == [one.key for one in taken]
        left = set(folder.glob("day=*/hour=*/*.parquet"))
        assert left == set(lake.files())
        assert 0 <= len(left) - -(-through // 6) <= looks
        return len(found)
    finally:
        lake.close()


def test_a_kill_in_the_middle_loses_nothing_and_leaves_nothing(tmp_path: Path):
    said = crash(tmp_path, 36, 0.05)
    assert look(tmp_path, said)


@pytest.mark.slow
def test_kills_at_many_moments_lose_nothing_and_leave_nothing(tmp_path: Path):
    moments = random.Random(5)
    said: set[tuple[str, int]] = set()
    for looks in range(8):
        said |= crash(tmp_path, moments.randint(2, 60), moments.random() / 3)
        look(tmp_path, said, looks)
