"""Follows one log through its rotations: which files to read, from where, in which order, and what was lost.
Counterpart: file.py wakes it and owns the watches; siblings.py finds files again; lines.py cuts the records."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import msgspec
import structlog

from vedette.model.batch import Batch, Origin
from vedette.model.clock import Clock
from vedette.model.protocols import Counter, Emit
from vedette.model.reasons import DropReason
from vedette.sources.file_cursor import Cursor, read_cursor
from vedette.sources.lines import BEFORE, NOTHING, Cut, Lines
from vedette.sources.settings import FileSettings, seconds, zone_name
from vedette.sources.siblings import (
    DAMAGED,
    DECOMPRESSORS,
    HEAD,
    Packed,
    Place,
    Sibling,
    between,
    digest,
    find,
    matches,
    open_plain,
)
from vedette.text.escape import terminal

log = structlog.get_logger("vedette.sources.file")

CHUNK = 4 * 1024 * 1024
INLINE = 256 * 1024
"""Reads up to this size are made at once; larger ones in a thread, lest a cold disk stop the event loop."""


class Stream:
    """One file of a log, open at the place where it is read. Closed by its follower."""

    def __init__(self, file: int | Packed, status: os.stat_result, generation: int, lines: Lines) -> None:
        self.file = file
        self.device, self.inode = status.st_dev, status.st_ino
        self.generation = generation
        self.lines = lines
        self.size = status.st_size
        # All of it that is there, though nothing may have been read yet: a truncation is then seen all the same.
        self.head = b"" if isinstance(file, Packed) else os.pread(file, HEAD, 0)
        self.packed_head: tuple[int, str] | None = None
        self.changed = 0.0
        self.ended = False

    @property
    def inode_key(self) -> tuple[int, int]:
        """Device and inode."""
        return self.device, self.inode

    def place(self) -> Place:
        """Where to read on after what was given out."""
        # A half line may be taken back and is left out, except where nothing else tells this file from others.
        before, begun = self.lines.before, self.head[: self.lines.position or HEAD]
        head = self.packed_head or (len(begun), digest(begun))
        return Place(
            device=self.device,
            inode=self.inode,
            generation=self.generation,
            offset=self.lines.position,
            skipping=self.lines.skipping,
            head=head,
            tail=(len(before), digest(before)),
        )

    def known(self) -> Place:
        """`place`, with all that can be known of a file that was empty when it was opened."""
        if not isinstance(self.file, Packed) and not self.head:
            self.head = os.pread(self.file, HEAD, 0)
        return self.place()

    def place_read(self) -> Place:
        """Where the last byte read was, half-written lines included."""
        tail = self.lines.tail
        return replace(
            self.place(),
            offset=self.lines.read_to,
            head=(len(self.head), digest(self.head)),
            tail=(len(tail), digest(tail)),
        )

    def waiting(self) -> int:
        """Bytes that are there and were not read."""
        if isinstance(self.file, Packed):
            return CHUNK
        self.size = os.fstat(self.file).st_size
        return self.size - self.lines.read_to

    def read(self, size: int) -> bytes | None:
        """The next bytes, b"" for none; None when what stood before them is no longer there (truncated)."""
        if isinstance(self.file, Packed):
            unpacked = self.file.read(size)
            self.head = self.head or unpacked[:HEAD]
            return unpacked
        tail = self.lines.tail
        data = os.pread(self.file, size + len(tail), self.lines.read_to - len(tail))
        # Looked at after the read: a truncation between the two is then seen, not read over.
        head = os.pread(self.file, HEAD, 0)
        if not data.startswith(tail) or not head.startswith(self.head):
            return None
        data = data[len(tail) :]
        if len(self.head) < HEAD:
            self.head = head
        return data

    def unlinked(self) -> bool:
        """No name leads to this file any more."""
        return not isinstance(self.file, Packed) and os.fstat(self.file).st_nlink == 0

    def close(self) -> None:
        """Give back the descriptor."""
        if isinstance(self.file, Packed):
            self.file.close()
        else:
            os.close(self.file)


class Follower:
    """One log under its path. `begin` once, then `step` whenever something may have happened, at last `close`.

    opened: called with descriptor and (device, inode) of every plain file opened. closed: before it is closed, with
    (device, inode) and its first bytes.
    """

    def __init__(
        self,
        path: str,
        settings: FileSettings,
        *,
        host_id: str,
        clock: Clock,
        counter: Counter,
        opened: Callable[[int, tuple[int, int]], None],
        closed: Callable[[tuple[int, int], bytes], None],
    ) -> None:
        self.path = path
        self.name = f"file:{path}"
        self.streams: list[Stream] = []
        self._settings = settings
        self._timezone = zone_name(settings.timezone)
        self._quiet = seconds(settings.rotated_quiet)
        self._host_id = host_id
        self._clock = clock
        self._counter = counter
        self._opened, self._closed = opened, closed
        self._number = 0
        self._generation = 0
        self._dropped: dict[str, int] = {}
        self._trouble = ""
        self._now = 0.0
        # Until the end has been reached once, what is read was written while nobody looked: its age is no wrong clock.
        self._caught_up = False

    # ------------------------------------------------------------------------------------------ beginning

    def begin(self, cursor: str, now: float, *, at_end: bool) -> None:
        """Open what is to be read: after `cursor`, or without one the file at its end or its beginning."""
        self._now = now
        if cursor:
            self._resume(read_cursor(cursor, self.name))
        elif at_end:
            self._open_at_end()
        self._look()

    def _lines(self, *, position: int = 0, before: bytes = b"", skipping: bool = False) -> Lines:
        return Lines(self._settings, position=position, before=before, skipping=skipping)

    def _open_at_end(self) -> None:
        try:
            descriptor, status = open_plain(self.path)
        except OSError:
            return  # _look tells why
        # A line that is half written now is read whole when it is finished.
        back = min(status.st_size, self._settings.max_record)
        end = os.pread(descriptor, back, status.st_size - back)
        position = status.st_size - len(end) + end.rfind(b"\n") + 1 if b"\n" in end else status.st_size - len(end)
        before = os.pread(descriptor, min(BEFORE, position), max(0, position - BEFORE))
        self._add(descriptor, status, self._lines(position=position, before=before))

    def _add(self, file: int | Packed, status: os.stat_result, lines: Lines, generation: int | None = None) -> Stream:
        if generation is None:
            generation = self._generation
            self._generation += 1
        stream = Stream(file, status, generation, lines)
        stream.changed = self._now
        self.streams.append(stream)
        if isinstance(file, int):
            self._opened(file, stream.inode_key)
        return stream

    def _resume(self, cursor: Cursor) -> None:
        self._number, self._generation = cursor.number, cursor.generation
        newest = None
        for place in cursor.places:
            found = find(self.path, place)
            if found is None:
                self._lost(place.generation, "the file the cursor points into is gone")
                continue
            newest = found
            sibling, path = found
            if sibling is not None and self._inode(self.path) == place.inode:
                self._lost(place.generation, "copied and truncated while nobody looked")
            self._open_place(path, place)
        if newest is not None:
            self._open_between(between(self.path, newest[0]))

    @staticmethod
    def _inode(path: str) -> int | None:
        try:
            return Path(path).stat().st_ino
        except OSError:
            return None

    def _open_place(self, path: str, place: Place) -> Stream | None:
        """Read on at `place` in the file `path`, plain or compressed."""
        try:
            if path != self.path and Path(path).suffix in DECOMPRESSORS:
                stream = self._add(
                    Packed(path, place.offset),
                    Path(path).stat(),
                    self._lines(position=place.offset, skipping=place.skipping),
                    place.generation,
                )
                stream.packed_head = place.head
                return stream
            descriptor, status = open_plain(path)
        except OSError as error:
            self._unreadable(path, error)
            return None
        before = os.pread(descriptor, min(BEFORE, place.offset), max(0, place.offset - BEFORE))
        lines = self._lines(position=place.offset, before=before, skipping=place.skipping)
        return self._add(descriptor, status, lines, place.generation)

    def _open_between(self, others: list[Sibling]) -> None:
        """Files that came and were rotated away while nobody looked: read whole."""
        open_now = {stream.inode_key for stream in self.streams}
        for other in others:
            try:
                status = Path(other.path).stat()
                if (status.st_dev, status.st_ino) in open_now:
                    continue
                if other.suffix:
                    self._add(Packed(other.path, 0), status, self._lines())
                else:
                    descriptor, status = open_plain(other.path)
                    self._add(descriptor, status, self._lines())
            except OSError as error:
                self._unreadable(other.path, error)

    # ------------------------------------------------------------------------------------------ looking

    def _look(self) -> bool:
        """Open the file that is at the path now, if it is another one. Whether the last stream is that file."""
        try:
            status = Path(self.path).stat()
        except FileNotFoundError:
            if not self.streams:
                self._say("file-missing", "waiting for it to appear")
            return False
        except OSError as error:
            self._unreadable(self.path, error)
            return False
        here = status.st_dev, status.st_ino
        for stream in self.streams:
            if stream.inode_key == here and not isinstance(stream.file, Packed):
                if stream is not self.streams[-1]:  # renamed back
                    self.streams.remove(stream)
                    self.streams.append(stream)
                return True
        try:
            descriptor, status = open_plain(self.path)
        except FileNotFoundError:
            return False
        except OSError as error:
            self._unreadable(self.path, error)
            return False
        if self._trouble:
            log.info("file-there", path=terminal(self.path))
            self._trouble = ""
        if self.streams:
            last = self.streams[-1]
            if self._replaced_by_copy(last, descriptor):
                os.close(descriptor)
                return self._swap(last)
            # The newest that is still there tells what came after it; those deleted since tell nothing.
            places = (stream.known() for stream in reversed(self.streams))
            found = next(filter(None, (find(self.path, place) for place in places)), None)
            if found is not None:
                self._open_between(between(self.path, found[0]))
            last.changed = self._now
        self._add(descriptor, status, self._lines())
        return True

    @staticmethod
    def _replaced_by_copy(last: Stream, descriptor: int) -> bool:
        """An editor or rsync put a copy of the same log in its place; what was read of it was read."""
        place = last.place()
        return last.unlinked() and place.offset >= HEAD and matches(descriptor, place)

    def _swap(self, last: Stream) -> bool:
        try:
            descriptor, status = open_plain(self.path)
        except OSError:
            return False
        self._closed(last.inode_key, last.head)
        last.close()
        last.file, last.device, last.inode = descriptor, status.st_dev, status.st_ino
        self._opened(descriptor, last.inode_key)
        return True

    # ------------------------------------------------------------------------------------------ stepping

    async def step(self, emit: Emit, now: float) -> bool:
        """Emit what can be read, at most one chunk of each file; whether there is more at once. now: loop time."""
        self._now = now
        current = self._look()
        for stream in list(self.streams):
            if await self._read(stream, emit):
                return True  # in order: what was written earlier first
        self._caught_up = self._caught_up or bool(self.streams)
        await self._let_go(current, emit)
        return False

    async def _read(self, stream: Stream, emit: Emit) -> bool:
        """Emit one chunk of the stream; whether more of it waits."""
        if stream.ended:
            return False
        try:
            waiting = stream.waiting()
            if waiting <= INLINE:
                data = stream.read(INLINE)
            else:
                data = await asyncio.to_thread(stream.read, CHUNK)
        except DAMAGED as error:
            self._unreadable(self.path, error)
            stream.ended = isinstance(stream.file, Packed)
            return False
        if data is None:
            await self._truncated(stream, emit)
            return True
        if data:
            stream.changed = self._now
            await self._emit(stream, stream.lines.feed(data, self._now), emit)
            if stream.waiting() > 0:
                return True
        elif isinstance(stream.file, Packed):
            stream.ended = True
            return False
        await self._emit(stream, stream.lines.flush(self._now), emit)
        return False

    async def _truncated(self, stream: Stream, emit: Emit) -> None:
        """The file shrank or was written anew: read the rest from a copy if there is one, then from its start."""
        assert isinstance(stream.file, int)
        place = stream.place()
        # A copy has the half line too, which alone tells it from any other file as long as nothing else was read.
        found = find(self.path, stream.place_read())
        stream.changed = self._now
        if found is None and place.offset and matches(stream.file, place):
            # Only the half-written last line was taken back.
            stream.lines = self._lines(position=place.offset, before=stream.lines.before, skipping=place.skipping)
            stream.head = stream.head[: place.offset]
            return
        self._lost(stream.generation, "truncated", 0 if found else max(0, stream.size - stream.lines.read_to))
        if found is None:
            await self._emit(stream, stream.lines.finish(), emit)
        stream.lines, stream.head = self._lines(), b""
        stream.generation, self._generation = self._generation, self._generation + 1
        if found is not None and (copy := self._open_place(found[1], place)) is not None:
            self.streams.remove(copy)
            self.streams.insert(self.streams.index(stream), copy)

    async def _let_go(self, current: bool, emit: Emit) -> None:
        """Close files that were rotated away and have been quiet."""
        for stream in self.streams[: len(self.streams) - current]:
            followed = stream is not self.streams[-1]
            quiet = self._now - stream.changed >= self._quiet
            if not stream.ended and not (quiet and (followed or stream.unlinked())):
                return  # oldest first: what comes after one that is open is known to have been read
            self.streams.remove(stream)
            if not isinstance(stream.file, Packed):
                self._closed(stream.inode_key, stream.head)
            stream.close()
            await self._emit(stream, stream.lines.finish(), emit)

    def deadline(self) -> float | None:
        """Loop time at which `step` has something to do even if nothing happens."""
        times = [due for stream in self.streams if (due := stream.lines.due) is not None]
        # Oldest first: those after it wait for it.
        times += [stream.changed + self._quiet for stream in self.streams[:1] if len(self.streams) > 1]
        return min(times, default=None)

    # ------------------------------------------------------------------------------------------ giving out

    async def stand(self, emit: Emit) -> None:
        """Give out a batch without records, for its cursor: what is written to an empty file is known as new by it."""
        if self.streams:
            await self._emit(self.streams[-1], NOTHING, emit)

    async def _emit(self, stream: Stream, cut: Cut | None, emit: Emit) -> None:
        lines = stream.lines
        self._count(DropReason.RECORD_TOO_LONG, lines.too_long)
        self._count(DropReason.MULTILINE_OVERFLOW, lines.overflowed)
        if lines.holes:
            self._counter.add("source_hole_bytes", n=lines.holes)
        if lines.split:
            self._counter.add("source_audit_split", n=lines.split)
        lines.too_long = lines.overflowed = lines.holes = lines.split = 0
        if cut is None:
            return
        number, self._number = self._number, self._number + 1
        dropped, self._dropped = self._dropped, {}
        batch = Batch(
            origin=Origin(self._host_id, self.name, str(stream.generation)),
            number=number,
            block=cut.block,
            starts=cut.starts,
            ends=cut.ends,
            positions=cut.positions,
            read_at=self._clock.now(),
            format=self._settings.format,
            timezone=self._timezone,
            spooled=not self._caught_up,
            cursor=self.cursor(),
            dropped=dropped,
        )
        await emit(batch)

    def _count(self, reason: DropReason, n: int = 1) -> None:
        if n:
            self._counter.add("source_dropped", reason, n)
            self._dropped[reason] = self._dropped.get(reason, 0) + n

    def _lost(self, generation: int, why: str, known: int = 0) -> None:
        """Records may have gone unseen; how many nobody can know."""
        self._count(DropReason.TRUNCATED_UNSEEN)
        if known:
            self._counter.add("source_lost_bytes", DropReason.TRUNCATED_UNSEEN, known)
        log.warning("file-truncated-unseen", path=terminal(self.path), generation=generation, why=why, bytes=known)

    def _say(self, event: str, hint: str) -> None:
        if self._trouble != event:
            self._trouble = event
            log.warning(event, path=terminal(self.path), hint=hint)

    def _unreadable(self, path: str, error: BaseException) -> None:
        kind = f"file-unreadable {path} {type(error).__name__} {getattr(error, 'errno', '')}"
        if self._trouble != kind:
            self._trouble = kind
            self._counter.add("source_dropped", DropReason.SOURCE_UNREADABLE)
            log.warning(
                "file-unreadable",
                path=terminal(path),
                error=terminal(str(error)),
                hint="let the service's user read it (group adm)",
            )

    @property
    def idle(self) -> bool:
        """Nothing is open: the file is gone or cannot be read."""
        return not self.streams

    def cursor(self) -> str:
        """Where reading stands when every batch given out is committed."""
        # An inode is soon used again: alone it tells little. A file of which nothing is known but that is found by
        # what came before it.
        known = [each for each in self.streams if each.lines.position or (each.head and not each.unlinked())]
        places = tuple(each.place() for each in known or [each for each in self.streams if not each.unlinked()][:1])
        cursor = Cursor(number=self._number, generation=self._generation, places=places)
        return msgspec.json.encode(cursor).decode()

    def close(self) -> None:
        """Close every file."""
        for stream in self.streams:
            with suppress(OSError):
                stream.close()
        self.streams = []
