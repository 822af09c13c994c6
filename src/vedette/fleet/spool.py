"""The shelf of an agent: batches numbered, packed and synced by a thread of its own, until the hub has them.
Counterpart: the engine's commit waits for `settled`; `fleet.shipper`, or the lake writer of `up`, reads and frees."""

from __future__ import annotations

import errno
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import structlog

from vedette.fleet import messages, segments
from vedette.fleet.gaps import Lost, lost_with, merged, unknown
from vedette.fleet.lanes import Part, cut
from vedette.fleet.memory import Memory
from vedette.fleet.segments import START, Entry, FrameKind, Place, Segment
from vedette.fleet.settings import SpoolSettings
from vedette.fleet.side import Side, let_go_of_said
from vedette.fleet.spool_reading import SpoolReading
from vedette.model.batch import Batch
from vedette.model.clock import Clock
from vedette.model.protocols import Counter
from vedette.model.ranges import Ranges
from vedette.model.reasons import DropReason
from vedette.model.shipping import BatchKey, Dropped, Lane, SourceState

__all__ = ["Entry", "Spool"]

log = structlog.get_logger()

QUEUE_BYTES = 128 << 20
"""Of batches that wait for a slow disk; more than that is lost, counted."""
GROUP_BYTES = 8 << 20
"""Of batches that share a sync."""
LINGER = 0.02
"""Seconds what was put lies before it is worked on, unless somebody waits for it: one sync for all that comes
meanwhile, and what was just put may be on its way to a block, which must not share the interpreter with this."""
_TRY_AGAIN = 1.0
_SMALLEST_FILE = 64 << 10
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@dataclass(slots=True)
class _Item:
    """A frame to be written, and what is known once it is."""

    frame: bytes
    gap: Dropped
    """What is said should it be lost."""
    batch: Batch | None


class Spool:
    """Implements `model.shipping.Shelf`. StateError where the folder was written by a newer version.

    split: which records go by which lane under which stream; mask: hides what must not leave the host, before
    anything is written. Both run in the spool's thread. `close` keeps all that was put.

    ask: a hub may know more of this host than is left here. Where there is no spool of before, nothing can be read
    until `answer` said what it knows, and numbers go on behind that.
    """

    def __init__(
        self,
        folder: Path,
        host_id: str,
        *,
        clock: Clock,
        counter: Counter,
        settings: SpoolSettings | None = None,
        split: Callable[[Batch], Sequence[Part]] | None = None,
        mask: Callable[[Batch], Batch] | None = None,
        ask: bool = False,
    ) -> None:
        settings = settings or SpoolSettings()
        self.host_id = host_id
        self.lost = 0
        """Batches that the disk did not take, so far: whoever acknowledges looks whether it has grown."""
        self._clock, self._counter = clock, counter
        self._split = split or (lambda batch: [(batch.origin.source, Lane.BULK, batch)])
        self._mask = mask
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        disk = os.statvfs(folder)
        # What has to go goes by files: the newest must not go for a disk that holds little more than one.
        self._segment_bytes = max(
            min(settings.segment, settings.bulk // 4, settings.security // 4, disk.f_blocks * disk.f_frsize // 16),
            _SMALLEST_FILE,
        )
        self._sides = {
            Lane.SECURITY: Side(Lane.SECURITY, folder / "security", settings.security),
            Lane.BULK: Side(Lane.BULK, folder / "bulk", settings.bulk),
        }
        self._memory = Memory()
        self._victims: list[Path] = []
        self._listeners: list[Callable[[], None]] = []
        self._answer: Mapping[str, int] | None = None
        for side in self._sides.values():
            side.open(self._memory, counter)
        self._unsettled = self._lost_lane()
        self.asks = self._memory.asking = ask and not self._memory.answered
        """Whether nothing can be read before `answer`."""
        let_go_of_said(list(self._sides.values()))
        self._owed: list[Dropped] = []
        self._compared = False
        # What may be looked at or freed from any thread.
        self._lock = threading.RLock()
        self._reading = SpoolReading(self._sides, self._memory, self._lock, counter, damaged=self._on_damaged)
        self._queue: deque[Batch] = deque()
        waiting = threading.Lock()
        self._changed = threading.Condition(waiting)
        self._finished = threading.Condition(waiting)
        self._queued = self._put = self._done = 0
        self._closing = self._awaited = self._turning = False
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._thread.start()

    def _lost_lane(self) -> Side | None:
        """Both lanes have files from the first batch on: where one has none and the other does, it was taken away.

        The lane that is left, which does not know yet how numbers go on.
        """
        left = [side for side in self._sides.values() if side.segments]
        # A file that was only begun when it crashed is there, though nothing can be read of it.
        lost = [side for side in self._sides.values() if not side.segments and side.next == 1]
        for side in lost if left and self._memory.numbers else ():
            self._memory.lose_lane(left[0].lane)
            self._counter.add("spool_lanes_lost", side.lane.value)
            log.error("A LANE OF THE SPOOL WAS LOST, and what was in it", lane=side.lane.value)
            return left[0]
        return None

    def _settle(self) -> None:
        """Have the lane that is left begin with how numbers go on: what is given now may be lost with the other too."""
        if self._unsettled is None:
            return
        try:
            self._begin_anew(self._unsettled)
        except OSError as error:
            self._counter.add("spool_writes_refused", errno.errorcode.get(error.errno or 0, "other"))
        else:
            self._unsettled = None

    # ------------------------------------------------------------------------------------------ the shelf

    def put(self, batch: Batch) -> None:
        """Take this batch; one that is there already (read again after a restart) is left out, also in part."""
        with self._changed:
            if self._queued > QUEUE_BYTES or self._closing:
                # It has no number yet, so it is no gap: what is said of it is its count.
                self._counter.add("records_dropped", DropReason.SPOOL_BUSY, len(batch))
                with self._lock:
                    self._memory.dropped(batch.origin.source, DropReason.SPOOL_BUSY, len(batch))
                self.lost += 1
                return
            self._queue.append(batch)
            self._queued += len(batch.block)
            self._put += 1
            self._changed.notify_all()

    def settled(self, timeout: float) -> bool:
        """Whether all that was put is kept, or known to be lost (`lost` has grown then)."""
        with self._changed:
            wanted = self._put
            if self._done >= wanted:
                return True
            self._awaited = True
            self._changed.notify_all()
            return self._finished.wait_for(lambda: self._done >= wanted, timeout)

    def listen(self, called: Callable[[], None]) -> Callable[[], None]:
        """Have this called, in the spool's thread, whenever there is something new to read; it must return at once.

        What comes back ends that.
        """
        self._listeners = [*self._listeners, called]

        def end() -> None:
            self._listeners = [each for each in self._listeners if each is not called]

        return end

    def close(self) -> None:
        """Write what was put, and how far the hub has confirmed; then nothing is taken any more."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        for side in self._sides.values():
            if side.descriptor >= 0:
                side.seal(self._state(), self._counter)

    # ------------------------------------------------------------------------------------------ who empties it

    def read(self, lane: Lane, after: Place = START, limit: int = 1 << 20) -> Sequence[Entry]:
        """What stands behind `after`, in order and without what is freed: up to `limit` bytes, at least one message.

        Empty = nothing new. What is damaged on the disk is left out, and said as a gap.
        """
        return [] if self.asks else self._reading.read(lane, after, limit)

    def pending(self, lane: Lane | None = None) -> Iterator[Entry]:
        """All that waits, in order; security first."""
        for one in Lane if lane is None else (lane,):
            after = START
            while got := self.read(one, after):
                yield from got
                after = got[-1].place

    def free(self, host_id: str, stream: str, through: int) -> None:
        """The hub has everything of this stream up to this number."""
        self.free_all(host_id, {stream: through})

    def free_all(
        self,
        host_id: str,
        through: Mapping[str, int],
        beyond: Mapping[str, Sequence[tuple[int, int]]] = MappingProxyType({}),
    ) -> None:
        """As `free`, for many streams at once. beyond: ranges it has behind a gap."""
        if host_id != self.host_id:
            self._counter.add("spool_confirms_refused", "other-host")
            return
        if self.asks:
            return
        with self._lock:
            for stream in through.keys() | beyond.keys():
                base = self._memory.bases.get(stream, 0)
                number = through.get(stream, 0) - base
                ranges = [(first - base, last - base) for first, last in beyond.get(stream, ())]
                highest = max([number, *(last for _, last in ranges)])
                self._memory.learn({stream: highest})
                if highest > self._memory.numbers.get(stream, 0):
                    # A number that was given once is never given again.
                    self._counter.add("spool_numbers_behind")
                    log.warning("the hub knows later batches than the spool", stream=stream, number=highest)
                    self._memory.never_again(stream, highest)
                self._memory.confirm(stream, number, ranges)
            for side in self._sides.values():
                freed = [each for each in side.segments[:-1] if self._is_free(each)]
                for each in freed:
                    side.segments.remove(each)
                    each.path.unlink(missing_ok=True)

    def turn_over(self) -> None:
        """Begin new files, so that the newest go like the others once the hub has all of them. From any thread."""
        with self._changed:
            self._turning = True
            self._changed.notify_all()

    def want(self, stream: str, ranges: Sequence[tuple[int, int]]) -> None:
        """The hub has not what it confirmed behind a gap: it is read again."""
        with self._lock:
            base = self._memory.bases.get(stream, 0)
            self._memory.unconfirm(stream, [(first - base, last - base) for first, last in ranges])

    def answer(self, last: Mapping[str, int]) -> None:
        """The hub spoke of all streams of this host: the highest number it has of each.

        Where `asks`, what was put since can be read once that is on the disk, and of streams that the hub knows it is
        said that an unknown number of batches is lost. Else what an earlier start was to say and could not is said.
        """
        with self._changed:
            self._answer = dict(last)
            self._changed.notify_all()

    def states(self) -> Mapping[str, SourceState]:
        """How each stream stands, as `Report.sources` says it; size, alive and upstream are for the sources to say."""
        with self._lock:
            if self.asks:
                return {}
            bases = self._memory.bases
            return {
                stream: replace(state, number=state.number + bases.get(stream, 0)) if state.number else state
                for stream, state in self._memory.states.items()
            }

    @property
    def waiting(self) -> int:
        """Bytes on the disk that the hub has not confirmed, by whole files."""
        with self._lock:
            return sum(each.size for side in self._sides.values() for each in side.segments if not self._is_free(each))

    def _is_free(self, segment: Segment) -> bool:
        # What is behind a gap may be wanted again.
        return all(
            self._memory.through(stream) >= found.last
            for held in (segment.batches, segment.said)
            for stream, found in held.items()
        )

    def _on_damaged(self, segment: Segment) -> None:
        """Say what cannot be read any more, once; what stands behind it is still given out."""
        self._counter.add("spool_files_damaged")
        log.error("the spool came back from the disk otherwise than it was written", file=str(segment.path))
        with self._lock:
            segment.damaged = True
            missing = self._lost_with(segment, DropReason.SPOOL_DAMAGED).missing
            for gap in missing:
                for held in (segment.batches, segment.said):
                    if gap.stream in held:
                        held[gap.stream] = held[gap.stream].without(Ranges([(gap.first, gap.last)]))
        with self._changed:
            self._owed = merged([*self._owed, *missing])
            self._changed.notify_all()

    # ------------------------------------------------------------------------------------------ its thread

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._closing and not self._turning:
                    self._changed.wait(_TRY_AGAIN if self._owed or self._answer is not None else None)
                    if self._owed or self._answer is not None:
                        break
                if self._queue:
                    self._changed.wait_for(self._is_time, LINGER)
                self._awaited = False
                group, size = [], 0
                while self._queue and size < GROUP_BYTES:
                    group.append(self._queue.popleft())
                    size += len(group[-1].block)
                if not group and self._closing:
                    break
            if self._answer is not None:
                self._take_answer(self._answer)
            self._keep(group)
            if self._turning:
                self._turn()
            with self._changed:
                self._queued -= size
                self._done += len(group)
                self._finished.notify_all()
            for called in self._listeners:
                called()
        if self._owed:
            self._say()

    def _turn(self) -> None:
        self._turning = False
        for side in self._sides.values():
            if side.segments and (side.segments[-1].batches or side.segments[-1].said):
                try:
                    self._begin_anew(side)
                except OSError as error:
                    # The old one takes nothing more: the next batch begins one.
                    self._counter.add("spool_writes_refused", errno.errorcode.get(error.errno or 0, "other"))

    def _take_answer(self, last: Mapping[str, int]) -> None:
        """Number on from there. Nothing was shipped before it is on the disk, so it may be taken anew after a crash."""
        if self.asks:
            with self._lock:
                lost = self._memory.introduce(last) if self._memory.asking else {}
            for stream, (first, through) in lost.items():
                self._counter.add("spool_lost", stream)
                log.error("THE SPOOL WAS LOST, and what was in it", stream=stream)
                gap = Dropped(self.host_id, stream, first, through, -1, DropReason.SPOOL_LOST, self._clock.now())
                with self._changed:
                    self._owed = merged([*self._owed, gap])
            try:
                self._begin_anew(self._sides[Lane.SECURITY])
            except OSError as error:
                # It is tried again.
                self._counter.add("spool_writes_refused", errno.errorcode.get(error.errno or 0, "other"))
                return
            self.asks = False
        elif not self._compared:
            with self._lock:
                files = [each for side in self._sides.values() for each in side.segments]
                self._memory.learn(last)
                reason = DropReason.SPOOL_LOST if self._memory.losses else DropReason.SPOOL_DAMAGED
                left = self._memory.unsaid(files, self._owed)
                unsaid = unknown(left, host_id=self.host_id, now=self._clock.now(), reason=reason)
            with self._changed:
                self._owed = merged([*self._owed, *unsaid])
        self._compared = True
        with self._changed:
            self._answer = None

    def _is_time(self) -> bool:
        return self._awaited or self._closing or self._queued >= GROUP_BYTES

    def _keep(self, group: Sequence[Batch]) -> None:
        self._settle()
        items: dict[Lane, list[_Item]] = {lane: [] for lane in Lane}
        for batch in group:
            try:
                for stream, lane, part in self._split(self._mask(batch) if self._mask else batch):
                    self._prepare(items[lane], stream, part)
            except Exception:
                # Not to be shipped unmasked, and no reason to keep nothing ever again.
                log.exception("a batch could not be put on the shelf", source=batch.origin.source)
                self._counter.add("records_dropped", DropReason.DEFECT, len(batch))
                with self._lock:
                    self._memory.dropped(batch.origin.source, DropReason.DEFECT, len(batch))
                self.lost += 1
        for lane in Lane:
            if items[lane]:
                self._write(self._sides[lane], items[lane])
        if self._owed or self._victims:
            self._say()

    def _prepare(self, items: list[_Item], stream: str, batch: Batch) -> None:
        fresh = self._memory.fresh(stream, batch, self._counter)
        if not len(fresh) and not fresh.dropped:
            return
        for piece in cut(fresh, messages.BLOCK_LIMIT, messages.ROWS_LIMIT):
            with self._lock:
                number = self._memory.next_number(stream)
            gap = Dropped(self.host_id, stream, number, number, len(piece), DropReason.SPOOL_REFUSED, piece.read_at)
            try:
                packed = messages.pack(BatchKey(self.host_id, stream, number), piece)
            except messages.MessageError:
                self._lose(replace(gap, reason=DropReason.TOO_LARGE))
                continue
            items.append(_Item(segments.frame(FrameKind.BATCH, packed), gap, piece))

    def _write(self, side: Side, items: list[_Item]) -> bool:
        """Append and sync; what the disk does not take is lost, and said. False where something was."""
        todo, again = deque(items), True
        while todo:
            try:
                segment = self._segment(side, len(todo[0].frame))
                run: list[_Item] = []
                size = 0
                while todo and (not run or segment.size + size + len(todo[0].frame) <= self._segment_bytes):
                    size += len(todo[0].frame)
                    run.append(todo.popleft())
                try:
                    segments.write_all(side.descriptor, b"".join(item.frame for item in run))
                    os.fdatasync(side.descriptor)
                except BaseException:
                    todo.extendleft(reversed(run))
                    raise
            except OSError as error:
                side.give_up(self._counter)
                if error.errno in _NO_ROOM:
                    if self._drop_oldest(self._sides[Lane.BULK]):
                        self._unlink_victims()
                        continue
                elif again:
                    again = False
                    continue
                self._on_refused(side, error, todo)
                return False
            self._on_written(side, segment, run, size)
        return True

    def _segment(self, side: Side, size: int) -> Segment:
        """The file to append so many bytes to; room is made for them."""
        while side.size + size > side.limit and self._drop_oldest(side):
            pass
        if side.descriptor >= 0:
            segment = side.segments[-1]
            # What was taken away takes nothing more: nobody could read it.
            if not segment.damaged and not os.fstat(side.descriptor).st_nlink:
                self._on_damaged(segment)
            if not segment.damaged and segment.size + size <= self._segment_bytes:
                return segment
        return self._begin_anew(side)

    def _begin_anew(self, side: Side) -> Segment:
        """A new file, behind what is known now; OSError as the system gives it."""
        for other in self._sides.values():
            if other is not side and not other.segments:
                # From now on a lane without a file is one that was lost.
                other.segments.append(other.begin(self._state()))
        if side.descriptor >= 0:
            side.seal(self._state(), self._counter)
        segment = side.begin(self._state())
        with self._lock:
            side.segments.append(segment)
            # What is confirmed whole waited only for a file behind it.
            self.free_all(self.host_id, {})
        return segment

    def _state(self) -> bytes:
        with self._lock:
            return segments.state_frame(self._memory.to_keep())

    def _on_written(self, side: Side, segment: Segment, run: Sequence[_Item], size: int) -> None:
        if side.refusing:
            side.refusing = False
            log.info("the disk takes the spool again", lane=side.lane.value)
        with self._lock:
            for item in run:
                gap = item.gap
                kind = FrameKind.DROPPED if item.batch is None else FrameKind.BATCH
                segment.note(kind, gap.stream, gap.first, gap.last)
                self._memory.kept(gap.stream, gap.last, item.batch, side.lane)
            segment.size += size
        if segment.damaged:
            # It was found so while this was written.
            self._on_damaged(segment)

    def _on_refused(self, side: Side, error: OSError, items: Sequence[_Item]) -> None:
        self._counter.add("spool_writes_refused", errno.errorcode.get(error.errno or 0, "other"))
        if not side.refusing:
            side.refusing = True
            log.error("the disk does not take the spool; records are lost", lane=side.lane.value, error=str(error))
        with self._changed:
            self._owed = merged([*self._owed, *(item.gap for item in items)])
        for item in items:
            if item.batch is not None:
                self.lost += 1
                self._count(item.gap)

    def _lose(self, gap: Dropped) -> None:
        self.lost += 1
        self._count(gap)
        with self._changed:
            self._owed = merged([*self._owed, gap])

    def _count(self, gap: Dropped) -> None:
        self._counter.add("records_dropped", gap.reason, max(gap.records, 0))
        with self._lock:
            self._memory.dropped(gap.stream, gap.reason, max(gap.records, 0))

    # ------------------------------------------------------------------------------------------ making room

    def _drop_oldest(self, side: Side) -> bool:
        """Take the oldest file out that nothing is added to; its gaps are owed. False where there is none."""
        with self._lock:
            # The newest knows the numbers, so it stays until there is a newer one.
            if len(side.segments) < 2:
                return False
            segment = side.segments.pop(0)
            lost = self._lost_with(segment, DropReason.SPOOL_FULL)
        self._victims.append(segment.path)
        for gap in lost.went:
            # What it tells of was counted when it went.
            self._count(gap)
        with self._changed:
            self._owed = merged([*self._owed, *lost.went, *lost.again, *lost.missing])
        return True

    def _lost_with(self, segment: Segment, reason: DropReason) -> Lost:
        confirmed, now = self._memory.confirmed, self._clock.now()
        return lost_with(segment, reason, host_id=self.host_id, confirmed=confirmed, now=now)

    def _say(self) -> None:
        """Write the gaps that are owed, then let go of the files they stand for."""
        with self._changed:
            owed, self._owed = merged(self._owed), []
        now = [_Item(segments.frame(FrameKind.DROPPED, messages.pack_dropped(gap)), gap, None) for gap in owed]
        kept = self._write(self._sides[Lane.SECURITY], now) if now else True
        self._unlink_victims()
        if not kept:
            self._counter.add("spool_gaps_unsaid")

    def _unlink_victims(self) -> None:
        for path in self._victims:
            path.unlink(missing_ok=True)
        self._victims.clear()
