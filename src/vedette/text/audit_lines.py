"""Lines of Linux audit put together by event: all records with one time and serial (of one node) are one event.
Counterpart: `sources` and `replay` join with it before anything is parsed; `parsers.audit` reads the joined events."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]

_LONGEST_ID = 48
_PAD = 64
_AUDIT = int.from_bytes(b"audit(".ljust(8, b"\0"), "little")
_SIX = np.uint64((1 << 48) - 1)
_NODE = re.compile(rb"(?:^|\s)node=(\S{1,255}) ")
_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))
_32 = np.uint64(32)

# Records that end their event: the kernel writes PROCTITLE last, and what user space sends stands alone.
_LAST = re.compile(
    rb"(?:^|\s)type=(?:EOE|PROCTITLE|USER_\w+|CRED_\w+|LOGIN|SERVICE_\w+|DAEMON_\w+|SYSTEM_\w+|CRYPTO_\w+) "
)


@dataclass(frozen=True, slots=True)
class Arranged:
    """Events of some lines: `block[starts[i]:ends[i]]` is event i, whose first line was line `firsts[i]`.

    Where events lay in one another their lines have been brought together, in a block of its own.
    """

    block: bytes
    starts: Int64
    ends: Int64
    firsts: Int64


def ids_of(block: bytes, starts: Int64, ends: Int64) -> UInt64:
    """uint64[n]: equal for lines of one event; 0 for a line that is no audit record."""
    out = np.zeros(len(starts), dtype=np.uint64)
    if not len(starts):
        return out
    raw = np.frombuffer(block, dtype=np.uint8)
    padded = np.zeros(len(raw) + _PAD, dtype=np.uint8)
    padded[: len(raw)] = raw
    words: UInt64 = np.ndarray((len(padded) - 7,), "<u8", buffer=padded, strides=(1,))
    opened = np.flatnonzero(raw == 0x28)
    opened = opened[opened >= 5]
    opened = opened[(words[opened - 5] & _SIX) == np.uint64(_AUDIT)]
    closed = np.append(np.flatnonzero(raw == 0x29), len(raw))
    if not len(opened):
        return out
    # The first one of each line, if any.
    place = np.searchsorted(opened, starts)
    there = place < len(opened)
    begin = opened[np.minimum(place, len(opened) - 1)]
    there &= begin < ends
    stop = closed[np.searchsorted(closed, begin)]
    length = stop - begin - 1
    there &= (length > 0) & (length <= _LONGEST_ID) & (stop < ends)
    lines = np.flatnonzero(there)
    begin, length = begin[lines] + 1, length[lines]
    mixed = length.astype(np.uint64) * _MIX[1]
    for at in range(0, _LONGEST_ID, 8):
        left = np.clip(length - at, 0, 8)
        if not left.any():
            break
        mask = np.where(
            left >= 8, np.uint64(0xFFFFFFFFFFFFFFFF), (np.uint64(1) << (8 * left % 64).astype(np.uint64)) - 1
        )
        mixed = (mixed ^ (words[np.minimum(begin + at, len(raw))] & mask.astype(np.uint64))) * _MIX[0]
        mixed ^= mixed >> _32
    if block.startswith(b"node=") or b"\nnode=" in block or b" node=" in block:
        for at, line in enumerate(lines.tolist()):
            node = _NODE.search(block, int(starts[line]), int(begin[at]))
            if node is not None:
                name = int.from_bytes(node[1], "little") % ((1 << 61) - 1)
                mixed[at] = (mixed[at] ^ np.uint64(name)) * _MIX[1]
    out[lines] = mixed | np.uint64(1)
    return out


def arrange(block: bytes, starts: Int64, ends: Int64) -> Arranged:
    """The events of whole lines, each where its first line stands; a line that is no audit record is one by itself."""
    ids = ids_of(block, starts, ends)
    n = len(ids)
    if not n:
        return Arranged(block, starts, ends, np.empty(0, dtype=np.int64))
    begins = np.ones(n, dtype=np.bool_)
    begins[1:] = (ids[1:] != ids[:-1]) | (ids[1:] == 0)
    firsts = np.flatnonzero(begins)
    known = np.sort(ids[firsts][ids[firsts] != 0])
    if not (known[1:] == known[:-1]).any():
        lasts = np.append(firsts[1:], n) - 1
        return Arranged(block, starts[firsts], ends[lasts], firsts)
    # Some event has others in between: its lines go to where it began.
    order = np.where(ids == 0, np.arange(n), 0)
    _, first_of, inverse = np.unique(ids, return_index=True, return_inverse=True)
    order = np.where(ids == 0, order, first_of[inverse])
    moved = np.lexsort((np.arange(n), order))
    lines = [block[begin:end] for begin, end in zip(starts[moved].tolist(), ends[moved].tolist(), strict=True)]
    lengths = np.array([len(line) for line in lines], dtype=np.int64)
    new_starts = np.cumsum(lengths + 1) - lengths - 1
    owner = order[moved]
    begins = np.ones(n, dtype=np.bool_)
    begins[1:] = owner[1:] != owner[:-1]
    heads = np.flatnonzero(begins)
    tails = np.append(heads[1:], n) - 1
    joined = b"\n".join(lines) + b"\n"
    return Arranged(joined, new_starts[heads], new_starts[tails] + lengths[tails], owner[heads])


def whole(block: bytes, starts: Int64, ends: Int64) -> int:
    """How many leading lines hold only events of which no line can follow, as far as one can tell.

    The last event is whole once a record ended it that is its last one.
    """
    ids = ids_of(block, starts, ends)
    if not len(ids):
        return 0
    n = len(ids)
    if ids[-1] == 0 or _LAST.search(block, int(starts[-1]), int(ends[-1])):
        return n
    # Everything from where the last event began: what lies in it waits with it.
    return int(np.flatnonzero(ids == ids[-1])[0])


def safe_cut(block: bytes, starts: Int64, ends: Int64, ahead: int) -> int:
    """The last line before which lines may be cut: no event has lines on both sides, so far.

    Lines of one event lie near each other: cuts with `ahead` lines behind them are preferred. 0 where there is none.
    """
    ids = ids_of(block, starts, ends).tolist()
    last = {event: line for line, event in enumerate(ids) if event}
    reach, best = -1, 0
    for line, event in enumerate(ids):
        if line > reach:
            if best and line > len(ids) - ahead:
                break
            best = line
        reach = max(reach, last.get(event, line))
    return best
