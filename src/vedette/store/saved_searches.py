"""Saved searches in the state: a query with a name, and from how many records in which time on it is an alert.
Counterpart: `app.saved_searches` makes rules of them, `cli.search` saves and removes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from sqlalchemy import delete, select

from vedette.model.levels import Level
from vedette.model.rules import Comparison
from vedette.store.state import State
from vedette.store.tables import SAVED_SEARCHES

VERSION = 1


@dataclass(frozen=True, slots=True)
class SavedSearch:
    """A query that watches.

    threshold, comparison: how many records within `window` (microseconds) make a finding, for each value of
    `group_by`. hours: of the day, in UTC, in which records count; empty = all. level: of the finding, an int as Level
    has it.
    """

    name: str
    query: str
    window: int
    threshold: int
    level: int = Level.MEDIUM.value
    comparison: str = Comparison.GTE.value
    group_by: tuple[str, ...] = ()
    hours: tuple[int, ...] = ()
    created_at: int = 0
    created_by: str = ""
    version: int = VERSION


_DECODER = msgspec.json.Decoder(SavedSearch)


class SavedSearches:
    """The saved searches of a state. StateError where the disk refuses."""

    def __init__(self, state: State) -> None:
        self._state = state

    def save(self, search: SavedSearch) -> None:
        """Keep it in place of one of the same name."""
        body = msgspec.json.encode(search).decode()
        with self._state.writing() as connection:
            connection.execute(delete(SAVED_SEARCHES).where(SAVED_SEARCHES.c.name == search.name))
            connection.execute(SAVED_SEARCHES.insert().values(name=search.name, body=body))

    def remove(self, name: str) -> bool:
        """Whether there was one."""
        with self._state.writing() as connection:
            return connection.execute(delete(SAVED_SEARCHES).where(SAVED_SEARCHES.c.name == name)).rowcount > 0

    def all(self) -> Sequence[SavedSearch]:
        """Every one, by name."""
        with self._state.reading() as connection:
            bodies = connection.execute(select(SAVED_SEARCHES.c.body).order_by(SAVED_SEARCHES.c.name)).scalars()
            return [_DECODER.decode(body) for body in bodies]
