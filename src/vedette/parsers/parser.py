"""Records to events: header, service, pattern, and a column for every field, made when somebody asks for it.
Counterpart: `detections` ask for columns, `cli` shows `describe` in `explain`; `model.protocols.Parser` is the seam."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from vedette.model.batch import Batch, Bool, Int32, Int64, Origin, RecordFormat, Trust
from vedette.model.events import Column, Table, Value
from vedette.model.fields import is_attacker_text
from vedette.model.protocols import Counter
from vedette.model.reasons import BlameReason, DropReason
from vedette.parsers.columns import SPACE, Block, distinct, keep, merged, word_of
from vedette.parsers.formats import ADDRESS_FIELD, SOURCE_FIELDS, readings, value_of
from vedette.parsers.registry import BEGINNINGS, CANDIDATES, PatternFile, PatternSet
from vedette.parsers.shapes import NONE, AddressMemo, Match, Matcher, Outcome, Router
from vedette.parsers.syslog import ABSENT, LIGHT, Headers, given_headers, read_headers
from vedette.text.addresses import prefix
from vedette.text.escape import decode
from vedette.text.times import rfc3339

PATTERN = "vedette.pattern"

INDENT_LIMIT = 64
"""Spaces before a message (sudo pads the name with them) that matching skips at most."""


class SyslogParser:
    """Syslog lines and bare messages to events. Pure; never raises, whatever the bytes.

    wanted_services: only records of these are matched against patterns (None: all); the others still have
    header fields. light: batches of up to this many records are read and matched one by one.
    """

    def __init__(
        self,
        patterns: PatternSet,
        wanted_services: frozenset[str] | None = None,
        counter: Counter | None = None,
        *,
        light: int = LIGHT,
    ) -> None:
        self.patterns = patterns
        self._wanted = wanted_services
        self._counter = counter
        self._light = light
        self._routers: dict[tuple[str, bool], Router] = {}
        self._fields = patterns.fields
        self._memo = AddressMemo()
        self._constants = _Constants(patterns)

    def parse(self, batch: Batch) -> Table:
        """The events of `batch`. `batch.timezone` must be a zone that exists."""
        block = Block(batch.block)
        headers = given_headers(batch) if batch.header else read_headers(batch, block, light=self._light)
        services = _Services(self.patterns, batch, block, headers)
        starts = _unindented(block, headers.start, headers.end)
        matcher = Matcher(self.patterns, self._memo, block, starts, headers.end)
        for router, rows in self._routes(services):
            if len(rows) <= self._light:
                matcher.light(router, rows.tolist())
            else:
                matcher.run(router, rows)
        events = _Events(self.patterns, self._constants, batch, block, headers, services, matcher)
        unreadable = len(batch) - int(np.count_nonzero(headers.ok))
        if self._counter is not None:
            if unreadable:
                self._counter.add("records_unreadable", DropReason.HEADER_UNREADABLE, unreadable)
            if events.outcome.ambiguous:
                self._counter.add("records_not_blamed", BlameReason.AMBIGUOUS, len(events.outcome.ambiguous))
        return events.table(unreadable, self._fields)

    def _routes(self, services: _Services) -> list[tuple[Router, Int64]]:
        """Which rows are matched against which files' shapes."""
        routers: list[Router] = []
        places: dict[int, int] = {}
        route = np.full((2, len(services.owners)), NONE, dtype=np.int32)
        for module in (False, True):
            if module and not services.any_module:
                continue
            for code, owner in enumerate(services.owners):
                name = owner.service if owner else services.module_service if module else ""
                if not name or (self._wanted is not None and name not in self._wanted):
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
            found = self._routers[key] = Router(self.patterns, files)
        return found

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
        services = _Services(self.patterns, batch, block, headers)
        starts = _unindented(block, headers.start, headers.end)
        message = record[int(starts[0]) : int(headers.end[0])]
        matcher = Matcher(self.patterns, self._memo, block, starts, headers.end)
        found: list[Reading] = []
        owner, module = services.owners[services.codes[0]] if services.codes[0] >= 0 else None, services.modules[0]
        if owner or module:
            router = self._router(owner, bool(module))
            matcher.light(router, [0])
            found = self._readings(router, message)
        events = _Events(self.patterns, self._constants, batch, block, headers, services, matcher)
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
            service=str(table.service.value(0) or ""),
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


# ------------------------------------------------------------------------------------------------ services


class _Services:
    """The programs of a batch and whose patterns their records are judged by.

    codes: int32[n] into programs, -1 where there is none. owners: per program its file, or None; one more
    entry, the last, stands for records without a program. modules: rows that begin as a module's message does.
    """

    def __init__(self, patterns: PatternSet, batch: Batch, block: Block, headers: Headers) -> None:
        if headers.programs is not None:
            self.codes, self.programs = headers.programs
        else:
            self.codes, self.programs = _encoded(block, headers.program_start, headers.program_end)
        self.owners = [patterns.file_of(program) for program in self.programs] + [None]
        self.module_service = patterns.universal[0].service if patterns.universal else ""
        self.modules: Bool = np.zeros(len(batch), dtype=bool)
        if patterns.universal:
            words = block.word(headers.start)
            for beginning in BEGINNINGS:
                self.modules |= words & keep(len(beginning)) == word_of(beginning)
        self.any_module = bool(self.modules.any())

    def column(self) -> Column:
        """The service of each record."""
        names = sorted({owner.service for owner in self.owners if owner} | {self.module_service} - {""})
        number = {name: place for place, name in enumerate(names)}
        own = np.array([number[owner.service] if owner else -1 for owner in self.owners], dtype=np.int32)
        codes = own[self.codes]
        if self.any_module:
            codes = np.where((codes < 0) & self.modules, np.int32(number[self.module_service]), codes)
        return Column(codes, list(names))


def _encoded(block: Block, starts: Int64, ends: Int64) -> tuple[Int32, list[str]]:
    """Spans as codes and texts; -1 where there is none."""
    there = starts >= 0
    if there.all():
        codes, values = block.encode(starts, ends)
    else:
        rows = np.flatnonzero(there)
        codes = np.full(len(starts), ABSENT, dtype=np.int32)
        codes[rows], values = block.encode(starts[rows], ends[rows])
    return codes, [decode(value) for value in values]


def _unindented(block: Block, starts: Int64, ends: Int64) -> Int64:
    indented = np.flatnonzero((block.byte(starts) == SPACE) & (starts < ends))
    if not len(indented):
        return starts
    starts = starts.copy()
    for _ in range(INDENT_LIMIT):
        starts[indented] += 1
        here = starts[indented]
        indented = indented[(block.byte(here) == SPACE) & (here < ends[indented])]
        if not len(indented):
            break
    return starts


# ------------------------------------------------------------------------------------------------ columns


class _Constants:
    """Per field what each shape sets it to; made once for all batches."""

    def __init__(self, patterns: PatternSet) -> None:
        self._patterns = patterns
        self._known: dict[str, tuple[Int32, tuple[Value, ...]]] = {}

    def of(self, field: str) -> tuple[Int32, tuple[Value, ...]]:
        """int32 by shape (the last entry is for no shape) into values, -1 for none; and the values."""
        known = self._known.get(field)
        if known is None:
            seen: dict[tuple[type, Value], int] = {}
            meaning = np.full(len(self._patterns.shapes) + 1, -1, dtype=np.int32)
            for number, flat in enumerate(self._patterns.shapes):
                value = flat.pattern.id if field == PATTERN else flat.constants.get(field)
                if value is not None:
                    meaning[number] = seen.setdefault((type(value), value), len(seen))
            known = self._known[field] = meaning, tuple(value for _, value in seen)
        return known


class _Events:
    """Makes the columns of one batch."""

    def __init__(
        self,
        patterns: PatternSet,
        constants: _Constants,
        batch: Batch,
        block: Block,
        headers: Headers,
        services: _Services,
        matcher: Matcher,
    ) -> None:
        self._patterns = patterns
        self._constants = constants
        self._batch = batch
        self._block = block
        self._headers = headers
        self._services = services
        self._matcher = matcher
        self.outcome: Outcome = matcher.finish()
        self._n = len(batch)

    def table(self, unreadable: int, fields: frozenset[str]) -> Table:
        """The table with a provider for every field."""
        headers = self._headers
        table = Table(
            self._batch,
            time=headers.time,
            service=self._services.column(),
            repeat=headers.repeat,
            unreadable=unreadable,
            message=(headers.start, headers.end),
            ambiguous=np.array(sorted(self.outcome.ambiguous), dtype=np.int64),
        )
        n = self._n
        providers: dict[str, Callable[[], Column]] = {
            "@timestamp": self._times,
            "event.created": lambda: Column.constant(n, rfc3339(self._batch.read_at)),
            "host.id": lambda: Column.constant(n, self._batch.origin.host_id),
            "host.name": self._host,
            "process.name": lambda: Column(self._services.codes, list(self._services.programs)),
            "process.pid": lambda: _numbers(headers.pid),
            "message": lambda: self._spans(headers.start, headers.end),
            "event.original": lambda: self._spans(self._batch.starts, self._batch.ends),
            "log.syslog.facility.code": lambda: _numbers(np.where(headers.pri < 0, -1, headers.pri >> 3)),
            "log.syslog.severity.code": lambda: _numbers(np.where(headers.pri < 0, -1, headers.pri & 7)),
            "vedette.repeat": lambda: _numbers(headers.repeat),
            "vedette.service": lambda: table.service,
            "vedette.trust": self._trust,
            PATTERN: lambda: self._constant(PATTERN),
            CANDIDATES: self._candidates,
        }
        for field in fields:
            providers[field] = partial(self._field, field)
        providers["vedette.source.prefix"] = lambda: self._prefix(table, 24, 64)
        providers["vedette.source.prefix_56"] = lambda: self._prefix(table, 0, 56)
        providers["vedette.ssh.connection"] = lambda: self._connection(table)
        for field, provider in providers.items():
            table.provide(field, provider)
        return table

    # header

    def _times(self) -> Column:
        values, codes = np.unique(self._headers.time, return_inverse=True)
        return Column(codes.astype(np.int32), [rfc3339(int(value)) for value in values])

    def _host(self) -> Column:
        headers = self._headers
        if headers.hosts is not None:
            return Column(headers.hosts[0], list(headers.hosts[1]))
        codes, values = _encoded(self._block, headers.host_start, headers.host_end)
        return Column(codes, list(values))

    def _spans(self, starts: Int64, ends: Int64) -> Column:
        codes, values = self._block.encode(starts, ends)
        return Column(codes, [decode(value) for value in values])

    def _trust(self) -> Column:
        trust = self._batch.trust
        if isinstance(trust, Trust):
            return Column.constant(self._n, trust.name.lower())
        return Column(trust.astype(np.int32), [level.name.lower() for level in sorted(Trust)])

    # patterns

    def _constant(self, field: str) -> Column:
        """A field that shapes set; "vedette.pattern" is their pattern's id."""
        meaning, values = self._constants.of(field)
        return Column(meaning[self.outcome.shape], list(values))

    def _candidates(self) -> Column:
        codes = np.full(self._n, -1, dtype=np.int32)
        seen: dict[tuple[str, ...], int] = {}
        for row, names in self.outcome.ambiguous.items():
            codes[row] = seen.setdefault(tuple(sorted(names)), len(seen))
        return Column(codes, list(seen))

    def _field(self, field: str) -> Column:
        """A field that patterns set or capture."""
        constant = self._constant(field)
        parts: list[tuple[Int64, Int32, Sequence[Value]]] = []
        if constant.values:
            rows = np.flatnonzero(constant.codes >= 0)
            parts.append((rows, constant.codes[rows], constant.values))
        if field == "source.ip":
            return self._addresses()
        captured = self._captured(*(("source.domain", ADDRESS_FIELD) if field == "source.domain" else (field,)))
        if not captured:
            return constant
        rows, starts, ends, from_address = (np.concatenate(arrays) for arrays in zip(*captured, strict=True))
        if field in SOURCE_FIELDS and self.outcome.unsourced:
            told = self._except(self.outcome.unsourced, rows)
            rows, starts, ends, from_address = rows[told], starts[told], ends[told], from_address[told]
        if field == "source.domain":
            named = np.flatnonzero(from_address)
            kept = np.ones(len(rows), dtype=bool)
            kept[named] = self._matcher.ids_of(starts[named], ends[named]) == NONE
            rows, starts, ends = rows[kept], starts[kept], ends[kept]
        codes, words = self._block.encode(starts, ends)
        parts.append((rows, codes, [value_of(field, word) for word in words]))
        return merged(self._n, parts)

    def _addresses(self) -> Column:
        """source.ip: of the rows that name one source."""
        outcome = self.outcome
        ids = np.full(self._n, NONE, dtype=np.int32)
        for match in outcome.matches:
            shape = self._patterns.shapes[match.number].shape
            if shape.address >= 0:
                found = self._matcher.ids_of(*match.span(shape, shape.address)) if match.ids is None else match.ids
                mine = outcome.shape[match.rows] == match.number
                ids[match.rows[mine]] = found[mine]
        hidden = outcome.unsourced | outcome.ambiguous.keys()
        if hidden:
            ids[list(hidden)] = NONE
        # Not every address that was read is told.
        number = np.full(len(self._matcher.addresses) + 1, NONE, dtype=np.int32)
        number[ids] = 0
        used = np.flatnonzero(number[:-1] == 0)
        number[used] = np.arange(len(used), dtype=np.int32)
        number[-1] = NONE
        return Column(number[ids], [self._matcher.addresses[place] for place in used.tolist()])

    def _captured(self, *fields: str) -> list[tuple[Int64, Int64, Int64, Bool]]:
        """Rows, spans, and whether they come from the address field, of every match that captured one of `fields`."""
        found = []
        for match in self.outcome.matches:
            shape = self._patterns.shapes[match.number].shape
            for place, capture in enumerate(shape.captures):
                if capture.field in fields:
                    found.append(self._spans_of(match, place, capture.field == ADDRESS_FIELD))
        return found

    def _spans_of(self, match: Match, place: int, from_address: bool) -> tuple[Int64, Int64, Int64, Bool]:
        shape = self._patterns.shapes[match.number].shape
        starts, ends = match.span(shape, place)
        rows = match.rows
        mine = self.outcome.shape[rows] == match.number
        if not mine.all():
            rows, starts, ends = rows[mine], starts[mine], ends[mine]
        return rows, starts, ends, np.full(len(rows), from_address, dtype=bool)

    def _except(self, hidden: set[int], rows: Int64) -> Bool:
        """Which of `rows` are not hidden."""
        secret = np.zeros(self._n, dtype=bool)
        secret[list(hidden)] = True
        return ~secret[rows]

    # derived

    def _prefix(self, table: Table, v4: int, v6: int) -> Column:
        """The network around source.ip; v4 0: none for IPv4."""
        source = table.column("source.ip")
        values = [
            None if not isinstance(value, str) or (not v4 and ":" not in value) else prefix(value, v4, v6)
            for value in source.values
        ]
        rows = np.flatnonzero(source.codes >= 0)
        return merged(self._n, [(rows, source.codes[rows], values)])

    def _connection(self, table: Table) -> Column:
        """host, process id and peer port of what sshd says."""
        host, port, pid = table.column("host.name"), table.column("source.port"), self._headers.pid
        ssh = np.array([owner is not None and owner.service == "sshd" for owner in self._services.owners], dtype=bool)
        rows = np.flatnonzero(ssh[self._services.codes] & (port.codes >= 0) & (pid >= 0))
        if not len(rows):
            return Column.absent(self._n)
        # Three small numbers fit one word; whoever has larger ones is told apart row by row.
        keys = np.stack([host.codes[rows].astype(np.int64) + 1, pid[rows], port.codes[rows].astype(np.int64)])
        if int(keys.max()) < 1 << 23 and int(keys[0].max()) < 1 << 17:
            words = (keys[0] << 46 | keys[1] << 23 | keys[2]).astype(np.uint64)
            codes, values = distinct(words)
            triples = [(int(v) >> 46, int(v) >> 23 & 0x7FFFFF, int(v) & 0x7FFFFF) for v in values]
        else:
            seen: dict[tuple[int, int, int], int] = {}
            listed = [seen.setdefault((a, b, c), len(seen)) for a, b, c in keys.T.tolist()]
            codes, triples = np.array(listed, dtype=np.int32), list(seen)
        texts: list[Value] = [
            f"{host.values[a - 1] if a else ''}[{process}]:{port.values[c]}" for a, process, c in triples
        ]
        return merged(self._n, [(rows, codes, texts)])


def _numbers(values: npt.NDArray[np.signedinteger[Any]]) -> Column:
    """Numbers as a column; negative ones are absent."""
    found, codes = np.unique(values, return_inverse=True)
    absent = int(np.searchsorted(found, 0))
    return Column((codes - absent).clip(-1).astype(np.int32), [int(value) for value in found[absent:]])
