"""Follows the lake: what comes in from now on and satisfies a query, in ingest order.
Counterpart: `store.lake` is written meanwhile, mostly by another process; `cli.tail` prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from vedette.app.search import Confirming, Hit, take
from vedette.store.lake import listing
from vedette.store.lake.reader import Taken

AT_ONCE = 200
"""Batches read in one go."""


class Followed(Protocol):
    """What is followed: the lake in ingest order."""

    def read(self, after: int, limit: int) -> list[Taken]:
        """At most `limit` batches behind sequence number `after`."""
        ...


def last_sequence(folder: Path) -> int:
    """The sequence number of the newest batch of the lake in `folder`; StateError where there is none."""
    held = listing.Listing(folder)
    try:
        with held.reading() as connection:
            return listing.next_sequence(connection) - 1
    finally:
        held.close()


def follow(
    lake: Followed,
    confirming: Confirming,
    *,
    after: int,
    wait: Callable[[], bool],
    hosts: frozenset[str] = frozenset(),
    streams: frozenset[str] = frozenset(),
) -> Iterator[Sequence[Hit]]:
    """The hits of every batch behind `after`; where there are no more, `wait` waits, and ends it with False."""
    while True:
        batches = lake.read(after, AT_ONCE)
        if not batches:
            if not wait():
                return
            continue
        for taken in batches:
            after = taken.sequence
            key = taken.key
            if (hosts and key.host_id not in hosts) or (streams and key.stream.split("#")[0] not in streams):
                continue
            table, rows = confirming.holds(taken.batch)
            if len(rows):
                kept, times = take(taken.batch, rows), table.time[rows].tolist()
                yield [
                    Hit(time, taken.sequence, int(index), key, kept, row)
                    for row, (index, time) in enumerate(zip(np.asarray(rows).tolist(), times, strict=True))
                ]
            table.close()
