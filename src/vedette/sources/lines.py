"""Cuts a growing stream of bytes into records: half lines wait, overlong ones are cut, neighbours may be joined.
Counterpart: file.py and stdin.py feed it what they read and emit what comes back."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from vedette.model.batch import Int64, RecordFormat, split_lines
from vedette.sources.multiline import Joiner
from vedette.sources.settings import LineSettings, seconds
from vedette.text.audit_lines import Arranged, arrange

BEFORE = 64
"""How many bytes before a position are remembered to recognise the place again."""
AUDIT_WAIT = 1.0
"""Seconds a line of Linux audit waits for others of its event: the kernel writes all of them at once."""

_SPLIT_KNOWN = 256


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
    rest of an overlong line is being passed over. too_long, overflowed, holes, split: what was cut, closed early, how
    many NUL bytes of file holes were passed over, and how many audit events came in pieces because a line of them came
    too late, since the owner last took them to account.
    """

    def __init__(self, settings: LineSettings, *, position: int = 0, before: bytes = b"", skipping: bool = False):
        self._limit = settings.max_record
        self._joiner = Joiner(settings.multiline) if settings.multiline else None
        self._audit = settings.format is RecordFormat.AUDIT
        self._wait = seconds(settings.multiline.flush) if settings.multiline else AUDIT_WAIT
        self._arrived: deque[tuple[int, float]] = deque()
        self._unended: deque[int] = deque(maxlen=_SPLIT_KNOWN)
        self.position = position
        self.before = before
        self.skipping = skipping
        self.carry = b""
        self.too_long = 0
        self.overflowed = 0
        self.holes = 0
        self.split = 0
        self._in_hole = False

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
        return (self._joiner is not None or self._audit) and b"\n" in self.carry

    @property
    def due(self) -> float | None:
        """When what is held back is to be given out by `flush`, by the clock of `feed`; None: nothing is."""
        if not self.holding or not self._arrived:
            return None
        # Joined lines wait for the next one; those of audit not longer than it takes to write them.
        return (self._arrived[0] if self._audit else self._arrived[-1])[1] + self._wait

    def feed(self, data: bytes, now: float = 0.0) -> Cut | None:
        """Take the next bytes; what became complete by them. now: seconds of any clock that only goes on."""
        seen = len(self.carry)
        self.carry += data
        if self.skipping and not self._skip():
            return None
        if self._in_hole:
            # No line begins before its end.
            self._hole(len(self.carry) - len(self.carry.lstrip(b"\0")))
            self._in_hole = not self.carry
            seen = 0
        if seen > len(self.carry) or self._joiner is not None or self._audit:
            seen = 0
            self._note_arrival(now)
        last = self.carry.rfind(b"\n", seen)
        if last < 0:
            return self._overlong()
        # A line too long never joins the record before it (max_bytes < max_record), so that need not wait for it.
        return self._complete(last + 1, hold=len(self.carry) - last - 1 <= self._limit + 1)

    def flush(self, now: float) -> Cut | None:
        """Give out the whole lines that were held back long enough."""
        due = self.due
        if due is None or due > now:
            return None
        if not self._audit:
            return self._complete(self.carry.rfind(b"\n") + 1, hold=False)
        settled = self.position
        while self._arrived and self._arrived[0][1] + self._wait <= now:
            settled, _ = self._arrived.popleft()
        return self._complete(self.carry.rfind(b"\n") + 1, hold=True, settled=settled - self.position)

    def _note_arrival(self, now: float) -> None:
        if self._arrived and (not self._audit or now - self._arrived[-1][1] < self._wait / 16):
            # Few of them, however small the pieces.
            _, at = self._arrived.pop()
            now = at if self._audit else now
        self._arrived.append((self.read_to, now))

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
        while self._arrived and self._arrived[0][0] <= self.position:
            self._arrived.popleft()
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
            self._in_hole = not self.carry
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

    def _complete(self, size: int, *, hold: bool, settled: int = 0) -> Cut | None:
        """Records of the first `size` bytes of the carry; of audit, those of the first `settled` wait no longer."""
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
        if self._audit:
            settled = int(np.searchsorted(ends, settled))
            return self._events(arrange(block, starts, ends, final=not hold, settled=settled), starts, size)
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

    def _events(self, events: Arranged, starts: Int64, size: int) -> Cut | None:
        """Joined events of audit; the lines of those that may go on stay in the carry."""
        position = self.position
        self._advance(int(starts[events.lines]) if events.lines < len(starts) else size)
        if not len(events.starts):
            return None
        ends = np.minimum(events.ends, events.starts + self._limit)
        self.too_long += int(np.count_nonzero(ends < events.ends)) + events.cut
        if self._unended:
            late = np.isin(events.ids, np.array(self._unended, dtype=np.uint64))
            self.split += int(np.count_nonzero(late & (events.ids != 0)))
        self._unended.extend(events.ids[~events.ended][-_SPLIT_KNOWN:].tolist())
        return Cut(events.block, events.starts, ends, position + starts[events.firsts])
