"""What waits in the spool, read back from the disk: in order, without what the hub has, around what is damaged.
Counterpart: `fleet.spool` writes it and says what is lost; `fleet.segments` knows what a file looks like."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Mapping, Sequence

from vedette.fleet import segments
from vedette.fleet.memory import Memory
from vedette.fleet.segments import Entry, Place, Segment
from vedette.fleet.side import Side
from vedette.model.protocols import Counter
from vedette.model.shipping import Lane


class SpoolReading:
    """Safe from any thread. lock: held around what is known of the files, and not while one is read.

    damaged: called for a file in which nothing whole stands where it did; it says what is missing and marks the file.
    """

    def __init__(
        self,
        sides: Mapping[Lane, Side],
        memory: Memory,
        lock: threading.RLock,
        counter: Counter,
        *,
        damaged: Callable[[Segment], None],
    ) -> None:
        self._sides, self._memory, self._lock, self._counter = sides, memory, lock, counter
        self._damaged = damaged

    def read(self, lane: Lane, after: Place, limit: int) -> Sequence[Entry]:
        """As `Spool.read`."""
        side = self._sides[lane]
        while True:
            with self._lock:
                behind = (each for each in side.segments if (each.number, each.size) > after)
                found = next((each for each in behind if each.size > len(segments.HEADER)), None)
                if found is None:
                    return []
                end, damaged = found.size, found.damaged
            start = after[1] if after[0] == found.number else len(segments.HEADER)
            got, reached = self._entries(lane, found, start, end, limit, damaged)
            if got or reached < 0:
                return got
            after = (found.number, reached)

    def _entries(
        self, lane: Lane, segment: Segment, start: int, end: int, limit: int, damaged: bool
    ) -> tuple[list[Entry], int]:
        try:
            # Behind damage it is not known where the next frame begins; so all of it is looked at.
            data = segments.part(segment.path, start, end - start if damaged else min(end - start, max(limit, 64)))
            if not damaged and next(segments.frames(data), None) is None:
                data = segments.part(segment.path, start, min(segments.first_size(data), end - start))
        except OSError as error:
            with self._lock:
                if segment not in self._sides[lane].segments:
                    return [], end
            if error.errno not in (errno.ENOENT, errno.EIO):
                self._counter.add("spool_reads_failed")
                return [], -1
            data = b""
        got: list[Entry] = []
        reached = 0
        for each in segments.frames(data, resync=damaged):
            reached = each.end
            entry = segments.entry_of(each, lane, (segment.number, start + each.end), self._memory.bases)
            if entry is not None and not self._is_confirmed(entry):
                got.append(entry)
        if damaged:
            return got, start + reached if reached else end
        if not reached or (start + len(data) == end and reached < len(data)):
            # Nothing whole stands there although it was synced.
            self._damaged(segment)
        return got, start + reached

    def _is_confirmed(self, entry: Entry) -> bool:
        stream = entry.key.stream
        base, confirmed = self._memory.bases.get(stream, 0), self._memory.confirmed.get(stream)
        # A gap whole or not at all.
        return confirmed is not None and (
            confirmed.through() >= entry.key.number - base if entry.gap else entry.key.number - base in confirmed
        )
