"""Lines of Linux audit put together by event: near lines with one time and serial (of one node) are one event.
Counterpart: `sources` and `replay` join with it before anything is parsed; `parsers.audit` reads the joined events."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]
UInt8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]

REACH, REACH_BYTES = 64, 1 << 18
"""How far a line may lie behind the line before it of its event, in lines and in bytes: processors take turns."""
HELD, HELD_BYTES = 4096, 1 << 20
"""Lines and bytes of events that lie in one another, beyond which they are cut."""

_LONGEST_ID = 48
_PAD = 64
_AUDIT = int.from_bytes(b"audit(".ljust(8, b"\0"), "little")
_SIX = np.uint64((1 << 48) - 1)
_NODE = re.compile(rb"(?<!\S)node=(\S{1,255}) ")
_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))
_32 = np.uint64(32)
_HIGH, _BLANKS = np.uint64(0x8080808080808080), np.uint64(0x2121212121212121)

# Records that end their event: the kernel writes PROCTITLE last, and what user space sends stands alone. EOE says
# that the event has ended and nothing else; it may come after PROCTITLE, or not at all: it is no part of any event.
_ENDS, _MARK = 1, 2
_LAST = ("PROCTITLE", "USER_", "CRED_", "SERVICE_", "DAEMON_", "SYSTEM_", "CRYPTO_")
_TYPE = re.compile(rb"(?<!\S)type=(?:(EOE )|" + "|".join(_LAST).encode() + rb")")


@dataclass(frozen=True, slots=True)
class Arranged:
    """Events of the first `lines` lines: `block[starts[i]:ends[i]]` is event i, whose first line was line `firsts[i]`.

    Where events lay in one another their lines have been brought together, in a block of its own. ids: uint64[n], 0
    for a line that is no audit record. ended: bool[n], by a record of its own, so that no other can follow. cut: how
    many times events that lay in one another for too long were cut.
    """

    block: bytes
    starts: Int64
    ends: Int64
    firsts: Int64
    lines: int
    ids: UInt64
    ended: Bool
    cut: int = 0


def arrange(block: bytes, starts: Int64, ends: Int64, *, final: bool = True, settled: int = 0) -> Arranged:
    """The events of whole lines, each where its first line stands; a line that is no audit record is one by itself.

    Events depend on the lines alone, not on how many are seen at a time. final: no line follows; else events to which
    a line may still come, and all behind them, are left to wait, unless all their lines are among the first `settled`.
    """
    n = len(starts)
    ids, marks = _read(block, starts, ends)
    begins = np.ones(n, dtype=np.bool_)
    begins[1:] = (ids[1:] != ids[:-1]) | (ids[1:] == 0)
    firsts = np.flatnonzero(begins)
    lasts = np.append(firsts[1:], n)[: len(firsts)] - 1
    known = np.sort(ids[firsts][ids[firsts] != 0])
    ended = (marks[lasts] != 0) | (ids[firsts] == 0)
    stops = lasts - (marks[lasts] == _MARK)
    inside = marks != 0
    inside[lasts] = False
    inside[stops[(stops >= firsts) & (marks[stops] == _ENDS)]] = False
    long = (lasts - firsts >= HELD) | (ends[lasts] - starts[firsts] > HELD_BYTES)
    if (known[1:] == known[:-1]).any() or inside.any() or (long & (lasts > firsts)).any():
        return _apart(block, starts, ends, ids, marks, final=final, settled=settled)
    # Nearly always: no event lies in another.
    count = n
    if not final:
        waits = np.flatnonzero(~ended & _reached(starts, ends, lasts) & (lasts >= settled))
        count = int(firsts[waits[0]]) if len(waits) else n
    kept = (firsts < count) & (stops >= firsts)
    firsts, stops = firsts[kept], stops[kept]
    return Arranged(block, starts[firsts], ends[stops], firsts, count, ids[firsts], ended[kept])


def _reached(starts: Int64, ends: Int64, lasts: Int64) -> Bool:
    """Whether the line that comes next would still belong to an event whose last line so far was this one."""
    near: Bool = (len(starts) - lasts <= REACH) & (ends[-1:] + 1 - ends[lasts] <= REACH_BYTES)
    return near


def _apart(
    block: bytes, starts: Int64, ends: Int64, ids: UInt64, marks: UInt8, *, final: bool, settled: int
) -> Arranged:
    """`arrange` where events lie in one another, or too long."""
    n = len(starts)
    owners = np.arange(n)
    base = cut = 0
    count = n
    while base < n:
        owners[base:] = base + _owners(ids[base:], marks[base:], starts[base:], ends[base:])
        lasts = np.arange(n)
        lasts[owners[base:]] = np.arange(base, n)  # of several the last is kept
        lasts = lasts[owners]
        # Between lines where none of the events before goes on.
        reach = np.maximum.accumulate(lasts[base:])
        stops = base + np.flatnonzero(reach == np.arange(base, n)) + 1
        begins = np.append(base, stops[:-1])
        waits = np.zeros(n, dtype=np.bool_)
        if not final:
            waits = (ids != 0) & (marks[lasts] == 0) & _reached(starts, ends, lasts) & (lasts >= settled)
        waiting = np.flatnonzero(waits[base:])
        first = base + int(waiting[0]) if len(waiting) else n
        long = (stops - begins > HELD) | ((ends[stops - 1] - starts[begins] > HELD_BYTES) & (stops - begins > 1))
        here = np.flatnonzero(long & (begins <= first))
        if not len(here):
            count = int(begins[np.searchsorted(begins, first, side="right") - 1]) if first < n else n
            break
        begin = int(begins[here[0]])
        fit = int(np.searchsorted(ends[begin:], starts[begin] + HELD_BYTES, side="right"))
        base = begin + min(max(fit, 1), HELD)
        cut += 1
    rows = np.flatnonzero(marks[:count] != _MARK)
    rows = rows[np.argsort(owners[rows], kind="stable")]
    if not len(rows):
        none = np.empty(0, dtype=np.int64)
        return Arranged(block, none, none, none, count, ids[:0], np.empty(0, dtype=np.bool_), cut)
    owner = owners[rows]
    heads = np.flatnonzero(np.append(True, owner[1:] != owner[:-1]))
    tails = np.append(heads[1:], len(rows)) - 1
    lines = [block[begin:end] for begin, end in zip(starts[rows].tolist(), ends[rows].tolist(), strict=True)]
    lengths = np.array([len(line) for line in lines], dtype=np.int64)
    placed = np.cumsum(lengths + 1) - lengths - 1
    final_marks = np.zeros(n, dtype=np.bool_)
    final_marks[owners[:count][marks[:count] != 0]] = True
    first_rows = rows[heads]
    ended = final_marks[owner[heads]] | (ids[first_rows] == 0)
    joined = b"\n".join(lines) + b"\n"
    return Arranged(
        joined, placed[heads], placed[tails] + lengths[tails], first_rows, count, ids[first_rows], ended, cut
    )


def _owners(ids: UInt64, marks: UInt8, starts: Int64, ends: Int64) -> Int64:
    """int64[n]: the first line of the event of each line."""
    owners: list[int] = []
    open_events: dict[int, tuple[int, int, int]] = {}
    lines = zip(ids.tolist(), marks.tolist(), starts.tolist(), ends.tolist(), strict=True)
    for line, (event, mark, start, end) in enumerate(lines):
        owner = line
        if event:
            first, last, stop = open_events.pop(event, (line, line, start))
            if line - last <= REACH and start - stop <= REACH_BYTES:
                owner = first
            if not mark:
                open_events[event] = owner, line, end
        owners.append(owner)
    return np.array(owners, dtype=np.int64)


# ------------------------------------------------------------------------------------------------ what lines say


def _read(block: bytes, starts: Int64, ends: Int64) -> tuple[UInt64, UInt8]:
    """Of each line: a number that is equal for lines of one event (0: no audit record), and what it says of its end."""
    ids = np.zeros(len(starts), dtype=np.uint64)
    marks = np.zeros(len(starts), dtype=np.uint8)
    raw = np.frombuffer(block, dtype=np.uint8)
    padded = np.zeros(len(raw) + _PAD, dtype=np.uint8)
    padded[: len(raw)] = raw
    words: UInt64 = np.ndarray((len(padded) - 7,), "<u8", buffer=padded, strides=(1,))
    opened = np.flatnonzero(raw == 0x28)
    opened = opened[opened >= 5]
    opened = opened[(words[opened - 5] & _SIX) == np.uint64(_AUDIT)]
    closed = np.append(np.flatnonzero(raw == 0x29), len(raw))
    if not len(opened) or not len(starts):
        return ids, marks
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
    other = np.flatnonzero(~_two_words(words, starts[lines], begin - 1))
    if len(other):
        nodes = np.zeros(len(lines), dtype=np.uint64)
        heads = zip(other.tolist(), starts[lines[other]].tolist(), begin[other].tolist(), strict=True)
        for at, start, end in heads:
            node = _NODE.search(block, start, end)
            if node is not None:
                nodes[at] = int.from_bytes(node[1], "little") % ((1 << 61) - 1) + 1
        mixed = np.where(nodes, (mixed ^ nodes) * _MIX[1], mixed)
    ids[lines] = mixed | np.uint64(1)
    marks[lines] = _marks(block, words, starts[lines], begin)
    return ids, marks


def _two_words(words: UInt64, starts: Int64, opened: Int64) -> Bool:
    """Which heads are `type=NAME msg=audit(` with a short name, and so name no node. opened: where that ends."""
    length = opened - starts - len("type= msg=audit")
    named = (length > 0) & (length <= 16)
    plain = named & _begin(words[starts], b"type=")
    plain &= _begin(words[np.maximum(opened - len(" msg=audit"), 0)], b" msg=aud")
    for at in (0, 8):
        left = np.clip(length - at, 0, 8)
        name = words[np.minimum(starts + 5 + at, len(words) - 1)]
        # Bytes behind the name are as good as letters.
        name = name | np.where(left >= 8, np.uint64(0), ~np.uint64(0) << (8 * left % 64).astype(np.uint64))
        plain &= (name - _BLANKS) & ~name & _HIGH == 0
    return plain


def _marks(block: bytes, words: UInt64, starts: Int64, stops: Int64) -> UInt8:
    """Of lines whose head ends at `stops`: _ENDS, _MARK or 0."""
    out = np.zeros(len(starts), dtype=np.uint8)
    plain = _begin(words[starts], b"type=")
    names = words[starts + 5]
    for name in _LAST:
        out[plain & _begin(names, name.encode())] = _ENDS
    out[plain & _begin(names, b"EOE ")] = _MARK
    for row in np.flatnonzero(~plain).tolist():
        found = _TYPE.search(block, int(starts[row]), int(stops[row]))
        if found is not None:
            out[row] = _MARK if found[1] else _ENDS
    return out


def _begin(words: UInt64, text: bytes) -> Bool:
    """Which words begin with the first eight bytes of `text`."""
    head = text[:8]
    mask = np.uint64((1 << (8 * len(head))) - 1)
    same: Bool = (words & mask) == np.uint64(int.from_bytes(head, "little"))
    return same
