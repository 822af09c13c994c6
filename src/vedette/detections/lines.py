"""One line against a line filter (fail2ban's meaning): which pattern matched first, and what it captured.
Counterpart: `rules.failregex` makes the filter, `failures` joins the lines of one connection."""

from __future__ import annotations

import re
import re._constants as sre  # type: ignore[import-not-found]
import re._parser as sre_parser  # type: ignore[import-not-found]
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pcre2

from vedette.detections.patterns import MATCH_LIMIT
from vedette.model.errors import RuleError
from vedette.model.linefilters import LineFilter, LinePattern
from vedette.text.logdates import DateTexts

Groups = dict[str, str]
_Search = Callable[[str], "Found | None"]

SHORT = 400
"""Longer lines are looked at by PCRE2 within its match limit, whatever the pattern."""

_WIDE_RUNS = 3
_HOSTS = ("ip4", "ip6", "dns")
_PLACED = (*_HOSTS, "fid", "user", "mlfid", "content")
_DIGITS = range(ord("0"), ord("9") + 1)
_NEWLINE = ord("\n")


@dataclass(frozen=True, slots=True)
class Found:
    """Where a pattern matched, and its groups that took part."""

    start: int
    end: int
    groups: Groups
    begins: Mapping[str, int]
    """Where those groups begin whose place is asked for (WHO, user, mlfid, content)."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A line that a pattern of the filter matched. lines: those it took, as they were handed in.

    begins: where in the line groups begin, for those that say who, as whom and on which connection.
    """

    pattern: int
    groups: Groups
    lines: tuple[str, ...] = ()
    begins: Mapping[str, int] = field(default_factory=dict)


class _Pattern:
    """A pattern in Python's dialect. Where it could take long it runs in PCRE2 within a limit.

    undecided: how often the limit was reached; such a line is taken not to match.
    """

    def __init__(self, pattern: LinePattern) -> None:
        self.undecided = 0
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                compiled = re.compile(pattern.text)
            self._bounded = pcre2.compile(f"(*LF)(*LIMIT_MATCH={MATCH_LIMIT}){_as_pcre(pattern.text)}").search
        except (re.error, pcre2.error) as error:
            raise RuleError(f"{pattern.text[:80]!r}: {error}", location=pattern.origin) from None
        self._plain = compiled.search if _tame(pattern.text) else None
        self._alternates = sorted(
            (name, _RENAMED.get(match[1], match[1]))
            for name in compiled.groupindex
            if (match := _ALTERNATE.fullmatch(name))
        )
        self._placed = [name for name in _PLACED if name in compiled.groupindex]
        self.numbers: frozenset[str] | None = _numbers(pattern.text)
        """The numbers it tells from others, each with a character beside it: lines that differ in digits alone, and
        have these at the same places, match alike. None where that cannot be said."""

    def holds(self, text: str) -> bool:
        """Whether it matches anywhere."""
        return self._match(text) is not None

    def __call__(self, text: str) -> Found | None:
        match = self._match(text)
        if match is None:
            return None
        groups = {name: value for name, value in match.groupdict().items() if value is not None}
        begins = {name: match.start(name) for name in self._placed if name in groups}
        for name, plain in self._alternates:
            if (value := groups.get(name)) and not groups.get(plain):
                groups[plain], begins[plain] = value, match.start(name)
        return Found(match.start(), match.end(), groups, begins)

    def _match(self, text: str) -> Any:
        if self._plain is not None and len(text) <= SHORT:
            return self._plain(text)
        try:
            return self._bounded(text)
        except pcre2.LibraryError:
            self.undecided += 1
            return None


_RENAMED = {"id": "fid", "port": "fport"}
_ALTERNATE = re.compile(r"alt_(.*?)(?:_\d+)?")
_PYTHON_ONLY = re.compile(r"\\(?:[\\^$.|?*+()\[\]{}]|Z|v|u[0-9a-fA-F]{4}|.)|\{,(?=\d+\})", re.DOTALL)


def _as_pcre(pattern: str) -> str:
    """The pattern with what PCRE2 writes otherwise."""

    def written(match: re.Match[str]) -> str:
        text = match[0]
        if text == r"\Z":
            return r"\z"
        if text == r"\v":
            return r"\x0b"
        if text.startswith(r"\u"):
            return rf"\x{{{text[2:]}}}"
        return "{0," if text == "{," else text

    return _PYTHON_ONLY.sub(written, pattern)


def _tame(pattern: str) -> bool:
    """Whether no short text can keep Python's matcher busy: no run of runs, few runs of most characters."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parsed = sre_parser.parse(pattern)
    except (re.error, RecursionError, OverflowError):
        return False
    wide = _wide_runs(parsed, inside=False)
    return wide is not None and wide <= _WIDE_RUNS


def _wide_runs(parts: Iterable[Any], *, inside: bool) -> int | None:
    """How many runs of most characters may meet in one match; None where a run without end stands in another one."""
    count = 0
    for op, argument in parts:
        found: int | None = 0
        if op in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            _, most, inner = argument
            endless = most > 16
            if endless and inside:
                return None
            found = _wide_runs(inner, inside=inside or endless)
            if (
                found is not None
                and endless
                and any(kind in (sre.ANY, sre.NOT_LITERAL) or _negated(kind, value) for kind, value in _flat(inner))
            ):
                found += 1
        elif op is sre.SUBPATTERN:
            found = _wide_runs(argument[3], inside=inside)
        elif op in (sre.ASSERT, sre.ASSERT_NOT):
            found = _wide_runs(argument[1], inside=inside)
        elif op is sre.BRANCH:
            branches = [_wide_runs(branch, inside=inside) for branch in argument[1]]
            found = None if None in branches else max(branch for branch in branches if branch is not None)
        elif op is sre.GROUPREF_EXISTS:
            branches = [_wide_runs(branch, inside=inside) for branch in argument[1:] if branch is not None]
            found = None if None in branches else max((one for one in branches if one is not None), default=0)
        elif op is sre.GROUPREF and inside:
            return None
        if found is None:
            return None
        count += found
    return count


def _numbers(pattern: str) -> frozenset[str] | None:
    """The numbers that a pattern writes out, with the characters beside them, in lower case.

    None where it tells digits apart in another way, or compares parts of a text.
    """
    found: set[str] = set()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            told = _find_numbers(sre_parser.parse(pattern), found)
    except (re.error, RecursionError, OverflowError):
        return None
    return frozenset(found) if told else None


def _find_numbers(parts: Iterable[Any], found: set[str]) -> bool:
    each = list(parts)
    literals = (argument if op is sre.LITERAL and _stands_in_lines(argument) else 0 for op, argument in each)
    written = "".join(map(chr, literals))
    for run in _NUMBER.finditer(written):
        if len(run[0]) == len(run[1]):
            return False  # nothing beside it: any such digit of a text might be meant
        found.add(run[0].lower())
    return all(_tells_no_digit(op, argument, found) for op, argument in each)


_NUMBER = re.compile(r"[^\0\d]?([0-9]+)[^\0\d]?")


def _stands_in_lines(character: int) -> bool:
    """Whether numbers may be looked for in lines with this beside them: the newline at the end is in none."""
    return character < 128 and character != _NEWLINE


def _tells_no_digit(op: Any, argument: Any, found: set[str]) -> bool:
    if op is sre.LITERAL:
        return True  # looked at with those beside it
    if op in (sre.MAX_REPEAT, sre.MIN_REPEAT):
        return _find_numbers(argument[2], found)
    if op is sre.SUBPATTERN:
        return _find_numbers(argument[3], found)
    if op in (sre.ASSERT, sre.ASSERT_NOT):
        return _find_numbers(argument[1], found)
    if op in (sre.BRANCH, sre.GROUPREF_EXISTS):
        branches = argument[1] if op is sre.BRANCH else argument[1:]
        return all(_find_numbers(branch or (), found) for branch in branches)
    if op is sre.IN:
        return all(map(_takes_any_digit, argument))
    return _takes_any_digit((op, argument))


def _takes_any_digit(part: tuple[Any, Any]) -> bool:
    op, argument = part
    if op in (sre.LITERAL, sre.NOT_LITERAL):
        return bool(argument not in _DIGITS)
    if op is sre.RANGE:
        low, high = argument
        return bool(high < _DIGITS[0] or low > _DIGITS[-1] or (low <= _DIGITS[0] and high >= _DIGITS[-1]))
    return op in (sre.NEGATE, sre.CATEGORY, sre.ANY, sre.AT)


def _flat(parts: Iterable[Any]) -> Iterable[tuple[Any, Any]]:
    for op, argument in parts:
        if op is sre.SUBPATTERN:
            yield from _flat(argument[3])
        elif op is sre.BRANCH:
            for branch in argument[1]:
                yield from _flat(branch)
        else:
            yield op, argument


def _negated(op: Any, argument: Any) -> bool:
    if op is not sre.IN:
        return False
    # Not a blank (\S) is a word: what follows a run of it begins with a blank in nearly every pattern.
    return bool(argument[0][0] is sre.NEGATE and (sre.CATEGORY, sre.CATEGORY_SPACE) not in argument)


class LineMatcher:
    """A line filter ready to run. Pure: what it says hangs on the lines handed in alone."""

    def __init__(self, wanted: LineFilter) -> None:
        self.filter = wanted
        self._prefix = None if wanted.prefix is None else _Pattern(wanted.prefix)
        self._failures = [_Pattern(pattern) for pattern in wanted.failures]
        self._ignored = [_Pattern(pattern) for pattern in wanted.ignored]
        self._dates = DateTexts(wanted.dates)
        self._all = range(len(self._failures))

    @property
    def undecided(self) -> int:
        """How often a pattern could not decide a line within its limit."""
        every = [*self._failures, *self._ignored, *([self._prefix] if self._prefix else [])]
        return sum(pattern.undecided for pattern in every)

    def match(self, text: str, candidates: Sequence[int] | None = None) -> Hit | None:
        """The first pattern that matches a line without its date; None: no failure. candidates: all that are tried."""
        text += "\n"
        looked_at = text
        before: Found | None = None
        offset = 0
        if self._prefix is not None:
            before = self._prefix(text)
            if before is None:
                return None
            content = before.groups.pop("content", None)
            if content is not None:
                looked_at, offset = content + "\n", before.begins["content"]
        for number in self._all if candidates is None else candidates:
            found = self._failures[number](looked_at)
            if found is None:
                continue
            if any(ignored.holds(text) for ignored in self._ignored):
                return None
            groups, begins = found.groups, dict(found.begins)
            if offset:
                begins = {name: place + offset for name, place in begins.items()}
            if before is not None:
                groups, begins = before.groups | groups, {**before.begins, **begins}
            return Hit(number, groups, (text[:-1],), begins)
        return None

    def numbers(self, candidates: Sequence[int]) -> frozenset[str] | None:
        """What numbers these patterns tell from others, as `_Pattern.numbers`."""
        every = [self._failures[number] for number in candidates] + self._ignored
        if self._prefix is not None:
            every.append(self._prefix)
        found: set[str] = set()
        for pattern in every:
            if pattern.numbers is None:
                return None
            found |= pattern.numbers
        return frozenset(found)

    def match_lines(self, buffer: list[str]) -> tuple[Hit | None, list[str]]:
        """As `match` for filters that look at several lines, the newest last; and the lines kept for the next."""
        text = "\n".join(buffer) + "\n"
        looked_at, lines = text, buffer
        groups: Groups = {}
        if self._prefix is not None:
            found = self._prefix(text)
            if found is None:
                return None, buffer
            groups = found.groups
            content = groups.pop("content", None)
            if content is not None:
                looked_at = content + "\n"
        for number, pattern in enumerate(self._failures):
            found = pattern(looked_at)
            if found is None:
                continue
            taken, left = _taken(looked_at, found, lines)
            matched = "\n".join(taken) + "\n"
            if any(ignored.holds(matched) for ignored in self._ignored):
                return None, left
            return Hit(number, groups | found.groups, tuple(taken)), left
        return None, buffer

    def is_ambiguous(self, hit: Hit, text: str) -> bool:
        """Whether the line, had the address that was found not been one, would be held against another one.

        Then text that the attacker chose reads as an address as well as the true one, and nobody can be blamed.
        """
        address = next((hit.groups[name] for name in _HOSTS if name in hit.groups), None)
        if address is None:
            return False
        masked = text.replace(address, "\x01" * len(address))
        other = self.match(masked)
        if other is None:
            return False
        found = next((other.groups[name] for name in _HOSTS[:2] if name in other.groups), None)
        return found is not None and found != address


_ADDRESSES = re.compile(
    r"\d{1,3}(?:\.\d{1,3}){3}|(?:[0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}|[0-9a-fA-F:]{0,40}::[0-9a-fA-F:]{0,40}"
)


def several_addresses(text: str) -> bool:
    """Whether more than one part of a text may be an address."""
    if text.count(".") < 6 and "::" not in text and text.count(":") < 7:
        return False
    return len(_ADDRESSES.findall(text)) > 1


def _taken(text: str, found: Found, lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """The lines a match took, and those that are left: before it, skipped in it, after it."""
    begin = text.rfind("\n", 0, found.start + 1) + 1
    end = text.find("\n", max(found.end - 1, 0)) + 1 or len(text)
    first, last = text.count("\n", 0, begin), text.count("\n", 0, end)
    taken, left = list(lines[first:last]), list(lines[:first])
    skipped = "".join(value for name, value in sorted(found.groups.items()) if name.startswith("skiplines"))
    place = 0
    for line in skipped.splitlines():
        for at in range(place, len(taken)):
            if taken[at] == line:
                left.append(taken.pop(at))
                place = at
                break
    return taken, left + list(lines[last:])


def who_of(groups: Mapping[str, str]) -> str | None:
    """Whom a failure names: its own id, else the address, else the name."""
    return next((groups[name] for name in ("fid", *_HOSTS) if groups.get(name) is not None), None)
