"""The small tree of one batch: salted hashes of its records, and one of the facts around them; pure.
Counterpart: `records` makes it from a batch, `verify` from exported bytes; only the standard library is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256, shake_128

from vedette.store.ledger.tree import path_in, root_of

SALT = 16
SEED = 16


class Tampering(StrEnum):
    """What is wrong with the records of a batch."""

    CHANGED = "changed"
    REMOVED = "removed"
    ADDED = "added"


def salts_of(seed: bytes, count: int) -> list[bytes]:
    """One salt a record; knowing one tells nothing of the others (SHAKE128 of the batch's secret seed)."""
    stream = shake_128(seed).digest(SALT * count)
    return [stream[at : at + SALT] for at in range(0, SALT * count, SALT)]


def record_hash(salt: bytes, raw: bytes) -> bytes:
    """A record's leaf: without the salt nobody can guess the record from it."""
    return sha256(b"\x00" + salt + raw).digest()


def batch_hashes(seed: bytes, raws: Sequence[bytes], facts: bytes) -> list[bytes]:
    """The leaves of the batch's tree: each record in order, then the facts."""
    return [record_hash(salt, raw) for salt, raw in zip(salts_of(seed, len(raws) + 1), [*raws, facts], strict=True)]


def record_path(hashes: Sequence[bytes], record: int) -> list[bytes]:
    """The proof that the record stands in the batch; the tree has one leaf more than there are records."""
    return path_in(hashes, record)


@dataclass(frozen=True, slots=True)
class Difference:
    """What a batch's records are not as they were logged; record: the first one it is seen at, -1 = not known."""

    kind: Tampering
    record: int = -1


def compare(
    root: bytes, records: int, seed: bytes, raws: Sequence[bytes], facts: bytes, hashes: Sequence[bytes] = ()
) -> Difference | None:
    """Hold records to the root and count that were logged; None where all is as it was.

    hashes: the batch's leaves where they were kept beside it; they are believed only if they give the root, and
    then tell which record it is.
    """
    if len(raws) == records and root_of(batch_hashes(seed, raws, facts)) == root:
        return None
    kind = Tampering.CHANGED
    if len(raws) != records:
        kind = Tampering.REMOVED if len(raws) < records else Tampering.ADDED
    if len(hashes) != records + 1 or root_of(hashes) != root:
        return Difference(kind)
    salts = salts_of(seed, records + 1)
    for place, (salt, logged) in enumerate(zip(salts, hashes, strict=True)):
        raw = facts if place == records else raws[place] if place < len(raws) else None
        if raw is None or record_hash(salt, raw) != logged:
            return Difference(kind, place)
    return Difference(kind, records)
