"""What the log says was erased, gathered: whole batches by tombstones, single records by erasures; told to people.
Counterpart: `verify` and `audit` read the leaves in order and hand them over; `redacted` compares what is left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from vedette.model.shipping import BatchKey
from vedette.store.ledger.leaves import BatchLeaf, Erasure, LeafError, Tombstone, tombstone_note
from vedette.store.ledger.notes import VerifierKey
from vedette.store.ledger.redacted import Runs, numbers_of
from vedette.store.ledger.verdicts import Verdict
from vedette.text.times import rfc3339


@dataclass(frozen=True, slots=True)
class Rest:
    """What stays of a batch. erased: the numbers of those that are gone; root: of the tree over the others."""

    erased: Runs
    root: bytes


@dataclass(slots=True)
class _Told:
    """One order to erase, which may be several leaves."""

    leaf: int
    host_id: str
    records: int = 0
    batches: set[BatchKey] = field(default_factory=set)


class Erasures:
    """gone: leaves of batches that a tombstone speaks of. rests: of those of which single records were erased."""

    def __init__(self) -> None:
        self.gone: set[int] = set()
        self.rests: dict[int, Rest] = {}
        self._known: dict[tuple[str, str], dict[int, tuple[int, int]]] = {}
        self._told: dict[tuple[str, str, int], _Told] = {}

    def batch(self, index: int, leaf: BatchLeaf) -> None:
        """A batch's leaf, before anything that speaks of it."""
        self._known.setdefault((leaf.host_id, leaf.stream), {})[leaf.number] = (index, leaf.records)

    def tombstone(self, index: int, data: bytes, leaf: Tombstone, key: VerifierKey, say: Callable[..., None]) -> None:
        """LeafError where it is not signed by the log. It speaks of what was there before it, of nothing later."""
        if not tombstone_note(data).signed_by(key):
            raise LeafError("a tombstone that is not signed")
        for what in leaf.what:
            held = self._known.get((what.host_id, what.stream), {})
            self.gone |= {place for number, (place, _) in held.items() if what.first <= number <= what.last}
            text = (
                f"batches {what.first} to {what.last} of {what.stream} were erased lawfully ({leaf.kind.value}) by "
                f"{leaf.who} on {rfc3339(leaf.at)[:19]}Z: {leaf.why}"
            )
            where = {"host_id": what.host_id, "stream": what.stream, "number": what.first}
            say(Verdict.ERASED, text, leaf=index, **where)

    def erasure(self, index: int, data: bytes, leaf: Erasure, key: VerifierKey) -> None:
        """LeafError where it is not signed by the log, or speaks of what it cannot have had."""
        if not tombstone_note(data).signed_by(key):
            raise LeafError("an erasure that is not signed")
        found: dict[int, Rest] = {}
        for part in leaf.what:
            place, records = self._known.get((part.key.host_id, part.key.stream), {}).get(part.key.number, (-1, 0))
            if place < 0:
                continue  # a part of a log has not every batch
            if part.records and part.records[-1][1] >= records:
                raise LeafError("an erasure of more records than the batch had")
            before = self.rests.get(place)
            if before is not None and not set(numbers_of(before.erased)) <= set(numbers_of(part.records)):
                raise LeafError("an erasure that brings records back")
            found[place] = Rest(part.records, part.root)
        self.rests |= found
        host_id = leaf.what[0].key.host_id if leaf.what else ""
        told = self._told.setdefault((leaf.who, leaf.why, leaf.at), _Told(index, host_id))
        told.records += sum(part.count for part in leaf.what)
        told.batches |= {part.key for part in leaf.what}

    def say(self, say: Callable[..., None]) -> None:
        """One statement for each order."""
        for (who, why, at), told in self._told.items():
            streams = sorted({key.stream for key in told.batches})
            shown = ", ".join(streams[:3]) + (f" and {len(streams) - 3} more" if len(streams) > 3 else "")
            text = (
                f"erased lawfully by {who} on {rfc3339(at)[:19]}Z for the reason {why!r}: "
                f"{_many(told.records, 'record')} of {_many(len(told.batches), 'batch', 'batches')} of {shown}"
            )
            where: dict[str, Any] = {"host_id": told.host_id}
            if len(streams) == 1:
                where["stream"] = streams[0]
            say(Verdict.ERASED, text, leaf=told.leaf, **where)


def _many(count: int, one: str, more: str = "") -> str:
    return f"{count} {one if count == 1 else more or one + 's'}"
