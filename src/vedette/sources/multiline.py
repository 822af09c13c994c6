"""Joins neighbouring lines into records: continuation or start pattern, bounded in lines and bytes.
Counterpart: lines.py calls it on whole blocks; the last record stays open until more comes or it is flushed."""

from __future__ import annotations

import numpy as np

from vedette.model.batch import Bool, Int64
from vedette.sources.settings import MultilineSettings
from vedette.text.regex import compile_re2

_BLANKS = r"^[ \t]"


class Joiner:
    """Finds where records begin. The same records come out however the lines are cut into blocks."""

    def __init__(self, settings: MultilineSettings) -> None:
        # Log bytes need not be UTF-8: Latin-1 makes RE2 take them one by one.
        self._start = compile_re2(settings.start.encode(), latin1=True) if settings.start else None
        self._continuation = compile_re2(settings.continuation.encode(), latin1=True)
        self._blanks = not settings.start and settings.continuation == _BLANKS
        self._max_lines = settings.max_lines
        self._max_bytes = settings.max_bytes

    def _continues(self, block: bytes, starts: Int64, ends: Int64) -> Bool:
        """bool[n]: the line belongs to the record before it."""
        if self._blanks:
            array = np.frombuffer(block, dtype=np.uint8)
            first = array[np.minimum(starts, len(array) - 1)]
            blank: Bool = (ends > starts) & ((first == 32) | (first == 9))
            return blank
        lines = (block[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True))
        if self._start is not None:
            start = self._start
            return np.array([start.search(line) is None for line in lines], dtype=np.bool_)
        return np.array([self._continuation.search(line) is not None for line in lines], dtype=np.bool_)

    def join(self, block: bytes, starts: Int64, ends: Int64) -> tuple[Int64, Int64]:
        """Per record the index of its first line, and the indices of those that began because another was full.

        The first line of `block` always begins a record.
        """
        continues = self._continues(block, starts, ends)
        continues[0] = False
        firsts = np.flatnonzero(~continues).astype(np.int64)
        lasts = np.append(firsts[1:], len(starts)) - 1
        full = (lasts - firsts >= self._max_lines) | (ends[lasts] - starts[firsts] > self._max_bytes)
        extra: list[int] = []
        for record in np.flatnonzero(full & (lasts > firsts)).tolist():
            first, last = int(firsts[record]), int(lasts[record])
            for line in range(first + 1, last + 1):
                if line - first >= self._max_lines or ends[line] - starts[first] > self._max_bytes:
                    extra.append(line)
                    first = line
        overflowed = np.array(extra, dtype=np.int64)
        return np.union1d(firsts, overflowed), overflowed
