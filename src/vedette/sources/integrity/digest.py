"""What is in a file and beside it: digest, link target, extended attributes; read as it was at one moment, or said.
Counterpart: `walk` lists the files; `baseline` keeps what is read here."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import stat
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import MappingProxyType
from typing import NamedTuple

from vedette.model.integrity import Entry, FileType, Unread
from vedette.sources.integrity.walk import (
    CTIME,
    DEVICE,
    GID,
    INODE,
    LINKS,
    MODE,
    MTIME,
    SIZE,
    UID,
    Gap,
    GapReason,
    Numbers,
    numbers_of,
)

_ACCESS, _DEFAULT, _CAPABILITY = b"system.posix_acl_access", b"system.posix_acl_default", b"security.capability"
_KIND = 0o170000
_TRIES = 3
_BLOCK = 1 << 20
_WORTH_THREADS = 1 << 18
"""Bytes of a file from which on it is read beside others: of small ones, threads spend more on taking turns than they
gain (2 GiB in files of 21 kB: 3.6 s of CPU by one thread, 5 by two, which took as long)."""
_LARGE, _STRETCHED = 256 << 20, 16
"""A file so long that takes less than so maniest a part of it on the disk may be named sparse."""
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY

Pairs = tuple[tuple[bytes, bytes], ...]

_TYPES = {
    stat.S_IFREG: FileType.FILE,
    stat.S_IFDIR: FileType.DIRECTORY,
    stat.S_IFLNK: FileType.SYMLINK,
    stat.S_IFIFO: FileType.FIFO,
    stat.S_IFSOCK: FileType.SOCKET,
    stat.S_IFBLK: FileType.BLOCK,
    stat.S_IFCHR: FileType.CHARACTER,
}


_GAPS = {
    Unread.DENIED.value: GapReason.DENIED,
    Unread.CHANGING.value: GapReason.CHANGING,
    Unread.VANISHED.value: GapReason.CHANGING,
    Unread.SPARSE.value: GapReason.SPARSE,
}


class Beside(NamedTuple):
    """What few files have: link target, extended attributes, ACL and capability; and why there is no digest."""

    target: bytes = b""
    xattrs: Pairs = ()
    acl: bytes = b""
    capability: bytes = b""
    unread: str = ""


NOTHING_BESIDE = Beside()


class Read(NamedTuple):
    """A path as it was read: `numbers` are those that hold for the digest."""

    numbers: Numbers
    sha256: bytes = b""
    beside: Beside = NOTHING_BESIDE


def type_of(mode: int) -> FileType:
    """The type that `st_mode` says."""
    return _TYPES.get(stat.S_IFMT(mode), FileType.UNKNOWN)


def entry(path: bytes, read: Read) -> Entry:
    """What was read, as others see it."""
    numbers, beside = read.numbers, read.beside
    return Entry(
        path=path,
        type=type_of(numbers[MODE]),
        mode=stat.S_IMODE(numbers[MODE]),
        uid=numbers[UID],
        gid=numbers[GID],
        size=numbers[SIZE],
        mtime_ns=numbers[MTIME],
        ctime_ns=numbers[CTIME],
        inode=numbers[INODE],
        device=numbers[DEVICE],
        links=numbers[LINKS],
        target=beside.target,
        sha256=read.sha256,
        xattrs=MappingProxyType(dict(beside.xattrs)),
        acl=beside.acl,
        capability=beside.capability,
        unread=Unread(beside.unread) if beside.unread else None,
    )


def read_of(one: Entry) -> Read:
    """What was read, from how others see it."""
    kind = next((bits for bits, name in _TYPES.items() if name is one.type), 0)
    numbers = (
        kind | one.mode,
        one.uid,
        one.gid,
        one.size,
        one.mtime_ns,
        one.ctime_ns,
        one.inode,
        one.device,
        one.links,
    )
    unread = one.unread.value if one.unread is not None else ""
    beside = Beside(one.target, tuple(sorted(one.xattrs.items())), one.acl, one.capability, unread)
    return Read(numbers, one.sha256, beside)


class Reader:
    """Reads files of folders that are held open. Give it back with `close`.

    threads: how many read beside each other; SHA-256 runs outside the interpreter's lock. digests: False = nothing is
    opened. sparse: False = long files that are mostly holes are not read: anybody can make one that takes years.
    stopped: asked between blocks; what is under way is then left unread.
    """

    def __init__(
        self,
        threads: int = 0,
        *,
        digests: bool = True,
        sparse: bool = True,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._threads = threads or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._threads, "integrity") if self._threads > 1 else None
        self._digests = digests
        self._sparse = sparse
        self._stopped = stopped
        # Reading would otherwise write a time to every file; only root may ask so of files of others.
        self._flags = _OPEN | (os.O_NOATIME if os.geteuid() == 0 else 0)
        self._local = threading.local()
        self.bytes = 0

    def read(self, fd: int, wanted: Sequence[tuple[bytes, Numbers]]) -> list[Read | None]:
        """Each of these in the folder `fd`, in their order; None = gone by now."""
        sizes = [numbers[SIZE] if stat.S_ISREG(numbers[MODE]) else 0 for _, numbers in wanted]
        self.bytes += sum(sizes)
        large = [at for at, size in enumerate(sizes) if size >= _WORTH_THREADS] if self._pool is not None else []
        if self._pool is None or not large or len(wanted) < 2:
            return self._some(fd, wanted)
        # Every so manieth one, so that none gets all the large ones that stand beside each other; the small ones here.
        step = self._threads
        shares = [large[at::step] for at in range(step)]
        parts = [self._pool.submit(self._some, fd, [wanted[at] for at in share]) for share in shares]
        found: list[Read | None] = [None] * len(wanted)
        small = [at for at, size in enumerate(sizes) if size < _WORTH_THREADS]
        for at, read in zip(small, self._some(fd, [wanted[one] for one in small]), strict=True):
            found[at] = read
        for share, part in zip(shares, parts, strict=True):
            for at, read in zip(share, part.result(), strict=True):
                found[at] = read
        return found

    def close(self) -> None:
        """Give back the threads."""
        if self._pool is not None:
            self._pool.shutdown()

    def _some(self, fd: int, wanted: Sequence[tuple[bytes, Numbers]]) -> list[Read | None]:
        """As nearly all are, at once: short, with nothing beside it, unchanged while it is read. Others take more."""
        # Names looked up once, not for each of a hundred thousand files.
        open_, readv, listxattr, fstat, close, sha256 = (
            os.open,
            os.readv,
            os.listxattr,
            os.fstat,
            os.close,
            hashlib.sha256,
        )
        flags, buffer, most = self._flags, self._buffer(), _BLOCK if self._digests else 0
        buffers = [buffer]
        found: list[Read | None] = []
        for name, numbers in wanted:
            size = numbers[SIZE]
            if size < most and numbers[MODE] & _KIND == stat.S_IFREG:
                try:
                    file = open_(name, flags, dir_fd=fd)
                    try:
                        count = readv(file, buffers)
                        plain = not listxattr(file) and numbers_of(fstat(file)) == numbers
                    finally:
                        close(file)
                except OSError:
                    plain = False
                if plain and count == size:
                    found.append(Read(numbers, sha256(buffer[:count], usedforsecurity=False).digest()))
                    continue
            found.append(self._one(fd, name, numbers))
        return found

    def _buffer(self) -> memoryview:
        """Of this thread. At the beginning of a page: sixteen bytes further on, the kernel copies at a third of it."""
        try:
            found: memoryview = self._local.buffer
        except AttributeError:
            found = self._local.buffer = memoryview(mmap.mmap(-1, _BLOCK))
        return found

    def _one(self, fd: int, name: bytes, numbers: Numbers) -> Read | None:
        """Read until it stays the same while it is read."""
        for _ in range(_TRIES):
            kind = stat.S_IFMT(numbers[MODE])
            if kind == stat.S_IFREG and self._digests:
                try:
                    file = os.open(name, self._flags, dir_fd=fd)
                except OSError as error:
                    if error.errno == errno.ENOENT:
                        return None
                    if error.errno in (errno.EACCES, errno.EPERM):
                        return Read(numbers, b"", self._beside(fd, name, kind, Unread.DENIED))
                    if error.errno not in (errno.ELOOP, errno.ENXIO):
                        return Read(numbers, b"", self._beside(fd, name, kind, Unread.FAILED))
                    digest, beside = b"", NOTHING_BESIDE  # it is something else by now
                    after = numbers
                else:
                    try:
                        if not self._sparse and _is_sparse(file):
                            return Read(numbers, b"", _beside_of(file, b"", Unread.SPARSE))
                        digest = self._digest(file, numbers[SIZE])
                        beside = _beside_of(file, b"", "" if digest else Unread.CHANGING)
                        after = numbers_of(os.fstat(file))
                    except OSError:
                        return Read(numbers, b"", self._beside(fd, name, kind, Unread.FAILED))
                    finally:
                        os.close(file)
                    if after == numbers and digest:
                        return Read(numbers, digest, beside)
            else:
                unread = Unread.NOT_ASKED if kind == stat.S_IFREG else ""
                found = Read(numbers, b"", self._beside(fd, name, kind, unread))
                if (current := _listed(fd, name)) == numbers:
                    return found
                if current is None:
                    return None
            following = _listed(fd, name)
            if following is None:
                return None
            numbers = following
        kind = stat.S_IFMT(numbers[MODE])
        unread = Unread.CHANGING if kind == stat.S_IFREG else ""
        return Read(numbers, b"", self._beside(fd, name, kind, unread))

    def _digest(self, file: int, size: int) -> bytes:
        """SHA-256 of an open file; empty where it was stopped, or grows without end."""
        buffer = self._buffer()
        if size < _BLOCK:
            count = os.readv(file, [buffer])
            return hashlib.sha256(buffer[:count], usedforsecurity=False).digest() if count == size else b""
        digest = hashlib.sha256(usedforsecurity=False)
        left = size
        while (count := os.readv(file, [buffer])) > 0:
            digest.update(buffer[:count])
            left -= count
            if left < 0 or self._stopped():
                return b""
        return digest.digest() if left == 0 else b""

    def _beside(self, fd: int, name: bytes, kind: int, unread: str) -> Beside:
        path = b"/proc/self/fd/%d/%s" % (fd, name) if name else b"/proc/self/fd/%d" % fd
        target = b""
        if kind == stat.S_IFLNK:
            with suppress(OSError):
                target = os.readlink(name, dir_fd=fd)
        # The folder itself is named by its descriptor alone, which is a link there.
        return _beside_of(path if name else fd, target, unread)


def _beside_of(file: int | bytes, target: bytes, unread: str) -> Beside:
    follow = isinstance(file, int)
    xattrs: list[tuple[bytes, bytes]] = []
    access = default = capability = b""
    try:
        names = os.listxattr(file, follow_symlinks=follow)
    except OSError:
        # Not of this file system; whatever it is, the digest is more.
        names = []
    for text in names:
        name = os.fsencode(text)
        try:
            value = os.getxattr(file, text, follow_symlinks=follow)
        except OSError:
            value = b""
        if name == _ACCESS:
            access = value
        elif name == _DEFAULT:
            default = value
        elif name == _CAPABILITY:
            capability = value
        else:
            xattrs.append((name, value))
    acl = b"".join(len(one).to_bytes(4, "little") + one for one in (access, default)) if access or default else b""
    if not (target or xattrs or acl or capability or unread):
        return NOTHING_BESIDE
    return Beside(target, tuple(sorted(xattrs)), acl, capability, str(unread))


def _is_sparse(file: int) -> bool:
    status = os.fstat(file)
    return status.st_size > _LARGE and status.st_blocks * 512 * _STRETCHED < status.st_size


def gap_of(path: bytes, read: Read) -> Gap | None:
    """That the content of a file was to be read and was not; None where it was, or nobody asked."""
    if read.beside.unread in ("", Unread.NOT_ASKED):
        return None
    return Gap(path, _GAPS.get(read.beside.unread, GapReason.FAILED))


def _listed(fd: int, name: bytes) -> Numbers | None:
    try:
        return numbers_of(os.stat(name, dir_fd=fd, follow_symlinks=False) if name else os.fstat(fd))
    except OSError:
        return None
