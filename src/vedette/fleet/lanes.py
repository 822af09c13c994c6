"""Which records compete for which room: those of security apart from the rest, the order inside each kept.
Counterpart: `fleet.spool` keeps a lane each; `fleet.settings` names what goes where."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np

from vedette.fleet.settings import LanesSettings
from vedette.model.batch import Batch, Bool, GivenHeader, Trust
from vedette.model.events import Column
from vedette.model.shipping import Lane

Part = tuple[str, Lane, Batch]
SECURITY_SUFFIX = "#security"

# Syslog facilities auth, authpriv and audit (RFC 5424 section 6.2.1).
_FACILITIES = np.zeros(256, dtype=np.bool_)
_FACILITIES[[*range(32, 40), *range(80, 88), *range(104, 112)]] = True
_ZERO, _NINE, _OPEN, _CLOSE = 48, 57, 60, 62


class Lanes:
    """Splits batches. programs: gives the program names of a batch without a given header; None = not looked at."""

    def __init__(self, settings: LanesSettings, programs: Callable[[Batch], Column] | None = None) -> None:
        self._settings = settings
        self._programs = frozenset(settings.programs)
        self._column = programs
        self._whole: dict[str, bool] = {}

    def hurries(self, batch: Batch) -> bool:
        """Whether records of security are in it, so that it must not wait.

        As far as can be told at once: of lines that name no facility the headers are read only when they are split.
        """
        if self._is_whole(batch.origin.source):
            return True
        if batch.header is not None and not self._programs.isdisjoint(batch.header.program):
            return True
        return bool(facilities(batch).any())

    def _is_whole(self, source: str) -> bool:
        if source not in self._whole:
            self._whole[source] = any(fnmatchcase(source, pattern) for pattern in self._settings.sources)
        return self._whole[source]

    def __call__(self, batch: Batch) -> Sequence[Part]:
        """(stream, lane, batch): one part, or two where only some of the records are of security."""
        source = batch.origin.source
        if self._is_whole(source):
            return [(source, Lane.SECURITY, batch)]
        chosen = self._chosen(batch)
        if not chosen.any():
            return [(source, Lane.BULK, batch)]
        security = (source + SECURITY_SUFFIX, Lane.SECURITY, replace(select(batch, chosen), dropped={}))
        if chosen.all():
            if batch.dropped:
                return [security, (source, Lane.BULK, select(batch, ~chosen))]
            return [security]
        return [security, (source, Lane.BULK, select(batch, ~chosen))]

    def _chosen(self, batch: Batch) -> Bool:
        chosen = facilities(batch)
        if batch.header is not None:
            names = batch.header.program
            if not self._programs.isdisjoint(names):
                chosen |= np.fromiter(map(self._programs.__contains__, names), np.bool_, len(names))
        elif self._column is not None and len(batch):
            column = self._column(batch)
            wanted = np.array([value in self._programs for value in column.values] or [False], dtype=np.bool_)
            chosen |= np.where(column.codes >= 0, wanted[np.maximum(column.codes, 0)], False)
        return chosen


def facilities(batch: Batch) -> Bool:
    """bool[n]: the records that begin with a PRI (RFC 3164, RFC 5424) of the facilities auth, authpriv or audit."""
    n = len(batch)
    block = np.frombuffer(batch.block, dtype=np.uint8)
    if not n or not len(block) or not (block[np.minimum(batch.starts, len(block) - 1)] == _OPEN).any():
        return np.zeros(n, dtype=np.bool_)
    lengths = batch.ends - batch.starts
    at = [
        np.where(lengths > k, block[np.minimum(batch.starts + k, len(block) - 1)], 0).astype(np.int64) for k in range(5)
    ]
    digit = [(each >= _ZERO) & (each <= _NINE) for each in at]
    # All of these facilities have two or three digits.
    two = digit[1] & digit[2] & (at[3] == _CLOSE)
    three = digit[1] & digit[2] & digit[3] & (at[4] == _CLOSE)
    value = (at[1] - _ZERO) * 10 + at[2] - _ZERO
    value = np.where(three, value * 10 + at[3] - _ZERO, value)
    return np.asarray((at[0] == _OPEN) & (two | three) & _FACILITIES[np.clip(value, 0, 255)], dtype=np.bool_)


def select(batch: Batch, chosen: Bool) -> Batch:
    """The chosen records (bool[n]) as a batch of their own, each with the bytes between it and the next."""
    if not len(batch):
        return batch
    widths = np.diff(batch.starts, append=np.int64(len(batch.block)))
    kept = widths[chosen]
    starts = np.cumsum(kept) - kept
    rows = np.flatnonzero(chosen)
    # Neighbours are copied together.
    turns = np.flatnonzero(np.diff(chosen.view(np.int8), prepend=np.int8(0), append=np.int8(0)))
    bounds = np.append(batch.starts, len(batch.block))[turns].tolist()
    block = batch.block
    pieces = [block[first:last] for first, last in zip(bounds[::2], bounds[1::2], strict=True)]
    header = batch.header
    if header is not None:
        places = rows.tolist()
        header = GivenHeader(
            time=header.time[rows],
            host=[header.host[row] for row in places],
            program=[header.program[row] for row in places],
            pid=header.pid[rows],
        )
    return replace(
        batch,
        block=b"".join(pieces),
        starts=starts,
        ends=starts + (batch.ends - batch.starts)[rows],
        positions=batch.positions[rows],
        trust=batch.trust if isinstance(batch.trust, Trust) else batch.trust[rows],
        header=header,
    )


def cut(batch: Batch, block_limit: int, rows_limit: int) -> Iterator[Batch]:
    """The batch in pieces of at most so many bytes and records; a record that is larger alone is a piece.

    Each has the cursor of the whole; what the source dropped goes with the first.
    """
    if len(batch.block) <= block_limit and len(batch) <= rows_limit:
        yield batch
        return
    first, n, dropped = 0, len(batch), batch.dropped
    while first < n:
        room = int(batch.starts[first]) + block_limit
        last = min(max(int(np.searchsorted(batch.ends, room, "right")), first + 1), first + rows_limit)
        chosen = np.zeros(n, dtype=np.bool_)
        chosen[first:last] = True
        yield replace(select(batch, chosen), dropped=dropped)
        first, dropped = last, {}
