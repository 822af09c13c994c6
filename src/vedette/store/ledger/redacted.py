"""A batch of which some records were erased: what is kept to hold the others to the root that was logged; pure.
Counterpart: `ledger` keeps it in the seed's stead, `verify` and `audit` compare by it, with nothing else of ours."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vedette.store.ledger.salted import (
    SALT,
    SEED,
    Difference,
    Tampering,
    batch_hashes,
    compare,
    record_hash,
    salts_of,
)
from vedette.store.ledger.tree import HASH_SIZE, root_of

Runs = tuple[tuple[int, int], ...]
"""Numbers of records as sorted runs (first, last)."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What stands in a seed's stead once records were erased: the seed would give the salts of those as well.

    salts: of the records that stay, one after the other. hashes: of those that were erased, then of the facts, which
    spoke of all. seed: of the tree over what stays, whose root the log has since.
    """

    salts: bytes
    hashes: bytes
    seed: bytes


def numbers_of(runs: Iterable[tuple[int, int]]) -> list[int]:
    """Every number in the runs."""
    return [number for first, last in runs for number in range(first, last + 1)]


def staying(records: int, erased: Runs) -> list[int]:
    """The numbers, as they were logged, of the records that are still there."""
    gone = set(numbers_of(erased))
    return [number for number in range(records) if number not in gone]


def logged_hashes(records: int, erased: Runs, kept: Kept, raws: Sequence[bytes]) -> list[bytes]:
    """The leaves of the tree that was logged, from the records that stay; ValueError where the sizes do not fit."""
    stay, gone = staying(records, erased), numbers_of(erased)
    if not (
        len(raws) == len(stay)
        and len(kept.salts) == SALT * len(stay)
        and len(kept.hashes) == HASH_SIZE * (len(gone) + 1)
    ):
        raise ValueError("what is kept is of other records")
    made = [b""] * (records + 1)
    for place, (number, raw) in enumerate(zip(stay, raws, strict=True)):
        made[number] = record_hash(kept.salts[SALT * place : SALT * (place + 1)], raw)
    for place, number in enumerate([*gone, records]):
        made[number] = kept.hashes[HASH_SIZE * place : HASH_SIZE * (place + 1)]
    return made


def without(seed: bytes, records: int, hashes: Sequence[bytes], erased: Runs) -> Kept:
    """What is kept of a whole batch of this seed and these leaves when these records go."""
    salts = salts_of(seed, records)
    gone = numbers_of(erased)
    return Kept(
        b"".join(salts[number] for number in staying(records, erased)),
        b"".join(hashes[number] for number in [*gone, records]),
        os.urandom(SEED),
    )


def without_more(kept: Kept, records: int, before: Runs, hashes: Sequence[bytes], erased: Runs) -> Kept:
    """The same of one that had lost some `before`; `erased`: all that are gone then."""
    salts = {
        number: kept.salts[SALT * place : SALT * (place + 1)] for place, number in enumerate(staying(records, before))
    }
    return Kept(
        b"".join(salts[number] for number in staying(records, erased)),
        b"".join(hashes[number] for number in [*numbers_of(erased), records]),
        os.urandom(SEED),
    )


def rest_hashes(kept: Kept, raws: Sequence[bytes], facts: bytes) -> list[bytes]:
    """The leaves of the tree over what stays; its root stands in the erasure's leaf."""
    return batch_hashes(kept.seed, raws, facts)


def compare_rest(
    root: bytes,
    records: int,
    erased: Runs,
    rest_root: bytes,
    kept: Kept,
    raws: Sequence[bytes],
    facts: bytes,
    hashes: Sequence[bytes] = (),
) -> Difference | None:
    """Hold the records that stay to the root that was logged, and with what is known of them to the erasure's.

    root, records: of the batch when it came. hashes: as for `compare`, of the tree over what stays. The record of a
    difference is counted as it was logged; `records` stands for the facts.
    """
    stay = staying(records, erased)
    found = compare(rest_root, len(stay), kept.seed, raws, facts, hashes)
    if found is not None:
        if 0 <= found.record <= len(stay):
            return Difference(found.kind, [*stay, records][found.record])
        return found
    try:
        same = root_of(logged_hashes(records, erased, kept, raws)) == root
    except ValueError:
        same = False
    return None if same else Difference(Tampering.CHANGED)
