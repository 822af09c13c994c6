"""What this host reads is kept: from the shelf into the lake, by a thread that never holds up the engine.
Counterpart: `fleet.spool` is the shelf, `store.lake` keeps; `app.up` starts it, `app.agent` ships instead."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import structlog

from vedette.app import own
from vedette.app.findings_stream import FindingsStream
from vedette.app.forwarding import forwarders
from vedette.app.routed import routed_parser
from vedette.fleet.lanes import Lanes
from vedette.fleet.masking import Masks
from vedette.fleet.messages import MessageError, unpack, unpack_dropped
from vedette.fleet.segments import START
from vedette.fleet.settings import ShippingSettings
from vedette.fleet.spool import Entry, Spool
from vedette.model.batch import Batch
from vedette.model.clock import SECOND, Clock
from vedette.model.events import Column
from vedette.model.protocols import Counter, Enforcer, Parser, Source
from vedette.model.reasons import DropReason
from vedette.model.rules import Rule
from vedette.model.shipping import BatchKey, Dropped, Headers, Lane, SourceState

if TYPE_CHECKING:
    from vedette.config.settings import Settings
    from vedette.store.state import State

log = structlog.get_logger()

LAKE, SPOOL = "lake", "spool"
MANIFEST = "manifest.db"
LEDGER_KEY = "ledger.key"
FLUSH_AFTER = SECOND
"""How long a record waits at most before it can be searched."""
FLUSH_BYTES = 32 << 20
GATHER = 0.25
"""Seconds between news and the work on them: what comes meanwhile is done in one go."""
TRY_AGAIN = 1.0
"""Seconds until a lake that refused is tried again."""
LAST = 5.0
"""Seconds the shelf has at the end to put down what it was given."""
NICE = 10
MOST_RANGES = 1000
"""Of a stream, that the shelf is told to be there behind a gap."""
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


def lanes(settings: ShippingSettings, counter: Counter) -> Lanes:
    """Which records go by which lane, as the programs in their headers say."""
    # Of its own: it runs in the shelf's thread.
    parser = header_parser(counter)
    return Lanes(settings.lanes, lambda batch: parser.parse(batch).column("process.name"))


def masks(settings: ShippingSettings, counter: Counter) -> Masks | None:
    """What hides secrets before anything is written; None where none is configured."""
    return Masks(settings.masks, counter) if settings.masks else None


def _texts(column: Column) -> Column:
    return Column(column.codes, [value if isinstance(value, str) else "" for value in column.values])


class LakeKeeping:
    """A shelf, and the lake it is emptied into. StateError or OSError where either cannot be opened.

    `shelf` takes batches from any thread; `close` comes after the last of them, and keeps everything.
    """

    stream: FindingsStream | None = None
    """Who keeps here makes alerts here as well: findings need not be told."""

    def __init__(self, settings: Settings, me: own.Self, *, clock: Clock, counter: Counter) -> None:
        from vedette.app.tidying import Tidying
        from vedette.store.lake.lake import Lake
        from vedette.store.ledger.keys import signing_key
        from vedette.store.ledger.ledger import Ledger

        folder = settings.data_folder()
        host_id = me.host_id
        self.settings, self.me = settings, me
        self.told: Callable[[Mapping[str, SourceState]], Mapping[str, SourceState]] = dict
        self._clock, self._counter = clock, counter
        self._parser = header_parser(counter)
        signer = signing_key(folder / LEDGER_KEY, f"vedette/{host_id}")
        self.log_key = signer.verifier
        self.ledger = Ledger(folder / LAKE / MANIFEST, signer, clock=clock)
        try:
            self.lake = Lake(folder / LAKE, clock=clock, counter=counter, ledger=self.ledger)
        except BaseException:
            self.ledger.close()
            raise
        try:
            self.shelf = Spool(
                folder / SPOOL,
                host_id,
                clock=clock,
                counter=counter,
                settings=settings.shipping.spool,
                split=lanes(settings.shipping, counter),
                mask=masks(settings.shipping, counter),
                ask=True,
            )
        except BaseException:
            self.lake.close()
            self.ledger.close()
            raise
        # On a shelf that was lost and begins anew no number is given again: the lake would take it for a repeat.
        streams = self.lake.streams_of(host_id)
        self.shelf.free_all(
            host_id,
            {name: self.lake.stored_through(host_id, name) for name in streams},
            {name: self.lake.stored_beyond(host_id, name, 0, MOST_RANGES) for name in streams},
        )
        self.shelf.answer(streams)
        self._places = dict.fromkeys(Lane, START)
        self._new = threading.Event()
        self._end = threading.Event()
        self.trouble = ""
        self._flush_at = 0
        self.waiting_since = 0
        """When the oldest of what is not yet in the lake was taken in; 0 = nothing waits."""
        self._putting = threading.Lock()
        self.shelf.listen(self._new.set)
        self._thread = threading.Thread(target=self._run, name="lake")
        self._thread.start()
        self._tidying = Tidying(
            self.lake, self.ledger, settings.lake, clock=clock, counter=counter, erased=self.shelf.turn_over
        )

    is_hub = False
    bundle = 0
    enforces = False
    nudge: Callable[[], None] = staticmethod(lambda: None)

    def enforcers(self, _state: State, _rules: Sequence[Rule]) -> list[Enforcer]:
        """None of its own."""
        return []

    def heard(self, batch: Batch) -> None:
        """Something that an agent said of itself is in the lake."""

    @property
    def words(self) -> str:
        """What a person is told of it."""
        return f"keeps: everything that is read, in {self.lake.folder}"

    def sources(self, _state: State) -> list[Source]:
        """Sources of its own."""
        return []

    async def run(self, _state: State) -> None:
        """What goes on beside the threads until cancelled: sending on what is in the lake."""
        made = forwarders(
            self.settings.forward,
            self.settings.data_folder(),
            self.lake.read,
            clock=self._clock,
            counter=self._counter,
        )
        async with asyncio.TaskGroup() as group:
            for forwarder in made:
                group.create_task(forwarder.run(), name=f"forward {forwarder.name}")

    def close(self) -> None:
        """Bring everything that was put into the lake, as far as the disk lets us, and end."""
        self._tidying.close()
        self._end.set()
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
            ended = self._end.is_set()
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
            due = self._due() / SECOND if self.lake.waiting else None
            self._new.wait(due)
            # What was just put may be on its way to a block, which must not share the interpreter with this.
            self._end.wait(GATHER)

    def _take(self, *, everything: bool) -> None:
        """Bring what waits on the shelf into the lake; flush what has waited long enough, or is much."""
        for lane in Lane:
            while entries := self._more(lane):
                for entry in entries:
                    self._put(entry)
                    # Not before: what could not be put is read again.
                    self._places[lane] = entry.place
        if self.lake.waiting and (everything or not self._due()):
            self._flush()
        with self._putting:
            if not self.lake.waiting:
                self.waiting_since = 0

    def _more(self, lane: Lane) -> Sequence[Entry]:
        # First, so that nothing more is taken into memory while the disk refuses what is there.
        if self.lake.waiting >= FLUSH_BYTES:
            self._flush()
        return self.shelf.read(lane, self._places[lane])

    def _due(self) -> int:
        """Microseconds until it is time to flush; a clock that was set back puts nothing off."""
        left = self._flush_at - self._clock.now()
        return left if 0 < left <= FLUSH_AFTER and self.lake.waiting < FLUSH_BYTES else 0

    def _put(self, entry: Entry) -> None:
        if entry.gap:
            self.lake.drop(unpack_dropped(entry.packed))
            return
        try:
            self.take_in(*unpack(entry.packed))
        except (ValueError, KeyError, MessageError) as error:
            # Tried for ever, it would keep everything behind it from the lake.
            key = entry.key
            gap = Dropped(key.host_id, key.stream, key.number, key.number, -1, DropReason.DEFECT, self._clock.now())
            self.lake.drop(gap)
            self._counter.add("batches_refused", DropReason.DEFECT)
            log.error("A BATCH COULD NOT BE KEPT", stream=key.stream, number=key.number, reason=repr(error))

    def take_in(self, key: BatchKey, batch: Batch) -> bool:
        """Have a batch of anybody kept; False = its key was there before. From any thread."""
        with self._putting:
            # A parser is not for two threads at once.
            headers = headers_of(batch, self._parser)
            if not self.lake.waiting:
                now = self._clock.now()
                self._flush_at = now + FLUSH_AFTER
                self.waiting_since = self.waiting_since or now
            new = self.lake.put(key, batch, headers)
        self._new.set()
        return new

    def _flush(self) -> None:
        began = self._clock.now()
        keys = self.lake.flush()
        # Under steady load something always waits: what came since.
        self.waiting_since = began
        streams = {key.stream for key in keys if key.host_id == self.me.host_id}
        if self.trouble:
            self.trouble = ""
            log.warning("the lake is written again", folder=str(self.lake.folder))
        through = {stream: self.lake.stored_through(self.me.host_id, stream) for stream in streams}
        self.shelf.free_all(self.me.host_id, through)
        self.flushed(keys)

    def flushed(self, keys: Sequence[BatchKey]) -> None:
        """These are safe in the lake now; called in its thread."""

    def _on_refused(self, error: Exception) -> None:
        self._counter.add("lake_refused")
        self.waiting_since = self.waiting_since or self._clock.now()
        before, self.trouble = self.trouble, f"the lake in {self.lake.folder} cannot be written: {error}"
        if not before:
            log.error("THE LAKE CANNOT BE WRITTEN: what is read waits on the shelf", reason=str(error))
