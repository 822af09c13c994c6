"""What the spool knows of its streams: the last number, how far was read and confirmed, what was lost.
Counterpart: `fleet.spool` holds its lock around this; a file of `fleet.segments` begins with what must outlive it."""

from __future__ import annotations

from dataclasses import replace

from vedette.fleet import messages, segments
from vedette.fleet.lanes import select
from vedette.fleet.segments import FrameKind, Segment, SpoolState
from vedette.model.batch import Batch
from vedette.model.protocols import Counter
from vedette.model.shipping import SourceState

_GENERATIONS = 8
_Marks = dict[str, dict[str, int]]


class Memory:
    """By stream. numbers: last given; through: last the hub confirmed; states: as a report says it."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.through: dict[str, int] = {}
        self.states: dict[str, SourceState] = {}
        self._marks: _Marks = {}
        # Numbers and marks as far as they are on the disk: a file may not begin with what a crash would lose.
        self._kept_numbers: dict[str, int] = {}
        self._kept_marks: _Marks = {}

    def next_number(self, stream: str) -> int:
        """The number of the next batch."""
        self.numbers[stream] = number = self.numbers.get(stream, 0) + 1
        return number

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

    def kept(self, stream: str, last: int, batch: Batch | None) -> None:
        """This number is on the disk now; batch: None where it is the end of a gap."""
        self._kept_numbers[stream] = max(self._kept_numbers.get(stream, 0), last)
        if batch is None:
            return
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
        dropped = {stream: dict(state.dropped) for stream, state in self.states.items() if state.dropped}
        marks = {stream: dict(known) for stream, known in self._kept_marks.items()}
        return SpoolState(dict(self._kept_numbers), dict(self.through), marks, dropped)

    def recall(self, segment: Segment) -> None:
        """Take up where the last start stopped; ValueError or MessageError where the file does not tell."""
        for each in segments.frames(segments.part(segment.path, 0, segment.size), len(segments.HEADER)):
            if each.kind is FrameKind.STATE:
                self._recall_state(segments.read_state(each.payload))
            elif each.kind is FrameKind.BATCH:
                head = messages.head_of(each.payload)
                self.never_again(head.stream, head.number)
                before = self.states.get(head.stream, SourceState())
                self.states[head.stream] = replace(
                    before, number=head.number, read_at=head.read_at, position=head.last, generation=head.generation
                )
                if head.last >= 0:
                    self._recall_mark(head.stream, head.generation, head.last)

    def _recall_state(self, state: SpoolState) -> None:
        for stream, number in state.numbers.items():
            self.never_again(stream, number)
        for stream, number in state.through.items():
            self.through[stream] = max(self.through.get(stream, 0), number)
        for stream, marks in state.marks.items():
            for generation, mark in marks.items():
                self._recall_mark(stream, generation, mark)
        for stream, dropped in state.dropped.items():
            self.states[stream] = replace(self.states.get(stream, SourceState()), dropped=dropped)

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
