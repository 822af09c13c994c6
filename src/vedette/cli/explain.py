"""`vedette explain LINE`: one record through every stage, what each made of it and why.
Counterpart: parsers and detections say it themselves; nothing is judged here."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from vedette.app.counters import Counters
from vedette.app.detection import batch_of_lines, load_matcher, parser_of
from vedette.app.formats import format_of, objects_in
from vedette.app.records import Records
from vedette.app.routed import routed_parser
from vedette.cli.options import Pipelines
from vedette.cli.output import Format, errors_said, note, say, write_json
from vedette.cli.replaying import check_options
from vedette.detections.explain import RuleVerdict, TestVerdict, explain
from vedette.model.batch import Batch, RecordFormat
from vedette.model.clock import SystemClock
from vedette.model.events import RecordKind, Value
from vedette.model.fields import FIELDS, is_attacker_text
from vedette.model.levels import Level
from vedette.model.reasons import BlameReason
from vedette.model.rules import All, LogSource, Node, Not, Raw, Rule, Test, tests_of
from vedette.model.rules import Any as AnyOf
from vedette.parsers.parser import Description
from vedette.text.escape import shorten
from vedette.text.times import duration_text, rfc3339

_BLAME_WORDS = {
    BlameReason.ALLOWED: "the record itself admits one reading; whether it may cause a block is then up to the "
    "source: journal records of sshd yes, files only with accept_forgeable, the network never",
    BlameReason.NO_ADDRESS: "nobody: the record gives no address that is not the attacker's own text",
    BlameReason.AMBIGUOUS: "nobody: the message can be read in several ways that name different addresses",
}
_LARGEST = 1 << 20
_SHOWN = 10
_LONGEST = 4_000
"""Characters of a value that people are shown; JSON has all."""
_NOT_SHOWN = frozenset({"message", "event.original"})
_AUDIT_ID = re.compile(rb"msg=(audit\(\d+\.\d+:\d+\))")


@dataclass(frozen=True, slots=True)
class _Explained:
    """Everything that is shown of one record. description: of a line with a header, None of other formats."""

    batch: Batch
    kind: RecordKind
    time: int
    fields: dict[str, Value]
    blame: BlameReason
    description: Description | None
    verdicts: Sequence[RuleVerdict]
    rules: Mapping[str, Rule]

    def shown(self, everything: bool) -> list[RuleVerdict]:
        """The verdicts worth looking at: what matched, and what something was found of."""
        return [one for one in self.verdicts if everything or one.matched or (one.covered and one.candidate)]

    def passed_over(self) -> Counter[str]:
        """How many others there are, by why they were not looked at."""
        others = [one for one in self.verdicts if not one.matched and not (one.covered and one.candidate)]
        return Counter("nothing of theirs is in it" if one.covered else "of other log sources" for one in others)


def explain_line(
    line: Annotated[str, typer.Argument(help="the record as it stands in the log; - reads one from standard input")],
    rules: Annotated[list[Path] | None, typer.Option("--rules", help="rule files or folders, too")] = None,
    pipeline: Pipelines = None,
    no_packs: Annotated[bool, typer.Option("--no-packs", help="without our own packs")] = False,
    timezone: Annotated[str, typer.Option("--timezone", help="zone of header times without one")] = "UTC",
    year: Annotated[int, typer.Option("--year", help="year, where the header has none")] = 0,
    everything: Annotated[
        bool, typer.Option("--all", help="rules nothing was found of, and other log sources")
    ] = False,
    output: Annotated[Format, typer.Option("--output", help="text or json")] = Format.TEXT,
) -> None:
    """Show a record on its way through every stage.

    Of syslog, JSON, audit or an access log: header, parser, fields, atoms, rules, verdict, and whom it may blame.
    """
    with errors_said():
        check_options("auto", timezone, year)
        raw = _one_record(sys.stdin.buffer.read(_LARGEST) if line == "-" else line.encode("utf-8", "surrogateescape"))
        matcher = load_matcher(rules or [], packs=not no_packs, pipelines=pipeline or (), counter=Counters(), say=note)
        batch = batch_of_lines([raw], year=year, timezone=timezone, read_at=SystemClock().now())
        explained = _explained(
            batch, explain(matcher, batch), raw, timezone, year, {rule.id: rule for rule in matcher.rules}
        )
        if output is Format.JSON:
            write_json([_record(explained, everything)])
        else:
            _print(explained, everything)


def _one_record(data: bytes) -> bytes:
    """The first record of what was given: a JSON object over lines, an audit event of several, else a line."""
    data = data.lstrip(b"\r\n")
    form = format_of(data)
    if form is RecordFormat.JSON:
        for block, spans, _cut in objects_in([data], _LARGEST, _LARGEST):
            return block[int(spans[0][0]) : int(spans[1][0])]
    first, *rest = data.splitlines() or [b""]
    if form is RecordFormat.AUDIT and (match := _AUDIT_ID.search(first)):
        return b"\n".join([first, *(one for one in rest if match[0] in one)])
    return data.partition(b"\n")[0].rstrip(b"\r")


def _explained(
    batch: Batch, verdicts: Sequence[RuleVerdict], raw: bytes, timezone: str, year: int, rules: Mapping[str, Rule]
) -> _Explained:
    if batch.format is RecordFormat.SYSLOG:
        parser = parser_of([LogSource()], Counters())
        described = parser.describe(raw, read_at=batch.read_at, year=year, timezone=timezone)
        table = parser.parse(batch)
        kind = table.kinds.kinds[int(table.kinds.codes[0])]
        fields = {field.name: field.value for field in described.fields}
        return _Explained(batch, kind, described.time, fields, described.blame, described, verdicts, rules)
    records = Records(routed_parser([Rule("all", "All", Level.LOW)], Counters()), batch)
    fields = records.fields(0)
    blame = BlameReason.ALLOWED if fields.get("source.ip") else BlameReason.NO_ADDRESS
    return _Explained(batch, records.kind(0), int(records.table.time[0]), fields, blame, None, verdicts, rules)


# ---------------------------------------------------------------------------------------------- JSON


def _record(explained: _Explained, everything: bool) -> dict[str, Any]:
    described = explained.description
    record: dict[str, Any] = {
        "format": explained.batch.format.value,
        "header.ok": described.ok if described else True,
        "@timestamp": rfc3339(explained.time),
        "product": explained.kind.product or None,
        "categories": sorted(explained.kind.categories),
        "services": sorted(explained.kind.services),
        "message": described.message if described else explained.fields.get("message"),
        "vedette.repeat": described.repeat if described else 1,
        "vedette.service": (described.service if described else explained.fields.get("vedette.service")) or None,
        "pattern.id": (described.pattern if described else "") or None,
        "pattern.format": (described.format if described else "") or None,
        "pattern.origin": (described.origin if described else "") or None,
        "fields": explained.fields,
        "attacker_text": [name for name in explained.fields if is_attacker_text(name)],
        "readings": [],
        "vedette.source.candidates": list(described.candidates) if described else [],
        "cut": described.cut if described else False,
        "blame": explained.blame.value,
        "rules": [_verdict_record(one) for one in explained.shown(everything)],
        "rules_not_looked_at": dict(sorted(explained.passed_over().items())),
    }
    if described:
        record["readings"] = [{"pattern.id": one.pattern, "fields": one.fields} for one in described.readings]
    return record


def _verdict_record(verdict: RuleVerdict) -> dict[str, Any]:
    rule = verdict.rule
    return {
        "rule.id": rule.id,
        "rule.name": rule.name,
        "level": rule.level.label,
        "step": rule.step.value,
        "silent": rule.silent,
        "matched": verdict.matched,
        "covered": verdict.covered,
        "candidate": verdict.candidate,
        "parent_missing": verdict.parent_missing,
        "feeds": list(verdict.feeds),
        "atoms": list(verdict.atoms),
        "tests": [
            {"test": one.words, "value": one.value, "held": one.held, "negated": negated}
            for one, negated in _with_negation(verdict)
        ],
        "response.target": rule.response.target if rule.response else None,
        "file": rule.origin.file,
        "line": rule.origin.line,
    }


# ---------------------------------------------------------------------------------------------- text


def _shown(value: object) -> str:
    """A value in quotes where it is text; `say` then writes out what is not to be seen, odd bytes as bytes."""
    if isinstance(value, tuple):
        return "[" + ", ".join(_shown(one) for one in value) + "]"
    return f"'{value}'" if isinstance(value, str) else str(value)


def _print(explained: _Explained, everything: bool) -> None:
    described = explained.description
    say(f"format    {explained.batch.format.value}")
    if described is not None:
        _print_line(described)
    else:
        say(f"time      {rfc3339(explained.time)}")
    kind = explained.kind
    words = [f"product {kind.product}" if kind.product else "no product"]
    for name, of_it in (("category", kind.categories), ("service", kind.services)):
        words += [f"{name} {', '.join(sorted(of_it))}"] if of_it else []
    say(f"source    {'; '.join(words)}")
    undeclared = False
    for name, value in explained.fields.items():
        if (name in _NOT_SHOWN and explained.batch.format is RecordFormat.SYSLOG) or name == "event.original":
            continue
        undeclared |= name not in FIELDS
        whose = "   (attacker's text)" if name in FIELDS and is_attacker_text(name) else ""
        say(f"field     {name} = {shorten(_shown(value), _LONGEST)}{whose}")
    if undeclared:
        say("          names that are the maker's own count as attacker's text: no block rests on them")
    if described is not None and len(described.readings) > 1:
        for reading in described.readings:
            say(f"reading   {reading.pattern}: source.ip={reading.fields.get('source.ip')}   {reading.origin}")
    if described is not None and described.cut:
        say("cut       the program cuts messages at this length: what would name the source may be missing")
    say(f"blame     {explained.blame.value}: {_BLAME_WORDS.get(explained.blame, '')}")
    for verdict in explained.shown(everything):
        _print_verdict(verdict, explained)
    if not everything and (passed := explained.passed_over()):
        words = [f"{count} {why}" for why, count in sorted(passed.items())]
        say(f"rules     not looked at: {', '.join(words)} (--all shows them)")
    if not any(verdict.matched for verdict in explained.verdicts):
        say("verdict   no rule matches")


def _print_line(described: Description) -> None:
    if not described.ok:
        say("header    could not be read; the whole line is the message, its time the time of reading")
    say(f"time      {rfc3339(described.time)}")
    say(f"service   {described.service or '(none of ours)'}")
    say(f"message   {described.message}" + (f"   ({described.repeat} times)" if described.repeat > 1 else ""))
    if described.pattern:
        say(f"pattern   {described.pattern}   {described.origin}")
        say(f"format    {described.format}")
    else:
        say("pattern   none matches")


def _print_verdict(verdict: RuleVerdict, explained: _Explained) -> None:
    rule = verdict.rule
    state = "MATCHES" if verdict.matched else "no" if verdict.covered else "other log source"
    if verdict.matched and rule.silent:
        state += ", silent by itself"
    elif verdict.matched:
        state += f", {rule.level.label}, up to {rule.step.value}"
    if verdict.matched and rule.branch is not None and rule.branch.precedent is not None:
        state += f", if {rule.branch.precedent.count} records it counts came before"
    say(f"rule      {rule.id}: {state}   {rule.origin}")
    if verdict.parent_missing:
        say(f"            its condition holds, but none of its parents matched: {', '.join(rule.parents)}")
    for atom in verdict.atoms[:_SHOWN]:
        say(f"            atom {atom!r}")
    if len(verdict.atoms) > _SHOWN:
        say(f"            and {len(verdict.atoms) - _SHOWN} atoms more")
    # What held says why it matched; of what did not, a list of keywords may be long.
    tests = [one for one in verdict.tests if one.held] + [one for one in verdict.tests if not one.held][:_SHOWN]
    for test, negated in _with_negation(verdict):
        if test in tests:
            under = "not: " if negated else ""
            say(f"            {'yes' if test.held else 'no ':3} {under}{test.words}{_seen(test)}")
    if len(verdict.tests) > len(tests):
        say(f"            and {len(verdict.tests) - len(tests)} tests more that do not hold")
    for name in verdict.feeds if verdict.matched else ():
        say(f"            counts for {name}{_counted(explained.rules.get(name), explained.fields)}")
    if verdict.matched and not rule.silent:
        say(f"            {_asked(rule, explained.fields)}")


def _counted(rule: Rule | None, fields: Mapping[str, Value]) -> str:
    """How a correlation counts this record: what for, by which key, within what time."""
    correlate = rule.correlate if rule is not None else None
    if correlate is None:
        return ""
    wanted = " and ".join(f"{one.comparison.value} {one.value}" for one in correlate.threshold)
    key = ", ".join(f"{name} {_shown(fields.get(name))}" for name in correlate.group_by)
    what = correlate.kind.value + (f" of {', '.join(correlate.fields)}" if correlate.fields else "")
    return f": {what} {wanted}".rstrip() + (f" by {key}" if key else "") + f" in {duration_text(correlate.timespan)}"


def _with_negation(verdict: RuleVerdict) -> list[tuple[TestVerdict, bool]]:
    """The tests, and whether the condition wants each not to hold."""
    wanted: dict[Test | Raw, bool] = {}
    for leaf, negated in _leaves(verdict.rule.when, False):
        wanted.setdefault(leaf, negated)
    return list(zip(verdict.tests, (wanted[leaf] for leaf in dict.fromkeys(tests_of(verdict.rule.when))), strict=False))


def _leaves(node: Node, negated: bool) -> Iterator[tuple[Test | Raw, bool]]:
    match node:
        case All(parts) | AnyOf(parts):
            for part in parts:
                yield from _leaves(part, negated)
        case Not(part):
            yield from _leaves(part, not negated)
        case _:
            yield node, negated


def _seen(test: TestVerdict) -> str:
    if test.value is None and test.words.startswith("record has "):
        return ""
    return f"   (is {shorten(_shown(test.value), _LONGEST)})"


def _asked(rule: Rule, fields: Mapping[str, Value]) -> str:
    """Whom a finding of the rule asks to block, as far as the rule goes."""
    if rule.response is None:
        return "asks for no block"
    value = fields.get(rule.response.target)
    if value is None:
        return f"would ask for a block of {rule.response.target}, which the record does not give"
    return f"asks for a block of {rule.response.target} {_shown(value)}"
