"""Syslog headers of a whole batch at once; what does not look like an everyday record is read by itself.
Counterpart: `parsers.syslog` means the same for one record, `parsers.parser` reads on where the message begins."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from vedette.model.batch import Batch, Bool, Int32, Int64
from vedette.model.clock import HOUR, MINUTE, SECOND
from vedette.parsers.columns import Block, UInt64, first_byte, keep, not_digits, number_of, word_of
from vedette.parsers.syslog import ABSENT, WRAPPERS, read_header, unwrap
from vedette.parsers.years import MONTHS, Calendar, exists, start_of
from vedette.text.escape import decode

Int16 = npt.NDArray[np.int16]
Meaning = Callable[[int, int], "int | None"]

LIGHT = 24
"""Batches of up to this many records are read by the plain code; setting up the columns would cost more."""


@dataclass(slots=True)
class Headers:
    """The headers of a batch, a row a record.

    time: microseconds; *_start, *_end: offsets into the block, -1 where absent; pid, pri: -1 where absent;
    ok: False where the header could not be read (then time is `read_at` and the message the whole record).
    untimed: the rows whose header names no time, sorted; theirs is `read_at`, too. natives: rows of logs that a daemon
    wrote itself, and which; they have no program's span.
    hosts, programs: codes and distinct texts, where they are known beside the spans or instead of them. words: see
    `first_words`.
    """

    ok: Bool
    time: Int64
    host_start: Int64
    host_end: Int64
    program_start: Int64
    program_end: Int64
    pid: Int64
    pri: Int16
    start: Int64
    end: Int64
    repeat: Int32
    hosts: tuple[Int32, list[str]] | None = None
    programs: tuple[Int32, list[str]] | None = None
    untimed: list[int] = field(default_factory=list)
    natives: dict[int, str] = field(default_factory=dict)
    words: UInt64 | None = None

    def first_words(self, block: Block) -> UInt64:
        """The first eight bytes of each message."""
        if self.words is None:
            self.words = block.word(self.start)
        return self.words


def read_headers(batch: Batch, block: Block, *, light: int = LIGHT) -> Headers:
    """The headers of all records. Rows that do not look like the everyday ones are read by `read_header`."""
    n = len(batch)
    starts = np.asarray(batch.starts, dtype=np.int64)
    ends = np.asarray(batch.ends, dtype=np.int64)
    headers = _empty(n, starts, ends, batch.read_at)
    calendar = Calendar.of(batch)
    if n <= light:
        rest = np.arange(n)
    else:
        rest = _read_many(block, starts, ends, calendar, headers)
    _read_rest(batch, rest, calendar, headers)
    return headers


def given_headers(batch: Batch, program: str = "") -> Headers:
    """The headers of bare messages, as the source gave them; without any, `program` wrote them all at `read_at`."""
    n = len(batch)
    headers = _empty(n, np.asarray(batch.starts), np.asarray(batch.ends), batch.read_at)
    headers.ok[:] = True
    given = batch.header
    if given is None:
        headers.hosts = np.full(n, ABSENT, dtype=np.int32), []
        headers.programs = _listed([program] * n)
    else:
        headers.time = np.asarray(given.time, dtype=np.int64)
        headers.pid = np.asarray(given.pid, dtype=np.int64)
        headers.hosts = _listed(given.host)
        headers.programs = _listed(given.program)
    for row in range(n):
        begin, end = int(headers.start[row]), int(headers.end[row])
        if batch.block.startswith(WRAPPERS, begin, end) and (span := unwrap(batch.block[begin:end])):
            headers.repeat[row], headers.start[row], headers.end[row] = span[0], begin + span[1], begin + span[2]
    return headers


def _listed(texts: list[str]) -> tuple[Int32, list[str]]:
    """Codes and distinct texts; an empty text is an absent one."""
    seen: dict[str, int] = {}
    codes = [seen.setdefault(text, len(seen)) if text else ABSENT for text in texts]
    return np.array(codes, dtype=np.int32), list(seen)


def _empty(n: int, starts: Int64, ends: Int64, read_at: int) -> Headers:
    def absent() -> Int64:
        return np.full(n, ABSENT, dtype=np.int64)

    return Headers(
        ok=np.zeros(n, dtype=bool),
        time=np.full(n, read_at, dtype=np.int64),
        host_start=absent(),
        host_end=absent(),
        program_start=absent(),
        program_end=absent(),
        pid=absent(),
        pri=np.full(n, ABSENT, dtype=np.int16),
        start=starts.copy(),
        end=ends.copy(),
        repeat=np.ones(n, dtype=np.int32),
    )


def _read_rest(batch: Batch, rows: Int64, calendar: Calendar, headers: Headers) -> None:
    for row in rows.tolist():
        begin = int(batch.starts[row])
        header = read_header(batch.raw(row), calendar, batch.read_at)
        headers.ok[row] = header.ok
        headers.time[row] = header.time
        if not header.timed:
            headers.untimed.append(row)
        if header.native:
            headers.natives[row] = header.native
        if header.host[0] >= 0:
            headers.host_start[row], headers.host_end[row] = begin + header.host[0], begin + header.host[1]
        if header.program[0] >= 0:
            headers.program_start[row], headers.program_end[row] = begin + header.program[0], begin + header.program[1]
        headers.pid[row] = header.pid
        headers.pri[row] = header.pri
        headers.start[row], headers.end[row] = begin + header.start, begin + header.end
        headers.repeat[row] = header.repeat


_HOST_LENGTH = 63
_SHORTEST = 24
"""Records below this many bytes are read one by one; it also keeps the fixed offsets inside the record."""


def _read_many(block: Block, starts: Int64, ends: Int64, calendar: Calendar, headers: Headers) -> Int64:
    """Fill in the everyday rows; gives back the others."""
    n = len(starts)
    position = starts.copy()
    plain = ends - starts >= _SHORTEST
    opened = block.byte(starts) == 0x3C
    modern = np.empty(0, dtype=np.int64)
    if opened.any():
        modern = _read_pri(block, np.flatnonzero(opened & plain), position, plain, headers.pri)
        modern = modern[_read_5424_many(block, modern, position[modern], ends, headers)]
        plain &= ends - position >= _SHORTEST
    position[~plain] = 0
    words = block.word(position), block.word(position + 8) if len(block.raw) >= 8 else block.word(position)
    rows, times, after = _times_3164(words, position, plain, calendar)
    handled = np.zeros(n, dtype=bool)
    handled[rows] = True
    others = np.flatnonzero(plain & ~handled)
    if len(others):
        more, more_times, more_after = _times_3339(block, others, position[others])
        rows, times, after = (np.concatenate(pair) for pair in ((rows, more), (times, more_times), (after, more_after)))
    everyday = len(rows) == n and not len(others)
    good = _read_tags(block, slice(None) if everyday else rows, times, after, ends if everyday else ends[rows], headers)
    if everyday and good.all():
        return np.empty(0, dtype=np.int64)
    rest = np.ones(n, dtype=bool)
    rest[rows[good]] = False
    rest[modern] = False
    return np.flatnonzero(rest)


def _read_pri(block: Block, rows: Int64, position: Int64, plain: Bool, pri: Int16) -> Int64:
    """Read `<PRI>` of 1 to 3 digits and move on; what is not one is no longer plain, nor is RFC 5424, given back."""
    word = block.word(position[rows])
    values, bad = not_digits(word >> np.uint64(8))
    count = first_byte(bad)
    good = (count >= 1) & (count <= 3)
    shift = np.uint64(8) * np.minimum(count, 3).astype(np.uint64)
    good &= (word >> (shift + np.uint64(8))) & np.uint64(0xFF) == 0x3E
    number = number_of(values << (np.uint64(64) - np.maximum(shift, np.uint64(8))))
    good &= number <= 191
    pri[rows[good]] = number[good].astype(np.int16)
    position[rows[good]] += count[good] + 2
    plain[rows[~good]] = False
    rows = rows[good]
    modern: Int64 = rows[block.word(position[rows]) & keep(2) == word_of(b"1 ")]
    plain[modern] = False
    position[modern] += 2
    return modern


def _read_5424_many(block: Block, rows: Int64, position: Int64, ends: Int64, headers: Headers) -> Bool:
    """Read RFC 5424 from the time on, where there is no structured data; which of `rows` that was."""
    done = np.zeros(len(rows), dtype=bool)
    long_enough = np.flatnonzero(ends[rows] - position >= _SHORTEST)
    timed, times, place = _times_3339(block, long_enough, position[long_enough])
    if not len(timed):
        return done
    limit = ends[rows[timed]]
    good = place < limit
    place = np.minimum(place, limit)
    words: list[tuple[Int64, Int64]] = []
    for _ in range(4):
        end, unknown = block.find(b" ", place, limit)
        good &= (end > place) & (end < limit)
        if unknown is not None:
            good &= ~unknown
        words.append((place, end))
        place = np.minimum(end + 1, limit)
    good &= (block.word(place) & keep(2) == word_of(b"- ")) & (place + 2 <= limit)
    start = np.minimum(place + 2, limit)
    marked = (block.word(start) & keep(3) == word_of(b"\xef\xbb\xbf")) & (start + 3 <= limit)
    start += 3 * marked
    (host, host_end), (program, program_end), (process, process_end), _ = words
    # Eight digits or fewer are read here, others (and what is no number) one by one.
    length = process_end - process
    before = block.word_before(process_end)
    values, bad = not_digits(before.byteswap())
    numeric = first_byte(bad) >= length
    nil = (length == 1) & (block.byte(process) == 0x2D)
    good &= nil | (numeric & (length <= 8))
    shift = np.uint64(8) * (8 - np.clip(length, 1, 8)).astype(np.uint64)
    pid = np.where(nil, ABSENT, number_of(values.byteswap() >> shift << shift).astype(np.int64))

    kept = np.flatnonzero(good)
    chosen = rows[timed[kept]]
    headers.ok[chosen] = True
    headers.time[chosen] = times[kept]
    for starts, stops, first, last in (
        (headers.host_start, headers.host_end, host[kept], host_end[kept]),
        (headers.program_start, headers.program_end, program[kept], program_end[kept]),
    ):
        there = (last - first != 1) | (block.byte(first) != 0x2D)
        starts[chosen] = np.where(there, first, ABSENT)
        stops[chosen] = np.where(there, last, ABSENT)
    headers.pid[chosen] = pid[kept]
    headers.start[chosen] = start[kept]
    _unwrap_many(block, chosen, start[kept], headers)
    done[timed[kept]] = True
    return done


_CLOCK = word_of(b"0:00:00 ")
_CLOCK_ROOM = np.uint64(0x7F76767F76767F76)
"""Added to the clock's bytes XOR _CLOCK it sets the high bit of a digit above 9 and of a literal that differs."""
_HIGH = np.uint64(0x8080808080808080)
_LOW7 = np.uint64(0x7F7F7F7F7F7F7F7F)
_NIBBLE = np.uint64(15)


def _nibble(values: UInt64, index: int) -> Int64:
    return (values >> np.uint64(8 * index) & _NIBBLE).astype(np.int64)


def _runs(keys: UInt64, other: UInt64 | None = None) -> tuple[Int64, Int64]:
    """First index and length of every run of equal keys."""
    change = keys[1:] != keys[:-1]
    if other is not None:
        change |= other[1:] != other[:-1]
    heads = np.concatenate(([0], np.flatnonzero(change) + 1))
    return heads, np.diff(np.append(heads, len(keys)))


def _times_3164(
    words: tuple[UInt64, UInt64], position: Int64, plain: Bool, calendar: Calendar
) -> tuple[Int64, Int64, Int64]:
    """Rows with an RFC 3164 time, their times, and the offsets after the space that follows it."""
    first, second = words
    heads, lengths = _runs(first & keep(7))
    days: dict[tuple[int, int, int], int] = {}
    memo: dict[int, tuple[int, int]] = {}
    day_of_run = np.empty(len(heads), dtype=np.int64)
    shift_of_run = np.empty(len(heads), dtype=np.int64)
    for number, key in enumerate((first[heads] & keep(7)).tolist()):
        known = memo.get(key)
        if known is None:
            day, shift = _day_of(key.to_bytes(8, "little")[:7], calendar)
            known = memo[key] = (days.setdefault(day, len(days)) if day else -1, shift)
        day_of_run[number], shift_of_run[number] = known
    day_code = np.repeat(day_of_run, lengths)
    good = plain & (day_code >= 0)
    hour_tens = (first >> np.uint64(56)).astype(np.int64) - 0x30
    shifted = bool(shift_of_run.any())
    moved = np.repeat(shift_of_run, lengths) if shifted else np.zeros(0, dtype=np.int64)
    if shifted:
        # `Nov 4 03:..`: everything after the day stands one byte further left.
        back = moved == 1
        hour_tens[back] = (first[back] >> np.uint64(48) & np.uint64(0xFF)).astype(np.int64) - 0x30
        second = second.copy()
        second[back] = second[back] << np.uint64(8) | first[back] >> np.uint64(56)
    values = second ^ _CLOCK
    good &= (((values & _LOW7) + _CLOCK_ROOM) | values) & _HIGH == 0
    hour = hour_tens * 10 + _nibble(values, 0)
    minute = _nibble(values, 2) * 10 + _nibble(values, 3)
    seconds = _nibble(values, 5) * 10 + _nibble(values, 6)
    good &= (hour_tens >= 0) & (hour_tens <= 2) & (hour < 24) & (minute < 60) & (seconds <= 60)
    if good.all():
        rows = np.arange(len(good), dtype=np.int64)
    else:
        rows = np.flatnonzero(good)
        day_code, hour, minute, seconds, position = (
            array[rows] for array in (day_code, hour, minute, seconds, position)
        )
        moved = moved[rows] if shifted else moved
    hour_code = day_code * 24 + hour
    table = np.zeros(len(days) * 1440, dtype=np.int64)
    known_days = list(days)
    for code in np.flatnonzero(np.bincount(hour_code, minlength=1)).tolist():
        year, month, day_number = known_days[code // 24]
        table[code * 60 : code * 60 + 60] = calendar.hour(year, month, day_number, code % 24)
    times = table[hour_code * 60 + minute] + seconds * SECOND if len(rows) else np.empty(0, dtype=np.int64)
    after = position + 16
    return rows, times, after - moved if shifted else after


def _day_of(text: bytes, calendar: Calendar) -> tuple[tuple[int, int, int] | None, int]:
    """Year, month and day of `Mmm dd ` (or `Mmm d H`: then 1), or None."""
    match = re.match(rb"([A-Z][a-z][a-z]) (?:([ 0-3]\d) |(\d) \d)", text)
    month = MONTHS.get(match[1], 0) if match else 0
    if match is None or not month:
        return None, 0
    day = int(match[2] or match[3])
    year = calendar.year_of(month, day)
    return (None if year is None else (year, month, day)), int(match[2] is None)


_SECOND_3339 = word_of(b":00.0000")
_SECOND_ROOM = np.uint64(0x767676767F76767F)
_HOUR_3339 = re.compile(rb"(\d{4})-(\d\d)-(\d\d)T(\d\d)\0\0\0\Z")
_MINUTE_3339 = word_of(b"\0\0\0\0\0:00")
_MINUTE_ROOM = np.uint64(0x76767F0000000000)
_ZONE_3339 = re.compile(rb"(?:(Z)|([+-])(\d\d):(\d\d))")


def _times_3339(block: Block, rows: Int64, position: Int64) -> tuple[Int64, Int64, Int64]:
    """Of `rows`, those with the time rsyslog writes (six digits of a second, a zone); as `_times_3164`."""
    inside = position + 33 <= len(block.raw)
    rows, position = rows[inside], position[inside]
    if not len(rows):
        return rows, position, position
    words = [block.word(position + at) for at in (0, 8, 16, 24)]
    ends_z = (words[3] >> np.uint64(16)) & keep(2) == word_of(b"Z ")
    zone = np.where(ends_z, words[3] >> np.uint64(16) & keep(1), words[3] >> np.uint64(16))
    good = ends_z | (block.byte(position + 32) == 0x20)
    values = words[2] ^ _SECOND_3339
    good &= (((values & _LOW7) + _SECOND_ROOM) | values) & _HIGH == 0
    last, bad = not_digits(words[3])
    good &= bad & keep(2) == 0
    seconds = _nibble(values, 1) * 10 + _nibble(values, 2)
    good &= seconds <= 60
    micros = np.zeros(len(rows), dtype=np.int64)
    for source, indices in ((values, (4, 5, 6, 7)), (last, (0, 1))):
        for index in indices:
            micros = micros * 10 + _nibble(source, index)
    minutes = (words[1] ^ _MINUTE_3339) & ~keep(5)
    good &= (((minutes & _LOW7) + _MINUTE_ROOM) | minutes) & _HIGH == 0
    minute = _nibble(minutes, 6) * 10 + _nibble(minutes, 7)
    good &= minute <= 59
    base, known = _per_run(words[0], words[1] & keep(5), _hour_3339)
    offset, zone_known = _per_run(zone, zone, _offset_3339)
    good &= known & zone_known
    times = base - offset + minute * MINUTE + seconds * SECOND + micros
    after = position + np.where(ends_z, 28, 33)
    return rows[good], times[good], after[good]


def _hour_3339(first: int, second: int) -> int | None:
    match = _HOUR_3339.match(first.to_bytes(8, "little") + second.to_bytes(8, "little"))
    if match is None:
        return None
    year, month, day, hour = (int(match[n]) for n in range(1, 5))
    if not exists(year, month, day) or not 1 < year < 9998 or hour > 23:
        return None
    return start_of(year, month, day) + hour * HOUR


def _offset_3339(zone: int, _: int) -> int | None:
    match = _ZONE_3339.fullmatch(zone.to_bytes(8, "little").rstrip(b"\0"))
    if match is None or (match[2] and (int(match[3]) > 23 or int(match[4]) > 59)):
        return None
    if match[1]:
        return 0
    offset = int(match[3]) * HOUR + int(match[4]) * MINUTE
    return -offset if match[2] == b"-" else offset


def _per_run(first: UInt64, second: UInt64, meaning: Meaning) -> tuple[Int64, Bool]:
    heads, lengths = _runs(first, second)
    memo: dict[tuple[int, int], int | None] = {}
    values = np.zeros(len(heads), dtype=np.int64)
    known = np.ones(len(heads), dtype=bool)
    for number, pair in enumerate(zip(first[heads].tolist(), second[heads].tolist(), strict=True)):
        if pair not in memo:
            memo[pair] = meaning(*pair)
        value = memo[pair]
        values[number], known[number] = value or 0, value is not None
    return np.repeat(values, lengths), np.repeat(known, lengths)


def _read_tags(
    block: Block, rows: Int64 | slice, times: Int64, position: Int64, limit: Int64, headers: Headers
) -> Bool:
    """Read `host tag[pid]: ` or `tag[pid]: ` of `rows`; which of them were as plain as that."""
    good = position < limit
    position = np.minimum(position, limit)
    guess = _host_like_first(block, position, limit)
    if guess:
        host_end = position + len(guess)
        hostless = np.zeros(len(position), dtype=bool)
    else:
        host_end, unknown = block.find(b" ", position, limit)
        if unknown is not None:
            good &= ~unknown
        good &= (host_end > position) & (host_end < limit)
        hostless = good & (block.byte_before(host_end) == 0x3A)
    tag_start = np.minimum(host_end + 1, limit)
    tag_end, unknown = block.find(b" ", tag_start, limit)
    if unknown is not None:
        good &= ~unknown
    if hostless.any():
        tag_start, tag_end = np.where(hostless, position, tag_start), np.where(hostless, host_end, tag_end)
    good &= (tag_end < limit) & (tag_end - tag_start >= 2)
    tag_end = np.maximum(tag_end, 2)
    word = block.word_before(tag_end)
    good &= word >> np.uint64(56) == 0x3A
    bracket = word >> np.uint64(48) & np.uint64(0xFF) == 0x5D
    values, bad = not_digits((word << np.uint64(16)).byteswap())
    count = first_byte(bad)
    if (count < 6).all():
        # Five digits and the bracket before them are in this word, too.
        opened = word >> (5 - count).astype(np.uint64) * np.uint64(8) & np.uint64(0xFF) == 0x5B
        program_end = np.where(bracket, tag_end - 3 - count, tag_end - 1)
    else:
        values, bad = not_digits(block.word_before(tag_end - 2).byteswap())
        count = first_byte(bad)
        program_end = np.where(bracket, tag_end - 3 - count, tag_end - 1)
        opened = block.byte(np.maximum(program_end, 0)) == 0x5B
    good &= program_end > tag_start
    good &= ~bracket | ((count >= 1) & (count <= 7) & opened)
    # The digits, last one lowest, are turned round and the bytes before them cleared.
    shift = np.uint64(8) * (8 - np.minimum(count, 7)).astype(np.uint64)
    digits = values.byteswap() >> shift << shift
    pid = np.where(bracket & (count >= 1), number_of(digits).astype(np.int64), ABSENT)
    start = np.minimum(tag_end + 1, limit)

    if good.all():
        chosen: Int64 | slice = rows
    else:
        kept = np.flatnonzero(good)
        chosen = kept if isinstance(rows, slice) else rows[kept]
        times, position, host_end, tag_start, program_end, pid, start, hostless = (
            array[kept] for array in (times, position, host_end, tag_start, program_end, pid, start, hostless)
        )
    headers.ok[chosen] = True
    headers.time[chosen] = times
    if hostless.any():
        position, host_end = np.where(hostless, ABSENT, position), np.where(hostless, ABSENT, host_end)
    headers.host_start[chosen] = position
    headers.host_end[chosen] = host_end
    headers.program_start[chosen] = tag_start
    headers.program_end[chosen] = program_end
    headers.pid[chosen] = pid
    headers.start[chosen] = start
    words = _unwrap_many(block, chosen, start, headers)
    if isinstance(chosen, slice):
        headers.words = words
        if guess:
            headers.hosts = np.zeros(len(position), dtype=np.int32), [decode(guess)]
    return good


def _host_like_first(block: Block, position: Int64, limit: Int64) -> bytes:
    """The host that stands at every position, as it does in the log of one machine; b"" where there is not just one."""
    if not len(position):
        return b""
    begin = int(position[0])
    host, space, _ = block.raw[begin : begin + _HOST_LENGTH + 1].partition(b" ")
    if not host or not space or host.endswith(b":"):
        return b""
    same = block.matches(position, host + b" ") & (position + len(host) < limit)
    return host if same.all() else b""


def _unwrap_many(block: Block, rows: Int64 | slice, start: Int64, headers: Headers) -> UInt64:
    """Unwrap the messages of `rows`, which begin at `start`; their first words then."""
    words = block.word(start)
    wrapped = np.zeros(len(words), dtype=bool)
    for wrapper in WRAPPERS:
        wrapped |= words & keep(len(wrapper)) == word_of(wrapper)
    some = np.flatnonzero(wrapped)
    for place, row in zip(some.tolist(), (some if isinstance(rows, slice) else rows[some]).tolist(), strict=True):
        begin, end = int(headers.start[row]), int(headers.end[row])
        span = unwrap(block.raw[begin:end])
        if span is not None:
            headers.repeat[row] = span[0]
            headers.start[row], headers.end[row] = begin + span[1], begin + span[2]
            words[place] = block.word(headers.start[row : row + 1])[0]
    return words
