"""What is too old or too much is let go: whole batches, hour by hour, with a tombstone in the same transaction.
Counterpart: `settings` says how long each stream is kept; the ledger is told what went, so that `verify` knows it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from sqlalchemy import Connection

from vedette.model.clock import HOUR
from vedette.model.ranges import Ranges
from vedette.store.lake import manifest as m
from vedette.store.lake.manifest import Tombstone
from vedette.store.lake.rewriting import Old, Stop, StoppedError, delete_replaced, rewrite
from vedette.store.lake.settings import StreamRetention

_TOGETHER = 64
"""Files that go whole in one transaction."""

Erased = Callable[[Connection, Sequence[Tombstone]], None]
"""Told what goes, inside the transaction that lets it go."""


class Gone(StrEnum):
    """Why batches are here no more."""

    AGE = "age"
    SIZE = "size"


@dataclass(frozen=True, slots=True)
class _Held:
    """What a file holds of a stream; bytes: its part of the file on the disk, by the size of its records."""

    file: m.File
    stream: int
    bytes: float


def chosen(
    held: Sequence[_Held], policies: Sequence[StreamRetention], names: dict[int, m.StreamName], now: int, disk: int
) -> dict[int, dict[int, Gone]]:
    """Which streams of which files go, by their ids, and why; `held` in ingest order."""
    gone: dict[int, dict[int, Gone]] = {}
    by_policy: list[list[_Held]] = [[] for _ in policies]
    for one in held:
        place = _policy_of(policies, names[one.stream][1])
        if place is None:
            continue
        if (one.file.hour + 1) * HOUR <= now - policies[place].age_us():
            gone.setdefault(one.file.id, {})[one.stream] = Gone.AGE
        else:
            by_policy[place].append(one)
    for policy, kept in zip(policies, by_policy, strict=True):
        most = policy.most_bytes(disk)
        over = 0.0 if most is None else sum(one.bytes for one in kept) - most
        for one in kept:
            if over <= 0:
                break
            gone.setdefault(one.file.id, {})[one.stream] = Gone.SIZE
            over -= one.bytes
    return gone


def _policy_of(policies: Sequence[StreamRetention], stream: str) -> int | None:
    name = stream.removesuffix("#security")
    for place, policy in enumerate(policies):
        if any(fnmatchcase(name, pattern) for pattern in policy.streams):
            return place
    return None


def retain(
    folder: Path,
    manifest: m.Manifest,
    policies: Sequence[StreamRetention],
    now: int,
    *,
    disk: int | None = None,
    erased: Erased | None = None,
    stop: Stop = lambda: False,
) -> list[Tombstone]:
    """Let go of what the policies do not keep; what went. Numbers that went are never taken again.

    disk: its size in bytes, asked of the system where it is not given. StateError or OSError: the rest waits.
    """
    delete_replaced(folder, manifest, now)
    with manifest.reading() as connection:
        names = m.streams(connection)
        files = {file.id: file for file in m.live_files(connection)}
        held = [
            _Held(files[file], stream, files[file].bytes * raw / max(files[file].raw_bytes, 1))
            for file, stream, raw, _ in m.holdings(connection)
            if file in files
        ]
    gone = chosen(held, policies, names, now, shutil.disk_usage(folder).total if disk is None else disk)
    stones: list[Tombstone] = []
    whole: list[tuple[Old, dict[int, Gone]]] = []

    def swap(old: Sequence[tuple[Old, dict[int, Gone]]]) -> None:
        if not old:
            return
        made = _stones(old, names, now)

        def also(connection: Connection) -> None:
            m.add_tombstones(connection, made)
            if erased is not None:
                erased(connection, [stone for _, stone in made])

        rewrite(folder, manifest, [one for one, _ in old], tier=old[0][0].file.tier, now=now, also=also, stop=stop)
        stones.extend(stone for _, stone in made)

    try:
        for file_id, why in sorted(gone.items(), key=lambda item: files[item[0]].first):
            if stop():
                raise StoppedError
            with manifest.reading() as connection:
                contents = m.contents(connection, file_id)
            assert contents is not None, "nobody else replaces files"
            keep = ~np.isin(contents.stream, list(why))
            one = Old(files[file_id], contents, keep), why
            if keep.any():
                swap([one])
            else:
                whole.append(one)
            if len(whole) == _TOGETHER:
                swap(whole)
                whole.clear()
        swap(whole)
    except StoppedError:
        pass  # what is left goes the next time
    return stones


def _stones(
    old: Sequence[tuple[Old, dict[int, Gone]]], names: dict[int, m.StreamName], now: int
) -> list[tuple[int, Tombstone]]:
    numbers: dict[tuple[int, Gone], Ranges] = {}
    parts = []
    for one, why in old:
        for stream, reason in why.items():
            of = one.held.stream == stream
            mine = numbers.setdefault((stream, reason), Ranges())
            for number in one.held.number[of].tolist():
                mine.add(number)
            parts.append((stream, reason, one.held.number[of], one.held.records[of], one.held.raw_bytes[of]))
    made = []
    for (stream, reason), ranges in numbers.items():
        of = [part[2:] for part in parts if part[:2] == (stream, reason)]
        number, records, raw_bytes = (np.concatenate(columns) for columns in zip(*of, strict=True))
        for first, last in ranges:
            inside = (number >= first) & (number <= last)
            counts = int(records[inside].sum()), int(raw_bytes[inside].sum())
            made.append((stream, Tombstone(*names[stream], first, last, *counts, reason.value, now)))
    return made
