"""The records of one columnar run in the order of their keys: entries that windows carried on, then matched records.
Counterpart: `columnar` sorts them and asks for entries of the few that stay in windows or fire."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from vedette.detections.entries import Counted, Entry
from vedette.detections.matches import Matches
from vedette.model.batch import Int64
from vedette.model.events import Column, Scalar


class Made(Protocol):
    """Who makes entries of matched records."""

    matches: Matches

    def entry(self, at: int) -> Entry:
        """The entry of one."""
        ...

    def entries(self, rows: Int64) -> list[Entry]:
        """The entries of several."""
        ...

    def counted(self) -> Column:
        """The field whose values are counted."""
        ...

    def texts(self) -> list[Scalar]:
        """Its values by code, the last one None."""
        ...


class Source:
    """The records behind the sorted arrays of one columnar run: carried entries first, then new rows."""

    def __init__(self, work: Made, carried: list[Entry], rows: Int64, order: Int64, c: int) -> None:
        self._work = work
        self._carried = carried
        self._rows = rows
        self._order = order
        self._c = c

    def entry(self, index: int) -> Entry:
        """The entry at a sorted place."""
        at = int(self._order[index])
        return self._carried[at] if at < self._c else self._work.entry(int(self._rows[at - self._c]))

    def entries(self, lows: Int64, ends: Int64) -> list[Entry]:
        """The entries of sorted places low..end, one such run after the other."""
        counts = ends - lows
        places = np.repeat(ends - np.cumsum(counts), counts) + np.arange(int(counts.sum()))
        at = self._order[places]
        new = iter(self._work.entries(self._rows[at[at >= self._c] - self._c]))
        carried, c = self._carried, self._c
        return [carried[one] if one < c else next(new) for one in at.tolist()]

    def row(self, index: int) -> int:
        """The matched record at a sorted place, which must be a new one."""
        return int(self._rows[int(self._order[index]) - self._c])

    def repeats(self) -> Int64:
        """How many records each sorted place stands for."""
        old = np.asarray([entry.repeat for entry in self._carried], dtype=np.int64)
        return np.concatenate([old, self._work.matches.repeat[self._rows].astype(np.int64)])[self._order]

    def values(self) -> Int64:
        """A code for the counted value at each sorted place."""
        column = self._work.counted()
        known: dict[Counted, int] = {value: code for code, value in enumerate(self._work.texts()[:-1])}
        old = np.asarray([known.setdefault(entry.value, len(known)) for entry in self._carried], dtype=np.int64)
        return np.concatenate([old, column.codes[self._rows].astype(np.int64)])[self._order]
