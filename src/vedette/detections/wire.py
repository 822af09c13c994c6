"""Matches as bytes between a matching worker and the process that correlates: arrays as they lie in memory.
Counterpart: `app.replay` sends them over pipes of its own; they never leave the machine or the run."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from vedette.detections.matches import Matches
from vedette.model.batch import Int64
from vedette.model.events import Column, Value, identity

_ARRAYS = {
    "rows": np.int64,
    "time": np.int64,
    "window": np.int64,
    "high": np.int64,
    "position": np.int64,
    "repeat": np.int32,
    "trust": np.uint8,
    "check": np.uint32,
    "ambiguous": np.bool_,
}
_NUMBERS = ("n", "bytes", "unreadable", "batch_high", "skewed", "undecided")


class Packet(msgspec.Struct, frozen=True):
    """What a worker sends back for one job. starts, ends: int64[m], where the matched records lie in the block.

    too_long: records of which only the beginning was looked at.
    """

    arrays: dict[str, bytes]
    hits: dict[int, bytes]
    fields: dict[str, tuple[bytes, list[Any]]]
    numbers: dict[str, int]
    starts: bytes
    ends: bytes
    too_long: int


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Packet)


class Answer(NamedTuple):
    """A packet read again."""

    matches: Matches
    starts: Int64
    ends: Int64
    too_long: int


def pack(matches: Matches, starts: Int64, ends: Int64, *, too_long: int = 0) -> bytes:
    """`matches` of a whole block as bytes. starts, ends: of all its records."""
    return _ENCODER.encode(
        Packet(
            arrays={name: getattr(matches, name).tobytes() for name in _ARRAYS},
            hits={index: hits.tobytes() for index, hits in matches.hits.items()},
            fields={name: (column.codes.tobytes(), list(column.values)) for name, column in matches.fields.items()},
            numbers={name: int(getattr(matches, name)) for name in _NUMBERS},
            starts=starts[matches.rows].tobytes(),
            ends=ends[matches.rows].tobytes(),
            too_long=too_long,
        )
    )


def unpack(data: bytes) -> Answer:
    """What `pack` packed: the matches and where their records lie in the block."""
    packet = _DECODER.decode(data)
    parts: dict[str, Any] = {name: np.frombuffer(packet.arrays[name], dtype=dtype) for name, dtype in _ARRAYS.items()}
    parts.update(packet.numbers)
    return Answer(
        Matches(
            **parts,
            hits={index: np.frombuffer(hits, dtype=np.int32) for index, hits in packet.hits.items()},
            fields={
                # Hardly any value is a list, so the test stands here and not in a function.
                name: Column(
                    np.frombuffer(codes, dtype=np.int32),
                    [tuple(value) if type(value) is list else value for value in values],
                )
                for name, (codes, values) in packet.fields.items()
            },
        ),
        np.frombuffer(packet.starts, dtype=np.int64),
        np.frombuffer(packet.ends, dtype=np.int64),
        packet.too_long,
    )


def no_matches() -> Matches:
    """Matches of no record."""
    arrays: dict[str, Any] = {name: np.empty(0, dtype=dtype) for name, dtype in _ARRAYS.items()}
    return Matches(**arrays, hits={}, fields={}, n=0, bytes=0, unreadable=0, batch_high=0, skewed=0, undecided=0)


def join(parts: Sequence[Matches], order: Int64) -> Matches:
    """Several runs of matches as one, record `order[i]` of their concatenation first.

    `n`, `bytes` and the other totals are sums, `batch_high` the maximum.
    """
    offsets = np.cumsum([0] + [len(part.rows) for part in parts])
    place = np.empty(len(order), dtype=np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    arrays: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts])[order] for name in _ARRAYS}
    hits: dict[int, list[Any]] = {}
    for part, offset in zip(parts, offsets.tolist(), strict=False):
        for index, own in part.hits.items():
            hits.setdefault(index, []).append(own.astype(np.int64) + offset)
    names = dict.fromkeys(name for part in parts for name in part.fields)
    return Matches(
        **arrays,
        hits={index: np.sort(place[np.concatenate(own)]) for index, own in sorted(hits.items())},
        fields={name: _join_columns(parts, name, order) for name in names},
        n=sum(part.n for part in parts),
        bytes=sum(part.bytes for part in parts),
        unreadable=sum(part.unreadable for part in parts),
        batch_high=max((part.batch_high for part in parts), default=0),
        skewed=sum(part.skewed for part in parts),
        undecided=sum(part.undecided for part in parts),
    )


def _join_columns(parts: Sequence[Matches], name: str, order: Int64) -> Column:
    known: dict[Hashable, int] = {}
    values: list[Value] = []
    codes = []
    for part in parts:
        column = part.fields.get(name) or Column.absent(len(part.rows))
        renumber = np.full(len(column.values) + 1, -1, dtype=np.int32)
        for code, value in enumerate(column.values):
            renumber[code] = known.setdefault(identity(value), len(known))
            if len(known) > len(values):
                values.append(value)
        codes.append(renumber[column.codes])
    return Column(np.concatenate(codes)[order], values)


def part_of(matches: Matches, begin: int, end: int) -> Matches:
    """The matched records `begin` to `end` (exclusive); totals stay with the first part."""
    first = begin == 0
    arrays: dict[str, Any] = {name: getattr(matches, name)[begin:end] for name in _ARRAYS}
    hits = {}
    for index, own in matches.hits.items():
        low, high = np.searchsorted(own, [begin, end])
        if low < high:
            hits[index] = own[low:high] - np.int32(begin)
    return Matches(
        **arrays,
        hits=hits,
        fields={name: Column(column.codes[begin:end], column.values) for name, column in matches.fields.items()},
        n=matches.n if first else 0,
        bytes=matches.bytes if first else 0,
        unreadable=matches.unreadable if first else 0,
        batch_high=matches.batch_high,
        skewed=matches.skewed if first else 0,
        undecided=matches.undecided if first else 0,
    )
