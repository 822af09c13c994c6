"""The objects of one maker, and what a field is called in them: places to look, names it may have there.
Counterpart: `parsers.kinds` says it as data, `parsers.frames` holds the objects, `parsers.json` makes the columns."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from vedette.model.batch import Int64
from vedette.parsers.frames import Frame, Group, Part, without
from vedette.parsers.kinds import FAMILIES, Family, family_of, same_as
from vedette.parsers.windows import spread


@lru_cache(maxsize=16_384)
def names_of(family: Family, place: int, name: str) -> tuple[str, ...]:
    """The names under which a field may stand in a place."""
    names: dict[str, None] = {}
    special = family.places[place].names
    for same in same_as(name):
        names |= dict.fromkeys(special.get(same, ()) if same == name and family.places[place].path else ())
        names[same] = None
        names |= dict.fromkeys(special.get(same, ()))
    if name.startswith("data."):
        names[name[5:]] = None
    if family.caseless:
        for same in list(names):
            parts = same.split(".")
            names[".".join(part[:1].lower() + part[1:] for part in parts)] = None
            names[".".join(part[:1].upper() + part[1:] for part in parts)] = None
    return tuple(names)


class Lens:
    """The records of one family."""

    def __init__(self, number: int, family: Family, groups: list[Group]) -> None:
        self.family = family
        self.groups = groups
        self.size = sum(len(group.rows) for group in groups)
        self.rows = np.concatenate([group.rows for group in groups]) if len(groups) > 1 else groups[0].rows
        self._keys = [number * 8 + place for place in range(len(family.places))]
        self._places: list[list[Group] | None] = [None] * len(family.places)

    def at(self, place: int) -> list[Group]:
        """The groups of objects that hold fields in a place."""
        known = self._places[place]
        if known is None:
            path = self.family.places[place].path
            known = self.groups if not path else self._down(path)
            self._places[place] = known
        return known

    def _down(self, path: str) -> list[Group]:
        rows: list[Int64] = []
        objects: list[Any] = []
        for group in self.groups:
            for found, values in group.take(path):
                some = [at for at, value in enumerate(values) if type(value) is dict]
                rows.append(found if len(some) == len(values) else found[some])
                objects += [values[at] for at in some]
        return Frame(np.concatenate(rows), objects).groups() if objects else []

    def take(self, name: str) -> list[Part]:
        """The records that have a field, under whichever name."""
        parts: list[Part] = []
        for place, key in enumerate(self._keys):
            found: list[Part] = []
            for group in self.at(place):
                picks = group.shape.picks.setdefault(key, {})
                names = picks.get(name)
                if names is None:
                    names = picks[name] = tuple(filter(group.shape.leads, names_of(self.family, place, name)))
                if names:
                    found += group.take_first(names)
            if found:
                parts = [*parts, *without([rows for rows, _ in parts], found)] if parts else found
                if sum(len(rows) for rows, _ in parts) == self.size:
                    break
        return parts


def lenses_of(frame: Frame) -> list[Lens]:
    """The records of a frame by family."""
    by_family: dict[str, list[Group]] = {}
    for group in frame.groups():
        family = family_of(group.shape.keys)
        if family.name in ("evtx", "evtx-bare", "winlogbeat"):
            group = spread_group(family, group)
        by_family.setdefault(family.name, []).append(group)
    return [
        Lens(number, family, by_family[family.name])
        for number, family in enumerate(FAMILIES)
        if family.name in by_family
    ]


def spread_whole(family: Family, value: Any) -> Any:
    """An object of a Windows family with its data by name (see `windows.spread`)."""
    if family.name == "evtx" and type(value.get("Event")) is dict:
        return {**value, "Event": spread(value["Event"])}
    if family.name == "evtx-bare":
        return spread(value)
    return value


def spread_group(family: Family, group: Group) -> Group:
    """The same where no record of a group has data in lists or further down."""
    if family.name == "winlogbeat":
        return group
    if family.name == "evtx":
        events = [value for value in group.values("Event") if type(value) is dict]
    else:
        events = group.objects
    plain = all(
        type(data := event.get("EventData")) is not list
        and not (type(data) is dict and type(data.get("Data")) in (list, dict))
        and "UserData" not in event
        for event in events
    )
    if plain:
        return group
    return Group(group.shape, group.rows, [spread_whole(family, value) for value in group.objects])
