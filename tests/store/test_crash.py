"""What is left after a kill -9 and on a full disk: everything committed, nothing half.
Counterpart: vedette.store.state."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vedette.model.errors import StateError
from vedette.store.state import State

# Writes transactions of several parts for ever and says the number of each after its commit.
WRITER = """
import sys
from pathlib import Path
from vedette.model.alerts import Alert
from vedette.model.levels import Level
from vedette.model.rules import RuleKind
from vedette.store.state import State

store = State(Path(sys.argv[1]))
number = int(store.cursors().get("file", "0"))
while True:
    number += 1
    with store.transaction() as tx:
        tx.save_cursor("file", str(number))
        for part in range(5):
            name = f"{number}-{part}"
            tx.save_alert(Alert(name, name, "rule", "name", Level.HIGH, RuleKind.EVENT, {"filler": "x" * 500}))
        tx.save_correlation({("rule", "key"): str(number).encode()})
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
"""


def test_a_kill_in_the_middle_loses_nothing_committed_and_keeps_nothing_half(tmp_path: Path):
    path = tmp_path / "state.db"
    for after in (2, 9):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        said = [int(writer.stdout.readline()) for _ in range(after)]
        writer.send_signal(signal.SIGKILL)
        said += [int(line) for line in writer.stdout.read().splitlines()]
        writer.stdout.close()
        writer.wait()
        store = State(path)
        try:
            committed = int(store.cursors()["file"])
            # The last one may have been committed but not yet said.
            assert committed in (said[-1], said[-1] + 1)
            numbers = sorted(int(alert.id.split("-")[0]) for alert in store.alerts(limit=100_000))
            assert numbers == [number for number in range(1, committed + 1) for _ in range(5)]
            assert list(store.correlation()) == [("rule", "key", str(committed).encode())]
        finally:
            store.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def fill(disk: Path) -> Path:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:
            return filler
    raise AssertionError("the disk never filled")


def write_much(store: State) -> None:
    with store.transaction() as tx:
        tx.save_cursor("file", "during")
        tx.save_correlation({("rule", str(n)): b"x" * 4000 for n in range(50)})


@pytest.mark.root
def test_a_full_disk_refuses_whole_transactions_and_later_ones_work_again(small_disk: Path):
    store = State(small_disk / "state.db")
    try:
        with store.transaction() as tx:
            tx.save_cursor("file", "before")
        filler = fill(small_disk)
        for _ in range(3):
            with pytest.raises(StateError, match=r"full.*hint: make room"):
                write_much(store)
            assert store.cursors() == {"file": "before"}
            assert list(store.correlation()) == []
        os.unlink(filler)
        with store.transaction() as tx:
            tx.save_cursor("file", "after")
        assert store.cursors() == {"file": "after"}
    finally:
        store.close()
    again = State(small_disk / "state.db")
    try:
        assert again.cursors() == {"file": "after"}
    finally:
        again.close()


@pytest.mark.root
def test_a_full_disk_at_the_start_is_said_and_leaves_no_half_schema(small_disk: Path):
    filler = fill(small_disk)
    with pytest.raises(StateError, match=r"state\.db"):
        State(small_disk / "state.db")
    os.unlink(filler)
    store = State(small_disk / "state.db")
    try:
        assert store.alerts() == []
    finally:
        store.close()


@pytest.mark.root
def test_a_read_only_file_system_is_said_and_writing_works_again_after_it(small_disk: Path):
    store = State(small_disk / "state.db")
    store.close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StateError, match="hint"):
        State(small_disk / "state.db")
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    store = State(small_disk / "state.db")
    try:
        with store.transaction() as tx:
            tx.save_cursor("file", "1")
        assert store.cursors() == {"file": "1"}
    finally:
        store.close()
