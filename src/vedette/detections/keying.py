"""Records by key: key codes over the columns of a correlation's group_by, and rows sorted into groups.
Counterpart: `columnar` runs a correlation over what is grouped here."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import overload

import numpy as np

from vedette.detections.matches import FEW
from vedette.detections.stretch import Key, scalar
from vedette.model.batch import Int64
from vedette.model.events import Column, Scalar, Value


class SingleKeys(Sequence[Key]):
    """The keys of a correlation by one field, by the field's codes: each is made when looked at."""

    def __init__(self, values: Sequence[Scalar]) -> None:
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    @overload
    def __getitem__(self, place: int) -> Key: ...
    @overload
    def __getitem__(self, place: slice) -> list[Key]: ...
    def __getitem__(self, place: int | slice) -> Key | list[Key]:
        # Asked for each key of each stretch: the usual question first.
        if type(place) is int:
            return (self._values[place],)
        assert isinstance(place, slice)
        return [(value,) for value in self._values[place]]


def single_keys(columns: Sequence[Column]) -> SingleKeys | None:
    """The keys by code where that is one text a code, as it nearly always is; None where it takes a closer look."""
    if len(columns) != 1 or not set(map(type, columns[0].values)) <= {str}:
        return None
    return SingleKeys(columns[0].values)  # type: ignore[arg-type]


def key_codes(columns: Sequence[Column], rows: Int64) -> tuple[Int64, list[Key]]:
    """int64[len(rows)] key code of each row, -1 where a part is absent, and the keys by code. columns: of each part."""
    if not columns:
        return np.zeros(len(rows), dtype=np.int64), [()]
    if len(columns) == 1:
        return columns[0].codes[rows].astype(np.int64), [(value,) for value in scalars(columns[0].values)]
    present = np.flatnonzero(np.logical_and.reduce([column.codes[rows] >= 0 for column in columns]))
    parts = [column.codes[rows[present]].astype(np.int64) for column in columns]
    combined, first = parts[0], present[:0]
    for column, part in zip(columns[1:], parts[1:], strict=True):
        # Numbered anew each time, so that many fields of many values do not overflow.
        _, first, combined = np.unique(
            combined * (len(column.values) + 1) + part, return_index=True, return_inverse=True
        )
    codes = np.full(len(rows), -1, dtype=np.int64)
    codes[present] = combined
    samples = [part[first].tolist() for part in parts]
    keys = [
        tuple(scalar(column.values[code]) for column, code in zip(columns, sample, strict=True))
        for sample in zip(*samples, strict=True)
    ]
    return codes, keys


def scalars(values: Sequence[Value]) -> list[Scalar]:
    """Each value as `scalar` has it; hardly any needs the call."""
    return [scalar(value) if type(value) is tuple else value for value in values]  # type: ignore[misc]


def ascending(values: Int64) -> Int64:
    """The distinct values, sorted. `np.unique` would import numpy.ma first, which takes longer than a short replay."""
    ordered = np.sort(values)
    distinct: Int64 = ordered[np.append(True, ordered[1:] != ordered[:-1])]
    return distinct


def group_lists(rows: Int64, codes: Int64, keys: Sequence[Key]) -> list[tuple[Key, list[int]]]:
    """Rows by key, each in ingest order."""
    if len(rows) <= FEW:
        of: dict[int, list[int]] = {}
        for row, code in zip(rows.tolist(), codes.tolist(), strict=True):
            of.setdefault(code, []).append(row)
        return [(keys[code], of[code]) for code in sorted(of)]
    return [(key, own.tolist()) for key, own in group_arrays(rows, codes, keys)]


def group_arrays(rows: Int64, codes: Int64, keys: Sequence[Key]) -> list[tuple[Key, Int64]]:
    """The same as arrays."""
    if not len(rows):
        return []
    order = np.argsort(codes, kind="stable")
    sorted_codes, sorted_rows = codes[order], rows[order]
    cuts = [0, *(np.flatnonzero(sorted_codes[1:] != sorted_codes[:-1]) + 1).tolist(), len(codes)]
    heads = sorted_codes[cuts[:-1]].tolist()
    return [(keys[code], sorted_rows[low:high]) for code, (low, high) in zip(heads, pairwise(cuts), strict=True)]
