"""The cases beside rules: lines that go in, findings that must come out; read, run and judged.
Counterpart: `extras` finds them in the rule files, `cli` prints the outcome, `app` hands the engine in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from vedette.model.errors import Location, RuleError
from vedette.model.events import Scalar
from vedette.model.findings import Finding
from vedette.model.rules import Rule
from vedette.rules.documents import Document, Yaml
from vedette.rules.problems import did_you_mean
from vedette.text.times import parse_duration

Engine = Callable[[Sequence[Rule], Sequence[bytes]], Sequence[Finding]]
"""Runs rules over the records of one host, in order; the same sequence of rules is handed in for every case."""

LINES_LIMIT = 100_000

_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?)(Z|[+-]\d\d:\d\d)(?= )")
_RFC3164 = re.compile(r"((?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [ \d]\d \d\d:\d\d:\d\d)(?= )")


@dataclass(frozen=True, slots=True)
class Expected:
    """One finding that must come: of `rule`, with these key fields; `count` where given (-1: any)."""

    rule: str
    key: Mapping[str, Scalar]
    count: int = -1

    def fits(self, finding: Finding) -> bool:
        """Whether `finding` is this one."""
        return (
            finding.rule_id == self.rule
            and all(finding.key.get(name) == value for name, value in self.key.items())
            and self.count in (-1, finding.count)
        )

    def __str__(self) -> str:
        key = ", ".join(f"{name}={value}" for name, value in self.key.items())
        return f"{self.rule}({key})" + ("" if self.count < 0 else f" of {self.count} events")


@dataclass(frozen=True, slots=True)
class Case:
    """Lines and what must come of them.

    Judged are the findings of the rule the case stands beside, and of rules named in `expect`; with `quiet`
    no rule at all may make another one. least: so many findings of the rule must come at least, 0: none; -1:
    what `expect` says.
    """

    rule: str
    name: str
    lines: tuple[bytes, ...]
    expect: tuple[Expected, ...]
    quiet: bool
    location: Location
    least: int = -1

    @property
    def positive(self) -> bool:
        """Whether the rule it stands beside must make a finding."""
        return self.least > 0 or any(expected.rule == self.rule for expected in self.expect)


@dataclass(frozen=True, slots=True)
class CaseResult:
    """How one case went: passed where there are no disagreements."""

    case: Case
    disagreements: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether rules and case agree."""
        return not self.disagreements


def run_cases(
    rules: Sequence[Rule],
    cases: Iterable[Case],
    engine: Engine,
    *,
    on_result: Callable[[CaseResult], None] | None = None,
) -> list[CaseResult]:
    """Run each case over all `rules`; an engine that raises is a disagreement, not the end of the run."""
    results = []
    known = {rule.id for rule in rules}
    for case in cases:
        result = CaseResult(case, tuple(_judge(case, rules, known, engine)))
        results.append(result)
        if on_result is not None:
            on_result(result)
    return results


def _judge(case: Case, rules: Sequence[Rule], known: set[str], engine: Engine) -> Iterable[str]:
    named = {case.rule, *(expected.rule for expected in case.expect)}
    if missing := sorted(named - known):
        yield f"no such rule is loaded: {', '.join(missing)}"
        return
    try:
        found = list(engine(rules, case.lines))
    except Exception as error:  # noqa: BLE001 (whatever stops the engine is this case's failure, and is said)
        yield f"could not be run: {type(error).__name__}: {error}"
        return
    if case.least >= 0:
        came = sum(finding.rule_id == case.rule for finding in found)
        if came < case.least or (case.least == 0 and came):
            yield f"expected {f'at least {case.least}' if case.least else 'no'} findings, {came} came"
        return
    left = [finding for finding in found if case.quiet or finding.rule_id in named]
    # The most particular expectation chooses first, so that a loose one does not take its finding.
    for expected in sorted(case.expect, key=lambda one: (len(one.key), one.count >= 0), reverse=True):
        hit = next((finding for finding in left if expected.fits(finding)), None)
        if hit is None:
            yield f"expected {expected}, it did not come"
        else:
            left.remove(hit)
    for finding in left:
        key = ", ".join(f"{name}={value}" for name, value in finding.key.items())
        yield f"unexpected {finding.rule_id}({key}) of {finding.count} events"


def report(results: Iterable[CaseResult], unreadable: Iterable[RuleError] = ()) -> list[str]:
    """The lines of `rules test`: each disagreement on its own, last `N passed, N failed`.

    unreadable: rules or cases that could not be read; each counts as failed.
    """
    lines = []
    passed = failed = 0
    for error in unreadable:
        failed += 1
        lines.append(str(error))
    for result in results:
        passed += result.passed
        failed += not result.passed
        case = result.case
        lines.extend(f"{case.location}: {case.rule}: {case.name}: {text}" for text in result.disagreements)
    lines.append(f"{passed} passed, {failed} failed")
    return lines


# ------------------------------------------------------------------------------------------------------- reading


_CASE_KEYS = ("name", "lines", "expect", "quiet")
_REPEAT_KEYS = ("line", "times", "every")


def read_cases(document: Document, rule_id: str, value: Yaml) -> tuple[Case, ...]:
    """The cases under `vedette.cases`; RuleError with the place of what is wrong."""
    if not isinstance(value, list):
        raise document.error("'cases' is a list", "vedette", "cases")
    cases = []
    names: set[str] = set()
    for index, entry in enumerate(value):
        path: tuple[str | int, ...] = ("vedette", "cases", index)
        entry = _mapping(document, path, entry, _CASE_KEYS, needed=("name", "lines", "expect"))
        name, quiet = entry["name"], entry.get("quiet", False)
        if not isinstance(name, str) or not name:
            raise document.error("'name' says in words what the case shows", *path, "name")
        if name in names:
            raise document.error(f"case {name!r} is there twice", *path, "name")
        names.add(name)
        if not isinstance(quiet, bool):
            raise document.error("'quiet' is true or false", *path, "quiet")
        lines = _lines(document, (*path, "lines"), entry["lines"])
        expect = _expected(document, (*path, "expect"), entry["expect"], rule_id)
        cases.append(Case(rule_id, name, lines, expect, quiet, document.at(*path)))
    return tuple(cases)


def _mapping(
    document: Document, path: tuple[str | int, ...], value: Yaml, known: tuple[str, ...], needed: tuple[str, ...]
) -> dict[str, Yaml]:
    if not isinstance(value, dict):
        raise document.error(f"is a mapping with the keys {', '.join(known)}", *path)
    for key in value:
        if key not in known:
            raise document.error(f"unknown key {key!r}", *path, key, hint=did_you_mean(key, known))
    for key in needed:
        if key not in value:
            raise document.error(f"has no {key!r}", *path)
    return value


def _lines(document: Document, path: tuple[str | int, ...], value: Yaml) -> tuple[bytes, ...]:
    if not isinstance(value, list) or not value:
        raise document.error("'lines' is a list of raw log lines", *path)
    lines: list[bytes] = []
    for index, entry in enumerate(value):
        if isinstance(entry, str):
            lines.append(entry.encode())
            continue
        here = (*path, index)
        entry = _mapping(document, here, entry, _REPEAT_KEYS, needed=("line", "times"))
        line, times, every = entry["line"], entry["times"], entry.get("every", "0s")
        if not isinstance(line, str):
            raise document.error("'line' is a raw log line", *here, "line")
        if isinstance(times, bool) or not isinstance(times, int) or not 1 <= times <= LINES_LIMIT:
            raise document.error(f"'times' is a number from 1 to {LINES_LIMIT}", *here, "times")
        try:
            step = parse_duration(str(every))
            lines.extend(repeated(line, times, step))
        except (ValueError, OverflowError) as error:
            raise document.error(str(error), *here, "every" if "every" in entry else "line") from error
        if len(lines) > LINES_LIMIT:
            raise document.error(f"more than {LINES_LIMIT} lines", *path)
    return tuple(lines)


def repeated(line: str, times: int, step: int) -> list[bytes]:
    """`line` so many times, its time `step` microseconds later each time and `{n}` counted up from 1.

    ValueError where `step` is not zero and the line begins with no time that is understood.
    """
    lines = []
    for n in range(times):
        shifted = _shifted(line, n * step) if step else line
        lines.append(shifted.replace("{n}", str(n + 1)).encode())
    return lines


def _shifted(line: str, by: int) -> str:
    delta = timedelta(microseconds=by)
    if match := _RFC3339.match(line):
        moved = datetime.fromisoformat(match[1]) + delta
        return (
            moved.isoformat(timespec="microseconds" if by % 1_000_000 or "." in match[1] else "seconds")
            + line[match.end(1) :]
        )
    if match := _RFC3164.match(line):
        # Any leap year will do: the header has none, and only the clock moves.
        moved = datetime.strptime(f"2024 {match[1]}", "%Y %b %d %H:%M:%S").replace(tzinfo=UTC) + delta
        return f"{moved:%b} {moved.day:2d} {moved:%H:%M:%S}" + line[match.end(1) :]
    raise ValueError("the line begins with no time that 'every' could move (RFC 3164 or RFC 3339)")


def _expected(document: Document, path: tuple[str | int, ...], value: Yaml, rule_id: str) -> tuple[Expected, ...]:
    if not isinstance(value, list):
        raise document.error("'expect' is a list, empty where nothing may come", *path)
    found = []
    for index, entry in enumerate(value):
        here = (*path, index)
        if not isinstance(entry, dict):
            raise document.error("is a mapping: rule, count, and fields of the key", *here)
        rule, count = entry.get("rule", rule_id), entry.get("count", -1)
        if not isinstance(rule, str):
            raise document.error("'rule' is the id of a rule", *here, "rule")
        if isinstance(count, bool) or not isinstance(count, int):
            raise document.error("'count' is a number", *here, "count")
        key: dict[str, Scalar] = {}
        for name, scalar in entry.items():
            if name in ("rule", "count"):
                continue
            if isinstance(scalar, dict | list):
                raise document.error("a key field has one value", *here, name)
            key[name] = scalar
        found.append(Expected(rule, key, count))
    return tuple(found)
