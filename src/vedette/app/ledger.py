"""Opens the ledger of a data folder with its key and its lake, for the person who asks.
Counterpart: `app.keeping` lets it grow; `cli.ledger` shows, proves, exports and audits through here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vedette.app.host import host_id
from vedette.model.batch import Batch
from vedette.model.clock import Clock
from vedette.model.shipping import BatchKey
from vedette.store.ledger.keys import signing_key
from vedette.store.ledger.ledger import Ledger
from vedette.store.ledger.notes import VerifierKey

if TYPE_CHECKING:
    from vedette.store.lake.reader import Reader

KEY_FILE = "ledger.key"
LAKE = "lake"
MANIFEST = "manifest.db"

AT_ONCE = 256
"""Batches read of the lake at a time."""


@dataclass(frozen=True, slots=True)
class Books:
    """A ledger, its public key, and the lake it speaks of."""

    ledger: Ledger
    key: VerifierKey
    host_id: str
    lake: Reader

    def taken(self) -> Iterator[tuple[BatchKey, Batch]]:
        """Every batch of the lake in ingest order."""
        after = 0
        while found := self.lake.read(after, AT_ONCE):
            for one in found:
                yield one.key, one.batch
            after = found[-1].sequence

    def batch(self, key: BatchKey) -> Batch | None:
        """The batch as the lake holds it."""
        with self.ledger.reading() as connection:
            index = self.ledger.find(connection, key)
            order = None if index is None else self.ledger.order(connection, index)
        if order is not None:
            for one in self.lake.read(order - 1, 1):
                if one.key == key:
                    return one.batch
        # A lake that is older than its ledger counts otherwise.
        return next((batch for which, batch in self.taken() if which == key), None)


@contextmanager
def books(folder: Path, clock: Clock) -> Iterator[Books]:
    """The books of a data folder. StateError where there are none, or where they cannot be read."""
    from vedette.store.lake.reader import Reader

    me = host_id(folder)
    signer = signing_key(folder / KEY_FILE, f"vedette/{me}", create=False)
    ledger = Ledger(folder / LAKE / MANIFEST, signer, clock=clock)
    lake = Reader(folder / LAKE)
    try:
        yield Books(ledger, signer.verifier, me, lake)
    finally:
        lake.close()
        ledger.close()
