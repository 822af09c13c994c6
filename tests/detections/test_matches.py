"""Tests of what is kept of matched records: the check of one record is the same alone and among many.
Counterpart: vedette.detections.matches; ordinals of equal records, and so ids of findings, rest on it."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.detections.matches import FEW, checks, narrow
from vedette.model.events import Column


@settings(max_examples=40)
@given(st.lists(st.binary(max_size=240), min_size=FEW + 1, max_size=FEW + 4))
def test_a_check_is_the_same_alone_and_among_many(records: list[bytes]) -> None:
    records[0] = bytes(192) + records[0]
    records[1] = (records[1] * 64)[:200]
    starts = np.cumsum([0, *map(len, records[:-1])])
    ends = starts + [len(record) for record in records]
    block = b"".join(records)
    alone = [int(checks(block, starts[at : at + 1], ends[at : at + 1])[0]) for at in range(len(records))]
    assert checks(block, starts, ends).tolist() == alone


def test_a_column_over_few_rows_is_that_over_many() -> None:
    column = Column(np.array([2, -1, 0, 2, 1, 0, -1, 2, 1, 0, 2, 1], dtype=np.int32), ["a", "b", "c"])
    wanted = np.array([True, True, False] * 4)
    many = narrow(column, np.arange(12), wanted)
    for low in (0, 3, 6):
        few = narrow(column, np.arange(low, low + 5), wanted[low : low + 5])
        assert [few.value(at) for at in range(5)] == [many.value(at) for at in range(low, low + 5)]
        assert len(few.values) == len(set(few.codes.tolist()) - {-1})
