"""The systemd journal: by libsystemd through cysystemd, or by a child `journalctl` where that cannot be used.
Counterpart: journal_records.py makes batches of entries; `parsers` read the bare messages."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Protocol

import orjson
import structlog

from vedette.model.clock import Clock
from vedette.model.protocols import Counter, Emit
from vedette.model.reasons import DropReason
from vedette.sources.journal_records import FIELDS, LIMIT, Attestation, Records, message_of, read_cursor, sequence
from vedette.sources.settings import JournalSettings, seconds
from vedette.system.exec import ENVIRONMENT, run
from vedette.system.priority import ordinary
from vedette.text.escape import terminal

log = structlog.get_logger("vedette.sources.journal")

SLICE = 0.004
"""Seconds of reading before the event loop has its turn and the batch goes."""
MOST = 4096
"""Records of one batch at most."""
AGAIN = 1.0
"""Seconds until what failed is tried again; also between two exact re-readings."""
_REPLACED = "\ufffd".encode()


class Entry(Protocol):
    """What cysystemd gives for one entry."""

    cursor: bytes
    data: Mapping[str, object]

    def get_realtime_usec(self) -> int: ...


class Reader(Protocol):
    """The part of cysystemd's JournalReader that is used. Not safe for use from two threads at a time."""

    fd: int
    data_threshold: int

    def open(self, flags: int) -> None: ...
    def open_directory(self, path: str) -> None: ...
    def seek_head(self) -> None: ...
    def seek_realtime_usec(self, usec: int) -> None: ...
    def seek_cursor(self, cursor: bytes) -> None: ...
    def next(self) -> Entry | None: ...
    def previous(self) -> Entry | None: ...
    def process_events(self) -> int: ...


# cysystemd raises SystemError for libsystemd's error codes, and TypeError for those errno has no name for.
TROUBLE = (SystemError, TypeError, OSError, RuntimeError)


def library() -> type[Reader] | None:
    """cysystemd's reader; None where it or libsystemd cannot be loaded."""
    try:
        from cysystemd.reader import JournalReader
    except (ImportError, OSError):
        return None
    reader: type[Reader] = JournalReader
    return reader


class JournalSource:
    """Reads this machine's journal, or the one in `settings.folder`. Raises StateError for a newer version's cursor."""

    def __init__(
        self, settings: JournalSettings, *, host_id: str, clock: Clock, counter: Counter, cursor: str = ""
    ) -> None:
        self.name = "journal"
        self._settings = settings
        self._host_id = host_id
        self._clock = clock
        self._counter = counter
        self._records = Records(Attestation(settings))
        stored = read_cursor(cursor) if cursor else None
        self._number = stored.number if stored else 0
        self.begun = asyncio.Event()
        self._cursor = stored.cursor if stored else ""
        self._resuming = bool(stored)
        self._from_start = settings.begin == "beginning"
        self._trouble = ""
        self._reread_at = 0.0
        self._pending: tuple[str, int, Mapping[str, object]] | None = None

    async def run(self, emit: Emit) -> None:
        """Read and emit until cancelled."""
        reader = None if self._settings.reader == "journalctl" else library()
        if reader is None and self._settings.reader == "library":
            raise ImportError("cysystemd cannot be loaded (hint: set reader: journalctl)")
        attempt = self._by_program if reader is None else self._by_library
        while True:
            try:
                await attempt(emit)
            except TROUBLE as error:
                self._fail(error)
            await asyncio.sleep(AGAIN)

    def _fail(self, error: BaseException) -> None:
        """Count it, say it once, and begin anew after what was read last."""
        self.begun.set()
        self._counter.add("source_dropped", DropReason.SOURCE_UNREADABLE)
        kind = f"{type(error).__name__}: {error}"
        if kind != self._trouble:
            self._trouble = kind
            log.warning(
                "journal-unreadable",
                error=terminal(kind),
                hint="let the service's user read it (group systemd-journal)",
            )

    # ------------------------------------------------------------------------------------------ by library

    async def _by_library(self, emit: Emit) -> None:
        loop = asyncio.get_running_loop()
        reader = await asyncio.to_thread(self._open)
        if not self.begun.is_set():
            self.begun.set()
            if self._cursor and not self._resuming:
                await self._stand(emit)
        descriptor = reader.fd
        loop.add_reader(descriptor, self._changed, reader)
        busy = seconds(self._settings.busy)
        poll_busy, poll_idle = seconds(self._settings.poll_busy), seconds(self._settings.poll_idle)
        busy_until = 0.0
        try:
            while True:
                more = self._read(reader, loop)
                if len(self._records):
                    await self._emit(emit)
                    busy_until = loop.time() + busy
                    # What came while that was waited for is not kept waiting again.
                    more = True
                if more:
                    await asyncio.sleep(0)
                    continue
                # journald writes through a mapping and tells inotify by a timer, 250 ms later: looking costs 2 us.
                await asyncio.sleep(poll_busy if loop.time() < busy_until else poll_idle)
        finally:
            loop.remove_reader(descriptor)

    async def _stand(self, emit: Emit) -> None:
        """Say where reading begins: ended before there was anything to read, it must not begin elsewhere next time."""
        number, self._number = self._number, self._number + 1
        await emit(self._records.batch(self._host_id, number, self._clock.now(), at=self._cursor))

    def _changed(self, reader: Reader) -> None:
        """Files came or went (rotation, vacuum); libsystemd opens and closes them in here."""
        try:
            reader.process_events()
        except TROUBLE as error:
            self._fail(error)

    def _open(self) -> Reader:
        """Open and go to the place to begin at; blocking."""
        found = library()
        assert found is not None
        reader = found()
        if self._settings.folder:
            reader.open_directory(self._settings.folder)
        else:
            reader.open(1)  # SD_JOURNAL_LOCAL_ONLY: system and user journals of this machine
        reader.data_threshold = 2 * LIMIT
        if self._cursor:
            reader.seek_cursor(self._cursor.encode())
            self._resuming, self._pending = True, None
        elif self._from_start:
            reader.seek_head()
        else:
            # Not seek_tail: the libsystemd that cysystemd brings then stands before the last entry but one.
            reader.seek_realtime_usec(1 << 62)
            last = reader.previous()
            if last is None:
                # An empty journal has no end to stand at; whatever comes is new.
                reader.seek_head()
                self._from_start = True
            else:
                self._cursor = last.cursor.decode("ascii", "replace")
        return reader

    def _read(self, reader: Reader, loop: asyncio.AbstractEventLoop) -> bool:
        """Take entries until there are none, or it is time to emit; whether there may be more."""
        until = loop.time() + SLICE
        if self._pending is not None:
            self._take(*self._pending)
            self._pending = None
        while len(self._records) < MOST and loop.time() < until:
            entry = reader.next()
            if entry is None:
                return False
            cursor = entry.cursor.decode("ascii", "replace")
            if self._resuming and self._is_known(cursor):
                continue
            taken = cursor, entry.get_realtime_usec(), entry.data
            if not self._records.fits(cursor):
                self._pending = taken
                return True
            self._take(*taken)
        return True

    def _is_known(self, cursor: str) -> bool:
        """The first entry after a seek: the one the cursor names, unless that is gone (vacuumed)."""
        self._resuming = False
        stored, found = sequence(self._cursor), sequence(cursor)
        if stored == found:
            return True
        missed = found[1] - stored[1] - 1 if stored[0] == found[0] else 0
        self._count(DropReason.TRUNCATED_UNSEEN, max(1, missed))
        log.warning("journal-truncated-unseen", records=max(0, missed), hint="the journal keeps too little")
        return False

    def _take(self, cursor: str, realtime: int, fields: Mapping[str, object]) -> None:
        stored, found = sequence(self._cursor), sequence(cursor)
        if stored[0] == found[0] and found[1] > stored[1] + 1:
            # Files that could not be read or were removed before we came to them, or another user's.
            self._counter.add("source_sequence_gap", n=found[1] - stored[1] - 1)
        self._cursor = cursor
        if not self._records.add(cursor, realtime, fields):
            self._counter.add("journal_without_message")

    def _count(self, reason: DropReason, n: int) -> None:
        self._counter.add("source_dropped", reason, n)
        self._records.dropped[reason] = self._records.dropped.get(reason, 0) + n

    async def _emit(self, emit: Emit, *, exact: bool = False) -> None:
        if not exact:
            await self._as_written()
        if cut := self._records.dropped.get(DropReason.RECORD_TOO_LONG, 0):
            self._counter.add("source_dropped", DropReason.RECORD_TOO_LONG, cut)
        batch = self._records.batch(self._host_id, self._number, self._clock.now())
        self._number += 1
        self._trouble = ""
        await emit(batch)

    async def _as_written(self) -> None:
        """Put back the bytes that cysystemd replaced because they are not UTF-8.

        At most once a second: a local user could otherwise hold up everything by logging such bytes.
        """
        messages, cursors = self._records.messages, self._records.cursors
        rows = [row for row, message in enumerate(messages) if _REPLACED in message]
        if not rows:
            return
        exact: dict[str, bytes] = {}
        now = asyncio.get_running_loop().time()
        if now >= self._reread_at:
            self._reread_at = now + AGAIN
            command = _journalctl(self._settings, f"--cursor={cursors[rows[0]]}", f"--lines={rows[-1] - rows[0] + 1}")
            with suppress(FileNotFoundError):
                done = await asyncio.to_thread(run, command, timeout=2.0)
                for line in done.stdout.split(b"\n"):
                    with suppress(ValueError, KeyError, TypeError):
                        fields = orjson.loads(line)
                        exact[fields["__CURSOR"]] = message_of(fields)
        for row in rows:
            if cursors[row] in exact:
                messages[row] = self._records.bounded(exact[cursors[row]])
            else:
                self._counter.add("journal_bytes_replaced")

    # ------------------------------------------------------------------------------------------ by program

    async def _by_program(self, emit: Emit) -> None:
        where = ["--lines=0"]
        if self._cursor:
            where = [f"--after-cursor={self._cursor}", "--no-tail"]
        elif self._from_start:
            where = ["--no-tail"]
        process = await asyncio.create_subprocess_exec(
            *ordinary(_journalctl(self._settings, "--follow", *where)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=ENVIRONMENT,
        )
        assert process.stdout is not None
        self.begun.set()
        self._resuming = False
        carry = b""
        try:
            while data := await process.stdout.read(1 << 20):
                *lines, carry = (carry + data).split(b"\n")
                for line in lines:
                    await self._line(line, emit)
                if len(self._records):
                    await self._emit(emit, exact=True)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.communicate()
        raise OSError(f"journalctl ended with {process.returncode}")

    async def _line(self, line: bytes, emit: Emit) -> None:
        try:
            fields = orjson.loads(line)
            cursor, realtime = fields["__CURSOR"], int(fields["__REALTIME_TIMESTAMP"])
        except (ValueError, KeyError, TypeError):
            self._count(DropReason.SOURCE_UNREADABLE, 1)
            return
        if not self._records.fits(cursor):
            await self._emit(emit, exact=True)
        self._take(cursor, realtime, fields)


def _journalctl(settings: JournalSettings, *more: str) -> list[str]:
    which = [f"--directory={settings.folder}"] if settings.folder else []
    fields = f"--output-fields={','.join(FIELDS)}"
    return ["journalctl", "--output=json", "--all", "--no-pager", "--quiet", fields, *which, *more]
