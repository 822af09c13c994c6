"""Cuts a growing stream of bytes into records: half lines wait, overlong ones are cut, neighbours may be joined.
Counterpart: file.py and stdin.py feed it what they read and emit what comes back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vedette.model.batch import Int64, split_lines
from vedette.sources.multiline import Joiner
from vedette.sources.settings import LineSettings

BEFORE = 64
"""How many bytes before a position are remembered to recognise the place again."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Records ready to go: `block[starts[i]:ends[i]]`, the first byte of each at `positions[i]` of the stream."""

    block: bytes
    starts: Int64
    ends: Int64
    positions: Int64


_NONE = np.empty(0, dtype=np.int64)
NOTHING = Cut(b"", _NONE, _NONE, _NONE)


class Lines:
    """One stream. The records depend on the bytes alone, not on how they were cut into `feed` calls.

    position: offset of the first byte that no record given out has covered yet; a reader may begin anew there.
    carry: bytes from there on that were already fed. before: up to 64 bytes before `position`. skipping: the
    rest of an overlong line is being passed over. too_long, overflowed, holes: what was cut, closed early, and how many
    NUL bytes of file holes were passed over, since the owner last took them to account.
    """

    def __init__(self, settings: LineSettings, *, position: int = 0, before: bytes = b"", skipping: bool = False):
        self._limit = settings.max_record
        self._joiner = Joiner(settings.multiline) if settings.multiline else None
        self.position = position
        self.before = before
        self.skipping = skipping
        self.carry = b""
        self.too_long = 0
        self.overflowed = 0
        self.holes = 0

    @property
    def read_to(self) -> int:
        """Offset of the next byte to feed."""
        return self.position + len(self.carry)

    @property
    def tail(self) -> bytes:
        """Up to 64 bytes before `read_to`."""
        return self.carry[-BEFORE:] if len(self.carry) >= BEFORE else (self.before + self.carry)[-BEFORE:]

    @property
    def holding(self) -> bool:
        """Whole lines are held back because the next line may belong to them."""
        return self._joiner is not None and b"\n" in self.carry

    def feed(self, data: bytes) -> Cut | None:
        """Take the next bytes; what became complete by them."""
        seen = len(self.carry)
        self.carry += data
        if self.skipping and not self._skip():
            return None
        if seen > len(self.carry) or self._joiner is not None:
            seen = 0
        last = self.carry.rfind(b"\n", seen)
        if last < 0:
            return self._overlong()
        # A line too long never joins the record before it (max_bytes < max_record), so that need not wait for it.
        return self._complete(last + 1, hold=len(self.carry) - last - 1 <= self._limit + 1)

    def flush(self) -> Cut | None:
        """Give out whole lines that were held back."""
        return self._complete(self.carry.rfind(b"\n") + 1, hold=False) if self.holding else None

    def finish(self) -> Cut | None:
        """The stream has ended: give out everything, a half-written last line too."""
        if not self.carry or (self.skipping and not self._skip()) or not self.carry:
            self._advance(len(self.carry))
            return None
        return self._complete(len(self.carry), hold=False)

    def _advance(self, size: int) -> bytes:
        gone, self.carry = self.carry[:size], self.carry[size:]
        self.before = gone[-BEFORE:] if len(gone) >= BEFORE else (self.before + gone)[-BEFORE:]
        self.position += size
        return gone

    def _skip(self) -> bool:
        """Pass over the rest of an overlong line; whether its end was found."""
        end = self.carry.find(b"\n")
        self.skipping = end < 0
        self._advance(len(self.carry) if self.skipping else end + 1)
        return not self.skipping

    def _overlong(self) -> Cut | None:
        """No line end yet: cut the line once it is certainly too long (the last byte may be the CR of a CRLF)."""
        if len(self.carry) <= self._limit + 1:
            return None
        # A hole left by a crash reads as NULs; the line that follows it must not go down with it.
        hole = len(self.carry) - len(self.carry.lstrip(b"\0"))
        if hole and len(self.carry) - hole <= self._limit + 1:
            self._hole(hole)
            return None
        if hole:
            self._hole(hole)
        position = self.position
        block = self._advance(len(self.carry))[: self._limit]
        self.skipping = True
        self.too_long += 1
        return Cut(
            block, np.array([0], np.int64), np.array([len(block)], np.int64), np.array([position], dtype=np.int64)
        )

    def _hole(self, size: int) -> None:
        self.holes += size
        self._advance(size)

    def _complete(self, size: int, *, hold: bool) -> Cut | None:
        """Records of the first `size` bytes of the carry."""
        block = self.carry[:size]
        starts, ends = split_lines(block)
        long = np.flatnonzero(ends - starts > self._limit)
        for row in long.tolist():
            start, end = int(starts[row]), int(ends[row])
            text = block[start:end]
            hole = len(text) - len(text.lstrip(b"\0"))
            self.holes += hole
            starts[row] = start + hole
            if end - start - hole > self._limit:
                ends[row] = start + hole + self._limit
                self.too_long += 1
        if self._joiner is not None:
            firsts, overflowed = self._joiner.join(block, starts, ends)
            lasts = np.append(firsts[1:], len(starts)) - 1
            if hold:
                size = int(starts[firsts[-1]])
                firsts, lasts = firsts[:-1], lasts[:-1]
            self.overflowed += len(overflowed)
            starts, ends = starts[firsts], ends[lasts]
        position = self.position
        block = self._advance(size)
        if not len(starts):
            return None
        return Cut(block, starts, ends, position + starts)
