"""OSSEC's and Wazuh's own tests of rules: `.ini` files of lines and the rule, level and decoder that must come of them.
Counterpart: `app.ossec_testing` runs them; `cases` reports the outcome."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vedette.model.errors import Location, RuleError
from vedette.rules.cases import Case, CaseResult
from vedette.rules.ossec_words import Dialect

SUFFIX = ".ini"
FILE_LIMIT = 16 * 1024 * 1024
LINES = 100_000
_SECTION = re.compile(r"\[(.+)\]\s*\Z")
_KEY = re.compile(r"(log\s+\S+\s+(?:pass|fail)|rule|alert|decoder)\s*[=:]\s?(.*)\Z", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a record. rule, level: "" where no rule, or one that tells nobody, has it."""

    rule: str
    level: str
    decoder: str

    def __str__(self) -> str:
        return f"rule {self.rule or 'none'}, level {self.level or 'none'}, decoder {self.decoder or 'none'}"


@dataclass(frozen=True, slots=True)
class OssecCase:
    """Lines in order, the last of which must have this verdict, or must not have it."""

    name: str
    lines: tuple[str, ...]
    wanted: Verdict
    refused: bool
    location: Location

    def judged(self, verdict: Verdict) -> CaseResult:
        """How it went, with `verdict` of the last line."""
        return self._result(*self._disagreements(verdict))

    def broken(self, error: Exception) -> CaseResult:
        """It could not be run."""
        return self._result(f"could not be run: {type(error).__name__}: {error}")

    def _disagreements(self, verdict: Verdict) -> Iterable[str]:
        if self.refused and not (self.wanted.rule and self.wanted.decoder):
            return  # what has no name is never the right one: no rule and no decoder is called so
        if not self.wanted.rule:
            if verdict.rule and verdict.level != "0":
                yield f"expected no alert, came {verdict}"
            return
        same = (verdict.rule, verdict.level, verdict.decoder.lower()) == (
            self.wanted.rule,
            self.wanted.level,
            self.wanted.decoder.lower(),
        )
        if same == self.refused:
            yield f"expected {'anything but ' if self.refused else ''}{self.wanted}, came {verdict}"

    def _result(self, *disagreements: str) -> CaseResult:
        lines = tuple(line.encode("utf-8", "surrogateescape") for line in self.lines)
        case = Case(self.wanted.rule or "-", self.name, lines, (), False, self.location)
        return CaseResult(case, disagreements)


def split(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """The `.ini` files among `paths` and in their folders, and every other path; a folder of them is no other."""
    tests: list[Path] = []
    others: list[Path] = []
    for path in paths:
        found = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path] if path.suffix == SUFFIX else []
        tests += found
        if not found or (path.is_dir() and any(file.suffix in (".yml", ".yaml") for file in path.iterdir())):
            others.append(path)
    return tests, others


def read_tests(path: Path, dialect: Dialect) -> list[OssecCase]:
    """The cases of a file; RuleError with its place where it cannot be read.

    OSSEC's reader lets the last of equal keys stand; in Wazuh's they are one session, line by line.
    """
    try:
        if path.stat().st_size > FILE_LIMIT:
            raise RuleError(f"more than {FILE_LIMIT >> 20} MiB", location=Location(str(path)))
        text = path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise RuleError(f"cannot be read: {error.strerror}", location=Location(str(path))) from None
    cases: list[OssecCase] = []
    sections: dict[str, dict[str, list[tuple[int, str]]]] = {}
    current: dict[str, list[tuple[int, str]]] | None = None
    last: list[tuple[int, str]] = []
    for number, line in enumerate(text.split("\n"), 1):
        line = line.rstrip("\r")
        stripped = line.strip()
        if not stripped or stripped.startswith((";", "#")):
            continue
        if line[0].isspace() and last:
            place, value = last[-1]
            last[-1] = place, f"{value}\n{stripped}"
            continue
        if section := _SECTION.match(stripped):
            current, last = sections.setdefault(section[1], {}), []
            continue
        found = _KEY.match(stripped)
        if current is None or (found is None and not re.search(r"[:=]", stripped)):
            raise RuleError("neither a section nor one of its keys", location=Location(str(path), number))
        if found is None:
            last = []  # a key that nobody asks for
            continue
        last = current.setdefault(" ".join(found[1].lower().split()), [])
        last.append((number, found[2].strip().replace("%%", "%")))
    for name, keys in sections.items():
        values = {key: keys[key][-1][1] if key in keys else None for key in ("rule", "alert", "decoder")}
        logs = [(key, lines) for key, lines in keys.items() if key.startswith("log ")]
        if logs and (values["rule"] is None or values["alert"] is None):
            raise RuleError(f"[{name}] says no rule or alert", location=Location(str(path), logs[0][1][0][0]))
        wanted = Verdict(values["rule"] or "", values["alert"] or "", values["decoder"] or "")
        for key, lines in logs:
            session = lines if dialect is Dialect.WAZUH else lines[-1:]
            if len(session) > LINES:
                raise RuleError(f"more than {LINES} lines", location=Location(str(path), session[0][0]))
            where = Location(str(path), session[-1][0])
            texts = tuple(text for _number, text in session)
            cases.append(OssecCase(f"{name}: {key}", texts, wanted, key.endswith("fail"), where))
    return cases


def run_tests(cases: Iterable[OssecCase], verdict: Callable[[Sequence[str]], Verdict]) -> list[CaseResult]:
    """Judge each case by the verdict on its last line; whoever raises makes its case fail, not the run."""
    results = []
    for case in cases:
        try:
            results.append(case.judged(verdict(case.lines)))
        except Exception as error:  # noqa: BLE001 (whatever stops it is this case's failure, and is said)
            results.append(case.broken(error))
    return results
