"""Every change on the file systems that trees lie on, with the process that made it, from the kernel.
Counterpart: `watch` picks those inside trees; without the privilege it takes inotify instead."""

# fanotify(7), fanotify_init(2), fanotify_mark(2), open_by_handle_at(2). By ctypes: no library knows names and pids.
from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

_CLOEXEC, _NONBLOCK, _UNLIMITED_QUEUE, _UNLIMITED_MARKS = 0x1, 0x2, 0x10, 0x20
_REPORT_DIR_FID, _REPORT_NAME = 0x400, 0x800
_MARK_ADD, _MARK_FILESYSTEM = 0x1, 0x100
_AT_FDCWD = -100

MODIFY, ATTRIB, CLOSE_WRITE, MOVED_FROM, MOVED_TO = 0x2, 0x4, 0x8, 0x40, 0x80
CREATE, DELETE, OVERFLOW, ON_FOLDER = 0x100, 0x200, 0x4000, 0x40000000
_WANTED = MODIFY | ATTRIB | CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE | ON_FOLDER

_METADATA = struct.Struct("=IBBHQii")
_INFO = struct.Struct("=BBH")
_DFID_NAME = 2
_READ = 256 * 1024
_MOST_FOLDERS = 50_000


class Noticed(NamedTuple):
    """Something happened to a path. pid: of who did it; 0 = not known. entered: it is a folder that may be full."""

    path: bytes
    pid: int = 0
    entered: bool = False


class Fanotify:
    """Marks the file systems of trees; OSError where that is not allowed. Give it back with `close`.

    It outlives the privileges it was opened with, but for CAP_DAC_READ_SEARCH.
    """

    name = "fanotify"

    def __init__(self, trees: Sequence[bytes], *, unlimited: bool = True) -> None:
        """unlimited: the queue, which then costs kernel memory instead of events."""
        self._libc = ctypes.CDLL(None, use_errno=True)
        flags = _CLOEXEC | _NONBLOCK | _UNLIMITED_MARKS | _REPORT_DIR_FID | _REPORT_NAME
        self.fd = self._called("fanotify_init", flags | (_UNLIMITED_QUEUE if unlimited else 0), os.O_RDONLY)
        self._mounts: dict[bytes, int] = {}
        self._folders: dict[bytes, bytes] = {}
        self.unmarked: list[bytes] = []
        """Trees on file systems that cannot be marked: scans alone see those."""
        try:
            for tree in trees:
                self._mark(tree or b"/")
            if not self._mounts:
                raise OSError(None, "no file system can be marked")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give back the descriptors."""
        for fd in (self.fd, *self._mounts.values()):
            with suppress(OSError):
                os.close(fd)
        self._mounts = {}

    def read(self) -> tuple[list[Noticed], bool]:
        """What has happened, without waiting; and whether something was lost because the queue was full."""
        try:
            data = os.read(self.fd, _READ)
        except BlockingIOError:
            return [], False
        found: list[Noticed] = []
        lost = False
        for mask, pid, info in _events(data):
            if mask & OVERFLOW:
                lost = True
                continue
            folder = self._folder(info)
            if mask & ON_FOLDER and mask & (MOVED_FROM | MOVED_TO | DELETE):
                # Paths below it are others now.
                self._folders.clear()
            if folder is None:
                continue
            name = _name(info)
            path = folder if name == b"." else folder.rstrip(b"/") + b"/" + name
            found.append(Noticed(path, pid, bool(mask & ON_FOLDER and mask & (MOVED_TO | CREATE))))
        return found, lost

    def _mark(self, tree: bytes) -> None:
        try:
            system = os.statvfs(tree).f_fsid.to_bytes(8, "little")
            if system in self._mounts:
                return
            self._called(
                "fanotify_mark", self.fd, _MARK_ADD | _MARK_FILESYSTEM, ctypes.c_uint64(_WANTED), _AT_FDCWD, tree
            )
            self._mounts[system] = os.open(tree, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno in (1, 13):  # EPERM, EACCES: nothing can be marked at all
                raise
            self.unmarked.append(tree)

    def _folder(self, info: bytes) -> bytes | None:
        """Where a folder is that the kernel names by a handle; None where it is gone."""
        size = struct.unpack_from("=I", info, 8)[0]
        handle = info[: 16 + size]
        known = self._folders.get(handle)
        if known is not None:
            return known
        mount = self._mounts.get(info[:8])
        if mount is None:
            return None
        fd = self._libc.open_by_handle_at(mount, handle[8:], os.O_PATH | os.O_CLOEXEC)
        if fd < 0:
            return None  # ESTALE: whoever removed it is told of by its own folder
        try:
            path = os.readlink(b"/proc/self/fd/%d" % fd)  # noqa: PTH115 (bytes)
        except OSError:
            return None
        finally:
            os.close(fd)
        if len(self._folders) >= _MOST_FOLDERS:
            self._folders.clear()
        self._folders[handle] = path
        return path

    def _called(self, name: str, *arguments: object) -> int:
        result = int(getattr(self._libc, name)(*arguments))
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), name)
        return result


def _events(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Mask, process id, and the folder and name: file system id, handle, name."""
    at = 0
    while at + _METADATA.size <= len(data):
        length, _, _, first, mask, fd, pid = _METADATA.unpack_from(data, at)
        if fd >= 0:
            os.close(fd)
        if mask & OVERFLOW:
            yield mask, pid, b""
        info = at + first
        while info + _INFO.size <= at + length:
            kind, _, size = _INFO.unpack_from(data, info)
            if kind == _DFID_NAME:
                yield mask, pid, data[info + _INFO.size : info + size]
            if size == 0:
                break
            info += size
        at += max(length, _METADATA.size)


def _name(info: bytes) -> bytes:
    """The name behind the handle, to its end."""
    size: int = struct.unpack_from("=I", info, 8)[0]
    return info[16 + size :].partition(b"\0")[0]
