"""The pattern language over whole blocks: every distinct beginning and ending of the shapes is looked for once.
Counterpart: `parsers.formats` means the same for one message, and is asked wherever this would be slow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from vedette.model.batch import Bool, Int32, Int64
from vedette.parsers.columns import Block, UInt64, distinct, keep, word_of
from vedette.parsers.formats import (
    Capture,
    CaptureType,
    Literal,
    Piece,
    Shape,
    Span,
    Step,
    Take,
    address_of,
    only,
    readings,
)
from vedette.parsers.registry import FlatShape, PatternFile, PatternSet

NONE = -1

SMALL = 4096
"""In groups of up to so many rows calls cost more than rows do."""

_FEW = 64

_HEAD = 8


# ------------------------------------------------------------------------------------------------ which shapes


class Router:
    """The shapes of some files, catch-alls last, found by the first eight bytes of a message."""

    __slots__ = ("_by_head", "_lengths", "_order", "lists")

    def __init__(self, patterns: PatternSet, files: Sequence[PatternFile]) -> None:
        numbers = [number for file in files for number in patterns.shapes_of[file.service]]
        numbers.sort(key=lambda number: patterns.shapes[number].pattern.rest)
        self._order = {number: place for place, number in enumerate(numbers)}
        heads = {patterns.shapes[number].shape.head[:_HEAD] for number in numbers} | {b""}
        ordered = sorted(heads, key=lambda head: (len(head), head))
        # A longer head takes over the shapes of every shorter one it begins with.
        self.lists = [
            tuple(number for number in numbers if head.startswith(patterns.shapes[number].shape.head[:_HEAD]))
            for head in ordered
        ]
        self._by_head = {head: place for place, head in enumerate(ordered)}
        self._lengths = sorted({len(head) for head in heads}, reverse=True)

    def of(self, message: bytes) -> tuple[int, ...]:
        """The shapes a message may have, in the order they are tried."""
        return self.lists[self._place(message)]

    def _place(self, message: bytes) -> int:
        for length in self._lengths:
            place = self._by_head.get(message[:length])
            if place is not None:
                return place
        return 0

    def groups(self, words: UInt64) -> Int32:
        """For each message's first word the place in `lists`."""
        codes, values = distinct(words)
        if len(values) <= _FEW:
            found = [self._place(value.to_bytes(8, "little")) for value in values.tolist()]
            return np.array(found or [0], dtype=np.int32)[codes]
        places = np.zeros(len(values), dtype=np.int32)
        for head, place in self._by_head.items():
            if head:
                places[values & keep(len(head)) == word_of(head)] = place
        return places[codes]


# ------------------------------------------------------------------------------------------------ results


@dataclass(slots=True)
class Outcome:
    """What the shapes say of a batch's messages.

    shape: int32[n], number of the first shape that matches, -1 for none. ambiguous: rows whose readings name
    different addresses, or one that stands behind text of a message that lost its tail, with the
    addresses named. unsourced: rows (of these) whose source must not be told at all.
    """

    shape: Int32
    matches: list[Match] = field(default_factory=list)
    ambiguous: dict[int, set[str]] = field(default_factory=dict)
    unsourced: set[int] = field(default_factory=set)


@dataclass(slots=True)
class Match:
    """Rows with one shape; spans of a capture (by its place in the shape) are made when asked for.

    Only rows whose `Outcome.shape` is this shape count.
    """

    number: int
    rows: Int64
    front: _Partial | None = None
    back: _Partial | None = None
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

    def captured(self, shape: Shape, place: int) -> tuple[_Partial, Int64 | None] | None:
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
class _Partial:
    """Rows of a group that got so far, where they stand, and what the last step captured.

    kept: rows of `parent` that are left, None = all. rows: None = all rows of the group. ids: per row the
    number of the address the capture is, once somebody asked.
    """

    parent: _Partial | None
    kept: Int64 | None
    rows: Int64 | None
    position: Int64
    capture: tuple[Int64, Int64] | None = None
    ids: Int32 | None = None

    def captured(self, back: int, pick: Int64 | None) -> tuple[_Partial, Int64 | None]:
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


# ------------------------------------------------------------------------------------------------ one message


def match_one(
    patterns: PatternSet, numbers: Sequence[int], message: bytes
) -> tuple[int, tuple[Span, ...], set[str], bool]:
    """The first shape that matches (-1: none) and its spans; the addresses where they are ambiguous; unsourced."""
    first, spans = NONE, tuple[Span, ...]()
    named: set[str] = set()
    crowded = unsourced = False
    for number in numbers:
        flat = patterns.shapes[number]
        if first != NONE and (flat.pattern.rest or not flat.shape.gives_address):
            continue
        found, too_many = readings(flat.shape, message)
        if not found:
            crowded |= too_many
            continue
        crowded |= too_many
        named |= addresses(flat.shape, found, message)
        if first == NONE:
            first, spans = number, found[0]
            unsourced = _cut(flat, len(message))
    if not (crowded or len(named) > 1 or (unsourced and named)):
        return first, spans, set(), unsourced
    return first, spans, named or {""}, unsourced


def _cut(flat: FlatShape, length: int) -> bool:
    return bool(flat.cut) and length >= flat.cut and not flat.shape.holds_cut


def addresses(shape: Shape, found: Sequence[tuple[Span, ...]], message: bytes) -> set[str]:
    """The addresses that readings of a message name as its source."""
    named = set()
    for place, capture in enumerate(shape.captures):
        if capture.field in ("source.ip", "source.address"):
            named |= {address_of(message[start:end]) for start, end in (spans[place] for spans in found)}
    return {name for name in named if name is not None}


# ------------------------------------------------------------------------------------------------ many messages


class AddressMemo:
    """Which address a word is; remembers so many words that an attack's addresses fit, and no more."""

    LIMIT = 1 << 16

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[bytes, str | None] = {}

    def get(self, word: bytes) -> str | None:
        """The canonical address, or None."""
        try:
            return self._known[word]
        except KeyError:
            if len(self._known) >= self.LIMIT:
                self._known.clear()
            found = self._known[word] = address_of(word)
            return found


class Matcher:
    """Runs the shapes over the messages of one batch."""

    def __init__(self, patterns: PatternSet, memo: AddressMemo, block: Block, starts: Int64, ends: Int64) -> None:
        self._patterns = patterns
        self._memo = memo
        self._block = block
        self._starts = starts
        self._ends = ends
        self.addresses: list[str] = []
        self._ids: dict[str, int] = {}
        self._named = np.full(len(starts), NONE, dtype=np.int32)
        self._occurrences: dict[bytes, Int64] = {}
        self.outcome = Outcome(shape=np.full(len(starts), NONE, dtype=np.int32))

    def light(self, router: Router, rows: Sequence[int]) -> None:
        """Match rows one by one."""
        shapes: dict[int, tuple[list[int], list[tuple[Span, ...]]]] = {}
        outcome = self.outcome
        for row in rows:
            begin = int(self._starts[row])
            message = self._block.raw[begin : int(self._ends[row])]
            number, spans, named, unsourced = match_one(self._patterns, router.of(message), message)
            outcome.shape[row] = number
            self._named[row] = NONE
            outcome.ambiguous.pop(row, None)
            outcome.unsourced.discard(row)
            if named:
                outcome.ambiguous[row] = named - {""}
            if unsourced:
                outcome.unsourced.add(row)
            if number != NONE:
                at_rows, at_spans = shapes.setdefault(number, ([], []))
                at_rows.append(row)
                at_spans.append(tuple((begin + start, begin + end) for start, end in spans))
        for number, (at_rows, at_spans) in shapes.items():
            outcome.matches.append(Match(number, np.array(at_rows, dtype=np.int64), spans=at_spans))

    def run(self, router: Router, rows: Int64) -> None:
        """Match rows together."""
        places = router.groups(self._block.word(self._starts[rows]))
        order = np.argsort(places.astype(np.int16), kind="stable")
        places = places[order]
        bounds = [0, *(np.flatnonzero(places[1:] != places[:-1]) + 1).tolist(), len(rows)]
        for first, last in pairwise(bounds):
            self._run_group(router, router.lists[int(places[first])], rows[order[first:last]])

    def _run_group(self, router: Router, numbers: Sequence[int], rows: Int64) -> None:
        group = _Group(self, self._patterns, self._block, self._starts[rows], self._ends[rows])
        left = len(rows)
        for number in numbers:
            flat = self._patterns.shapes[number]
            if left == 0 and (flat.pattern.rest or not flat.shape.gives_address):
                continue
            left -= self._run_shape(group, number, flat, rows)
        if group.odd is not None:
            self.light(router, rows[group.odd].tolist())

    def _run_shape(self, group: _Group, number: int, flat: FlatShape, rows: Int64) -> int:
        """Match one shape; how many rows had none before."""
        shape = flat.shape
        match = group.match(number, flat)
        if match is None:
            return 0
        here = match.rows = rows if match.rows is group.everyone else rows[match.rows]
        if shape.texts > 1:
            return self._run_slow(number, flat, here)
        outcome = self.outcome
        fresh = outcome.shape[here] == NONE
        if shape.gives_address:
            match.ids = group.ids(match, shape, shape.address)
            self._name(here, match.ids)
        if flat.cut and not shape.holds_cut:
            lost = fresh & (self._ends[here] - self._starts[here] >= flat.cut)
            outcome.unsourced.update(here[lost].tolist())
        new = int(np.count_nonzero(fresh))
        if new == len(here):
            outcome.shape[here] = number
        else:
            outcome.shape[here[fresh]] = number
        if new:
            outcome.matches.append(match)
        return new

    def _name(self, rows: Int64, ids: Int32) -> None:
        """Note which address each row names; rows that name another one already are ambiguous."""
        before = self._named[rows]
        clash = (before != NONE) & (ids != NONE) & (before != ids)
        if clash.any():
            for row, one, other in zip(rows[clash].tolist(), before[clash].tolist(), ids[clash].tolist(), strict=True):
                self.outcome.ambiguous.setdefault(row, set()).update((self.addresses[one], self.addresses[other]))
        self._named[rows] = np.where(before != NONE, before, ids)

    def _run_slow(self, number: int, flat: FlatShape, rows: Int64) -> int:
        at_rows: list[int] = []
        at_spans: list[tuple[Span, ...]] = []
        outcome = self.outcome
        for row in rows.tolist():
            fresh = bool(outcome.shape[row] == NONE)
            if not fresh and not flat.shape.gives_address:
                continue
            begin = int(self._starts[row])
            message = self._block.raw[begin : int(self._ends[row])]
            found, too_many = readings(flat.shape, message)
            if not found:
                if too_many:
                    outcome.ambiguous.setdefault(row, set())
                continue
            named = addresses(flat.shape, found, message)
            unsourced = fresh and _cut(flat, len(message))
            known = int(self._named[row])
            if known != NONE:
                named.add(self.addresses[known])
            elif named:
                self._named[row] = self._id_of(min(named))
            if too_many or len(named) > 1 or (unsourced and named):
                outcome.ambiguous.setdefault(row, set()).update(named)
            if unsourced:
                outcome.unsourced.add(row)
            if fresh:
                outcome.shape[row] = number
                at_rows.append(row)
                at_spans.append(tuple((begin + start, begin + end) for start, end in found[0]))
        if at_rows:
            outcome.matches.append(Match(number, np.array(at_rows, dtype=np.int64), spans=at_spans))
        return len(at_rows)

    def _id_of(self, name: str) -> int:
        known = self._ids.get(name)
        if known is None:
            known = self._ids[name] = len(self.addresses)
            self.addresses.append(name)
        return known

    def ids_of(self, starts: Int64, ends: Int64) -> Int32:
        """For each span the number of the address it is, -1 where it is none."""
        codes, words = self._block.encode(starts, ends)
        known, id_of = self._memo.get, self._id_of
        ids = np.array([NONE if (name := known(word)) is None else id_of(name) for word in words] or [NONE], np.int32)
        return ids[codes]

    def finish(self) -> Outcome:
        """The outcome, once every row was matched: a source that is not told is named as a candidate."""
        for row in self.outcome.unsourced:
            name = int(self._named[row])
            if name != NONE:
                self.outcome.ambiguous.setdefault(row, set()).add(self.addresses[name])
        return self.outcome

    def occurrences(self, literal: bytes) -> Int64:
        """Where `literal` stands in the block, in order."""
        known = self._occurrences.get(literal)
        if known is None:
            places = []
            raw = self._block.raw
            at = raw.find(literal)
            while at >= 0:
                places.append(at)
                at = raw.find(literal, at + 1)
            known = self._occurrences[literal] = np.array(places, dtype=np.int64)
        return known


class _Group:
    """Messages that may have the same shapes. What shapes share at their beginnings or endings is done once."""

    def __init__(self, matcher: Matcher, patterns: PatternSet, block: Block, starts: Int64, ends: Int64) -> None:
        self._matcher = matcher
        self._patterns = patterns
        self._block = block
        self._starts = starts
        self._ends = ends
        self.everyone: Int64 = np.arange(len(starts), dtype=np.int64)
        self._fronts: dict[int, _Partial | None] = {0: _Partial(None, None, None, starts)}
        self._backs: dict[int, _Partial | None] = {0: _Partial(None, None, None, ends)}
        self._closed: dict[int, _Partial | None] = {}
        self._words: dict[tuple[int, int], UInt64] = {}
        self._sets: dict[tuple[int, int, int], frozenset[int]] = {}
        self._ends_of: dict[tuple[int, bytes], tuple[Int64, Bool | None]] = {}
        self._odd: Bool | None = None
        # What is known of a partial goes by its id: none may die before the group does.
        self._alive: list[_Partial] = []

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

    def _rows(self, partial: _Partial) -> Int64:
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
            return self._matcher.ids_of(*match.span(shape, place))
        node, pick = captured
        if node.ids is None:
            assert node.capture is not None
            node.ids = self._matcher.ids_of(*node.capture)
        return node.ids if pick is None else node.ids[pick]

    def _with_literal(self, shape: Shape, rows: Int64) -> Int64:
        """Only rows in which the longest literal between the texts occurs at all."""
        if len(rows) < 16:
            return rows
        places = self._matcher.occurrences(shape.between)
        first = np.searchsorted(places, self._starts[rows])
        last = np.searchsorted(places, self._ends[rows])
        return rows[first < last]

    # beginnings

    def _whole(self, place: int) -> _Partial | None:
        if place not in self._closed:
            found = self._front(place)
            if found is not None:
                found = self._keep(found, found.position == _pick(self._ends, found.rows), found.position)
            self._closed[place] = found
        return self._closed[place]

    def _front(self, place: int) -> _Partial | None:
        if place not in self._fronts:
            parent, step = self._patterns.fronts.entries[place]
            before = self._front(parent)
            found: _Partial | None = None
            if before is not None and isinstance(step, Literal):
                found = self._literal(before, step.text)
            elif before is not None and isinstance(step, Take):
                found = self._take(before, step, before.position, _pick(self._ends, before.rows))
            self._fronts[place] = found
        return self._fronts[place]

    def _word(self, node: _Partial, at: int) -> UInt64:
        """The word `at` bytes after where the rows stand; shapes that go on from there share it."""
        key = (id(node), at)
        if key not in self._words:
            there = node.position if at == 0 else np.minimum(node.position + at, len(self._block.raw))
            self._words[key] = self._block.word(there)
        return self._words[key]

    def _occurs(self, node: _Partial, at: int, length: int, wanted: np.uint64) -> bool:
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

    def _literal(self, node: _Partial, text: bytes) -> _Partial | None:
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

    def _take(self, node: _Partial, step: Take, position: Int64, limit: Int64) -> _Partial | None:
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

    def _back(self, place: int) -> _Partial | None:
        if place not in self._backs:
            parent, piece = self._patterns.backs.entries[place]
            before = self._back(parent)
            self._backs[place] = None if before is None or piece is None else self._piece(before, piece)
        return self._backs[place]

    def _piece(self, node: _Partial, piece: Piece) -> _Partial | None:
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

    def _literal_before(self, node: _Partial, text: bytes) -> _Partial | None:
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
        self, before: _Partial, steps: tuple[Step, ...], start: Int64, ends: Int64, unknown: Bool | None
    ) -> _Partial | None:
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

    def _note_odd(self, partial: _Partial, unknown: Bool) -> None:
        if self._odd is None:
            self._odd = np.zeros(len(self._starts), dtype=bool)
        self._odd[self._rows(partial)[unknown]] = True

    def _keep(
        self, before: _Partial, good: Bool | None, position: Int64, capture: tuple[Int64, Int64] | None = None
    ) -> _Partial | None:
        if good is None or good.all():
            partial = _Partial(before, None, before.rows, position, capture)
        else:
            kept = np.flatnonzero(good)
            if not len(kept):
                return None
            rows = kept if before.rows is None else before.rows[kept]
            if capture is not None:
                capture = capture[0][kept], capture[1][kept]
            partial = _Partial(before, kept, rows, position[kept], capture)
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
