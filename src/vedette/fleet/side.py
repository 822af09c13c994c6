"""One lane of the spool on the disk: files in their order, the newest of them added to.
Counterpart: `fleet.spool` decides what goes in and what goes; `fleet.segments` knows what a file looks like."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import structlog

from vedette.fleet import messages, segments
from vedette.fleet.memory import Memory
from vedette.fleet.segments import Segment
from vedette.model.errors import StateError
from vedette.model.protocols import Counter
from vedette.model.ranges import Ranges
from vedette.model.shipping import Lane

log = structlog.get_logger()


class Side:
    """segments: oldest first. descriptor: of the newest, -1 where nothing more is added to it."""

    def __init__(self, lane: Lane, folder: Path, limit: int) -> None:
        self.lane, self.folder, self.limit = lane, folder, limit
        self.segments: list[Segment] = []
        self.descriptor = -1
        self.next = 1
        self.refusing = False

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(each.size for each in self.segments)

    def open(self, memory: Memory, counter: Counter) -> None:
        """Take up what an earlier start left; StateError for a newer version's."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in sorted(self.folder.glob(f"*{segments.SUFFIX}")):
            try:
                number = int(path.stem, 16)
                self.next = max(self.next, number + 1)
                segment, torn = segments.opened(path, number)
            except (ValueError, OSError, messages.MessageError) as error:
                if isinstance(error, StateError):
                    raise
                counter.add("spool_files_unreadable")
                log.error("a file in the spool cannot be read", file=str(path), error=str(error))
                continue
            if torn:
                counter.add("spool_files_torn")
            self.segments.append(segment)
            for held in (segment.batches, segment.said):
                for stream, found in held.items():
                    memory.never_again(stream, found.last)
        for segment in self.segments[-2:]:
            memory.recall(segment, self.lane)

    def begin(self, state: bytes) -> Segment:
        """A new file to append to, not yet among `segments`; OSError as the system gives it."""
        path = self.folder / f"{self.next:016x}{segments.SUFFIX}"
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.descriptor = segments.begin(path, state)
        segment = Segment(self.next, path, len(segments.HEADER) + len(state))
        self.next += 1
        return segment

    def seal(self, state: bytes, counter: Counter) -> None:
        """Close the file that is added to, with how far the hub has confirmed and what is in it."""
        segment = self.segments[-1]
        try:
            segments.write_all(self.descriptor, state + segments.end_of(segment, segment.size + len(state)))
            os.fdatasync(self.descriptor)
        except OSError:
            self.give_up(counter)
        else:
            segment.size += len(state)
            os.close(self.descriptor)
            self.descriptor = -1

    def give_up(self, counter: Counter) -> None:
        """Nothing more is added to this file; what is not known to be on the disk is cut off."""
        if self.descriptor < 0:
            return
        try:
            os.ftruncate(self.descriptor, self.segments[-1].size)
        except OSError:
            counter.add("spool_files_not_cut")
        os.close(self.descriptor)
        self.descriptor = -1


def let_go_of_said(sides: Sequence[Side]) -> None:
    """A crash came between the word that these files go and their going."""
    said: dict[str, Ranges] = {}
    for side in sides:
        for each in side.segments:
            for stream, found in each.said.items():
                said[stream] = Ranges([*said.get(stream, ()), *found])
    for side in sides:
        for each in side.segments[:-1]:
            left = (found.without(said.get(stream, Ranges())) for stream, found in each.batches.items())
            if each.batches and not each.said and all(one == Ranges() for one in left):
                side.segments.remove(each)
                each.path.unlink(missing_ok=True)
