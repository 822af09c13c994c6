"""Messages that may have the same shapes, read together: what shapes share at either end is looked for once.
Counterpart: `parsers.shapes` makes the groups and says what a match means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vedette.model.batch import Bool, Int32, Int64
from vedette.parsers.columns import Block, UInt64, keep, word_of
from vedette.parsers.formats import COLON, Capture, CaptureType, Literal, Piece, Shape, Span, Step, Take
from vedette.parsers.readings import GROUP_LENGTH, only
from vedette.parsers.registry import FlatShape, PatternSet

NONE = -1

SMALL = 4096
"""In groups of up to so many rows calls cost more than rows do."""


@dataclass(slots=True)
class Match:
    """Rows with one shape; spans of a capture (by its place in the shape) are made when asked for.

    Only rows whose `Outcome.shape` is this shape count.
    """

    number: int
    rows: Int64
    front: Partial | None = None
    back: Partial | None = None
    front_pick: Int64 | None = None
    back_pick: Int64 | None = None
    spans: list[tuple[Span, ...]] | None = None
    ids: Int32 | None = None
    """Per row the number of the address its source is, where the shape gives one and somebody asked."""

    def span(self, shape: Shape, place: int) -> tuple[Int64, Int64]:
        """Starts and ends of a capture, one a row."""
        if self.spans is not None:
            both = np.array([spans[place] for spans in self.spans], dtype=np.int64).reshape(-1, 2)
            return both[:, 0], both[:, 1]
        assert self.front is not None
        found = self.captured(shape, place)
        if found is not None:
            node, pick = found
            assert node.capture is not None
            return _pick(node.capture[0], pick), _pick(node.capture[1], pick)
        assert self.back is not None
        return _pick(self.front.position, self.front_pick), _pick(self.back.position, self.back_pick)

    def captured(self, shape: Shape, place: int) -> tuple[Partial, Int64 | None] | None:
        """Who captured it, and where its rows are there; None for the text between beginning and ending."""
        assert self.front is not None
        in_front = sum(isinstance(step, Take) for step in shape.front)
        if place < in_front:
            return self.front.captured(in_front - 1 - place, self.front_pick)
        if place == in_front:
            return None
        assert self.back is not None
        # Pieces are read from the right, the steps of each from the left.
        counts = [sum(isinstance(step, Take) for step in piece.steps) for piece in shape.pieces]
        behind = len(shape.captures) - 1 - place
        for number, count in enumerate(counts):
            if behind < count:
                return self.back.captured(sum(counts[number + 1 :]) + behind, self.back_pick)
            behind -= count
        raise IndexError(place)


def _pick(array: Int64, pick: Int64 | None) -> Int64:
    return array if pick is None else array[pick]


@dataclass(slots=True)
class Partial:
    """Rows of a group that got so far, where they stand, and what the last step captured.

    kept: rows of `parent` that are left, None = all. rows: None = all rows of the group. ids: per row the
    number of the address the capture is, once somebody asked.
    """

    parent: Partial | None
    kept: Int64 | None
    rows: Int64 | None
    position: Int64
    capture: tuple[Int64, Int64] | None = None
    ids: Int32 | None = None

    def captured(self, back: int, pick: Int64 | None) -> tuple[Partial, Int64 | None]:
        """Who captured `back` captures before the last one, and where its rows are for the picked ones of ours."""
        node = self
        while True:
            if node.capture is not None:
                if back == 0:
                    return node, pick
                back -= 1
            if node.kept is not None:
                pick = node.kept if pick is None else node.kept[pick]
            assert node.parent is not None
            node = node.parent


class Group:
    """Some messages of a batch, and what is known of their beginnings and endings so far.

    ids_of: for spans the number of the address each is, NONE for none. occurrences: where a literal stands.
    """

    def __init__(
        self,
        patterns: PatternSet,
        block: Block,
        starts: Int64,
        ends: Int64,
        *,
        ids_of: Callable[[Int64, Int64], Int32],
        occurrences: Callable[[bytes], Int64],
    ) -> None:
        self._ids_of = ids_of
        self._occurrences = occurrences
        self._patterns = patterns
        self._block = block
        self._starts = starts
        self._ends = ends
        self.everyone: Int64 = np.arange(len(starts), dtype=np.int64)
        self._fronts: dict[int, Partial | None] = {0: Partial(None, None, None, starts)}
        self._backs: dict[int, Partial | None] = {0: Partial(None, None, None, ends)}
        self._closed: dict[int, Partial | None] = {}
        self._words: dict[tuple[int, int], UInt64] = {}
        self._sets: dict[tuple[int, int, int], frozenset[int]] = {}
        self._ends_of: dict[tuple[int, bytes], tuple[Int64, Bool | None]] = {}
        self._odd: Bool | None = None
        # What is known of a partial goes by its id: none may die before the group does.
        self._alive: list[Partial] = []

    @property
    def odd(self) -> Int64 | None:
        """Rows with something longer than REACH where a word is wanted: for plain code to judge."""
        return None if self._odd is None else np.flatnonzero(self._odd)

    def match(self, number: int, flat: FlatShape) -> Match | None:
        """The rows (of the group) with a shape; with several texts, only the rows that may have it."""
        shape = flat.shape
        if shape.texts == 0:
            whole = self._whole(flat.front)
            return None if whole is None else self._addressed(Match(number, self._rows(whole), whole), shape)
        fronts, backs = self._fronts, self._backs
        front = fronts[flat.front] if flat.front in fronts else self._front(flat.front)
        if front is None:
            return None
        back = backs[flat.back] if flat.back in backs else self._back(flat.back)
        if back is None:
            return None
        front_pick: Int64 | None = None
        back_pick: Int64 | None = None
        if front.rows is not None and back.rows is not None:
            place = np.full(len(self._starts), NONE, dtype=np.int64)
            place[back.rows] = np.arange(len(back.rows))
            back_pick = place[front.rows]
            both = back_pick >= 0
            if not both.all():
                front_pick = np.flatnonzero(both)
                back_pick = back_pick[front_pick]
        elif front.rows is not None:
            back_pick = front.rows
        elif back.rows is not None:
            front_pick = back.rows
        rows = self._rows(front) if front_pick is None else self._rows(front)[front_pick]
        match = _only(
            Match(number, rows, front, back, front_pick, back_pick),
            _pick(front.position, front_pick) <= _pick(back.position, back_pick),
        )
        if match is None:
            return None
        if shape.texts > 1:
            match.rows = self._with_literal(shape, match.rows)
            return match if len(match.rows) else None
        return self._addressed(match, shape)

    def _rows(self, partial: Partial) -> Int64:
        return self.everyone if partial.rows is None else partial.rows

    def _addressed(self, match: Match, shape: Shape) -> Match | None:
        """Only rows whose `ip` captures are addresses; so far they only looked like it."""
        found: Match | None = match
        for place, capture in enumerate(shape.captures):
            if capture.type is CaptureType.IP and found is not None:
                found = _only(found, self.ids(found, shape, place) != NONE)
        return found

    def ids(self, match: Match, shape: Shape, place: int) -> Int32:
        """Per row of a match the number of the address that a capture is, -1 where it is none."""
        captured = match.captured(shape, place)
        if captured is None:
            return self._ids_of(*match.span(shape, place))
        node, pick = captured
        if node.ids is None:
            assert node.capture is not None
            node.ids = self._ids_of(*node.capture)
        return node.ids if pick is None else node.ids[pick]

    def _with_literal(self, shape: Shape, rows: Int64) -> Int64:
        """Only rows in which the longest literal between the texts occurs at all."""
        if len(rows) < 16:
            return rows
        places = self._occurrences(shape.between)
        first = np.searchsorted(places, self._starts[rows])
        last = np.searchsorted(places, self._ends[rows])
        return rows[first < last]

    # beginnings

    def _whole(self, place: int) -> Partial | None:
        if place not in self._closed:
            found = self._front(place)
            if found is not None:
                found = self._keep(found, found.position == _pick(self._ends, found.rows), found.position)
            self._closed[place] = found
        return self._closed[place]

    def _front(self, place: int) -> Partial | None:
        if place not in self._fronts:
            parent, step = self._patterns.fronts.entries[place]
            before = self._front(parent)
            found: Partial | None = None
            if before is not None and isinstance(step, Literal):
                found = self._literal(before, step.text)
            elif before is not None and isinstance(step, Take):
                found = self._take(before, step, before.position, _pick(self._ends, before.rows))
            self._fronts[place] = found
        return self._fronts[place]

    def _word(self, node: Partial, at: int) -> UInt64:
        """The word `at` bytes after where the rows stand; shapes that go on from there share it."""
        key = (id(node), at)
        if key not in self._words:
            there = node.position if at == 0 else np.minimum(node.position + at, len(self._block.raw))
            self._words[key] = self._block.word(there)
        return self._words[key]

    def _occurs(self, node: Partial, at: int, length: int, wanted: np.uint64) -> bool:
        """Whether any row may have `wanted` there. In small groups a look into a set spares the call of numpy."""
        if len(node.position) > SMALL:
            return True
        key = (id(node), at, length)
        known = self._sets.get(key)
        if known is None:
            words = self._words[id(node), at]
            if length < 8:
                words = words & keep(length) if at >= 0 else words >> np.uint64(64 - 8 * length)
            known = self._sets[key] = frozenset(words.tolist())
        return int(wanted) in known

    def _literal(self, node: Partial, text: bytes) -> Partial | None:
        words = self._word(node, 0)
        if not self._occurs(node, 0, min(len(text), 8), word_of(text[:8])):
            return None
        good = (words ^ word_of(text[:8])) & keep(min(len(text), 8)) == 0
        count = int(np.count_nonzero(good))
        for at in range(8, len(text), 8):
            if not count:
                return None
            if count * 4 < len(good):
                kept = np.flatnonzero(good)
                position = np.minimum(node.position[kept] + at, len(self._block.raw))
                good[kept] = self._block.matches(position, text[at:])
                break
            good &= (self._word(node, at) ^ word_of(text[at : at + 8])) & keep(len(text) - at) == 0
            count = int(np.count_nonzero(good))
        return self._keep(node, good, node.position + len(text))

    def _take(self, node: Partial, step: Take, position: Int64, limit: Int64) -> Partial | None:
        # A literal may have run past the end, into the next record.
        inside = position <= limit
        good: Bool | None = None if inside.all() else inside
        if good is not None:
            position = np.minimum(position, limit)
        wanted = b" " if step.stop < 0 else bytes((0x20, step.stop))
        key = (id(node), wanted)
        if key not in self._ends_of:
            self._ends_of[key] = self._block.find(wanted, position, limit)
        end, unknown = self._ends_of[key]
        if step.before_port:
            # What may be IPv6 is read by itself.
            v6 = (end - position <= GROUP_LENGTH) & (end < limit) & (self._block.byte(np.minimum(end, limit)) == COLON)
            if v6.any():
                unknown = v6 if unknown is None else unknown | v6
        if step.suffix:
            end = end - step.suffix
            fits = end >= position
            good = fits if good is None else good & fits
            end = np.maximum(end, position)
        good = self._holds(step.capture, position, end, good)
        if unknown is not None:
            self._note_odd(node, unknown)
            good = ~unknown if good is None else good & ~unknown
        return self._keep(node, good, end, (position, end))

    def _holds(self, capture: Capture, start: Int64, end: Int64, good: Bool | None) -> Bool | None:
        match capture.type:
            case CaptureType.INT:
                right = self._block.digits(start, end)
            case CaptureType.IP:
                right = self._block.like_address(start, end)
            case CaptureType.OPT | CaptureType.TEXT:
                return good
            case _:
                right = end > start
        return right if good is None else right & good

    # endings

    def _back(self, place: int) -> Partial | None:
        if place not in self._backs:
            parent, piece = self._patterns.backs.entries[place]
            before = self._back(parent)
            self._backs[place] = None if before is None or piece is None else self._piece(before, piece)
        return self._backs[place]

    def _piece(self, node: Partial, piece: Piece) -> Partial | None:
        if not piece.steps:
            return self._literal_before(node, piece.literal)
        ends = node.position
        wanted = b" " if piece.after < 0 else bytes((0x20, piece.after))
        key = (id(node), wanted)
        if key not in self._ends_of:
            limit = np.minimum(_pick(self._starts, node.rows), ends)
            self._ends_of[key] = self._block.find_back(wanted, ends, limit)
        start, unknown = self._ends_of[key]
        if piece.after < 0:
            return self._chunk(node, piece.steps, start, ends, unknown)
        held = self._holds(only(piece), start, ends, None)
        good = np.ones(len(start), dtype=bool) if held is None else held
        if piece.until >= 0:
            stop, _ = self._block.find(bytes((piece.until,)), start, ends)
            good &= stop == ends
        if unknown is not None:
            self._note_odd(node, unknown)
            good &= ~unknown
        return self._keep(node, good, start, (start, ends))

    def _literal_before(self, node: Partial, text: bytes) -> Partial | None:
        key = (id(node), -8)
        if key not in self._words:
            self._words[key] = self._block.word_before(np.maximum(node.position, 0))
        tail = text[-8:]
        if not self._occurs(node, -8, len(tail), word_of(tail)):
            return None
        good = self._words[key] >> np.uint64(64 - 8 * len(tail)) == word_of(tail)
        start = node.position - len(text)
        good &= start >= _pick(self._starts, node.rows)
        if len(text) > 8:
            kept = np.flatnonzero(good)
            good[kept] = self._block.matches(start[kept], text[:-8])
        return self._keep(node, good, start)

    def _chunk(
        self, before: Partial, steps: tuple[Step, ...], start: Int64, ends: Int64, unknown: Bool | None
    ) -> Partial | None:
        """A space-delimited chunk, left to right between `start` and `ends`; it stands at its start afterwards."""
        if unknown is not None:
            self._note_odd(before, unknown)
        node = self._keep(before, None if unknown is None else ~unknown, start)
        if node is None:
            return None
        if node.kept is not None:
            start, ends = start[node.kept], ends[node.kept]
        begin, position = start, start
        for step in steps:
            if isinstance(step, Literal):
                following = self._literal(node, step.text)
            elif len(steps) == 1:
                # The chunk is the capture: there is nothing to look for.
                good = self._holds(step.capture, position, ends, None)
                return self._keep(node, good, begin, (position, ends))
            else:
                following = self._take(node, step, position, ends)
            if following is None:
                return None
            if following.kept is not None:
                begin, ends = begin[following.kept], ends[following.kept]
            node, position = following, following.position
        return self._keep(node, position == ends, begin)

    # rows

    def _note_odd(self, partial: Partial, unknown: Bool) -> None:
        if self._odd is None:
            self._odd = np.zeros(len(self._starts), dtype=bool)
        self._odd[self._rows(partial)[unknown]] = True

    def _keep(
        self, before: Partial, good: Bool | None, position: Int64, capture: tuple[Int64, Int64] | None = None
    ) -> Partial | None:
        if good is None or good.all():
            partial = Partial(before, None, before.rows, position, capture)
        else:
            kept = np.flatnonzero(good)
            if not len(kept):
                return None
            rows = kept if before.rows is None else before.rows[kept]
            if capture is not None:
                capture = capture[0][kept], capture[1][kept]
            partial = Partial(before, kept, rows, position[kept], capture)
        self._alive.append(partial)
        return partial


def _only(match: Match, good: Bool) -> Match | None:
    """The match on some of its rows."""
    if good.all():
        return match if len(good) else None
    which = np.flatnonzero(good)
    if not len(which):
        return None
    match.rows = match.rows[which]
    match.front_pick = which if match.front_pick is None else match.front_pick[which]
    if match.back is not None:
        match.back_pick = which if match.back_pick is None else match.back_pick[which]
    return match
