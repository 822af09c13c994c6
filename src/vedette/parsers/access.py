"""Lines of nginx and Apache, access logs (common, combined, with host) and error logs, to events.
Counterpart: `sources` and `replay` say the format; rules of category webserver and proxy ask for W3C names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from vedette.model.batch import Batch, GivenHeader, Int64, RecordFormat, Trust
from vedette.model.events import Column, Kinds, RecordKind, Table, Value
from vedette.model.protocols import Counter
from vedette.model.reasons import DropReason
from vedette.parsers.events import PATTERN
from vedette.parsers.frames import moments_of
from vedette.parsers.natives import read_native
from vedette.parsers.parser import SyslogParser
from vedette.parsers.registry import CANDIDATES
from vedette.parsers.years import MONTHS, Calendar, exists, start_of
from vedette.text.addresses import canonical
from vedette.text.escape import decode
from vedette.text.times import rfc3339

_HOURS, _MINUTES, _SECONDS = 3_600_000_000, 60_000_000, 1_000_000

# Quotes within quoted parts are escaped by both servers, so that a part ends at the first one that is not.
_PART = rb'"((?:[^"\\]|\\.)*+)"'
_ACCESS = re.compile(
    rb"(?:(?P<vhost>[^\s\"\[]++) )?(?P<client>[^\s\"\[]++) (?P<ident>\S++) (?P<user>\S++|\"(?:[^\"\\]|\\.)*+\")"
    rb" \[(?P<day>\d\d)/(?P<month>[A-Z][a-z][a-z])/(?P<year>\d{4}):(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
    rb" (?P<sign>[+-])(?P<off>\d\d)(?P<offm>\d\d)\] "
    + _PART.replace(b"(", b"(?P<request>", 1).replace(b"(?P<request>?:", b"(?:")
    + rb" (?P<status>\d{3}|-) (?P<bytes>\d{1,18}|-)(?: "
    + rb'"(?P<referer>(?:[^"\\]|\\.)*+)" "(?P<agent>(?:[^"\\]|\\.)*+)")?(?P<rest>.*)\Z',
    re.DOTALL,
)
_APACHE_ERROR = re.compile(
    rb"\[[A-Z][a-z][a-z] (?P<month>[A-Z][a-z][a-z]) (?P<day>[ \d]\d) (?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
    rb"(?:\.(?P<fraction>\d{1,9}))? (?P<year>\d{4})\] \[(?:[^:\]\s]*:)?(?P<level>[a-z0-9]+)\]"
    rb"(?: \[pid (?P<pid>\d{1,10})[^\]]*\])?(?: \[client (?P<client>[^\]\s]+)\])? ?(?P<message>.*)\Z",
    re.DOTALL,
)
_NGINX_ERROR = re.compile(
    rb"(?P<year>\d{4})/(?P<month>\d\d)/(?P<day>\d\d) (?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
    rb" \[(?P<level>[a-z]+)\] (?P<pid>\d{1,10})#\d+: (?:\*\d+ )?(?P<message>.*)\Z",
    re.DOTALL,
)
_ESCAPE = re.compile(rb'\\(?:x([0-9A-Fa-f]{2})|([\\"nrtbv]))')
_PLAIN = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"v": b"\v"}
_PORT = re.compile(rb"(?<=[\d\]]):\d{1,5}\Z")

_ACCESS_KIND = RecordKind("", frozenset({"webserver", "proxy"}), frozenset({"nginx", "apache"}))
_KINDS = (
    RecordKind(),
    _ACCESS_KIND,
    RecordKind("linux", frozenset(), frozenset({"apache"})),
    RecordKind("linux", frozenset(), frozenset({"nginx"})),
)

# What W3C, Sigma and ECS call the parts of a line; each part has one meaning.
NAMES: Mapping[str, tuple[str, ...]] = {
    "method": ("cs-method", "http.request.method"),
    "uri": ("cs-uri", "c-uri", "url.original"),
    "stem": ("cs-uri-stem", "url.path"),
    "query": ("cs-uri-query", "c-uri-query", "url.query"),
    "extension": ("c-uri-extension", "url.extension"),
    "version": ("cs-version", "http.version"),
    "vhost": ("cs-host", "url.domain"),
    "agent": ("cs-user-agent", "c-useragent", "user_agent.original"),
    "referer": ("cs-referer", "cs-referrer", "http.request.referrer"),
    "status": ("sc-status", "http.response.status_code"),
    "bytes": ("sc-bytes", "http.response.body.bytes"),
    "client": ("c-ip", "source.address"),
    "ip": ("source.ip",),
    "user": ("cs-username", "user.name"),
    "message": ("message",),
    "level": ("log.level",),
    "pid": ("process.pid",),
    "outcome": ("event.outcome",),
}


class AccessParser:
    """One line of a web server's log a record. Pure; never raises. A line that cannot be read is counted."""

    def __init__(self, counter: Counter | None = None, lines: SyslogParser | None = None) -> None:
        """lines: whose patterns read the messages of error logs; without it they are text alone."""
        self._counter = counter
        self._lines = lines
        self._given: AbstractSet[str] = frozenset()
        if lines is not None:
            self._given = _DERIVED | lines.patterns.fields_of(service for service in _SERVICES[2:] if service)

    def parse(self, batch: Batch) -> Table:
        """The events of `batch`; times without a zone (error logs) are in that of the batch."""
        n = len(batch)
        calendar = Calendar.of(batch)
        time = np.full(n, batch.read_at, dtype=np.int64)
        codes = np.zeros(n, dtype=np.int32)
        parts: list[dict[str, Any]] = []
        for row, (start, end) in enumerate(zip(batch.starts.tolist(), batch.ends.tolist(), strict=True)):
            code, stamp, found = _read(batch.block[start:end], calendar)
            codes[row] = code
            if code:
                time[row] = stamp
            parts.append(found)
        untimed = np.flatnonzero(codes == 0)
        if self._counter is not None and len(untimed):
            self._counter.add("records_unreadable", DropReason.HEADER_UNREADABLE, len(untimed))
        errors = np.flatnonzero(codes > 1) if self._lines is not None else untimed[:0]
        told = self._told(batch, errors, time, calendar) if len(errors) else None
        table = Table(
            batch,
            time=time,
            kinds=Kinds(codes, _KINDS),
            unreadable=len(untimed),
            untimed=untimed,
            ambiguous=None if told is None else errors[told.ambiguous],
        )

        def column(part: str) -> Callable[[], Column]:
            return lambda: Column.from_values([found.get(part) for found in parts])

        for part, names in NAMES.items():
            for name in names:
                table.provide(name, column(part))
        table.provide("@timestamp", lambda: moments_of(time))
        table.provide("event.created", lambda: Column.constant(n, rfc3339(batch.read_at)))
        table.provide("host.id", lambda: Column.constant(n, batch.origin.host_id))
        table.provide("vedette.repeat", lambda: Column.constant(n, 1))
        table.provide("vedette.service", lambda: Column.from_values([_SERVICES[code] for code in codes.tolist()]))
        table.provide("vedette.trust", lambda: _trust(batch))
        table.provide("event.original", lambda: Column.from_values([decode(batch.raw(row)) for row in range(n)]))
        if told is not None:
            for name in self._given:
                table.provide_over(name, _over(told.column(name), errors))
            told.close()
        return table

    def _told(self, batch: Batch, rows: Int64, time: Int64, calendar: Calendar) -> Table:
        """What the patterns make of the messages of error logs, a row for each of `rows`."""
        assert self._lines is not None
        begins = [read_native(batch.raw(row), 0, calendar) for row in rows.tolist()]
        starts = batch.starts[rows] + np.array([0 if one is None else one.start for one in begins], dtype=np.int64)
        header = GivenHeader(
            time=time[rows],
            host=[""] * len(rows),
            program=["" if one is None else one.program for one in begins],
            pid=np.full(len(rows), -1, dtype=np.int64),
        )
        trust = batch.trust if isinstance(batch.trust, Trust) else batch.trust[rows]
        part = replace(
            batch,
            starts=starts,
            ends=batch.ends[rows],
            positions=batch.positions[rows],
            trust=trust,
            header=header,
            format=RecordFormat.MESSAGE,
        )
        return self._lines.parse(part)


def _over(told: Column, rows: Int64) -> Callable[[Column], Column]:
    """What `told` says of `rows`, and for the others, and where it says nothing, what was there."""

    def over(there: Column) -> Column:
        values: list[Value] = [*told.values, *there.values]
        codes = np.where(there.codes < 0, np.int32(-1), there.codes + np.int32(len(told.values)))
        said = told.codes >= 0
        codes[rows[said]] = told.codes[said]
        return Column(codes.astype(np.int32), values)

    return over


_SERVICES = (None, "webserver", "apache", "nginx")
# What every reading by patterns gives besides their own fields.
_DERIVED = frozenset({PATTERN, CANDIDATES, "vedette.source.prefix", "vedette.source.prefix_56"})


def _trust(batch: Batch) -> Column:
    if isinstance(batch.trust, Trust):
        return Column.constant(len(batch), batch.trust.name.lower())
    return Column(batch.trust.astype(np.int32), [level.name.lower() for level in sorted(Trust)])


def _read(record: bytes, calendar: Calendar) -> tuple[int, int, dict[str, Any]]:
    """Which kind of line it is (0: none), its time, and its parts."""
    match = _ACCESS.match(record)
    if match is not None:
        zone = (int(match["off"]) * _HOURS + int(match["offm"]) * _MINUTES) * (-1 if match["sign"] == b"-" else 1)
        day = _day(int(match["year"]), MONTHS.get(match["month"], 0), int(match["day"]))
        clock = _clock(match)
        if day is not None and clock is not None:
            return 1, day + clock - zone, _parts(match)
    for code, pattern in ((2, _APACHE_ERROR), (3, _NGINX_ERROR)):
        match = pattern.match(record)
        if match is None:
            continue
        month = MONTHS.get(match["month"], 0) if code == 2 else int(match["month"])
        year, day_of = int(match["year"]), int(match["day"])
        if _day(year, month, day_of) is None or _clock(match) is None:
            continue
        micros = calendar.absolute(year, month, day_of, int(match["hour"]), int(match["minute"]))
        micros += min(int(match["second"]), 59) * _SECONDS
        return code, micros, _error_parts(match)
    return 0, 0, {"message": decode(record)}


@lru_cache(maxsize=1024)
def _day(year: int, month: int, day: int) -> int | None:
    return start_of(year, month, day) if 1 < year < 9998 and month and exists(year, month, day) else None


def _clock(match: re.Match[bytes]) -> int | None:
    hour, minute, second = int(match["hour"]), int(match["minute"]), int(match["second"])
    return hour * _HOURS + minute * _MINUTES + second * _SECONDS if hour < 24 and minute < 60 and second < 61 else None


def _unescaped(match: re.Match[bytes]) -> bytes:
    return bytes.fromhex(match[1].decode()) if match[1] else _PLAIN.get(match[2], match[2])


def _text(raw: bytes | None) -> str | None:
    """A part as it was sent; None where the server wrote that there was none."""
    if raw is None or raw == b"-":
        return None
    return decode(_ESCAPE.sub(_unescaped, raw) if b"\\" in raw else raw)


def _parts(match: re.Match[bytes]) -> dict[str, Any]:
    client = match["client"].decode("ascii", "replace")
    user = match["user"]
    found: dict[str, Any] = {
        "client": client,
        "ip": canonical(client),
        "user": _text(user[1:-1] if user[:1] == b'"' and len(user) > 1 else user),
        "vhost": _text(match["vhost"]),
        "referer": _text(match["referer"]),
        "agent": _text(match["agent"]),
        "message": _text(match["request"]) or "-",
    }
    if match["status"] != b"-":
        found["status"] = int(match["status"])
        found["outcome"] = "success" if found["status"] < 400 else "failure"
    if match["bytes"] != b"-":
        found["bytes"] = int(match["bytes"])
    request = match["request"].split(b" ")
    if len(request) > 1:
        versioned = request[-1].startswith(b"HTTP/") and len(request) > 2
        found["method"] = _text(request[0])
        found["version"] = _text(request[-1][5:]) if versioned else None
        uri = _text(b" ".join(request[1:-1] if versioned else request[1:])) or ""
        stem, _, query = uri.partition("?")
        found.update(uri=uri, stem=stem, query=query or None)
        _, dot, extension = stem.rpartition("/")[2].rpartition(".")
        found["extension"] = extension if dot else None
    return found


def _error_parts(match: re.Match[bytes]) -> dict[str, Any]:
    groups = match.groupdict()
    found: dict[str, Any] = {"message": decode(match["message"]), "level": decode(match["level"])}
    if groups.get("pid"):
        found["pid"] = int(match["pid"])
    client = groups.get("client")
    if client:
        address = client.decode("ascii", "replace")
        # Newer Apache writes the port behind the address.
        bare = canonical(address) or canonical(_PORT.sub(b"", client).decode("ascii", "replace").strip("[]"))
        found.update(client=address, ip=bare)
    return found
