"""What a data file holds: its batches in order, and all that is needed to rebuild them from its rows.
Counterpart: `manifest` keeps one a file, `reader` looks there before it opens anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import zstandard

from vedette.model.batch import Bool, Int64
from vedette.model.errors import StateError

VERSION = 2
"""1: rows lie as they came. 2: they may be `arranged`, and who knows 1 alone would read them in a wrong order."""
MIXED = -1
"""The trust of a batch whose records differ in it."""

_NUMBERS = ("sequence", "stream", "number", "records", "raw_bytes", "time_min", "time_max", "ingested", "read_at")
_MORE = ("origin_number", "shape")


class Shape(msgspec.Struct, frozen=True, array_like=True):
    """What the batches of a source nearly always have in common.

    trust: of every record, or MIXED. given: 0 = no given header, 1 = one that equals the header columns, 2 = one that
    is kept beside them.
    """

    host_id: str
    source: str
    generation: str
    format: str
    trust: int
    given: int
    timezone: str
    year: int
    spooled: bool


class _Stored(msgspec.Struct, array_like=True):
    version: int
    numbers: dict[str, bytes]
    groups: bytes
    shapes: list[Shape]
    cursors: dict[int, str]
    dropped: dict[int, dict[str, int]]


@dataclass(slots=True)
class Contents:
    """The batches of one file, in ingest order; int64 arrays, one entry a batch.

    sequence: where it stands in ingest order. stream: the manifest's id of host and stream. number: as in the key.
    records, raw_bytes: how many rows, and the bytes of their records. time_min, time_max: `@timestamp`, microseconds
    (0 in an empty batch). shape: which of `shapes`. groups: first row of each row group; a batch lies in one whole.
    """

    sequence: Int64
    stream: Int64
    number: Int64
    records: Int64
    raw_bytes: Int64
    time_min: Int64
    time_max: Int64
    ingested: Int64
    read_at: Int64
    origin_number: Int64
    shape: Int64
    shapes: list[Shape]
    groups: Int64
    cursors: dict[int, str] = field(default_factory=dict)
    dropped: dict[int, dict[str, int]] = field(default_factory=dict)
    _rows: Int64 | None = None

    def __len__(self) -> int:
        return len(self.sequence)

    @property
    def rows(self) -> Int64:
        """The first row of each batch in the file; one more entry for the end."""
        if self._rows is None:
            self._rows = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.records)])
        return self._rows

    def group_of(self) -> Int64:
        """The row group each batch lies in; of an empty one any."""
        return np.maximum(np.searchsorted(self.groups, self.rows[:-1], side="right") - 1, 0).astype(np.int64)

    def chosen(self, keep: Bool) -> Contents:
        """Those batches only; `groups` are to be set anew."""
        places = np.flatnonzero(keep)
        new = {int(old): place for place, old in enumerate(places)}
        return Contents(
            **{name: getattr(self, name)[places] for name in (*_NUMBERS, *_MORE)},
            shapes=self.shapes,
            groups=np.empty(0, np.int64),
            cursors={new[row]: cursor for row, cursor in self.cursors.items() if row in new},
            dropped={new[row]: dropped for row, dropped in self.dropped.items() if row in new},
        )


def joined(parts: Sequence[Contents]) -> Contents:
    """The batches of several files, one after the other; `groups` are to be set anew."""
    shapes: dict[Shape, int] = {}
    codes, cursors, dropped, before = [], {}, {}, 0
    for part in parts:
        own = np.asarray([shapes.setdefault(shape, len(shapes)) for shape in part.shapes], np.int64)
        codes.append(own[part.shape])
        cursors.update({before + row: cursor for row, cursor in part.cursors.items()})
        dropped.update({before + row: counts for row, counts in part.dropped.items()})
        before += len(part)
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in (*_NUMBERS, "origin_number")}
    return Contents(
        **arrays,
        shape=np.concatenate(codes),
        shapes=list(shapes),
        groups=np.empty(0, np.int64),
        cursors=cursors,
        dropped=dropped,
    )


def encode(contents: Contents) -> bytes:
    """As it is kept: differences of neighbours compress to little."""
    numbers = {name: np.diff(getattr(contents, name), prepend=0).tobytes() for name in (*_NUMBERS, *_MORE)}
    stored = _Stored(VERSION, numbers, contents.groups.tobytes(), contents.shapes, contents.cursors, contents.dropped)
    return zstandard.ZstdCompressor(level=3).compress(msgspec.msgpack.encode(stored))


def decode(data: bytes) -> Contents:
    """What `encode` kept; StateError where it is damaged or newer than we are."""
    try:
        stored = msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(data), type=_Stored)
    except (zstandard.ZstdError, msgspec.MsgspecError) as error:
        raise StateError(
            f"lake: the contents of a file cannot be read: {error}", hint="the manifest is damaged: restore a copy"
        ) from error
    if not 1 <= stored.version <= VERSION:
        raise StateError(
            f"lake: contents of version {stored.version}, this version knows none newer than {VERSION}",
            hint="run the version that wrote it or a newer one",
        )
    arrays: dict[str, Any] = {
        name: np.cumsum(np.frombuffer(stored.numbers[name], np.int64)) for name in (*_NUMBERS, *_MORE)
    }
    return Contents(
        **arrays,
        shapes=stored.shapes,
        groups=np.frombuffer(stored.groups, np.int64),
        cursors=stored.cursors,
        dropped=stored.dropped,
    )
