"""Events in columns: a table over the records of one batch, fields made when first asked for.
Counterpart: `parsers` fill it, `detections` ask it for the fields that rules, keys and output need."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np

from vedette.model.batch import Batch, Int32, Int64

Scalar = str | int | float | bool | None
Value = Scalar | tuple[Scalar, ...]


def identity(value: Value) -> Hashable:
    """What tells values apart in a dictionary, where 1, 1.0 and True would be one key; they are not one text."""
    if type(value) is str:
        return value
    return value, tuple(map(type, value)) if isinstance(value, tuple) else type(value)


class LateValues(Sequence[Value]):
    """Values that are made when looked at; many at once cost less."""

    def some(self, places: Sequence[int]) -> list[Value]:
        """The values at these places."""
        return [self[place] for place in places]


class Column:
    """One field over all `n` records: `codes[i]` indexes `values`, -1 means the record has no such field.

    codes: int32[n]; values: the distinct values. A tuple is a field with several values. None is a field
    that is present and null.
    """

    __slots__ = ("codes", "values")

    def __init__(self, codes: Int32, values: Sequence[Value]) -> None:
        self.codes = codes
        self.values = values

    def value(self, row: int) -> Value:
        """The value of record `row`; None where absent."""
        code = int(self.codes[row])
        return None if code < 0 else self.values[code]

    @classmethod
    def absent(cls, n: int) -> Column:
        """A field that no record has."""
        return cls(np.full(n, -1, dtype=np.int32), [])

    @classmethod
    def constant(cls, n: int, value: Value) -> Column:
        """A field with one value on every record."""
        return cls(np.zeros(n, dtype=np.int32), [value])

    @classmethod
    def from_values(cls, values: Sequence[Value | None]) -> Column:
        """Encode one value a record; None means absent here."""
        seen: dict[Hashable, int] = {}
        distinct: list[Value] = []
        codes = np.empty(len(values), dtype=np.int32)
        for row, value in enumerate(values):
            codes[row] = -1 if value is None else seen.setdefault(identity(value), len(seen))
            if len(seen) > len(distinct):
                distinct.append(value)
        return cls(codes, distinct)


@dataclass(frozen=True, slots=True)
class RecordKind:
    """What a record is, in the words of Sigma log sources; one record may be of several categories and services.

    product: "" where nobody can tell, which only log sources that name no product cover.
    """

    product: str = ""
    categories: frozenset[str] = frozenset()
    services: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Kinds:
    """The kind of each record: `codes[i]` (int32[n], never negative) indexes `kinds`."""

    codes: Int32
    kinds: Sequence[RecordKind]

    @classmethod
    def constant(cls, n: int, kind: RecordKind) -> Kinds:
        """`n` records of one kind."""
        return cls(np.zeros(n, dtype=np.int32), [kind])

    @classmethod
    def from_kinds(cls, kinds: Sequence[RecordKind]) -> Kinds:
        """Encode one kind a record."""
        seen: dict[RecordKind, int] = {}
        codes = np.asarray([seen.setdefault(kind, len(seen)) for kind in kinds], dtype=np.int32)
        return cls(codes, list(seen))


@dataclass(frozen=True, slots=True)
class Texts:
    """String values of records before they are decoded: piece i is `block[starts[i]:ends[i]]`, of row `rows[i]`.

    int64 each; pieces stand in order and do not overlap, and something stands between any two of them.
    """

    block: bytes
    starts: Int64
    ends: Int64
    rows: Int64


Provider = Callable[[], Column]
Finder = Callable[[str], Column | None]
Strings = Callable[[Sequence[int]], list[tuple[str, ...]]]
Written = Callable[[], list[Texts]]


class Table:
    """The events of one batch.

    time: int64[n] `@timestamp` in microseconds (event.created where the header has none). kinds: which log
    sources cover each record. repeat: int32[n], how many equal
    records this one stands for (1 nearly always). unreadable: how many headers could not be read.
    message: start and end offsets of the messages in the block, the whole record where not given.
    untimed: rows whose header names no time, sorted. ambiguous: rows whose message admits several
    readings of the address, sorted.
    Fields beyond these are made by the provider registered for them, once; a parser whose events name their
    own fields registers a finder for all others.
    """

    __slots__ = (
        "_columns",
        "_finder",
        "_found",
        "_providers",
        "_strings",
        "_written",
        "ambiguous",
        "batch",
        "kinds",
        "message",
        "repeat",
        "time",
        "unreadable",
        "untimed",
    )

    def __init__(
        self,
        batch: Batch,
        *,
        time: Int64,
        kinds: Kinds,
        repeat: Int32 | None = None,
        unreadable: int = 0,
        untimed: Int64 | None = None,
        message: tuple[Int64, Int64] | None = None,
        ambiguous: Int64 | None = None,
    ) -> None:
        self.batch = batch
        self.time = time
        self.kinds = kinds
        self.repeat = repeat
        self.unreadable = unreadable
        self.message = message or (batch.starts, batch.ends)
        self.untimed = np.empty(0, dtype=np.int64) if untimed is None else untimed
        self.ambiguous = np.empty(0, dtype=np.int64) if ambiguous is None else ambiguous
        self._columns: dict[str, Column] = {}
        self._providers: dict[str, Provider] = {}
        self._finder: Finder | None = None
        self._found: AbstractSet[str] = frozenset()
        self._strings: Strings | None = None
        self._written: Written | None = None

    def __len__(self) -> int:
        return len(self.batch)

    def provide(self, field: str, provider: Provider) -> None:
        """Register how `field` is made; a later registration replaces an earlier one not yet used."""
        self._providers[field] = provider
        self._columns.pop(field, None)

    def provide_all(self, providers: Mapping[str, Provider]) -> None:
        """`provide` for many fields."""
        for field in self._columns.keys() & providers.keys():
            del self._columns[field]
        self._providers.update(providers)

    def provide_others(self, finder: Finder, names: AbstractSet[str] = frozenset()) -> None:
        """Register who makes the fields no provider is registered for; it gives None for one no record has.

        names: those of them that are known beforehand.
        """
        self._finder, self._found = finder, names

    def provide_over(self, field: str, over: Callable[[Column], Column]) -> None:
        """Register what is made of the column that whoever was registered before gives."""
        made, provider, finder = self._columns.pop(field, None), self._providers.get(field), self._finder

        def provide() -> Column:
            found = made or (provider() if provider else finder(field) if finder else None)
            return over(Column.absent(len(self)) if found is None else found)

        self._providers[field] = provide

    def provide_more(self, finder: Finder, names: AbstractSet[str] = frozenset()) -> None:
        """Register who is asked for a field before the finder there is."""
        earlier = self._finder
        self._finder = lambda field: finder(field) or (earlier(field) if earlier else None)
        self._found = self._found | names

    def provide_strings(self, strings: Strings, written: Written | None = None) -> None:
        """Register who gives the string values of given rows; without it these are the message alone.

        written: gives those of all rows before they are decoded.
        """
        self._strings, self._written = strings, written

    @property
    def strings_given(self) -> bool:
        """Whether the parser gives the string values itself; else they are the spans of `message`."""
        return self._strings is not None

    def strings(self, rows: Sequence[int]) -> list[tuple[str, ...]]:
        """Every string value of the decoded events of `rows`, one tuple a row: what keywords look at.

        Names of fields are none; of a line with a header it is the message.
        """
        if self._strings is not None:
            return self._strings(rows)
        message = self.column("message")
        values = (message.value(row) for row in rows)
        return [(value,) if isinstance(value, str) else () for value in values]

    def written(self) -> list[Texts] | None:
        """Every string value as `strings` gives it, before it is decoded; None where the parser does not say."""
        return None if self._written is None else self._written()

    def fields(self) -> list[str]:
        """The fields that providers are registered for, and those that a finder names, sorted."""
        return sorted({*self._providers, *self._found})

    def column(self, field: str) -> Column:
        """The column of `field`; a field nobody provides is absent on every record."""
        found = self._columns.get(field)
        if found is None:
            provider = self._providers.get(field)
            made = provider() if provider else self._finder(field) if self._finder else None
            found = self._columns[field] = Column.absent(len(self)) if made is None else made
        return found

    def close(self) -> None:
        """Let go of what makes further columns; those that were made stay.

        Providers hold the table that holds them, so that a block and its arrays would else wait for the
        garbage collector, which counts objects and not bytes.
        """
        self._providers.clear()
        self._finder, self._found = None, frozenset()
        self._strings = self._written = None
