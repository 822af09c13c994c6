"""What one correlation run works on: matches in ingest order, and each rule's windows.
Counterpart: `correlate` keeps the rule states, `columnar` runs them, `report` words what fired."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from heapq import heappush
from itertools import repeat as repeated

import msgspec
import numpy as np

from vedette.detections.entries import Card, Entry, Fired
from vedette.detections.matches import Matches
from vedette.detections.measured import ClosingWindow
from vedette.detections.plans import WindowPlan
from vedette.detections.windows import KeyWindow
from vedette.model.batch import Int64, Origin, Trust
from vedette.model.clock import BEGINNING
from vedette.model.events import Scalar, Value
from vedette.model.findings import Continuation, Finding, key_text, raw_hash
from vedette.model.rules import Firing as RuleFiring
from vedette.model.rules import Rule
from vedette.text.escape import decode, shorten, terminal

Key = tuple[Scalar, ...]

_SAMPLE_LIMIT = 500
_MESSAGE_FIRST = b'{"message":"'


class _Said(msgspec.Struct):
    message: str


@dataclass(frozen=True, slots=True)
class Stretch:
    """Matches in ingest order with what is needed to name their records.

    origins[code] is where a record was read; codes: int64[m] (all zero for a single batch). highs:
    per origin the highest event time in this stretch. created: `event.created`. raw: the bytes of
    matched record i. samples: whether findings show the record, which nobody does who has it at hand.
    """

    matches: Matches
    origins: Sequence[Origin]
    codes: Int64
    highs: Sequence[int]
    created: int
    raw: Callable[[int], bytes]
    samples: bool = True


@dataclass(slots=True)
class Outcome:
    """Findings in the order of the records that made them (then rule order), and what only counts on.

    skewed: matched records whose time is so far from the time of reading that windows used the latter. undecided: ids
    of rules with a pattern that could not decide some value within its limit, and took it not to match.
    """

    findings: list[Finding] = field(default_factory=list)
    continuations: list[Continuation] = field(default_factory=list)
    skewed: int = 0
    undecided: tuple[str, ...] = ()


@dataclass(slots=True)
class Firing:
    """A window that fired, with the matched record `index` or, at -1, when it closed.

    card: of the firing record, where that may be long gone. entry: the firing event as another correlation counts
    it, None where it is the record `index` itself. place, due: where in the order of the stretch it fired: with
    record i at 2i+1, between records at even places by the time (`due`) at which it was over.
    """

    index: int
    rule: int
    key: dict[str, Scalar]
    fired: Fired
    card: Card | None = None
    entry: Entry | None = None
    place: int = -1
    due: int = 0

    @property
    def order(self) -> tuple[int, int]:
        """Sorts the firings of a stretch, however it was cut out."""
        return (2 * self.index + 1 if self.place < 0 else self.place), self.due


@dataclass(slots=True)
class RuleState:
    """One correlation rule at work.

    bases: the rules whose records it counts; inner: the correlations whose findings it counts. fields, counted, bits:
    by rule the fields of the key and of what is measured, and which of the rules in `of` it is. seen: records
    counted so far, by which it is told when windows are swept. evicted: keys whose windows were given up while they
    lasted, with the time of their newest record; doubtful: there were more of them than are remembered, so any new
    key may be one. due: a heap of when which windows close: (time, key as text, beginning of the window, key).
    """

    index: int
    rule: Rule
    plan: WindowPlan
    bases: list[int]
    inner: list[int]
    fields: dict[int, tuple[str, ...]]
    counted: dict[int, tuple[str, ...]]
    bits: dict[int, int]
    windows: dict[Key, KeyWindow] = field(default_factory=dict)
    changed: set[Key] = field(default_factory=set)
    evicted: dict[Key, int] = field(default_factory=dict)
    forgotten: int = BEGINNING
    doubtful: bool = False
    seen: int = 0
    swept_at: int = 0
    newest: int = 0
    due: list[tuple[int, str, int, Key]] = field(default_factory=list)
    doubted: set[Key] = field(default_factory=set)
    """Keys whose firing lasts and rests on records nobody vouches for."""
    looked_at: frozenset[int] = field(init=False)
    """The rules whose records it looks at."""
    simple: bool = field(init=False)
    """Whether it counts records of one field at most, up to a threshold: the columnar short cut does that."""

    def __post_init__(self) -> None:
        correlate = self.rule.correlate
        assert correlate is not None
        plain = all(self.counted[base] == correlate.fields for base in self.bases)
        self.looked_at = frozenset((*self.bases, self.index))
        self.simple = self.plan.quick and not self.inner and plain and len(correlate.fields) <= 1

    def expect(self, key: Key, window: ClosingWindow, earliest: int = BEGINNING) -> None:
        """Remember when the first window of `key` is to be judged, not before `earliest`."""
        name = key_text(dict(zip(group_by(self.rule), key, strict=True)))
        heappush(self.due, (max(window.due(self.plan), earliest), name, window.entries[0].time, key))

    @property
    def blames(self) -> bool:
        """Whether a response hangs on the trust of what it counts."""
        plain = self.plan.firing is RuleFiring.SIGMA and not self.plan.preceding
        return self.simple and plain and self.rule.response is not None

    @property
    def most(self) -> int:
        """How many windows there may be before it is worth while to look which of them have ended."""
        return max(1024, 2 * self.swept_at)


def group_by(rule: Rule) -> tuple[str, ...]:
    """The fields that make the key of a correlation rule."""
    return rule.correlate.group_by if rule.correlate is not None else ()


def scalar(value: Value) -> Scalar:
    """A value as part of a key; several values become one text."""
    return ", ".join(str(one) for one in value) if isinstance(value, tuple) else value


def card_of(stretch: Stretch, at: int, opened: int = 0) -> Card:
    """What a finding at matched record `at` says of it. opened: see `Card`."""
    card = next(cards_of(stretch, np.array([at], dtype=np.int64)))
    return card._replace(opened=opened) if opened else card


def cards_of(stretch: Stretch, places: Int64) -> Iterator[Card]:
    """The cards of these matched records."""
    matches = stretch.matches
    rows = places.tolist()
    raws = list(map(stretch.raw, rows))
    samples: Iterable[str] = repeated("")
    if stretch.samples:
        levels = matches.trust[places].tolist()
        told = (terminal(_sample(raw, Trust(level))) for raw, level in zip(raws, levels, strict=True))
        samples = (shorten(text, _SAMPLE_LIMIT) for text in told)
    columns = zip(
        matches.time[places].tolist(),
        repeated(0),
        repeated(stretch.created),
        _texts(matches, "host.name", places),
        _texts(matches, "source.ip", places),
        _texts(matches, "user.name", places),
        matches.ambiguous[places].tolist(),
        map(raw_hash, raws),
        samples,
        strict=False,
    )
    return map(Card._make, columns)


def _sample(raw: bytes, trust: Trust) -> str:
    """A record as people read it. Those of our own sources are JSON and begin with their message: that says it.

    Of others', the message alone could hide what they were found for.
    """
    if trust >= Trust.ATTESTED and raw.startswith(_MESSAGE_FIRST):
        with suppress(msgspec.MsgspecError, ValueError, RecursionError):
            return msgspec.json.decode(raw, type=_Said).message[: _SAMPLE_LIMIT * 4]
    return decode(raw[: _SAMPLE_LIMIT * 4])


def _texts(matches: Matches, name: str, places: Int64) -> Iterable[str]:
    column = matches.fields.get(name)
    if column is None:
        return repeated("")
    values = column.values
    return [_text(None if code < 0 else values[code]) for code in column.codes[places].tolist()]


def _text(value: Value) -> str:
    if type(value) is str:
        return value
    return "" if value is None else str(scalar(value))
