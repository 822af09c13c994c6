"""Decoded objects read by columns: records of one shape together, nested members only where a name leads there.
Counterpart: `parsers.objects` decodes, `parsers.json` says under which names a field may stand."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from vedette.model.batch import Int32, Int64
from vedette.model.events import Column, Scalar, Value, identity
from vedette.parsers.objects import Json, exact_number, json_text

MISSING: Any = object()

_LEVELS = 8
_DEEPEST = 64
_ITEMS = 4096
"""Values that one field of one record may have; what a list holds beyond is not looked at."""

Part = tuple[Int64, Sequence[Any]]
"""Rows, and a value for each of them."""


@lru_cache(maxsize=8192)
def splits(name: str) -> tuple[tuple[str, str], ...]:
    """Ways to read `a.b.c` as a member and the rest, shortest member first."""
    places = [at for at, character in enumerate(name) if character == "."][:_LEVELS]
    return tuple((name[:at], name[at + 1 :]) for at in places if 0 < at < len(name) - 1)


def look_up(value: Any, name: str, depth: int = 0) -> Any:
    """What `name` leads to from `value`, MISSING where nothing; the slow, obvious meaning of a field name.

    A member may have dots in its name; of several readings the one with the longest name found whole is taken, then
    the shortest first member. A list stands for each of its objects.
    """
    if type(value) is dict:
        if name in value:
            return value[name]
        for head, rest in splits(name):
            if head in value:
                found = look_up(value[head], rest, depth + 1)
                if found is not MISSING:
                    return found
    elif type(value) is list and depth < _DEEPEST:
        several = [found for item in value[:_ITEMS] if (found := look_up(item, name, depth + 1)) is not MISSING]
        if several:
            return [item for found in several for item in (found if type(found) is list else (found,))][:_ITEMS]
    return MISSING


class Shape:
    """The members of objects that have the same ones in the same order, and what names lead to from there."""

    __slots__ = ("_heads", "index", "keys", "picks")

    def __init__(self, keys: tuple[str, ...]) -> None:
        self.keys = frozenset(keys)
        self.index = {key: place for place, key in enumerate(keys)}
        self.picks: dict[int, dict[str, tuple[tuple[str, ...], ...]]] = {}
        self._heads: dict[str, tuple[tuple[str, str], ...]] = {}

    def leads(self, name: str) -> bool:
        """Whether `name` may lead somewhere."""
        return name in self.keys or bool(self.heads_of(name))

    def heads_of(self, name: str) -> tuple[tuple[str, str], ...]:
        """Ways to read `name` as a member that is there and the rest."""
        known = self._heads.get(name)
        if known is None:
            known = self._heads[name] = tuple(way for way in splits(name) if way[0] in self.keys)
        return known


# Bounded: whoever writes the log chooses the shapes.
@lru_cache(maxsize=1024)
def shape_of(keys: tuple[str, ...]) -> Shape:
    """The shape with these members."""
    return Shape(keys)


class Group:
    """Objects of one shape, taken apart. rows: int64[n]; members: per object the values in the shape's order."""

    __slots__ = ("_children", "_columns", "members", "rows", "shape")

    def __init__(self, shape: Shape, rows: Int64, members: Sequence[tuple[Any, ...]]) -> None:
        self.shape = shape
        self.rows = rows
        self.members = members
        self._columns: list[tuple[Any, ...]] | None = None
        self._children: dict[str, tuple[list[Group], Part | None]] = {}

    def values(self, name: str) -> Sequence[Any]:
        """A member, which all have."""
        if self._columns is None:
            self._columns = list(zip(*self.members, strict=True))
        return self._columns[self.shape.index[name]]

    def child(self, name: str) -> tuple[list[Group], Part | None]:
        """What lies within a member: the objects by shape, and the lists."""
        known = self._children.get(name)
        if known is None:
            known = self._children[name] = self._child(name)
        return known

    def _child(self, name: str) -> tuple[list[Group], Part | None]:
        objects = Collector()
        some: list[int] = []
        values = self.values(name)
        for at, (row, value) in enumerate(zip(self.rows.tolist(), values, strict=True)):
            if type(value) is dict:
                objects.add(row, value)
            elif type(value) is list:
                some.append(at)
        return objects.groups(), (self.rows[some], [values[at] for at in some]) if some else None

    def take(self, name: str) -> list[Part]:
        """The records that have `name`, directly or further down."""
        if name in self.shape.keys:
            return [(self.rows, self.values(name))]
        heads = self.shape.heads_of(name)
        if not heads:
            return []
        if len(heads) > 1:
            return one_by_one(
                self.rows, [dict(zip(self.shape.index, item, strict=True)) for item in self.members], name
            )
        head, rest = heads[0]
        groups, lists = self.child(head)
        parts = [part for group in groups for part in group.take(rest)]
        if lists is not None:
            parts += one_by_one(*lists, rest)
        return parts

    def take_first(self, names: Sequence[str]) -> list[Part]:
        """For each record the first of `names` that it has."""
        parts = self.take(names[0])
        for name in names[1:]:
            if sum(len(rows) for rows, _ in parts) == len(self.rows):
                break
            parts = [*parts, *without([rows for rows, _ in parts], self.take(name))]
        return parts


class Collector:
    """Takes objects apart as they come, while they are in the processor's cache, and keeps their members by shape."""

    __slots__ = ("_buckets",)

    def __init__(self) -> None:
        self._buckets: dict[tuple[str, ...], tuple[list[int], list[tuple[Any, ...]]]] = {}

    def add(self, row: int, value: Json) -> None:
        """Take an object of a record."""
        keys = tuple(value)
        bucket = self._buckets.get(keys)
        if bucket is None:
            bucket = self._buckets[keys] = [], []
        bucket[0].append(row)
        bucket[1].append(tuple(value.values()))

    def groups(self) -> list[Group]:
        """What was taken, by shape."""
        return [
            Group(shape_of(keys), np.array(rows, dtype=np.int64), members)
            for keys, (rows, members) in self._buckets.items()
        ]


def without(taken: Sequence[Int64], parts: list[Part]) -> list[Part]:
    """`parts` without the rows that are taken."""
    if not taken or not parts:
        return parts
    gone = np.concatenate(taken) if len(taken) > 1 else taken[0]
    left: list[Part] = []
    for rows, values in parts:
        kept = np.flatnonzero(~np.isin(rows, gone))
        if len(kept) == len(rows):
            left.append((rows, values))
        elif len(kept):
            left.append((rows[kept], [values[at] for at in kept.tolist()]))
    return left


def one_by_one(rows: Int64, objects: Sequence[Any], name: str) -> list[Part]:
    """`look_up` in each object."""
    found = [(at, value) for at, item in enumerate(objects) if (value := look_up(item, name)) is not MISSING]
    return [(rows[[at for at, _ in found]], [value for _, value in found])] if found else []


# ---------------------------------------------------------------------------------------------- columns


def settled(value: Any) -> Value:
    """A member as the value of a field: a list as several values, an object as its JSON text."""
    kind = type(value)
    if kind is list:
        return tuple(_scalars(value))
    if kind is dict:
        return json_text(value)
    scalar: Scalar = value
    return scalar


def _scalars(values: Sequence[Any]) -> Iterator[Scalar]:
    taken = 0
    stack = [iter(values)]
    while stack and taken < _ITEMS:
        value = next(stack[-1], MISSING)
        if value is MISSING:
            stack.pop()
        elif type(value) is list:
            stack.append(iter(value))
        else:
            taken += 1
            yield json_text(value) if type(value) is dict else value


_NUMBERS = {int, float, bool}
_TEXT_OR_NONE = {str, type(None)}
_NESTED = {list, dict, tuple}


def encoded(n: int, parts: Sequence[Part], exactly: Callable[[int], Any]) -> Column | None:
    """A column over `n` records from parts that do not overlap; None where no record has a value.

    exactly: the value of a row read anew, where digits of a large integer were lost.
    """
    if not parts:
        return None
    if len(parts) == 1:
        rows, values = parts[0]
    else:
        rows = np.concatenate([part[0] for part in parts])
        values = [value for part in parts for value in part[1]]
    kinds = set(map(type, values))
    if float in kinds and any(type(value) is float and not exact_number(value) for value in values):
        values = [
            exactly(row) if type(value) is float and not exact_number(value) else value
            for row, value in zip(rows.tolist(), values, strict=True)
        ]
        kinds = set(map(type, values))
    if kinds & _NESTED:
        values = [settled(value) if type(value) in _NESTED else value for value in values]
        kinds = set(map(type, values))
    keys: Sequence[Hashable]
    distinct: list[Value]
    if len(kinds & _NUMBERS) > 1 or tuple in kinds:
        # 1, 1.0 and True are one key of a dictionary, but not one text.
        keys = [identity(value) for value in values]
        chosen = dict(zip(keys, values, strict=True))
        distinct = list(chosen.values())
        number = dict(zip(chosen, range(len(chosen)), strict=True))
    else:
        keys = values
        distinct = list(dict.fromkeys(values))
        number = dict(zip(distinct, range(len(distinct)), strict=True))
    local: Int32
    if len(distinct) == len(values):
        local = np.arange(len(values), dtype=np.int32)
    else:
        local = np.fromiter(map(number.__getitem__, keys), dtype=np.int32, count=len(values))
    if len(rows) == n and len(parts) == 1:
        # One part over all records is in their order.
        return Column(local, distinct)
    codes = np.full(n, -1, dtype=np.int32)
    codes[rows] = local
    return Column(codes, distinct)


def filled(base: Column | None, more: Column | None) -> Column | None:
    """`base`, and where it is absent `more`."""
    if base is None or more is None:
        return base if more is None else more
    rows = np.flatnonzero((base.codes < 0) & (more.codes >= 0))
    if not len(rows):
        return base
    number = {identity(value): code for code, value in enumerate(base.values)}
    values = list(base.values)
    meaning = []
    for value in more.values:
        code = number.setdefault(identity(value), len(number))
        if code == len(values):
            values.append(value)
        meaning.append(code)
    codes = base.codes.copy()
    codes[rows] = np.array(meaning, dtype=np.int32)[more.codes[rows]]
    return Column(codes, values)


def recoded(column: Column, found: Sequence[Value | None]) -> Column:
    """A column whose distinct values became others; None = absent."""
    if set(map(type, found)) <= _TEXT_OR_NONE:
        # Nearly always: no text equals anything but itself.
        texts = dict.fromkeys(found)
        texts.pop(None, None)
        places: dict[Any, int] = dict(zip(texts, range(len(texts)), strict=True))
        renumber = np.array([places.get(value, -1) for value in found] + [-1], dtype=np.int32)
        return Column(renumber[column.codes], list(texts))
    number: dict[object, int] = {}
    values: list[Value] = []
    meaning = [-1] * (len(found) + 1)
    for code, value in enumerate(found):
        if value is not None:
            meaning[code] = number.setdefault(identity(value), len(number))
            if meaning[code] == len(values):
                values.append(value)
    return Column(np.array(meaning, dtype=np.int32)[column.codes], values)


def moments_of(time: Int64) -> Column:
    """@timestamp of these times."""
    values, codes = np.unique(time, return_inverse=True)
    texts = np.datetime_as_string(values.astype("datetime64[us]"), unit="us").tolist()
    return Column(codes.astype(np.int32), [f"{text}Z" for text in texts])


_STRINGS = 65_536


def strings_of(value: Any) -> tuple[str, ...]:
    """The string values of an object and of all within, each once, in order."""
    seen: dict[str, None] = {}
    stack: list[Iterator[Any]] = [iter((value,))]
    while stack and len(seen) < _STRINGS:
        item = next(stack[-1], MISSING)
        if item is MISSING:
            stack.pop()
        elif type(item) is str:
            seen[item] = None
        elif type(item) is dict:
            stack.append(iter(item.values()))
        elif type(item) is list:
            stack.append(iter(item))
    return tuple(seen)
