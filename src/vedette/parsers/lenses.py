"""The objects of one maker, and what a field is called in them: places to look, names it may have there.
Counterpart: `parsers.families` says it as data, `parsers.frames` holds the objects, `parsers.json` makes columns."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import orjson

from vedette.model.batch import Batch
from vedette.parsers.families import FAMILIES, Family, family_of, same_as
from vedette.parsers.frames import Collector, Group, Part, Shape, one_by_one, shape_of, without
from vedette.parsers.objects import (
    Json,
    may_need_care,
    names_by_record,
    names_in,
    names_twice,
    needs_care,
    no_collection,
    read_careful,
    read_object,
)
from vedette.parsers.windows import name_within

# Of what `names_of` gives: own names, then those that say the same.
_RANKS = (0, 1)

# Where one word of a name made of several ends and the next begins.
_WORDS = re.compile("(?<=[a-z0-9])(?=[A-Z])")


@lru_cache(maxsize=16_384)
def names_of(family: Family, place: int, name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names under which a field may stand in a place: its own, and those of fields that say the same.

    What has the field's own name anywhere comes before what only says the same.
    """
    own, *others = same_as(name)
    return _written(family, place, [own]), _written(family, place, others)


def _written(family: Family, place: int, fields: list[str]) -> tuple[str, ...]:
    names: dict[str, None] = {}
    path, special = family.places[place].path, family.places[place].names
    for name in fields:
        names |= dict.fromkeys(special.get(name, ()) if path else ())
        names[name] = None
        if family.blanks:
            names[_WORDS.sub(" ", name)] = None
        names |= dict.fromkeys(special.get(name, ()))
        if path and name.startswith(path + "."):
            names[name[len(path) + 1 :]] = None
        if name.startswith("data."):
            names[name[5:]] = None
    if family.caseless:
        for same in list(names):
            parts = same.split(".")
            names[".".join(part[:1].lower() + part[1:] for part in parts)] = None
            names[".".join(part[:1].upper() + part[1:] for part in parts)] = None
    return tuple(names)


class Lens:
    """The records of one family. reread: the object of a row, decoded anew."""

    def __init__(
        self, number: int, family: Family, places: list[list[Group]], tops: list[Group], reread: Callable[[int], Json]
    ) -> None:
        self.family = family
        self.groups = tops
        self.size = sum(len(group.rows) for group in tops)
        self.rows = np.concatenate([group.rows for group in tops])
        self._keys = [number * 8 + place for place in range(len(family.places))]
        self._places = places
        self._paths = tuple(place.path for place in family.places if place.path)
        self._below = tuple(f"{path}." for path in self._paths)
        self._heads = frozenset(path.partition(".")[0] for path in self._paths)
        self._reread = reread

    def at(self, place: int) -> list[Group]:
        """The groups of objects that hold fields in a place."""
        return self._places[place]

    def take(self, name: str) -> list[Part]:
        """The records that have a field, under whichever name."""
        if name.partition(".")[0] in self._heads and (name in self._paths or not name.startswith(self._below)):
            # What was taken apart is put together again only for who asks for it as a whole.
            return one_by_one(self.rows, [self._reread(row) for row in self.rows.tolist()], name)
        parts: list[Part] = []
        for rank in _RANKS:
            for place in range(len(self._keys)):
                found: list[Part] = []
                for group in self._places[place]:
                    if names := self._picked(group.shape, place, name)[rank]:
                        found += group.take_first(names)
                if found:
                    parts = [*parts, *without([rows for rows, _ in parts], found)] if parts else found
                    if sum(len(rows) for rows, _ in parts) == self.size:
                        return parts
        return parts

    def _picked(self, shape: Shape, place: int, name: str) -> tuple[tuple[str, ...], ...]:
        """`names_of`, of these the ones that lead anywhere in objects of this shape."""
        picks = shape.picks.setdefault(self._keys[place], {})
        names = picks.get(name)
        if names is None:
            both = names_of(self.family, place, name)
            names = picks[name] = tuple(tuple(filter(shape.leads, own)) for own in both)
        return names


@dataclass(slots=True)
class Objects:
    """The objects of a batch, taken apart. unread: records that are no JSON object.

    duplicates: records that name a member twice; the last one holds. Exact for records without objects within, where
    colons follow their names at once; of others one may be missed that lacks as many members in turn.
    """

    lenses: list[Lens] = field(default_factory=list)
    unread: list[int] = field(default_factory=list)
    duplicates: int = 0


class _Bucket:
    """Objects that have the same members at their top.

    sizes: how many members each has in all that was taken apart. within: what the places of the family name, as head
    ("" = the object itself), the place that is the head itself (-1: none), and the places by member of it.
    """

    __slots__ = ("collectors", "family", "members", "nested", "rows", "shape", "sizes", "within")

    def __init__(self, shape: Shape, first: Json, collectors: dict[str, list[Collector]]) -> None:
        self.shape = shape
        self.rows: list[int] = []
        self.members: list[tuple[Any, ...]] = []
        self.sizes: list[int] = []
        self.family = family_of(shape.keys)
        self.nested = any(type(value) is dict or type(value) is list for value in first.values())
        self.collectors = collectors.setdefault(self.family.name, [Collector() for _ in self.family.places])
        heads: dict[str, tuple[int, list[tuple[int, str]]]] = {}
        for number, place in enumerate(self.family.places):
            head, _, member = place.path.rpartition(".")
            if not place.path:
                continue
            if not head and any(other.path.startswith(f"{member}.") for other in self.family.places):
                heads[member] = number, heads.get(member, (-1, []))[1]
            else:
                heads.setdefault(head, (-1, []))[1].append((number, member))
        self.within = [(head, own, members) for head, (own, members) in heads.items()]

    def take_apart(self, row: int, value: Json) -> None:
        """Collect the objects in the places of the family; what is not kept is freed while it is in the cache."""
        name_within(self.family.name, value)
        size = len(value)
        for head, own, members in self.within:
            here: Any = value.get(head) if head else value
            if type(here) is not dict:
                continue
            for number, member in members:
                inner = here.get(member)
                if type(inner) is dict:
                    size += len(inner)
                    self.collectors[number].add(row, inner)
                    here[member] = None
            if head:
                size += len(here)
                value[head] = None
                if own >= 0:
                    self.collectors[own].add(row, here)
        self.sizes.append(size)


def read_objects(batch: Batch) -> Objects:
    """Every record of `batch` that is one JSON object; never raises."""
    block = batch.block
    out = Objects()
    buckets: dict[tuple[str, ...], _Bucket] = {}
    collectors: dict[str, list[Collector]] = {}
    loads, failure = orjson.loads, orjson.JSONDecodeError
    careful = may_need_care(block)
    with no_collection():
        for row, (start, end) in enumerate(zip(batch.starts.tolist(), batch.ends.tolist(), strict=True)):
            record = block[start:end]
            try:
                value = loads(record)
            except failure:
                value = read_careful(record)
            else:
                if careful and needs_care(record):
                    value = read_careful(record)
            if type(value) is not dict:
                out.unread.append(row)
                continue
            keys = tuple(value)
            bucket = buckets.get(keys)
            if bucket is None:
                bucket = buckets[keys] = _Bucket(shape_of(keys), value, collectors)
            bucket.rows.append(row)
            if bucket.nested:
                bucket.take_apart(row, value)
            bucket.members.append(tuple(value.values()))
        out.duplicates = _duplicates(batch, out.unread, list(buckets.values()))
        out.lenses = _lenses(batch, list(buckets.values()), collectors)
    return out


def _lenses(batch: Batch, buckets: list[_Bucket], collectors: dict[str, list[Collector]]) -> list[Lens]:
    def reread(row: int) -> Json:
        return read_object(batch.raw(row)) or {}

    found = []
    for number, family in enumerate(FAMILIES):
        own = [bucket for bucket in buckets if bucket.family is family]
        if own:
            tops = [Group(bucket.shape, np.array(bucket.rows, dtype=np.int64), bucket.members) for bucket in own]
            places = [
                collector.groups() if place.path else tops
                for place, collector in zip(family.places, collectors[family.name], strict=True)
            ]
            found.append(Lens(number, family, places, tops, reread))
    return found


def _duplicates(batch: Batch, unread: list[int], buckets: list[_Bucket]) -> int:
    """How many records name a member twice: names written against names kept, over all records, then one by one."""
    flat = [bucket for bucket in buckets if not bucket.nested]
    nested = [bucket for bucket in buckets if bucket.nested]
    kept = sum(len(bucket.rows) * len(bucket.shape.keys) for bucket in flat)
    if not unread and not nested and names_in(batch.block) == kept:
        return 0
    written = names_by_record(batch)
    doubtful: list[int] = []
    for bucket in flat:
        rows = np.array(bucket.rows, dtype=np.int64)
        doubtful += rows[written[rows] != len(bucket.shape.keys)].tolist()
    for bucket in nested:
        # Members that were not taken apart; their number is the same for many, and the first of these is looked at.
        rows = np.array(bucket.rows, dtype=np.int64)
        others, firsts, inverse = np.unique(
            written[rows] - np.array(bucket.sizes, dtype=np.int64), return_index=True, return_inverse=True
        )
        for other, first in enumerate(firsts.tolist()):
            if others[other] and names_twice(batch.raw(int(rows[first]))):
                doubtful += rows[inverse == other].tolist()
    return sum(names_twice(batch.raw(row)) for row in doubtful)
