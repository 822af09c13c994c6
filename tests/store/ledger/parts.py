"""A hub in small: batches in memory, the ledger in a bare database; and what an attacker may do to an export.
Counterpart: the tests beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vedette.model.batch import Batch, Origin
from vedette.model.shipping import BatchKey
from vedette.store.connections import locate, make_engine
from vedette.store.ledger.export import write_export
from vedette.store.ledger.leaves import Batches, ErasureKind
from vedette.store.ledger.ledger import Ledger
from vedette.store.ledger.notes import Signer
from vedette.testing.clock import START, FakeClock

HOST = "11111111-1111-4111-8111-111111111111"
SIGNER = Signer.generate(f"vedette/{HOST}")


def batch_of(*records: bytes, **more: Any) -> Batch:
    ends = np.cumsum([len(record) + 1 for record in records], dtype=np.int64) - 1
    starts = ends - np.asarray([len(record) for record in records], np.int64)
    fields: dict[str, Any] = {"origin": Origin(HOST, "file"), "number": 1, "positions": starts, "read_at": START}
    return Batch(block=b"".join(record + b"\n" for record in records), starts=starts, ends=ends, **{**fields, **more})


def key(number: int, stream: str = "file") -> BatchKey:
    return BatchKey(HOST, stream, number)


class Hub:
    """What a hub keeps: the lake as a dict, the ledger on disk."""

    def __init__(self, folder: Path, signer: Signer = SIGNER) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.signer, self.clock = folder, signer, FakeClock()
        self.lake: dict[BatchKey, Batch] = {}
        self.engine = make_engine(locate(folder / "manifest.db"), write=True)
        self.ledger = Ledger(folder / "manifest.db", signer, clock=self.clock)

    def take(self, *numbers: int, stream: str = "file", word: str = "record") -> None:
        taken = {key(n, stream): batch_of(*(f"{word} {n}.{i}".encode() for i in range(3)), number=n) for n in numbers}
        with self.engine.begin() as connection:
            self.ledger.append(connection, [self.ledger.leaf(one, batch) for one, batch in taken.items()])
        self.lake |= taken

    def erase(self, first: int, last: int, *, kind: ErasureKind = ErasureKind.RETENTION) -> None:
        with self.engine.begin() as connection:
            self.ledger.erase(connection, [Batches(HOST, "file", first, last)], kind=kind, who="retention", why="365 d")
        for number in range(first, last + 1):
            self.lake.pop(key(number), None)

    def export(self, name: str = "export", **more: Any) -> Path:
        write_export(self.ledger, self.folder / name, self.signer.verifier, self.lake.items(), **more)
        return self.folder / name

    def close(self) -> None:
        self.ledger.close()
        self.engine.dispose()


def edit(path: Path, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    """Change the objects of a file of lines."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    change(lines)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
