"""What the spool knows of its streams: the last number, how far was read and confirmed, what was lost.
Counterpart: `fleet.spool` holds its lock around this; a file of `fleet.segments` begins with what must outlive it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from vedette.fleet import messages, segments
from vedette.fleet.lanes import select
from vedette.fleet.segments import FrameKind, Segment, SpoolState
from vedette.model.batch import Batch
from vedette.model.protocols import Counter
from vedette.model.ranges import Ranges
from vedette.model.shipping import Dropped, Lane, SourceState

ROOM = 1 << 32
"""Numbers left free for batches that are under way, or with the broker, from before the spool was lost."""
_GENERATIONS = 8
_Marks = dict[str, dict[str, int]]


class Memory:
    """By stream. numbers: last given; confirmed: those the hub has; states: as a report says it.

    asking: the files are new and the hub may know of older ones. Then numbers begin behind `ROOM`, and `introduce`
    says by how much they differ from those the hub is told (`bases`).
    """

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.confirmed: dict[str, Ranges] = {}
        self.states: dict[str, SourceState] = {}
        self.bases: dict[str, int] = {}
        self.asking = False
        self.losses = 0
        """How often the files of a lane went since the hub was heard, and with them which numbers were given last."""
        self.answered = False
        """Whether a file of an earlier start says that the hub was heard."""
        self._marks: _Marks = {}
        self._lanes: dict[str, str] = {}
        self._learned = False
        # As the newest file of each lane has it.
        self._recalled_losses: dict[Lane, int] = {}
        # Numbers and marks as far as they are on the disk: a file may not begin with what a crash would lose.
        self._kept_numbers: dict[str, int] = {}
        self._kept_marks: _Marks = {}

    def next_number(self, stream: str) -> int:
        """The number of the next batch."""
        # Behind all that may have been given before each loss.
        begins = ROOM * max(self.losses, int(self.asking))
        self.numbers[stream] = number = self.numbers.get(stream, begins) + 1
        return number

    def introduce(self, last: Mapping[str, int]) -> dict[str, tuple[int, int]]:
        """The hub knows these streams up to these numbers; the numbers nobody will use, by stream: what was lost."""
        self.asking = False
        lost: dict[str, tuple[int, int]] = {}
        for stream in self.numbers.keys() | last.keys():
            known = last.get(stream, 0)
            if known:
                self.bases[stream] = known
                self.never_again(stream, ROOM)
                lost[stream] = (1, ROOM)
            elif stream in self.numbers:
                self.bases[stream] = -ROOM
                self.confirm(stream, ROOM)
        return lost

    def lose_lane(self, other: Lane) -> None:
        """Only the files of the other lane are left. Of streams that do not go by it later numbers may have been given
        than are known here: the next ones stand far behind them, and what is between is said once the hub is heard.
        """
        self.losses += 1
        self._learned = False
        for stream, number in list(self.numbers.items()):
            if self._lanes.get(stream) != other.value:
                self.never_again(stream, number + ROOM)

    def learn(self, last: Mapping[str, int]) -> None:
        """The hub knows these streams up to these numbers; where a lane was lost, of some nothing is known here."""
        if self.losses:
            for stream, number in last.items():
                if number and stream not in self.numbers:
                    self.never_again(stream, number + ROOM * self.losses)
        self._learned = True

    def confirm(self, stream: str, through: int, beyond: Iterable[tuple[int, int]] = ()) -> None:
        """The hub has everything up to this number, and these."""
        confirmed = self.confirmed.setdefault(stream, Ranges())
        for first, last in ((1, through), *beyond):
            confirmed.add(first, last)

    def unconfirm(self, stream: str, ranges: Iterable[tuple[int, int]]) -> None:
        """It has not what it confirmed behind a gap."""
        confirmed = self.confirmed.get(stream, Ranges())
        through = confirmed.through()
        lost = Ranges((max(first, through + 1), last) for first, last in ranges)
        self.confirmed[stream] = confirmed.without(lost)

    def through(self, stream: str) -> int:
        """The hub has all up to this number."""
        found = self.confirmed.get(stream)
        return 0 if found is None else found.through()

    def unsaid(self, files: Iterable[Segment], owed: Iterable[Dropped]) -> dict[str, Ranges]:
        """Numbers that were given, and are neither confirmed nor in any of these files, nor owed to be said."""
        found: dict[str, Ranges] = {}
        files, owed = list(files), list(owed)
        for stream, last in self.numbers.items():
            known = [each for one in files for held in (one.batches, one.said) for each in held.get(stream, ())]
            known += [(one.first, one.last) for one in owed if one.stream == stream]
            left = Ranges([(1, last)]).without(Ranges([*known, *self.confirmed.get(stream, ())]))
            if left != Ranges():
                found[stream] = left
        return found

    def never_again(self, stream: str, number: int) -> None:
        """The hub knows this number; the next one stands behind it."""
        self.numbers[stream] = max(self.numbers.get(stream, 0), number)
        self._kept_numbers[stream] = max(self._kept_numbers.get(stream, 0), number)

    def fresh(self, stream: str, batch: Batch, counter: Counter) -> Batch:
        """What of a batch was not put before: only what can be read again, which has a cursor, is looked at."""
        n = len(batch)
        if not n or not batch.cursor:
            return batch
        mark = _mark(self._marks, stream, batch.origin.generation, int(batch.positions.max()))
        if mark is None or int(batch.positions.min()) > mark:
            return batch
        chosen = batch.positions > mark
        counter.add("records_read_twice", "", n - int(chosen.sum()))
        return select(batch, chosen)

    def kept(self, stream: str, last: int, batch: Batch | None, lane: Lane) -> None:
        """This number is on the disk now; batch: None where it is the end of a gap."""
        self._kept_numbers[stream] = max(self._kept_numbers.get(stream, 0), last)
        if batch is None:
            return
        self._lanes[stream] = lane.value
        n = len(batch)
        if batch.cursor and n:
            _mark(self._kept_marks, stream, batch.origin.generation, int(batch.positions.max()))
        before = self.states.get(stream, SourceState())
        self.states[stream] = replace(
            before,
            number=last,
            read_at=batch.read_at,
            position=int(batch.positions[-1]) if n else before.position,
            generation=batch.origin.generation,
        )
        for reason, count in batch.dropped.items():
            self.dropped(stream, reason, count)

    def dropped(self, stream: str, reason: str, n: int) -> None:
        """So many records of it are lost."""
        state = self.states.get(stream, SourceState())
        dropped = {**state.dropped, str(reason): state.dropped.get(str(reason), 0) + n}
        self.states[stream] = replace(state, dropped=dropped)

    def to_keep(self) -> SpoolState:
        """What a file begins with."""
        marks = {stream: dict(known) for stream, known in self._kept_marks.items()}
        through = {stream: found.through() for stream, found in self.confirmed.items()}
        losses = 0 if self._learned else self.losses
        return SpoolState(
            dict(self._kept_numbers), through, marks, {}, dict(self.bases), self.asking, dict(self._lanes), losses
        )

    def recall(self, segment: Segment, lane: Lane) -> None:
        """Take up where the last start stopped; ValueError or MessageError where the file does not tell."""
        for each in segments.frames(segments.part(segment.path, 0, segment.size), len(segments.HEADER)):
            if each.kind is FrameKind.STATE:
                self._recall_state(segments.read_state(each.payload), lane)
            elif each.kind is FrameKind.BATCH:
                head = messages.head_of(each.payload)
                self.never_again(head.stream, head.number)
                self._lanes[head.stream] = lane.value
                before = self.states.get(head.stream, SourceState())
                self.states[head.stream] = replace(
                    before, number=head.number, read_at=head.read_at, position=head.last, generation=head.generation
                )
                if head.last >= 0:
                    self._recall_mark(head.stream, head.generation, head.last)

    def _recall_state(self, state: SpoolState, lane: Lane) -> None:
        for stream, number in state.numbers.items():
            self.never_again(stream, number)
        for stream, number in state.through.items():
            self.confirm(stream, number)
        self.bases.update(state.bases)
        self._lanes.update(state.lanes)
        self.answered |= not state.asking
        self._recalled_losses[lane] = state.losses
        self.losses = max(self._recalled_losses.values())
        for stream, marks in state.marks.items():
            for generation, mark in marks.items():
                self._recall_mark(stream, generation, mark)

    def _recall_mark(self, stream: str, generation: str, mark: int) -> None:
        _mark(self._marks, stream, generation, mark)
        _mark(self._kept_marks, stream, generation, mark)


def _mark(marks: _Marks, stream: str, generation: str, position: int) -> int | None:
    """Note how far a stream came in this generation; how far it had before. Those longest without news are let go."""
    known = marks.setdefault(stream, {})
    before = known.pop(generation, None)
    known[generation] = position if before is None else max(position, before)
    while len(known) > _GENERATIONS:
        del known[next(iter(known))]
    return before
