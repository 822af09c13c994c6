"""Each kind of change and each attribute changed alone; what explains a folder's times; what cannot be seen is said.
Counterpart: vedette.sources.integrity (walk, digest, compare) and vedette.app.integrity, on real files."""

from __future__ import annotations

import hashlib
import os
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.app.integrity import Checked, same_trees, take_baseline
from vedette.model.clock import SystemClock
from vedette.model.errors import VedetteError
from vedette.model.integrity import Attribute, Change, ChangeKind, Entry, FileType
from vedette.sources.integrity import digest
from vedette.sources.integrity.baseline import Baseline
from vedette.sources.integrity.compare import attributes_of
from vedette.sources.integrity.walk import GapReason, Walk, chosen_trees, is_within, joined, order
from vedette.testing.clock import FakeClock

CLOCK = SystemClock()
ACCESS_ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *one)
    for one in (
        (0x01, 6, 0xFFFFFFFF),  # user::rw-
        (0x02, 4, 1000),  # user:1000:r--
        (0x04, 4, 0xFFFFFFFF),  # group::r--
        (0x10, 4, 0xFFFFFFFF),  # mask::r--
        (0x20, 4, 0xFFFFFFFF),  # other::r--
    )
)
"""As acl(5) has it, in the kernel's form (posix_acl_xattr.h)."""


class Tree:
    """A folder of files, its baseline, and what a check says of it."""

    def __init__(self, folder: Path) -> None:
        self.top = folder / "tree"
        self.file = folder / "baseline"
        self.top.mkdir()

    def init(self) -> None:
        take_baseline([self.top], self.file, CLOCK)

    def check(self, *, full: bool = False) -> tuple[list[Change], Checked]:
        with Baseline(self.file) as baseline:
            checked = Checked(baseline, CLOCK, full=full)
            return list(checked), checked

    def said(self, *, full: bool = False) -> dict[str, tuple[str, set[str]]]:
        """What changed, by path inside the tree."""
        return {
            os.fsdecode(os.path.relpath(one.path, os.fsencode(self.top))): (
                one.kind.value,
                {attribute.value for attribute in one.attributes},
            )
            for one in self.check(full=full)[0]
        }


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    made = Tree(tmp_path)
    (made.top / "d").mkdir()
    for name in ("a", "b", "d/c"):
        (made.top / name).write_text(name)
    (made.top / "link").symlink_to("a")
    os.mkfifo(made.top / "pipe")
    made.init()
    return made


def test_nothing_changed_says_nothing_and_reads_nothing_again_but_what_is_fresh(tree: Tree):
    assert tree.said() == {}
    assert tree.said(full=True) == {}


def write(path: Path, text: str) -> None:
    """Write in place, with the modification time as it was."""
    before = path.stat()
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


ALONE: dict[str, tuple[Callable[[Path], object], str, set[str]]] = {
    "content of the same size, time set back": (lambda top: write(top / "a", "A"), "a", {"content"}),
    "content": (lambda top: write(top / "a", "longer"), "a", {"content"}),
    "mode": (lambda top: (top / "a").chmod(0o4711), "a", {"mode"}),
    "mode of a folder": (lambda top: (top / "d").chmod(0o700), "d", {"mode"}),
    "links": (lambda top: os.link(top / "a", top.parent / "outside"), "a", {"links"}),
    "times": (lambda top: os.utime(top / "a", (1, 1)), "a", {"times"}),
    "times of a folder": (lambda top: os.utime(top / "d", (1, 1)), "d", {"times"}),
    "xattr": (lambda top: os.setxattr(top / "a", "user.note", b"1"), "a", {"xattr"}),
    "acl": (lambda top: os.setxattr(top / "a", "system.posix_acl_access", ACCESS_ACL), "a", {"acl"}),
    "changed and changed back": (
        lambda top: ((top / "a").chmod(0o600), (top / "a").chmod(0o644)),
        "a",
        {"times"},
    ),
}


@pytest.mark.parametrize("name", ALONE)
def test_an_attribute_changed_alone(tree: Tree, name: str):
    change, path, attributes = ALONE[name]
    (tree.top / "a").chmod(0o644)
    tree.init()
    change(tree.top)
    assert tree.said() == {path: ("changed", attributes)}
    assert tree.said(full=True) == {path: ("changed", attributes)}


def test_target(tree: Tree):
    (tree.top / "link").unlink()
    (tree.top / "link").symlink_to("b")
    kind, attributes = tree.said()["link"]
    assert (kind, attributes - {"times"}) == ("changed", {"target"})
    assert set(tree.said()) == {"link"}, "that the folder was written is explained"


@pytest.mark.parametrize("other", ["symlink", "folder", "fifo"])
def test_type(tree: Tree, other: str):
    path = tree.top / "a"
    path.unlink()
    if other == "symlink":
        path.symlink_to("b")
    elif other == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    said = tree.said()
    assert set(said) == {"a"}
    assert "type" in said["a"][1]
    assert "content" not in said["a"][1]


def entry(**given: object) -> Entry:
    plain = Entry(b"/a", FileType.FILE, 0o644, 0, 0, 1, 1, 1, 1, 1, 1, sha256=b"1" * 32)
    return replace(plain, **given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"uid": 5}, [Attribute.OWNER]),
        ({"gid": 5}, [Attribute.GROUP]),
        ({"capability": b"x"}, [Attribute.CAPABILITY]),
        ({"sha256": b"2" * 32}, [Attribute.CONTENT]),
        ({"sha256": b""}, []),
        ({"sha256": b"", "size": 7}, [Attribute.CONTENT]),
        ({"inode": 9}, []),
        ({"ctime_ns": 9}, [Attribute.TIMES]),
        ({"ctime_ns": 9, "uid": 5}, [Attribute.OWNER]),
        ({"ctime_ns": 9, "mtime_ns": 9, "uid": 5}, [Attribute.OWNER, Attribute.TIMES]),
    ],
)
def test_what_differs(given: dict[str, object], expected: list[Attribute]):
    assert list(attributes_of(entry(), entry(**given))) == expected


def test_added_and_removed(tree: Tree):
    (tree.top / "b").unlink()
    (tree.top / "d" / "new").write_text("x" * 50)
    assert tree.said() == {"b": ("removed", set()), "d/new": ("added", set())}


def test_a_folder_that_comes_and_one_that_goes(tree: Tree):
    (tree.top / "d" / "c").unlink()
    (tree.top / "d").rmdir()
    (tree.top / "e").mkdir()
    (tree.top / "e" / "f").write_text("")
    assert tree.said() == {
        "d": ("removed", set()),
        "d/c": ("removed", set()),
        "e": ("added", set()),
        "e/f": ("added", set()),
    }


def test_a_rename_is_both_each_with_the_other(tree: Tree):
    (tree.top / "d").rename(tree.top / "z")
    found = {one.path: one for one in tree.check()[0]}
    top = os.fsencode(tree.top)
    assert {(path[len(top) :], one.kind.value) for path, one in found.items()} == {
        (b"/d", "removed"),
        (b"/d/c", "removed"),
        (b"/z", "added"),
        (b"/z/c", "added"),
    }
    assert found[top + b"/d/c"].related == top + b"/z/c"
    assert found[top + b"/z/c"].related == top + b"/d/c"
    assert found[top + b"/z"].related == top + b"/d"


def test_an_inode_given_to_another_file_is_no_rename(tree: Tree):
    inode = (tree.top / "b").stat().st_ino
    (tree.top / "b").unlink()
    new = tree.top / "n"
    for _ in range(50):
        new.write_text("something else")
        if new.stat().st_ino == inode:
            break
        new.rename(tree.top.parent / f"kept-{new.stat().st_ino}")
    assert all(one.related is None for one in tree.check()[0])


def test_a_file_replaced_by_its_equal_is_told_by_its_change_time(tree: Tree):
    path, copy = tree.top / "a", tree.top / "a.new"
    before = path.stat()
    copy.write_bytes(path.read_bytes())
    os.utime(copy, ns=(before.st_atime_ns, before.st_mtime_ns))
    copy.replace(path)
    assert tree.said() == {"a": ("changed", {"times"})}


def test_names_that_are_no_text(tree: Tree):
    top = os.fsencode(tree.top)
    for name in (b"new\nline", b"\xff\xfe", b"[glob]*", b"\x1b[2J"):
        with open(top + b"/" + name, "wb"):
            pass
    assert {one.path for one in tree.check()[0]} == {
        top + b"/" + name for name in (b"new\nline", b"\xff\xfe", b"[glob]*", b"\x1b[2J")
    }
    tree.init()
    assert tree.said() == {}


def test_special_files_are_never_opened(tree: Tree, monkeypatch: pytest.MonkeyPatch):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fsencode(tree.top / "socket"))
        opened: list[bytes] = []
        real = os.open

        def watched(path, flags, mode=0o777, *, dir_fd=None):
            opened.append(os.fsencode(path) if not isinstance(path, int) else b"")
            return real(path, flags, mode, dir_fd=dir_fd)

        monkeypatch.setattr(digest.os, "open", watched)
        assert tree.said() == {"socket": ("added", set())}
        tree.init()
    assert b"pipe" not in opened
    assert b"socket" not in opened
    assert b"a" in opened, "ordinary files were"


def test_links_that_go_round_are_not_followed(tree: Tree):
    (tree.top / "d" / "up").symlink_to("..")
    (tree.top / "self").symlink_to("self")
    assert tree.said() == {"d/up": ("added", set()), "self": ("added", set())}


def test_deep_folders_are_said_not_to_have_been_looked_at(tmp_path: Path):
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    walk = Walk([os.fsencode(tmp_path)])
    listed = sum(len(one.names) for one in walk)
    assert listed == 257
    assert [gap.reason for gap in walk.gaps] == [GapReason.TOO_DEEP]
    _remove(tmp_path)


def _remove(top: Path) -> None:
    """Folders deeper than paths may be long."""
    fds = [os.open(top, os.O_RDONLY)]
    while True:
        try:
            fds.append(os.open("d", os.O_RDONLY, dir_fd=fds[-1]))
        except FileNotFoundError:
            break
    while len(fds) > 1:
        os.close(fds.pop())
        os.rmdir("d", dir_fd=fds[-1])
    os.close(fds[0])


def test_a_file_that_changes_while_it_is_read_is_read_again(tree: Tree, monkeypatch: pytest.MonkeyPatch):
    path = tree.top / "a"
    path.write_text("first")
    real, times = os.readv, iter(range(100))

    def writing(fd: int, buffers: list[memoryview]) -> int:
        count = real(fd, buffers)
        if buffers[0][:count] == b"first" and next(times) == 0:
            path.write_text("other")
        return count

    monkeypatch.setattr(digest.os, "readv", writing)
    tree.init()
    monkeypatch.undo()
    with Baseline(tree.file) as baseline:
        found = baseline.find(os.fsencode(tree.top), b"a")
    assert found is not None
    assert found.sha256 == hashlib.sha256(b"other").digest()


def test_a_file_that_never_stays_the_same_is_said(tree: Tree, monkeypatch: pytest.MonkeyPatch):
    path = tree.top / "a"
    real, times = os.readv, iter(range(1, 100))

    def writing(fd: int, buffers: list[memoryview]) -> int:
        count = real(fd, buffers)
        if os.fstat(fd).st_ino == path.stat().st_ino:
            os.utime(path, (next(times), 5))
        return count

    os.utime(path, (7, 7))
    monkeypatch.setattr(digest.os, "readv", writing)
    _, checked = tree.check()
    assert [(gap.path, gap.reason) for gap in checked.could_not_tell] == [
        (os.fsencode(path), GapReason.CHANGING),
    ]


def test_a_file_renamed_while_others_are_listed_is_found_where_it_went(tree: Tree, monkeypatch: pytest.MonkeyPatch):
    """From a folder not listed yet to one that was: it would be in neither."""
    real = os.listdir

    def moving(fd):
        names = real(fd)
        if os.stat(fd).st_ino == (tree.top / "d").stat().st_ino and (tree.top / "d" / "c").exists():
            (tree.top / "d" / "c").rename(tree.top / "c")
            return [name for name in names if name != b"c"]
        return names

    monkeypatch.setattr("vedette.sources.integrity.walk.os.listdir", moving)
    found = {one.path: one for one in tree.check()[0]}
    top = os.fsencode(tree.top)
    assert {path: one.kind for path, one in found.items()} == {
        top + b"/c": ChangeKind.ADDED,
        top + b"/d/c": ChangeKind.REMOVED,
    }
    assert found[top + b"/c"].related == top + b"/d/c"


def test_a_folder_replaced_by_a_link_is_not_entered(tree: Tree):
    elsewhere = tree.top.parent / "elsewhere"
    (tree.top / "d").rename(elsewhere)
    (tree.top / "d").symlink_to(elsewhere)
    said = tree.said()
    assert said["d/c"] == ("removed", set())
    assert "type" in said["d"][1]
    assert set(said) == {"d", "d/c"}


def test_a_baseline_inside_its_tree_is_no_part_of_it(tmp_path: Path):
    (tmp_path / "a").write_text("a")
    file = tmp_path / "base[1]"
    take_baseline([tmp_path], file, CLOCK)
    with Baseline(file) as baseline:
        assert list(Checked(baseline, CLOCK)) == []


def test_a_clock_set_back_proves_nothing(tree: Tree):
    with Baseline(tree.file) as baseline:
        checked = Checked(baseline, FakeClock(CLOCK.now() - 86_400_000_000))
        assert list(checked) == []
        assert checked.tally.read >= 5
        assert "set back" in checked.remarks[0]


def test_other_trees_are_refused(tree: Tree, tmp_path: Path):
    with Baseline(tree.file) as baseline:
        same_trees(baseline, [tree.top])
        with pytest.raises(VedetteError, match="is of"):
            same_trees(baseline, [tmp_path])


def test_a_tree_that_is_not_there_is_no_baseline(tmp_path: Path):
    with pytest.raises(VedetteError, match="not there"):
        take_baseline([tmp_path / "none"], tmp_path / "file", CLOCK)
    assert not list(tmp_path.iterdir())


def test_a_tree_may_be_one_file_between_others(tmp_path: Path):
    (tmp_path / "pa.d").mkdir()
    (tmp_path / "pa.d" / "x").write_text("x")
    (tmp_path / "passwd").write_text("root")
    (tmp_path / "shadow").write_text("root")
    trees = [tmp_path / "passwd", tmp_path / "pa.d", tmp_path / "pa.d" / "x"]
    file = tmp_path / "file"
    take_baseline(trees, file, CLOCK)
    (tmp_path / "passwd").write_text("toor!")
    (tmp_path / "shadow").write_text("toor!")
    with Baseline(file) as baseline:
        assert len(list(baseline.rows())) == 3
        assert [os.fsdecode(one.path) for one in Checked(baseline, CLOCK)] == [str(tmp_path / "passwd")]


PATHS = st.lists(
    st.lists(st.sampled_from([b"a", b"a.b", b"a b", b"b", b"\xff"]), min_size=1, max_size=4).map(
        lambda parts: b"/" + b"/".join(parts)
    ),
    max_size=12,
)


@settings(max_examples=60)
@given(PATHS)
def test_chosen_trees_hold_every_path_once_and_in_order(paths: list[bytes]):
    chosen = chosen_trees(paths)
    assert chosen == sorted(chosen, key=order)
    for path in paths:
        assert sum(is_within(path, tree) for tree in chosen) == 1
    assert joined(b"", b"") == b"/"


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)
