"""Looks at paths and at all, while others accept, with links for trees, and with what may not or need not be read.
Counterpart: vedette.sources.integrity.look, known and digest, over real files."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from vedette.model.clock import SystemClock
from vedette.model.errors import StateError
from vedette.model.integrity import ChangeKind, Unread
from vedette.sources.integrity import baseline as baseline_module
from vedette.sources.integrity import digest
from vedette.sources.integrity import look as module
from vedette.sources.integrity.digest import Reader, gap_of
from vedette.sources.integrity.known import TOLD, Known, read_told
from vedette.sources.integrity.look import Look
from vedette.sources.integrity.settings import IntegritySettings
from vedette.sources.integrity.walk import GapReason, Visited, numbers_of


class Place:
    """A tree with twenty files, what is known of it, and looks at it."""

    def __init__(self, root: Path, trees: tuple[str, ...] = ()) -> None:
        self.top = root / "tree"
        self.top.mkdir()
        for number in range(20):
            (self.top / f"f{number:02}").write_text("x")
        (root / "known").mkdir()
        self.known = Known(root / "known")
        settings = IntegritySettings(trees=(str(self.top), *trees))
        self.look = Look(settings, self.known, SystemClock())

    def path(self, name: str) -> bytes:
        return os.fsencode(self.top / name)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.known.close()


def test_what_is_accepted_while_rows_are_read_takes_no_row_away(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baseline_module, "_ROWS_TOGETHER", 4)
    place.look.first()
    (place.top / "f19").write_text("other")
    (change,) = place.look.at({place.path("f19"): (None, 0, False)}).changes
    place.known.settle(change, {"told": True}, settled=True)
    rows = place.known.rows()
    next(rows)
    assert place.look.advance() == 1
    assert len(list(rows)) == 20
    assert len(list(place.known.rows())) == 21


def test_a_tree_that_is_a_link_is_watched_as_one(tmp_path: Path) -> None:
    link, other = tmp_path / "link", tmp_path / "other"
    link.symlink_to(tmp_path / "tree")
    place = Place(tmp_path, (str(link),))
    assert place.look.first() == (22, [])
    other.mkdir()
    (other / "f00").write_text("of somebody else")
    link.unlink()
    link.symlink_to(other)
    found = [(one.path, one.after.target) for one in place.look.all(full=False).changes if one.after is not None]
    assert found == [(os.fsencode(link), os.fsencode(other))]
    assert place.look.is_watched(os.fsencode(link))
    place.known.close()


def test_what_may_not_be_looked_at_is_not_gone(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.look.first()
    opened = os.open

    def refuse(path: object, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == os.fsencode(place.top):
            raise OSError(errno.EMFILE, "too many files")
        return opened(path, flags, mode, dir_fd=dir_fd)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(module.os, "open", refuse)
    seen = place.look.at({place.path("f00"): (None, 0, False)})
    assert seen.changes == []
    assert seen.gaps == [(place.path("f00"), GapReason.FAILED.value)]


def test_a_scan_tells_how_it_is_and_not_how_it_was_when_it_came_by(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.look.first()
    (place.top / "new").write_text("first")
    merged = module.Comparison.__iter__

    def meanwhile(comparison: module.Comparison) -> Iterator[object]:
        yield from merged(comparison)
        # The scan has been there; now it is written again, and told.
        (place.top / "new").write_text("second")
        for change in place.look.at({place.path("new"): (None, 0, False)}).changes:
            place.known.settle(change, {"told": True}, settled=False)

    monkeypatch.setattr(module.Comparison, "__iter__", meanwhile)
    assert [one.path for one in place.look.all(full=False).changes] == []
    now = place.known.find(os.fsencode(place.top), b"new")
    assert now is not None
    assert now.numbers[3] == len("second")


def test_what_one_scan_has_read_the_next_one_does_not_read_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []
    one = Reader.read

    def counted(self: Reader, fd: int, wanted: list[tuple[bytes, tuple[int, ...]]]) -> object:
        read.extend(name for name, _ in wanted)
        return one(self, fd, wanted)  # type: ignore[arg-type]

    clock = SystemClock()
    later = clock.now() + 10_000_000
    place.look.first()
    monkeypatch.setattr(Reader, "read", counted)
    place.look.all(full=False)
    assert len(read) == 21, "changed too shortly before it was taken down"
    monkeypatch.setattr(SystemClock, "now", lambda _: later)
    place.look.all(full=False)
    read.clear()
    place.look.all(full=False)
    assert read == []


def test_a_file_of_holes_is_said_and_not_read(tmp_path: Path) -> None:
    file = tmp_path / "holes"
    file.touch()
    os.truncate(file, 1 << 40)
    reader = Reader(1, sparse=False)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        (found,) = reader.read(fd, [(b"holes", numbers_of(file.lstat()))])
    finally:
        os.close(fd)
        reader.close()
    assert found is not None
    assert found.beside.unread == Unread.SPARSE
    gap = gap_of(b"/holes", found)
    assert gap is not None
    assert gap.reason is GapReason.SPARSE


def test_what_was_not_read_at_the_first_look_is_said(place: Place) -> None:
    (place.top / "holes").touch()
    os.truncate(place.top / "holes", 1 << 40)
    rows, gaps = place.look.first()
    assert (rows, gaps) == (22, [(place.path("holes"), GapReason.SPARSE.value)])


def test_removed_is_removed(place: Place) -> None:
    place.look.first()
    (place.top / "f00").unlink()
    (change,) = place.look.at({place.path("f00"): (None, 0, False)}).changes
    assert change.kind is ChangeKind.REMOVED


def flat(place: Place) -> list[tuple[bytes, bytes]]:
    return [(row.folder, row.name) for run in place.known.runs() for row in run.rows()]


def test_by_folders_it_is_known_as_row_by_row(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what was told laid over it: first and last of a folder, gone ones, and folders the baseline has not."""
    monkeypatch.setattr(baseline_module, "_ROWS_TOGETHER", 4)
    for name in ("b", "m"):
        (place.top / name).mkdir()
        (place.top / name / "in").write_text("x")
    place.look.first()
    (place.top / "f00").unlink()
    (place.top / "f07").write_text("other")
    (place.top / "a").write_text("new")
    (place.top / "z").write_text("new")
    (place.top / "c").mkdir()
    (place.top / "c" / "in").write_text("new")
    (place.top / "zz").mkdir()
    (place.top / "zz" / "in").write_text("new")
    seen = place.look.all(full=False)
    assert len(seen.changes) == 8
    for change in seen.changes:
        place.known.settle(change, {"told": True}, settled=False)
    rows = list(place.known.rows())
    assert [row for run in place.known.runs() for row in run.rows()] == rows
    assert flat(place) == [(row.folder, row.name) for row in rows]
    assert not place.look.all(full=False).changes
    assert not place.look.all(full=True).changes


def test_large_files_read_beside_each_other_and_small_ones_keep_their_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest, "_WORTH_THREADS", 5)
    wanted = []
    for number in range(20):
        (tmp_path / f"{number:02}").write_bytes(b"%d" % number * (1 + number % 3 * 5))
    fd = os.open(tmp_path, os.O_RDONLY)
    reader = Reader(3)
    for name in sorted(os.listdir(tmp_path)):
        wanted.append((os.fsencode(name), numbers_of(os.stat(name, dir_fd=fd))))
    (tmp_path / "04").unlink()
    found = reader.read(fd, wanted)
    os.close(fd)
    reader.close()
    for number, read in enumerate(found):
        if number == 4:
            assert read is None
        else:
            assert read is not None
            assert read.sha256 == hashlib.sha256(b"%d" % number * (1 + number % 3 * 5)).digest()


def test_folders_that_were_visited_come_back_as_they_were_added() -> None:
    visited = Visited()
    for folder, at in ((b"", 5), (b"/\xff\n", -3), (b"/a", 1 << 62)):
        visited.add(folder, at)
    assert list(visited) == [(b"", 5), (b"/\xff\n", -3), (b"/a", 1 << 62)]


def test_what_was_told_is_signed_where_the_baseline_is(tmp_path: Path) -> None:
    def sign(digest: bytes) -> bytes:
        return b"ours" + digest

    def check(digest: bytes, signature: bytes) -> bool:
        return signature == sign(digest)

    (tmp_path / "a").write_text("x")
    settings = IntegritySettings(trees=(str(tmp_path / "a"),))
    folder = tmp_path / "known"
    folder.mkdir()
    known = Known(folder, sign, check)
    look = Look(settings, known, SystemClock())
    look.first()
    (tmp_path / "a").write_text("other")
    for change in look.all(full=False).changes:
        known.settle(change, {"told": True}, settled=True)
    known.save()
    known.close()
    # Whoever has no key and hides a change by saying that it was told already.
    reopened = Known(folder, sign, check)
    assert len(read_told(folder, check)) == 1
    reopened.close()
    other = Known(folder)
    other.settle(
        next(iter(Look(settings, other, SystemClock()).all(full=True).changes), None) or change, {}, settled=True
    )
    other.save()
    other.close()
    with pytest.raises(StateError, match="not signed by this host"):
        Known(folder, sign, check)
    (folder / TOLD).write_bytes(b"\x83\xa6format\xb6vedette integrity told\xa7version\x09\xa4told\x90")
    with pytest.raises(StateError, match="newer"):
        read_told(folder)
    (folder / TOLD).write_bytes(b"\x83\xa6format\xb6vedette integrity told\xa7version\x01\xa4told\x90")
    assert read_told(folder) == []
    with pytest.raises(StateError, match="not signed by this host"):
        read_told(folder, check)
