"""Finds a log again under the name rotation gave it: by inode, by its first bytes, plain or compressed.
Counterpart: follow.py asks where the bytes after a cursor are now, and what came between them and today's file."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

from vedette.sources.lines import BEFORE

HEAD = 256
"""How many of a file's first bytes tell it from others."""
ENOUGH = 16
"""How many of them it takes where nothing else is known."""


class _Unpacking(Protocol):
    def read(self, size: int, /) -> bytes: ...
    def close(self) -> None: ...


DECOMPRESSORS: dict[str, Callable[[str], _Unpacking]] = {
    ".gz": gzip.GzipFile,
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
}
DAMAGED = (EOFError, OSError, ValueError, lzma.LZMAError, zlib.error)
"""What reading a compressed file that is cut or broken raises."""

_ROTATED = re.compile(r"(?P<number>\.\d{1,4})|[-.](?P<date>\d[\d.:_T-]{5,})")


def digest(data: bytes) -> str:
    """Short hash that tells contents apart."""
    return blake2b(data, digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Place:
    """Where reading stopped, and how to recognise it.

    head: first bytes of the file (at most 256) as (length, hash). tail: the same of up to 64 bytes before `offset`.
    """

    device: int
    inode: int
    generation: int
    offset: int
    skipping: bool
    head: tuple[int, str]
    tail: tuple[int, str]


@dataclass(frozen=True, slots=True)
class Sibling:
    """A rotated file. rank: (kind of name, age); of one kind, the greater was rotated later."""

    path: str
    rank: tuple[str, str]
    suffix: str


def siblings(path: str) -> list[Sibling]:
    """Rotated files of `path` in its folder, oldest first; plain before compressed where both are there."""
    log = Path(path)
    try:
        entries = list(log.parent.iterdir())
    except OSError:
        return []
    found = []
    for entry in entries:
        suffix = entry.suffix if entry.suffix in DECOMPRESSORS else ""
        plain = entry.name.removesuffix(suffix)
        if plain.startswith(log.name):
            rotation = _ROTATED.fullmatch(plain, len(log.name))
        elif log.suffix and plain.startswith(log.stem) and plain.endswith(log.suffix):
            rotation = _ROTATED.fullmatch(plain, len(log.stem), len(plain) - len(log.suffix))
        else:
            continue
        if rotation is None:
            continue
        if number := rotation["number"]:
            rank = ("number", f"{9999 - int(number[1:]):04}")
        else:
            rank = ("date", re.sub(r"\D", "", rotation["date"]))
        found.append(Sibling(str(entry), rank, suffix))
    return sorted(found, key=lambda sibling: (sibling.rank, sibling.suffix))


def rotation_of(path: str, paths: Iterable[str]) -> bool:
    """Whether `path` looks like a rotated file of one of `paths`."""
    name = Path(path)
    return any(
        any(sibling.path == path for sibling in siblings(other))
        for other in paths
        if other != path and Path(other).parent == name.parent and name.name.startswith(Path(other).stem)
    )


def open_plain(path: str) -> tuple[int, os.stat_result]:
    """Descriptor and status of a regular file; OSError for anything else (a pipe would hang or eat its data)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise OSError(f"not a regular file: {path}")
    return descriptor, status


def matches(descriptor: int, place: Place) -> bool:
    """The open file has the bytes that stood before `place`."""
    head, tail = place.head, place.tail
    return (
        digest(os.pread(descriptor, head[0], 0)) == head[1]
        and digest(os.pread(descriptor, tail[0], place.offset - tail[0])) == tail[1]
        and os.fstat(descriptor).st_size >= place.offset
    )


def crash_hole(descriptor: int, place: Place) -> bool:
    """The file begins as `place` says, but what stood before it reads as NULs: written, never on the disk."""
    size, wanted = place.head
    if place.offset <= HEAD + BEFORE or digest(os.pread(descriptor, size, 0)) != wanted:
        return False
    tail = os.pread(descriptor, place.tail[0], place.offset - place.tail[0])
    return len(tail) == place.tail[0] and tail.endswith(b"\0")


def find(path: str, place: Place) -> tuple[Sibling | None, str] | None:
    """Where the file of `place` is now: (sibling, its path), sibling None = still at `path`. None = gone.

    The same inode is asked first, then any file that begins and goes on the same.
    """
    known: dict[str, Sibling | None] = {path: None}
    known.update((sibling.path, sibling) for sibling in reversed(siblings(path)))
    plain = []
    for name, sibling in known.items():
        if sibling is not None and sibling.suffix:
            continue
        try:
            descriptor, status = open_plain(name)
        except OSError:
            continue
        try:
            if not (matches(descriptor, place) or (status.st_ino == place.inode and crash_hole(descriptor, place))):
                continue
        finally:
            os.close(descriptor)
        if status.st_ino == place.inode:
            return sibling, name
        plain.append(name)
    # Little was seen of it: other files may begin like it, and only the inode tells.
    certain = place.offset > 0 or place.head[0] >= ENOUGH
    if plain and certain:
        return known[plain[0]], plain[0]
    for name, sibling in known.items():
        if sibling is not None and sibling.suffix:
            try:
                same = Path(name).stat().st_ino == place.inode
                packed = Packed(name, 0)
            except OSError:
                continue
            try:
                if (same or certain) and packed.begins(place.head):
                    return sibling, name
            except DAMAGED:
                continue
            finally:
                packed.close()
    return None


def between(path: str, sibling: Sibling | None) -> list[Sibling]:
    """Files rotated after `sibling` and before today's `path`, oldest first, each once (plain before compressed)."""
    if sibling is None:
        return []
    later: dict[tuple[str, str], Sibling] = {}
    for other in siblings(path):
        if other.rank[0] == sibling.rank[0] and other.rank > sibling.rank:
            later.setdefault(other.rank, other)
    return list(later.values())


class Packed:
    """A compressed file read from an offset of what it unpacks to; blocking. DAMAGED on broken data."""

    def __init__(self, path: str, offset: int) -> None:
        self._offset = offset
        self._file = DECOMPRESSORS[Path(path).suffix](path)

    def begins(self, head: tuple[int, str]) -> bool:
        """The unpacked file begins so."""
        return digest(self._file.read(head[0])) == head[1]

    def read(self, size: int) -> bytes:
        """The next bytes; b"" at the end."""
        while self._offset:
            passed = len(self._file.read(min(self._offset, 1 << 20)))
            if not passed:
                break
            self._offset -= passed
        return self._file.read(size)

    def close(self) -> None:
        """Give back the descriptor."""
        self._file.close()
