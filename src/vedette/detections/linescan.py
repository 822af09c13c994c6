"""Line filters over whole batches: one scan finds the lines a filter may match, patterns see those alone.
Counterpart: `lines` judges one line; `gate` reads the column this makes and says whose failure it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from zoneinfo import ZoneInfo

import hyperscan
import numpy as np

from vedette.detections.atoms import regex_atoms
from vedette.detections.lines import Hit, LineMatcher
from vedette.model.batch import Batch, Int64, RecordFormat
from vedette.model.events import Column, Table
from vedette.model.linefilters import LineFilter
from vedette.model.protocols import Parser
from vedette.model.rules import Rule
from vedette.text.escape import decode
from vedette.text.logdates import DateTexts, time_of

_BITS = 62
"""Patterns told apart by the scan; those beyond share the last bit."""

SEPARATOR, ABSENT = "\x1f", "\x1e"
"""Between the parts of what the column holds, and in the place of one that is not there."""

PENDING, ADDRESS, NAMED, UNSURE, LINE = "-", "a", "n", "x", "l"
"""What the first character says: nobody yet, an address, a name or an id, one of several readings, a line to keep."""


def field_of(rule_id: str) -> str:
    """The field in which a filter's rule finds what its lines are."""
    return f"vedette.failure.{rule_id}"


class LineScan:
    """One line filter over batches. Not safe for two threads at once."""

    def __init__(self, wanted: LineFilter) -> None:
        self.matcher = LineMatcher(wanted)
        self._several = wanted.lines > 1
        self._dates = DateTexts(wanted.dates)
        atoms = [] if self._several else [regex_atoms(pattern.text) for pattern in wanted.failures]
        literal = [None if one is None or any(atom.pattern for atom in one) else one for one in atoms]
        self._everywhere = 0
        masks: dict[bytes, int] = {}
        for number, found in enumerate(literal):
            bit = 1 << min(number, _BITS)
            if found is None:
                self._everywhere |= bit
                continue
            for atom in found:
                text = atom.text.encode("utf-8", "surrogatepass")
                masks[text] = masks.get(text, 0) | bit
        self._all = (1 << min(len(literal), _BITS + 1)) - 1
        self._masks = np.array(list(masks.values()), dtype=np.int64)
        self._database: hyperscan.Database | None = None
        if masks and not self._everywhere:
            self._database = hyperscan.Database()
            self._database.compile(
                expressions=[b"".join(b"\\x%02x" % byte for byte in text) for text in masks],
                ids=list(range(len(masks))),
                flags=[0] * len(masks),
            )
        self._chosen: dict[int, tuple[int, ...]] = {}
        self._count = len(literal)

    def column(self, table: Table) -> Column:
        """What each record is to the filter, absent where it is nothing. Records without a time get theirs."""
        batch = table.batch
        values: list[str | None] = [None] * len(batch)
        text_of = _texts(batch)
        untimed = set(table.untimed.tolist())
        late: dict[int, int] = {}
        for row, mask in self._candidates(batch):
            line = text_of(row)
            found = None if batch.format is RecordFormat.MESSAGE else self._dates.find(line)
            text = line if found is None else line[: found.start] + line[found.end :]
            if self._several:
                values[row] = LINE + text
            elif (hit := self.matcher.match(text, self._patterns(mask))) is not None:
                values[row] = self._said(hit, text)
            if found is not None and row in untimed and values[row] is not None and found.end > found.start:
                moment = time_of(found, _now(batch), ZoneInfo(batch.timezone))
                if moment is not None:
                    late[row] = moment
        if late:
            table.time = table.time.copy()
            for row, moment in late.items():
                table.time[row] = moment
            table.untimed = np.setdiff1d(table.untimed, np.array(list(late), dtype=np.int64))
        return Column.from_values(values)

    def _patterns(self, mask: int) -> tuple[int, ...]:
        chosen = self._chosen.get(mask)
        if chosen is None:
            chosen = tuple(number for number in range(self._count) if mask >> min(number, _BITS) & 1)
            self._chosen[mask] = chosen
        return chosen

    def _candidates(self, batch: Batch) -> list[tuple[int, int]]:
        """Rows to look at, each with the patterns that may match it."""
        n = len(batch)
        if self._database is None or not n:
            return [(row, self._all) for row in range(n)]
        raw: list[int] = []
        append = raw.append

        def on_match(identifier: int, _start: int, end: int, _flags: int, _context: object) -> None:
            append(end)
            append(identifier)

        self._database.scan(batch.block.lower(), match_event_handler=on_match)
        masks = np.zeros(n, dtype=np.int64)
        if raw:
            pairs = np.array(raw, dtype=np.int64).reshape(-1, 2)
            # Ends come in order, so each row's hits lie together.
            rows = np.searchsorted(batch.starts, pairs[:, 0] - 1, side="right") - 1
            first = np.flatnonzero(np.diff(rows, prepend=-1))
            masks[rows[first]] = np.bitwise_or.reduceat(self._masks[pairs[:, 1]], first)
        for row in _beyond_ascii(batch):
            masks[row] = self._all
        hit = np.flatnonzero(masks)
        return list(zip(hit.tolist(), masks[hit].tolist(), strict=True))

    def _said(self, hit: Hit, text: str) -> str:
        groups = hit.groups
        kind, who = PENDING, ""
        if "fid" in groups:
            kind, who = NAMED, groups["fid"]
        elif (address := groups.get("ip4") or groups.get("ip6")) is not None:
            kind, who = ADDRESS, address
        elif "dns" in groups:
            kind, who = NAMED, groups["dns"]
        if kind == ADDRESS and _several_addresses(text) and self.matcher.is_ambiguous(hit, text):
            kind = UNSURE
        flags = (
            ("n" if groups.get("nofail") else "")
            + ("f" if groups.get("mlfforget") else "")
            + ("g" if groups.get("mlfgained") else "")
        )
        parts = (kind + flags, who, groups.get("user", ABSENT), groups.get("mlfid", ABSENT))
        return SEPARATOR.join(part.replace(SEPARATOR, " ") for part in parts)


def _several_addresses(text: str) -> bool:
    dots, colons = text.count("."), text.count(":")
    return dots >= 6 or colons >= 4 or (dots >= 3 and colons >= 2)


def _now(batch: Batch) -> datetime:
    if batch.year:
        return datetime(batch.year, 12, 31, 23, 59, 59, tzinfo=UTC)
    return datetime.fromtimestamp(batch.read_at / 1_000_000, UTC)


def _beyond_ascii(batch: Batch) -> Sequence[int]:
    """Rows with bytes beyond ASCII, whose case a scan of bytes does not know."""
    if batch.block.isascii():
        return ()
    places = np.flatnonzero(np.frombuffer(batch.block, dtype=np.uint8) >= 128)
    rows: Int64 = np.unique(np.searchsorted(batch.starts, places, side="right") - 1)
    return [int(row) for row in rows if row >= 0]


def _texts(batch: Batch) -> Callable[[int], str]:
    block, starts, ends = batch.block, batch.starts.tolist(), batch.ends.tolist()
    given = batch.header if batch.format is RecordFormat.MESSAGE else None

    def text(row: int) -> str:
        line = decode(block[starts[row] : ends[row]])
        if given is None:
            return line
        # As fail2ban writes a journal record: its header belongs to what patterns see.
        pid = int(given.pid[row])
        program = given.program[row] + (f"[{pid}]" if pid >= 0 else "")
        return f"{given.host[row]} {program}: {line}"

    return text


class LineParser:
    """The parser `inner`, and for each rule with a line filter the field that says what its lines are."""

    def __init__(self, inner: Parser, rules: Sequence[Rule]) -> None:
        self._inner = inner
        self._scans = {field_of(rule.id): LineScan(rule.lines) for rule in rules if rule.lines is not None}

    def parse(self, batch: Batch) -> Table:
        """The events of `batch`."""
        table = self._inner.parse(batch)
        for name, scan in self._scans.items():
            table.provide(name, partial(scan.column, table))
        return table
