"""fail2ban's jails, and filters by themselves, as rules: who fails so often in so long a time may be blocked so long.
Counterpart: `failregex` reads filters; `loading` asks for the rules, `app.importing_fail2ban` for the jails."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from vedette.model.errors import Location, RuleError
from vedette.model.levels import Level
from vedette.model.linefilters import LineFilter
from vedette.model.rules import (
    Comparison,
    Correlate,
    CorrelationKind,
    Firing,
    NotifyStep,
    Op,
    Response,
    Rule,
    Test,
    Threshold,
)
from vedette.rules.fail2ban_config import Config, layers, read_config
from vedette.rules.failregex import call_of, filter_files, filter_of, read_filter, read_options
from vedette.rules.files import is_filter
from vedette.rules.problems import Problem

PREFIX = "fail2ban-"
LONGEST_LEASE = 3650 * 86_400 * 1_000_000
"""A ban without end, or longer than this: every decision of ours has an end."""

_UNITS = {
    **{"": 1, "ss": 1, "s": 1, "sec": 1, "second": 1, "mm": 60, "m": 60, "min": 60, "minute": 60},
    **{"hh": 3600, "h": 3600, "hour": 3600, "dd": 86_400, "d": 86_400, "day": 86_400},
    **{"ww": 604_800, "w": 604_800, "week": 604_800, "mo": 2_629_800, "month": 2_629_800},
    **{"yy": 31_557_600, "y": 31_557_600, "year": 31_557_600},
}
_TIME = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)")
_OVER = ("failregex", "ignoreregex", "prefregex", "datepattern", "journalmatch", "maxlines", "usedns")
_NO = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Jail:
    """One jail. options: every option as it stands, its names put in; times in microseconds, bantime -1: for ever."""

    name: str
    filter: LineFilter
    maxretry: int
    findtime: int
    bantime: int
    increment: bool
    longest: int
    options: Mapping[str, str]
    config: Config

    def place(self, option: str) -> Location:
        """Where an option of it was written last."""
        return self.config.place(self.name, option)


def seconds_of(text: str) -> float:
    """`1d12h30m`, `10m` or `600` as seconds; ValueError where it is none."""
    text = text.strip()
    if text == "-1":
        return -1
    total, at = 0.0, 0
    while at < len(text) and (match := _TIME.match(text, at)):
        unit = match[2].lower()
        factor = _UNITS.get(unit, _UNITS.get(unit.removesuffix("s")))
        if factor is None:
            break
        total += float(match[1][:15]) * factor
        at = match.end()
    if not text or text[at:].strip():
        raise ValueError(f"{text!r} is no time")
    return total


def is_installation(path: Path) -> bool:
    """Whether jails lie in a folder."""
    return path.is_dir() and any((path / name).exists() for name in ("jail.conf", "jail.local", "jail.d", "filter.d"))


def _filters_in(path: Path) -> list[Path]:
    found = sorted(path.glob("*.conf"), key=lambda file: file.name.encode("utf-8", "surrogateescape"))
    return [file for file in found if is_filter(file)]


def read_fail2ban(paths: Iterable[Path], problems: list[Problem]) -> list[Rule]:
    """The rules of installations, folders of filters and filters; what cannot be used is told in `problems`."""
    rules: list[Rule] = []
    known: dict[str, Location] = {}
    for path in paths:
        if path.is_file() and path.stem != "jail":
            found = _filter_rules([path], problems)
        elif is_installation(folder := path.parent if path.is_file() else path):
            found = _jail_rules(folder, problems)
        else:
            found = _filter_rules(_filters_in(path), problems)
        for rule in found:
            if rule.id in known:
                error = RuleError(f"id {rule.id!r} is also at {known[rule.id]}", location=rule.origin)
                problems.append(Problem.from_error(error, rule.id))
                continue
            known[rule.id] = rule.origin
            rules.append(rule)
    return rules


def _filter_rules(files: Iterable[Path], problems: list[Problem]) -> list[Rule]:
    """Rules of filters by themselves, which count as jails do by default."""
    rules: list[Rule] = []
    several = list(files)
    for file in several:
        try:
            made = read_filter(filter_files(file.parent, file.stem), name=file.stem)
        except RuleError as error:
            # What other filters include is no filter itself.
            if len(several) == 1 or not _is_shared(file):
                problems.append(Problem.from_error(error, file.stem))
            continue
        rules += rules_of(file.stem, made, Location(str(file)))
    return rules


def _is_shared(file: Path) -> bool:
    try:
        return file.stem == "common" or file.stem.endswith("-common") or b"failregex" not in file.read_bytes()
    except OSError:
        return False


def _jail_rules(folder: Path, problems: list[Problem]) -> list[Rule]:
    try:
        jails = read_jails(folder, problems)
    except RuleError as error:
        problems.append(Problem.from_error(error))
        return []
    if not jails and not problems:
        hint = "set enabled = true, or name a filter itself"
        problems.append(Problem.from_error(RuleError("no jail is enabled", location=Location(str(folder)), hint=hint)))
    rules: list[Rule] = []
    for jail in jails:
        rules += rules_of(
            jail.name,
            jail.filter,
            jail.place("enabled"),
            maxretry=jail.maxretry,
            findtime=jail.findtime,
            response=response_of(jail),
        )
    return rules


def response_of(jail: Jail) -> Response:
    """What the jail asks for."""
    lease = LONGEST_LEASE if jail.bantime < 0 else min(jail.bantime, LONGEST_LEASE)
    return Response(lease=lease, factor=2 if jail.increment else 1, longest=max(lease, jail.longest))


def rules_of(
    name: str,
    made: LineFilter,
    origin: Location,
    *,
    maxretry: int = 5,
    findtime: int = 600_000_000,
    response: Response | None = None,
) -> list[Rule]:
    """A filter as two rules: its lines, silent, and who failed `maxretry` times within `findtime` microseconds."""
    rule_id = PREFIX + (_NO.sub("-", name.lower()).strip("-") or "filter")
    line_id = f"{rule_id}-line"
    field = f"vedette.failure.{line_id}"
    line = Rule(
        id=line_id,
        name=f"Line of fail2ban's filter {made.name}",
        level=Level.INFORMATIONAL,
        when=Test(field, Op.EXISTS, (True,)),
        silent=True,
        lines=made,
        key=("source.ip",),
        step=NotifyStep.STORE,
        origin=origin,
    )
    count = Rule(
        id=rule_id,
        name=f"fail2ban {name}: {maxretry} failures of one address",
        level=Level.MEDIUM,
        correlate=Correlate(
            CorrelationKind.EVENT_COUNT,
            (line_id,),
            ("source.ip",),
            findtime,
            (Threshold(Comparison.GTE, maxretry),),
            firing=Firing.FAIL2BAN,
            aliases=(("source.ip", line_id, field),),
        ),
        key=("source.ip",),
        response=response or Response(lease=600_000_000, factor=1, longest=600_000_000),
        step=NotifyStep.STORE,
        origin=origin,
    )
    return [line, count]


# -------------------------------------------------------------------------------------------------------- jails


def read_jails(folder: Path, problems: list[Problem]) -> list[Jail]:
    """The enabled jails of an installation. RuleError: its jail files cannot be read; others are in `problems`."""
    config = read_config(layers(folder, "jail"))
    jails = []
    for name in config.sections:
        if name in ("DEFAULT", "INCLUDES", "KNOWN"):
            continue
        try:
            if (config.get(name, "enabled") or "").strip().lower() in ("1", "yes", "true", "on"):
                jails.append(_jail(folder, config, name))
        except RuleError as error:
            problems.append(Problem.from_error(error, name))
    return jails


def _jail(folder: Path, config: Config, name: str) -> Jail:
    options = {}
    for option in dict.fromkeys([*config.options("DEFAULT"), *config.options(name)]):
        if option.startswith("action") or option in ("failregex", "ignoreregex", "prefregex"):
            continue
        try:
            options[option] = config.get(name, option) or ""
        except RuleError:
            if option in config.options(name):
                raise
    called, given = call_of(options.get("filter") or name, config.place(name, "filter"))
    if options.get("backend", "").startswith("systemd"):
        given.setdefault("logtype", "journal")
    read = read_options(filter_files(folder / "filter.d", called), given)
    values = dict(read.values)
    known = {f"known/{option}": value for option, value in values.items()}
    own = set(config.options(name)) | {"usedns"}
    for option in _OVER:
        if option in own and (text := config.get(name, option, known)) is not None:
            values[option] = text
            read.config.places["Definition", option] = config.place(name, option)
    made = filter_of(replace(read, values=values), called)
    times = {
        option: _time(config, name, option, options.get(option, otherwise))
        for option, otherwise in (("findtime", "10m"), ("bantime", "10m"), ("bantime.maxtime", ""))
    }
    if times["findtime"] <= 0:
        raise RuleError("findtime is longer than nothing", location=config.place(name, "findtime"))
    retry = options.get("maxretry", "5").strip()
    if not retry.isascii() or not retry.isdigit() or not 1 <= int(retry[:9]) <= 2_000:
        raise RuleError("maxretry is a number from 1 to 2000", location=config.place(name, "maxretry"))
    increment = options.get("bantime.increment", "").strip().lower() in ("1", "yes", "true", "on")
    return Jail(
        name=name,
        filter=made,
        maxretry=int(retry),
        findtime=times["findtime"],
        bantime=times["bantime"],
        increment=increment,
        longest=times["bantime.maxtime"] or (LONGEST_LEASE if increment else 0),
        options=options,
        config=config,
    )


def _time(config: Config, name: str, option: str, text: str) -> int:
    if not text.strip():
        return 0
    try:
        seconds = seconds_of(text)
    except ValueError as error:
        hint = "numbers with s, m, h, d, w, mo or y"
        raise RuleError(f"{option}: {error}", location=config.place(name, option), hint=hint) from None
    return -1 if seconds < 0 else min(round(seconds * 1_000_000), LONGEST_LEASE)
