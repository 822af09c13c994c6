"""A block of bytes read eight bytes at a time for many records at once, and spans of it made into columns.
Counterpart: `parsers.syslog` and `parsers.shapes` find the spans; `model.events.Column` is what comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from vedette.model.batch import Bool, Int32, Int64
from vedette.model.events import Column, Value

UInt64 = npt.NDArray[np.uint64]

Some = Int64 | slice
_ALL = slice(None)

REACH = 64
"""Spans and searches up to this many bytes are vectorised; longer ones are handed to plain code, row by row."""

FEW = 8
"""Up to so many spans are taken one by one: setting up arrays would cost more."""

SPACE = 0x20

_FRONT, _BACK = 16, REACH + 16
_EVERY = 0x0101010101010101
_1, _3, _8, _16, _32 = (np.uint64(n) for n in (1, 3, 8, 16, 32))
_ONES, _HIGH, _ZEROS = np.uint64(_EVERY), np.uint64(_EVERY * 0x80), np.uint64(_EVERY * 0x30)
_FORTIES, _OVER6 = np.uint64(_EVERY * 0x40), np.uint64(_EVERY * 0x79)
_LOW7, _OVER9 = np.uint64(_EVERY * 0x7F), np.uint64(_EVERY * 0x76)
_KEEP: UInt64 = np.array([(1 << 8 * n) - 1 for n in range(9)], dtype=np.uint64)
_MIX = [np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93)]


@lru_cache(maxsize=4096)
def word_of(text: bytes) -> np.uint64:
    """Up to eight bytes as the number that `Block.word` reads them as."""
    return np.uint64(int.from_bytes(text[:8].ljust(8, b"\0"), "little"))


@lru_cache(maxsize=256)
def keep(n: int) -> np.uint64:
    """The mask of the first `n` bytes (0..8) of a word."""
    return np.uint64((1 << 8 * min(n, 8)) - 1)


def kept_bytes(lengths: Int64) -> UInt64:
    """For each word the mask of so many of its first bytes; 0 where less than one, all where more than eight."""
    return _KEEP[np.clip(lengths, 0, 8)]


def not_digits(words: UInt64) -> tuple[UInt64, UInt64]:
    """The words with `0`..`9` made 0..9, and the high bit of every byte that is no ASCII digit."""
    values = words ^ _ZEROS
    # A byte with its high bit set would carry into the next one: added without it, judged with it.
    return values, (((values & _LOW7) + _OVER9) | values) & _HIGH


def first_byte(flags: UInt64) -> Int64:
    """Index of the lowest byte whose high bit is set in `flags`, 8 where none is."""
    zeros: npt.NDArray[np.uint8] = np.bitwise_count((flags - _1) & ~flags)
    return (zeros >> 3).astype(np.int64)


def first_of(words: UInt64, byte: bytes) -> Int64:
    """Index of the first byte of each word that is this one, 8 where none is."""
    return first_byte(_hits(words, [np.uint64(byte[0] * _EVERY)]))


def up_to(words: UInt64, byte: bytes) -> UInt64:
    """Each word with what comes behind the first byte that is this one made zero; all of it where none is."""
    flags = _hits(words, [np.uint64(byte[0] * _EVERY)])
    return words & (flags ^ (flags - _1))


def not_hexadecimal(words: UInt64) -> UInt64:
    """The high bit of every byte that is none of `0`..`9`, `A`..`F`."""
    letters = words ^ _FORTIES
    low = letters & _LOW7
    bad: UInt64 = not_digits(words)[1] & ((low + _OVER6) | letters | ~(low + _LOW7)) & _HIGH
    return bad


def number_of(values: UInt64) -> UInt64:
    """Eight digits 0..9, most significant in the lowest byte, as a number."""
    pairs = (values * np.uint64(10) + (values >> _8)) & np.uint64(0x00FF00FF00FF00FF)
    fours = (pairs * np.uint64(100) + (pairs >> _16)) & np.uint64(0x0000FFFF0000FFFF)
    return (fours * np.uint64(10000) + (fours >> _32)) & np.uint64(0xFFFFFFFF)


def _hits(words: UInt64, wanted: Sequence[np.uint64]) -> UInt64:
    """The lowest set bit names the first byte that is one of `wanted`; bits above it mean nothing."""
    hits: UInt64 | None = None
    for pattern in wanted:
        other = words ^ pattern
        flags = (other - _ONES) & ~other & _HIGH
        hits = flags if hits is None else hits | flags
    assert hits is not None
    return hits


class Block:
    """A block of bytes that can be gathered from at any offset up to its end, and a little past it (zeros there).

    All positions are int64 offsets into `raw`, 0 <= position <= len(raw).
    """

    __slots__ = ("_after", "_before", "_bytes", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        padded = np.empty(_FRONT + len(raw) + _BACK, dtype=np.uint8)
        padded[:_FRONT] = 0
        padded[_FRONT + len(raw) :] = 0
        padded[_FRONT : _FRONT + len(raw)] = np.frombuffer(raw, dtype=np.uint8)
        self._bytes = padded[_FRONT:]
        size = len(padded) - _FRONT - 7
        self._after: UInt64 = np.ndarray((size,), "<u8", buffer=padded, offset=_FRONT, strides=(1,))
        self._before: UInt64 = np.ndarray((size + 8,), "<u8", buffer=padded, offset=_FRONT - 8, strides=(1,))

    def byte(self, position: Int64) -> npt.NDArray[np.uint8]:
        """The byte at each position."""
        return self._bytes[position]

    def byte_before(self, position: Int64) -> npt.NDArray[np.uint8]:
        """The byte that ends at each position; zero before the block."""
        return np.where(position > 0, self._bytes[position - 1], np.uint8(0))

    def word(self, position: Int64) -> UInt64:
        """The eight bytes from each position on, first byte lowest."""
        return self._after[position]

    def word_before(self, position: Int64) -> UInt64:
        """The eight bytes that end before each position, last byte highest."""
        return self._before[position]

    def matches(self, position: Int64, literal: bytes) -> Bool:
        """Whether `literal` stands at each position (it may run past the record's end; the caller judges that)."""
        same: Bool = (self.word(position) ^ word_of(literal)) & keep(len(literal)) == 0
        for at in range(8, len(literal), 8):
            there = np.minimum(position + at, len(self.raw))
            same &= (self.word(there) ^ word_of(literal[at : at + 8])) & keep(len(literal) - at) == 0
        return same

    def find(self, wanted: bytes, position: Int64, limit: Int64) -> tuple[Int64, Bool | None]:
        """First byte of `wanted` in [position, limit), else limit; and the rows where REACH was too short to tell."""
        patterns = [np.uint64(value * _EVERY) for value in set(wanted)]
        ends, unknown = _seek(self._after, patterns, position, 1, limit)
        past = ends >= limit
        np.copyto(ends, limit, where=past)
        return ends, unknown

    def find_back(self, wanted: bytes, position: Int64, limit: Int64) -> tuple[Int64, Bool | None]:
        """One past the last byte of `wanted` in [limit, position), else limit; and the rows not known."""
        patterns = [np.uint64(value * _EVERY) for value in set(wanted)]
        starts, unknown = _seek(self._before, patterns, position, -1, limit)
        past = starts <= limit
        np.copyto(starts, limit, where=past)
        return starts, unknown

    def digits(self, starts: Int64, ends: Int64) -> Bool:
        """Whether each span is 1 to 20 ASCII digits."""
        length = ends - starts
        good = (length >= 1) & (length <= 20)
        longest = int(np.max(np.where(good, length, 0), initial=0))
        for at in range(0, longest, 8):
            _, bad = not_digits(self.word(np.minimum(starts + at, len(self.raw))))
            good &= bad & _KEEP[np.clip(length - at, 0, 8)] == 0
        return good

    def numbers(self, starts: Int64, ends: Int64) -> UInt64:
        """Spans of 1 to 8 digits as numbers."""
        digits = self.word(starts) ^ _ZEROS
        return number_of(digits << ((8 - (ends - starts)).astype(np.uint64) << _3))

    def like_address(self, starts: Int64, ends: Int64) -> Bool:
        """Whether each span may be an address at all: a dot or colon early on, at most REACH bytes."""
        length = ends - starts
        words = self.word(starts) & _KEEP[np.clip(length, 0, 8)]
        punctuation = first_byte(_hits(words, [np.uint64(mark * _EVERY) for mark in b".:"]))
        good: Bool = (punctuation <= 4) & (length >= 2) & (length <= REACH)
        return good

    def encode(self, starts: Int64, ends: Int64) -> tuple[Int32, list[bytes]]:
        """Equal spans get equal codes: int32 codes and the distinct spans. Python touches distinct spans only."""
        n = len(starts)
        if n <= FEW:
            seen: dict[bytes, int] = {}
            spans = [self.raw[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
            return np.array([seen.setdefault(span, len(seen)) for span in spans], dtype=np.int32), list(seen)
        length = ends - starts
        longest = int(length.max())
        if longest <= REACH:
            return self._encode_short(starts, ends, length, longest)
        short = np.flatnonzero(length <= REACH)
        codes = np.empty(n, dtype=np.int32)
        codes[short], values = self._encode_short(starts[short], ends[short], length[short], REACH)
        seen = {}
        raw = self.raw
        for row in np.flatnonzero(length > REACH).tolist():
            span = raw[starts[row] : ends[row]]
            codes[row] = seen.setdefault(span, len(values) + len(seen))
        return codes, values + list(seen)

    def _encode_short(self, starts: Int64, ends: Int64, length: Int64, longest: int) -> tuple[Int32, list[bytes]]:
        words: list[UInt64] = []
        mixed = length.astype(np.uint64) * _MIX[1]
        for at in range(0, max(longest, 1), 8):
            left = length - at
            there = np.minimum(starts + at, len(self.raw)) if at else starts
            word = self.word(there) & _KEEP[np.clip(left, 0, 8)]
            words.append(word)
            mixed = (mixed ^ word) * _MIX[0]
            mixed ^= mixed >> _32

        def same(some: Some, found: Int64) -> Bool:
            equal: Bool = length[some] == length[found]
            for word in words:
                equal &= word[some] == word[found]
            return equal

        leader, rest = _leaders(mixed, same)
        raw = self.raw
        codes, leaders = _numbered(leader)
        values = [raw[a:b] for a, b in zip(starts[leaders].tolist(), ends[leaders].tolist(), strict=True)]
        if len(rest):
            seen = {value: code for code, value in enumerate(values)}
            for row in rest.tolist():
                codes[row] = seen.setdefault(raw[starts[row] : ends[row]], len(seen))
            values = list(seen)
        return codes, values


def distinct(words: UInt64, *, few: bool = False) -> tuple[Int32, UInt64]:
    """Equal words get equal codes: int32 codes and the distinct words. few: there are hardly more than hundreds."""
    if few and (told := _few_distinct(words)) is not None:
        return told
    leader, rest = _leaders(words * _MIX[1], lambda some, found: words[some] == words[found])
    codes, leaders = _numbered(leader)
    if not len(rest):
        return codes, words[leaders]
    values, places = np.unique(words, return_inverse=True)
    return places.astype(np.int32), values


_FEW_BITS = 13
"""Of so many slots that they stay in the nearest cache."""


def _few_distinct(words: UInt64) -> tuple[Int32, UInt64] | None:
    """`distinct` by slots that no two values may share; None where some do."""
    slots = np.zeros(1 << _FEW_BITS, dtype=np.uint64)
    for mix in _MIX[:2]:
        slot = (words * mix >> np.uint64(64 - _FEW_BITS)).astype(np.int64)
        slots[slot] = words
        if (slots[slot] == words).all():
            used = np.zeros(1 << _FEW_BITS, dtype=np.bool_)
            used[slot] = True
            number = np.cumsum(used, dtype=np.int32) - np.int32(1)
            return number[slot], slots[used]
    return None


def _leaders(mixed: UInt64, same: Callable[[Some, Int64], Bool]) -> tuple[Int64, Int64]:
    """For each row one row that stands for all equal ones, -1 for the rows that are left over.

    Each round gives a slot to one row, and every equal row finds it there; whoever lost the slot to another
    value tries again elsewhere. What is left after the last round is hostile or very varied.
    """
    n = len(mixed)
    leader = np.full(n, -1, dtype=np.int64)
    size = min(max(n.bit_length() + 1, 8), 20)
    slots = np.empty(1 << size, dtype=np.int64)
    rows = np.arange(n, dtype=np.int64)
    for number, mix in enumerate(_MIX):
        slot = ((mixed[rows] if number else mixed) * mix >> np.uint64(64 - size)).astype(np.int64)
        slots[slot] = rows
        found = slots[slot]
        # At first these are all rows: picking them out one by one would only copy.
        equal = same(rows if number else _ALL, found)
        if not number and equal.all():
            return found, rows[:0]
        leader[rows[equal]] = found[equal]
        rows = rows[~equal]
        if not len(rows):
            break
    return leader, rows


def _numbered(leader: Int64) -> tuple[Int32, Int64]:
    """Codes 0.. of the leaders in order of their rows (-1 where a row has none), and the leaders."""
    leaders = np.flatnonzero(leader == np.arange(len(leader)))
    number = np.full(len(leader) + 1, -1, dtype=np.int32)
    number[leaders] = np.arange(len(leaders), dtype=np.int32)
    return number[leader], leaders


def _seek(
    view: UInt64, patterns: Sequence[np.uint64], position: Int64, step: int, limit: Int64
) -> tuple[Int64, Bool | None]:
    """Where the first byte of `patterns` is, going forwards (step 1) or, just behind it, backwards (step -1).

    Rows without one within REACH get a position past the limit where the limit is that near, and are unknown otherwise.
    """

    def hits_at(there: Int64) -> UInt64:
        words = view[there]
        return _hits(words if step > 0 else words.byteswap(), patterns)

    hits = hits_at(position)
    missing = hits == 0
    count = int(np.count_nonzero(missing))
    far = 8
    if 2 * count > len(position):
        # Most are further on: one look more at all of them costs less than picking these out.
        hits = np.where(missing, hits_at(np.maximum(position + step * 8, 0)), hits)
        found = position + step * (first_byte(hits) + (missing.astype(np.int64) << 3))
        missing = hits == 0
        count, far = int(np.count_nonzero(missing)), 16
    else:
        found = position + step * first_byte(hits)
    if not count:
        return found, None
    rows = np.flatnonzero(missing)
    for at in range(far, REACH, 8):
        here = position[rows] + step * at
        inside = here < limit[rows] if step > 0 else here > limit[rows]
        if not inside.all():
            rows, here = rows[inside], here[inside]
        if not len(rows):
            return found, None
        hits = hits_at(here)
        found[rows] = here + step * first_byte(hits)
        rows = rows[hits == 0]
        if not len(rows):
            return found, None
    here = position[rows] + step * REACH
    rows = rows[here < limit[rows] if step > 0 else here > limit[rows]]
    if not len(rows):
        return found, None
    unknown = np.zeros(len(position), dtype=bool)
    unknown[rows] = True
    return found, unknown


def merged(n: int, parts: Sequence[tuple[Int64, Int32, Sequence[Value]]]) -> Column:
    """A column over `n` records from parts of it: rows, their codes, and the values these mean (None = absent).

    Equal values of different parts become one; a later part wins where rows overlap.
    """
    codes = np.full(n, -1, dtype=np.int32)
    seen: dict[tuple[type, Value], int] = {}
    for rows, local, values in parts:
        meaning = np.array(
            [-1 if value is None else seen.setdefault((type(value), value), len(seen)) for value in values] or [-1],
            dtype=np.int32,
        )
        codes[rows] = meaning[local]
    return Column(codes, [value for _, value in seen])
