"""A small lake to search in, and the slow, obvious search it is held to."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from vedette.app.counters import Counters
from vedette.app.detection import batch_of_lines
from vedette.app.routed import routed_parser
from vedette.app.search import Search
from vedette.detections.match import Matcher
from vedette.model.batch import Batch, Origin
from vedette.model.levels import Level
from vedette.model.rules import Rule
from vedette.model.shipping import BatchKey, Headers
from vedette.rules.query import parse_query
from vedette.store.lake.lake import Lake
from vedette.testing.clock import FakeClock

HOST_ID = "11111111-1111-4111-8111-111111111111"
EVER = 2**60
HOUR = 3_600_000_000


def put(
    lake: Lake,
    number: int,
    lines: Sequence[bytes],
    *,
    stream: str = "auth",
    host_id: str = HOST_ID,
    created: int = 0,
) -> Batch:
    """Store these lines as one batch, of the format they look like."""
    batch = batch_of_lines(lines, year=2026)
    return put_batch(
        lake, replace(batch, origin=Origin(host_id, stream), number=number, read_at=created or batch.read_at)
    )


def put_batch(lake: Lake, batch: Batch) -> Batch:
    """Store a batch as it is."""
    table = routed_parser([], Counters()).parse(batch)
    severity = np.full(len(batch), 255, np.uint8)
    headers = Headers(table.time, table.column("host.name"), table.column("process.name"), severity)
    assert lake.put(BatchKey(batch.origin.host_id, batch.origin.source, batch.number), batch, headers)
    return batch


@contextmanager
def lake_of(folder: Path, batches: Sequence[Sequence[bytes]], *, flush_every: int = 1, created: int = 0):
    """A lake that holds these batches of lines."""
    lake = Lake(folder, clock=FakeClock(), counter=Counters())
    try:
        for number, lines in enumerate(batches, 1):
            put(lake, number, lines, created=created)
            if number % flush_every == 0:
                lake.flush()
        lake.flush()
        yield lake
    finally:
        lake.close()


def search(lake: Lake, query: str, **options: object) -> Search:
    """A search over all times."""
    return Search(lake, parse_query(query), **{"since": -EVER, "until": EVER, "counter": Counters(), **options})


def obvious(batches: Sequence[Batch], query: str) -> list[tuple[int, int]]:
    """(batch, row) of every record for which the engine says yes, without plan and lake."""
    rule = Rule("search", "search", Level.INFORMATIONAL, when=parse_query(query).node)
    matcher = Matcher([rule], routed_parser([rule], Counters()))
    found = []
    for number, batch in enumerate(batches, 1):
        found += [(number, int(row)) for row in matcher.match(batch).rows]
    return found
