"""The evasion table of docs/integrity.md: each row caught as it says; and AIDE as second opinion over the same tree.
Counterpart: vedette.app.integrity and the source, with real fanotify, mounts, capabilities and owners."""

from __future__ import annotations

import asyncio
import mmap
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import orjson
import pytest

from vedette.app.counters import Counters
from vedette.app.integrity import Checked, take_baseline
from vedette.model.batch import Batch
from vedette.model.clock import SystemClock
from vedette.model.integrity import Change
from vedette.sources.integrity import source as source_module
from vedette.sources.integrity.baseline import Baseline
from vedette.sources.integrity.fanotify import Fanotify
from vedette.sources.integrity.known import Known
from vedette.sources.integrity.settings import IntegritySettings
from vedette.sources.integrity.source import IntegritySource

pytestmark = pytest.mark.root

CLOCK = SystemClock()
WITHIN = 30.0


class Tree:
    def __init__(self, folder: Path) -> None:
        self.top = folder / "tree"
        self.file = folder / "baseline"
        (self.top / "d").mkdir(parents=True)
        for name in ("a", "b", "d/c", "d/e"):
            (self.top / name).write_text(f"what is in {name}")
        (self.top / "link").symlink_to("a")
        # What is older than two seconds is proven by its times.
        self.init()

    def init(self) -> None:
        take_baseline([self.top], self.file, CLOCK)

    def changes(self, *, full: bool = False) -> tuple[list[Change], Checked]:
        with Baseline(self.file) as baseline:
            checked = Checked(baseline, CLOCK, full=full)
            return list(checked), checked

    def said(self, *, full: bool = False) -> dict[str, tuple[str, set[str]]]:
        return {
            os.fsdecode(one.path).removeprefix(f"{self.top}/"): (
                one.kind.value,
                {attribute.value for attribute in one.attributes},
            )
            for one in self.changes(full=full)[0]
        }


@pytest.fixture
def tree(scratch: Path) -> Tree:
    return Tree(scratch)


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


# ------------------------------------------------------------------------------------------------ by root alone


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda top: os.chown(top / "a", 1234, -1), {"owner"}),
        (lambda top: os.chown(top / "a", -1, 1234), {"group"}),
        (lambda top: run("setcap", "cap_net_raw+ep", str(top / "a")), {"capability"}),
        (lambda top: os.setxattr(top / "a", "trusted.note", b"1"), {"xattr"}),
    ],
    ids=["owner", "group", "capability", "trusted attribute"],
)
def test_an_attribute_changed_alone(tree: Tree, change: Callable[[Path], object], expected: set[str]):
    change(tree.top)
    assert tree.said() == {"a": ("changed", expected)}


# ------------------------------------------------------------------------------------------------ the table


def set_back(path: Path, text: str) -> None:
    before = path.stat()
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_mtime_reset_and_same_size(tree: Tree):
    set_back(tree.top / "a", "What is in a")
    assert tree.said() == {"a": ("changed", {"content"})}


def test_changed_through_a_hard_link_outside(tree: Tree):
    os.link(tree.top / "a", tree.top.parent / "other-name")
    tree.init()
    set_back(tree.top.parent / "other-name", "What is in a")
    assert tree.said() == {"a": ("changed", {"content"})}


def test_changed_through_a_bind_mount(tree: Tree):
    other = tree.top.parent / "mounted"
    other.mkdir()
    run("mount", "--bind", str(tree.top), str(other))
    try:
        set_back(other / "a", "What is in a")
    finally:
        run("umount", str(other))
    assert tree.said() == {"a": ("changed", {"content"})}


def test_covered_by_a_bind_mount(tree: Tree):
    trojan = tree.top.parent / "trojan"
    trojan.write_text("something else")
    run("mount", "--bind", str(trojan), str(tree.top / "a"))
    try:
        found, checked = tree.changes()
    finally:
        run("umount", str(tree.top / "a"))
    assert [os.fsdecode(one.path) for one in found] == [str(tree.top / "a")]
    assert any("is mounted now" in one for one in checked.remarks)


def test_another_device_is_not_entered_and_said(tree: Tree):
    run("mount", "-t", "tmpfs", "none", str(tree.top / "d"))
    try:
        found, checked = tree.changes()
    finally:
        run("umount", str(tree.top / "d"))
    assert not any(os.fsdecode(one.path).endswith("/d/c") for one in found), "what is hidden is not called removed"
    assert [gap.reason.value for gap in checked.could_not_tell] == ["other-device"]


def test_changed_and_changed_back_between_two_looks(tree: Tree):
    text = (tree.top / "a").read_text()
    set_back(tree.top / "a", "x")
    set_back(tree.top / "a", text)
    assert tree.said() == {"a": ("changed", {"times"})}


def test_a_folder_replaced_by_a_link_to_its_copy(tree: Tree):
    run("cp", "-a", str(tree.top / "d"), str(tree.top.parent / "copy"))
    run("rm", "-r", str(tree.top / "d"))
    (tree.top / "d").symlink_to(tree.top.parent / "copy")
    said = tree.said()
    assert "type" in said.pop("d")[1]
    assert said == {"d/c": ("removed", set()), "d/e": ("removed", set())}


def test_written_through_a_map_that_was_open_before(tree: Tree):
    """Not proven by times: a page that is dirty already moves none. Reading everything finds it."""
    path = tree.top / "a"
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[0:1] = b"w"
        os.utime(path, ns=(1, 1))
        tree.init()
        mapped[0:1] = b"X"
        said = tree.said(full=True)
    assert said["a"][1] >= {"content"}


def test_a_name_that_hides_in_a_listing(tree: Tree):
    (tree.top / "d" / "c\n ").write_text("x")
    (tree.top / "d" / "...").mkdir()
    assert tree.said() == {"d/c\n ": ("added", set()), "d/...": ("added", set())}


# ------------------------------------------------------------------------------------------------ AIDE

AIDE_ENTRY = re.compile(r"^(?:[a-zA-Z!?][^:\n]*): (/.*)$", re.MULTILINE)


def test_whatever_aide_reports_is_reported_here(tree: Tree, scratch: Path):
    config = scratch / "aide.conf"
    config.write_text(
        f"database_in=file:{scratch}/aide.db\ndatabase_out=file:{scratch}/aide.db\nreport_url=stdout\n"
        f"{tree.top} p+ftype+i+n+u+g+s+m+c+acl+xattrs+caps+sha256\n"
    )
    for name in "fghijklmnop":
        (tree.top / name).write_text(name * 9)
    os.mkfifo(tree.top / "pipe")
    tree.init()
    run("aide", "--init", "-c", str(config))
    top = tree.top
    set_back(top / "a", "What is in a")
    (top / "b").unlink()
    (top / "d" / "new").write_text("new")
    (top / "d" / "c").rename(top / "moved")
    (top / "f").chmod(0o4755)
    os.chown(top / "g", 1, -1)
    os.chown(top / "h", -1, 1)
    os.utime(top / "i", (5, 5))
    os.link(top / "j", top / "j2")
    os.setxattr(top / "k", "user.x", b"1")
    run("setcap", "cap_chown+ep", str(top / "l"))
    (top / "m").unlink()
    (top / "m").symlink_to("n")
    (top / "link").unlink()
    (top / "link").symlink_to("n")
    (top / "pipe").chmod(0o666)
    (top / "o").write_text("longer than it was before")
    (top / "p").chmod(0o600)
    (top / "p").chmod(0o644)
    told = subprocess.run(["aide", "--check", "-c", str(config)], capture_output=True, text=True, check=False).stdout
    theirs = {path for path in AIDE_ENTRY.findall(told) if path.startswith(str(top))}
    # It knows times to the second alone, so what only moved those may be missing there.
    assert len(theirs) >= 16, told
    ours = {os.fsdecode(one.path) for one in tree.changes()[0]}
    # Of folders it tells that their times moved, which what is told of what is in them explains here.
    folders = {str(top), str(top / "d")}
    assert theirs - folders <= ours
    assert all(any(one.startswith(f"{folder}/") for one in ours) for folder in folders)


# ------------------------------------------------------------------------------------------------ as it happens


class Told:
    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self._more = asyncio.Event()

    async def emit(self, batch: Batch) -> None:
        self.records += [orjson.loads(line) for line in batch.block.splitlines()]
        self._more.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN):
            while not holds():
                self._more.clear()
                await self._more.wait()

    def of(self, path: Path) -> list[dict[str, Any]]:
        return [one for one in self.records if one.get("file", {}).get("path") == str(path)]


@asynccontextmanager
async def running(tree: Tree, watching: Fanotify) -> AsyncIterator[Told]:
    told = Told()
    folder = tree.top.parent / "integrity"
    folder.mkdir(exist_ok=True)
    source = IntegritySource(
        IntegritySettings(trees=(str(tree.top),), settle="20ms", again="50ms"),
        Known(folder),
        host_id="h",
        clock=CLOCK,
        counter=Counters(),
        watching=watching,
    )
    task = asyncio.create_task(source.run(told.emit))
    try:
        await told.until(lambda: bool(told.records) or task.done())
        yield told
        if task.done():
            await task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        watching.close()


async def test_who_did_it_is_known_for_a_process_that_lives(tree: Tree):
    async with running(tree, Fanotify([os.fsencode(tree.top)])) as told:
        path = tree.top / "a"
        code = "import sys; open(sys.argv[1], 'w').write('x'); sys.stdin.read()"
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", code, str(path), stdin=subprocess.PIPE)
        await told.until(lambda: bool(told.of(path)))
        assert child.stdin is not None
        child.stdin.close()
        await child.wait()
    (found, *_) = told.of(path)
    assert found["process"]["pid"] == child.pid
    assert "sys.argv" in found["process"]["command_line"]
    assert found["vedette"]["integrity"]["attributes"][0] == "content"


async def test_a_folder_moved_in_is_told_with_what_is_in_it(tree: Tree):
    outside = tree.top.parent / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep" / "file").write_text("x")
    async with running(tree, Fanotify([os.fsencode(tree.top)])) as told:
        await asyncio.to_thread(run, "mv", str(outside), str(tree.top / "in"))
        await told.until(lambda: bool(told.of(tree.top / "in" / "deep" / "file")))
        await asyncio.to_thread(run, "mv", str(tree.top / "in"), str(outside))
        await told.until(lambda: len(told.of(tree.top / "in" / "deep" / "file")) == 2)
    assert told.of(tree.top / "in" / "deep" / "file")[-1]["event"]["action"] == "file-removed"


async def test_a_burst_loses_nothing(tree: Tree):
    """5,000 files at once, by one that ends at once."""
    code = "import sys\nfor n in range(5000): open(f'{sys.argv[1]}/n{n}', 'w').close()"
    async with running(tree, Fanotify([os.fsencode(tree.top)])) as told:
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", code, str(tree.top / "d"))
        await child.wait()
        wanted = {f"{tree.top}/d/n{number}" for number in range(5000)}
        await told.until(lambda: wanted <= {one.get("file", {}).get("path") for one in told.records})
    added = [one["file"]["path"] for one in told.records if one["event"]["action"] == "file-added"]
    assert sorted(added) == sorted(wanted), "each once"


async def test_a_full_queue_is_said_and_what_was_lost_is_found(tree: Tree):
    watching = Fanotify([os.fsencode(tree.top)], unlimited=False)
    limit = int(await asyncio.to_thread(Path("/proc/sys/fs/fanotify/max_queued_events").read_text))
    # Nobody listens yet: each path is an event of its own.
    code = "import sys\nfor n in range(int(sys.argv[2])): open(f'{sys.argv[1]}/n{n}', 'w').close()"
    folder = tree.top.parent / "beside"
    folder.mkdir()
    await asyncio.to_thread(run, sys.executable, "-c", code, str(folder), str(limit + 2000))
    (tree.top / "a").write_text("lost among them")
    async with running(tree, watching) as told:
        await told.until(lambda: any(one["event"]["action"] == source_module.LOST for one in told.records))
