"""Syslog headers of one record: RFC 3164, the RFC 3339 header of rsyslog, RFC 5424, told apart line by line.
Counterpart: `parsers.headers` does the same to whole batches and must agree; `sources` hand over the lines."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from vedette.model.clock import HOUR, MINUTE, SECOND
from vedette.parsers.natives import read_native
from vedette.parsers.years import MONTHS, Calendar, exists, start_of

REPEAT_LIMIT = 10_000
"""`message repeated N times` counts at most this: whoever writes the log must not make one line a million."""

ABSENT = -1

WRAPPERS = (b"message ", b"[ID ")
"""How messages begin that `unwrap` may find another one in."""


@dataclass(frozen=True, slots=True)
class Header:
    """One record's header; spans are offsets into the record, (-1, -1) where the part is absent.

    timed: False where it names no time, so that `time` is when the record was read. native: the program whose own log
    file this is from, "" for syslog; then `program` is absent.
    """

    ok: bool
    time: int
    host: tuple[int, int]
    program: tuple[int, int]
    pid: int
    pri: int
    start: int
    end: int
    repeat: int
    timed: bool = True
    native: str = ""


_PRI = re.compile(rb"<(\d{1,3})>")
_STAMP_3164 = re.compile(rb"([A-Z][a-z][a-z]) ([ 0-3]?\d) (\d\d):(\d\d):(\d\d) ")
_STAMP_3339 = re.compile(
    rb"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:(Z)|([+-])(\d\d):(\d\d))?(?= |\Z)"
)
# HOSTNAME APP-NAME PROCID MSGID STRUCTURED-DATA; possessive, so that no line costs more than its length.
_REST_5424 = re.compile(
    rb" ([^ ]++) ([^ ]++) ([^ ]++) [^ ]++ "
    rb'(?:-|(?:\[[^ =\]"]++(?: [^ =\]"]++="(?:[^"\\]|\\.)*+")*+\])++)(?: (?:\xef\xbb\xbf)?|\Z)',
    re.DOTALL,
)
# What no syslog header begins with: a digit or a bracket, a weekday; and what a daemon's own time looks like.
_OWN_DATE = re.compile(rb"[\[@0-9a-f]|[A-Z][a-z][a-z] [A-Z]|time=")
_INLINE_TAG = re.compile(rb"([^:\[\]]+)(?:\[(\d{0,18})[^:\]]*\])?:")
_REPEATED = re.compile(rb"message repeated (\d{1,12}) times: \[ ?(.*)\]\Z", re.DOTALL)
_MESSAGE_ID = re.compile(rb"\[ID \d{1,10} [a-z0-9]{1,16}\.[a-z]{1,16}\] ")
_NO_TAG = {b"last", b"--"}
_NOWHERE = (ABSENT, ABSENT)


def read_header(record: bytes, calendar: Calendar, read_at: int) -> Header:
    """The header of one record: what `read_headers` must agree with."""
    found = _read(record, calendar, read_at)
    if found is None:
        return Header(False, read_at, _NOWHERE, _NOWHERE, ABSENT, ABSENT, 0, len(record), 1, timed=False)
    return found


def _read(record: bytes, calendar: Calendar, read_at: int) -> Header | None:
    position, pri = 0, ABSENT
    if _OWN_DATE.match(record) and (found := read_native(record, 0, calendar)) is not None:
        if not found.program:
            return _read_tag(record, found.start, found.time, ABSENT)
        end = len(record)
        return Header(
            True, found.time, _NOWHERE, _NOWHERE, found.pid, ABSENT, found.start, end, 1, native=found.program
        )
    if match := _PRI.match(record):
        position, pri = match.end(), int(match[1])
        if pri > 191:
            return None
        if record.startswith(b"1 ", position):
            return _read_5424(record, position + 2, pri, calendar, read_at)
    if match := _STAMP_3164.match(record, position):
        month, day = MONTHS.get(match[1], 0), int(match[2])
        hour, minute, second = int(match[3]), int(match[4]), int(match[5])
        year = calendar.year_of(month, day) if month else None
        if year is None or hour > 23 or minute > 59 or second > 60:
            return None
        time = calendar.absolute(year, month, day, hour, minute) + second * SECOND
        return _read_tag(record, match.end(), time, pri)
    stamp = _read_3339(record, position, calendar)
    if stamp is None or stamp[1] >= len(record):
        return None
    return _read_tag(record, stamp[1] + 1, stamp[0], pri)


def _read_3339(record: bytes, position: int, calendar: Calendar) -> tuple[int, int] | None:
    """Time and end of an RFC 3339 time; one without a zone is in the calendar's."""
    match = _STAMP_3339.match(record, position)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(match[n]) for n in range(1, 7))
    if not exists(year, month, day) or not 1 < year < 9998 or hour > 23 or minute > 59 or second > 60:
        return None
    micros = int((match[7] or b"")[:6].ljust(6, b"0"))
    if match[8] or match[9]:
        if match[9] and (int(match[10]) > 23 or int(match[11]) > 59):
            return None
        offset = int(match[10]) * HOUR + int(match[11]) * MINUTE if match[9] else 0
        time = start_of(year, month, day) + hour * HOUR + minute * MINUTE
        time += offset if match[9] == b"-" else -offset
    else:
        time = calendar.absolute(year, month, day, hour, minute)
    return time + second * SECOND + micros, match.end()


def _read_5424(record: bytes, position: int, pri: int, calendar: Calendar, read_at: int) -> Header | None:
    timed = not record.startswith(b"- ", position)
    if not timed:
        time, position = read_at, position + 1
    else:
        stamp = _read_3339(record, position, calendar)
        if stamp is None:
            return None
        time, position = stamp
    match = _REST_5424.match(record, position)
    if match is None:
        return None
    host, program = (_NOWHERE if match[n] == b"-" else match.span(n) for n in (1, 2))
    pid = int(match[3]) if match[3].isdigit() and len(match[3]) <= 18 else ABSENT
    return _unwrapped(record, Header(True, time, host, program, pid, pri, match.end(), len(record), 1, timed))


def _read_tag(record: bytes, position: int, time: int, pri: int) -> Header:
    """What follows the time: an optional host, a tag, the message.

    The tag ends with a colon; where none does, the first word is the program, as syslog daemons take it.
    """
    end = len(record)
    host, program, pid = _NOWHERE, _NOWHERE, ABSENT
    first = record.find(b" ", position)
    if first < 0:
        first = end
    if first > position and record[first - 1] != 0x3A:
        host = (position, first)
        position = min(first + 1, end)
        first = record.find(b" ", position)
        if first < 0:
            first = end
    tag = record[position:first]
    start = min(first + 1, end)
    if tag.endswith(b":") and len(tag) > 1:
        name = tag[:-1]
        opened = name.rfind(b"[") if name.endswith(b"]") else -1
        if opened >= 0:
            inner = name[opened + 1 : -1]
            pid = int(inner) if inner.isdigit() and len(inner) <= 18 else ABSENT
            name = name[:opened]
        program = (position, position + len(name))
    elif match := _INLINE_TAG.match(tag):
        program = (position, position + match.end(1))
        pid = int(match[2]) if match[2] else ABSENT
        start = position + match.end()
    elif tag in _NO_TAG or not tag:
        start = position
    else:
        cut = tag.find(b"[")
        program = (position, position + cut if cut >= 0 else first)
    if program[0] >= program[1]:
        program = _NOWHERE
    return _unwrapped(record, Header(True, time, host, program, pid, pri, start, end, 1))


def _unwrapped(record: bytes, header: Header) -> Header:
    if not record.startswith(WRAPPERS, header.start):
        return header
    span = unwrap(record[header.start : header.end])
    if span is None:
        return header
    times, start, end = span
    begin = header.start
    return replace(header, start=begin + start, end=begin + end, repeat=times)


def unwrap(message: bytes) -> tuple[int, int, int] | None:
    """How many records a message stands for (at most REPEAT_LIMIT), and where it stands; None: nothing is round it.

    Round it may be `message repeated N times: [ ... ]` and, before that, Solaris' message id, `[ID 8 auth.info] `.
    """
    start = 0
    if named := _MESSAGE_ID.match(message):
        start = named.end()
    repeated = _REPEATED.match(message, start)
    if repeated is not None:
        return min(max(int(repeated[1]), 1), REPEAT_LIMIT), repeated.start(2), repeated.end(2)
    return (1, start, len(message)) if start else None


def span_of_file(first: bytes, last: bytes, *, year: int, mtime: int, timezone: str) -> tuple[int, int]:
    """`Batch.year` and `Batch.read_at` for a file read at leisure, from its first and last record.

    year: of the first record, 0 = not known; mtime: when the file was last written, microseconds. With the
    result every record's time is a function of that record alone, so that the file may be cut anywhere; a
    file is taken to span less than a year.
    """
    if not year:
        return 0, mtime
    stamps = [_STAMP_3164.search(record[:40]) for record in (first, last)]
    dates = [(MONTHS.get(stamp[1], 0), int(stamp[2])) for stamp in stamps if stamp]
    if len(dates) < 2 or not dates[0][0] or not dates[1][0] or dates[0] <= dates[1]:
        if all(Calendar(year, mtime, timezone).year_of(*day) in (year, None) for day in dates if day[0]):
            return year, mtime
        # A time not in `year`, so that nothing is moved to the year before.
        return year, start_of(year + 1, 1, 2)
    calendar = Calendar(year + 1, 0, timezone)
    month, day = dates[1]
    if not exists(year + 1, month, day):
        return year, mtime
    return year + 1, calendar.absolute(year + 1, month, day, 12, 0)
