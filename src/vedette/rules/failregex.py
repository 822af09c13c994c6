"""fail2ban's filters, unchanged: their options put together, tags written out as patterns, every pattern checked.
Counterpart: `fail2ban_config` reads the files, `detections.lines` runs what comes out."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vedette.model.errors import Location, RuleError
from vedette.model.linefilters import LineFilter, LinePattern
from vedette.rules.fail2ban_config import Config, conditional, read_config
from vedette.text.logdates import DateTexts

MOST_PATTERNS = 1_000
LONGEST_PATTERN = 32_768
MOST_LINES = 1_000
"""The longest `maxlines`: each line is looked at once more for every line of it."""

_IP4 = r"(?:\d{1,3}\.){3}\d{1,3}"
_IP6 = r"(?:[0-9a-fA-F]{1,4}::?|:){1,7}(?:[0-9a-fA-F]{1,4}|(?<=:):)"
_ONE4 = rf"(?:::f{{4,6}}:)?(?P<ip4>{_IP4})"
_ONE6 = rf"(?P<ip6>{_IP6})"
_NAME = r"(?P<dns>[\w\-.^_]*\w)"
_CIDR = r"(?P<cidr>\d+)"
_ADDRESS = rf"\[?(?:{_ONE4}|{_ONE6})\]?"
_TAGS = {
    "HOST": rf"(?:{_ADDRESS}|{_NAME})",
    "ADDR": _ADDRESS,
    "IP4": _ONE4,
    "IP6": _ONE6,
    "DNS": _NAME,
    "CIDR": _CIDR,
    "SUBNET": rf"\[?(?:{_ONE4}|{_ONE6})(?:/{_CIDR})?\]?",
    "F-ID/": r"(?P<fid>\S+)",
    "F-PORT/": r"(?P<fport>\w+)",
}
_TAGS |= {f"F-{name}/": _TAGS[name] for name in ("ADDR", "IP4", "IP6", "DNS", "CIDR", "SUBNET")}
_RENAMED = {"id": "fid", "port": "fport"}
_WHO = frozenset({"fid", "ip4", "ip6", "dns", "mlfid"})

_TAG = re.compile(r"</?[\w\-]+/?>")
_OWN_TAG = re.compile(r"(/?)F-([A-Z0-9_\-]+)")
_FLAGS_INSIDE = re.compile(r"(?<!\\)\((?:\?:)?(\(\?[a-z]+)\)")
_FILTER_CALL = re.compile(r"([^\[\s]+)(?:\[(.*)\])?\s*", re.DOTALL)
_PARAMETER = re.compile(r"\s*([\w\-_.]+)=(?:\"([^\"]*)\"|'([^']*)'|([^,\]]*))(?:\s*,|\s*\]\s*\[|(?=\s*$))", re.DOTALL)


@dataclass(frozen=True, slots=True)
class FilterOptions:
    """A filter's options, everything put in. place: where each stands."""

    values: Mapping[str, str]
    config: Config

    def place(self, option: str) -> Location:
        """Where an option was written last."""
        return self.config.place("Definition", option)


def call_of(text: str, place: Location) -> tuple[str, dict[str, str]]:
    """`sshd[mode=aggressive, x="a, b"]` as a name and its options. RuleError where it is none."""
    match = _FILTER_CALL.fullmatch(text.strip())
    if match is None:
        raise RuleError(f"{text!r} names no filter", location=place, hint="write name[option=value, ...]")
    options: dict[str, str] = {}
    rest = match[2] or ""
    at = 0
    while rest[at:].strip(" \t\n,"):
        found = _PARAMETER.match(rest, at)
        if found is None:
            raise RuleError(f"cannot read the options of {match[1]!r}", location=place, hint="name=value, ...")
        value = next((one for one in found.groups()[1:] if one is not None), "")
        options[found[1].lower()] = value.strip() if found[4] is not None else value
        at = found.end()
    return match[1], options


def filter_files(folder: Path, name: str) -> list[Path]:
    """NAME.conf and NAME.local of a folder of filters; RuleError where there is neither."""
    found = [path for suffix in ("conf", "local") if (path := folder / f"{name}.{suffix}").is_file()]
    if not found or "/" in name:
        raise RuleError(f"there is no filter {name!r}", location=Location(str(folder)))
    return found


def read_options(files: Iterable[Path], given: Mapping[str, str] = {}) -> FilterOptions:
    """The options of one filter, those `given` before its own. RuleError: the first that cannot be put together."""
    config = read_config(files)
    over = {name.lower(): value for name, value in given.items()}
    values: dict[str, str] = {}
    names = [*config.options("DEFAULT"), *config.options("Definition"), *_PLAIN]
    for name in dict.fromkeys(names):
        if name not in over and (found := config.get("Definition", name, over)) is not None:
            values[name] = found
    for name in config.options("Init"):
        if not conditional(name) and (found := config.get("Init", name, over)) is not None:
            values[f"known/{name}"] = found
            values[name] = found
    values |= over
    combined = {
        name: config.combined(values, name, over) for name in values if name in _PLAIN or name.startswith("known/")
    }
    return FilterOptions(combined, config)


_PLAIN = ("prefregex", "failregex", "ignoreregex", "maxlines", "datepattern", "journalmatch", "usedns")


def read_filter(files: Iterable[Path], given: Mapping[str, str] = {}, name: str = "") -> LineFilter:
    """A filter as its files have it. RuleError with file and line: the first thing that cannot be used."""
    files = list(files)
    return filter_of(read_options(files, given), name or (files[0].stem if files else "filter"))


def filter_of(options: FilterOptions, name: str) -> LineFilter:
    """The filter these options make."""
    values = options.values
    named = values.get("usedns", "").strip().lower() != "no"
    lines = _number(options, "maxlines", 1)
    prefix = next(iter(_patterns(options, "prefregex", lines, whole=True, named=named)), None)
    failures = _patterns(options, "failregex", lines, named=named)
    if not failures:
        raise RuleError(f"filter {name!r} has no failregex", location=options.place("failregex"))
    known = _groups(prefix.text) if prefix is not None else frozenset()
    for pattern in failures:
        if not _WHO & (_groups(pattern.text) | known):
            raise RuleError(
                "the pattern says nobody", location=pattern.origin, hint="it needs <HOST>, <ADDR>, <F-ID> or <F-MLFID>"
            )
    dates = tuple(line.strip() for line in values.get("datepattern", "").split("\n") if line.strip())
    try:
        DateTexts(dates)
    except ValueError as error:
        raise RuleError(f"datepattern: {error}", location=options.place("datepattern")) from None
    return LineFilter(
        name=name,
        failures=failures,
        ignored=_patterns(options, "ignoreregex", lines, named=named),
        prefix=prefix,
        lines=lines,
        dates=dates,
        journal=tuple(line.strip() for line in values.get("journalmatch", "").split("\n") if line.strip()),
    )


def _number(options: FilterOptions, name: str, otherwise: int) -> int:
    text = options.values.get(name, "").strip()
    if not text:
        return otherwise
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MOST_LINES:
        raise RuleError(f"{name!r} is a number from 1 to {MOST_LINES}", location=options.place(name))
    return int(text)


def _patterns(
    options: FilterOptions, name: str, lines: int, *, named: bool, whole: bool = False
) -> tuple[LinePattern, ...]:
    text = options.values.get(name, "")
    place = options.place(name)
    written = [text.strip()] if whole else [line.strip() for line in text.split("\n")]
    found = [line for line in written if line]
    if len(found) > MOST_PATTERNS:
        raise RuleError(f"{name}: more than {MOST_PATTERNS} patterns", location=place)
    return tuple(LinePattern(_pattern(line, place, lines, named=named), place) for line in found)


def _pattern(text: str, place: Location, lines: int, *, named: bool) -> str:
    pattern = written_out(text, named=named)
    if len(pattern) > LONGEST_PATTERN:
        raise RuleError(f"a pattern longer than {LONGEST_PATTERN} characters", location=place)
    if lines > 1:
        pattern = f"(?m:{pattern})" if not re.match(r"\(\?[a-z]+\)", pattern) else f"(?m){pattern}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise RuleError(f"{text[:80]!r}: {error}", location=place, hint="Python's regular expressions") from None
    return pattern


def _groups(pattern: str) -> frozenset[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return frozenset(re.compile(pattern).groupindex)


def written_out(text: str, *, named: bool = True) -> str:
    """A pattern with fail2ban's tags written out. named: whether <HOST> may be a name."""
    opened: set[str] = set()
    skipped = 0

    def tag(match: re.Match[str]) -> str:
        nonlocal skipped
        name = match[0][1:-1]
        if name == "SKIPLINES":
            skipped += 1
            return rf"\n(?P<skiplines{skipped - 1}>(?:(?:.*\n)*?))"
        if name == "HOST" and not named:
            return _TAGS["ADDR"]
        if name in _TAGS:
            return _TAGS[name]
        own = _OWN_TAG.fullmatch(name)
        if own is None:
            return match[0]
        if own[1]:
            return ")" if own[2] in opened else match[0]
        opened.add(own[2])
        group = own[2].lower()
        return f"(?P<{_RENAMED.get(group, group)}>"

    return _FLAGS_INSIDE.sub(r"\1:", _TAG.sub(tag, text))
