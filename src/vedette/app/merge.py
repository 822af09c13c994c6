"""Several files in time order: of the next records the earliest comes first, ties by argument order.
Counterpart: `app.replay` reads the files; what comes out here is the ingest order the engine sees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from vedette.detections.stretch import Stretch
from vedette.detections.wire import join, part_of
from vedette.model.clock import BEGINNING

_END = -BEGINNING


class Reader(Protocol):
    """A file being read. high: the highest event time of all stretches given so far."""

    high: int

    def stretches(self) -> Iterator[Stretch]:
        """The file's stretches in order; `matches.high` never falls from one to the next."""
        ...


@dataclass(slots=True)
class _Lane:
    """One file on its way through the merge. frontier: nothing earlier than this is still to come from it."""

    reader: Reader
    source: Iterator[Stretch]
    frontier: int = BEGINNING
    waiting: list[Stretch] = field(default_factory=list)

    def advance(self) -> None:
        stretch = next(self.source, None)
        if stretch is None:
            self.frontier = _END
            return
        self.frontier = self.reader.high
        if len(stretch.matches.rows):
            self.waiting.append(stretch)

    def take(self, before: int) -> list[Stretch]:
        """Give out the waiting records earlier than `before`."""
        taken, kept = [], []
        for stretch in self.waiting:
            cut = int(np.searchsorted(stretch.matches.high, before, side="left"))
            if cut:
                taken.append(_slice(stretch, 0, cut))
            if cut < len(stretch.matches.rows):
                kept.append(_slice(stretch, cut, len(stretch.matches.rows)))
        self.waiting = kept
        return taken


def merged(readers: Sequence[Reader]) -> Iterator[Stretch]:
    """The records of all files as stretches in merged order.

    A file keeps its own order: a record out of order counts as happening with the latest before it, which
    is what taking the earliest head of all files, one record at a time, comes to.
    """
    lanes = [_Lane(reader, reader.stretches()) for reader in readers]
    given = BEGINNING
    while lanes and given < _END:
        last = min(lanes, key=lambda lane: lane.frontier)
        last.advance()
        safe = min(lane.frontier for lane in lanes)
        if safe > given:
            given = safe
            parts = [part for lane in lanes for part in lane.take(safe)]
            if parts:
                yield _joined(parts)


def _slice(stretch: Stretch, begin: int, end: int) -> Stretch:
    return replace(
        stretch,
        matches=part_of(stretch.matches, begin, end),
        codes=stretch.codes[begin:end],
        highs=[int(stretch.matches.high[end - 1])],
        raw=lambda index: stretch.raw(index + begin),
    )


def _joined(parts: Sequence[Stretch]) -> Stretch:
    """Parts in argument order, each in its file's order, as one stretch in time order."""
    part = np.concatenate([np.full(len(one.matches.rows), code, dtype=np.int64) for code, one in enumerate(parts)])
    own = np.concatenate([np.arange(len(one.matches.rows), dtype=np.int64) for one in parts])
    order = np.lexsort((part, np.concatenate([one.matches.high for one in parts])))
    codes, own = part[order], own[order]
    return Stretch(
        matches=join([one.matches for one in parts], order),
        origins=[one.origins[0] for one in parts],
        codes=codes,
        highs=[one.highs[0] for one in parts],
        created=max(one.created for one in parts),
        raw=lambda index: parts[int(codes[index])].raw(int(own[index])),
        samples=all(one.samples for one in parts),
    )
