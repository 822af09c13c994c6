"""Holds what the lake has now to what the ledger says it took, batch by batch, on the hub itself.
Counterpart: `verify` does the same with an export, where neither lake nor ledger can be asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from sqlalchemy import Connection

from vedette.model.batch import Batch
from vedette.model.errors import StateError
from vedette.model.shipping import BatchKey
from vedette.store.ledger.erasures import Erasures, Rest
from vedette.store.ledger.leaves import BatchLeaf, Erasure, GapLeaf, LeafError, Tombstone, parse_leaf
from vedette.store.ledger.ledger import Entry, Ledger
from vedette.store.ledger.notes import Checkpoint, VerifierKey
from vedette.store.ledger.records import facts_of, raws_of
from vedette.store.ledger.redacted import Kept, compare_rest, numbers_of
from vedette.store.ledger.salted import Tampering, compare
from vedette.store.ledger.tree import leaf_hash, roots_at
from vedette.store.ledger.verdicts import Verdict
from vedette.store.ledger.verify import Result

_FOUND = {
    Tampering.CHANGED: Verdict.RECORD_CHANGED,
    Tampering.REMOVED: Verdict.RECORD_REMOVED,
    Tampering.ADDED: Verdict.RECORD_ADDED,
}


def audit(
    ledger: Ledger, key: VerifierKey, taken: Iterable[tuple[BatchKey, Batch]], trusted: Sequence[Checkpoint] = ()
) -> Result:
    """Every batch against its leaf, every leaf against the signed checkpoints kept here and those in `trusted`.

    taken: what the lake holds, each batch once. Batches that came after the head was read are left out.
    """
    result = Result(origin=key.name)
    try:
        with ledger.reading() as connection:
            result.size = size = ledger.size(connection)
            batches, erased = _log(ledger, connection, size, key, trusted, result)
            here = bytearray(size)
            leaf_of_batch = ledger.in_order(connection, size)
            for which, batch in taken:
                entry = leaf_of_batch(which)
                if entry is not None:
                    here[entry.index] = 1
                    rest = erased.rests.get(entry.index)
                    kept = None if rest is None else ledger.kept(connection, entry.index)
                    _batch(entry, which, batch, rest, kept, result)
                elif not _later(ledger, which):
                    text = f"batch {which.number} of {which.stream} is in the lake and not in the log"
                    result.say(Verdict.BATCH_UNKNOWN, text, **_where(which))
    except StateError as error:
        result.say(Verdict.LEAF_REMOVED, error.message)
        return result
    for index, leaf in batches.items():
        if not here[index] and index not in erased.gone and leaf.records:
            text = f"the {leaf.records} records of batch {leaf.number} of {leaf.stream} are gone without a tombstone"
            where = {"host_id": leaf.host_id, "stream": leaf.stream, "number": leaf.number}
            result.say(Verdict.BATCH_REMOVED, text, leaf=index, **where)
    return result


def _later(ledger: Ledger, which: BatchKey) -> bool:
    """Whether the batch was taken in while we were looking."""
    with ledger.reading() as connection:
        return ledger.find(connection, which) is not None


def _where(which: BatchKey) -> dict[str, str | int]:
    return {"host_id": which.host_id, "stream": which.stream, "number": which.number}


def _batch(entry: Entry, which: BatchKey, batch: Batch, rest: Rest | None, kept: Kept | None, result: Result) -> None:
    index, leaf = entry.index, entry.batch
    assert leaf is not None
    raws, facts, left = raws_of(batch), facts_of(batch), leaf.records
    if rest is not None and kept is not None:
        left -= len(numbers_of(rest.erased))
        found = compare_rest(leaf.root, leaf.records, rest.erased, rest.root, kept, raws, facts)
    elif entry.seed is not None and rest is None:
        found = compare(leaf.root, leaf.records, entry.seed, raws, facts)
    else:
        text = f"batch {which.number} of {which.stream} was erased, and its records are here"
        result.say(Verdict.BATCH_UNKNOWN, text, leaf=index, **_where(which))
        return
    if found is None:
        result.records += len(batch)
        return
    logged = f"{leaf.records} were logged" + ("" if rest is None else f", {left} of them were not erased")
    text = (
        f"batch {which.number} of {which.stream} is not as it was taken in: {found.kind.value} "
        f"({len(batch)} records are here, {logged})"
    )
    result.say(_FOUND[found.kind], text, leaf=index, **_where(which))


def _log(
    ledger: Ledger,
    connection: Connection,
    size: int,
    key: VerifierKey,
    trusted: Sequence[Checkpoint],
    result: Result,
) -> tuple[dict[int, BatchLeaf], Erasures]:
    batches: dict[int, BatchLeaf] = {}
    erased = Erasures()

    def hashes() -> Iterator[bytes]:
        for entry in ledger.entries(connection, 0, size):
            result.leaves += 1
            if entry.batch is not None:
                leaf = entry.batch
                batches[entry.index] = leaf
                erased.batch(entry.index, leaf)
            else:
                _said(entry.index, entry.data, key, erased, result)
            yield leaf_hash(entry.data)

    kept = [(one, "kept here") for one in ledger.checkpoints()] + [(one, "trusted") for one in trusted]
    roots = roots_at(hashes(), {size, *(one.size for one, _ in kept)})
    erased.say(result.say)
    if size and roots[size] != ledger.root(connection, size):
        result.say(Verdict.LEAF_CHANGED, "the leaves are not those that the stored tree was made of")
    last_good = 0
    for one, whose in sorted(kept, key=lambda pair: pair[0].size):
        if one.origin != key.name or not one.note.signed_by(key):
            result.say(Verdict.SIGNATURE_WRONG, f"a checkpoint {whose} ({one.size} leaves) is not signed by {key.name}")
        elif one.size > size:
            text = f"{one.size} leaves were signed (checkpoint {whose}), {size} are here: {one.size - size} are cut off"
            result.say(Verdict.TAIL_CUT, text, leaf=size)
        elif roots[one.size] == one.root:
            last_good = one.size
        else:
            text = f"what was signed of the first {one.size} leaves ({whose}) is not what is here; held to {last_good}"
            result.say(Verdict.HISTORY_REPLACED, text, leaf=last_good)
    return batches, erased


def _said(index: int, data: bytes, key: VerifierKey, erased: Erasures, result: Result) -> None:
    try:
        leaf = parse_leaf(data)
        if isinstance(leaf, GapLeaf):
            what = leaf.batches
            text = f"batches {what.first} to {what.last} of {what.stream} never came: {leaf.reason}"
            result.say(Verdict.GAP, text, leaf=index, host_id=what.host_id, stream=what.stream)
        elif isinstance(leaf, Tombstone):
            erased.tombstone(index, data, leaf, key, result.say)
        elif isinstance(leaf, Erasure):
            erased.erasure(index, data, leaf, key)
    except LeafError as error:
        result.say(Verdict.UNREADABLE, f"leaf {index}: {error}", leaf=index)
