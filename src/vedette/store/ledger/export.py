"""Writes what others verify without us: checkpoints, leaves, proofs and, as asked, records; a folder or one object.
Counterpart: `store.ledger.verify` reads it, with a trusted key or an earlier checkpoint and nothing else of ours."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from vedette.model.batch import Batch
from vedette.model.errors import StateError
from vedette.model.shipping import BatchKey
from vedette.store.ledger.leaves import Batches, Erasure, ErasureKind, Tombstone, parse_leaf
from vedette.store.ledger.ledger import Entry, Ledger
from vedette.store.ledger.notes import VerifierKey
from vedette.store.ledger.records import facts_of, hashes_of, raws_of
from vedette.store.ledger.redacted import Kept, logged_hashes, rest_hashes, staying
from vedette.store.ledger.salted import SALT, record_path, salts_of
from vedette.store.ledger.tree import leaf_hash
from vedette.store.ledger.verify import EXPORT, PROOF

PROVEN = 100
"""To how many of the kept checkpoints a part brings the proof; a whole log needs none."""


@dataclass(frozen=True, slots=True)
class Written:
    """What an export holds."""

    size: int
    leaves: int
    batches: int


def _b64(data: bytes) -> str:
    return b64encode(data).decode()


def _line(**values: Any) -> str:
    return json.dumps(values, separators=(",", ":")) + "\n"


def write_export(
    ledger: Ledger,
    folder: Path,
    key: VerifierKey,
    taken: Iterable[tuple[BatchKey, Batch]],
    *,
    keys: Set[BatchKey] | None = None,
    records: bool = True,
    since: Sequence[int] = (),
) -> Written:
    """Write the log as it is now. StateError where the folder holds something already.

    taken: what the lake holds, each batch once; not read where `records` is off. keys: only these batches, each
    leaf with its proof (default: every leaf, which needs no proofs). since: sizes of earlier checkpoints that the
    reader of a part will hold; the newest checkpoints that are kept here are among them.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise StateError(f"{folder} is not empty", hint="name a folder that is not there yet")
        return _write(ledger, folder, key, taken, keys, records, since)
    except OSError as error:
        raise StateError(f"{folder}: {error.strerror}") from error


def _write(
    ledger: Ledger,
    folder: Path,
    key: VerifierKey,
    taken: Iterable[tuple[BatchKey, Batch]],
    keys: Set[BatchKey] | None,
    records: bool,
    since: Sequence[int],
) -> Written:
    checkpoint = ledger.checkpoint()
    size = checkpoint.size
    (folder / "checkpoint").write_text(str(checkpoint))
    about = {
        "format": EXPORT,
        "key": str(key),
        "leaves": "all" if keys is None else "some",
        "records": "all" if records else "none",
    }
    (folder / "ledger.json").write_text(json.dumps(about, indent=1) + "\n")
    kept = [one for one in ledger.checkpoints() if one.size < size]
    if keys is not None:
        kept = kept[-PROVEN:]
    (folder / "earlier").write_text("\n".join(str(one) for one in kept))
    leaves = batches = 0
    with ledger.reading() as connection:
        with (folder / "leaves.jsonl").open("w") as file, (folder / "hashes").open("wb") as hashes:
            if keys is None:
                for entry in ledger.entries(connection, 0, size):
                    file.write(_line(index=entry.index, leaf=_b64(entry.data)))
                    hashes.write(leaf_hash(entry.data))
                    leaves += 1
            else:
                for entry in _chosen(ledger, connection, keys, size):
                    file.write(_line(**_proven(ledger, connection, entry, size)))
                    leaves += 1
        with (folder / "consistency.jsonl").open("w") as file:
            if keys is not None:
                for old in sorted({*since, *(one.size for one in kept)}):
                    if old <= size:
                        path = ledger.consistency_path(connection, old, size)
                        file.write(_line(old=old, new=size, path=[_b64(one) for one in path]))
        with (folder / "batches.jsonl").open("w") as file:
            leaf_of_batch = ledger.in_order(connection, size)
            for which, batch in taken if records else ():
                if keys is not None and which not in keys:
                    continue
                held = leaf_of_batch(which)
                if held is None:
                    continue  # came after the checkpoint
                rest = ledger.kept(connection, held.index) if held.seed is None else None
                if held.seed is None and rest is None:
                    continue  # was erased, and nothing of it may go out again
                file.write(_line(**(_whole(held, batch) if rest is None else _rest(held, rest, batch))))
                batches += 1
    return Written(size, leaves, batches)


def _whole(entry: Entry, batch: Batch) -> dict[str, Any]:
    assert entry.seed is not None
    return {
        "leaf": entry.index,
        "seed": _b64(entry.seed),
        "facts": _b64(facts_of(batch)),
        "hashes": _b64(b"".join(hashes_of(batch, entry.seed))),
        "records": [_b64(raw) for raw in raws_of(batch)],
    }


def _rest(entry: Entry, kept: Kept, batch: Batch) -> dict[str, Any]:
    """A batch of which records were erased: what stays, and what of the tree that was logged holds it."""
    raws, facts = raws_of(batch), facts_of(batch)
    return {
        "leaf": entry.index,
        "kept": {"salts": _b64(kept.salts), "hashes": _b64(kept.hashes), "seed": _b64(kept.seed)},
        "facts": _b64(facts),
        "hashes": _b64(b"".join(rest_hashes(kept, raws, facts))),
        "records": [_b64(raw) for raw in raws],
    }


def _proven(ledger: Ledger, connection: Connection, entry: Entry, size: int) -> dict[str, Any]:
    path = ledger.path(connection, entry.index, size)
    return {"index": entry.index, "leaf": _b64(entry.data), "path": [_b64(one) for one in path]}


def _chosen(ledger: Ledger, connection: Connection, keys: Set[BatchKey], size: int) -> list[Entry]:
    """The leaves of these batches, and the tombstones that speak of them."""
    found = {}
    for key in sorted(keys):
        index = ledger.find(connection, key)
        if index is None or index >= size:
            raise StateError(f"batch {key.number} of {key.stream} of host {key.host_id} is not in the ledger")
        for place in [index, *ledger.spoken_of(connection, key)]:
            if place < size:
                (found[place],) = ledger.entries(connection, place, place + 1)
    return [found[index] for index in sorted(found)]


def prove(ledger: Ledger, key: VerifierKey, which: BatchKey, batch: Batch | None, record: int | None) -> dict[str, Any]:
    """One object that proves a batch's leaf, or one of its records and no other, to whoever trusts the key.

    batch: as the lake holds it, needed for a record. StateError where it is not in the log, or was erased.
    """
    checkpoint = ledger.checkpoint()
    with ledger.reading() as connection:
        entries = _chosen(ledger, connection, {which}, checkpoint.size)
        leaves = [_proven(ledger, connection, entry, checkpoint.size) for entry in entries]
        entry = next(one for one in entries if one.batch is not None)
        kept = ledger.kept(connection, entry.index) if entry.seed is None else None
        part = None if kept is None else ledger.part(connection, which)
        erased = () if part is None else part.records
    records = []
    if record is not None:
        assert entry.batch is not None
        if batch is None or (entry.seed is None and kept is None):
            raise StateError("the records of this batch are gone", hint=_why_gone(entries, which))
        if not 0 <= record < entry.batch.records:
            raise StateError(f"the batch has {entry.batch.records} records", hint="they are counted from 0")
        if entry.seed is not None:
            place, hashes = record, hashes_of(batch, entry.seed)
            salt = salts_of(entry.seed, record + 1)[record]
        else:
            assert kept is not None
            stay = staying(entry.batch.records, erased)
            if record not in stay:
                raise StateError("this record was erased", hint=_why_gone(entries, which))
            place = stay.index(record)
            hashes = logged_hashes(entry.batch.records, erased, kept, raws_of(batch))
            salt = kept.salts[SALT * place : SALT * (place + 1)]
        records.append(
            {
                "leaf": entry.index,
                "record": record,
                "raw": _b64(batch.raw(place)),
                "salt": _b64(salt),
                "path": [_b64(one) for one in record_path(hashes, record)],
            }
        )
    return {
        "format": PROOF,
        "key": str(key),
        "checkpoint": str(checkpoint),
        "leaves": leaves,
        "records": records,
    }


def _why_gone(entries: Sequence[Entry], which: BatchKey) -> str:
    for entry in entries:
        leaf = parse_leaf(entry.data)
        if isinstance(leaf, Tombstone) and any(_holds(one, which) for one in leaf.what):
            return f"erased ({leaf.kind.value}) by {leaf.who}: {leaf.why}"
        if isinstance(leaf, Erasure):
            return f"erased ({ErasureKind.REQUEST.value}) by {leaf.who}: {leaf.why}"
    return "no tombstone speaks of them: see `vedette ledger verify`"


def _holds(what: Batches, key: BatchKey) -> bool:
    return (what.host_id, what.stream) == (key.host_id, key.stream) and what.first <= key.number <= what.last
