"""Real files in a temporary folder: every kind of rotation, restart and damage, each line exactly once.
Counterpart: src/vedette/sources/file.py, follow.py and siblings.py."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from tests.sources.collecting import Collected, Counts, running

from vedette.model.batch import Trust
from vedette.model.clock import SystemClock
from vedette.model.errors import StateError
from vedette.model.reasons import DropReason
from vedette.sources.file import FileSource
from vedette.sources.settings import FileSettings, MultilineSettings

LOST = ("source_dropped", DropReason.TRUNCATED_UNSEEN)
UNREADABLE = ("source_dropped", DropReason.SOURCE_UNREADABLE)


class Log:
    """A log file, its source, and what came out over all runs."""

    def __init__(self, folder: Path, **words: object) -> None:
        self.path = folder / "auth.log"
        self.counts = Counts()
        self.got = Collected()
        self.words = {"begin": "beginning", "rotated_quiet": "50ms", "poll": "50ms"} | words

    def source(self, *paths: str) -> FileSource:
        """As after a restart: begins after the cursors of all batches so far."""
        cursors = {batch.origin.source: batch.cursor for batch in self.got.batches}
        config = FileSettings.model_validate({"paths": paths or (str(self.path),)} | self.words)
        return FileSource(config, host_id="h", clock=SystemClock(), counter=self.counts, cursors=cursors)

    def running(self, *paths: str):
        return running(self.source(*paths), self.got)

    def write(self, text: str) -> None:
        with self.path.open("ab") as file:
            file.write(text.encode())

    def shift(self) -> None:
        """As logrotate does with those rotated earlier: .1 -> .2 and so on."""
        for number in range(30, 0, -1):
            for suffix in ("", ".gz"):
                old = self.path.with_name(f"auth.log.{number}{suffix}")
                if old.exists():
                    old.rename(self.path.with_name(f"auth.log.{number + 1}{suffix}"))

    def rotate(self) -> None:
        self.shift()
        self.path.rename(self.path.with_name("auth.log.1"))
        self.path.touch()

    def copytruncate(self) -> None:
        self.shift()
        shutil.copyfile(self.path, self.path.with_name("auth.log.1"))
        os.truncate(self.path, 0)

    def compress(self, number: int = 1) -> None:
        old = self.path.with_name(f"auth.log.{number}")
        with gzip.open(f"{old}.gz", "wb") as file:
            file.write(old.read_bytes())
        old.unlink()


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


async def test_what_is_there_and_what_comes_later(log: Log):
    log.write("one\ntwo\r\nhal")
    async with log.running() as got:
        assert await got.count(2) == [b"one", b"two"]
        log.write("f\n")
        assert (await got.count(3))[2] == b"half"
    assert [batch.number for batch in got.batches] == list(range(len(got.batches)))
    assert got.ids == [f"h/file:{log.path}/0:{at}" for at in (0, 4, 9)]
    batch = got.batches[0]
    assert batch.trust is Trust.FORGEABLE
    assert batch.header is None
    cursor = json.loads(batch.cursor)
    assert list(cursor)[:2] == ["name", "version"]
    assert cursor["places"][0]["offset"] == 9


async def test_live_begins_at_the_end_but_a_half_line_is_read_whole(log: Log):
    log.words["begin"] = "end"
    log.write("old\nhal")
    async with log.running() as got:
        await asyncio.sleep(0.02)
        log.write("f\nnew\n")
        assert await got.count(2) == [b"half", b"new"]
    assert got.ids[0].endswith(":4")


@pytest.mark.parametrize("rotated", [False, True])
@pytest.mark.parametrize("there", ["", "hal"])
async def test_what_is_written_while_nobody_looked_to_a_file_that_was_empty_is_read(
    log: Log, there: str, rotated: bool
):
    log.words["begin"] = "end"
    log.write(there)
    async with log.running() as got:
        for _ in range(1000):
            if got.batches:
                break
            await asyncio.sleep(0.01)
    assert [len(batch) for batch in got.batches] == [0]
    log.write("one\n")
    if rotated:
        log.rotate()
    log.write("two\n")
    async with log.running() as got:
        assert await got.count(2) == [f"{there}one".encode(), b"two"]


async def test_a_file_that_is_not_there_is_waited_for_and_named_once(log: Log):
    with capture_logs() as said:
        async with log.running() as got:
            await asyncio.sleep(0.15)
            log.write("first\n")
            assert await got.count(1) == [b"first"]
    assert [entry["event"] for entry in said].count("file-missing") == 1


async def test_a_folder_that_is_not_there_is_waited_for(tmp_path: Path):
    log = Log(tmp_path / "later")
    async with log.running() as got:
        await asyncio.sleep(0.02)
        log.path.parent.mkdir()
        log.write("first\n")
        assert await got.count(1) == [b"first"]


async def test_rename_with_a_daemon_that_still_writes_to_the_old_file(log: Log):
    log.write("1\n")
    async with log.running() as got:
        await got.count(1)
        with log.path.open("ab", buffering=0) as daemon:
            log.path.rename(log.path.with_name("auth.log.1"))
            daemon.write(b"2\n")
            await got.count(2)
            log.path.touch()
            daemon.write(b"3\n")
            await got.count(3)
        log.write("4\n")
        assert await got.count(4) == [b"1", b"2", b"3", b"4"]
    assert [batch.origin.generation for batch in got.batches] == ["0", "0", "0", "1"]
    assert not log.counts.seen


async def test_a_half_line_at_the_end_of_a_rotated_file_is_given_out(log: Log):
    log.write("1\nhalf")
    async with log.running() as got:
        await got.count(1)
        log.rotate()
        assert await got.count(2) == [b"1", b"half"]


async def test_copytruncate_reads_the_rest_from_the_copy_and_names_the_window(log: Log):
    log.write("1\n")
    with capture_logs() as said:
        async with log.running() as got:
            await got.count(1)
            # No await between: the source sees neither line 2 nor the copy before it is truncated.
            log.write("2\n")
            log.copytruncate()
            log.write("3\n")
            assert sorted(await got.count(3)) == [b"1", b"2", b"3"]
    assert log.counts.seen[LOST] == 1
    assert [entry["event"] for entry in said] == ["file-truncated-unseen"]
    assert {batch.origin.generation for batch in got.batches} == {"0", "1"}
    assert sum(batch.dropped.get(DropReason.TRUNCATED_UNSEEN, 0) for batch in got.batches) == 1


async def test_truncation_is_noticed_though_the_file_has_grown_past_the_cursor(log: Log):
    log.write("1 before\n")
    async with log.running() as got:
        await got.count(1)
        log.path.write_bytes(b"2 after the truncation, longer\n3\n")
        assert await got.count(3) == [b"1 before", b"2 after the truncation, longer", b"3"]
    assert log.counts.seen[LOST] == 1
    assert got.ids[1:] == [f"h/file:{log.path}/1:0", f"h/file:{log.path}/1:31"]


async def test_copytruncate_of_nothing_but_a_half_line(log: Log):
    log.write("half")
    async with log.running() as got:
        await asyncio.sleep(0.02)
        log.copytruncate()
        log.write("next\n")
        assert sorted(await got.count(2)) == [b"half", b"next"]


async def test_a_last_line_taken_back_and_written_anew(log: Log):
    log.write("1\nhalf")
    async with log.running() as got:
        await got.count(1)
        os.truncate(log.path, 2)
        log.write("whole\n")
        assert await got.count(2) == [b"1", b"whole"]
    assert not log.counts.seen


async def test_deleted_and_made_anew(log: Log):
    log.write("1\n")
    async with log.running() as got:
        await got.count(1)
        log.path.unlink()
        log.write("2\n")
        assert await got.count(2) == [b"1", b"2"]
        log.path.unlink()
        await asyncio.sleep(0.2)
        log.write("3\n")
        assert await got.count(3) == [b"1", b"2", b"3"]
    assert [batch.origin.generation for batch in got.batches] == ["0", "1", "2"]
    assert [batch.number for batch in got.batches] == [0, 1, 2]


async def test_a_copy_put_in_its_place_is_not_read_again(log: Log):
    log.write("".join(f"line {n}\n" for n in range(100)))
    async with log.running() as got:
        await got.count(100)
        copy = log.path.with_name("copy")
        shutil.copyfile(log.path, copy)
        copy.rename(log.path)
        await asyncio.sleep(0.1)
        log.write("more\n")
        assert (await got.count(101))[100:] == [b"more"]
        await asyncio.sleep(0.1)
    assert len(got.records) == 101


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("rotations", [1, 3])
async def test_resume_after_rotations_while_away(log: Log, rotations: int, compressed: bool):
    log.write("0\n1\n")
    async with log.running() as got:
        await got.count(2)
    log.write("2\n")
    for n in range(rotations):
        log.rotate()
        log.write(f"{n + 3}\n")
    if compressed:
        for n in range(1, rotations + 1):
            log.compress(n)
    async with log.running():
        await got.count(rotations + 3)
        await asyncio.sleep(0.1)
    assert got.records == [str(n).encode() for n in range(rotations + 3)]
    assert not log.counts.seen


async def test_resume_after_copytruncate_while_away(log: Log):
    log.write("0\n1\n")
    async with log.running() as got:
        await got.count(2)
    log.write("2\n")
    log.copytruncate()
    log.write("3\n")
    async with log.running():
        assert await got.count(4) == [b"0", b"1", b"2", b"3"]
    assert log.counts.seen[LOST] == 1


async def test_resume_where_the_file_is_gone_for_good_is_named(log: Log):
    log.write("0\n")
    async with log.running() as got:
        await got.count(1)
    log.path.unlink()
    log.write("other\n")
    async with log.running():
        assert (await got.count(2))[1] == b"other"
    assert log.counts.seen[LOST] == 1
    assert got.batches[1].dropped == {DropReason.TRUNCATED_UNSEEN: 1}


async def test_dateext_rotation_is_found_again(log: Log):
    log.write("0\n")
    async with log.running() as got:
        await got.count(1)
    log.write("1\n")
    log.path.rename(log.path.with_name("auth.log-20261124"))
    log.write("2\n")
    log.path.rename(log.path.with_name("auth.log-20261125"))
    log.write("3\n")
    async with log.running():
        assert await got.count(4) == [b"0", b"1", b"2", b"3"]


async def test_a_damaged_archive_is_counted_and_the_rest_is_read(log: Log):
    log.write("".join(f"{os.urandom(20).hex()}\n" for _ in range(2000)))
    async with log.running() as got:
        await got.count(2000)
    log.write("lost\n")
    log.rotate()
    log.compress()
    archive = log.path.with_name("auth.log.1.gz")
    os.truncate(archive, archive.stat().st_size // 2)
    log.write("after\n")
    async with log.running():
        assert (await got.count(2001))[2000:] == [b"after"]
    assert log.counts.seen[UNREADABLE] == 1


async def test_a_hole_after_a_crash_does_not_make_old_lines_new(log: Log):
    log.write("".join(f"line {n}\n" for n in range(100)))
    async with log.running() as got:
        await got.count(100)
    # What was appended last never reached the disk: the size did, the bytes read as NULs.
    with log.path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(size - 200)
        file.write(b"\0" * 300)
        file.write(b"after the crash\n")
    async with log.running():
        await got.count(101)
        await asyncio.sleep(0.1)
    assert got.records[100:] == [b"\0" * 100 + b"after the crash"]


async def test_unreadable_is_counted_once_and_tried_again(log: Log):
    log.path.mkdir()  # root reads everything, but no folder
    with capture_logs() as said:
        async with log.running() as got:
            await asyncio.sleep(0.2)
            assert log.counts.seen == {UNREADABLE: 1}
            log.path.rmdir()
            log.write("now\n")
            assert await got.count(1) == [b"now"]
    assert [entry["event"] for entry in said].count("file-unreadable") == 1


async def test_a_pipe_is_not_read(log: Log):
    os.mkfifo(log.path)
    async with log.running():
        await asyncio.sleep(0.05)
    assert log.counts.seen[UNREADABLE] == 1


async def test_begun_at_the_end_and_ended_before_anything_came_it_goes_on_there(log: Log):
    log.words["begin"] = "end"
    log.write("old\n")
    async with log.running() as got:
        await got.until(lambda got: bool(got.batches))
    assert got.records == []
    log.write("while nobody read\n")
    async with log.running() as got:
        await got.count(1)
    assert got.records == [b"while nobody read"]
    assert [batch.number for batch in got.batches] == [0, 1]


async def test_globs_take_up_new_files_and_leave_rotated_ones(tmp_path: Path):
    log = Log(tmp_path)
    log.words["begin"] = "end"
    log.path.write_text("old\n")
    log.path.with_name("auth.log.1").write_text("older\n")
    (tmp_path / "deep").mkdir()
    async with log.running(f"{tmp_path}/*.log*", f"{tmp_path}/*/*.log") as got:
        await asyncio.sleep(0.02)
        (tmp_path / "new.log").write_text("a\n")
        await got.count(1)
        log.write("b\n")
        await got.count(2)
        (tmp_path / "deep" / "x.log").write_text("c\n")
        await got.count(3)
        (tmp_path / "late").mkdir()
        (tmp_path / "late" / "x.log").write_text("d\n")
        await got.count(4)
        log.rotate()
        log.write("e\n")
        await got.count(5)
        await asyncio.sleep(0.15)
    assert got.records == [b"a", b"b", b"c", b"d", b"e"]
    names = [batch.origin.source.removeprefix(f"file:{tmp_path}/") for batch in got.batches if len(batch)]
    assert names == ["new.log", "auth.log", "deep/x.log", "late/x.log", "auth.log"]


async def test_a_log_renamed_to_a_name_the_glob_matches_is_not_read_twice(tmp_path: Path):
    log = Log(tmp_path)
    log.write("1\n")
    async with log.running(f"{tmp_path}/*.log") as got:
        await got.count(1)
        log.path.rename(tmp_path / "kept.log")
        log.write("2\n")
        await got.count(2)
        await asyncio.sleep(0.2)
    assert got.records == [b"1", b"2"]


async def test_a_link_is_followed_to_where_it_leads(tmp_path: Path):
    log = Log(tmp_path)
    real = tmp_path / "real"
    real.mkdir()
    (real / "0.log").write_text("1\n")
    log.path.symlink_to(real / "0.log")
    async with log.running() as got:
        await got.count(1)
        (real / "1.log").write_text("2\n")
        (tmp_path / "next").symlink_to(real / "1.log")
        (tmp_path / "next").rename(log.path)
        assert await got.count(2) == [b"1", b"2"]


async def test_a_big_backlog_comes_in_chunks_that_end_with_a_line(log: Log):
    lines = [b"%07d " % n + b"x" * 90 for n in range(100_000)]
    log.path.write_bytes(b"\n".join(lines) + b"\n")
    async with log.running() as got:
        assert await got.count(len(lines)) == lines
    assert 2 < len(got.batches) < 8
    positions = np.concatenate([batch.positions for batch in got.batches])
    assert positions.tolist() == [99 * n for n in range(len(lines))]


async def test_what_was_written_while_nobody_looked_is_marked_so_and_what_comes_now_is_not(log: Log):
    """Old times in a backlog are no wrong clock: windows must not take the time of reading for them."""
    log.path.write_bytes(b"".join(b"%07d " % n + b"x" * 90 + b"\n" for n in range(100_000)))
    async with log.running() as got:
        await got.count(100_000)
        assert {batch.spooled for batch in got.batches} == {True}
        await asyncio.sleep(0.05)
        backlog = len(got.batches)
        log.write("now\n")
        await got.count(100_001)
        assert {batch.spooled for batch in got.batches[backlog:]} == {False}


async def test_a_line_too_long_is_counted_in_the_batch(log: Log):
    log.words["max_record"] = 1024
    log.write("x" * 3000 + "\nnext\n")
    async with log.running() as got:
        assert await got.count(2) == [b"x" * 1024, b"next"]
    assert got.batches[0].dropped == {DropReason.RECORD_TOO_LONG: 1}
    assert log.counts.seen == {("source_dropped", DropReason.RECORD_TOO_LONG): 1}


async def test_joined_lines_are_given_out_when_nothing_follows(log: Log):
    log.words["multiline"] = MultilineSettings(flush="20ms")
    async with log.running() as got:
        log.write("Traceback\n at a\n at b\n")
        assert await got.count(1) == [b"Traceback\n at a\n at b"]


async def test_resume_within_a_line_too_long_passes_over_its_rest(log: Log):
    log.words["max_record"] = 1024
    log.write("x" * 3000)
    async with log.running() as got:
        await got.count(1)
    log.write("x" * 500 + "\nnext\n")
    async with log.running():
        assert await got.count(2) == [b"x" * 1024, b"next"]


async def test_back_pressure_reads_nothing_ahead(log: Log):
    log.write("1\n")
    first, gate, second = asyncio.Event(), asyncio.Event(), asyncio.Event()
    seen: list[bytes] = []

    async def emit(batch):
        seen.append(batch.block)
        (second if first.is_set() else first).set()
        await gate.wait()

    task = asyncio.create_task(log.source().run(emit))
    async with asyncio.timeout(5):
        await first.wait()
        for n in range(2, 50):
            log.write(f"{n}\n")
            await asyncio.sleep(0)
        assert len(seen) == 1
        gate.set()
        await second.wait()
    assert seen[1] == b"".join(b"%d\n" % n for n in range(2, 50)), "one batch, grown while the engine was busy"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_every_descriptor_is_given_back(log: Log):
    before = len(os.listdir("/proc/self/fd"))
    log.write("1\n")
    async with log.running() as got:
        await got.count(1)
        log.rotate()
        log.write("2\n")
        await got.count(2)
        assert len(os.listdir("/proc/self/fd")) > before
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    "cursor",
    [
        '{"name":"vedette-file-cursor","version":2,"places":{"anything":1}}',
        '{"name":"vedette-journal-cursor","version":1,"number":0,"generation":0,"places":[]}',
        "not json",
    ],
)
async def test_a_cursor_it_cannot_use_is_refused_with_a_hint(log: Log, cursor: str):
    config = FileSettings(paths=(str(log.path),))
    source = FileSource(
        config, host_id="h", clock=SystemClock(), counter=Counts(), cursors={f"file:{log.path}": cursor}
    )
    with pytest.raises(StateError) as refused:
        await source.run(log.got.emit)
    assert refused.value.hint


async def test_a_cursor_of_the_first_version_is_understood(log: Log):
    log.write("0\n1\n")
    status = log.path.stat()
    known = [2, "49dd90a87d3696f290ffac22c399f73b"]
    place = {"device": status.st_dev, "inode": status.st_ino, "generation": 2, "offset": 2, "skipping": False}
    place |= {"head": known, "tail": known}
    kept = json.dumps({"name": "vedette-file-cursor", "version": 1, "number": 7, "generation": 3, "places": [place]})
    source = FileSource(
        FileSettings(paths=(str(log.path),)),
        host_id="h",
        clock=SystemClock(),
        counter=log.counts,
        cursors={f"file:{log.path}": kept},
    )
    async with running(source) as got:
        assert await got.count(1) == [b"1"]
    assert got.ids == [f"h/file:{log.path}/2:2"]
    assert got.batches[0].number == 7


# A script of what logrotate, daemons and restarts do, in any order. `lost` only where copytruncate's window allows it.
steps = st.lists(
    st.sampled_from(
        [
            "write",
            "half",
            "finish",
            "rotate",
            "rotate twice",
            "compress",
            "copytruncate",
            "recreate",
            "restart",
            "settle",
        ]
    ),
    max_size=14,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=steps)
async def test_any_script_gives_every_line_exactly_once(tmp_path_factory: pytest.TempPathFactory, script: list[str]):
    log = Log(tmp_path_factory.mktemp("script"), rotated_quiet="20ms", poll="10ms")
    written: list[bytes] = []
    optional: set[bytes] = set()
    half = ""
    log.path.touch()

    def line(text: str) -> None:
        nonlocal half
        log.write(text)
        half += text
        if half.endswith("\n"):
            written.append(half[:-1].encode())
            half = ""

    def end_of_file() -> None:
        nonlocal half
        if half:
            written.append(half.encode())
            half = ""

    async def settle() -> None:
        want = set(written) - optional
        try:
            await log.got.until(lambda got: want <= set(got.records), 3)
        except TimeoutError:
            assert want - set(log.got.records) == set(), log.got.batches[-1].cursor

    run = log.running()
    await run.__aenter__()
    try:
        line("the first\n")
        await settle()  # what is rotated away before the first batch nobody can know of
        for number, step in enumerate(script):
            match step:
                case "write":
                    for n in range(3):
                        line(f"{number}.{n} {'filler ' * 8}\n" if not half else "end\n")
                case "half":
                    line(f"{number}.half, and what it takes to be known by ")
                case "finish":
                    line(f"{number}.finished\n")
                case "rotate":
                    end_of_file()
                    log.rotate()
                case "rotate twice":
                    end_of_file()
                    log.rotate()
                    line(f"{number}.between\n")
                    log.rotate()
                case "compress":
                    if log.path.with_name("auth.log.1").exists():
                        log.compress()
                case "copytruncate":
                    await settle()
                    if half:
                        await asyncio.sleep(
                            0.03
                        )  # a half line alone, emptied before it was looked at once, leaves no trace
                    end_of_file()
                    log.copytruncate()
                    line(f"{number}.after\n")
                    await settle()  # a restart just now could not know that a file without a whole line was emptied
                case "recreate":
                    await settle()
                    if half:
                        optional.add(half.encode())
                    end_of_file()
                    log.path.unlink()
                    log.path.touch()
                    line(f"{number}.anew\n")
                    await settle()  # made anew and rotated twice before a look leaves no trace of the first
                case "restart":
                    await run.__aexit__(None, None, None)
                    run = log.running()
                    await run.__aenter__()
                case "settle":
                    await settle()
        await settle()
    finally:
        await run.__aexit__(None, None, None)
    records = log.got.records
    assert len(records) == len(set(records)), "a line twice"
    assert set(records) - set(written) == set()
    assert set(written) - set(records) <= optional
    assert len(set(log.got.ids)) == len(records)
    numbers = [batch.number for batch in log.got.batches]
    assert numbers == list(range(len(numbers)))
