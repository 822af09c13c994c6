"""Which words are addresses, by number: a word seen before, in whichever batch, costs no call of Python.
Counterpart: `groups` and `events` ask; `formats.address_of` says what an address is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vedette.model.batch import Int32, Int64
from vedette.parsers.columns import Block, UInt64, kept_bytes
from vedette.parsers.groups import NONE
from vedette.parsers.readings import address_of

_BITS = 15
_SIZE = 1 << _BITS
_LONGEST = 16
_SHIFT = np.uint64(64 - _BITS)
_MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0xD6E8FEB86659FD93)


class AddressTable:
    """Numbers for addresses and, remembered with them, for words; the latter in a table that never grows.

    names: canonical texts by number. Two words that want the same places push each other out, and are asked
    about again: whoever makes them collide gains nothing but that.
    """

    LIMIT = 1 << 16
    """So many addresses fill a table: whoever has one that is full takes a new one for the next batch."""

    __slots__ = ("_first", "_ids", "_length", "_number", "_second", "names")

    def __init__(self) -> None:
        self.names: list[str] = []
        self._ids: dict[str, int] = {}
        self._first = np.zeros(2 * _SIZE, dtype=np.uint64)
        self._second = np.zeros(2 * _SIZE, dtype=np.uint64)
        # An empty place is that of the empty word, which is no address.
        self._length = np.zeros(2 * _SIZE, dtype=np.int8)
        self._number = np.full(2 * _SIZE, NONE, dtype=np.int32)

    @property
    def full(self) -> bool:
        """Whether there are so many addresses that it is time for a new table."""
        return len(self.names) > self.LIMIT

    def number_of(self, name: str) -> int:
        """The number of an address in canonical text."""
        known = self._ids.get(name)
        if known is None:
            known = self._ids[name] = len(self.names)
            self.names.append(name)
        return known

    def numbers(self, block: Block, starts: Int64, ends: Int64) -> Int32:
        """For each span the number of the address it is, NONE where it is none."""
        length = ends - starts
        first = block.word(starts) & kept_bytes(length)
        second = block.word(np.minimum(starts + 8, len(block.raw))) & kept_bytes(length - 8)
        mixed = (first ^ (second * _MIX[0])) * _MIX[1]
        found = np.full(len(starts), NONE, dtype=np.int32)
        missing: Int64 | None = None
        for half in (0, 1):
            if missing is not None:
                first, second, length, mixed = first[missing], second[missing], length[missing], mixed[missing]
            place = _places(mixed, half)
            same = (self._first[place] == first) & (self._second[place] == second) & (self._length[place] == length)
            if missing is None:
                np.copyto(found, self._number[place], where=same)
                missing = np.flatnonzero(~same)
                left = missing
            else:
                there = np.flatnonzero(same)
                found[left[there]] = self._number[place[there]]
                left = left[~same]
            if not len(left):
                return found
        self._ask(block, starts, ends, left, found)
        return found

    def _ask(self, block: Block, starts: Int64, ends: Int64, rows: Int64, found: Int32) -> None:
        """Look words up one by one, and remember the shorter ones."""
        begins, stops = starts[rows], ends[rows]
        codes, words = block.encode(begins, stops)
        names = [address_of(word) for word in words]
        numbers = [NONE if name is None else self.number_of(name) for name in names]
        found[rows] = np.array(numbers, dtype=np.int32)[codes]
        short = [at for at, word in enumerate(words) if len(word) <= _LONGEST]
        if not short:
            return
        padded = b"".join(words[at].ljust(_LONGEST, b"\0") for at in short)
        both: npt.NDArray[np.uint64] = np.frombuffer(padded, dtype="<u8").reshape(-1, 2)
        first, second = both[:, 0], both[:, 1]
        mixed = (first ^ (second * _MIX[0])) * _MIX[1]
        place = _places(mixed, 0)
        taken = self._length[place] != 0
        place[taken] = _places(mixed[taken], 1)
        self._first[place] = first
        self._second[place] = second
        self._length[place] = [len(words[at]) for at in short]
        self._number[place] = [numbers[at] for at in short]


def _places(mixed: UInt64, half: int) -> Int64:
    """Where words are looked for: one place in either half of the table."""
    if not half:
        return (mixed >> _SHIFT).astype(np.int64)
    return ((mixed * _MIX[2]) >> _SHIFT).astype(np.int64) + _SIZE
