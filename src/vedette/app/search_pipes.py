"""What stands behind the first `|` of a query: count, top, histogram, clusters, new, and compare with the time before.
Counterpart: `app.search` gives the records these count; `cli.search` prints rows."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np

from vedette.app.search import CutReason, Found, Search, native_fields
from vedette.app.search_clusters import Clusters
from vedette.model.batch import RecordFormat
from vedette.model.errors import Location, RuleError
from vedette.model.events import Value
from vedette.rules.problems import did_you_mean
from vedette.text.times import parse_duration, rfc3339

MOST_GROUPS, MOST_FIELDS, MOST_BARS = 10_000, 8, 10_000
BARS = 60
"""About so many bars a histogram has where nobody says how long one is."""

_LENGTHS = [parse_duration(text) for text in ("1s", "5s", "10s", "30s", "1m", "5m", "10m", "30m", "1h", "3h", "12h")]
_DAY = parse_duration("1d")


class Verb(StrEnum):
    """What is made of the records."""

    COUNT = "count"
    TOP = "top"
    HISTOGRAM = "histogram"
    CLUSTERS = "clusters"
    NEW = "new"
    """Clusters that the period before did not have."""
    COMPARE = "compare"
    """Beside what stands before it: the same of the period before, of the same length."""


@dataclass(frozen=True, slots=True)
class Pipe:
    """fields: of count and top; number: how many rows at most; length: of a bar, microseconds, 0 = as fits."""

    verb: Verb
    fields: tuple[str, ...] = ()
    number: int = MOST_GROUPS
    length: int = 0
    compare: bool = False


@dataclass(frozen=True, slots=True)
class Rows:
    """A result as a table: columns by name, and rows of plain values, in order."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]

    def records(self) -> Iterable[dict[str, Any]]:
        """One object a row."""
        return (dict(zip(self.columns, row, strict=True)) for row in self.rows)


def split_line(text: str, *, name: str = "query") -> tuple[str, Pipe | None]:
    """The query of a line, and what is made of its records; RuleError has the column."""
    marks = _bars(text)
    if not marks:
        return text, None
    pipe: Pipe | None = None
    for begin, end in zip(marks, [*marks[1:], len(text)], strict=True):
        words = text[begin + 1 : end].replace(",", " ").split()
        place = Location(name, 1, begin + 1)
        if not words:
            raise RuleError("nothing behind `|`", location=place, hint=_KNOWN)
        try:
            verb = Verb(words[0].lower())
        except ValueError:
            hint = did_you_mean(words[0], [one.value for one in Verb]) or _KNOWN
            raise RuleError(f"`| {words[0]}` is not known", location=place, hint=hint) from None
        if verb is Verb.COMPARE:
            if pipe is None or pipe.verb in (Verb.CLUSTERS, Verb.NEW) or pipe.compare or len(words) > 1:
                raise RuleError("compare stands behind count, top or histogram", location=place, hint=_KNOWN)
            pipe = replace(pipe, compare=True)
            continue
        if pipe is not None:
            raise RuleError(f"{verb.value} behind {pipe.verb.value}", location=place, hint="only `| compare` follows")
        pipe = _pipe(verb, words[1:], place)
    return text[: marks[0]].strip(), pipe


_KNOWN = "count [by FIELD, FIELD], top [N] FIELD, histogram [5m], clusters [N], new [N], compare"


def _bars(text: str) -> list[int]:
    """Where `|` stands outside of quotes and regular expressions."""
    marks, inside, escaped = [], "", False
    for at, character in enumerate(text):
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif inside:
            inside = "" if character == inside else inside
        elif character == '"' or (character == "/" and (at == 0 or text[at - 1] in " :(")):
            inside = character
        elif character == "|":
            marks.append(at)
    return marks


def _pipe(verb: Verb, words: list[str], place: Location) -> Pipe:
    def wrong(what: str) -> RuleError:
        return RuleError(f"{verb.value}: {what}", location=place, hint=_KNOWN)

    if verb is Verb.HISTOGRAM:
        if len(words) > 1:
            raise wrong("one length of a bar")
        try:
            length = parse_duration(words[0]) if words else 0
        except ValueError as error:
            raise wrong(str(error)) from None
        if words and length <= 0:
            raise wrong("a bar of no time at all")
        return Pipe(verb, length=length)
    if verb is Verb.COUNT:
        if words and (words[0].lower() != "by" or len(words) == 1):
            raise wrong("`by` and fields, or nothing")
        fields = tuple(dict.fromkeys(words[1:]))
        if len(fields) > MOST_FIELDS:
            raise wrong(f"more than {MOST_FIELDS} fields")
        return Pipe(verb, fields)
    number = 10 if verb is Verb.TOP else 100
    if words and words[0].isascii() and words[0].isdigit():
        number = min(int(words[0][:9]), MOST_GROUPS)
        words = words[1:]
    if number < 1 or len(words) != (verb is Verb.TOP):
        raise wrong("a number and one field" if verb is Verb.TOP else "at most a number")
    return Pipe(verb, tuple(words), number)


def run(search: Search, pipe: Pipe) -> Rows:
    """What `pipe` makes of the records of a search."""
    if pipe.verb is Verb.HISTOGRAM:
        return _histogram(search, pipe)
    if pipe.verb in (Verb.CLUSTERS, Verb.NEW):
        return _clusters(search, pipe)
    return _counts(search, pipe)


def before(search: Search) -> Search:
    """The same question about the period before, of the same length."""
    return search.moved(2 * search.since - search.until, search.since)


# ---------------------------------------------------------------------------------------------------- counts

Group = tuple[Hashable, ...]


def _counts(search: Search, pipe: Pipe) -> Rows:
    counts = _count(search, pipe.fields)
    columns = (*pipe.fields, "count")
    ordered = sorted(counts.items(), key=lambda item: (-item[1], list(map(_text, item[0]))))
    if not pipe.compare:
        return Rows(columns, [(*map(_plain, group), count) for group, count in ordered[: pipe.number]])
    earlier = _count(before(search), pipe.fields)
    # What has ended is news as well.
    gone = [(group, 0) for group in sorted(earlier.keys() - counts.keys(), key=lambda group: list(map(_text, group)))]
    rows = []
    for group, count in [*ordered, *gone][: pipe.number]:
        past = earlier.get(group, 0)
        rows.append((*map(_plain, group), count, past, count - past))
    return Rows((*columns, "before", "change"), rows)


def _count(search: Search, fields: Sequence[str]) -> dict[Group, int]:
    """Records by the values of `fields`; those without any such field count for the value None."""
    if not fields:
        return {(): sum(map(len, search.times()))}
    counts: dict[Group, int] = {}
    for found in search.found():
        for group, count in _groups(found, fields):
            if group in counts or len(counts) < MOST_GROUPS:
                counts[group] = counts.get(group, 0) + count
            else:
                search.limits.cut[CutReason.GROUPS] = None
    return counts


def _groups(found: Found, fields: Sequence[str]) -> Iterable[tuple[Group, int]]:
    """The distinct tuples of values among the records of a batch, and how often each occurs."""
    columns = [found.table.column(field) for field in fields]
    codes = np.stack([column.codes[found.rows] for column in columns])
    distinct, counts = np.unique(codes, axis=1, return_counts=True)
    for codes_of, count in zip(distinct.T.tolist(), counts.tolist(), strict=True):
        values = (
            None if code < 0 else column.values[code]
            for code, column in zip(codes_of, columns, strict=True)  #
        )
        yield tuple(values), count


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


# ---------------------------------------------------------------------------------------------------- over time


def _histogram(search: Search, pipe: Pipe) -> Rows:
    length = pipe.length or _fitting(search.until - search.since)
    counts = _bars_of(search, length)
    first = search.since // length * length
    bars = range(first, search.until, length)
    if len(bars) > MOST_BARS:
        # A range without end: only bars with something in them.
        bars_shown: Iterable[int] = sorted(counts)
        if len(counts) > MOST_BARS:
            search.limits.cut[CutReason.GROUPS] = None
            bars_shown = sorted(counts)[-MOST_BARS:]
    else:
        bars_shown = bars
    if not pipe.compare:
        return Rows(("@timestamp", "count"), [(rfc3339(bar), counts.get(bar, 0)) for bar in bars_shown])
    shift = search.until - search.since
    earlier = _bars_of(before(search), length, shift)
    rows = []
    for bar in bars_shown:
        count, past = counts.get(bar, 0), earlier.get(bar, 0)
        rows.append((rfc3339(bar), count, past, count - past))
    return Rows(("@timestamp", "count", "before", "change"), rows)


def _bars_of(search: Search, length: int, shift: int = 0) -> dict[int, int]:
    counts: dict[int, int] = {}
    for piece in search.times():
        bars, times = np.unique((piece + shift) // length, return_counts=True)
        for bar, count in zip(bars.tolist(), times.tolist(), strict=True):
            counts[bar * length] = counts.get(bar * length, 0) + count
    return counts


def _fitting(span: int) -> int:
    """The length of a bar that gives about BARS of them, one that people count in."""
    return next((length for length in _LENGTHS if span <= length * BARS), max(span // BARS // _DAY, 1) * _DAY)


# ---------------------------------------------------------------------------------------------------- clusters


def _clusters(search: Search, pipe: Pipe) -> Rows:
    clusters = Clusters()
    if pipe.verb is Verb.NEW:
        # One set for both periods, so that what is the same looks the same.
        for found in before(search).found():
            _learn(clusters, found)
        clusters.begin()
    for found in search.found():
        _learn(clusters, found)
    if clusters.full:
        search.limits.cut[CutReason.CLUSTERS] = None
    shown = [one for one in clusters.by_count() if one.count and not (pipe.verb is Verb.NEW and one.before)]
    rows = [(one.count, one.text, rfc3339(one.first), rfc3339(one.last), one.example) for one in shown[: pipe.number]]
    return Rows(("count", "pattern", "first", "last", "example"), rows)


def _learn(clusters: Clusters, found: Found) -> None:
    messages = found.table.column("message")
    for row, time in zip(found.rows.tolist(), found.time.tolist(), strict=True):
        text: Value = messages.value(row)
        if not isinstance(text, str):
            if found.table.batch.format is RecordFormat.JSON:
                # Of an object without a message its shape is what it says.
                text = " ".join(f"{name}={value}" for name, value in native_fields(found.table.batch.raw(row)).items())
            else:
                original = found.table.column("event.original").value(row)
                text = original if isinstance(original, str) else ""
        clusters.add(text, time)
