"""What matching one batch gives: the records that matched any rule, with what windows, keys and output need of them.
Counterpart: `match` makes it in whichever process reads the batch, `correlate` takes it in ingest order."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from struct import Struct

import numpy as np
import numpy.typing as npt

from vedette.model.batch import Bool, Int32, Int64, UInt8
from vedette.model.events import Column, LateValues

UInt32 = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Matches:
    """The `m` records of one batch that matched any rule, in ingest order.

    rows: int64[m] in the batch. time: int64[m] event time; window: int64[m] the time windows use, BEGINNING
    where that is the one of the records before it (a spooled record whose header names no time). high:
    int64[m] the highest event time of the batch up to that record, BEGINNING before the first. position,
    repeat, trust: per record; check: uint32[m] of the raw record's bytes, to tell equal records. hits: per
    rule index the sorted indexes into these m records. fields: columns over the m records. ambiguous: bool[m].
    n, bytes, unreadable: of the whole batch; batch_high: its highest event time, BEGINNING where it has none.
    skewed: matched records whose time windows do not use. undecided: values that a pattern could not decide
    within its match limit.
    """

    rows: Int64
    time: Int64
    window: Int64
    high: Int64
    position: Int64
    repeat: Int32
    trust: UInt8
    check: UInt32
    ambiguous: Bool
    hits: dict[int, Int32]
    fields: dict[str, Column]
    n: int
    bytes: int
    unreadable: int
    batch_high: int
    skewed: int
    undecided: int


FEW = 8
"""Setting up arrays costs more than asking for so few records one by one."""


def narrow(column: Column, rows: Int64, wanted: Bool | None = None) -> Column:
    """A column over some of its records, with only the values they use. wanted: bool[len(rows)], others are absent."""
    codes = column.codes[rows]
    if len(rows) <= FEW:
        few = codes.tolist()
        if wanted is not None:
            few = [code if chosen else -1 for code, chosen in zip(few, wanted.tolist(), strict=True)]
        number = {code: place for place, code in enumerate(sorted(set(few) - {-1}))}
        return Column(
            np.array([number.get(code, -1) for code in few], dtype=np.int32),
            [column.values[code] for code in number],
        )
    if wanted is not None:
        codes = np.where(wanted, codes, np.int32(-1))
    used = np.zeros(len(column.values) + 1, dtype=np.bool_)
    used[codes] = True
    used[-1] = False
    kept = np.flatnonzero(used)
    renumber = np.full(len(column.values) + 1, -1, dtype=np.int32)
    renumber[kept] = np.arange(len(kept), dtype=np.int32)
    values, places = column.values, kept.tolist()
    some = values.some(places) if isinstance(values, LateValues) else [values[place] for place in places]
    return Column(renumber[codes], some)


# Odd multipliers of 64-bit mixing; which ones does not matter, that they stay does (checks are kept over restarts).
_MIX = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F)
_CHECK_WORDS = 24


def checks(block: bytes, starts: Int64, ends: Int64) -> UInt32:
    """uint32[m]: a check of each record's bytes, a pure function of them, to tell equal records of one moment."""
    if len(starts) <= FEW:
        spans = zip(starts.tolist(), ends.tolist(), strict=True)
        return np.array([_check(block[start:end]) for start, end in spans], dtype=np.uint32)
    lengths = ends - starts
    mixed = lengths.astype(np.uint64) * np.uint64(_MIX[1])
    if len(block) >= 8 and len(starts):
        words: npt.NDArray[np.uint64] = np.ndarray(len(block) - 7, dtype="<u8", buffer=block, strides=(1,))
        # Longest first: the records that have a word at some place are then the first so many.
        order = np.argsort(-lengths, kind="stable")
        sizes = lengths[order]
        counts = np.searchsorted(-sizes, -8 * np.arange(1, _CHECK_WORDS + 1), side="right").tolist()
        some, place = mixed[order], starts[order]
        for count in counts:
            if not count:
                break
            front = some[:count]
            front ^= words[place[:count]]
            front *= np.uint64(_MIX[0])
            place[:count] += 8
        # The bytes after the last whole word, together with some before them.
        rows = np.flatnonzero((sizes >= 8) & (sizes % 8 != 0))
        some[rows] = (some[rows] ^ words[ends[order[rows]] - 8]) * np.uint64(_MIX[0])
        mixed[order] = some
    # What is shorter than a word or longer than the words looked at is checked byte by byte.
    for row in np.flatnonzero((lengths < 8) | (lengths >= 8 * (_CHECK_WORDS + 1))).tolist():
        mixed[row] = np.uint64(zlib.crc32(block[int(starts[row]) : int(ends[row])]) << 32)
    return (mixed >> np.uint64(32)).astype(np.uint32)


_WORD = (1 << 64) - 1
_WHOLE = [Struct(f"<{count}Q") for count in range(_CHECK_WORDS + 1)]


def _check(record: bytes) -> int:
    """The same of one record."""
    length = len(record)
    count, rest = divmod(length, 8)
    if not 0 < count <= _CHECK_WORDS:
        return zlib.crc32(record)
    mixed, mix = length * _MIX[1] & _WORD, _MIX[0]
    for word in _WHOLE[count].unpack_from(record):
        mixed = (mixed ^ word) * mix & _WORD
    if rest:
        mixed = (mixed ^ int.from_bytes(record[-8:], "little")) * mix & _WORD
    return mixed >> 32
