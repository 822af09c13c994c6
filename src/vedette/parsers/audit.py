"""Linux audit events (all records of one event, a line each) to events under native, Sysmon and ECS names.
Counterpart: `text.audit_lines` joined the lines; `parsers.audit_values` says what values mean; `detections` ask."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np

from vedette.model.batch import Batch, Bool, Int32, Int64, Trust
from vedette.model.events import Column, Kinds, RecordKind, Table, Texts, Value
from vedette.model.protocols import Counter
from vedette.model.reasons import DropReason
from vedette.parsers import audit_values as meaning
from vedette.parsers.audit_arguments import is_argument, plain_arguments
from vedette.parsers.audit_spans import (
    all_quoted,
    by_beginning,
    decoded,
    hidden_texts,
    joined,
    together,
    unhexed_texts,
    words_within,
)
from vedette.parsers.audit_times import times_of
from vedette.parsers.columns import FEW, Block, keep, word_of
from vedette.parsers.frames import encoded, filled, moments_of, recoded
from vedette.text.addresses import canonical
from vedette.text.escape import decode, encode
from vedette.text.times import rfc3339

_ARGUMENT = re.compile(r"a\d{1,5}")

# What rules and ECS call what audit writes; of several names the first that an event has.
NAMES: Mapping[str, tuple[str, ...]] = {
    "Image": ("exe",),
    "process.executable": ("exe",),
    "process.name": ("comm",),
    "process.title": ("proctitle",),
    "CurrentDirectory": ("cwd",),
    "process.working_directory": ("cwd",),
    "process.tty.name": ("tty", "terminal"),
    "host.name": ("node",),
    "user.audit.id": ("auid",),
    "user.id": ("uid",),
    "user.effective.id": ("euid",),
    "group.id": ("gid",),
    "tags": ("key",),
}
NUMBERS: Mapping[str, str] = {
    "process.pid": "pid",
    "ProcessId": "pid",
    "process.parent.pid": "ppid",
    "ParentProcessId": "ppid",
}


class AuditParser:
    """Linux audit. Pure; never raises, whatever the bytes. A record without time and serial is counted."""

    def __init__(self, counter: Counter | None = None) -> None:
        self._counter = counter

    def parse(self, batch: Batch) -> Table:
        """The events of `batch`, each record of it one joined event."""
        events = Events(batch)
        if self._counter is not None and events.unreadable:
            self._counter.add("records_unreadable", DropReason.HEADER_UNREADABLE, events.unreadable)
        return events.table()


class Events:
    """Makes the columns of one batch. All `key=value` words of it are found at once, and asked for by key."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._n = n = len(batch)
        self._block = Block(batch.block)
        raw = np.frombuffer(batch.block, dtype=np.uint8)
        starts, ends, rows = words_within(batch, raw)
        # The words of a program's message stand within `msg='...'`.
        begun, words = starts, self._block.word(starts)
        quoted = np.flatnonzero((words & keep(5)) == word_of(b"msg='"))
        if len(quoted):
            starts = starts.copy()
            starts[quoted] += 5
            words[quoted] = self._block.word(starts[quoted])
        self._starts, self._rows, self._words = starts, rows, words
        self._words_at = begun
        self._ends = ends
        self._found: dict[str, tuple[Int64, Int64, Int64]] = {}
        self._ordered = by_beginning(words)
        self._columns: dict[str, Column | None] = {}
        self._peers_of: dict[str, Column | None] = {}
        places, self._type_starts, type_ends = self._spans("type")
        self._type_rows = places
        codes, names = self._block.encode(self._type_starts, type_ends)
        self._type_codes: Int32 = codes
        self._type_names = [decode(name) for name in names]
        self._time, self._read = times_of(batch, self._block, *self._spans("msg"))
        self.unreadable = n - int(np.count_nonzero(self._read))

    # -------------------------------------------------------------------------------------------- words

    def _spans(self, key: str) -> tuple[Int64, Int64, Int64]:
        """Rows, starts and ends of the values of `key`, in order."""
        known = self._found.get(key)
        if known is None:
            name = key.encode("utf-8", "replace") + b"="
            if self._ordered is None:
                places = np.flatnonzero((self._words & keep(len(name))) == word_of(name))
            else:
                bounds = self._ordered.bounds.get(int(word_of(name)), (0, 0))
                places = self._ordered.order[slice(*bounds)]
            if len(name) > 8:
                places = places[self._block.matches(self._starts[places], name)]
            begin = self._starts[places] + len(name)
            kept = begin <= self._ends[places]
            places, begin = places[kept], begin[kept]
            known = self._found[key] = self._rows[places], begin, self._ends[places]
        return known

    def _lines(self, starts: Int64) -> Int64:
        """Which of the lines with a type each position is on; -1 before the first of its event."""
        lines: Int64 = np.searchsorted(self._type_starts, starts, side="right") - 1
        if len(self._type_rows):
            rows = np.searchsorted(self._batch.starts, starts, side="right") - 1
            lines[self._type_rows[lines] != rows] = -1
        return lines

    def _on(self, starts: Int64, wanted: str) -> Bool:
        """Whether each position is on a line of a type."""
        if wanted not in self._type_names or not len(starts):
            return np.zeros(len(starts), dtype=np.bool_)
        lines = self._lines(starts)
        found: Bool = (lines >= 0) & (self._type_codes[lines] == self._type_names.index(wanted))
        return found

    def _has(self, wanted: str) -> Bool:
        """Which events have a record of a type."""
        out = np.zeros(self._n, dtype=np.bool_)
        if wanted in self._type_names:
            out[self._type_rows[self._type_codes == self._type_names.index(wanted)]] = True
        return out

    def _column_of(
        self, rows: Int64, starts: Int64, ends: Int64, made: Callable[[bytes], Value | None]
    ) -> Column | None:
        """A column of spans; several of one event are a field with several values."""
        if not len(rows):
            return None
        values: Sequence[Value | None]
        if made is meaning.untrusted and all_quoted(self._block, starts, ends):
            # Nearly always: as it stands between the quotes.
            codes, words = self._block.encode(starts + 1, ends - 1)
            values = decoded(words)
        else:
            codes, words = self._block.encode(starts, ends)
            values = [made(word) for word in words]
        if len(rows) > 1 and (rows[1:] == rows[:-1]).any():
            rows, codes, runs = together(rows, codes)
            values = [_one_or_several([values[code] for code in run]) for run in runs]
        everywhere = np.full(self._n, -1, dtype=np.int32)
        everywhere[rows] = codes
        return recoded(Column(everywhere, words_of(values)), values)

    # ------------------------------------------------------------------------------------------ columns

    def table(self) -> Table:
        """The table; every field is found when asked for."""
        batch, n, time = self._batch, self._n, self._time
        untimed = np.flatnonzero(~self._read)
        table = Table(batch, time=time, kinds=self._kinds(), unreadable=self.unreadable, untimed=untimed)
        providers: dict[str, Callable[[], Column]] = {
            "@timestamp": lambda: moments_of(time),
            "event.created": lambda: Column.constant(n, rfc3339(batch.read_at)),
            "host.id": lambda: Column.constant(n, batch.origin.host_id),
            "vedette.repeat": lambda: Column.constant(n, 1),
            "vedette.service": lambda: Column.constant(n, "auditd"),
            "vedette.trust": self._trust,
            "message": self._original,
            "event.original": self._original,
        }
        for name, provider in providers.items():
            table.provide(name, provider)
        table.provide_others(self.find)
        table.provide_strings(self.strings, self._written)
        return table

    def find(self, name: str) -> Column | None:
        """The column of a field; None where no event has it."""
        if name not in self._columns:
            self._columns[name] = self._make(name)
        return self._columns[name]

    def _make(self, name: str) -> Column | None:
        made = _DERIVED.get(name)
        if made is not None:
            return made(self)
        if name in NUMBERS:
            return self._column_of(*self._spans(NUMBERS[name]), meaning.number)
        keys = NAMES.get(name, (name,))
        column: Column | None = None
        for key in keys:
            column = filled(column, self._native(key))
        return column

    def _native(self, key: str) -> Column | None:
        if not key or any(character in key for character in ". =\n"):
            return None
        if key == "type":
            return self._types()
        rows, starts, ends = self._spans(key)
        if _ARGUMENT.fullmatch(key):
            return self._argument(key, rows, starts, ends)
        return self._column_of(rows, starts, ends, meaning.value_of(key))

    def _types(self) -> Column | None:
        """The types of each event's records, each once."""
        if not len(self._type_rows):
            return None
        rows, codes, runs = together(self._type_rows, self._type_codes)
        values = [_one_or_several([self._type_names[code] for code in run]) for run in runs]
        everywhere = np.full(self._n, -1, dtype=np.int32)
        everywhere[rows] = codes
        return recoded(Column(everywhere, words_of(values)), values)

    def _argument(self, key: str, rows: Int64, starts: Int64, ends: Int64) -> Column | None:
        """An argument of the program that was run, where there is one, else of the system call."""
        executed = self._on(starts, "EXECVE")
        of_program = self._column_of(rows[executed], starts[executed], ends[executed], meaning.untrusted)
        split = self._spans(f"{key}[0]")[0]
        if len(split):
            number = int(key[1:])
            told = [self._arguments(row) for row in split.tolist()]
            kept = [
                (row, words[number]) for row, words in zip(split.tolist(), told, strict=True) if len(words) > number
            ]
            parts = [(np.array([row for row, _ in kept], dtype=np.int64), [word for _, word in kept])]
            of_program = filled(of_program, encoded(self._n, parts, int) if kept else None)
        rest = ~executed & ~self._has("EXECVE")[rows]
        return filled(of_program, self._column_of(rows[rest], starts[rest], ends[rest], meaning.plain))

    def _arguments(self, row: int) -> list[str]:
        return meaning.arguments(self._batch.raw(row))

    def _command_lines(self) -> Column | None:
        """The arguments of the program run, put together; where none was run the title of the process that acted."""
        plain, texts = self._plain_arguments()
        left = self._has("EXECVE")
        left[plain] = False
        others = np.flatnonzero(left)
        block, starts, ends = self._batch.block, self._batch.starts[others].tolist(), self._batch.ends[others].tolist()
        more = [meaning.command_line(block, start, end) for start, end in zip(starts, ends, strict=True)]
        parts = [(rows, lines) for rows, lines in ((plain, texts), (others, more)) if lines]
        rows, begin, stop = self._spans("proctitle")
        rest = np.flatnonzero(~self._has("EXECVE")[rows])
        return filled(encoded(self._n, parts, int), self._titles(rows[rest], begin[rest], stop[rest]))

    def _titles(self, rows: Int64, starts: Int64, ends: Int64) -> Column | None:
        """What processes say they are; many at once where that is in hexadecimal, as it is with arguments."""
        if len(rows) <= FEW or not (rows[1:] > rows[:-1]).all():
            return self._column_of(rows, starts, ends, meaning.title)
        whole = np.flatnonzero((ends > starts) & ((ends - starts) % 2 == 0))
        texts, good = unhexed_texts(self._batch.block, starts[whole], ends[whole])
        plain = np.zeros(len(rows), dtype=np.bool_)
        plain[whole[good]] = True
        return filled(
            encoded(self._n, [(rows[plain], texts)], int) if texts else None,
            self._column_of(rows[~plain], starts[~plain], ends[~plain], meaning.title),
        )

    def _plain_arguments(self) -> tuple[Int64, list[str]]:
        """Events whose arguments are all quoted words of one EXECVE line, and these with spaces between them."""
        lines = self._type_codes == (self._type_names.index("EXECVE") if "EXECVE" in self._type_names else -1)
        if self._ordered is None or not lines.any():
            return np.empty(0, dtype=np.int64), []
        order = self._ordered.order
        found = [order[slice(*places)] for name, places in self._ordered.bounds.items() if is_argument(name)]
        words = np.sort(np.concatenate([order[:0], *found]))
        spans = self._starts[words], self._ends[words], self._rows[words]
        return plain_arguments(self._block, *spans, self._type_starts[lines], self._type_rows[lines])

    def _calls(self) -> Column | None:
        """The name of the system call: as an enriched log says it, else by its number."""
        named = self._column_of(*self._spans("SYSCALL"), meaning.plain)
        if named is not None and bool((named.codes[self._spans("syscall")[0]] >= 0).all()):
            return named
        number = self._column_of(*self._spans("syscall"), meaning.plain)
        machine = self._column_of(*self._spans("arch"), meaning.plain)
        if number is None or machine is None:
            return named
        width = len(machine.values) + 1
        mixed = (number.codes.astype(np.int64) + 1) * width + machine.codes + 1
        found, inverse = np.unique(mixed, return_inverse=True)
        values = []
        for pair in found.tolist():
            code, other = pair // width - 1, pair % width - 1
            told = code >= 0 and other >= 0
            values.append(meaning.call_of(machine.values[other], number.values[code]) if told else None)
        return filled(named, recoded(Column(inverse.astype(np.int32), words_of(found.tolist())), values))

    def _paths(self) -> tuple[Int64, Int64, Int64, Int64, list[str]]:
        """Rows, starts, ends of the names of PATH records, and what was done to each: codes of nametypes."""
        rows, starts, ends = self._spans("name")
        _, type_starts, type_ends = self._spans("nametype")
        kept = self._on(starts, "PATH")
        rows, starts, ends = rows[kept], starts[kept], ends[kept]
        codes, words = self._block.encode(type_starts, type_ends)
        of_line = np.full(len(self._type_starts) + 1, -1, dtype=np.int64)
        of_line[self._lines(type_starts)] = codes
        of_line[-1] = -1
        return rows, starts, ends, of_line[self._lines(starts)], [decode(word) for word in words]

    def _opened_to_write(self) -> Bool:
        """Which events opened a file that is made or emptied where needed."""
        out = np.zeros(self._n, dtype=np.bool_)
        calls = self.find("SYSCALL")
        if calls is None:
            return out
        for argument, names in meaning.FLAGS.items():
            asked = np.array([value in names for value in calls.values] + [False])[calls.codes]
            if not asked.any():
                continue
            rows, starts, ends = self._spans(argument)
            kept = asked[rows]
            column = self._column_of(rows[kept], starts[kept], ends[kept], meaning.plain)
            if column is not None:
                making = np.array([meaning.makes(value) for value in column.values] + [False])
                out |= asked & making[column.codes]
        return out

    def _targets(self, *nametypes: str, opened: bool = False) -> Column | None:
        """The full paths of files that were made (or removed, by nametype); also of those opened to be written anew."""
        rows, starts, ends, codes, names = self._paths()
        wanted = np.array([name in nametypes for name in names] + [False])[codes]
        if opened:
            normal = np.array([name == "NORMAL" for name in names] + [False])[codes]
            wanted |= normal & self._opened_to_write()[rows]
        rows, starts, ends = rows[wanted], starts[wanted], ends[wanted]
        if not len(rows):
            return None
        column = self._column_of(rows, starts, ends, meaning.untrusted)
        if column is None or all(meaning.is_absolute(value) for value in column.values):
            return column
        folders = self._native("cwd")
        values = [
            None if code < 0 else meaning.absolute(column.values[code], folders.value(row) if folders else None)
            for row, code in enumerate(column.codes.tolist())
        ]
        return Column.from_values(values)

    def _addresses(self, part: str) -> Column | None:
        """Address or port that a SOCKADDR record names."""
        if part not in self._peers_of:
            made = lru_cache(maxsize=None)(meaning.socket_address)
            for name in ("ip", "port"):
                told = partial(_told, made, name)
                self._peers_of[name] = self._column_of(*self._spans("saddr"), told)
        return self._peers_of[part]

    def _peers(self) -> Column | None:
        """source.ip: who logs in, as user space says; absent where an event names several."""
        column = self._column_of(*self._spans("addr"), meaning.plain)
        if column is None:
            return None
        found = [canonical(value) if isinstance(value, str) else None for value in column.values]
        return recoded(column, found)

    def _users(self) -> Column | None:
        named = self._column_of(*self._spans("UID"), meaning.untrusted)
        return filled(named, self._column_of(*self._spans("uid"), meaning.account))

    def _accounts(self) -> Column | None:
        return filled(self._column_of(*self._spans("acct"), meaning.untrusted), self.find("User"))

    def _outcomes(self) -> Column | None:
        told = self._column_of(*self._spans("success"), meaning.outcome)
        return filled(told, self._column_of(*self._spans("res"), meaning.outcome))

    def _initiated(self) -> Column | None:
        rows = np.flatnonzero(self._connecting())
        return encoded(self._n, [(rows, ["true"] * len(rows))], int) if len(rows) else None

    def strings(self, rows: Sequence[int]) -> list[tuple[str, ...]]:
        """The text of each event, and what is written in it in hexadecimal."""
        command = self.find("CommandLine")
        found = []
        for row in rows:
            texts = [decode(self._batch.raw(row)), *meaning.hidden(self._batch.raw(row))]
            line = None if command is None else command.value(row)
            found.append((*texts, line) if isinstance(line, str) else tuple(texts))
        return found

    def _written(self) -> list[Texts]:
        """The same for all events: as they stand, what is hexadecimal in them, and command lines."""
        batch = self._batch
        found = [Texts(batch.block, batch.starts, batch.ends, np.arange(self._n, dtype=np.int64))]
        found.append(hidden_texts(batch, self._block, self._words_at, self._ends, self._rows, self._ordered))
        command = self.find("CommandLine")
        if command is not None:
            told = [line if isinstance(line, str) else None for line in command.values]
            lines = [line and (line.encode() if line.isascii() else encode(line)) for line in told]
            codes = command.codes.tolist()
            rows = [row for row, code in enumerate(codes) if code >= 0 and lines[code]]
            found.append(joined([lines[codes[row]] or b"" for row in rows], rows))
        return found

    def _original(self) -> Column:
        codes, words = self._block.encode(self._batch.starts, self._batch.ends)
        return Column(codes, [decode(word) for word in words])

    def _trust(self) -> Column:
        trust = self._batch.trust
        if isinstance(trust, Trust):
            return Column.constant(self._n, trust.name.lower())
        return Column(trust.astype(np.int32), [level.name.lower() for level in sorted(Trust)])

    # ------------------------------------------------------------------------------------------------ kinds

    def _connecting(self) -> Bool:
        """Which events set up a connection to an address of the internet."""
        address = self._addresses("ip")
        calls = self.find("SYSCALL")
        if address is None or calls is None:
            return np.zeros(self._n, dtype=np.bool_)
        connects = np.array([value in meaning.CONNECTING for value in calls.values] + [False])[calls.codes]
        found: Bool = connects & (address.codes >= 0)
        return found

    def _kinds(self) -> Kinds:
        calls = self.find("SYSCALL")
        executed = self._has("EXECVE")
        if calls is not None:
            run = np.array([value in meaning.EXECUTING for value in calls.values] + [False])[calls.codes]
            failed = self._column_of(*self._spans("success"), meaning.outcome)
            if failed is not None:
                run &= np.array([value != "failure" for value in failed.values] + [True])[failed.codes]
            executed = executed | run
        connecting = self._connecting()
        created, deleted = self.find("TargetFilename"), self._targets("DELETE")
        flags = executed + 2 * connecting
        if created is not None:
            flags = flags + 4 * (created.codes >= 0)
        if deleted is not None:
            flags = flags + 8 * (deleted.codes >= 0)
        flags = np.where(self._read, flags, 16)
        used, codes = np.unique(flags, return_inverse=True)
        return Kinds(codes.astype(np.int32), [_kind_of(flag) for flag in used.tolist()])


def _one_or_several(values: Sequence[Any]) -> Value | None:
    """Several values of one field, each once; None where there is none."""
    several = tuple(value for value in dict.fromkeys(values) if value is not None)
    one: Value | None = several[0] if several else None
    return several if len(several) > 1 else one


def _told(made: Callable[[bytes], Mapping[str, Value | None]], name: str, word: bytes) -> Value | None:
    return made(word)[name]


def words_of(words: Sequence[object]) -> list[Value]:
    """Stands for values that are recoded at once."""
    return [None] * len(words)


def _kind_of(flags: int) -> RecordKind:
    if flags == 16:
        return RecordKind("linux")
    names = ("process_creation", "network_connection", "file_event", "file_delete")
    categories = frozenset(name for bit, name in enumerate(names) if flags >> bit & 1)
    return RecordKind("linux", categories, frozenset({"auditd"}))


_DERIVED: Mapping[str, Callable[[Events], Column | None]] = {
    "SYSCALL": Events._calls,
    "CommandLine": Events._command_lines,
    "process.command_line": Events._command_lines,
    "TargetFilename": lambda events: events._targets("CREATE", opened=True),
    "file.path": lambda events: filled(events._targets("CREATE", opened=True), events._targets("DELETE", "NORMAL")),
    "DestinationIp": lambda events: events._addresses("ip"),
    "destination.ip": lambda events: events._addresses("ip"),
    "DestinationHostname": lambda events: events._addresses("ip"),
    "DestinationPort": lambda events: events._addresses("port"),
    "destination.port": lambda events: events._addresses("port"),
    "Initiated": Events._initiated,
    "User": Events._users,
    "user.name": Events._accounts,
    "event.outcome": Events._outcomes,
    "event.action": lambda events: events.find("type"),
    "source.ip": Events._peers,
    "source.address": partial(Events._native, key="addr"),
}
