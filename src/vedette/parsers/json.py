"""JSON records to events under their own names and those that rules and ECS use, columns made when asked for.
Counterpart: `parsers.objects` decodes, `parsers.families` has the tables; `detections` ask for columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from vedette.model.batch import Batch, Int64, Trust
from vedette.model.events import Column, Kinds, Table, Value
from vedette.model.protocols import Counter
from vedette.model.reasons import DropReason
from vedette.parsers.families import family_of
from vedette.parsers.frames import MISSING, Part, encoded, filled, look_up, moments_of, recoded, strings_of
from vedette.parsers.instants import NO_TIME, column_of
from vedette.parsers.lenses import names_of, read_objects
from vedette.parsers.objects import read_careful, read_object
from vedette.parsers.recognise import Recogniser
from vedette.parsers.windows import DERIVED, name_within
from vedette.text.addresses import canonical
from vedette.text.escape import decode
from vedette.text.times import rfc3339


class JsonParser:
    """One JSON object a record. Pure; never raises, whatever the bytes.

    A record that is no JSON object is counted and is still an event, with `message` and `event.original`.
    """

    def __init__(self, counter: Counter | None = None) -> None:
        self._counter = counter

    def parse(self, batch: Batch) -> Table:
        """The events of `batch`. `batch.timezone` must be a zone that exists."""
        events = Events(batch)
        if self._counter is not None:
            if events.unread:
                self._counter.add("records_unreadable", DropReason.JSON_UNREADABLE, len(events.unread))
            if events.duplicates:
                self._counter.add("records_doubtful", DropReason.JSON_DUPLICATE_KEY, events.duplicates)
        return events.table()


class Events:
    """Makes the columns of one batch."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._n = len(batch)
        found = read_objects(batch)
        self.duplicates = found.duplicates
        self.unread = found.unread
        self._lenses = found.lenses
        self._known: dict[str, Column | None] = {}

    # ------------------------------------------------------------------------------------------ columns

    def table(self) -> Table:
        """The table; every field is found when asked for."""
        batch, n = self._batch, self._n
        time, untimed = self._times()
        trust = np.broadcast_to(np.asarray(batch.trust, dtype=np.uint8), n)
        table = Table(
            batch,
            time=time,
            kinds=Recogniser(n, self._plain, trust >= Trust.ATTESTED).kinds(self._lenses),
            unreadable=len(self.unread),
            untimed=untimed,
        )
        providers: dict[str, Callable[[], Column]] = {
            "@timestamp": lambda: moments_of(time),
            "event.created": lambda: Column.constant(n, rfc3339(batch.read_at)),
            "host.id": lambda: Column.constant(n, batch.origin.host_id),
            "event.original": self._original,
            "message": self._message,
            "vedette.repeat": lambda: Column.constant(n, 1),
            "vedette.trust": self._trust,
            "vedette.service": lambda: _services(table.kinds),
            "source.ip": partial(self._address, "source.ip"),
            "destination.ip": partial(self._address, "destination.ip"),
        }
        for name, provider in providers.items():
            table.provide(name, provider)
        table.provide_others(self.find)
        table.provide_strings(self.strings)
        return table

    def find(self, name: str) -> Column | None:
        """The column of a field; None where no record has it."""
        plain = self._plain(name)
        ways = DERIVED.get(name)
        if ways is None or (plain is not None and bool((plain.codes >= 0).all())):
            return plain
        for sources, made in ways:
            inputs = [self._plain(source) for source in sources]
            if inputs[0] is not None or len(inputs) > 2:
                plain = filled(plain, _derived(self._n, inputs, made))
        return plain

    def _plain(self, name: str) -> Column | None:
        """The column of a field that records have as such, under whichever name."""
        if name not in self._known:
            parts = [part for lens in self._lenses for part in lens.take(name)]
            self._known[name] = encoded(self._n, parts, partial(self._exactly, name))
        return self._known[name]

    def _exactly(self, name: str, row: int) -> Any:
        """A value read anew, with all digits of its integers."""
        value = read_careful(self._batch.raw(row))
        if type(value) is not dict:
            return None
        family = family_of(frozenset(value))
        name_within(family.name, value)
        inner = [look_up(value, place.path) if place.path else value for place in family.places]
        names = [names_of(family, number, name) for number in range(len(family.places))]
        for rank in range(2):
            for number, within in enumerate(inner):
                for candidate in names[number][rank]:
                    found = look_up(within, candidate)
                    if found is not MISSING:
                        return found
        return None

    def strings(self, rows: Sequence[int]) -> list[tuple[str, ...]]:
        """Every string value of the events of these rows; the whole text of one that is no JSON."""
        found = []
        for row in rows:
            raw = self._batch.raw(row)
            value = read_object(raw)
            found.append((decode(raw),) if value is None else strings_of(value))
        return found

    def _original(self) -> Column:
        return Column.from_values([decode(self._batch.raw(row)) for row in range(self._n)])

    def _message(self) -> Column:
        """The message that a record has; the whole of one that is no JSON."""
        column = self._plain("message")
        unread = self.unread
        if unread:
            parts: list[Part] = [(np.array(unread, dtype=np.int64), [decode(self._batch.raw(row)) for row in unread])]
            column = filled(column, encoded(self._n, parts, self._batch.raw))
        return Column.absent(self._n) if column is None else column

    def _trust(self) -> Column:
        trust = self._batch.trust
        if isinstance(trust, Trust):
            return Column.constant(self._n, trust.name.lower())
        return Column(trust.astype(np.int32), [level.name.lower() for level in sorted(Trust)])

    def _address(self, name: str) -> Column:
        """A field of addresses: canonical text, absent where it is none or names several."""
        column = self._plain(name)
        if column is None:
            return Column.absent(self._n)
        single = [_single(value) for value in column.values]
        return recoded(column, [canonical(value) if isinstance(value, str) else None for value in single])

    # -------------------------------------------------------------------------------------------- times

    def _times(self) -> tuple[Int64, Int64]:
        """`@timestamp` of each record, and the rows that name none."""
        time = np.full(self._n, NO_TIME, dtype=np.int64)
        zone = None if self._batch.timezone == "UTC" else ZoneInfo(self._batch.timezone)
        for lens in self._lenses:
            left = lens.size
            for name in lens.family.time:
                # Windows and the clouds write UTC, also where they do not say so.
                local = zone if lens.family.name in ("plain", "ecs", "web", "journal", "opencanary") else None
                for rows, values in lens.take(name):
                    if left == lens.size and len(rows) == left:
                        fresh = rows
                    else:
                        open_places = np.flatnonzero(time[rows] == NO_TIME)
                        fresh = rows[open_places]
                        values = [values[at] for at in open_places.tolist()]
                    if len(fresh):
                        time[fresh] = column_of(values, local)
                left = int(np.count_nonzero(time[lens.rows] == NO_TIME))
                if not left:
                    break
        untimed = np.flatnonzero(time == NO_TIME)
        time[untimed] = self._batch.read_at
        return time, untimed


# ----------------------------------------------------------------------------------------------- helpers


def _derived(n: int, inputs: Sequence[Column | None], made: Callable[..., Value | None]) -> Column | None:
    if len(inputs) == 1:
        only = inputs[0]
        return None if only is None else recoded(only, [made(value) for value in only.values])
    columns = [Column.absent(n) if column is None else column for column in inputs]
    mixed = np.zeros(n, dtype=np.int64)
    for column in columns:
        mixed = mixed * (len(column.values) + 1) + column.codes + 1
    firsts, inverse = np.unique(mixed, return_index=True, return_inverse=True)[1:]
    values = [made(*(column.value(at) for column in columns)) for at in firsts.tolist()]
    return recoded(Column(inverse.astype(np.int32), values), values)


def _single(value: Value) -> Value:
    return value[0] if isinstance(value, tuple) and len(value) == 1 else value


def _services(found: Kinds) -> Column:
    """vedette.service: the first service of each record's kind."""
    names = [min(kind.services) if kind.services else None for kind in found.kinds]
    return recoded(Column(found.codes, names), names)
