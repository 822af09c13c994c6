"""What this host reads is kept: from the shelf into the lake, by a thread that never holds up the engine.
Counterpart: `fleet.spool` is the shelf, `store.lake` keeps; `app.up` starts it, `app.agent` ships instead."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import structlog

from vedette.app.detection import routed_parser
from vedette.fleet.lanes import Lanes
from vedette.fleet.messages import unpack, unpack_dropped
from vedette.fleet.segments import START
from vedette.fleet.spool import Entry, Spool
from vedette.model.batch import Batch
from vedette.model.clock import SECOND, Clock
from vedette.model.events import Column
from vedette.model.protocols import Counter, Parser
from vedette.model.shipping import Headers, Lane

if TYPE_CHECKING:
    from vedette.config.settings import Settings

log = structlog.get_logger()

LAKE, SPOOL = "lake", "spool"
MANIFEST = "manifest.db"
LEDGER_KEY = "ledger.key"
FLUSH_AFTER = SECOND
"""How long a record waits at most before it can be searched."""
FLUSH_BYTES = 32 << 20
TRY_AGAIN = 1.0
"""Seconds until a lake that refused is tried again."""
LAST = 5.0
"""Seconds the shelf has at the end to put down what it was given."""
NICE = 10
NO_SEVERITY = 255


def header_parser(counter: Counter) -> Parser:
    """A parser that no rule wants anything of: headers alone."""
    return routed_parser([], counter)


def headers_of(batch: Batch, parser: Parser) -> Headers:
    """The header columns of a batch; of records without a readable one, what the parser makes of that."""
    table = parser.parse(batch)
    n = len(batch)
    severity = np.full(n, NO_SEVERITY, dtype=np.uint8)
    column = table.column("log.syslog.severity.code")
    if len(column.values):
        known = np.array([value if isinstance(value, int) else NO_SEVERITY for value in column.values], dtype=np.uint8)
        severity = np.where(column.codes >= 0, known[np.maximum(column.codes, 0)], severity)
    return Headers(
        time=table.time,
        host=_texts(table.column("host.name")),
        program=_texts(table.column("process.name")),
        severity=severity,
    )


def _texts(column: Column) -> Column:
    return Column(column.codes, [value if isinstance(value, str) else "" for value in column.values])


class LakeKeeping:
    """A shelf, and the lake it is emptied into. StateError or OSError where either cannot be opened.

    `shelf` takes batches from any thread; `close` comes after the last of them, and keeps everything. flushed: called
    in the lake's thread when there is something new to read in it.
    """

    def __init__(
        self,
        settings: Settings,
        host_id: str,
        *,
        clock: Clock,
        counter: Counter,
        flushed: Callable[[], None] = lambda: None,
    ) -> None:
        from vedette.store.lake.lake import Lake
        from vedette.store.ledger.keys import signing_key
        from vedette.store.ledger.ledger import Ledger

        folder = settings.data_folder()
        self._host_id, self._clock, self._counter, self._flushed = host_id, clock, counter, flushed
        self._parser = header_parser(counter)
        signer = signing_key(folder / LEDGER_KEY, f"vedette/{host_id}")
        self.ledger = Ledger(folder / LAKE / MANIFEST, signer, clock=clock)
        self.lake = Lake(folder / LAKE, clock=clock, counter=counter, ledger=self.ledger)
        try:
            self.shelf = Spool(
                folder / SPOOL,
                host_id,
                clock=clock,
                counter=counter,
                settings=settings.shipping.spool,
                split=Lanes(settings.shipping.lanes),
            )
        except BaseException:
            self.lake.close()
            raise
        self._places = dict.fromkeys(Lane, START)
        self._new = threading.Event()
        self._ended = False
        self._refused = False
        self._flush_at = 0
        self.shelf.listen(self._new.set)
        self._thread = threading.Thread(target=self._run, name="lake")
        self._thread.start()

    def close(self) -> None:
        """Bring everything that was put into the lake, as far as the disk lets us, and end."""
        self._ended = True
        self._new.set()
        self._thread.join()
        self.shelf.close()
        self.lake.close()
        self.ledger.close()

    # ------------------------------------------------------------------------------------------ the lake's thread
    def _run(self) -> None:
        # What must be done soon has its own threads; this one takes what they leave.
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        while True:
            ended = self._ended
            if ended:
                self.shelf.settled(LAST)
            self._new.clear()
            try:
                self._take(everything=ended)
            except Exception as error:  # noqa: BLE001 (the shelf keeps what was not taken; it is tried again)
                self._on_refused(error)
                if not ended:
                    self._new.wait(TRY_AGAIN)
            if ended:
                return
            waiting = self.lake.waiting
            self._new.wait(max(self._flush_at - self._clock.now(), 0) / SECOND if waiting else None)

    def _take(self, *, everything: bool) -> None:
        """Bring what waits on the shelf into the lake; flush what has waited long enough, or is much."""
        for lane in Lane:
            while entries := self.shelf.read(lane, self._places[lane]):
                for entry in entries:
                    self._put(entry)
                    # Not before: what could not be put is read again.
                    self._places[lane] = entry.place
                if self.lake.waiting >= FLUSH_BYTES:
                    self._flush()
        if self.lake.waiting and (everything or self._clock.now() >= self._flush_at):
            self._flush()

    def _put(self, entry: Entry) -> None:
        if entry.gap:
            self.lake.drop(unpack_dropped(entry.packed))
            return
        if not self.lake.waiting:
            self._flush_at = self._clock.now() + FLUSH_AFTER
        key, batch = unpack(entry.packed)
        self.lake.put(key, batch, headers_of(batch, self._parser))

    def _flush(self) -> None:
        streams = {key.stream for key in self.lake.flush()}
        if self._refused:
            self._refused = False
            log.warning("the lake is written again", folder=str(self.lake.folder))
        through = {stream: self.lake.stored_through(self._host_id, stream) for stream in streams}
        self.shelf.free_all(self._host_id, through)
        self._flushed()

    def _on_refused(self, error: Exception) -> None:
        self._counter.add("lake_refused")
        if not self._refused:
            self._refused = True
            log.error("THE LAKE CANNOT BE WRITTEN: what is read waits on the shelf", reason=str(error))
