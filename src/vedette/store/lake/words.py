"""What occurs in a row group: a filter over its words and the parts of them, which may only ever say too much.
Counterpart: `rewriting` makes one a row group, in a side file; `reader` skips what cannot hold a literal."""

from __future__ import annotations

import math
import mmap
import struct
import zlib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from vedette.model.batch import Int64
from vedette.store.lake.columns import spans

NAME, VERSION = "vedette-lake-words", 3
GRAM = 4
"""Bytes of a part of a word: one at every byte of a record."""
_PART = 7

UInt32 = NDArray[np.uint32]
_MOST_BITS = 22
_FEWEST_BITS = 6
_FULL = 0.3
"""How many of the bits may be set: a literal has several parts, all of which must be there."""
_KEPT = 1 << 17
_PIECE = 1 << 16
"""Bytes looked at together: what is made of them stays in the processor's cache."""

_LOWER = np.frombuffer(bytes(range(256)).lower(), np.uint8)
_ALNUM = np.array([chr(byte).isalnum() and byte < 128 for byte in range(256)])
_NEWLINE = 10
# Any odd factors do; the second is the inverse of the first, modulo 2**64.
_FACTOR = 0x9E3779B97F4A7C15
_INVERSE = pow(_FACTOR, -1, 2**64)
_SPREAD = np.uint32(0x9E3779B1)


# Name, version, bytes of the head and its checksum; behind the head stand the filters, one after the other.
_FRONT = struct.Struct("<18sBII")
_PAGE = 4096
"""Bytes of a filter that have a checksum of their own: a search looks at a few of them."""


class _Head(msgspec.Struct, array_like=True):
    """sizes: bytes of each filter. checksums: uint32, of each page of each filter."""

    sizes: list[int]
    checksums: bytes


class _First(msgspec.Struct, array_like=True):
    """What version 1 was, all of it."""

    name: str
    version: int
    checksum: int
    groups: list[bytes]


class Filters:
    """The filters of a data file, a row group each, looked at where they lie: of most a page or two says no."""

    def __init__(self, data: bytes | mmap.mmap, starts: Sequence[int], sizes: Sequence[int], sums: UInt32 | None):
        self._data, self._starts, self._sizes, self._sums = data, starts, sizes, sums
        pages = np.asarray([-(-size // _PAGE) for size in sizes], np.int64)
        self._pages = (np.cumsum(pages) - pages).tolist()

    def __len__(self) -> int:
        return len(self._sizes)

    def may_hold(self, group: int, keys: UInt32) -> bool:
        """Whether all of these may be there; False = they are not. A page that is damaged says nothing."""
        start, size = self._starts[group], self._sizes[group]
        places = _places(keys >> np.uint32(32 - _MOST_BITS), size * 8)
        sound: set[int] = set()
        for place in places.tolist():
            at = place >> 3
            if (page := at // _PAGE) not in sound:
                if not self._is_sound(group, page):
                    return True
                sound.add(page)
            if not self._data[start + at] >> (7 - (place & 7)) & 1:
                return False
        return True

    def _is_sound(self, group: int, page: int) -> bool:
        if self._sums is None:
            return True
        first = self._starts[group] + page * _PAGE
        last = min(first + _PAGE, self._starts[group] + self._sizes[group])
        return zlib.crc32(self._data[first:last]) == int(self._sums[self._pages[group] + page])


def words_of(table: Any) -> bytes:
    """The filter of a table's records: whole bytes, 2**6 to 2**22 bits."""
    return build(spans(table.column("raw"))[0])


def build(block: bytes) -> bytes:
    """The filter of the records in `block`, a newline behind each."""
    marks = np.zeros(1 << _MOST_BITS, np.bool_)
    shift = np.uint32(32 - _MOST_BITS)
    for piece in _pieces(block):
        data = _LOWER[np.frombuffer(piece, np.uint8)]
        marks[_grams(data) >> shift] = True
        marks[np.concatenate([_tokens(data)[2], _address_parts(data)]) >> shift] = True
    found = np.flatnonzero(marks)
    # So many bits that a share of `_FULL` is set, where what is found is spread as by chance.
    wanted = math.ceil(len(found) / -math.log1p(-_FULL))
    bits = min(1 << _MOST_BITS, max(1 << _FEWEST_BITS, -(-wanted // 8) * 8))
    made = np.zeros(bits, np.bool_)
    made[_places(found, bits)] = True
    return np.packbits(made).tobytes()


def _places(marks: NDArray[Any], bits: int) -> Int64:
    """Where the first `_MOST_BITS` bits of keys lie in a filter of so many bits."""
    return (marks.astype(np.int64) * bits) >> _MOST_BITS


def keys_of(literal: bytes, *, whole: bool) -> UInt32:
    """What the filter of a row group must hold where a record has this literal; letters of ASCII in either case.

    A word at its edge may go on outside, unless it is a `whole` one: no letter or digit of ASCII stands beside it.
    """
    data = _LOWER[np.frombuffer(literal, np.uint8)]
    starts, ends, keys = _tokens(data)
    inner = whole | ((starts > 0) & (ends < len(data)))
    # Records are joined by newlines, and cut there: what stands over one may be of two pieces.
    single = data != _NEWLINE
    several = np.lib.stride_tricks.sliding_window_view(single, GRAM).all(axis=1) if len(data) >= GRAM else single[:0]
    return np.unique(np.concatenate([_grams(data)[several], keys[inner], _address_parts(data)]))


def may_hold(words: bytes, keys: UInt32) -> bool:
    """Whether all of these may be there; False = they are not."""
    places = _places(keys >> np.uint32(32 - _MOST_BITS), len(words) * 8)
    held = np.frombuffer(words, np.uint8)[places >> 3] >> (7 - (places & 7)).astype(np.uint8)
    return bool((held & 1).all())


def encode(groups: Sequence[bytes]) -> bytes:
    """The side file of a data file."""
    sums = [zlib.crc32(group[at : at + _PAGE]) for group in groups for at in range(0, len(group), _PAGE)]
    head = msgspec.msgpack.encode(_Head([len(group) for group in groups], np.asarray(sums, "<u4").tobytes()))
    return b"".join([_FRONT.pack(NAME.encode(), VERSION, len(head), zlib.crc32(head)), head, *groups])


def load(path: Path, groups: int) -> Filters | None:
    """The filters of a data file with so many row groups; None where they are not there, damaged or newer."""
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        found = _of_first(data) if data[:1] == b"\x94" else _of(data)
    except (OSError, ValueError, struct.error, msgspec.MsgspecError):
        return None
    return found if found is not None and len(found) == groups else None


def _of(data: mmap.mmap) -> Filters | None:
    name, version, size, checksum = _FRONT.unpack_from(data)
    body = _FRONT.size + size
    head = data[_FRONT.size : body]
    # Version 2 had two keys a word, and sizes that are powers of two: what is asked of it is there as well.
    if name != NAME.encode() or version not in (2, VERSION) or zlib.crc32(head) != checksum:
        return None
    read = msgspec.msgpack.decode(head, type=_Head)
    ends = body + np.cumsum(np.asarray(read.sizes, np.int64))
    if not all(read.sizes) or (len(ends) and int(ends[-1]) != len(data)):
        return None
    starts = (ends - np.asarray(read.sizes, np.int64)).tolist()
    return Filters(data, starts, read.sizes, np.frombuffer(read.checksums, "<u4"))


def _of_first(data: mmap.mmap) -> Filters | None:
    stored = msgspec.msgpack.decode(data, type=_First)
    body = b"".join(stored.groups)
    if (stored.name, stored.version) != (NAME, 1) or stored.checksum != zlib.crc32(body) or not all(stored.groups):
        return None
    sizes = [len(group) for group in stored.groups]
    return Filters(body, (np.cumsum(sizes) - sizes).tolist() if sizes else [], sizes, None)


def _pieces(block: bytes) -> Iterator[memoryview]:
    view = memoryview(block)
    start = 0
    while start < len(block):
        found = block.find(b"\n", start + _PIECE)
        end = found + 1 if found >= 0 else len(block)
        yield view[start:end]
        start = end


def _grams(data: NDArray[np.uint8]) -> UInt32:
    if len(data) < GRAM:
        return np.empty(0, np.uint32)
    wide = data.astype(np.uint32)
    made = wide[: len(wide) - GRAM + 1].copy()
    for place in range(1, GRAM):
        made |= wide[place : len(wide) - GRAM + 1 + place] << np.uint32(8 * place)
    return made * _SPREAD


def _tokens(data: NDArray[np.uint8]) -> tuple[Int64, Int64, UInt32]:
    """Where runs of letters and digits start and end, and a key each."""
    word = np.zeros(len(data) + 2, np.int8)
    word[1:-1] = _ALNUM[data]
    turns = np.diff(word)
    starts, ends = np.flatnonzero(turns == 1), np.flatnonzero(turns == -1)
    # A polynomial of the bytes by prefix sums: the power at which a word begins is divided out again.
    sums = np.zeros(len(data) + 1, np.uint64)
    np.cumsum((data + np.uint64(1)) * _powers(_FACTOR, len(data)), out=sums[1:])
    mixed = _mixed((sums[ends] - sums[starts]) * _powers(_INVERSE, len(data))[starts])
    return starts, ends, (mixed >> np.uint64(32)).astype(np.uint32)


def _address_parts(data: NDArray[np.uint8]) -> UInt32:
    """A key for every seven bytes in a row that are digits and at least two dots: an IPv4 address has such."""
    if len(data) < _PART:
        return np.empty(0, np.uint32)
    near = (data == ord(".")) | ((data >= ord("0")) & (data <= ord("9")))
    last = len(data) - _PART + 1
    all_near = near[:last].copy()
    for place in range(1, _PART):
        all_near &= near[place : last + place]
    places = np.flatnonzero(all_near)
    dots = np.zeros(len(places), np.int8)
    for place in range(_PART):
        dots += data[places + place] == ord(".")
    places = places[dots >= 2]
    wide = np.zeros(len(places), np.uint64)
    for place in range(_PART):
        wide |= data[places + place].astype(np.uint64) << np.uint64(8 * place)
    return (_mixed(wide) >> np.uint64(32)).astype(np.uint32)


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53, 1):
        numbers = (numbers ^ (numbers >> np.uint64(33))) * np.uint64(factor)
    return numbers


def _powers(factor: int, n: int) -> NDArray[np.uint64]:
    """factor**0 to factor**(n - 1), modulo 2**64."""
    # Records longer than a piece are seldom: what they need is made anew each time.
    return _kept_powers(factor)[:n] if n <= _KEPT else _made_powers(factor, n)


@cache
def _kept_powers(factor: int) -> NDArray[np.uint64]:
    return _made_powers(factor, _KEPT)


def _made_powers(factor: int, n: int) -> NDArray[np.uint64]:
    made = np.full(n, factor, np.uint64)
    made[:1] = 1
    return np.cumprod(made)
