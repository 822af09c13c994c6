"""fail2ban's sample logs as cases: a `# failJSON` comment says what the line after it must give.
Counterpart: `app.failjson` runs them through filters; nothing here knows how a filter works."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from vedette.model.errors import Location, RuleError

NOW = datetime(2005, 8, 14, 10, 0, tzinfo=UTC)
"""The clock of fail2ban's tests."""
ZONE = ZoneInfo("Europe/Berlin")
"""Their zone has this one's rules."""
LARGEST = 64 << 20

_RULES = frozenset({".yml", ".yaml", ".xml", ".ini", ".conf", ".local"})

_COMMENT = re.compile(r"#+ ?(failJSON|fileOptions|filterOptions|addFILE):(.+)")
_MARK = re.compile(rb"^#+ ?(?:failJSON|fileOptions|filterOptions|addFILE):", re.MULTILINE)
_CONDITION = re.compile(r"""(?:name|opts\.get\(['"]([\w.-]+)['"]\)) ?([!=]=) ?(['"])([\w.-]*)\3""")
_NOT_OF_IT = ("match", "desc", "constraint", "time")

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class FailCase:
    """A line under one set of options of the filter. expected: None where nothing was said of the line."""

    filter: str
    options: Mapping[str, str]
    line: str
    expected: Json | None
    location: Location
    prefix: str = ""

    @property
    def match(self) -> bool:
        """Whether the line must be a failure."""
        return self.expected is not None and bool(self.expected.get("match", False))

    @property
    def fields(self) -> Json:
        """What the failure must say besides its time."""
        return {name: value for name, value in (self.expected or {}).items() if name not in _NOT_OF_IT}

    @property
    def journal(self) -> bool:
        """Whether the line stands for a record of the journal, which knows its own time."""
        return self.options.get("logtype") == "journal"

    @property
    def time(self) -> int | None:
        """When it must have happened, microseconds UTC."""
        text = (self.expected or {}).get("time")
        if not isinstance(text, str):
            return None
        return round(datetime.fromisoformat(text).replace(tzinfo=ZONE).timestamp() * 1_000_000)


@dataclass(frozen=True, slots=True)
class FailSet:
    """All lines of one file under one set of options, in order."""

    filter: str
    options: Mapping[str, str]
    cases: tuple[FailCase, ...]


def is_failjson(path: Path) -> bool:
    """Whether a file is such a log."""
    try:
        with path.open("rb") as file:
            return _MARK.search(file.read(1 << 16)) is not None
    except OSError:
        return False


def split(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """The sample logs among `paths`, and in folders among them; and the other paths as they are.

    A folder that holds such logs and no other rules is taken for them alone.
    """
    logs: list[Path] = []
    others: list[Path] = []
    for path in paths:
        if not path.is_dir():
            (logs if path.suffix not in _RULES and is_failjson(path) else others).append(path)
            continue
        found = [file for file in path.rglob("*") if file.suffix not in _RULES and file.is_file() and is_failjson(file)]
        logs += sorted(found, key=lambda file: str(file).encode("utf-8", "surrogateescape"))
        if not found or any(file.suffix in _RULES for file in path.rglob("*")):
            others.append(path)
    return logs, others


def read_failjson(path: Path, errors: list[RuleError]) -> list[FailSet]:
    """The cases of a log; its name is that of the filter. Lines that cannot be understood are told in `errors`."""
    sets: dict[tuple[tuple[str, str], ...], list[FailCase]] = {}
    started: list[Path] = []
    waiting = [path]
    while waiting:
        file = waiting.pop(0)
        if file in started:
            continue
        started.append(file)
        try:
            for case in _cases(file, path.name, waiting, errors):
                sets.setdefault(tuple(sorted(case.options.items())), []).append(case)
        except RuleError as error:
            errors.append(error)
    return [FailSet(path.name, dict(options), tuple(cases)) for options, cases in sets.items()]


def _lines(file: Path) -> list[str]:
    try:
        with file.open("rb") as stream:
            raw = stream.read(LARGEST + 1)
    except OSError as error:
        raise RuleError(f"cannot be read: {error.strerror or error}", location=Location(str(file))) from None
    if len(raw) > LARGEST:
        raise RuleError(f"larger than {LARGEST} bytes", location=Location(str(file)))
    return [line.removesuffix("\r") for line in raw.decode("utf-8", "ignore").split("\n")]


def _cases(file: Path, name: str, waiting: list[Path], errors: list[RuleError]) -> Iterator[FailCase]:
    common: Json = {}
    options: list[Json] = [{}]
    expected: Json | None = None
    for number, line in enumerate(_lines(file), 1):
        place = Location(str(file), number)
        if expected is None:
            if comment := _COMMENT.match(line):
                try:
                    told = json.loads(comment[2])
                except (ValueError, RecursionError) as error:
                    errors.append(RuleError(f"{comment[1]}: {error}", location=place))
                    continue
                if comment[1] == "addFILE":
                    waiting.append(file.parent / Path(str(told)).name)
                elif comment[1] == "failJSON":
                    if isinstance(told, dict):
                        expected = told
                    else:
                        errors.append(RuleError("failJSON is an object", location=place))
                else:
                    given = told if isinstance(told, list) else [told]
                    if not all(isinstance(one, dict) for one in given):
                        errors.append(RuleError(f"{comment[1]} is an object or a list of them", location=place))
                    elif comment[1] == "fileOptions":
                        common = dict(given[0]) if given else {}
                        options = [common]
                    else:
                        options = [common | one for one in given]
                continue
            if line.startswith("#") or not line.strip():
                continue
        for one in options:
            if not _holds(one, expected, name, place, errors):
                continue
            plain = {key: str(value) for key, value in one.items() if not key.startswith("test.")}
            yield FailCase(name, plain, line, expected, place, str(one.get("test.prefix-line", "")))
        expected = None


def _holds(options: Json, expected: Json | None, name: str, place: Location, errors: list[RuleError]) -> bool:
    """Whether a line is for this filter and these options: comparisons that are understood; no text is evaluated."""
    for condition in (options.get("test.condition"), (expected or {}).get("constraint")):
        if condition is None:
            continue
        try:
            if not _true(str(condition), name, options):
                return False
        except ValueError:
            error = RuleError(f"condition {condition!r} is not understood", location=place)
            if not errors or errors[-1].message != error.message:
                errors.append(error)
            return False
    return True


def _true(condition: str, name: str, options: Json) -> bool:
    """Comparisons joined by `and` or `or`, not mixed; ValueError where it is anything else."""
    for word, joined in ((" and ", all), (" or ", any)):
        if word in condition:
            return joined([_true(part, name, options) for part in condition.split(word)])
    match = _CONDITION.fullmatch(condition.strip())
    if match is None:
        raise ValueError(condition)
    value = name if match[1] is None else options.get(match[1])
    return (value == match[4]) is (match[2] == "==")
