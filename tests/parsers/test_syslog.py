"""Syslog headers: every format, New Year, zones and clock changes, garbage; plain and vectorised code agree.
Counterpart: vedette.parsers.syslog."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vedette.model.batch import Batch, Origin, split_lines
from vedette.model.clock import DAY, HOUR, SECOND
from vedette.parsers.columns import Block
from vedette.parsers.headers import Headers, read_headers
from vedette.parsers.syslog import REPEAT_LIMIT, read_header, span_of_file
from vedette.parsers.years import Calendar
from vedette.text.times import parse_rfc3339, rfc3339

READ_AT = parse_rfc3339("2026-11-24T12:00:00Z")


def batch_of(records: list[bytes], *, read_at: int = READ_AT, year: int = 0, timezone: str = "UTC") -> Batch:
    block = b"\n".join(records) + b"\n"
    lengths = np.array([len(record) for record in records], dtype=np.int64)
    ends = np.cumsum(lengths + 1) - 1 if records else lengths
    return Batch(
        origin=Origin("h", "file"),
        number=0,
        block=block,
        starts=ends - lengths,
        ends=ends,
        positions=np.arange(len(records), dtype=np.int64),
        read_at=read_at,
        year=year,
        timezone=timezone,
    )


def headers_of(records: list[bytes], *, light: int = 0, **options: object) -> tuple[Batch, Headers]:
    batch = batch_of(records, **options)  # type: ignore[arg-type]
    return batch, read_headers(batch, Block(batch.block), light=light)


def parts(record: bytes, *, light: int = 0, **options: object) -> dict[str, object]:
    """What is read of one record, by the vectorised code unless `light` is set."""
    batch, headers = headers_of([record], light=light, **options)

    def text(start: int, end: int) -> bytes | None:
        return batch.block[start:end] if start >= 0 else None

    return {
        "ok": bool(headers.ok[0]),
        "time": rfc3339(int(headers.time[0])),
        "host": text(int(headers.host_start[0]), int(headers.host_end[0])),
        "program": text(int(headers.program_start[0]), int(headers.program_end[0])),
        "pid": int(headers.pid[0]),
        "pri": int(headers.pri[0]),
        "message": batch.block[int(headers.start[0]) : int(headers.end[0])],
        "repeat": int(headers.repeat[0]),
    }


def expect(time: str, host: bytes | None, program: bytes | None, pid: int, message: bytes, pri: int = -1) -> dict:
    return {
        "ok": True,
        "time": time,
        "host": host,
        "program": program,
        "pid": pid,
        "pri": pri,
        "message": message,
        "repeat": 1,
    }


NOV = "2026-11-24T02:53:13.000000Z"
CASES = [
    (b"Nov 24 02:53:13 web1 sshd[6400]: Failed password", expect(NOV, b"web1", b"sshd", 6400, b"Failed password")),
    (
        b"Nov  4 02:53:13 web1 sshd-session[6400]: x",
        expect("2026-11-04T02:53:13.000000Z", b"web1", b"sshd-session", 6400, b"x"),
    ),
    (b"Nov 4 02:53:13 web1 sshd[6400]: x y z", expect("2026-11-04T02:53:13.000000Z", b"web1", b"sshd", 6400, b"x y z")),
    (b"Nov 04 02:53:13 web1 sshd[6400]: x y", expect("2026-11-04T02:53:13.000000Z", b"web1", b"sshd", 6400, b"x y")),
    (b"<38>Nov 24 02:53:13 sshd[6400]: Failed none", expect(NOV, None, b"sshd", 6400, b"Failed none", 38)),
    (b"<4>Nov 24 02:53:13 kernel: usb 1-1: new", expect(NOV, None, b"kernel", -1, b"usb 1-1: new", 4)),
    (b"<191>Nov 24 02:53:13 web1 su[12345]: x", expect(NOV, b"web1", b"su", 12345, b"x", 191)),
    (b"<192>Nov 24 02:53:13 web1 su[12345]: x", None),
    (b"<>Nov 24 02:53:13 web1 su[12345]: x", None),
    (b"<1234>Nov 24 02:53:13 web1 su[12345]: x", None),
    (b"Nov 24 02:53:13 combo sshd(pam_unix)[19939]: auth", expect(NOV, b"combo", b"sshd(pam_unix)", 19939, b"auth")),
    (b"Nov 24 02:53:13 web1 /usr/sbin/cron[77]: x", expect(NOV, b"web1", b"/usr/sbin/cron", 77, b"x")),
    (b"Nov 24 02:53:13 web1 systemd-logind[1]: New", expect(NOV, b"web1", b"systemd-logind", 1, b"New")),
    (b"Nov 24 02:53:13 web1 kernel:[  12.3] x", expect(NOV, b"web1", b"kernel", -1, b"[  12.3] x")),
    (b"Nov 24 02:53:13 web1 prog[123]:x y", expect(NOV, b"web1", b"prog", 123, b"x y")),
    (b"Nov 24 02:53:13 web1 rsyslogd[main]: x", expect(NOV, b"web1", b"rsyslogd", -1, b"x")),
    (b"Nov 24 02:53:13 web1 prog[123456789012]: x", expect(NOV, b"web1", b"prog", 123456789012, b"x")),
    (b"Nov 24 02:53:13 web1 syslogd 1.4.1: restart.", expect(NOV, b"web1", b"syslogd", -1, b"1.4.1: restart.")),
    (b"Nov 24 02:53:13 web1 -- MARK --", expect(NOV, b"web1", None, -1, b"-- MARK --")),
    (b"Nov 24 02:53:13 web1 sudo:    alice : TTY=x", expect(NOV, b"web1", b"sudo", -1, b"   alice : TTY=x")),
    (b"Nov 24 02:53:13 web1", expect(NOV, b"web1", None, -1, b"")),
    (b"Nov 24 02:53:13 web1 sshd[1]:", expect(NOV, b"web1", b"sshd", 1, b"")),
    (b"Nov 24 02:53:13 web1 sshd[1]: ", expect(NOV, b"web1", b"sshd", 1, b"")),
    (b"Nov 24 02:53:13 web1 : x y z aaaa", expect(NOV, b"web1", b":", -1, b"x y z aaaa")),
    (
        b"Nov 24 02:53:13 web1 last message repeated 5 times",
        expect(NOV, b"web1", None, -1, b"last message repeated 5 times"),
    ),
    (
        b"Nov 24 02:53:13 web1 sshd[1]: a\0b\xff\xfe \x1b[31m",
        expect(NOV, b"web1", b"sshd", 1, b"a\0b\xff\xfe \x1b[31m"),
    ),
    (b"Nov 24 02:53:13 w\xff\0 ss\0hd[1]: x", expect(NOV, b"w\xff\0", b"ss\0hd", 1, b"x")),
    (b"Nov 24 23:59:60 web1 sshd[1]: leap", expect("2026-11-25T00:00:00.000000Z", b"web1", b"sshd", 1, b"leap")),
    (
        b"2026-11-24T02:53:13.123456+01:00 web1 sshd[6400]: x",
        expect("2026-11-24T01:53:13.123456Z", b"web1", b"sshd", 6400, b"x"),
    ),
    (
        b"2026-11-24T02:53:13.123456Z web1 sshd[6400]: xyzabc",
        expect("2026-11-24T02:53:13.123456Z", b"web1", b"sshd", 6400, b"xyzabc"),
    ),
    (
        b"2026-11-24T02:53:13-05:30 web1 sshd[6400]: xyzabc",
        expect("2026-11-24T08:23:13.000000Z", b"web1", b"sshd", 6400, b"xyzabc"),
    ),
    (
        b"2026-11-24T02:53:13.123Z web1 sshd[6400]: xyzabc",
        expect("2026-11-24T02:53:13.123000Z", b"web1", b"sshd", 6400, b"xyzabc"),
    ),
    (
        b"<38>2026-11-24T02:53:13.123456789Z web1 kernel: xyzabc",
        expect("2026-11-24T02:53:13.123456Z", b"web1", b"kernel", -1, b"xyzabc", 38),
    ),
    (
        b"2026-11-24T02:53:13.5 web1 kernel: no zone",
        expect("2026-11-24T02:53:13.500000Z", b"web1", b"kernel", -1, b"no zone"),
    ),
    (
        b'<34>1 2026-11-24T02:53:13.003Z web1 sshd 6400 ID47 [a@1 k="v]\\"" l="\\]"][b] \xef\xbb\xbfFailed x',
        expect("2026-11-24T02:53:13.003000Z", b"web1", b"sshd", 6400, b"Failed x", 34),
    ),
    (
        b"<34>1 2026-11-24T02:53:13Z web1 sshd - - - Failed x",
        expect("2026-11-24T02:53:13.000000Z", b"web1", b"sshd", -1, b"Failed x", 34),
    ),
    (b"<34>1 - - - - - -", expect(rfc3339(READ_AT), None, None, -1, b"", 34)),
    (b'<34>1 - - - - - [x y="z] open', None),
    (
        b"<34>1 2026-11-24T02:53:13.123456Z web1 sshd 6400 - - \xef\xbb\xbfFailed x",
        expect("2026-11-24T02:53:13.123456Z", b"web1", b"sshd", 6400, b"Failed x", 34),
    ),
    (
        b"<34>1 2026-11-24T02:53:13.123456-01:00 - - 123456789012 ID - Failed x",
        expect("2026-11-24T03:53:13.123456Z", None, None, 123456789012, b"Failed x", 34),
    ),
    (
        b"<34>1 2026-11-24T02:53:13.123456Z web1 sshd main - - x",
        expect("2026-11-24T02:53:13.123456Z", b"web1", b"sshd", -1, b"x", 34),
    ),
    (
        b'<34>1 2026-11-24T02:53:13.123456Z web1 sshd - ID [a@1 b="c d"] x',
        expect("2026-11-24T02:53:13.123456Z", b"web1", b"sshd", -1, b"x", 34),
    ),
    (b"<34>1 2026-11-24T02:53:13.123456Z web1 sshd - ID  x", None),
    (b"<34>1 nonsense h a p m - x", None),
    (b"", None),
    (b"Nov", None),
    (b"garbage that is long enough to be looked at", None),
    (b"nov 24 02:53:13 web1 sshd[6400]: x", None),
    (b"NOV 24 02:53:13 web1 sshd[6400]: x", None),
    (b"Nov 31 02:53:13 web1 sshd[6400]: x", None),
    (b"Nov 00 02:53:13 web1 sshd[6400]: x", None),
    (b"Nov 24 24:53:13 web1 sshd[6400]: x", None),
    (b"Nov 24 02:60:13 web1 sshd[6400]: x", None),
    (b"Nov 24 02:53:61 web1 sshd[6400]: x", None),
    (b"Nov 24 02:53:1\xb3 web1 sshd[6400]: x", None),
    (b"Nov 24 02-53-13 web1 sshd[6400]: x", None),
    (b"2026-11-24T02:60:13.123456Z web1 sshd[6400]: xyzabc", None),
    (b"2026-11-24T02-53:13.123456Z web1 sshd[6400]: xyzabc", None),
    (b"2026-11-24T02:5a:13.123456Z web1 sshd[6400]: xyzabc", None),
    (b"2026-11-24T24:53:13.123456Z web1 sshd[6400]: xyzabc", None),
    (b"2026-11-24T02:53:61.123456Z web1 sshd[6400]: xyzabc", None),
    (b"2026-11-24T02:53:13.12345xZ web1 sshd[6400]: xyzabc", None),
    (b"2026-13-24T02:53:13.123456Z web1 sshd[6400]: xyzabc", None),
    (b"2026-02-29T02:53:13.123456Z web1 sshd[6400]: xyzabc", None),
    (b"2026-11-24T02:53:13.123456+25:00 web1 sshd[6400]: xyzabc", None),
    (b"Nov 24 02:53:13 " + b"h" * 300 + b" sshd[1]: x", expect(NOV, b"h" * 300, b"sshd", 1, b"x")),
    (b"Nov 24 02:53:13 h " + b"p" * 300 + b"[1]: x", expect(NOV, b"h", b"p" * 300, 1, b"x")),
]


@pytest.mark.parametrize("light", [0, 99], ids=["batch", "light"])
@pytest.mark.parametrize(("record", "wanted"), CASES, ids=lambda case: repr(case[:40]) if type(case) is bytes else "")
def test_a_header(record: bytes, wanted: dict | None, light: int):
    if wanted is None:
        wanted = expect(rfc3339(READ_AT), None, None, -1, record) | {"ok": False}
    assert parts(record, light=light) == wanted


def test_formats_may_be_mixed_in_one_batch():
    records = [record for record, _ in CASES]
    _, headers = headers_of(records)
    assert headers.ok.tolist() == [wanted is not None for _, wanted in CASES]


# ---------------------------------------------------------------------------------------------------- repeats


@pytest.mark.parametrize("light", [0, 99])
@pytest.mark.parametrize(
    ("text", "message", "repeat"),
    [
        (b"message repeated 5 times: [ Failed password for root]", b"Failed password for root", 5),
        (b"message repeated 5 times: [Failed [x]]", b"Failed [x]", 5),
        (b"message repeated 0 times: [ x]", b"x", 1),
        (b"message repeated 99999999999 times: [ x]", b"x", REPEAT_LIMIT),
        (b"message repeated 5 times: [ x", b"message repeated 5 times: [ x", 1),
        (b"[ID 800047 auth.info] Failed x", b"Failed x", 1),
        (b"[ID 800047 auth.info] message repeated 2 times: [ x]", b"x", 2),
        (b"[ID x] Failed", b"[ID x] Failed", 1),
        (b"message repeated x times: [ x]", b"message repeated x times: [ x]", 1),
    ],
)
def test_a_repeated_message_is_unwrapped(text: bytes, message: bytes, repeat: int, light: int):
    for head in (b"Nov 24 02:53:13 web1 sshd[1]: ", b"<34>1 2026-11-24T02:53:13Z web1 sshd 1 - - "):
        found = parts(head + text, light=light)
        assert (found["message"], found["repeat"], found["program"]) == (message, repeat, b"sshd")


# ---------------------------------------------------------------------------------------------------- years and zones


@pytest.mark.parametrize("light", [0, 99])
@pytest.mark.parametrize(
    ("stamp", "read_at", "year", "wanted"),
    [
        (b"Dec 31", "2026-01-01T00:00:05Z", 0, "2025-12-31"),
        (b"Jan  1", "2026-01-01T00:00:05Z", 0, "2026-01-01"),
        (b"Jan  1", "2025-12-31T23:59:00Z", 0, "2026-01-01"),  # a clock a little ahead
        (b"Jan  2", "2025-12-31T23:59:00Z", 0, "2025-01-02"),
        (b"Dec 31", "2026-06-01T00:00:00Z", 0, "2025-12-31"),
        (b"Dec 31", "2026-06-01T00:00:00Z", 2024, "2024-12-31"),
        (b"Dec 31", "2026-06-01T00:00:00Z", 2026, "2025-12-31"),
        (b"Dec 31", "2026-06-01T00:00:00Z", 2030, "2030-12-31"),
        (b"Jan  1", "2026-06-01T00:00:00Z", 2026, "2026-01-01"),
        (b"Feb 29", "2026-06-01T00:00:00Z", 0, "2024-02-29"),
        (b"Feb 29", "2024-03-01T00:00:00Z", 0, "2024-02-29"),
        (b"Feb 29", "2026-06-01T00:00:00Z", 2024, "2024-02-29"),
        (b"Feb 29", "2026-06-01T00:00:00Z", 2023, None),
    ],
)
def test_the_year(stamp: bytes, read_at: str, year: int, wanted: str | None, light: int):
    found = parts(stamp + b" 02:03:04 h sshd[1]: message", read_at=parse_rfc3339(read_at), year=year, light=light)
    assert found["ok"] is (wanted is not None)
    assert found["time"] == (f"{wanted}T02:03:04.000000Z" if wanted else rfc3339(parse_rfc3339(read_at)))


def test_a_file_that_crosses_new_year_reads_the_same_however_it_is_cut():
    records = [
        b"Dec 31 23:59:58 h a: 1",
        b"Dec 31 23:59:59 h a: 2",
        b"Jan  1 00:00:00 h a: 3",
        b"Jan  1 00:00:01 h a: 4",
    ]
    records = [record + b" long enough" for record in records]
    for year, mtime in ((2020, "2026-06-01T00:00:00Z"), (0, "2021-01-01T00:00:30Z"), (2020, "2021-01-01T00:00:30Z")):
        given_year, read_at = span_of_file(
            records[0], records[-1], year=year, mtime=parse_rfc3339(mtime), timezone="UTC"
        )
        together = headers_of(records, year=given_year, read_at=read_at)[1].time.tolist()
        apart = [int(headers_of([r], year=given_year, read_at=read_at)[1].time[0]) for r in records]
        assert together == apart
        assert rfc3339(together[0]) == "2020-12-31T23:59:58.000000Z"
        assert rfc3339(together[3]) == "2021-01-01T00:00:01.000000Z"


def test_a_file_within_one_year_keeps_the_year_it_is_given():
    first, last = b"Feb  1 00:00:00 h a: long enough", b"Nov  1 00:00:00 h a: long enough"
    mtime = parse_rfc3339("2026-06-01T00:00:00Z")
    year, read_at = span_of_file(first, last, year=2026, mtime=mtime, timezone="UTC")
    _, headers = headers_of([first, last], year=year, read_at=read_at)
    assert [rfc3339(int(time))[:10] for time in headers.time] == ["2026-02-01", "2026-11-01"]


@pytest.mark.parametrize("light", [0, 99])
@pytest.mark.parametrize(
    ("timezone", "stamp", "wanted"),
    [
        ("Europe/Berlin", b"Nov 24 02:53:13", "2026-11-24T01:53:13.000000Z"),
        ("Europe/Berlin", b"Jul  1 02:53:13", "2026-07-01T00:53:13.000000Z"),
        ("Europe/Berlin", b"Mar 29 02:30:00", "2026-03-29T01:30:00.000000Z"),  # skipped: the offset before the change
        ("Europe/Berlin", b"Oct 25 02:30:00", "2026-10-25T00:30:00.000000Z"),  # doubled: the first of the two
        ("Australia/Lord_Howe", b"Apr  5 01:29:00", "2026-04-04T14:29:00.000000Z"),
        ("Australia/Lord_Howe", b"Apr  5 01:45:00", "2026-04-04T14:45:00.000000Z"),
        ("Australia/Lord_Howe", b"Apr  5 02:10:00", "2026-04-04T15:40:00.000000Z"),
        ("Asia/Kathmandu", b"Nov 24 02:53:13", "2026-11-23T21:08:13.000000Z"),
    ],
)
def test_a_zone(timezone: str, stamp: bytes, wanted: str, light: int):
    assert parts(stamp + b" h sshd[1]: message", timezone=timezone, light=light)["time"] == wanted


@given(
    st.integers(0, 364 * 2),
    st.integers(0, 86399),
    st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe"]),
)
def test_a_record_is_never_more_than_two_days_ahead_of_its_reading(day: int, second: int, zone: str):
    read_at = READ_AT + day * DAY + second * SECOND
    calendar = Calendar(0, read_at, zone)
    for month in range(1, 13):
        year = calendar.year_of(month, 28)
        assert year is not None
        time = calendar.absolute(year, month, 28, 12, 0)
        assert read_at - 367 * DAY < time < read_at + 2 * DAY + 14 * HOUR


# ---------------------------------------------------------------------------------------------------- agreement

_pieces = st.sampled_from(
    [
        b"Nov 24 02:53:13 ",
        b"Nov  4 02:53:13 ",
        b"Feb 29 23:59:60 ",
        b"Jan 1 00:00:00 ",
        b"<38>",
        b"<1",
        b">",
        b"1 ",
        b"<34>1 2026-11-24T02:53:13.123456Z h a 1 - - ",
        b"<34>1 2026-11-24T02:53:13.123456Z h ",
        b"\xef\xbb\xbf",
        b"- - ",
        b"2026-11-24T02:53:13.123456+01:00 ",
        b"2026-11-24T02:53:13Z ",
        b"2026-11-24T02:53:13.123456Z ",
        b"- ",
        b"web1 ",
        b"sshd[6400]: ",
        b"sshd[",
        b"6400]",
        b": ",
        b":",
        b" ",
        b"]",
        b"[",
        b"kernel: ",
        b"kernel:[1] ",
        b"--",
        b"a" * 70,
        b"message repeated 3 times: [ x]",
        b'[a b="c"] ',
        b"\0",
        b"\xff",
        b"last ",
    ]
)
NATIVES = (
    b"2026-03-01T10:00:00.123456Z 12 [Note] x: y",
    b"2026-03-01T10:00:00.123456+01:00 unbound[1:0] info: x",
    b"2026-03-01 10:00:00 12 [Note] x: y",
    b"1772359200.123    924 198.51.100.7 TCP_DENIED/403 3914 GET x",
    b"[Sun Mar 01 10:00:00 2026] [error] x",
    b"2026-03-01 10:00:00,121 ftp1 proftpd[711] ftp1: x",
)
_record = st.one_of(
    st.lists(_pieces, max_size=9).map(b"".join),
    st.tuples(st.sampled_from([*(case[0] for case in CASES), *NATIVES]), st.integers(0, 60), st.binary(max_size=2)).map(
        lambda made: made[0][: made[1]] + made[2] + made[0][made[1] + len(made[2]) :]
    ),
    st.binary(max_size=40),
)


@given(
    st.lists(_record, min_size=1, max_size=12), st.sampled_from([0, 2024]), st.sampled_from(["UTC", "Europe/Berlin"])
)
def test_a_batch_is_read_as_its_records_are(records: list[bytes], year: int, timezone: str):
    batch, headers = headers_of(records, year=year, timezone=timezone)
    calendar = Calendar.of(batch)
    for row, record in enumerate(records):
        single = read_header(record, calendar, READ_AT)
        begin = int(batch.starts[row])

        def shifted(span: tuple[int, int], begin: int = begin) -> tuple[int, int]:
            return (span[0] + begin, span[1] + begin) if span[0] >= 0 else span

        assert single.ok == headers.ok[row]
        assert single.time == headers.time[row]
        assert shifted(single.host) == (headers.host_start[row], headers.host_end[row])
        assert shifted(single.program) == (headers.program_start[row], headers.program_end[row])
        assert (single.pid, single.pri) == (headers.pid[row], headers.pri[row])
        assert shifted((single.start, single.end)) == (headers.start[row], headers.end[row])
        assert single.repeat == headers.repeat[row]
        assert single.native == headers.natives.get(row, "")


# ---------------------------------------------------------------------------------------------------- real logs


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("name", "lines"),
    [("loghub/OpenSSH/OpenSSH_2k.log", 2000), ("loghub/Linux/Linux_2k.log", 2000), ("elastic-examples/auth.log", 7121)],
)
def test_every_line_of_real_logs_has_a_header(corpus: Path, name: str, lines: int):
    raw = (corpus / "logs" / name).read_bytes()
    starts, ends = split_lines(raw)
    records = [raw[start:end] for start, end in zip(starts, ends, strict=True)]
    _, headers = headers_of(records)
    assert len(records) == lines
    assert [records[row] for row in np.flatnonzero(~headers.ok)] == []
    programless = [records[row] for row in np.flatnonzero(headers.program_start < 0)]
    assert [record for record in programless if b"last message repeated" not in record and b" -- " not in record] == []
