"""Erases single records lawfully: which, what of them nobody can reach, and the lake and its ledger in one step.
Counterpart: `store.lake.erasing` rewrites files, `store.ledger` keeps what proves the rest; `cli.lake` asks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from sqlalchemy import Connection

from vedette.app.host import host_id
from vedette.app.ledger import KEY_FILE, LAKE, MANIFEST
from vedette.app.search import Search
from vedette.config.settings import Settings
from vedette.fleet.lanes import SECURITY_SUFFIX
from vedette.model.batch import Int64
from vedette.model.clock import Clock
from vedette.model.errors import StateError
from vedette.store.lake import manifest as m
from vedette.store.lake.alone import alone
from vedette.store.lake.erasing import Cut, Told, erase
from vedette.store.lake.reader import Reader, Scan
from vedette.store.lake.rewriting import AT_ONCE, delete_replaced
from vedette.store.ledger.keys import signing_key
from vedette.store.ledger.leaves import Part, spans_of
from vedette.store.ledger.ledger import Ledger
from vedette.store.ledger.records import facts_of, hashes_of, raws_of
from vedette.store.ledger.redacted import (
    Kept,
    compare_rest,
    logged_hashes,
    numbers_of,
    rest_hashes,
    staying,
    without,
    without_more,
)
from vedette.store.ledger.tree import root_of
from vedette.system.privileges import CAP_DAC_READ_SEARCH, keep_only

AUDIT_STREAM = "audit"
"""What operators did, by either lane of an agent: none of them, whoever it is, takes that away."""
_TAMPERED = "an erasure would hide what was done to them: `vedette ledger verify` says more"


@dataclass(slots=True)
class Chosen:
    """What is to go. rows: sequence number of a batch -> which of its records; streams: how many of each.

    protected: how many fit and stay all the same, since they say what operators did.
    """

    rows: dict[int, Int64] = field(default_factory=dict)
    streams: dict[tuple[str, str], int] = field(default_factory=dict)
    earliest: int = 0
    latest: int = 0
    protected: int = 0

    @property
    def records(self) -> int:
        """How many."""
        return sum(self.streams.values())

    def add(self, sequence: int, name: tuple[str, str], rows: Int64, time: Int64) -> None:
        """These of one batch; those that are in it already count once."""
        if name[1].removesuffix(SECURITY_SUFFIX) == AUDIT_STREAM:
            self.protected += len(rows)
            return
        before = self.rows.get(sequence, np.empty(0, np.int64))
        both = np.union1d(before, rows).astype(np.int64)
        if not len(both) or len(both) == len(before):
            return
        low, high = int(time.min()), int(time.max())
        self.earliest = min(self.earliest, low) if self.rows else low
        self.latest = max(self.latest, high) if self.rows else high
        self.rows[sequence] = both
        self.streams[name] = self.streams.get(name, 0) + len(both) - len(before)


@dataclass(frozen=True, slots=True)
class Done:
    """What went. settled: whether no copy of what was overwritten is in the log of changes beside the manifest.

    trouble: why not all of it went, "" where it did.
    """

    records: int
    batches: int
    settled: bool
    trouble: str = ""


class Eraser:
    """The lake of a data folder, to be looked at and erased from, also beside a running `up`."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder, self._clock = folder / LAKE, clock
        self._manifest = m.Manifest(self._folder, write=True)
        self.lake = Reader(self._folder, self._manifest)
        try:
            signer = signing_key(folder / KEY_FILE, f"vedette/{host_id(folder)}", create=False)
        except BaseException:
            self._manifest.close()
            raise
        self._ledger = Ledger(self._folder / MANIFEST, signer, clock=clock)

    def close(self) -> None:
        """Let go of both."""
        self._ledger.close()
        self._manifest.close()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Inside, nobody else replaces files; waits until whoever does has ended."""
        with alone(self._folder, wait=True):
            yield

    def finish(self) -> None:
        """Delete what an erasure that was killed left on the disk: nobody would find it by asking for it once more.

        Whoever calls holds `alone`. StateError or OSError: as `Manifest`, or the disk refuses.
        """
        if delete_replaced(self._folder, self._manifest, self._clock.now(), grace=AT_ONCE):
            self._manifest.settle()

    def choose(self, search: Search) -> Chosen:
        """Every record for which the query holds."""
        chosen = Chosen()
        for found in search.found():
            part = found.part
            chosen.add(part.sequence, (part.key.host_id, part.key.stream), part.rows[found.rows], found.time)
        return chosen

    def named(self, ids: Sequence[str]) -> Chosen:
        """The records of these ids (`record.id`, as a search shows it). StateError where one is not there."""
        chosen, left = Chosen(), dict.fromkeys(ids)
        by_stream: dict[tuple[str, str], dict[str, None]] = {}
        for one in ids:
            host, _, rest = one.partition("/")
            source, _, position = rest.rpartition("/")
            if not (host and source and position):
                raise StateError(f"{one!r} is no record id", hint="as `record.id` of `vedette search --output json`")
            by_stream.setdefault((host, source), {})[one] = None
        for (host, source), wanted in by_stream.items():
            for part in self.lake.scan(Scan(hosts=frozenset({host}), streams=frozenset({source}))):
                origin, positions = part.batch.origin, part.batch.positions.tolist()
                rows = [row for row, at in enumerate(positions) if origin.record_id(at) in wanted]
                for row in rows:
                    left.pop(origin.record_id(positions[row]), None)
                places = np.asarray(rows, np.int64)
                chosen.add(part.sequence, (host, part.key.stream), part.rows[places], part.time[places])
        if left:
            raise StateError(f"no record {next(iter(left))} is in the lake", hint="nothing was erased")
        return chosen

    def carry_out(self, chosen: Chosen, *, who: str, why: str, stop: Callable[[], bool] = lambda: False) -> Done:
        """Erase them, file by file; what a trouble kept from going is as it was, and the same command goes on with it.

        Whoever calls holds `alone` since before it chose.
        """
        at, gone, trouble = self._clock.now(), list[m.ErasedRecords](), ""

        def prepare(cuts: list[Cut]) -> Told:
            parts = self._parts(cuts)

            def told(connection: Connection) -> None:
                self._ledger.erase_records(connection, parts, who=who, why=why, at=at)

            return told

        try:
            erase(self._folder, self._manifest, chosen.rows, at, prepare, gone, stop)
        except (StateError, OSError) as error:
            trouble = str(error)
        except ValueError as error:  # a file that is damaged
            trouble = str(error) or type(error).__name__
        except KeyboardInterrupt:
            # Whoever calls must come to say in the audit what went: nobody erases untold by ending it early.
            trouble = "it was interrupted"
        if gone:
            self._ledger.checkpoint()
        return Done(sum(one.records for one in gone), len(gone), self._manifest.settle(), trouble)

    def _parts(self, cuts: list[Cut]) -> list[tuple[Part, Kept]]:
        """What the log will say of each batch; StateError where one is not as it was taken in."""
        made = []
        with self._ledger.reading() as connection:
            for cut in cuts:
                index = self._ledger.find(connection, cut.key)
                if index is None:
                    raise StateError(f"batch {cut.key.number} of {cut.key.stream} is not in the ledger", hint=_TAMPERED)
                (entry,) = self._ledger.entries(connection, index, index + 1)
                leaf, raws, rows = entry.batch, raws_of(cut.batch), cut.rows.tolist()
                assert leaf is not None
                if entry.seed is not None:
                    hashes = hashes_of(cut.batch, entry.seed)
                    same = len(raws) == leaf.records and root_of(hashes) == leaf.root
                    runs = tuple(spans_of(rows))
                    kept = without(entry.seed, leaf.records, hashes, runs) if same else None
                else:
                    kept, runs = self._more(cut, leaf.records, leaf.root, rows, *self._before(cut, index))
                if kept is None:
                    raise StateError(
                        f"batch {cut.key.number} of {cut.key.stream} is not as it was taken in", hint=_TAMPERED
                    )
                root = root_of(rest_hashes(kept, raws_of(cut.rest), facts_of(cut.rest)))
                made.append((Part(cut.key, runs, len(rows), root), kept))
        return made

    def _before(self, cut: Cut, index: int) -> tuple[Kept | None, Part | None]:
        with self._ledger.reading() as connection:
            return self._ledger.kept(connection, index), self._ledger.part(connection, cut.key)

    @staticmethod
    def _more(
        cut: Cut, records: int, root: bytes, rows: list[int], kept: Kept | None, part: Part | None
    ) -> tuple[Kept | None, tuple[tuple[int, int], ...]]:
        """Of a batch that has lost some before."""
        if kept is None or part is None:
            return None, ()
        raws, before = raws_of(cut.batch), part.records
        if compare_rest(root, records, before, part.root, kept, raws, facts_of(cut.batch)) is not None:
            return None, ()
        stay = staying(records, before)
        runs = tuple(spans_of(sorted([*numbers_of(before), *(stay[row] for row in rows)])))
        return without_more(kept, records, before, logged_hashes(records, before, kept, raws), runs), runs


def out_of_reach(settings: Settings) -> list[str]:
    """Where copies may be that this does not touch, in words for whoever has to erase them there."""
    found = [
        "alerts, findings and mails about them in the state, until its retention lets go of them",
        "the shelf (`spool`): of this host until `up` ran for a minute, of agents until its newest file is full",
        "backups, exports of the ledger, results of searches that were written to files",
        "the log files themselves where they were read, and what the sender keeps",
    ]
    found += [f"what was sent on to `{one.name}`" for one in settings.forward]
    return found


def become_owner(folder: Path) -> None:
    """From root to whoever the lake belongs to, for good: what is written must be readable by the service, and a folder
    of somebody else is no place for root to write to. What is read goes on being readable. StateError: no lake.
    """
    try:
        owner = (folder / LAKE).stat()
    except OSError as error:
        raise StateError(f"no lake in {folder}: {error.strerror}", hint="nothing was stored there yet") from None
    if os.geteuid() == 0 and owner.st_uid != 0:
        keep_only([CAP_DAC_READ_SEARCH], uid=owner.st_uid, gid=owner.st_gid, groups=[])
