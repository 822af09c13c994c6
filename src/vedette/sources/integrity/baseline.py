"""How trees were: a file in columns, block by block, in the order of a walk, with a digest and a signature at its end.
Counterpart: `compare` reads it beside a walk; docs/integrity.md describes the format."""

from __future__ import annotations

import hashlib
import os
import struct
import sys
import tempfile
import threading
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

import msgspec
import zstandard

from vedette.model.errors import StateError
from vedette.sources.integrity.digest import NOTHING_BESIDE, Beside, Read
from vedette.sources.integrity.walk import CTIME, MTIME, Numbers, order

FORMAT = b"vedette baseline "
VERSION = 1
_ROWS_TOGETHER = 8192
_LARGEST = 1 << 28
"""Bytes of a block unpacked; what claims more is no block of ours."""
_HEADER, _ROWS, _FOOTER = b"H", b"R", b"F"
_NO_DIGEST = bytes(32)
_MASK = 0xFFFFFFFFFFFFFFFF
_Beside = tuple[bytes, list[tuple[bytes, bytes]], bytes, bytes, str]

Sign = Callable[[bytes], bytes]
"""A signature over the SHA-256 of the whole file."""
Check = Callable[[bytes, bytes], bool]
"""Whether the second is a signature of ours over the first."""


class Row(NamedTuple):
    """One path of a baseline."""

    folder: bytes
    name: bytes
    read: Read

    @property
    def key(self) -> tuple[bytes, bytes]:
        """What rows are sorted by."""
        return order(self.folder), self.name


class Run:
    """Rows of one folder that follow each other, in columns: most are held against a listing without being taken apart.

    latest: the newest change time among them, nanoseconds. unread: whether a digest is missing that was wanted.
    """

    __slots__ = ("_beside", "_digests", "_first", "folder", "latest", "names", "numbers", "unread")

    def __init__(
        self,
        folder: bytes,
        names: Sequence[bytes],
        numbers: Sequence[Numbers],
        latest: int,
        digests: bytes,
        beside: Mapping[int, _Beside],
        first: int,
    ) -> None:
        """digests, beside: of the whole block, in which the run begins at `first`."""
        self.folder = folder
        self.names = names
        self.numbers = numbers
        self.latest = latest
        self._digests = digests
        self._beside = beside
        self._first = first
        self.unread = any(beside[at][4] for at in range(first, first + len(names)) if at in beside) if beside else False

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Self:
        """The same of rows that were taken apart already; all of one folder."""
        numbers = [row.read.numbers for row in rows]
        return cls(
            rows[0].folder,
            [row.name for row in rows],
            numbers,
            max(one[CTIME] for one in numbers),
            b"".join(row.read.sha256 or _NO_DIGEST for row in rows),
            {at: _flat(row.read.beside) for at, row in enumerate(rows) if row.read.beside != NOTHING_BESIDE},
            0,
        )

    def read(self, at: int) -> Read:
        """What the row at this place of the run says."""
        place = self._first + at
        digest = self._digests[place * 32 : place * 32 + 32]
        more = self._beside.get(place)
        return Read(
            self.numbers[at],
            b"" if digest == _NO_DIGEST else digest,
            NOTHING_BESIDE if more is None else Beside(more[0], tuple(more[1]), more[2], more[3], more[4]),
        )

    def is_unread(self, at: int) -> bool:
        """Whether a digest is missing there that was wanted."""
        more = self._beside.get(self._first + at)
        return more is not None and bool(more[4])

    def holds(self, at: int, read: Read) -> bool:
        """Whether it says just this, and that was read."""
        if read.beside is NOTHING_BESIDE and self._first + at not in self._beside:
            place = (self._first + at) * 32
            digest = self._digests[place : place + 32]
            return digest == (read.sha256 or _NO_DIGEST) and read.numbers == self.numbers[at]
        return self.read(at) == read and not read.beside.unread

    def rows(self, first: int = 0) -> Iterator[Row]:
        """One after the other, from the one at `first` on."""
        for at in range(first, len(self.names)):
            yield Row(self.folder, self.names[at], self.read(at))


def in_runs(rows: Iterable[Row]) -> Iterator[Run]:
    """Rows in the order of a walk, folder by folder; a large folder comes in several."""
    for _, found in groupby(rows, key=lambda row: row.folder):
        together: list[Row] = []
        for row in found:
            together.append(row)
            if len(together) >= _ROWS_TOGETHER:
                yield Run.of(together)
                together = []
        if together:
            yield Run.of(together)


class Header(msgspec.Struct, frozen=True):
    """What a baseline is of. began: nanoseconds since 1970 UTC. mounts: where something was mounted in the trees."""

    trees: list[bytes]
    leave_out: list[bytes]
    began: int
    host: str = ""
    digests: bool = True
    mounts: list[bytes] = []


class Footer(msgspec.Struct, frozen=True):
    """How much it is. gaps: paths that were not looked at, and why. ended: nanoseconds since 1970 UTC."""

    rows: int
    ended: int
    gaps: list[tuple[bytes, str]]


class _Block(msgspec.Struct, frozen=True):
    folders: list[bytes]
    counts: list[int]
    names: list[bytes]
    numbers: bytes
    """Nine columns of little-endian 64-bit numbers."""
    digests: bytes
    beside: dict[int, _Beside]


def _flat(beside: Beside) -> _Beside:
    return beside.target, list(beside.xattrs), beside.acl, beside.capability, beside.unread


def _column(values: Sequence[int]) -> bytes:
    """Little-endian 64-bit numbers. Inodes may be above what a signed one holds, times below nothing: their bits."""
    try:
        column = array("Q", values)
    except OverflowError:
        column = array("Q", [value & _MASK for value in values])
    if sys.byteorder == "big":
        column.byteswap()
    return column.tobytes()


def _values(data: bytes, *, signed: bool) -> list[int]:
    column = array("q" if signed else "Q", data)
    if sys.byteorder == "big":
        column.byteswap()
    return column.tolist()


def _pack(value: object) -> bytes:
    return zstandard.ZstdCompressor(3).compress(msgspec.msgpack.encode(value))


class BaselineWriter:
    """Writes one; what was there before is replaced when all of it is on the disk, by `finish`."""

    def __init__(self, path: Path, header: Header, sign: Sign | None = None) -> None:
        """OSError where the folder cannot be written."""
        self._path = path
        self._sign = sign
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        self._temporary = Path(name)
        self._file: BinaryIO = os.fdopen(handle, "wb")
        self._hash = hashlib.sha256()
        self.rows = 0
        self._clear()
        self._write(FORMAT + b"%d\n" % VERSION)
        self._block(_HEADER, _pack(header))

    def add(self, folder: bytes, name: bytes, read: Read) -> None:
        """The next row, in the order of a walk."""
        if not self._folders or self._folders[-1] != folder:
            self._folders.append(folder)
            self._counts.append(0)
        self._counts[-1] += 1
        if read.beside is not NOTHING_BESIDE and read.beside != NOTHING_BESIDE:
            self._beside[len(self._names)] = _flat(read.beside)
        self._names.append(name)
        self.rows += 1
        self._numbers.append(read.numbers)
        self._digests.append(read.sha256 or _NO_DIGEST)
        if len(self._names) >= _ROWS_TOGETHER:
            self._flush()

    def finish(self, footer: Footer) -> None:
        """All is written: put it in its place."""
        self._flush()
        self._block(_FOOTER, _pack(footer))
        digest = self._hash.digest()
        signature = self._sign(digest) if self._sign is not None else b""
        self._file.write(digest + struct.pack("<H", len(signature)) + signature)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def abandon(self) -> None:
        """Leave what was there as it is; nothing where it is finished."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)

    def _flush(self) -> None:
        if not self._names:
            return
        numbers = b"".join(map(_column, zip(*self._numbers, strict=True)))
        block = _Block(self._folders, self._counts, self._names, numbers, b"".join(self._digests), self._beside)
        self._block(_ROWS, _pack(block))
        self._clear()

    def _clear(self) -> None:
        self._folders: list[bytes] = []
        self._counts: list[int] = []
        self._names: list[bytes] = []
        self._numbers: list[Numbers] = []
        self._digests: list[bytes] = []
        self._beside: dict[int, _Beside] = {}

    def _block(self, kind: bytes, packed: bytes) -> None:
        self._write(kind + struct.pack("<I", len(packed)) + packed)

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)


class Baseline:
    """One that was written, held open; close it. Rows are read anew each time, a block at a time."""

    def __init__(self, path: Path, check: Check | None = None) -> None:
        """StateError where it cannot be read, is not whole, is newer, or where `check` says it is not signed by us."""
        self.path = path
        self.digest = ""
        """SHA-256 of it, as hexadecimal."""
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise StateError(f"the baseline {path} cannot be read: {error.strerror}") from None
        try:
            self._verify(check)
            (self.header, self.footer), self._places = self._ends()
        except StateError:
            self._file.close()
            raise
        except (OSError, ValueError, struct.error, msgspec.DecodeError, zstandard.ZstdError) as error:
            self._file.close()
            raise self._broken(str(error)) from None
        self._lock = threading.Lock()
        self._holders = 0
        self._closed = False
        self._firsts: list[tuple[bytes, bytes]] = []
        self._found: dict[int, dict[tuple[bytes, bytes], Read]] = {}

    def close(self) -> None:
        """Give back the file, when nobody holds it any more."""
        with self._lock:
            self._closed = True
            if not self._holders:
                self._file.close()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Whoever reads rows holds it meanwhile: another thread may put a new one in its place."""
        with self._lock:
            self._holders += 1
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1
                if self._closed and not self._holders:
                    self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def rows(self) -> Iterator[Row]:
        """Every row, in the order of a walk."""
        for place in self._places:
            yield from self._rows_at(place)

    def runs(self) -> Iterator[Run]:
        """Every row, in the order of a walk, by folders."""
        for place in self._places:
            yield from self._runs_at(place)

    def rows_in(self, folder: bytes) -> Iterator[Row]:
        """The rows of what lies in a folder, however deep, in the order of a walk."""
        key = order(folder)
        for place in self._places[max(bisect_right(self._first_keys(), (key, b"")) - 1, 0) :]:
            for row in self._rows_at(place):
                if row.folder == folder or row.folder.startswith(folder + b"/"):
                    yield row
                elif order(row.folder) > key:
                    return

    def _first_keys(self) -> list[tuple[bytes, bytes]]:
        if len(self._firsts) != len(self._places):
            self._firsts = [next(self._rows_at(place)).key for place in self._places]
        return self._firsts

    def find(self, folder: bytes, name: bytes) -> Read | None:
        """One row; the blocks that were asked for last are kept unpacked."""
        self._first_keys()
        at = bisect_right(self._firsts, (order(folder), name)) - 1
        if at < 0:
            return None
        block = self._found.pop(at, None)
        if block is None:
            block = {(row.folder, row.name): row.read for row in self._rows_at(self._places[at])}
        self._found[at] = block
        if len(self._found) > 4:
            del self._found[next(iter(self._found))]
        return block.get((folder, name))

    def _verify(self, check: Check | None) -> None:
        first = self._file.readline(64)
        if not first.startswith(FORMAT) or not first[len(FORMAT) :].strip().isdigit():
            raise StateError(f"{self.path} is no baseline")
        version = int(first[len(FORMAT) :])
        if version > VERSION:
            raise StateError(
                f"{self.path} is of version {version}, newer than this program knows", hint="upgrade, or make it anew"
            )
        size = os.fstat(self._file.fileno()).st_size
        digest = hashlib.sha256(first)
        position = len(first)
        while True:
            start = self._file.read(5)
            if len(start) < 5:
                raise self._broken("it is cut short")
            kind, length = start[:1], struct.unpack("<I", start[1:])[0]
            if kind not in (_HEADER, _ROWS, _FOOTER) or position + 5 + length > size:
                raise self._broken("it is cut short")
            digest.update(start)
            left = length
            while left > 0:
                data = self._file.read(min(left, 1 << 20))
                if not data:
                    raise self._broken("it is cut short")
                digest.update(data)
                left -= len(data)
            position += 5 + length
            if kind == _FOOTER:
                break
        end = self._file.read(34)
        signature = self._file.read()
        if len(end) < 34 or end[:32] != digest.digest() or len(signature) != struct.unpack("<H", end[32:])[0]:
            raise self._broken("its digest does not fit")
        self.digest = digest.hexdigest()
        if check is not None and not check(digest.digest(), signature):
            raise self._broken("it is not signed by this host", hint="find out who wrote it before it is made anew")

    def _ends(self) -> tuple[tuple[Header, Footer], list[tuple[int, int]]]:
        self._file.seek(0)
        self._file.readline(64)
        header: Header | None = None
        places: list[tuple[int, int]] = []
        while True:
            start = self._file.read(5)
            length = struct.unpack("<I", start[1:])[0]
            if start[:1] == _ROWS:
                places.append((self._file.tell(), length))
                self._file.seek(length, os.SEEK_CUR)
                continue
            unpacked = _unpack(self._file.read(length))
            if start[:1] == _HEADER:
                header = msgspec.msgpack.decode(unpacked, type=Header)
            elif header is None:
                raise ValueError("it has no header")
            else:
                return (header, msgspec.msgpack.decode(unpacked, type=Footer)), places

    def _rows_at(self, place: tuple[int, int]) -> Iterator[Row]:
        for run in self._runs_at(place):
            yield from run.rows()

    def _runs_at(self, place: tuple[int, int]) -> Iterator[Run]:
        try:
            packed = os.pread(self._file.fileno(), place[1], place[0])
            block = msgspec.msgpack.decode(_unpack(packed), type=_Block)
            count, width = len(block.names), len(block.names) * 8
            if (len(block.numbers), len(block.digests), sum(block.counts)) != (9 * width, 32 * count, count):
                raise ValueError("its columns are not as long as each other")
            if not count or min(block.counts) < 1:
                raise ValueError("it has folders of nothing")
            # Only times may lie below nothing.
            columns = [
                _values(block.numbers[at * width : at * width + width], signed=at in (MTIME, CTIME)) for at in range(9)
            ]
        except (OSError, ValueError, msgspec.DecodeError, zstandard.ZstdError) as error:
            raise self._broken(str(error)) from None
        numbers: Sequence[Numbers] = list(zip(*columns, strict=True))
        at = 0
        for folder, together in zip(block.folders, block.counts, strict=True):
            end = at + together
            latest = max(columns[CTIME][at:end], default=0)
            yield Run(folder, block.names[at:end], numbers[at:end], latest, block.digests, block.beside, at)
            at = end

    def _broken(self, words: str, hint: str = "") -> StateError:
        return StateError(f"the baseline {self.path} is not as it was written: {words}", hint=hint)


def _unpack(packed: bytes) -> bytes:
    if not 0 <= zstandard.frame_content_size(packed) <= _LARGEST:
        raise ValueError("a block is too large")
    return zstandard.ZstdDecompressor().decompress(packed)
