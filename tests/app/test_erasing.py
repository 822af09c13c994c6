"""Erasing beside a lake that is written and compacted, and killed in the middle: all or nothing, file by file.
Counterpart: vedette.app.erasing, store.lake.erasing and alone."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.cli.parts import program
from tests.store.ledger.parts import batch_of

from vedette.app.counters import Counters
from vedette.app.coverage import statement
from vedette.app.erasing import Eraser, become_owner
from vedette.app.host import host_id
from vedette.app.ledger import KEY_FILE, LAKE, MANIFEST, books
from vedette.app.search import Search
from vedette.model.clock import DAY, HOUR, MINUTE
from vedette.model.errors import StateError
from vedette.model.events import Column
from vedette.model.shipping import BatchKey, Headers
from vedette.rules.query import parse_query
from vedette.store.lake.lake import Lake
from vedette.store.lake.rewriting import rewrite
from vedette.store.lake.settings import StreamRetention
from vedette.store.ledger.audit import audit
from vedette.store.ledger.export import write_export
from vedette.store.ledger.keys import signing_key
from vedette.store.ledger.leaves import Batches, ErasureKind
from vedette.store.ledger.ledger import Ledger
from vedette.store.ledger.verdicts import Verdict
from vedette.store.ledger.verify import Trusted, verify
from vedette.testing.clock import START, FakeClock

HOURS, A_HOUR = 3, 4
ALL = HOURS * A_HOUR

# Erases, and stops for ever at the `count`th time it comes to `point`, to be killed there.
CHILD = """
import sys, time
from pathlib import Path
from tests.app.test_erasing import erase_mallory
from vedette.store.lake import erasing, files, rewriting

folder, point, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
left = count

def stopping(name, wrapped, before):
    def run(*args, **more):
        global left
        found = None if before else wrapped(*args, **more)
        if name == point:
            left -= 1
            if left == 0:
                print("there", flush=True)
                time.sleep(1000)
        return wrapped(*args, **more) if before else found
    return run

files.write = stopping("written", files.write, before=False)
rewriting.m.add_file = stopping("swapping", rewriting.m.add_file, before=False)
erasing.rewrite = stopping("swapped", erasing.rewrite, before=False)
erasing.delete_replaced = stopping("deleting", erasing.delete_replaced, before=True)
erase_mallory(folder)
print("done", flush=True)
"""


def headers(n: int, time: int) -> Headers:
    return Headers(np.full(n, time, np.int64), Column.constant(n, "web01"), Column.absent(n), np.full(n, 255, np.uint8))


class World:
    """A data folder with a lake that somebody writes."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        self.folder, self.clock, self.me = folder, FakeClock(), host_id(folder)
        signer = signing_key(folder / KEY_FILE, f"vedette/{self.me}")
        self.key = signer.verifier
        self.ledger = Ledger(folder / LAKE / MANIFEST, signer, clock=self.clock)
        self.lake = Lake(folder / LAKE, clock=self.clock, counter=Counters(), ledger=self.ledger)
        self.number = 0

    def put(self, *raws: bytes, stream: str = "file") -> None:
        self.number += 1
        batch = batch_of(*raws, number=self.number, read_at=self.clock.now())
        self.lake.put(BatchKey(self.me, stream, self.number), batch, headers(len(raws), self.clock.now()))
        self.lake.flush()

    def fill(self) -> None:
        """Hours with batches, one record of each about mallory."""
        for _ in range(HOURS):
            for _ in range(A_HOUR):
                self.put(*self.raws(self.number + 1))
                self.clock.advance(MINUTE)
            self.clock.advance(HOUR - A_HOUR * MINUTE)

    @staticmethod
    def raws(number: int) -> list[bytes]:
        return [b"first of %d" % number, b"mallory was here %d" % number, b"last of %d" % number]

    def there(self) -> list[bytes]:
        return [one.batch.raw(row) for one in self.lake.read(0, 1000) for row in range(len(one.batch))]

    def verdicts(self) -> tuple[set[Verdict], set[Verdict]]:
        """On the hub, and offline with exported files."""
        with books(self.folder, self.clock) as found:
            here = audit(found.ledger, found.key, found.taken())
            out = self.folder.parent / f"export-{self.ledger.head().size}-{len(list(self.folder.parent.iterdir()))}"
            write_export(found.ledger, out, found.key, found.taken())
        there = verify(out, Trusted(key=self.key, complete=True))
        assert here.records == there.records == len(self.there())
        return here.verdicts, there.verdicts

    def close(self) -> None:
        self.lake.close()
        self.ledger.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "data")
    yield made
    made.close()


def erase_mallory(folder: Path, query: str = "mallory") -> int:
    """As `vedette lake erase mallory --yes`; how many records went."""
    eraser = Eraser(folder, FakeClock())
    try:
        with eraser.alone():
            search = Search(
                eraser.lake, parse_query(query), since=-(2**60), until=2**60, counter=Counters(), streams=frozenset()
            )
            done = eraser.carry_out(eraser.choose(search), who="alice", why="ticket 17")
    finally:
        eraser.close()
    assert done.trouble == ""
    return done.records


def test_erasing_beside_the_program_that_writes(world: World):
    world.fill()
    ended = threading.Event()

    def compact() -> None:
        while not ended.is_set():
            world.lake.compact()

    busy = threading.Thread(target=compact)
    busy.start()
    try:
        assert erase_mallory(world.folder) == ALL
        world.put(*world.raws(world.number + 1))
    finally:
        ended.set()
        busy.join()
    mallory = [raw for raw in world.there() if b"mallory" in raw]
    assert mallory == [b"mallory was here %d" % world.number]
    assert len(world.there()) == 2 * ALL + 3
    assert world.verdicts() == ({Verdict.ERASED, Verdict.INTACT},) * 2
    assert erase_mallory(world.folder) == 1
    assert erase_mallory(world.folder) == 0


@pytest.mark.parametrize("compacted", [False, True])
@pytest.mark.parametrize(
    ("point", "count"),
    [
        pytest.param("written", 1, id="the-first-file-written-and-not-listed"),
        pytest.param("swapping", 2, id="in-the-second-transaction"),
        pytest.param("swapped", 2, id="two-files-swapped-the-old-ones-still-there"),
        pytest.param("deleting", 2, id="all-swapped-nothing-deleted"),
    ],
)
def test_killed_in_the_middle(world: World, point: str, count: int, compacted: bool):
    world.fill()
    if compacted:
        world.lake.compact()
    project = Path(__file__).parents[2]
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(world.folder), point, str(count)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=project,
    )
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "there\n"
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    # Nothing is lost, nothing is twice, and what went is told.
    others = [raw for number in range(1, ALL + 1) for raw in world.raws(number) if b"mallory" not in raw]
    assert [raw for raw in world.there() if b"mallory" not in raw] == others
    left = len(world.there()) - len(others)
    went = point in ("swapped", "deleting") or (point == "swapping" and count > 1)
    assert (left < ALL) is went
    wanted = {Verdict.INTACT} | ({Verdict.ERASED} if went else set())
    assert world.verdicts() == (wanted, wanted)
    # The one who writes begins anew, as after a power cut, and the same command goes on.
    world.close()
    again = object.__new__(World)
    again.__dict__.update(world.__dict__)
    again.ledger = Ledger(
        world.folder / LAKE / MANIFEST, signing_key(world.folder / KEY_FILE, world.key.name), clock=world.clock
    )
    again.lake = Lake(world.folder / LAKE, clock=world.clock, counter=Counters(), ledger=again.ledger)
    try:
        assert erase_mallory(world.folder) == left
        assert again.there() == others
        assert again.verdicts() == ({Verdict.ERASED, Verdict.INTACT},) * 2
        on_disk = sorted((world.folder / LAKE).glob("day=*/hour=*/*.parquet"))
        assert on_disk == sorted(again.lake.files())
    finally:
        again.close()


def test_retention_after_erasure_and_erasure_after_retention(world: World):
    world.fill()
    assert erase_mallory(world.folder) == ALL

    def told(connection, stones) -> None:
        what = [Batches(one.host_id, one.stream, one.first, one.last) for one in stones]
        world.ledger.erase(connection, what, kind=ErasureKind.RETENTION, who="retention", why="age")

    world.clock.set(START + DAY + HOUR + MINUTE)
    gone = world.lake.retain([StreamRetention(streams=("*",), age="1d")], told)
    assert [(one.first, one.last, one.records) for one in gone] == [(1, A_HOUR, 2 * A_HOUR)]
    assert world.verdicts() == ({Verdict.ERASED, Verdict.INTACT},) * 2
    assert erase_mallory(world.folder, "last") == ALL - A_HOUR
    assert world.verdicts() == ({Verdict.ERASED, Verdict.INTACT},) * 2


def test_a_search_says_what_was_erased_of_its_time(world: World):
    world.fill()
    whole = statement(world.lake, set(), START, START + DAY, world.clock.now(), hub=world.me, names={world.me: "web01"})
    assert str(whole) == "complete"
    erase_mallory(world.folder)

    def said(since: int, until: int) -> str:
        names = {world.me: "web01"}
        return str(statement(world.lake, set(), since, until, world.clock.now(), hub=world.me, names=names))

    assert said(START, START + DAY) == f"complete but for web01: {ALL} records erased on request, last on 2026-11-24"
    assert said(START, START + 1) == "complete but for web01: 1 record erased on request, last on 2026-11-24"
    assert said(START + 30 * MINUTE, START + 40 * MINUTE) == "complete"


@pytest.mark.parametrize("stream", ["audit", "audit#security"], ids=["of-this-host", "of-an-agent-by-its-urgent-lane"])
def test_what_operators_did_is_never_erased(world: World, stream: str):
    world.put(b"alice ran mallory", stream=stream)
    world.put(b"mallory", b"other", stream="file")
    eraser = Eraser(world.folder, world.clock)
    try:
        with eraser.alone():
            search = Search(eraser.lake, parse_query("mallory"), since=0, until=2**60, counter=Counters())
            chosen = eraser.choose(search)
            assert (chosen.records, chosen.protected) == (1, 1)
            eraser.carry_out(chosen, who="a", why="b")
    finally:
        eraser.close()
    assert world.there() == [b"alice ran mallory", b"other"]


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        pytest.param(KeyboardInterrupt(), "it was interrupted", id="ctrl-c"),
        pytest.param(ValueError("no such page"), "no such page", id="a-damaged-file"),
    ],
)
def test_what_went_before_it_ended_early_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch, raised: BaseException, said: str
):
    world.fill()
    left = 2

    def ending(*args: Any, **more: Any) -> int:
        nonlocal left
        left -= 1
        if left < 0:
            raise raised
        return rewrite(*args, **more)

    monkeypatch.setattr("vedette.store.lake.erasing.rewrite", ending)
    eraser = Eraser(world.folder, world.clock)
    try:
        with eraser.alone():
            search = Search(eraser.lake, parse_query("mallory"), since=0, until=2**60, counter=Counters())
            done = eraser.carry_out(eraser.choose(search), who="a", why="b")
    finally:
        eraser.close()
    assert (done.records, done.trouble) == (2, said)
    assert len(world.there()) == 3 * ALL - 2
    assert world.verdicts() == ({Verdict.ERASED, Verdict.INTACT},) * 2


def test_records_are_named_by_their_id(world: World):
    world.put(b"zero", b"one", b"two")
    (part,) = world.lake.read(0, 1)
    # The batches of these tests say another host than the key does: ids are those of the record.
    ids = [part.batch.origin.record_id(int(at)) for at in part.batch.positions]
    eraser = Eraser(world.folder, world.clock)
    try:
        with pytest.raises(StateError, match="is no record id"):
            eraser.named(["nothing"])
        with pytest.raises(StateError, match=r"no record .* is in the lake"):
            eraser.named([f"{world.me}/file/:77"])
        assert ids[0].count("/") == 2
    finally:
        eraser.close()


def test_a_lake_that_was_tampered_with_is_not_erased_from(world: World):
    world.put(b"mallory", b"other")
    with world.lake._manifest.writing() as connection:
        connection.exec_driver_sql("UPDATE ledger_leaves SET root = zeroblob(32)")
    eraser = Eraser(world.folder, world.clock)
    try:
        with eraser.alone():
            search = Search(eraser.lake, parse_query("mallory"), since=0, until=2**60, counter=Counters())
            done = eraser.carry_out(eraser.choose(search), who="a", why="b")
    finally:
        eraser.close()
    assert done.records == 0
    assert "is not as it was taken in" in done.trouble
    assert world.there() == [b"mallory", b"other"]


@pytest.mark.root
def test_root_erases_as_the_one_whose_lake_it_is():
    """What root wrote the service could not read, and what another owns is no place for root to write to."""
    nobody = 65534
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        Path(place).chmod(0o755)
        world = World(Path(place) / "data")
        world.fill()
        world.close()
        for path in [world.folder, *world.folder.rglob("*")]:
            os.chown(path, nobody, nobody)
        config = Path(place) / "vedette.yml"
        config.write_text(f"version: 1\ndata: {world.folder}\n")
        words = ["lake", "erase", "mallory", "--yes", "--reason", "ticket 17", "--config", config]
        ran = program(*words)
        assert ran.code == 0, ran.err
        assert f"erased: {ALL} records of {ALL} batches" in ran.out
        made = list(world.folder.rglob("*"))
        assert [path for path in made if path.stat().st_uid != nobody] == []
        assert len([path for path in made if path.suffix == ".parquet"]) == ALL


def test_no_lake_to_be_the_owner_of(tmp_path: Path):
    with pytest.raises(StateError, match="no lake in"):
        become_owner(tmp_path)
