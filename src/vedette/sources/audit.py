"""The source `audit`: follows what people did here, attested, and says when the file became shorter or another one.
Counterpart: `app.audit` writes the file; `rules/packs/operators.yml` judges."""

from __future__ import annotations

import asyncio
import glob
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from vedette.model.batch import Batch, Origin, RecordFormat, Trust
from vedette.model.clock import Clock
from vedette.model.protocols import Counter, Emit
from vedette.sources.file import FileSource
from vedette.sources.file_cursor import read_cursor
from vedette.sources.settings import FileSettings
from vedette.sources.told import Teller
from vedette.text.times import rfc3339

NAME = "audit"
DATASET = "vedette.audit"


class AuditSource:
    """Reads one file from its beginning; nobody turns it over, so that it only ever grows.

    StateError for a cursor of a newer version.
    """

    def __init__(
        self,
        path: Path,
        *,
        host_id: str,
        clock: Clock,
        counter: Counter,
        cursors: Mapping[str, str] | None = None,
        every: float = 1.0,
    ) -> None:
        """every: seconds between two looks at how long the file is."""
        self.name = NAME
        self.begun = asyncio.Event()
        self._path = path
        self._host_id = host_id
        self._clock = clock
        self._counter = counter
        self._every = every
        cursor = (cursors or {}).get(NAME, "")
        self._cursors = {f"file:{path}": cursor} if cursor else {}
        places = read_cursor(cursor, NAME).places if cursor else ()
        self._high = max((place.offset for place in places), default=0)
        self._file: tuple[int, int] | None = None
        self._teller = Teller(host_id, NAME, clock.now())
        self._told = 0

    async def run(self, emit: Emit) -> None:
        """Read and emit until cancelled; where there is no file, wait for it without a word. OSError as `file` does."""
        await self._look(emit)
        self.begun.set()
        while not self._path.exists():
            await asyncio.sleep(self._every)
            await self._look(emit)
        settings = FileSettings(
            paths=(glob.escape(str(self._path)),), begin="beginning", format=RecordFormat.JSON, timezone="UTC"
        )
        files = FileSource(
            settings, host_id=self._host_id, clock=self._clock, counter=self._counter, cursors=self._cursors
        )

        async def attested(batch: Batch) -> None:
            origin = Origin(self._host_id, NAME, batch.origin.generation)
            await emit(replace(batch, origin=origin, trust=Trust.ATTESTED))

        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(files.run(attested))
                while True:
                    await asyncio.sleep(self._every)
                    await self._look(emit)
        except ExceptionGroup as group:
            raise group.exceptions[0] from None

    async def _look(self, emit: Emit) -> None:
        """Say when the file is shorter than it was, or another one."""
        try:
            status = os.stat(self._path)  # noqa: PTH116 (asked once a second)
        except OSError:
            size, file = 0, None
        else:
            size, file = status.st_size, (status.st_dev, status.st_ino)
        before, self._high = self._high, size
        other = self._file is not None and file is not None and file != self._file
        self._file = file or self._file
        if size >= before and not other:
            return
        self._counter.add("audit_shrunk")
        now = self._clock.now()
        told = {
            "message": f"{self._path.name} is {size} bytes long and was {before}"
            + (", and is another file" if other else ""),
            "@timestamp": rfc3339(now),
            "event": {"kind": "event", "category": ["file"], "action": "audit-shrunk", "dataset": DATASET},
            "vedette": {"audit": {"bytes": size, "bytes_before": before}},
        }
        await emit(self._teller.batch([told], self._told, "", now))
        self._told += 1
