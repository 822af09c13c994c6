"""Line filters over whole batches: one scan finds the lines a filter may match, patterns see those alone.
Counterpart: `lines` judges one line; `gate` reads the column this makes and says whose failure it was."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from zoneinfo import ZoneInfo

import hyperscan
import numpy as np

from vedette.detections.atoms import regex_atoms
from vedette.detections.lines import Hit, LineMatcher, several_addresses
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

NOTHING = SEPARATOR.join((PENDING, "", ABSENT, ABSENT))
"""A line that says nothing."""

_USUAL = ((), ("{^LN-BEG}",), ("{DEFAULT}",))
"""Datepatterns to which a line that begins as RFC 3164 has it has its date there."""
_DATE_LENGTH = 15
_MONTH_CODES = np.array(
    [int.from_bytes(name, "big") for name in b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()]
)
_AS_ONE = bytes.maketrans(b"123456789", b"000000000")
_LONGEST_SHAPE = 300
_MOST_SHAPES = 50_000


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
        self._told: dict[int, tuple[bytes, ...] | None] = {}
        self._shapes: dict[bytes, _Shape] = {}
        self._usual = not self._several and wanted.dates in _USUAL
        self._count = len(literal)

    def column(self, table: Table) -> Column:
        """What each record is to the filter, absent where it is nothing. Records without a time get theirs."""
        batch = table.batch
        values: dict[int, str] = {}
        candidates = self._candidates(batch)
        slow = self._short_cut(batch, candidates, values) if self._usual else candidates
        text_of = _texts(batch)
        untimed = set(table.untimed.tolist())
        late: dict[int, int] = {}
        for row, mask in slow:
            line = text_of(row)
            found = None if batch.format is RecordFormat.MESSAGE else self._dates.find(line)
            text = line if found is None else line[: found.start] + line[found.end :]
            if self._several:
                values[row] = LINE + text
            elif (hit := self.matcher.match(text, self._patterns(mask))) is not None:
                values[row] = said_of(self.matcher, hit, text)
            if found is not None and row in untimed and row in values and found.end > found.start:
                moment = time_of(found, _now(batch), ZoneInfo(batch.timezone))
                if moment is not None:
                    late[row] = moment
        if late:
            table.time = table.time.copy()
            for row, moment in late.items():
                table.time[row] = moment
            table.untimed = np.setdiff1d(table.untimed, np.array(list(late), dtype=np.int64))
        rows = np.fromiter(values, dtype=np.int64, count=len(values))
        distinct: dict[str, int] = {}
        own = [distinct.setdefault(value, len(distinct)) for value in values.values()]
        codes = np.full(len(batch), -1, dtype=np.int32)
        codes[rows] = own
        return Column(codes, list(distinct))

    def _short_cut(
        self, batch: Batch, candidates: list[tuple[int, int]], values: dict[int, str]
    ) -> list[tuple[int, int]]:
        """Lines with the usual syslog date, judged by those before them that differ in digits alone; gives the rest."""
        if batch.format is not RecordFormat.SYSLOG or not candidates:
            return candidates
        block, shapes, told_apart = batch.block, self._shapes, self._told
        alike, low = block.translate(_AS_ONE), block.lower()
        rows = np.array([row for row, _ in candidates], dtype=np.int64)
        usual = _usual_dates(batch, rows)
        begins, ends = (batch.starts[rows] + _DATE_LENGTH).tolist(), batch.ends[rows].tolist()
        rest: list[tuple[int, int]] = []
        for place, (row, mask) in enumerate(candidates):
            if not usual[place]:
                rest.append((row, mask))
                continue
            begin, end = begins[place], ends[place]
            if mask not in told_apart:
                told_apart[mask] = self._numbers(mask)
            told = told_apart[mask]
            key = alike[begin:end]
            if told:
                key += _places(low, begin, end, told)
            shape = shapes.get(key)
            if shape is None or shape.mask != mask:
                raw = block[begin:end]
                if len(raw) > _LONGEST_SHAPE or not raw.isascii() or told is None:
                    rest.append((row, mask))
                    continue
                shape = self._shape(raw.decode("ascii"), mask)
                if shape is None:
                    rest.append((row, mask))
                    continue
                if len(shapes) >= _MOST_SHAPES:
                    shapes.clear()
                shapes[key] = shape
            kind = shape.kind
            if kind:
                text = block[begin:end].decode("ascii")
                user = text[shape.user] if shape.user else ABSENT
                connection = text[shape.connection] if shape.connection else ABSENT
                values[row] = f"{kind}{text[shape.who]}{SEPARATOR}{user}{SEPARATOR}{connection}"
        return rest

    def _shape(self, text: str, mask: int) -> _Shape | None:
        """What a line says, for all that differ from it in digits alone; None where that takes a closer look."""
        if several_addresses(text) or SEPARATOR in text:
            return None
        hit = self.matcher.match(text, self._patterns(mask))
        if hit is None:
            return _Shape(mask, "", slice(0), None, None)
        kind, name = _kind_of(hit)
        spans = {
            group: slice(begin, begin + len(hit.groups[group]))
            for group, begin in hit.begins.items()
            if group in hit.groups
        }
        return _Shape(mask, kind + SEPARATOR, spans[name] if name else slice(0), spans.get("user"), spans.get("mlfid"))

    def _numbers(self, mask: int) -> tuple[bytes, ...] | None:
        """The numbers the patterns of `mask` tell from others, as in lines; None: no line is like another."""
        found = self.matcher.numbers(self._patterns(mask))
        return None if found is None else tuple(sorted(number.encode("ascii") for number in found))

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


def said_of(matcher: LineMatcher, hit: Hit, text: str) -> str:
    """What the column says of a hit in `text`."""
    groups = hit.groups
    kind, name = _kind_of(hit)
    if kind[0] == ADDRESS:
        several = several_addresses(text) and matcher.is_ambiguous(hit, text)
        if several or _may_be_cut(text, hit.begins.get(name, 0)):
            kind = UNSURE
    who = groups[name] if name else ""
    parts = (kind, who, groups.get("user", ABSENT), groups.get("mlfid", ABSENT))
    return SEPARATOR.join(part.replace(SEPARATOR, " ") for part in parts)


# sshd gives syslog no more bytes of a message than these: what ends there may end in a name that reads as an address.
_CUT = 500
_SSHD = re.compile(r"\bsshd(?:-session|-auth)?(?:\[\d+\])?: ")
_FRONT = 64
"""Characters at the front of a message in which no name of a peer is long enough to push out what stands behind it."""


def _may_be_cut(text: str, begin: int) -> bool:
    """Whether the true address may have been cut off the end, so that the one at `begin` is the peer's text."""
    if len(text) < _CUT // 4 or (tag := _SSHD.search(text)) is None:
        return False
    return len(text[tag.end() :].encode()) >= _CUT and begin - tag.end() > _FRONT


def _kind_of(hit: Hit) -> tuple[str, str]:
    """How the column says what a hit is, and the group that says who."""
    groups = hit.groups
    kind, name = PENDING, ""
    for kind_of, candidate in ((NAMED, "fid"), (ADDRESS, "ip4"), (ADDRESS, "ip6"), (NAMED, "dns")):
        if candidate in groups:
            kind, name = kind_of, candidate
            break
    for letter, flag in (("n", "nofail"), ("f", "mlfforget"), ("g", "mlfgained")):
        if groups.get(flag):
            kind += letter
    return kind, name


def _places(low: bytes, begin: int, end: int, numbers: tuple[bytes, ...]) -> bytes:
    """Which of `numbers` stand where in a line of the block `low`, which is in lower case."""
    found = b""
    for which, number in enumerate(numbers):
        place = low.find(number, begin, end)
        while place >= 0:
            found += b"\n%d %d" % (which, place - begin)
            place = low.find(number, place + 1, end)
    return found


@dataclass(frozen=True, slots=True)
class _Shape:
    """What lines are that differ in digits alone. kind: as the column begins, "" where they are nothing."""

    mask: int
    kind: str
    who: slice
    user: slice | None
    connection: slice | None


def _usual_dates(batch: Batch, rows: Int64) -> list[bool]:
    """Which of `rows` begin with a date as RFC 3164 has it, and no year after it."""
    block = np.frombuffer(batch.block, dtype=np.uint8)
    starts = batch.starts[rows]
    long = batch.ends[rows] - starts > _DATE_LENGTH + 1
    text = block[np.minimum(starts[:, None] + np.arange(_DATE_LENGTH + 2), len(block) - 1)].astype(np.int32)
    number = text - 48
    digit = (number >= 0) & (number <= 9)
    month = np.isin((text[:, 0] << 16) | (text[:, 1] << 8) | text[:, 2], _MONTH_CODES)
    blank = (text[:, 3] == 32) & (text[:, 6] == 32) & (text[:, 15] == 32)
    colons = (text[:, 9] == 58) & (text[:, 12] == 58)
    day = np.where(text[:, 4] == 32, 0, number[:, 4] * 10) + number[:, 5]
    digits = digit[:, [5, 7, 8, 10, 11, 13, 14]].all(axis=1) & (digit[:, 4] | (text[:, 4] == 32))
    hour, minute, second = (number[:, at] * 10 + number[:, at + 1] for at in (7, 10, 13))
    fits = (day >= 1) & (day <= 31) & (hour <= 23) & (minute <= 59) & (second <= 59)
    found: list[bool] = (long & month & blank & colons & digits & fits & ~digit[:, 16]).tolist()
    return found


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
