"""Data files on the disk: written whole and synced before anything speaks of them, swept where nobody does.
Counterpart: `manifest` lists those that are live; `columns` makes what is in them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from vedette.model.batch import Int64
from vedette.model.clock import HOUR, SECOND
from vedette.store.lake.columns import SCHEMA

SIDE = ".words"
GROUP_ROWS = 65_536
GROUP_BYTES = 32 << 20
_NAMES = ["host_id", "stream", "generation", "host", "program", "format", "given_host", "given_program"]
_SMALL = ["severity", "trust", "created", "ingested", "number", "sequence", "given_time"]
_DELTAS = ["time", "place", "position", "pid"]


def path_of(hour: int, first: int, last: int, file_id: str) -> str:
    """Where a file lies below the lake's folder; hour: of arrival, hours since the epoch."""
    at = datetime.fromtimestamp(hour * HOUR // SECOND, UTC)
    return f"day={at:%Y-%m-%d}/hour={at:%H}/{first:012d}-{last:012d}-{file_id}.parquet"


def groups_of(records: Int64, raw_bytes: Int64) -> Int64:
    """First row of each row group, so that every batch lies in one whole."""
    firsts, rows, size, row = [0], 0, 0, 0
    for n, weight in zip(records.tolist(), raw_bytes.tolist(), strict=True):
        if rows and n and (rows + n > GROUP_ROWS or size + weight > GROUP_BYTES):
            firsts.append(row)
            rows = size = 0
        rows, size, row = rows + n, size + weight, row + n
    return np.asarray(firsts, np.int64)


def slices(table: Any, groups: Int64) -> Iterable[Any]:
    """The table cut into its row groups."""
    for first, end in zip(groups.tolist(), [*groups.tolist()[1:], table.num_rows], strict=True):
        yield table.slice(first, end - first)


def write(
    folder: Path,
    path: str,
    groups: Iterable[Any],
    *,
    level: int,
    alike: bool = False,
    beside: Callable[[Any], bytes] | None = None,
    joined: Callable[[Sequence[bytes]], bytes] = b"".join,
) -> int:
    """Write and sync a file of these tables, a row group each; its size in bytes.

    alike: rows that begin alike lie together. What `beside` makes of each is joined into the side file. OSError as the
    system gives it, and then there is no file.
    """
    target = folder / path
    _make_folders(folder, target.parent)
    unfinished = target.with_name("_" + target.name)
    made = []
    try:
        with pq.ParquetWriter(
            str(unfinished),
            SCHEMA,
            compression="zstd",
            compression_level=level,
            use_dictionary=_NAMES + _SMALL,
            write_statistics=[name for name in SCHEMA.names if name != "raw"],
            column_encoding={
                **dict.fromkeys(_DELTAS, "DELTA_BINARY_PACKED"),
                "raw": "DELTA_BYTE_ARRAY" if alike else "DELTA_LENGTH_BYTE_ARRAY",
            },
            # A page is packed by itself, and a row group is read whole.
            data_page_size=GROUP_BYTES if alike else 1 << 20,
        ) as writer:
            for table in groups:
                writer.write_table(table, row_group_size=max(table.num_rows, 1))
                if beside is not None:
                    made.append(beside(table))
        if made:
            side_of(target).write_bytes(joined(made))
            _sync(side_of(target))
        size = _sync(unfinished)
        unfinished.replace(target)
        sync_folder(target.parent)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        remove(folder, path)
        raise
    return size


def side_of(path: Path) -> Path:
    """Where what helps to search a data file lies; nothing is lost with it."""
    return path.with_name(path.name + SIDE)


def remove(folder: Path, path: str) -> None:
    """Delete a data file and what lies beside it, where they are."""
    (folder / path).unlink(missing_ok=True)
    side_of(folder / path).unlink(missing_ok=True)


def _sync(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(descriptor, 0o600)
        os.fsync(descriptor)
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def _make_folders(root: Path, folder: Path) -> None:
    missing = []
    while folder != root and not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for made in reversed(missing):
        made.mkdir(mode=0o700, exist_ok=True)
        sync_folder(made.parent)


def sync_folder(folder: Path) -> None:
    """What was made or renamed in it is on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path, listed: set[str]) -> int:
    """Delete data files that no manifest speaks of (a crash left them); how many."""
    found = 0
    for path in folder.glob("day=*/hour=*/*"):
        if str(path.relative_to(folder)).removesuffix(SIDE) not in listed:
            path.unlink(missing_ok=True)
            found += 1
    return found


def remove_empty(folder: Path, paths: set[str], hour: int) -> None:
    """Remove the folders these files lay in where nothing else does; not those of this hour, where files are made."""
    for below in sorted({str(Path(path).parent) for path in paths if path.startswith("day=")}):
        at = datetime.strptime(below, "day=%Y-%m-%d/hour=%H").replace(tzinfo=UTC)
        if int(at.timestamp()) * SECOND // HOUR >= hour:
            continue
        try:
            (folder / below).rmdir()
            (folder / below).parent.rmdir()
        except OSError:
            continue  # something lies in it
