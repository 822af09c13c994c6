"""In which format a file is, told from its beginning, and how its records are found in it.
Counterpart: `app.replay` cuts files by it; `parsers` read what was cut."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import numpy as np

from vedette.model.batch import Int64, RecordFormat, split_lines
from vedette.parsers.splitting import ObjectSplitter
from vedette.text.audit_lines import arrange

AUTO = "auto"
CHOICES = (AUTO, *(form.value for form in RecordFormat if form is not RecordFormat.MESSAGE))
"""What `--format` takes."""

_LOOKED_AT = 20
_JSON = re.compile(rb'(?:\xef\xbb\xbf)?\s*(?:\{\s*["}]|\[\s*[{\]])')
_AUDIT = re.compile(rb"(?:node=\S+ )?type=\S+ msg=audit\(\d+\.\d+:\d+\)")
_ACCESS = re.compile(
    rb'\S+ (?:\S+ )?\S+ (?:\S+|"[^"]*"|[^\[]*) \[\d\d/[A-Z][a-z][a-z]/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "'
    rb"|\[[A-Z][a-z][a-z] [A-Z][a-z][a-z] [ \d]\d \d\d:\d\d:\d\d(?:\.\d+)? \d{4}\] \["
    rb"|\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[[a-z]+\] \d+#\d+: "
)


def format_of(head: bytes) -> RecordFormat:
    """The format of a file that begins with `head`; syslog where nothing else tells."""
    if _JSON.match(head):
        return RecordFormat.JSON
    lines = [line for line in head.split(b"\n")[: 2 * _LOOKED_AT] if line.strip()][:_LOOKED_AT]
    for form, pattern in ((RecordFormat.AUDIT, _AUDIT), (RecordFormat.ACCESS, _ACCESS)):
        if 2 * sum(pattern.match(line) is not None for line in lines) > len(lines):
            return form
    return RecordFormat.SYSLOG


def objects_in(chunks: Iterable[bytes], size: int, limit: int) -> Iterator[tuple[bytes, Int64, int]]:
    """Objects of a JSON stream in blocks of about `size` bytes.

    A block, int64[3, n] of starts, ends and lines, and how many objects were cut at `limit` bytes.
    """
    splitter = ObjectSplitter(limit)
    records: list[bytes] = []
    lines: list[int] = []
    held = cut = 0
    for data, last in _last_told(chunks):
        for found in splitter.feed(data, last=last):
            records.append(found.record)
            lines.append(found.line)
            held += len(found.record)
            cut += found.cut
        if records and (last or held >= size):
            lengths = np.array([len(record) for record in records], dtype=np.int64)
            starts = np.cumsum(lengths + 1) - lengths - 1
            yield (
                b"\n".join(records) + b"\n",
                np.stack([starts, starts + lengths, np.array(lines, dtype=np.int64)]),
                cut,
            )
            records, lines, held, cut = [], [], 0, 0


def audit_in(chunks: Iterable[bytes], size: int, limit: int) -> Iterator[tuple[bytes, Int64, int]]:
    """Events of a Linux audit log, their lines put together, in blocks of about `size` bytes; else as `objects_in`."""
    pieces: list[bytes] = []
    held, line = 0, 1
    for data, last in _last_told(chunks):
        pieces.append(data)
        held += len(data)
        if not held or (held < size and not last):
            continue
        block = b"".join(pieces)
        end = len(block) if last or held > 2 * size + limit else block.rfind(b"\n") + 1
        starts, ends = split_lines(block[:end])
        events = arrange(block, starts, ends, final=last)
        if not events.lines:
            pieces = [block]
            continue
        short = np.minimum(events.ends, events.starts + limit)
        cut = int(np.count_nonzero(short < events.ends)) + events.cut
        if len(short):
            yield events.block, np.stack([events.starts, short, line + events.firsts]), cut
        line += events.lines
        pieces = [block[int(starts[events.lines]) :] if events.lines < len(starts) else block[end:]]
        held = len(pieces[0])


def _last_told(chunks: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    for data in chunks:
        yield data, False
    yield b"", True
