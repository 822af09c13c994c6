"""Dates in log lines, as fail2ban finds them: where in a line its date stands, and what time that is.
Counterpart: `rules.failregex` checks datepatterns here, `detections.lines` cuts dates out of lines with it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_LONG_MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
_DAYS = "mon|tue|wed|thu|fri|sat|sun"
_LONG_DAYS = "monday|tuesday|wednesday|thursday|friday|saturday|sunday"
_ZONE = r"[A-Z](?:[A-Z]{2,4})?"

_FIELDS = {
    "a": rf"(?P<a>{_DAYS})",
    "A": rf"(?P<A>{_LONG_DAYS})",
    "b": rf"(?P<b>{'|'.join(_MONTHS)})",
    "B": rf"(?P<B>{'|'.join(_LONG_MONTHS)})",
    "d": r"(?P<d>3[0-1]|[1-2]\d|0[1-9]|[1-9]| [1-9])",
    "f": r"(?P<f>[0-9]{1,6})",
    "H": r"(?P<H>2[0-3]|[0-1]\d|\d)",
    "I": r"(?P<I>1[0-2]|0[1-9]|[1-9])",
    "j": r"(?P<j>36[0-6]|3[0-5]\d|[1-2]\d\d|0[1-9]\d|00[1-9]|[1-9]\d|0[1-9]|[1-9])",
    "m": r"(?P<m>1[0-2]|0[1-9]|[1-9])",
    "M": r"(?P<M>[0-5]\d|\d)",
    "p": r"(?P<p>am|pm)",
    "S": r"(?P<S>6[0-1]|[0-5]\d|\d)",
    "U": r"(?P<U>5[0-3]|[0-4]\d|\d)",
    "w": r"(?P<w>[0-6])",
    "W": r"(?P<W>5[0-3]|[0-4]\d|\d)",
    "y": r"(?P<y>\d\d)",
    "Y": r"(?P<Y>\d\d\d\d)",
    "k": r" ?(?P<H>[0-2]?\d)",
    "l": r" ?(?P<I>1?\d)",
    "z": r"(?P<z>Z|UTC|GMT|[+-][01]\d(?::?\d{2})?)",
    "Z": r"(?P<Z>Z|[A-Z]{3,5})",
    "ExZ": rf"(?P<Z>{_ZONE})",
    "Exz": rf"(?P<z>(?:{_ZONE})?[+-][01]\d(?::?\d{{2}})?|{_ZONE})",
    "Exd": r"(?P<d>3[0-1]|[1-2]\d|0[1-9])",
    "Exm": r"(?P<m>1[0-2]|0[1-9])",
    "ExH": r"(?P<H>2[0-3]|[0-1]\d)",
    "Exk": r" ?(?P<H>2[0-3]|[0-1]\d|\d)",
    "Exl": r" ?(?P<I>1[0-2]|\d)",
    "ExM": r"(?P<M>[0-5]\d)",
    "ExS": r"(?P<S>6[0-1]|[0-5]\d)",
    # Any decade in which such a log may have been written: an old one may be replayed.
    "ExY": r"(?P<Y>(?:19[789]|20[0-4])\d)",
    "Exy": r"(?P<y>[0-4]\d)",
}
_FIELD = re.compile("%(%|" + "|".join(sorted(_FIELDS, key=len, reverse=True)) + ")")

# The defaults, in the order in which they are tried; a date at the beginning of the line comes before all others.
_DEFAULTS = (
    r"%ExY(?P<_sep>[-/.])%m(?P=_sep)%d(?:T|  ?)%H:%M:%S(?:[.,]%f)?(?:\s*%z)?",
    r"(?:%a )?%b %d %k:%M:%S(?:\.%f)?(?: %ExY)?",
    r"(?:%a )?%b %d %ExY %k:%M:%S(?:\.%f)?",
    r"%d(?P<_sep>[-/])%m(?P=_sep)(?:%ExY|%Exy) %k:%M:%S",
    r"%d(?P<_sep>[-/])%b(?P=_sep)%ExY[ :]?%H:%M:%S(?:\.%f)?(?: %z)?",
    r"%m/%d/%ExY:%H:%M:%S",
    r"%m-%d-%ExY %k:%M:%S(?:\.%f)?",
    "EPOCH",
    r"{^LN-BEG}%H:%M:%S",
    r"^<%m/%d/%Exy@%H:%M:%S>",
    r"%Exy%Exm%Exd  ?%H:%M:%S",
    r"%b %d, %ExY %I:%M:%S %p",
    r"^%b-%d-%Exy %k:%M:%S",
    r"%ExY%Exm%Exd(?:T|  ?)%ExH%ExM%ExS(?:[.,]%f)?(?:\s*%z)?",
    r"(?:%Z )?(?:%a )?%b %d %k:%M:%S(?:\.%f)?(?: %ExY)?",
    r"(?:%z )?(?:%a )?%b %d %k:%M:%S(?:\.%f)?(?: %ExY)?",
    "TAI64N",
)
_BEGIN = "{^LN-BEG}"
_EPOCH = re.compile(r"(?<!\\)\{(L?)EPOCH\}", re.IGNORECASE)
_DATE = re.compile(r"(?<!\\)\{DATE\}", re.IGNORECASE)
_GROUPED = re.compile(r"(?<!\(\?)(?<!\\)\((?!\?)")
_BODY = re.compile(r"((?:\(\?\w+\))?\^?(?:\(\?\w+\))?)(.*?)(\$?)", re.DOTALL)
_BOUND_BEGIN = re.compile(r"^\(*(?:\(\?\w+\))?(?:\^|\(*\*\*|\(\?:\^)")
_BOUND_END = re.compile(r"(?<!\\)(?:\$\)?|\\b|\\s|\*\*\)*)$")
_ALPHA = re.compile(r"(?<!%)%[aAbBpc]")
_AT_BEGIN = re.compile(r"^(?:\(\?\w+\))?(?:\^|\(\?:\^(?!\|))")
_AT_END = re.compile(r"(?<![\\|])(?:\$\)?)$")


@dataclass(frozen=True, slots=True)
class _Template:
    """One way to write a date. group: which group is the time itself, of numbers; 0: its named groups tell it."""

    search: Callable[[str], re.Match[str] | None]
    anchored: bool
    kind: str = ""
    group: int = 0


@lru_cache(maxsize=512)
def _template(pattern: str) -> _Template:
    """ValueError where it is no pattern."""
    upper = pattern.upper()
    plain, begin = upper.removeprefix(_BEGIN).removeprefix("^"), upper.startswith((_BEGIN, "^"))
    if plain in ("EPOCH", "LEPOCH"):
        digits = _digits(plain == "LEPOCH")
        if begin:
            return _made(rf"((?P<square>(?<=^\[))?{digits})(?(square)(?=\]))", begin="start", kind=plain, group=1)
        text = rf"((?:^|(?P<square>(?<=^\[))|(?P<selinux>(?<=\baudit\())){digits})"
        return _made(text + r"(?:(?(selinux)(?=:\d+\)))|(?(square)(?=\])))", begin="", kind=plain, group=1)
    if plain == "TAI64N":
        return _made("@[0-9a-f]{24}", begin="start" if begin else "", kind=plain, group=1)
    if found := _EPOCH.search(pattern):
        long = bool(found[1])
        text = _EPOCH.sub(lambda _: f"({_digits(long)})", pattern)
        return _made(f"({text})", begin="word", kind="LEPOCH" if long else "EPOCH", group=2)
    start = "word"
    if pattern.startswith(_BEGIN):
        pattern, start = pattern.removeprefix(_BEGIN), "start"
    elif pattern.startswith("{UNB}"):
        pattern, start = pattern.removeprefix("{UNB}"), "unbound"
    caseless = bool(_ALPHA.search(pattern))
    return _made(_FIELD.sub(lambda field: _FIELDS.get(field[1], "%"), pattern), begin=start, caseless=caseless)


def _digits(long: bool) -> str:
    return r"\d{10,11}(?:\d{3}(?:\.\d{1,6}|\d{3})?)?" if long else r"\d{10,11}\b(?:\.\d{3,6})?"


def _made(text: str, *, begin: str, caseless: bool = False, kind: str = "", group: int = 0) -> _Template:
    text = text.strip()
    bound_begin = begin in ("word", "start") and not _BOUND_BEGIN.search(text)
    bound_end = begin != "unbound" and not _BOUND_END.search(text)
    if not _GROUPED.search(text):
        text = re.sub(r"^(\^?)(.*?)(\$?)$", r"\1(\2)\3", text, count=1, flags=re.DOTALL)
    if bound_begin:
        text = (r"^(?:\W{0,2})?" if begin == "start" else r"(?:^|\b|\W)") + text
    if bound_end:
        text += r"(?=\b|\W|$)"
    anchored = bool(_AT_BEGIN.search(text) or _AT_END.search(text))
    text = re.sub(r"^(\(*)\*\*|(?<!\\)\*\*(\)*)$", lambda match: (match[1] or "") + (match[2] or ""), text)
    try:
        return _Template(re.compile(text, re.IGNORECASE if caseless else 0).search, anchored, kind, group)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(str(error)) from None


@lru_cache(maxsize=1)
def _defaults() -> tuple[str, ...]:
    anchored = [one if one.startswith((_BEGIN, "^")) else _BEGIN + one for one in _DEFAULTS]
    return (*anchored, *(one for one in _DEFAULTS if not one.startswith((_BEGIN, "^"))))


def _written_out(patterns: Sequence[str]) -> Iterable[str]:
    for pattern in patterns or ("{DEFAULT}",):
        key = pattern if "%" in pattern else pattern.upper()
        if key == "{DEFAULT}":
            yield from _defaults()
        elif key == _BEGIN:
            yield from (one for one in _defaults() if one.startswith((_BEGIN, "^")))
        elif key == "{NONE}":
            yield "{UNB}^()"
        elif _DATE.search(pattern):
            for one in _DEFAULTS:
                inner = one.removeprefix(_BEGIN).removeprefix("^")
                if inner not in ("EPOCH", "TAI64N"):
                    yield _DATE.sub(lambda _, inner=inner: inner, pattern)  # type: ignore[misc]
                elif inner == "EPOCH":
                    yield _DATE.sub(lambda _: "{EPOCH}", pattern)
        else:
            yield pattern


@dataclass(frozen=True, slots=True)
class FoundDate:
    """Where the date of a line stands, and in which words; an empty one is a line that needs none."""

    start: int
    end: int
    match: re.Match[str]
    template: _Template


class DateTexts:
    """How dates are written in one log. patterns: in fail2ban's words, empty = its defaults. ValueError: no pattern."""

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self._templates = [_template(pattern) for pattern in dict.fromkeys(_written_out(patterns))]

    def find(self, line: str) -> FoundDate | None:
        """The date of a line: the first that is anchored, else the one that begins first, of those the longest."""
        best: FoundDate | None = None
        for template in self._templates:
            match = template.search(line)
            if match is None:
                continue
            if template.anchored:
                best = FoundDate(match.start(1), match.end(1), match, template)
                break
            if (
                best is None
                or match.start() < best.match.start()
                or (match.start() == best.match.start() and match.end() > best.match.end())
            ):
                best = FoundDate(match.start(1), match.end(1), match, template)
        return best

    def span(self, line: str) -> tuple[int, int]:
        """Where the date of a line stands; (0, 0) where there is none."""
        found = self.find(line)
        return (0, 0) if found is None else (found.start, found.end)


def time_of(found: FoundDate, now: datetime, zone: tzinfo) -> int | None:
    """The time of a date in microseconds UTC, None where its numbers are none.

    now: what a missing year or day is judged by: the latest that is not more than a day ahead (RFC 3164 has no year).
    zone: of dates without one.
    """
    try:
        if found.template.kind:
            return _number_of(found)
        return _named(found.match.groupdict(), now.astimezone(zone), zone)
    except (ValueError, OverflowError):
        return None


def _number_of(found: FoundDate) -> int:
    text = found.match[found.template.group]
    if found.template.kind == "TAI64N":
        return int(text[2:17], 16) * 1_000_000
    if found.template.kind == "LEPOCH" and len(text) >= 13:
        return int(float(text) * (1 if len(text) >= 16 and "." not in text else 1_000))
    return round(float(text) * 1_000_000)


def _named(parts: dict[str, str | None], now: datetime, zone: tzinfo) -> int:
    def number(name: str) -> int | None:
        text = parts.get(name)
        return None if text is None else int(text)

    year, month, day = number("Y"), number("m"), number("d")
    if year is None and (short := number("y")) is not None:
        year = short + 2000
    for name, names in (("b", _MONTHS), ("B", _LONG_MONTHS)):
        if text := parts.get(name):
            month = names.index(text.lower()) + 1
    hour = number("H") or 0
    if (twelve := number("I")) is not None:
        hour = twelve % 12 + (12 if (parts.get("p") or "").lower() == "pm" else 0)
    fraction = int((parts.get("f") or "0").ljust(6, "0"))
    assumed_year, assumed_day = year is None, False
    year = now.year if year is None else year
    if (julian := number("j")) is not None and month is None:
        first = datetime(year, 1, 1, tzinfo=UTC) + timedelta(days=julian - 1)
        month, day = first.month, first.day
    if month is None and day is None:
        month, day, assumed_day = now.month, now.day, True
    second = number("S") or 0
    own = _zone(parts.get("z") or parts.get("Z") or "") or zone
    minute = number("M") or 0
    moment = datetime(year, month or 1, day or 1, hour, minute, min(second, 59), fraction, tzinfo=own)
    if assumed_day and moment > now:
        moment -= timedelta(days=1)
    elif assumed_year and moment > now + timedelta(days=1):
        moment = moment.replace(year=year - 1)
    whole = int(moment.astimezone(UTC).replace(microsecond=0).timestamp())
    return whole * 1_000_000 + fraction


def _zone(text: str) -> tzinfo | None:
    if text.upper() in ("Z", "UTC", "GMT"):
        return UTC
    match = re.search(r"([+-])(\d\d):?(\d\d)?$", text)
    if match is None:
        return None
    minutes = int(match[2]) * 60 + int(match[3] or 0)
    return timezone(timedelta(minutes=-minutes if match[1] == "-" else minutes))
