"""How log files begin that daemons write themselves: a time stamp of the daemon's own and no host, told apart by line.
Counterpart: `parsers.syslog` asks here for what has no syslog header; `patterns/*.yml` read on behind the time."""

from __future__ import annotations

import re
from typing import NamedTuple

from vedette.model.clock import DAY, HOUR, MINUTE, SECOND
from vedette.parsers.years import MONTHS, Calendar, exists, start_of

_TAI = 10
"""Seconds that labels of TAI64N are ahead of UTC as multilog writes them, which knows no leap seconds."""
_LATEST = 1 << 34
LIMIT = 512
"""Bytes at the beginning of a record that tell whose it is."""


class Native(NamedTuple):
    """Whose record it is, when it was written (microseconds UTC), and where its message begins. pid: -1 where not told.

    program: as pattern files name it; "" where the record names it itself and the rest is read like a syslog tag.
    """

    program: str
    time: int
    start: int
    pid: int = -1


# The stamps. Everything that follows one is written by the daemon before any text of a peer's, so that within a line
# nobody who is logged chooses whose record it is. Of files of daemons that write a peer's line breaks as they came
# (nginx, PostgreSQL, MariaDB) a stranger may write whole lines: files are forgeable, and `doctor` says who may do that.
# A `T` stands between date and time only where the records are never like those of rsyslog, which has one, too.
_DAY = rb"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)"
_CLOCK = rb"(?P<hour>[ \d]\d):(?P<minute>\d\d):(?P<second>\d\d)"
_ISO, _ISO_T = _DAY + b" " + _CLOCK, _DAY + b"T" + _CLOCK
_FRACTION = rb"(?:[.,](?P<fraction>\d{1,9}))?"
_ZONE = rb"(?: ?(?:(?P<utc>Z|UTC|GMT)|(?P<sign>[+-])(?P<off>\d\d):?(?P<offm>\d\d)|[A-Z]{3,5}))?"
# As PostgreSQL names one: minutes only where there are any, and no colon, for one of its own may follow.
_ABBREVIATED = rb" (?:(?P<utc>UTC|GMT)|(?P<sign>[+-])(?P<off>\d\d)(?P<offm>\d\d)?|[A-Z]{3,5})"
_SLASHED = rb"(?P<year>\d{4})/(?P<month>\d\d)/(?P<day>\d\d) (?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
_CTIME = (
    rb"[A-Z][a-z][a-z] (?P<name>[A-Z][a-z][a-z]) (?P<day>[ \d]\d) (?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
    rb"(?:\.(?P<fraction>\d{1,9}))? (?P<year>\d{4})"
)
_EPOCH = rb"(?P<epoch>\d{9,10})(?:\.(?P<fraction>\d{1,9}))?"
_ADDRESS = rb"[0-9A-Fa-f.:]{2,45}"

# Program, which of `_kind` it is, what a record begins with, and, between "(?=" and ")", what must follow for the
# record to be the program's.
_HEADS: tuple[tuple[str, str, bytes], ...] = (
    ("apache2", "[", rb"\[" + _CTIME + rb"\] (?=\[[^\]\s]*\] )"),
    ("nginx", "/", _SLASHED + rb" (?=\[[a-z]+\] \d{1,10}#\d{1,10}: )"),
    ("squid", "/", _SLASHED + rb"(?: kid\d+)?\| "),
    ("squid", "0", _EPOCH + rb" +(?=\d{1,12} \S+ [A-Z_]+/\d{3} )"),
    ("vsftpd", "A", _CTIME + rb" (?=\[pid \d{1,10}\] )"),
    ("openvpn", "A", _CTIME + rb" (?:us=\d+ )?(?=(?:\S*/)?" + _ADDRESS + rb":\d{1,5} |TLS |VERIFY |OpenVPN )"),
    ("openvpn", "-", _ISO + rb" (?:us=\d+ )?(?=(?:\S*/)?" + _ADDRESS + rb":\d{1,5} [A-Z]|TLS |OpenVPN )"),
    ("haproxy", "0", rb"(?=" + _ADDRESS + rb":\d{1,5} \[(?P<day>\d\d)/(?P<name>[A-Z][a-z][a-z])/(?P<year>\d{4}):"
     + _CLOCK + rb"\.(?P<fraction>\d{3})\] \S+ )"),
    ("named", "0", rb"(?P<day>\d\d)-(?P<name>[A-Z][a-z][a-z])-(?P<year>\d{4}) " + _CLOCK + rb"\.(?P<fraction>\d{3}) "),
    ("unbound", "[", rb"\[" + _EPOCH + rb"\] unbound\[(?P<pid>\d{1,10}):[0-9a-f]+\] "),
    ("unbound", "T", _ISO_T + rb"\.(?P<fraction>\d{3})" + _ZONE + rb" unbound\[(?P<pid>\d{1,10}):[0-9a-f]+\] "),
    ("mysqld", "T", _ISO_T + _FRACTION + _ZONE + rb" (?=\d{1,20} \[(?:Note|Warning|ERROR|System)\] )"),
    ("mysqld", "-", _ISO + rb" (?=(?:\d{1,20} |0x[0-9a-f]+ )?\[(?:Note|Warning|ERROR)\] )"),
    ("mysqld", "0", rb"(?P<short>\d\d)(?P<month>\d\d)(?P<day>\d\d) " + _CLOCK
     + rb" (?=(?:\d{1,20} )?\[(?:Note|Warning|ERROR)\] )"),
    ("postgres", "-", _ISO + _FRACTION + _ABBREVIATED + rb" (?=(?:\S+ ){0,3}?\[\d{1,10}(?:-\d{1,10})?\]:? )"),
    ("postgres", "-", _ISO + _FRACTION + _ABBREVIATED + rb":(?=\S*:\[\d{1,10}\]:)"),
    ("smbd", "[", rb"\[" + _SLASHED + _FRACTION + rb", +\d+(?:, [^\]]*)?\] (?=\S+:\d+\(\S+\))"),
    ("slapd", "0", rb"(?P<hex>[0-9a-f]{8})(?:\.[0-9a-f]{1,8})?(?: 0x[0-9a-f]+)? (?=conn=\d+ )"),
    ("dockerd", "t", rb'(?=time="' + _ISO_T + _FRACTION + _ZONE + rb'" level=[a-z]+ msg=)'),
    ("exim", "-", _ISO + _FRACTION + _ZONE + rb" (?:\[(?P<pid>\d{1,10})\] )?"
     rb"(?=[0-9A-Za-z]{6}-[0-9A-Za-z]{6,11}-[0-9A-Za-z]{2,4} |H=|\w+ authenticator failed for |(?:\S+ )?SMTP "
     rb"|no [A-Za-z]+ |TLS |(?:Start|End) queue run|exim \d|SA: |rejected |unexpected |refused connection )"),
    ("dovecot", "-", _ISO + _FRACTION + rb" (?=(?:imap|pop3|managesieve|submission)-login: |auth[-:(])"),
    # a label of TAI64N, as multilog writes it
    ("dovecot", "@", rb"@(?P<tai>4[0-9a-f]{15})[0-9a-f]{8} (?=(?:imap|pop3|managesieve|submission)-login: |auth[-:(])"),
    # "host program[pid]" behind a time of its own, as ProFTPD writes
    ("", "-", _ISO + rb"[.,](?P<fraction>\d{1,9}) (?=\S+ [A-Za-z][\w./-]*\[\d{1,10}\]:? )"),
)  # fmt: skip


_KNOWN: dict[str, list[tuple[str, re.Pattern[bytes]]]] = {}
for _program, _of, _head in _HEADS:
    _KNOWN.setdefault(_of, []).append((_program, re.compile(_head)))


def _kind(beginning: bytes) -> str:
    """How a record begins, so that few expressions are tried: most records are none of these."""
    first = beginning[:1]
    if first in (b"[", b"@", b"t"):
        return first.decode()
    if first.isupper():
        return "A"
    if beginning[4:5] == b"-":
        return "T" if beginning[10:11] == b"T" else "-"
    return "/" if beginning[4:5] == b"/" else "0"


def read_native(record: bytes, position: int, calendar: Calendar) -> Native | None:
    """The beginning of a record that some daemon wrote itself; None where it is of no kind that is known.

    A time without a zone is in the calendar's.
    """
    beginning = record[position : position + LIMIT]
    for program, head in _KNOWN[_kind(beginning)]:
        match = head.match(beginning)
        if match is None:
            continue
        found = match.groupdict()
        time = _time(found, calendar)
        if time is None:
            continue
        return Native(program, time, position + match.end(), int(found.get("pid") or -1))
    return None


def _time(found: dict[str, bytes], calendar: Calendar) -> int | None:
    micros = int((found.get("fraction") or b"")[:6].ljust(6, b"0"))
    if found.get("epoch"):
        return int(found["epoch"]) * SECOND + micros
    if found.get("tai"):
        seconds = int(found["tai"], 16) - (1 << 62) - _TAI
        return seconds * SECOND if 0 <= seconds < _LATEST else None
    if found.get("hex"):
        return int(found["hex"], 16) * SECOND
    # A year of two digits is of the years from 1969 on, as POSIX reads it.
    year = int(found["year"]) if found.get("year") else 1900 + (int(found["short"]) - 69) % 100 + 69
    month = MONTHS.get(found["name"], 0) if found.get("name") else int(found["month"])
    day, hour, minute, second = (int(found[name]) for name in ("day", "hour", "minute", "second"))
    if not 1 < year < 9998 or not exists(year, month, day) or hour > 23 or minute > 59 or second > 60:
        return None
    within = second * SECOND + micros
    if found.get("utc") or found.get("sign"):
        off = int(found.get("off") or 0) * HOUR + int(found.get("offm") or 0) * MINUTE
        local = start_of(year, month, day) + hour * HOUR + minute * MINUTE + within
        return None if off >= DAY else local + (off if found.get("sign") == b"-" else -off)
    return calendar.absolute(year, month, day, hour, minute) + within
