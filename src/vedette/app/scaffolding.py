"""Sample lines to a rule that is proven before anybody sees it: it loads, lint has no quarrel, its cases hold.
Counterpart: `rules.scaffold` drafts it, `cli.rules.beginning` prints it."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from vedette.app.abilities import abilities
from vedette.app.counters import Counters
from vedette.app.detection import CaseEngine, batch_of_lines
from vedette.app.formats import format_of
from vedette.app.records import Records
from vedette.app.routed import routed_parser
from vedette.model.batch import RecordFormat, split_lines
from vedette.model.errors import VedetteError
from vedette.model.events import Scalar
from vedette.model.findings import Finding
from vedette.model.levels import Level
from vedette.model.rules import Rule
from vedette.rules.cases import report, run_cases
from vedette.rules.lint import lint
from vedette.rules.loading import load
from vedette.rules.problems import Severity
from vedette.rules.scaffold import Draft, Sample, ScaffoldError, document, draft, writable
from vedette.text.audit_lines import arrange

SAMPLES_LIMIT = 10_000
YEAR = 2026
"""That of cases whose lines have none; any will do, as long as it is the one of `CaseEngine`."""


@dataclass(frozen=True, slots=True)
class Made:
    """A rule file, and the draft it was written from."""

    text: str
    draft: Draft


def read_samples(given: Sequence[str], option: str = "") -> list[tuple[bytes, str]]:
    """Records and their places: each of `given` is a file of lines, or a line. VedetteError for what is unreadable."""
    found: list[tuple[bytes, str]] = []
    for number, one in enumerate(given, 1):
        path = Path(one)
        try:
            is_file = len(one) < 4096 and "\n" not in one and path.is_file()
        except (OSError, ValueError):
            is_file = False
        if not is_file:
            raw = one.encode("utf-8", "surrogateescape")
            records = _audit_events(raw) if b"\n" in raw else None
            place = f"{option} {number}".strip()
            found += [(record, place) for record, _ in records] if records else [(raw, place)]
            continue
        try:
            data = path.read_bytes()
        except OSError as error:
            raise VedetteError(f"cannot read {path}: {error.strerror}") from None
        lines = _audit_events(data) or [(line, at) for at, line in enumerate(data.splitlines(), 1)]
        found += [(line, f"{path}:{at}") for line, at in lines if line.strip()]
    if len(found) > SAMPLES_LIMIT:
        raise ScaffoldError(f"more than {SAMPLES_LIMIT} samples", hint="a few of each kind say as much")
    return found


def _audit_events(data: bytes) -> list[tuple[bytes, int]]:
    """The events of Linux audit in `data`, each with its line; none where it is of another format."""
    if format_of(data) is not RecordFormat.AUDIT:
        return []
    events = arrange(data, *split_lines(data))
    spans = zip(events.starts.tolist(), events.ends.tolist(), events.firsts.tolist(), strict=True)
    return [(events.block[start:end].replace(b"\r\n", b"\n"), first + 1) for start, end, first in spans]


def begin(
    wanted: Sequence[tuple[bytes, str]],
    unwanted: Sequence[tuple[bytes, str]],
    *,
    rule_id: str = "",
    title: str = "",
    level: Level = Level.LOW,
) -> Made:
    """A rule for `wanted` and against `unwanted`; ScaffoldError where there can be none."""
    drafted = draft(_samples(wanted), _samples(unwanted), rule_id=rule_id, title=title, level=level)
    engine = CaseEngine(YEAR)
    # Written twice: what its findings are keyed by is what the engine says, not what is guessed.
    probe = [_loaded(document(drafted, [{} for _ in drafted.firing]))]
    drafted.firing, found = _fired(engine, probe, drafted)
    drafted.quiet = [raw for raw in drafted.quiet if writable(raw)] or _unlike(engine, probe, drafted)
    text = document(drafted, [_expected(one) for one in found])
    _prove(text)
    return Made(text, drafted)


def _samples(given: Sequence[tuple[bytes, str]]) -> list[Sample]:
    out: list[Sample] = []
    parser = routed_parser([Rule("all", "All", Level.LOW)], Counters())
    by_format: dict[RecordFormat, list[tuple[bytes, str]]] = {}
    for raw, place in given:
        form = batch_of_lines([raw], year=YEAR).format
        if form is RecordFormat.AUDIT:
            # By itself: two samples may be of one event.
            read = Records(parser, batch_of_lines([raw], year=YEAR))
            out.append(Sample(raw, read.fields(0), read.kind(0), place))
            continue
        by_format.setdefault(form, []).append((_plain(raw) if form is RecordFormat.JSON else raw, place))
    for records in by_format.values():
        read = Records(parser, batch_of_lines([raw for raw, _ in records], year=YEAR))
        out += [Sample(raw, read.fields(row), read.kind(row), place) for row, (raw, place) in enumerate(records)]
    return out


def _plain(raw: bytes) -> bytes:
    """A JSON object in ASCII where it has what no file should show: the same to every parser."""
    if writable(raw):
        return raw
    try:
        return json.dumps(json.loads(raw)).encode()
    except (ValueError, RecursionError):
        return raw


def _loaded(text: str) -> Rule:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rule.yml"
        path.write_text(text, "utf-8")
        return load([path]).rules[0]


def _fired(engine: CaseEngine, rules: Sequence[Rule], drafted: Draft) -> tuple[list[Sample], list[Finding]]:
    """The samples on which the rule fires once, and its findings."""
    samples, findings = [], []
    for sample in drafted.firing:
        found = engine(rules, [sample.raw])
        if len(found) == 1:
            samples.append(sample)
            findings.append(found[0])
    if not samples:
        raise ScaffoldError("the rule that was drafted does not fire on its samples", hint="give other samples")
    return samples, findings


def _expected(finding: Finding) -> dict[str, Scalar]:
    return dict(finding.key)


_NOTHING = "nothing of the kind"


def _unlike(engine: CaseEngine, rules: Sequence[Rule], drafted: Draft) -> list[bytes]:
    """A record like the first sample, but for what the rule asks: where nobody gave one that must not fire."""
    sample = drafted.firing[0]
    text = sample.raw.decode()
    tries = []
    for test in drafted.asked:
        value = sample.fields.get(test.field)
        written = orjson.dumps(value).decode()[1:-1] if isinstance(value, str) else ""
        if written and written in text:
            tries.append(text.replace(written, re.sub(r"[^\\/]+$", "another", written)))
        elif isinstance(value, int) and not isinstance(value, bool):
            tries.append(re.sub(rf"\b{value}\b", "1", text))
    if sample.message and text.endswith(sample.message):
        tries.insert(0, text.removesuffix(sample.message) + _NOTHING)
    tries.append(_NOTHING)
    return next(([one.encode()] for one in tries if not engine(rules, [one.encode()])), [])


def _prove(text: str) -> None:
    """ScaffoldError where what was written is not what was meant."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rule.yml"
        path.write_text(text, "utf-8")
        loaded = load([path], keep_going=True)
        wrong = [problem for problem in lint(loaded, abilities()) if problem.severity is not Severity.NOTE]
        if wrong:
            raise ScaffoldError(f"the draft would be wrong: {wrong[0].message}", hint=wrong[0].hint)
        lines = report(run_cases(loaded.rules, loaded.cases, CaseEngine(YEAR)))
        if len(lines) > 1:
            raise ScaffoldError(f"the draft would not do what it says: {lines[0].removeprefix(str(path))}")
