"""The times of Linux audit events, of many at once: `audit(SECONDS.MILLIS:SERIAL)`.
Counterpart: `parsers.audit` finds the words that hold them; `text.audit_lines` joined lines of one time and serial."""

from __future__ import annotations

import re

import numpy as np

from vedette.model.batch import Batch, Bool, Int64
from vedette.parsers.columns import Block

_STAMP = re.compile(rb"audit\((\d{1,12})\.(\d{1,9}):\d{1,20}\)")
_EARLIEST, _LATEST = 0, 253_402_300_799


def times_of(batch: Batch, block: Block, rows: Int64, starts: Int64, ends: Int64) -> tuple[Int64, Bool]:
    """Time of each event in microseconds (`read_at` where it has none), and which have one.

    rows, starts, ends: of the values of `msg=`, in order.
    """
    time = np.full(len(batch), batch.read_at, dtype=np.int64)
    read = np.zeros(len(batch), dtype=np.bool_)
    fitting = block.matches(starts, b"audit(") & (ends - starts >= 23)
    rows, starts = rows[fitting], starts[fitting] + 6
    dotted = block.byte(starts + 10) == 0x2E
    rows, starts = rows[dotted], starts[dotted]
    good = block.digits(starts, starts + 10) & block.digits(starts + 11, starts + 14)
    good &= block.byte(starts + 14) == 0x3A
    rows, starts = rows[good], starts[good]
    seconds = block.numbers(starts, starts + 2) * np.uint64(10**8) + block.numbers(starts + 2, starts + 10)
    millis = block.numbers(starts + 11, starts + 14)
    # All records of an event have one time.
    time[rows] = seconds.astype(np.int64) * 1_000_000 + millis.astype(np.int64) * 1000
    read[rows] = True
    for row in np.flatnonzero(~read).tolist():
        stamp = _STAMP.search(batch.raw(row))
        if stamp is not None and _EARLIEST <= int(stamp[1]) <= _LATEST:
            time[row] = int(stamp[1]) * 1_000_000 + int(stamp[2][:6].ljust(6, b"0"))
            read[row] = True
    return time, read
