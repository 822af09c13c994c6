"""Each change is told once, by events or by a scan, survives a restart, and waits until somebody accepts it.
Counterpart: vedette.sources.integrity.source, look and known, over real files and inotify."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from vedette.app.counters import Counters
from vedette.model.batch import Batch, Trust
from vedette.model.clock import SystemClock
from vedette.model.integrity import Change, Verdict, Vouching
from vedette.sources.integrity import source as module
from vedette.sources.integrity.baseline import Header
from vedette.sources.integrity.fanotify import Noticed
from vedette.sources.integrity.known import BASELINE, Known, read_told
from vedette.sources.integrity.known import Told as FileTold
from vedette.sources.integrity.settings import IntegritySettings
from vedette.sources.integrity.source import IntegritySource
from vedette.sources.integrity.taking import write_baseline
from vedette.sources.integrity.walk import Walk
from vedette.sources.integrity.watch import InotifyWatch

WITHIN = 30.0


class Told:
    """What a source emitted, and the means to wait for it."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.batches: list[Batch] = []
        self._more = asyncio.Event()

    async def emit(self, batch: Batch) -> None:
        self.batches.append(batch)
        self.records += [orjson.loads(line) for line in batch.block.splitlines()]
        self._more.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN):
            while not holds():
                self._more.clear()
                await self._more.wait()

    def actions(self, top: Path) -> list[tuple[str, str]]:
        return [
            (one["event"]["action"], os.path.relpath(one["file"]["path"], top))
            for one in self.records
            if "path" in one.get("file", {})
        ]


class Silent:
    """Notices nothing, until it is told to."""

    name = "silent"

    def __init__(self) -> None:
        self.fd, self._other = os.pipe()
        self.noticed: list[Noticed] = []
        self.lost = False

    def say(self, noticed: Sequence[Noticed] = (), *, lost: bool = False) -> None:
        self.noticed += noticed
        self.lost = lost
        os.write(self._other, b".")

    def read(self) -> tuple[list[Noticed], bool]:
        os.read(self.fd, 100)
        noticed, self.noticed = self.noticed, []
        lost, self.lost = self.lost, False
        return noticed, lost

    def close(self) -> None:
        os.close(self.fd)
        os.close(self._other)


class Place:
    """A tree and the folder of a source over it."""

    def __init__(self, tmp_path: Path) -> None:
        self.top = tmp_path / "tree"
        self.folder = tmp_path / "integrity"
        self.top.mkdir()
        self.folder.mkdir()
        (self.top / "d").mkdir()
        for name in ("a", "b", "d/c"):
            (self.top / name).write_text(name)
        self.requests: list[dict[str, Any]] = []
        self.cursor = ""
        self.given: dict[str, Any] = {"settle": "10ms", "again": "20ms", "every": "1h"}

    @asynccontextmanager
    async def running(self, watching: Any, voucher: Any = None) -> AsyncIterator[Told]:
        told = Told()

        def requests() -> list[dict[str, Any]]:
            found, self.requests = self.requests, []
            return found

        source = IntegritySource(
            IntegritySettings(trees=(str(self.top),), leave_out=("*.swp",), **self.given),
            Known(self.folder),
            host_id="h",
            clock=SystemClock(),
            counter=Counters(),
            voucher=voucher,
            watching=watching,
            requests=requests,
            cursor=self.cursor,
        )
        task = asyncio.create_task(source.run(told.emit))
        try:
            async with asyncio.timeout(WITHIN):
                await source.begun.wait()
            yield told
            if task.done():
                await task
        finally:
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                pass


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(module, "_COMMITTED", 0.0)
    monkeypatch.setattr(module, "_SAVE_EVERY", 0.02)
    return Place(tmp_path)


async def soon(holds: Callable[[], bool]) -> None:
    """Wait until it holds, of what is on the disk."""
    async with asyncio.timeout(WITHIN):
        while not holds():  # noqa: ASYNC110 (a file sets no event)
            await asyncio.sleep(0.01)


def names(told: Iterable[FileTold]) -> set[bytes]:
    return {one.path.rpartition(b"/")[2] for one in told}


def began(told: Told) -> bool:
    return any(one["event"]["action"] == module.BEGAN for one in told.records)


@pytest.fixture
def silent():
    made = Silent()
    yield made
    made.close()


@pytest.fixture
def inotify(place: Place):
    made = InotifyWatch([os.fsencode(place.top)], lambda path: path.endswith(b".swp"))
    yield made
    made.close()


async def test_changes_are_told_as_they_happen_each_once(place: Place, inotify: InotifyWatch):
    async with place.running(inotify) as told:
        await told.until(lambda: began(told))
        (place.top / "a").write_text("other")
        (place.top / "x.swp").write_text("left out")
        await told.until(lambda: ("file-changed", "a") in told.actions(place.top))
        (place.top / "new").mkdir()
        (place.top / "new" / "inner").write_text("x")
        await told.until(lambda: ("file-added", "new/inner") in told.actions(place.top))
        (place.top / "b").unlink()
        await told.until(lambda: ("file-removed", "b") in told.actions(place.top))
        (place.top / "d").rename(place.top / "e")
        await told.until(lambda: ("file-added", "e/c") in told.actions(place.top))
        await told.until(lambda: ("file-removed", "d/c") in told.actions(place.top))
        actions = told.actions(place.top)
    assert {path for action, path in actions if action != "file-changed"} == {
        *("new", "new/inner", "b", "d", "d/c", "e", "e/c")
    }
    assert sorted({one for one in actions if one[0] != "file-changed"}) == sorted(
        one for one in actions if one[0] != "file-changed"
    )
    assert {path for action, path in actions if action == "file-changed"} <= {"a", "new/inner", "new"}
    assert all(batch.trust is Trust.ATTESTED for batch in told.batches)
    assert [batch.number for batch in told.batches] == list(range(len(told.batches)))


async def test_a_scan_finds_what_no_event_told_and_says_that_events_were_lost(place: Place, silent: Silent):
    async with place.running(silent) as told:
        await told.until(lambda: began(told))
        (place.top / "a").chmod(0o600)
        (place.top / "d" / "n").write_text("new")
        (place.top / "b").rename(place.top / "z")
        silent.say(lost=True)
        await told.until(lambda: len(told.actions(place.top)) >= 4)
        assert any(one["event"]["action"] == module.LOST for one in told.records)
        assert sorted(told.actions(place.top)) == [
            ("file-added", "d/n"),
            ("file-added", "z"),
            ("file-changed", "a"),
            ("file-removed", "b"),
        ]
        silent.say(lost=True)
        lost = 2
        await told.until(lambda: sum(one["event"]["action"] == module.LOST for one in told.records) == lost)
        await asyncio.sleep(0.1)
        assert len(told.actions(place.top)) == 4, "each once"


async def test_what_changed_while_it_was_down_is_told_and_what_was_told_is_not(place: Place):
    first = Silent()
    async with place.running(first) as told:
        await told.until(lambda: began(told))
        (place.top / "a").write_text("other")
        first.say([Noticed(os.fsencode(place.top / "a"), os.getppid())])
        await told.until(lambda: told.actions(place.top) == [("file-changed", "a")])
        await soon(lambda: bool(read_told(place.folder)))
    first.close()
    (place.top / "b").write_text("while it was down")
    second = Silent()
    async with place.running(second) as told:
        await told.until(lambda: bool(told.actions(place.top)))
        assert told.actions(place.top) == [("file-changed", "b")]
    second.close()


async def test_who_did_it_is_told(place: Place, silent: Silent):
    async with place.running(silent) as told:
        await told.until(lambda: began(told))
        (place.top / "a").write_text("other")
        silent.say([Noticed(os.fsencode(place.top / "a"), os.getppid())])
        await told.until(lambda: bool(told.actions(place.top)))
        found = told.records[-1]
    assert found["process"]["pid"] == os.getppid()
    assert found["process"]["command_line"]
    assert found["user"]["id"] == str(os.stat(f"/proc/{os.getppid()}").st_uid)


class Everything:
    """Vouches for what is called `a`, and against `b`."""

    def vouch(self, changes: Sequence[Change]) -> Sequence[Vouching | None]:
        verdicts = {b"a": Verdict.VOUCHED, b"b": Verdict.CONTRADICTED}
        found = [verdicts.get(one.path.rpartition(b"/")[2]) for one in changes]
        return [Vouching("package", one, "p 1.0", "p", "1.0") if one is not None else None for one in found]


async def test_what_is_vouched_for_waits_for_nobody(place: Place, silent: Silent):
    async with place.running(silent, Everything()) as told:
        await told.until(lambda: began(told))
        for name in ("a", "b", "d/c"):
            (place.top / name).write_text("other")
        silent.say([Noticed(os.fsencode(place.top / name)) for name in ("a", "b", "d/c")])
        await told.until(lambda: len(told.actions(place.top)) == 3)
        by_path = {one["file"]["path"].removeprefix(f"{place.top}/"): one for one in told.records if "file" in one}
        assert by_path["a"]["vedette"]["integrity"]["verdict"] == "vouched"
        assert by_path["b"]["vedette"]["integrity"]["verdict"] == "contradicted"
        assert "verdict" not in by_path["d/c"]["vedette"]["integrity"]
        await soon(lambda: bool(read_told(place.folder)))
        assert names(one for one in read_told(place.folder) if not one.settled) == {b"b", b"c"}


async def test_what_is_accepted_is_said_and_becomes_part_of_the_baseline(place: Place, silent: Silent):
    async with place.running(silent) as told:
        await told.until(lambda: began(told))
        (place.top / "a").write_text("other")
        (place.top / "b").write_text("other")
        (place.top / "n").write_text("new")
        silent.say([Noticed(os.fsencode(place.top / name)) for name in ("a", "b", "n")])
        await told.until(lambda: len(told.actions(place.top)) == 3)
        paths = [os.fsencode(place.top / name) for name in ("a", "n")]
        place.requests.append({"paths": paths, "who": "alice", "reason": "CHG-7"})
        await told.until(lambda: sum(one[0] == module.ACCEPTED for one in told.actions(place.top)) == 2)
        found = told.records[-1]
        assert found["vedette"]["integrity"]["accepted_by"] == "alice"
        assert found["event"]["reason"] == "CHG-7"
        await soon(lambda: names(read_told(place.folder)) == {b"b"})
    known = Known(place.folder)
    baseline = known.baseline
    assert baseline is not None
    top = os.fsencode(place.top)
    accepted = baseline.find(top, b"a")
    assert accepted is not None
    assert accepted.numbers[3] == len("other")
    assert baseline.find(top, b"n") is not None
    waiting = baseline.find(top, b"b")
    assert waiting is not None
    assert waiting.numbers[3] == len("b"), "what nobody accepted stays as it was"
    known.close()


async def test_more_than_a_burst_is_counted_and_kept(place: Place, silent: Silent):
    place.given["burst"] = 10
    async with place.running(silent) as told:
        await told.until(lambda: began(told))
        for number in range(30):
            (place.top / f"n{number}").write_text("x")
        silent.say([Noticed(os.fsencode(place.top / f"n{number}")) for number in range(30)])
        await told.until(lambda: any(one["event"]["action"] == module.BURST for one in told.records))
        assert len(told.actions(place.top)) == 10
        assert told.records[-1]["vedette"]["integrity"]["count"] == 30
        await soon(lambda: sum(not one.settled for one in read_told(place.folder)) == 30)


async def test_a_baseline_that_somebody_else_wrote_is_said(place: Place):
    first = Silent()
    async with place.running(first) as told:
        await told.until(lambda: began(told))
    first.close()
    place.cursor = told.batches[-1].cursor
    assert place.cursor
    for other, expected in ((False, 0), (True, 1)):
        if other:
            (place.top / "a").write_text("hidden")
            walk = Walk([os.fsencode(place.top)])
            write_baseline(place.folder / BASELINE, Header(list(walk.trees), [], 0), walk, SystemClock())
        watching = Silent()
        async with place.running(watching) as told:
            (place.top / f"last-{other}").write_text("")
            watching.say([Noticed(os.fsencode(place.top / f"last-{other}"))])
            await told.until(lambda: bool(told.actions(place.top)))
            assert sum(one["event"]["action"] == module.ALTERED for one in told.records) == expected
        watching.close()


async def test_a_baseline_that_was_taken_away_is_said(place: Place):
    first = Silent()
    async with place.running(first) as told:
        await told.until(lambda: began(told))
    first.close()
    place.cursor = told.batches[-1].cursor
    (place.folder / BASELINE).unlink()
    (place.top / "a").write_text("hidden")
    second = Silent()
    async with place.running(second) as told:
        await told.until(lambda: began(told))
        actions = [one["event"]["action"] for one in told.records]
    second.close()
    assert actions[:2] == [module.ALTERED, module.BEGAN]


async def test_what_has_a_passing_name_is_told_only_if_it_stays(place: Place, inotify: InotifyWatch):
    place.given |= {"passing": ("*.dpkg-new",), "passing_after": "300ms"}
    async with place.running(inotify) as told:
        await told.until(lambda: began(told))
        (place.top / "gone.dpkg-new").write_text("x")
        (place.top / "stays.dpkg-new").write_text("x")
        (place.top / "first").write_text("x")
        await told.until(lambda: ("file-added", "first") in told.actions(place.top))
        assert told.actions(place.top) == [("file-added", "first")]
        (place.top / "gone.dpkg-new").rename(place.top / "there")
        await told.until(lambda: ("file-added", "stays.dpkg-new") in told.actions(place.top))
        assert [one for one in told.actions(place.top) if "dpkg-new" in one[1]] == [("file-added", "stays.dpkg-new")]
        assert ("file-added", "there") in told.actions(place.top)


async def test_a_scan_tells_what_has_a_passing_name_later_too(place: Place, silent: Silent):
    place.given |= {"passing": ("*.dpkg-new",), "passing_after": "200ms", "every": "50ms"}
    async with place.running(silent) as told:
        await told.until(lambda: began(told))
        (place.top / "stays.dpkg-new").write_text("x")
        (place.top / "first").write_text("x")
        await told.until(lambda: ("file-added", "stays.dpkg-new") in told.actions(place.top))
        assert told.actions(place.top) == [("file-added", "first"), ("file-added", "stays.dpkg-new")]


async def test_what_is_written_again_and_again_under_a_passing_name_is_told_in_the_end(place: Place, inotify: Any):
    place.given |= {"passing": ("*.dpkg-new",), "passing_after": "50ms"}
    async with place.running(inotify) as told:
        await told.until(lambda: began(told))

        async def writes() -> None:
            while True:
                (place.top / "busy.dpkg-new").write_text("x")
                await asyncio.sleep(0.01)

        writing = asyncio.create_task(writes())
        try:
            await told.until(lambda: ("file-added", "busy.dpkg-new") in told.actions(place.top))
        finally:
            writing.cancel()


async def test_a_hub_can_follow_the_baseline_from_each_to_the_next(place: Place):
    """Over a restart, and when it goes on: each is told with the one it was made from."""
    digests: list[str] = []
    for round_ in range(2):
        watching = Silent()
        async with place.running(watching) as told:
            await told.until(lambda: began(told) or module.HELD in {one["event"]["action"] for one in told.records})
            (place.top / "a").write_text(f"changed {round_}")
            watching.say([Noticed(os.fsencode(place.top / "a"))])
            await told.until(lambda: bool(told.actions(place.top)))
            place.requests.append({"paths": None, "who": "ada", "reason": "mine"})
            await told.until(lambda: module.ADVANCED in {one["event"]["action"] for one in told.records})
        watching.close()
        place.cursor = told.batches[-1].cursor
        for one in told.records:
            about = one["vedette"]["integrity"]
            match one["event"]["action"]:
                case module.BEGAN:
                    digests.append(about["digest"])
                case module.HELD:
                    assert about["digest"] == digests[-1]
                case module.ADVANCED:
                    assert about["before"]["digest"] == digests[-1]
                    digests.append(about["digest"])
        held = [one for one in told.records if one["event"]["action"] == module.HELD]
        assert len(held) == round_
    assert len(set(digests)) == 3
