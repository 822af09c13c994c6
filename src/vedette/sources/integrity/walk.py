"""Trees listed folder by folder, in one order that a baseline has too, without following anything out of them.
Counterpart: `digest` reads what is in the files, `compare` holds the listing against a baseline."""

from __future__ import annotations

import errno
import os
import re
import stat
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import translate
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

Numbers = tuple[int, int, int, int, int, int, int, int, int]
"""`st_mode`, uid, gid, size, mtime and ctime in nanoseconds, inode, device, links."""

MODE, UID, GID, SIZE, MTIME, CTIME, INODE, DEVICE, LINKS = range(9)

numbers_of: Callable[[os.stat_result], Numbers] = attrgetter(
    "st_mode", "st_uid", "st_gid", "st_size", "st_mtime_ns", "st_ctime_ns", "st_ino", "st_dev", "st_nlink"
)

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEEPEST = 256
"""Folders held open at once; what lies deeper is said not to have been looked at."""
_TOGETHER = 4096
_KIND = 0o170000
"""The bits of `st_mode` that say what it is (inode(7))."""


class GapReason(StrEnum):
    """Why something in a tree was not looked at."""

    DENIED = "denied"
    FAILED = "failed"
    CHANGING = "changing"
    SPARSE = "sparse"
    OTHER_DEVICE = "other-device"
    TOO_DEEP = "too-deep"


@dataclass(frozen=True, slots=True)
class Gap:
    """A path that was not looked at, or whose content was not."""

    path: bytes
    reason: GapReason


class Listed(NamedTuple):
    """Some of what is in one folder, by name; a large folder comes in several of these.

    fd: the folder, open until the next one is asked for. A tree itself comes first, alone and without a name; where it
    is one file, `called` is what it is called in the folder `fd`.
    """

    folder: bytes
    fd: int
    names: Sequence[bytes]
    numbers: Sequence[Numbers]
    called: bytes = b""


def joined(folder: bytes, name: bytes) -> bytes:
    """The absolute path; the folder `/` is empty here."""
    return folder + b"/" + name if name else folder or b"/"


def order(folder: bytes) -> bytes:
    """What folders are sorted by: those inside another one come right after it."""
    return folder.replace(b"/", b"\0")


def is_within(path: bytes, folder: bytes) -> bool:
    """Whether `path` is `folder` or lies in it."""
    return path == folder or path.startswith(folder.rstrip(b"/") + b"/")


def chosen_trees(paths: Iterable[bytes]) -> list[bytes]:
    """Absolute paths in order, without those that lie in another one; the root is an empty one."""
    found: list[bytes] = []
    for path in sorted({_absolute(path) for path in paths}, key=order):
        if not found or not is_within(path, found[-1]):
            found.append(path)
    return found


def _absolute(path: bytes) -> bytes:
    # Not resolved: files are told by the names they were asked for.
    inside = os.path.normpath(os.fsencode(Path(os.fsdecode(path)).absolute())).strip(b"/")
    return b"/" + inside if inside else b""


class Visited:
    """Folders and the modification times they had right before they were listed, nanoseconds.

    Kept in one piece: of a million folders, a million objects would be most of what is held.
    """

    def __init__(self) -> None:
        self._paths = bytearray()
        self._times = array("q")

    def add(self, folder: bytes, mtime_ns: int) -> None:
        """One more; no path holds a zero byte."""
        self._paths += folder + b"\0"
        self._times.append(mtime_ns)

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        at = 0
        for mtime_ns in self._times:
            end = self._paths.index(b"\0", at)
            yield bytes(self._paths[at:end]), mtime_ns
            at = end + 1


@dataclass(slots=True)
class Walk:
    """One walk through trees. Links are not followed, other devices not entered, unless they are a tree of their own.

    leave_out: shell patterns of absolute paths that are passed by, with what is in them. gaps: what was not looked at.
    visited: the folders that were listed. follow: whether a tree may be named by a link.
    """

    trees: Sequence[bytes]
    leave_out: Sequence[bytes] = ()
    stopped: Callable[[], bool] = lambda: False
    follow: bool = True
    gaps: list[Gap] = field(default_factory=list)
    visited: Visited = field(default_factory=Visited)
    _left_out: re.Pattern[bytes] | None = field(default=None, init=False)
    _begins: list[bytes] = field(default_factory=list, init=False)
    """What each pattern begins with, up to what stands for anything."""

    def __post_init__(self) -> None:
        if self.leave_out:
            # Bytes are asked as they are: of many paths, decoding would cost more than asking.
            patterns = (translate(one.decode("latin-1")) for one in self.leave_out)
            self._left_out = re.compile("|".join(patterns).encode("latin-1"))
            self._begins = [re.split(rb"[*?[]", one, maxsplit=1)[0] for one in self.leave_out]

    def __iter__(self) -> Iterator[Listed]:
        for tree in self.trees:
            yield from self._tree(tree)

    def _tree(self, tree: bytes) -> Iterator[Listed]:
        try:
            status = Path(os.fsdecode(tree or b"/")).stat(follow_symlinks=self.follow)
            if not stat.S_ISDIR(status.st_mode):
                # A tree may be one file: its folder is opened for it.
                yield from self._one_file(tree)
                return
            fd = os.open(tree or b"/", FOLDER & ~os.O_NOFOLLOW)
        except FileNotFoundError:
            return
        except OSError as error:
            self._gap(tree, error)
            return
        opened = [fd]
        try:
            root = numbers_of(os.fstat(fd))
            yield Listed(tree, fd, [b""], [root])
            yield from self._folder(tree, fd, root[DEVICE], opened)
        finally:
            for one in opened:
                os.close(one)

    def _one_file(self, tree: bytes) -> Iterator[Listed]:
        folder, _, name = tree.rpartition(b"/")
        fd = os.open(folder or b"/", FOLDER & ~os.O_NOFOLLOW)
        try:
            yield Listed(tree, fd, [b""], [numbers_of(os.stat(name, dir_fd=fd, follow_symlinks=False))], name)
        except OSError as error:
            self._gap(tree, error)
        finally:
            os.close(fd)

    def _folder(self, folder: bytes, fd: int, device: int, opened: list[int]) -> Iterator[Listed]:
        # A stack of its own: trees may be deeper than Python likes to call.
        stack: list[tuple[bytes, int, Iterator[tuple[bytes, Numbers]]]] = []
        inner: list[tuple[bytes, Numbers]] = []
        yield from self._listed(folder, fd, inner)
        stack.append((folder, fd, iter(inner)))
        while stack:
            folder, fd, rest = stack[-1]
            following = next(rest, None)
            if following is None:
                stack.pop()
                if stack:
                    os.close(opened.pop())
                continue
            name, before = following
            path = joined(folder, name)
            if before[DEVICE] != device:
                self.gaps.append(Gap(path, GapReason.OTHER_DEVICE))
                continue
            if len(stack) >= _DEEPEST:
                self.gaps.append(Gap(path, GapReason.TOO_DEEP))
                continue
            try:
                child = os.open(name, FOLDER, dir_fd=fd)
            except FileNotFoundError:
                continue
            except OSError as error:
                # Replaced by something else since it was listed: the next look sees that.
                self._gap(path, error)
                continue
            opened.append(child)
            inner = []
            yield from self._listed(path, child, inner)
            stack.append((path, child, iter(inner)))

    def _listed(self, folder: bytes, fd: int, inner: list[tuple[bytes, Numbers]]) -> Iterator[Listed]:
        try:
            self.visited.add(folder, os.fstat(fd).st_mtime_ns)
            # Named by its descriptor, a folder gives bytes at once.
            names = sorted(os.listdir(b"/proc/self/fd/%d" % fd))  # noqa: PTH208 (of what is open)
        except OSError as error:
            self._gap(folder, error)
            return
        inside = folder + b"/"
        if any(inside.startswith(one) or one.startswith(inside) for one in self._begins):
            names = [name for name in names if not self.is_left_out(inside + name)]
        for first in range(0, len(names), _TOGETHER):
            if self.stopped():
                return
            kept = names[first : first + _TOGETHER]
            try:
                numbers = [numbers_of(os.stat(name, dir_fd=fd, follow_symlinks=False)) for name in kept]
            except OSError:
                kept, numbers = self._one_by_one(folder, fd, kept)
            inner += [(name, one) for name, one in zip(kept, numbers, strict=True) if one[MODE] & _KIND == stat.S_IFDIR]
            yield Listed(folder, fd, kept, numbers)

    def _one_by_one(self, folder: bytes, fd: int, names: Sequence[bytes]) -> tuple[list[bytes], list[Numbers]]:
        """Where one of them is gone by now or cannot be asked: the others all the same."""
        kept: list[bytes] = []
        numbers: list[Numbers] = []
        for name in names:
            try:
                one = numbers_of(os.stat(name, dir_fd=fd, follow_symlinks=False))
            except FileNotFoundError:
                continue
            except OSError as error:
                self._gap(joined(folder, name), error)
                continue
            kept.append(name)
            numbers.append(one)
        return kept, numbers

    def is_left_out(self, path: bytes) -> bool:
        """Whether one of the patterns names this path."""
        return self._left_out is not None and self._left_out.match(path) is not None

    def _gap(self, path: bytes, error: OSError) -> None:
        self.gaps.append(Gap(path or b"/", reason_of(error)))


def reason_of(error: OSError) -> GapReason:
    """Why something was not looked at."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return GapReason.DENIED
    if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENOENT):
        return GapReason.CHANGING
    return GapReason.FAILED


def mount_points(trees: Sequence[bytes]) -> list[bytes]:
    """Where something is mounted inside trees, bind mounts too (proc_pid_mountinfo(5)); none where that is not told."""
    found: list[bytes] = []
    with suppress(OSError), Path("/proc/self/mountinfo").open("rb") as lines:
        for line in lines:
            parts = line.split(b" ")
            if len(parts) > 4:
                path = _unescaped(parts[4])
                if any(path != tree and is_within(path, tree or b"/") for tree in trees):
                    found.append(path)
    return sorted(set(found))


def _unescaped(path: bytes) -> bytes:
    for escape, raw in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        path = path.replace(escape, raw)
    return path
