"""Which small files become one: many of this hour while it lasts, all of an hour that is over.
Counterpart: `rewriting` writes and swaps them; `lake` is asked to from a thread that has time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vedette.model.clock import HOUR
from vedette.store.lake import manifest as m
from vedette.store.lake.rewriting import Old, Stop, StoppedError, delete_replaced, rewrite

SMALL_FILES = 64
"""So many files of this hour become one while it lasts."""
MOST_BYTES = 1 << 30
"""Raw bytes of the records in one file; an hour with more has several."""

_NEW, _SOME, _WHOLE = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Compacted:
    """What was done. files: replaced; into: made in their stead, of `bytes`; deleted: whose grace was over."""

    files: int = 0
    into: int = 0
    bytes: int = 0
    deleted: int = 0


def jobs(live: Sequence[m.File], hour: int, most_bytes: int = MOST_BYTES) -> list[tuple[int, list[m.File]]]:
    """Which neighbours in ingest order become one file, and of what tier; `live` in ingest order, `hour` = this one."""
    found: list[tuple[int, list[m.File]]] = []
    run: list[m.File] = []
    weight = 0
    for file in [*live, None]:
        joins = (
            file is not None
            and run
            and file.hour == run[0].hour
            and file.tier < (_WHOLE if file.hour < hour else _SOME)
            and weight + file.raw_bytes <= most_bytes
            and not (file.hour >= hour and len(run) == SMALL_FILES)
        )
        if not joins:
            if run:
                found.append((_WHOLE if run[0].hour < hour else _SOME, run))
            run, weight = [], 0
        if file is not None and file.tier < (_WHOLE if file.hour < hour else _SOME):
            run.append(file)
            weight += file.raw_bytes
    return [(tier, run) for tier, run in found if _worth(run, over=tier == _WHOLE)]


def _worth(run: Sequence[m.File], *, over: bool) -> bool:
    if over:
        return len(run) > 1 or run[0].tier == _NEW
    return len(run) == SMALL_FILES


def compact(
    folder: Path,
    manifest: m.Manifest,
    now: int,
    *,
    most_bytes: int = MOST_BYTES,
    stop: Stop = lambda: False,
) -> Compacted:
    """Make few files of many, and delete replaced ones whose grace is over. StateError or OSError: the rest waits."""
    deleted = delete_replaced(folder, manifest, now)
    with manifest.reading() as connection:
        live = m.live_files(connection)
    replaced, made, size = 0, 0, 0
    for tier, run in jobs(live, now // HOUR, most_bytes):
        old = []
        with manifest.reading() as connection:
            for file in run:
                held = m.contents(connection, file.id)
                if held is not None:
                    old.append(Old(file, held, np.ones(len(held), np.bool_)))
        try:
            size += rewrite(folder, manifest, old, tier=tier, now=now, stop=stop)
        except StoppedError:
            break
        replaced, made = replaced + len(run), made + 1
    return Compacted(replaced, made, size, deleted)
