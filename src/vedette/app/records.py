"""A few records of any format with all their fields by name: for people who look at them, not for the engine.
Counterpart: parsers make the columns; `explain` shows what stands here, `scaffold` compares it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property

import orjson

from vedette.model.batch import Batch, RecordFormat
from vedette.model.events import RecordKind, Table, Value
from vedette.model.fields import FIELDS
from vedette.model.protocols import Parser

NAMES_LIMIT = 2_000
"""Fields of JSON objects that are listed at most."""
_DEPTH = 12
# How Windows' own rendering marks attributes; the fields made of them are found by their names in rules.
_MARKUP = ("#attributes", "_attributes", "#text", "@")
_AUDIT_NAMES = re.compile(rb"(?:^|[ '\x1d])([A-Za-z][A-Za-z0-9_-]{0,40})=")
_SYSMON = ("Image", "CommandLine", "CurrentDirectory", "TargetFilename", "DestinationIp", "DestinationPort", "User")
_WINDOWS = ("EventID", "Channel", "Provider_Name", "Computer", "UserID")


class Records:
    """The records of one batch, parsed."""

    def __init__(self, parser: Parser, batch: Batch) -> None:
        self.batch = batch
        self.table: Table = parser.parse(batch)

    def __len__(self) -> int:
        return len(self.batch)

    def kind(self, row: int) -> RecordKind:
        """What the record is in the words of log sources."""
        kinds = self.table.kinds
        return kinds.kinds[int(kinds.codes[row])]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every field that some record has, the registry's first."""
        declared = dict.fromkeys(name for name in (*self.table.fields(), *FIELDS) if self._somewhere(name))
        own = dict.fromkeys(name for name in self._own() if name not in declared and self._somewhere(name))
        return (*declared, *own)

    def fields(self, row: int) -> dict[str, Value]:
        """The fields that record `row` has, with their values; null ones too."""
        found = {}
        for name in self.names:
            column = self.table.column(name)
            if column.codes[row] >= 0:
                found[name] = column.value(row)
        return found

    def _somewhere(self, name: str) -> bool:
        return bool((self.table.column(name).codes >= 0).any())

    def _own(self) -> Iterator[str]:
        """The names that records give their fields themselves, as rules write them."""
        if self.batch.format is RecordFormat.AUDIT:
            yield from _SYSMON
            for row in range(len(self.batch)):
                yield from map(bytes.decode, _AUDIT_NAMES.findall(self.batch.raw(row)))
        if self.batch.format is not RecordFormat.JSON:
            return
        seen: dict[str, None] = {}
        for row in range(len(self.batch)):
            try:
                value = orjson.loads(self.batch.raw(row))
            except orjson.JSONDecodeError:
                continue
            if isinstance(value, dict):
                seen.update(dict.fromkeys(_named(value)))
            if len(seen) > NAMES_LIMIT:
                break
        yield from list(seen)[:NAMES_LIMIT]


def _named(record: dict[str, object]) -> Iterator[str]:
    from vedette.parsers.families import family_of

    places = sorted((place.path for place in family_of(frozenset(record)).places if place.path), key=len, reverse=True)
    windows = any(path.endswith(("EventData", "event_data")) for path in places)
    if windows:
        yield from _WINDOWS
    for path in _flat(record, "", 0):
        if any(mark in path for mark in _MARKUP):
            continue
        inside = next((place for place in places if path.startswith(f"{place}.")), "")
        yield path[len(inside) + 1 :] if inside else path


def _flat(value: object, path: str, depth: int) -> Iterator[str]:
    if isinstance(value, dict) and value and depth < _DEPTH:
        for key, one in value.items():
            yield from _flat(one, f"{path}.{key}" if path else str(key), depth + 1)
    elif isinstance(value, list) and any(isinstance(one, dict) for one in value) and depth < _DEPTH:
        for one in value:
            yield from _flat(one, path, depth + 1)
    elif path:
        yield path
