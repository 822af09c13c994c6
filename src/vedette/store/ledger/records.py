"""Makes the ledger's leaf of a batch: every record hashed with a salt of its own, and the facts around them.
Counterpart: the lake calls it with what it stores, and proofs are made later from the lake's batch and the seed."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from hashlib import sha256, shake_128

import numpy as np

from vedette.model.batch import Batch, Trust
from vedette.model.shipping import BatchKey
from vedette.store.ledger.leaves import BatchLeaf
from vedette.store.ledger.salted import SALT, SEED
from vedette.store.ledger.tree import root_of

FACTS = "vedette-ledger-facts/1"


@dataclass(frozen=True, slots=True)
class Leaf:
    """What the ledger keeps of a batch; the seed is secret as long as the records are kept, and erased with them."""

    key: BatchKey
    root: bytes
    seed: bytes
    records: int
    read_at: int

    def encode(self) -> bytes:
        """The bytes that stand in the log."""
        key = self.key
        return BatchLeaf(key.host_id, key.stream, key.number, self.records, self.read_at, self.root).encode()


def leaf_of(key: BatchKey, batch: Batch, seed: bytes | None = None) -> Leaf:
    """The leaf of a batch; without a seed a fresh one is drawn."""
    if seed is None:
        seed = os.urandom(SEED)
    return Leaf(key, root_of(hashes_of(batch, seed)), seed, len(batch), batch.read_at)


def hashes_of(batch: Batch, seed: bytes) -> list[bytes]:
    """The leaves of the batch's tree, as `salted.batch_hashes` has them; made for speed."""
    count = len(batch)
    # The prefix stands before each salt already: one concatenation a record.
    salts = np.zeros((count + 1, SALT + 1), dtype=np.uint8)
    salts[:, 1:] = np.frombuffer(shake_128(seed).digest(SALT * (count + 1)), dtype=np.uint8).reshape(-1, SALT)
    flat, width, block = salts.tobytes(), SALT + 1, batch.block
    places = range(0, width * count, width)
    hashes = [
        sha256(flat[at : at + width] + block[start:end]).digest()
        for at, start, end in zip(places, batch.starts.tolist(), batch.ends.tolist(), strict=True)
    ]
    hashes.append(sha256(flat[width * count :] + facts_of(batch)).digest())
    return hashes


def raws_of(batch: Batch) -> list[bytes]:
    """The bytes of every record."""
    block = batch.block
    return [block[start:end] for start, end in zip(batch.starts.tolist(), batch.ends.tolist(), strict=True)]


def facts_of(batch: Batch) -> bytes:
    """What is known of a batch beside its bytes: where and when it was read, how far it is to be trusted.

    A line of JSON, then the positions and, where given, the times and pids of the header, int64 little-endian.
    Batch number and cursor are in the key, or of no meaning later.
    """
    trust: int | str
    if isinstance(batch.trust, Trust):
        trust = int(batch.trust)
    elif len(batch) and (batch.trust == batch.trust[0]).all():
        trust = int(batch.trust[0])
    else:
        trust = batch.trust.tobytes().hex()
    header = batch.header
    line = [
        FACTS,
        batch.origin.host_id,
        batch.origin.source,
        batch.origin.generation,
        batch.read_at,
        batch.format.value,
        trust,
        batch.timezone,
        batch.year,
        batch.spooled,
        sorted(batch.dropped.items()),
        None if header is None else [header.host, header.program],
    ]
    parts = [json.dumps(line, separators=(",", ":")).encode(), b"\n", _little(batch.positions)]
    if header is not None:
        parts += [_little(header.time), _little(header.pid)]
    return b"".join(parts)


def _little(values: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> bytes:
    return values.astype("<i8", copy=False).tobytes()
