"""The spool against a killed process, a cut of the power and a disk that is really full.
Counterpart: vedette.fleet.spool; tests/fleet/test_spool.py plays the same with files alone."""

from __future__ import annotations

import errno
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.fleet.test_spool import HOST, SMALL, batch, gaps, got, put, read
from tests.scenarios.parts.disk import Disk
from tests.scenarios.parts.processes import run

from vedette.app.counters import Counters
from vedette.fleet.spool import Spool
from vedette.model.reasons import DropReason
from vedette.model.shipping import Lane
from vedette.testing.clock import FakeClock

# Says how far it came once that is settled; reads on where the spool left off as a source would, with some overlap.
WRITER = """
import sys
from pathlib import Path
from tests.fleet.test_spool import HOST, SMALL, batch, Counters, FakeClock, Spool
spool = Spool(Path(sys.argv[1]), HOST, clock=FakeClock(), counter=Counters(), settings=SMALL)
position = max(0, int(sys.argv[2]) - 5)
lost = 0
while True:
    spool.put(batch(position, 3, size=int(sys.argv[3])))
    position += 3
    if spool.settled(10) and spool.lost == lost:
        print(position, flush=True)
    lost = spool.lost
"""


def spool_in(folder: Path, counter: Counters | None = None) -> Spool:
    return Spool(folder, HOST, clock=FakeClock(), counter=counter or Counters(), settings=SMALL)


def writer(folder: Path, position: int, said: Path, size: int = 10) -> subprocess.Popen[bytes]:
    with said.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder), str(position), str(size)],
            stdout=output,
            stderr=subprocess.DEVNULL,
            cwd=Path(__file__).parents[2],
        )


def settled(said: Path) -> int:
    lines = said.read_text().splitlines(keepends=True)
    # What it logs when the disk goes away under it stands there too.
    return max((int(line) for line in lines if line.endswith("\n") and line.strip().isdigit()), default=0)


def wait_for_words(said: Path, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while not settled(said):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.slow
def test_what_was_settled_is_there_once_after_every_kill(tmp_path: Path) -> None:
    chance, position = random.Random(3), 0
    for _ in range(5):
        process = writer(tmp_path / "spool", position, tmp_path / "said")
        try:
            wait_for_words(tmp_path / "said", process)
            time.sleep(chance.uniform(0, 0.2))
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        position = settled(tmp_path / "said")
        folder = tmp_path / "copy"
        shutil.copytree(tmp_path / "spool", folder)
        with closing(spool_in(folder)) as spool:
            positions, numbers = read(spool), [number for _, number, _ in got(spool)]
            assert positions[:position] == list(range(position))
            assert positions == list(range(len(positions)))
            assert numbers == list(range(1, len(numbers) + 1))
            position = len(positions)
        shutil.rmtree(folder)


@pytest.mark.root
@pytest.mark.slow
def test_what_was_settled_is_there_after_every_power_cut(scratch: Path) -> None:
    chance, position = random.Random(5), 0
    disk = Disk(scratch)
    try:
        for _ in range(4):
            process = writer(disk.place / "spool", position, scratch / "said")
            try:
                wait_for_words(scratch / "said", process)
                time.sleep(chance.uniform(0, 0.2))
                disk.cut_between_calls(process.pid)
            finally:
                process.kill()
                process.wait()
            disk.unmount()
            disk.mount()
            position = settled(scratch / "said")
            folder = scratch / "copy"
            shutil.copytree(disk.place / "spool", folder)
            with closing(spool_in(folder)) as spool:
                positions = read(spool)
                assert positions[:position] == list(range(position))
                assert positions == list(range(len(positions)))
                position = len(positions)
            shutil.rmtree(folder)
    finally:
        disk.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", str(place)])
    yield place
    run(["umount", str(place)])


def fill(path: Path) -> None:
    """Until the disk has no room for another page."""
    with path.open("wb", buffering=0) as other:
        full = False
        while not full:
            try:
                other.write(bytes(4096))
            except OSError as error:
                full = error.errno == errno.ENOSPC


@pytest.mark.root
def test_a_full_disk_costs_the_oldest_and_then_what_is_said(small_disk: Path) -> None:
    counter = Counters()
    with closing(spool_in(small_disk / "spool", counter)) as spool:
        # The spool may have more than there is: its own oldest goes, as the disk says.
        for first in range(60):
            put(spool, batch(first, 1, size=50_000))
        numbers = [number for _, number, _ in got(spool, Lane.BULK)]
        said = [number for gap in gaps(spool) for number in range(gap.first, gap.last + 1)]
        assert sorted(numbers + said) == list(range(1, 61))
        assert numbers[-1] == 60
        # Nothing is left to go, and somebody else takes all there is.
        spool.free(HOST, "a", 60)
        fill(small_disk / "other")
        for first in range(60, 100):
            put(spool, batch(first, 1, size=50_000))
        assert spool.lost > 30
        assert counter.value("records_dropped", DropReason.SPOOL_REFUSED) == spool.lost
        (small_disk / "other").unlink()
        put(spool, batch(100, 1))
        numbers = [number for _, number, _ in got(spool, Lane.BULK)]
        said = [number for gap in gaps(spool) for number in range(gap.first, gap.last + 1)]
        assert numbers[-1] == 101
        assert sorted(numbers + said) == list(range(61, 102))
    with closing(spool_in(small_disk / "spool")) as again:
        put(again, batch(101, 1))
        assert got(again)[-1] == ("a", 102, [101])
