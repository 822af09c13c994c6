"""The pattern language over whole blocks: every distinct beginning and ending of the shapes is looked for once.
Counterpart: `parsers.readings` means the same for one message, and is asked wherever this would be slow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from vedette.model.batch import Int32, Int64
from vedette.parsers.addresses import AddressTable
from vedette.parsers.columns import Block, UInt64, distinct, keep, word_of
from vedette.parsers.formats import Shape, Span
from vedette.parsers.groups import NONE, Group, Match
from vedette.parsers.readings import Message, address_of, readings
from vedette.parsers.registry import FlatShape, PatternFile, PatternSet

_FEW = 64

_HEAD = 8


# ------------------------------------------------------------------------------------------------ which shapes


class Router:
    """The shapes of some files, catch-alls last, found by the first eight bytes of a message.

    wanted: the shapes somebody looks at (None: all of them). A message that has none of them is as good as one
    that matches nothing. wanted lists: per list those of its shapes, None where it is to be read whole.
    """

    __slots__ = ("_by_head", "_lengths", "idle", "lists", "wanted")

    def __init__(
        self, patterns: PatternSet, files: Sequence[PatternFile], wanted: Callable[[int], bool] | None = None
    ) -> None:
        numbers = [number for file in files for number in patterns.shapes_of[file.service]]
        numbers.sort(key=lambda number: patterns.shapes[number].pattern.rest)
        by_head: dict[bytes, list[int]] = {b"": []}
        for place, number in enumerate(numbers):
            by_head.setdefault(patterns.shapes[number].shape.head[:_HEAD], []).append(place)
        ordered = sorted(by_head, key=lambda head: (len(head), head))
        # A longer head takes over the shapes of every shorter one it begins with.
        shorter = [{head[:length] for length in range(len(head) + 1)} & by_head.keys() for head in ordered]
        self.lists = [
            tuple(numbers[place] for place in sorted(place for one in some for place in by_head[one]))
            for some in shorter
        ]
        self.wanted: list[tuple[int, ...] | None] = [None] * len(self.lists)
        if wanted is not None:
            chosen = {number for number in numbers if wanted(number)}
            self.wanted = [
                None if chosen.issuperset(some) else tuple(number for number in some if number in chosen)
                for some in self.lists
            ]
        self.idle = np.array([some == () for some in self.wanted], dtype=bool)
        self._by_head = {head: place for place, head in enumerate(ordered)}
        self._lengths = sorted({len(head) for head in by_head}, reverse=True)

    def of(self, message: bytes) -> tuple[int, ...]:
        """The shapes a message may have, in the order they are tried."""
        return self.lists[self._place(message)]

    def wanted_of(self, message: bytes) -> tuple[int, ...] | None:
        """Those of them that somebody looks at; None: all."""
        return self.wanted[self._place(message)]

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


# ------------------------------------------------------------------------------------------------ one message


def match_one(
    patterns: PatternSet, numbers: Sequence[int], message: Message
) -> tuple[int, tuple[Span, ...], set[str], bool]:
    """The first shape that matches (-1: none) and its spans; the addresses where they are ambiguous; unsourced."""
    first, spans = NONE, tuple[Span, ...]()
    named: set[str] = set()
    crowded = unsourced = False
    for number in numbers:
        flat = patterns.shapes[number]
        if first != NONE and (flat.pattern.rest or not flat.shape.gives_address):
            continue
        found, too_many = message.readings(flat.shape, flat.front, flat.back)
        crowded |= too_many
        if not found:
            continue
        named |= addresses(flat.shape, found, message.text)
        if first == NONE:
            first, spans = number, found[0]
            unsourced = _cut(flat, len(message.text))
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


class Matcher:
    """Runs the shapes over the messages of one batch. words: the first eight bytes of each."""

    def __init__(
        self, patterns: PatternSet, table: AddressTable, block: Block, starts: Int64, ends: Int64, words: UInt64
    ) -> None:
        self._patterns = patterns
        self._table = table
        self._block = block
        self._starts = starts
        self._ends = ends
        self._words = words
        self.addresses = table.names
        self._named = np.full(len(starts), NONE, dtype=np.int32)
        self._occurrences: dict[bytes, Int64] = {}
        # By row: shapes that are matched one by one share how a message begins and ends.
        self._messages: dict[int, Message] = {}
        self.outcome = Outcome(shape=np.full(len(starts), NONE, dtype=np.int32))

    def light(self, router: Router, rows: Sequence[int], *, everything: bool = False) -> None:
        """Match rows one by one; `everything`: whether or not somebody looks at them."""
        shapes: dict[int, tuple[list[int], list[tuple[Span, ...]]]] = {}
        outcome = self.outcome
        for row in rows:
            begin = int(self._starts[row])
            message = Message(self._block.raw[begin : int(self._ends[row])])
            wanted = None if everything else router.wanted_of(message.text)
            if wanted is None or self._has_one(wanted, message):
                number, spans, named, unsourced = match_one(self._patterns, router.of(message.text), message)
            else:
                number, spans, named, unsourced = NONE, (), set(), False
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

    def _has_one(self, numbers: Sequence[int], message: Message) -> bool:
        """Whether the message has one of these shapes."""
        some = (self._patterns.shapes[number] for number in numbers)
        return any(message.readings(flat.shape, flat.front, flat.back)[0] for flat in some)

    def run(self, router: Router, rows: Int64) -> None:
        """Match rows together."""
        places = router.groups(self._words[rows])
        if router.idle.any():
            busy = np.flatnonzero(~router.idle[places])
            rows, places = rows[busy], places[busy]
            if not len(rows):
                return
        order = np.argsort(places.astype(np.int16), kind="stable")
        places = places[order]
        bounds = [0, *(np.flatnonzero(places[1:] != places[:-1]) + 1).tolist(), len(rows)]
        for first, last in pairwise(bounds):
            self._run_group(router, int(places[first]), rows[order[first:last]])

    def _run_group(self, router: Router, place: int, rows: Int64) -> None:
        group = self._group(rows)
        wanted = router.wanted[place]
        if wanted is None:
            self._run_shapes(router, place, {}, (group, rows), (group, rows))
            return
        # Whatever else a message may be matters only where somebody looks at it.
        matches: dict[int, Match] = {}
        kept = self._having(group, wanted, rows, matches)
        if not len(kept):
            return
        some = rows if len(kept) == len(rows) else rows[kept]
        others = group if some is rows else self._group(some)
        self._run_shapes(router, place, dict.fromkeys(wanted) | matches, (group, rows), (others, some))

    def _run_shapes(
        self,
        router: Router,
        place: int,
        known: Mapping[int, Match | None],
        first: tuple[Group, Int64],
        rest: tuple[Group, Int64],
    ) -> None:
        """Match shapes in order: what is `known` was matched among the first rows, the others are among the rest."""
        left = len(rest[1])
        for number in router.lists[place]:
            flat = self._patterns.shapes[number]
            if left == 0 and (flat.pattern.rest or not flat.shape.gives_address):
                continue
            if number in known:
                left -= self._run_shape(*first, number, flat, known[number])
            else:
                left -= self._run_shape(*rest, number, flat, rest[0].match(number, flat))
        odd: set[int] = set()
        for group, rows in (first, rest):
            if group.odd is not None:
                odd.update(rows[group.odd].tolist())
        if odd:
            self.light(router, sorted(odd))

    def _group(self, rows: Int64) -> Group:
        return Group(
            self._patterns,
            self._block,
            self._starts[rows],
            self._ends[rows],
            ids_of=self.ids_of,
            occurrences=self.occurrences,
        )

    def _having(self, group: Group, numbers: Sequence[int], rows: Int64, matches: dict[int, Match]) -> Int64:
        """Which of a group's rows have one of these shapes, or cannot be told here; matches are put in `matches`."""
        having = np.zeros(len(rows), dtype=bool)
        for number in numbers:
            flat = self._patterns.shapes[number]
            match = group.match(number, flat)
            if match is None:
                continue
            matches[number] = match
            found = match.rows
            if flat.shape.texts > 1:
                messages = ((row, self._block.raw[begin:end]) for row, begin, end in self._standing(found, rows))
                held = [row for row, message in messages if readings(flat.shape, message)[0]]
                found = match.rows = np.array(held, dtype=np.int64)
            having[found] = True
        if group.odd is not None:
            having[group.odd] = True
        return np.flatnonzero(having)

    def _standing(self, some: Int64, rows: Int64) -> Iterator[tuple[int, int, int]]:
        """Places in a group, with where the messages stand."""
        own = rows[some]
        return zip(some.tolist(), self._starts[own].tolist(), self._ends[own].tolist(), strict=True)

    def _run_shape(self, group: Group, rows: Int64, number: int, flat: FlatShape, match: Match | None) -> int:
        """Take up the match of one shape; how many rows had none before."""
        shape = flat.shape
        if match is None or not len(match.rows):
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
            one = self._messages.get(row)
            if one is None:
                one = self._messages[row] = Message(self._block.raw[begin : int(self._ends[row])])
            message = one.text
            found, too_many = one.readings(flat.shape, flat.front, flat.back)
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
                self._named[row] = self._table.number_of(min(named))
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

    def ids_of(self, starts: Int64, ends: Int64) -> Int32:
        """For each span the number of the address it is, -1 where it is none."""
        return self._table.numbers(self._block, starts, ends)

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
