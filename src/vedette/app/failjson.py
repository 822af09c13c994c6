"""fail2ban's sample logs run through its filters: each line that must be a failure, and each that must not.
Counterpart: `rules.failjson` reads the cases, `cli` prints what did not agree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from vedette.app.counters import Counters
from vedette.app.detection import batch_of_lines, matcher_of
from vedette.detections.failures import Failure, Failures
from vedette.detections.lines import LineMatcher
from vedette.model.errors import Location, RuleError
from vedette.model.linefilters import LineFilter
from vedette.rules.cases import Case, CaseResult
from vedette.rules.failjson import NOW, ZONE, FailCase, FailSet, read_failjson
from vedette.rules.failregex import filter_files, read_filter
from vedette.rules.loading import load
from vedette.text.logdates import DateTexts, time_of

_MOMENT = round(NOW.timestamp() * 1_000_000)


def run_failjson(paths: Iterable[Path], folders: Sequence[Path], errors: list[RuleError]) -> list[CaseResult]:
    """The results of all cases of these logs, by filters in `folders`, by our own rules where there are none.

    What cannot be read or run is in `errors`.
    """
    results = []
    own = None if folders else OwnRun()
    for path in paths:
        told = len(errors)
        for cases in read_failjson(path, errors):
            if own is not None:
                results += own.results(cases)
                continue
            try:
                wanted = read_filter(_files(folders, cases.filter, path), cases.options, cases.filter)
                run = SampleRun(wanted)
            except RuleError as error:
                # A filter that is not there, or that is broken as it stands, is so under all options.
                if str(error) not in map(str, errors[told:]):
                    errors.append(error)
                continue
            results += run.results(cases)
    return results


def _files(folders: Sequence[Path], name: str, log: Path) -> list[Path]:
    refused: RuleError | None = None
    for folder in folders:
        if folder.is_file() and folder.suffix in (".conf", ".local"):
            if folder.stem == name:
                return filter_files(folder.parent, name)
            continue
        for place in (folder, folder / "filter.d", folder / "config" / "filter.d"):
            try:
                return filter_files(place, name)
            except RuleError as error:
                refused = refused or error
    raise refused or RuleError(f"there is no filter {name!r}", location=Location(str(log)))


class OwnRun:
    """Our parsers and packs over such lines: a failure is what a rule that accuses an address counts, or is.

    Accused is whom a rule may block, or counts by address, even where nobody is blocked for it because the address may
    be forged.
    """

    def __init__(self) -> None:
        rules = load((), packs=True, examples=True).rules
        blocking = [rule for rule in rules if rule.response is not None and rule.response.target == "source.ip"]
        counting = [rule for rule in rules if rule.correlate is not None and "source.ip" in rule.correlate.group_by]
        counted = {name for rule in counting if rule.correlate is not None for name in rule.correlate.of}
        blaming = counted | {rule.id for rule in blocking if rule.correlate is None}
        self._matcher = matcher_of(rules, counter=Counters())
        self._blaming = [at for at, rule in enumerate(rules) if rule.id in blaming or blaming & set(rule.groups)]

    def results(self, cases: FailSet) -> list[CaseResult]:
        """Every case that was annotated, and every other line for which an address would be blamed."""
        results = []
        for case in cases.cases:
            words = list(_judged(case, self.line(case)))
            if case.expected is None and not words:
                continue
            named = Case(case.filter, _name(case), (case.line.encode(),), (), False, case.location)
            results.append(CaseResult(named, tuple(words)))
        return results

    def line(self, case: FailCase) -> tuple[Failure, int] | None:
        """Whom a line accuses and when, microseconds UTC; None where it accuses nobody."""
        line = case.line
        if case.journal:
            line = f"{NOW.astimezone(ZONE):%b %e %H:%M:%S} {line}"
        batch = batch_of_lines([line.encode()], year=0, timezone=str(ZONE), read_at=_MOMENT)
        matches = self._matcher.match(batch)
        address = matches.fields["source.ip"].value(0) if len(matches.rows) else None
        if not isinstance(address, str) or not any(at in matches.hits for at in self._blaming):
            return None
        user = matches.fields["user.name"].value(0)
        groups = {"user": user} if isinstance(user, str) else {}
        return Failure(address, groups, frozenset(), 1), int(matches.time[0])


class SampleRun:
    """One filter over the lines of one log, as fail2ban's own tests run it: its clock stands still."""

    def __init__(self, wanted: LineFilter) -> None:
        self._matcher = LineMatcher(wanted)
        self._dates = DateTexts(wanted.dates)
        self._failures = Failures()
        self._buffer: list[str] = []
        self._last = _MOMENT

    def results(self, cases: FailSet) -> list[CaseResult]:
        """Every case that was annotated, and every other line that was taken for a failure."""
        results = []
        for case in cases.cases:
            found = self.line(case)
            words = list(_judged(case, found))
            if case.expected is None and not words:
                continue
            named = Case(case.filter, _name(case), (case.line.encode(),), (), False, case.location)
            results.append(CaseResult(named, tuple(words)))
        return results

    def line(self, case: FailCase) -> tuple[Failure, int] | None:
        """The failure that a line makes and its time, microseconds UTC; None where it makes none."""
        line, moment = case.line, _MOMENT
        if case.journal:
            text = case.prefix + line
        else:
            found = self._dates.find(line)
            text = line
            if found is not None:
                text = line[: found.start] + line[found.end :]
                told = time_of(found, NOW, ZONE) if found.end > found.start else None
                moment = self._last if told is None else told
                self._last = moment
        hit = self._hit(text)
        if hit is None:
            return None
        failure = self._failures.take(hit, _MOMENT)
        return None if failure is None or failure.who is None else (failure, moment)

    def _hit(self, text: str) -> dict[str, str] | None:
        lines = self._matcher.filter.lines
        if lines == 1:
            hit = self._matcher.match(text)
        else:
            self._buffer = [*self._buffer, text][-lines:]
            hit, self._buffer = self._matcher.match_lines(self._buffer)
        return None if hit is None else hit.groups


def _name(case: FailCase) -> str:
    options = ", ".join(f"{name}={value}" for name, value in case.options.items())
    return f"[{options}]" if options else "as it is"


def _judged(case: FailCase, found: tuple[Failure, int] | None) -> Iterable[str]:
    if found is None:
        if case.match:
            yield f"should be a failure and is none: {case.line[:160]}"
        return
    failure, moment = found
    if not case.match:
        yield f"is taken for a failure of {failure.who} and is none: {case.line[:160]}"
        return
    for name, wanted in case.fields.items():
        got: object = failure.groups.get(name)
        if name == "host" and got is None:
            got = failure.who
        elif name == "attempts":
            got = failure.attempts
        elif name == "users":
            got, wanted = sorted(failure.users), sorted(wanted) if isinstance(wanted, list) else wanted
        if got != wanted:
            yield f"{name}: expected {wanted!r}, found {got!r}: {case.line[:160]}"
    if case.time is not None and moment // 1_000_000 != case.time // 1_000_000:
        yield f"time: expected {case.time}, found {moment}: {case.line[:160]}"
