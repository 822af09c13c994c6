"""The columns of a batch's events: each is made when somebody asks for it.
Counterpart: `parsers.parser` finds headers and matches; `model.events.Table` keeps what was made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from vedette.model.batch import Batch, Bool, Int32, Int64, Trust
from vedette.model.events import Column, Kinds, LateValues, RecordKind, Table, Value
from vedette.model.fields import FIELDS, FieldType
from vedette.parsers.columns import Block, distinct, keep, merged, word_of
from vedette.parsers.formats import ADDRESS_FIELD, SOURCE_FIELDS
from vedette.parsers.groups import NONE, Match
from vedette.parsers.headers import LIGHT, Headers
from vedette.parsers.readings import value_of
from vedette.parsers.registry import BEGINNINGS, CANDIDATES, PatternSet
from vedette.parsers.shapes import Matcher, Outcome
from vedette.parsers.syslog import ABSENT
from vedette.text.addresses import prefix
from vedette.text.escape import decode
from vedette.text.times import rfc3339

PATTERN = "vedette.pattern"

# Sigma's service names that stand for several of ours.
_GROUPS: dict[str, frozenset[str]] = {
    "auth": frozenset({"sshd", "sudo", "su", "pam", "shadow", "systemd-logind", "login"}),
}


def log_sources_of(service: str) -> frozenset[str]:
    """The names by which Sigma log sources may ask for records of `service`."""
    return frozenset({service} | {group for group, members in _GROUPS.items() if service in members})


class Services:
    """The programs of a batch and whose patterns their records are judged by.

    codes: int32[n] into programs, -1 where there is none. owners: per program its file, or None; one more
    entry, the last, stands for records without a program. modules: rows that begin as a module's message does.
    """

    def __init__(self, patterns: PatternSet, batch: Batch, block: Block, headers: Headers) -> None:
        if headers.programs is not None:
            self.codes, self.programs = headers.programs
        else:
            self.codes, self.programs = _encoded(block, headers.program_start, headers.program_end)
            if headers.natives:
                # By dict: whoever writes syslog may name as many programs as there are records.
                known = {program: code for code, program in enumerate(self.programs)}
                for row, program in headers.natives.items():
                    self.codes[row] = known.setdefault(program, len(known))
                self.programs = list(known)
        self.owners = [patterns.file_of(program) for program in self.programs] + [None]
        self.module_service = patterns.universal[0].service if patterns.universal else ""
        self.modules: Bool = np.zeros(len(batch), dtype=bool)
        if patterns.universal:
            words = headers.first_words(block)
            for beginning in BEGINNINGS:
                self.modules |= words & keep(len(beginning)) == word_of(beginning)
        self.any_module = bool(self.modules.any())

    def kinds(self) -> Kinds:
        """Which log sources cover each record."""
        column = self.column()
        named = [RecordKind("linux", services=log_sources_of(str(service))) for service in column.values]
        return Kinds(np.where(column.codes < 0, np.int32(len(named)), column.codes), [*named, RecordKind("linux")])

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


class Constants:
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


class Events:
    """Makes the columns of one batch."""

    def __init__(
        self,
        patterns: PatternSet,
        constants: Constants,
        batch: Batch,
        block: Block,
        headers: Headers,
        services: Services,
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
            kinds=self._services.kinds(),
            repeat=headers.repeat,
            unreadable=unreadable,
            untimed=np.asarray(headers.untimed, dtype=np.int64),
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
            "vedette.service": self._services.column,
            "vedette.trust": self._trust,
            PATTERN: lambda: self._constant(PATTERN),
            CANDIDATES: self._candidates,
        }
        providers["vedette.source.prefix"] = lambda: self._prefix(table, 24, 64)
        providers["vedette.source.prefix_56"] = lambda: self._prefix(table, 0, 56)
        providers["vedette.ssh.connection"] = lambda: self._connection(table)
        table.provide_all(providers)
        table.provide_others(lambda field: self._field(field) if field in fields else None, fields)
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
        codes = meaning[self.outcome.shape]
        if self._n <= LIGHT:
            # There are far more values than so few records have.
            number = {code: place for place, code in enumerate(sorted(set(codes.tolist()) - {-1}))}
            few = np.array([number.get(code, -1) for code in codes.tolist()], dtype=np.int32)
            return Column(few, [values[code] for code in number])
        return Column(codes, list(values))

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
        codes, values = self._values(field, starts, ends)
        if parts:
            return merged(self._n, [*parts, (rows, codes, values)])
        everywhere = np.full(self._n, -1, dtype=np.int32)
        everywhere[rows] = codes
        return Column(everywhere, values)

    def _values(self, field: str, starts: Int64, ends: Int64) -> tuple[Int32, list[Value]]:
        """Codes of the spans, and the distinct values they mean for a field."""
        kind = FIELDS[field].type
        if kind is FieldType.LONG and len(starts) and int((ends - starts).max()) <= 8:
            codes, numbers = distinct(self._block.numbers(starts, ends))
            return codes, numbers.tolist()
        codes, words = self._block.encode(starts, ends)
        if kind in (FieldType.KEYWORD, FieldType.TEXT):
            # Other bytes are another text: `decode` loses nothing.
            return codes, [decode(word) for word in words]
        seen: dict[Value, int] = {}
        meaning = np.array([seen.setdefault(value_of(field, word), len(seen)) for word in words] or [0], dtype=np.int32)
        return meaning[codes], list(seen)

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
        names = self._matcher.addresses
        if self._n <= LIGHT:
            told: dict[int, int] = {}
            codes = [NONE if number == NONE else told.setdefault(number, len(told)) for number in ids.tolist()]
            return Column(np.array(codes, dtype=np.int32), [names[number] for number in told])
        # Not every address that was ever read is told.
        number = np.full(len(names) + 1, NONE, dtype=np.int32)
        number[ids] = 0
        used = np.flatnonzero(number[:-1] == 0)
        number[used] = np.arange(len(used), dtype=np.int32)
        number[-1] = NONE
        return Column(number[ids], [names[place] for place in used.tolist()])

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
        seen: dict[Value, int] = {}
        meaning = np.full(len(source.values) + 1, -1, dtype=np.int32)
        for code, value in enumerate(source.values):
            if isinstance(value, str) and (v4 or ":" in value):
                meaning[code] = seen.setdefault(_prefix(value, v4, v6), len(seen))
        return Column(meaning[source.codes], list(seen))

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
            triples = [(word >> 46, word >> 23 & 0x7FFFFF, word & 0x7FFFFF) for word in values.tolist()]
        else:
            seen: dict[tuple[int, int, int], int] = {}
            listed = [seen.setdefault((a, b, c), len(seen)) for a, b, c in keys.T.tolist()]
            codes, triples = np.array(listed, dtype=np.int32), list(seen)
        everywhere = np.full(self._n, -1, dtype=np.int32)
        everywhere[rows] = codes
        return Column(everywhere, _Connections(triples, host.values, port.values))


class _Connections(LateValues):
    """Texts of connections, written when looked at: there are about as many as records, and few are."""

    def __init__(self, triples: list[tuple[int, int, int]], hosts: Sequence[Value], ports: Sequence[Value]) -> None:
        self._triples = triples
        self._hosts = hosts
        self._ports = ports

    def __len__(self) -> int:
        return len(self._triples)

    @overload
    def __getitem__(self, place: int) -> Value: ...
    @overload
    def __getitem__(self, place: slice) -> list[Value]: ...
    def __getitem__(self, place: int | slice) -> Value | list[Value]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        return self.some([place])[0]

    def some(self, places: Sequence[int]) -> list[Value]:
        """The texts at these places."""
        triples, ports = self._triples, self._ports
        hosts = ["", *self._hosts]
        return [f"{hosts[host]}[{process}]:{ports[port]}" for host, process, port in [triples[at] for at in places]]


@lru_cache(maxsize=1 << 16)
def _prefix(address: str, v4: int, v6: int) -> str:
    return prefix(address, v4, v6)


def _numbers(values: npt.NDArray[np.signedinteger[Any]]) -> Column:
    """Numbers as a column; negative ones are absent."""
    found, codes = np.unique(values, return_inverse=True)
    absent = int(np.searchsorted(found, 0))
    return Column((codes - absent).clip(-1).astype(np.int32), [int(value) for value in found[absent:]])
