"""Records to events: header, service, pattern, and a column for every field, made when somebody asks for it.
Counterpart: `detections` ask for columns, `cli` shows `describe` in `explain`; `model.protocols.Parser` is the seam."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vedette.model.batch import Batch, Int64, Origin, RecordFormat
from vedette.model.events import RecordKind, Table, Value
from vedette.model.fields import is_attacker_text
from vedette.model.protocols import Counter
from vedette.model.reasons import BlameReason, DropReason
from vedette.model.rules import LogSource
from vedette.parsers.addresses import AddressTable
from vedette.parsers.columns import SPACE, Block, UInt64
from vedette.parsers.events import PATTERN, Constants, Events, Services, log_sources_of
from vedette.parsers.formats import given_by
from vedette.parsers.groups import NONE
from vedette.parsers.headers import LIGHT, Headers, given_headers, read_headers
from vedette.parsers.readings import readings, value_of
from vedette.parsers.registry import HEAD_LIMIT, PatternFile, PatternSet
from vedette.parsers.shapes import Matcher, Router
from vedette.text.escape import decode


class Interest(Protocol):
    """Whether anybody looks at a record of a kind of which these fields are known, None where absent.

    fields: those on which that may depend.
    """

    fields: frozenset[str]

    def __call__(self, kind: RecordKind, known: Mapping[str, Value], /) -> bool:
        """False: nobody does, whatever its other fields and its text are."""
        ...


INDENT_LIMIT = 64
"""Spaces before a message (sudo pads the name with them) that matching skips at most."""


class SyslogParser:
    """Syslog lines and bare messages to events. Pure; never raises, whatever the bytes.

    wanted_services: only records of these, as log sources name them, are matched against patterns (None:
    all); the others still have header fields. interest: messages nobody looks at are left unmatched (None: none
    are). light: batches of up to this many records are read and matched one by one.
    """

    def __init__(
        self,
        patterns: PatternSet,
        wanted_services: frozenset[str] | None = None,
        counter: Counter | None = None,
        *,
        interest: Interest | None = None,
        light: int = LIGHT,
    ) -> None:
        self.patterns = patterns
        self._interest = interest
        self._wanted = wanted_services
        self._counter = counter
        self._light = light
        self._routers: dict[tuple[str, bool], Router] = {}
        self._fields = patterns.fields
        self._table = AddressTable()
        self._constants = Constants(patterns)

    def parse(self, batch: Batch) -> Table:
        """The events of `batch`. `batch.timezone` must be a zone that exists."""
        block = Block(batch.block)
        if batch.format is RecordFormat.MESSAGE:
            headers = given_headers(batch)
        else:
            headers = read_headers(batch, block, light=self._light)
        services = Services(self.patterns, batch, block, headers)
        starts, words = self._begun(services, block, headers)
        if self._table.full:
            self._table = AddressTable()
        matcher = Matcher(self.patterns, self._table, block, starts, headers.end, words)
        for router, rows in self._routes(services):
            if len(rows) <= self._light:
                matcher.light(router, rows.tolist())
            else:
                matcher.run(router, rows)
        events = Events(self.patterns, self._constants, batch, block, headers, services, matcher)
        unreadable = len(batch) - int(np.count_nonzero(headers.ok))
        if self._counter is not None:
            if unreadable:
                self._counter.add("records_unreadable", DropReason.HEADER_UNREADABLE, unreadable)
            if events.outcome.ambiguous:
                self._counter.add("records_not_blamed", BlameReason.AMBIGUOUS, len(events.outcome.ambiguous))
        return events.table(unreadable, self._fields)

    def _begun(self, services: Services, block: Block, headers: Headers) -> tuple[Int64, UInt64]:
        """Where messages begin, without spaces and what programs write before them, and their first words there."""
        starts, words = _unindented(block, headers)
        owners = [owner if owner and owner.head and self._asked(owner.service) else None for owner in services.owners]
        if not any(owners):
            return starts, words
        moved, begun = [], []
        rows = np.flatnonzero(np.array([owner is not None for owner in owners])[services.codes])
        spans = zip(services.codes[rows].tolist(), starts[rows].tolist(), headers.end[rows].tolist(), strict=True)
        for row, (code, begin, end) in zip(rows.tolist(), spans, strict=True):
            owner = owners[code]
            # A slice, so that a head ends within its record.
            length = owner.head_length(block.raw[begin : min(end, begin + HEAD_LIMIT)]) if owner else 0
            if length:
                moved.append(row)
                begun.append(begin + length)
        if moved:
            starts, words = starts.copy(), words.copy()
            starts[moved] = begun
            words[moved] = block.word(starts[moved])
        return starts, words

    def _asked(self, service: str) -> bool:
        """Whether anybody wants records of a service matched."""
        return self._wanted is None or bool(log_sources_of(service) & self._wanted)

    def _routes(self, services: Services) -> list[tuple[Router, Int64]]:
        """Which rows are matched against which files' shapes."""
        routers: list[Router] = []
        places: dict[int, int] = {}
        route = np.full((2, len(services.owners)), NONE, dtype=np.int32)
        for module in (False, True):
            if module and not services.any_module:
                continue
            for code, owner in enumerate(services.owners):
                name = owner.service if owner else services.module_service if module else ""
                if not name or not self._asked(name):
                    continue
                router = self._router(owner, module)
                if id(router) not in places:
                    places[id(router)] = len(routers)
                    routers.append(router)
                route[int(module), code] = places[id(router)]
        chosen = route[0][services.codes]
        if services.any_module:
            chosen = np.where(services.modules, route[1][services.codes], chosen)
        return [(router, np.flatnonzero(chosen == place)) for place, router in enumerate(routers)]

    def _router(self, owner: PatternFile | None, module: bool) -> Router:
        """The shapes of a program's own file, and of the files for modules that speak in its name."""
        key = (owner.service if owner else "", module)
        found = self._routers.get(key)
        if found is None:
            files = [owner] if owner else []
            files += [file for file in self.patterns.universal if module and file is not owner]
            service = owner.service if owner else files[0].service if files else ""
            found = self._routers[key] = Router(self.patterns, files, self._wanted_shapes(service))
        return found

    def _wanted_shapes(self, service: str) -> Callable[[int], bool] | None:
        """Which shapes of a service's records somebody looks at; None where also records without any are."""
        interest, kind = self._interest, RecordKind("linux", services=log_sources_of(service))
        if interest is None:
            return None
        # What patterns alone give is absent where they do not.
        own = {
            name
            for name in self._fields & interest.fields
            if not name.startswith("vedette.source.") and name != PATTERN
        }
        if interest(kind, dict.fromkeys(own)):
            return None
        verdicts: dict[tuple[tuple[str, Value], ...], bool] = {}

        def wanted(number: int) -> bool:
            flat = self.patterns.shapes[number]
            captured = given_by(flat.shape)
            known = tuple((name, flat.constants.get(name)) for name in own if name not in captured)
            if known not in verdicts:
                verdicts[known] = interest(kind, dict(known))
            return verdicts[known]

        return wanted

    # -------------------------------------------------------------------------------------------- explain

    def describe(
        self, record: bytes, *, read_at: int, program: str = "", year: int = 0, timezone: str = "UTC"
    ) -> Description:
        """What is made of one record, and why; with `program` it is that program's bare message."""
        batch = Batch(
            origin=Origin("", "explain"),
            number=0,
            block=record,
            starts=np.zeros(1, dtype=np.int64),
            ends=np.array([len(record)], dtype=np.int64),
            positions=np.zeros(1, dtype=np.int64),
            read_at=read_at,
            year=year,
            timezone=timezone,
            format=RecordFormat.MESSAGE if program else RecordFormat.SYSLOG,
        )
        block = Block(record)
        headers = given_headers(batch, program) if program else read_headers(batch, block)
        services = Services(self.patterns, batch, block, headers)
        starts, words = self._begun(services, block, headers)
        message = record[int(starts[0]) : int(headers.end[0])]
        matcher = Matcher(self.patterns, self._table, block, starts, headers.end, words)
        found: list[Reading] = []
        owner, module = services.owners[services.codes[0]] if services.codes[0] >= 0 else None, services.modules[0]
        if owner or module:
            router = self._router(owner, bool(module))
            matcher.light(router, [0], everything=True)
            found = self._readings(router, message)
        events = Events(self.patterns, self._constants, batch, block, headers, services, matcher)
        table = events.table(int(not headers.ok[0]), self._fields)
        fields = []
        for name in table.fields():
            column = table.column(name)
            if column.codes[0] >= 0:
                fields.append(SeenField(name, column.value(0), is_attacker_text(name)))
        number = int(events.outcome.shape[0])
        flat = self.patterns.shapes[number] if number != NONE else None
        given = {seen.name: seen for seen in fields}
        if 0 in events.outcome.ambiguous:
            blame = BlameReason.AMBIGUOUS
        elif "source.ip" not in given:
            blame = BlameReason.NO_ADDRESS
        else:
            blame = BlameReason.ALLOWED
        return Description(
            ok=bool(headers.ok[0]),
            time=int(headers.time[0]),
            message=decode(record[int(headers.start[0]) : int(headers.end[0])]),
            repeat=int(headers.repeat[0]),
            service=str(table.column("vedette.service").value(0) or ""),
            pattern=flat.pattern.id if flat else "",
            format=flat.format.text if flat else "",
            origin=str(flat.format.location) if flat else "",
            fields=tuple(fields),
            readings=tuple(found),
            candidates=tuple(sorted(events.outcome.ambiguous.get(0, ()))),
            cut=0 in events.outcome.unsourced,
            blame=blame,
        )

    def _readings(self, router: Router, message: bytes) -> list[Reading]:
        found = []
        matched = False
        for number in router.of(message):
            flat = self.patterns.shapes[number]
            if flat.pattern.rest and matched:
                continue
            for spans in readings(flat.shape, message)[0]:
                matched = True
                captured = {
                    capture.field: value_of(capture.field, message[start:end])
                    for capture, (start, end) in zip(flat.shape.captures, spans, strict=True)
                    if capture.field
                }
                found.append(
                    Reading(flat.service, flat.pattern.id, flat.format.text, str(flat.format.location), captured)
                )
        return found


# ------------------------------------------------------------------------------------------------ explain


def wanted_of(logsources: Iterable[LogSource]) -> frozenset[str] | None:
    """`wanted_services` of a parser whose records rules of these log sources look at."""
    wanted = set()
    for source in logsources:
        if source.product in ("", "linux") and not source.category:
            if not source.service:
                return None
            wanted.add(source.service)
    return frozenset(wanted)


@dataclass(frozen=True, slots=True)
class SeenField:
    """A field of a described record; `attacker_text`: no block rests on it."""

    name: str
    value: Value
    attacker_text: bool


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read a message. origin: file:line:column of the format."""

    service: str
    pattern: str
    format: str
    origin: str
    fields: dict[str, Value]


@dataclass(frozen=True, slots=True)
class Description:
    """One record as the parser sees it; texts are as logged and must be escaped before they are shown.

    pattern, format, origin: of the reading that gives the fields, "" where no pattern matches. candidates:
    the addresses readings disagree on. cut: the message may have lost its tail, so no source is told.
    blame: by grammar alone; trust is the source's matter.
    """

    ok: bool
    time: int
    message: str
    repeat: int
    service: str
    pattern: str
    format: str
    origin: str
    fields: tuple[SeenField, ...]
    readings: tuple[Reading, ...]
    candidates: tuple[str, ...]
    cut: bool
    blame: BlameReason


def _unindented(block: Block, headers: Headers) -> tuple[Int64, UInt64]:
    """Where messages begin without the spaces before them, and their first words there."""
    starts, words, ends = headers.start, headers.first_words(block), headers.end
    indented = np.flatnonzero((words & np.uint64(0xFF) == SPACE) & (starts < ends))
    if not len(indented):
        return starts, words
    every, starts = indented, starts.copy()
    for _ in range(INDENT_LIMIT):
        starts[indented] += 1
        here = starts[indented]
        indented = indented[(block.byte(here) == SPACE) & (here < ends[indented])]
        if not len(indented):
            break
    words = words.copy()
    words[every] = block.word(starts[every])
    return starts, words
