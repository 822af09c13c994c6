"""Arguments of the programs that audit events say were run, of many events at once where they are plainly written.
Counterpart: `parsers.audit` asks; `audit_values.command_line` says the same of one event, however it is written."""

from __future__ import annotations

import re

import numpy as np

from vedette.model.batch import Int64
from vedette.parsers.audit_spans import gathered
from vedette.parsers.columns import Block, first_of
from vedette.text.escape import decode

_LINE = b"type=EXECVE "
_NAME = re.compile(rb"a\d")


def is_argument(beginning: int) -> bool:
    """Whether a word that begins so (eight bytes of it, first lowest) may be an argument, or a part of one."""
    return _NAME.match(beginning.to_bytes(8, "little")) is not None


def plain_arguments(
    block: Block, starts: Int64, ends: Int64, rows: Int64, lines: Int64, owners: Int64
) -> tuple[Int64, list[str]]:
    """Events whose arguments are all quoted words of one line, and for each of them these with spaces between them.

    starts, ends, rows: in order the words of `is_argument`. lines, owners: in order where the types of EXECVE lines
    begin, and the event each is of. Of another event each must be read by itself.
    """
    raw = np.frombuffer(block.raw, dtype=np.uint8)
    begun = (block.byte(lines + len("EXECVE")) == 0x20).all()
    if not begun or block.raw.count(_LINE) != len(lines) or not len(starts):
        # Elsewhere one may begin within a word.
        return lines[:0], []
    newlines = np.append(np.flatnonzero(raw == 0x0A), len(raw))
    stops = newlines[np.searchsorted(newlines, lines)]
    line = np.searchsorted(lines, starts, side="right") - 1
    within = np.flatnonzero((line >= 0) & (starts < stops[line]))
    starts, ends, rows = starts[within], ends[within], rows[within]
    sign = first_of(block.word(starts), b"=")
    begins = starts + sign + 1
    good = (block.byte_before(starts) == 0x20) & (sign < 8) & (ends - begins >= 2)
    good &= block.digits(starts + 1, starts + sign)
    begins = np.where(good, begins, starts)
    second, unknown = block.find(b'"', begins + 1, ends)
    good &= (block.byte(begins) == 0x22) & (second == ends - 1)
    if unknown is not None:
        good &= ~unknown
    apart = np.zeros(int(max(rows.max(initial=0), owners.max(initial=0))) + 1, dtype=np.bool_)
    apart[rows[~good]] = True
    apart[owners[1:][owners[1:] == owners[:-1]]] = True
    some = np.flatnonzero(~apart[rows])
    return _lines(block, begins[some], ends[some], rows[some]) if len(some) else (lines[:0], [])


def _lines(block: Block, starts: Int64, ends: Int64, rows: Int64) -> tuple[Int64, list[str]]:
    text = gathered(np.frombuffer(block.raw, dtype=np.uint8), starts + 1, ends)
    # A space, or a line end after the last one of a row, takes the place of the second quote.
    last = np.append(rows[1:] != rows[:-1], True)
    text[np.cumsum(ends - starts - 1) - 1] = np.where(last, 0x0A, 0x20)
    told = text.tobytes()
    if told.isascii():
        return rows[last], told.decode().split("\n")[:-1]
    return rows[last], [decode(line) for line in told.split(b"\n")[:-1]]
