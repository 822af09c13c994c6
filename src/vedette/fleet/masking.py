"""What must not leave the host, hidden before it is written anywhere: same length, so that every offset stays right.
Counterpart: `fleet.settings` names the patterns, `fleet.spool` has each batch masked; counted by name, never shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import re2

from vedette.model.batch import Batch, UInt8
from vedette.model.protocols import Counter

_MASK = ord("*")
_NEWLINE = 10


class Masks:
    """patterns: name -> RE2, on bytes; what its first group matches is hidden, or all of it where it has none.

    A pattern is matched on the whole block, then held to one record: what runs over the end of one is hidden up to
    there, and the next is looked at anew. ValueError for a pattern that RE2 does not take.
    """

    def __init__(self, patterns: Mapping[str, str], counter: Counter) -> None:
        self._patterns = {name: _compiled(pattern) for name, pattern in patterns.items()}
        self._counter = counter

    def __call__(self, batch: Batch) -> Batch:
        """The batch with every secret as asterisks; itself where there is none."""
        hidden: UInt8 | None = None
        for name, pattern in self._patterns.items():
            found = 0
            # What an earlier pattern hid is not looked at again, so that each secret is counted once.
            block = batch.block if hidden is None else hidden.tobytes()
            for start, end in _found(pattern, block, batch):
                if hidden is None:
                    hidden = np.frombuffer(block, dtype=np.uint8).copy()
                part = hidden[start:end]
                # Ends of lines stay, so that records are cut as before.
                part[part != _NEWLINE] = _MASK
                found += 1
            if found:
                self._counter.add("secrets_masked", name, found)
        return batch if hidden is None else replace(batch, block=hidden.tobytes())


def _compiled(pattern: str) -> re2._Regexp[bytes]:
    options = re2.Options()
    options.log_errors = False
    options.encoding = re2.Options.Encoding.LATIN1
    try:
        # As the person wrote it in UTF-8, so the log has it: byte for byte. `^` and `$` are those of a record.
        return re2.compile(b"(?m)" + pattern.encode(), options)
    except re2.error as error:
        raise ValueError(f"not a pattern RE2 can run: {error}") from None


def _found(pattern: re2._Regexp[bytes], block: bytes, batch: Batch) -> list[tuple[int, int]]:
    """(start, end) of what is to be hidden."""
    group = 1 if pattern.groups else 0
    out: list[tuple[int, int]] = []
    at = 0
    while at <= len(block) and (match := pattern.search(block, at)) is not None:
        start, end = match.span()
        row = max(int(np.searchsorted(batch.starts, start, "right")) - 1, 0)
        limit = int(batch.ends[row]) if len(batch) else len(block)
        if end > limit:
            # It ran over the end of the record: within the record it may match as well.
            begin = max(start, int(batch.starts[row])) if len(batch) else start
            alone = pattern.search(block[begin:limit]) if begin < limit else None
            if alone is not None and alone.end(group) > alone.start(group) >= 0:
                out.append((begin + alone.start(group), begin + alone.end(group)))
                at = begin + max(alone.end(), 1)
            else:
                at = max(limit, start) + 1
            continue
        first, last = match.span(group)
        if last > first >= 0:
            out.append((first, last))
        at = max(end, start + 1)
    return out
