"""`vedette explain LINE`: one line through every stage, what each made of it and why.
Counterpart: parsers and detections say it themselves; nothing is judged here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from vedette.app.counters import Counters
from vedette.app.detection import batch_of_lines, load_matcher, parser_of
from vedette.cli.options import Pipelines
from vedette.cli.output import Format, errors_said, note, say, write_json
from vedette.cli.replaying import check_options
from vedette.detections.explain import RuleVerdict, explain
from vedette.model.clock import SystemClock
from vedette.model.reasons import BlameReason
from vedette.model.rules import LogSource
from vedette.parsers.parser import Description
from vedette.text.times import rfc3339

_BLAME_WORDS = {
    BlameReason.ALLOWED: "the message itself admits one reading; whether it may cause a block is then up to the "
    "source: journal records of sshd yes, files only with accept_forgeable, the network never",
    BlameReason.NO_ADDRESS: "nobody: the message gives no address that is not the attacker's own text",
    BlameReason.AMBIGUOUS: "nobody: the message can be read in several ways that name different addresses",
}


def explain_line(
    line: Annotated[str, typer.Argument(help="the line as it stands in the log; - reads one from standard input")],
    rules: Annotated[list[Path] | None, typer.Option("--rules", help="rule files or folders, too")] = None,
    pipeline: Pipelines = None,
    no_packs: Annotated[bool, typer.Option("--no-packs", help="without our own packs")] = False,
    timezone: Annotated[str, typer.Option("--timezone", help="zone of header times without one")] = "UTC",
    year: Annotated[int, typer.Option("--year", help="year, where the header has none")] = 0,
    verbose: Annotated[bool, typer.Option("--verbose", help="rules of other log sources, too")] = False,
    output: Annotated[Format, typer.Option("--output", help="text or json")] = Format.TEXT,
) -> None:
    """Show a line on its way through every stage.

    Header, parser, fields, atoms, rules, verdict, and whom it may blame.
    """
    with errors_said():
        check_options("auto", timezone, year)
        raw = sys.stdin.buffer.readline() if line == "-" else line.encode("utf-8", "surrogateescape")
        raw = raw.rstrip(b"\r\n")
        now = SystemClock().now()
        counters = Counters()
        description = parser_of([LogSource()], counters).describe(raw, read_at=now, year=year, timezone=timezone)
        matcher = load_matcher(rules or [], packs=not no_packs, pipelines=pipeline or (), counter=counters, say=note)
        verdicts = explain(matcher, batch_of_lines([raw], year=year, timezone=timezone, read_at=now))
        if output is Format.JSON:
            write_json([_record(description, verdicts)])
        else:
            _print(description, verdicts, verbose=verbose)


def _record(description: Description, verdicts: list[RuleVerdict]) -> dict[str, Any]:
    return {
        "header.ok": description.ok,
        "@timestamp": rfc3339(description.time),
        "message": description.message,
        "vedette.repeat": description.repeat,
        "vedette.service": description.service or None,
        "pattern.id": description.pattern or None,
        "pattern.format": description.format or None,
        "pattern.origin": description.origin or None,
        "fields": {field.name: field.value for field in description.fields},
        "attacker_text": [field.name for field in description.fields if field.attacker_text],
        "readings": [{"pattern.id": one.pattern, "fields": one.fields} for one in description.readings],
        "vedette.source.candidates": list(description.candidates),
        "cut": description.cut,
        "blame": description.blame.value,
        "rules": [
            {
                "rule.id": verdict.rule.id,
                "matched": verdict.matched,
                "feeds": list(verdict.feeds),
                "atoms": list(verdict.atoms),
                "tests": [{"test": one.words, "value": one.value, "held": one.held} for one in verdict.tests],
            }
            for verdict in verdicts
            if verdict.covered
        ],
    }


def _shown(value: object) -> str:
    """A value in quotes where it is text; `say` then writes out what is not to be seen, odd bytes as bytes."""
    return f"'{value}'" if isinstance(value, str) else str(value)


def _print(description: Description, verdicts: list[RuleVerdict], *, verbose: bool) -> None:
    if not description.ok:
        say("header    could not be read; the whole line is the message, its time the time of reading")
    say(f"time      {rfc3339(description.time)}")
    say(f"service   {description.service or '(none of ours)'}")
    say(f"message   {description.message}" + (f"   ({description.repeat} times)" if description.repeat > 1 else ""))
    if description.pattern:
        say(f"pattern   {description.pattern}   {description.origin}")
        say(f"format    {description.format}")
    else:
        say("pattern   none matches")
    for field in description.fields:
        if field.name not in ("message", "event.original"):
            whose = "   (attacker's text)" if field.attacker_text else ""
            say(f"field     {field.name} = {_shown(field.value)}{whose}")
    if len(description.readings) > 1:
        for reading in description.readings:
            say(f"reading   {reading.pattern}: source.ip={reading.fields.get('source.ip')}   {reading.origin}")
    if description.cut:
        say("cut       the program cuts messages at this length: what would name the source may be missing")
    say(f"blame     {description.blame.value}: {_BLAME_WORDS.get(description.blame, '')}")
    shown = [verdict for verdict in verdicts if verdict.covered or verbose]
    for verdict in shown:
        state = "MATCHES" if verdict.matched else "no" if verdict.covered else "other log source"
        silent = ", silent by itself" if verdict.matched and verdict.rule.silent else ""
        say(f"rule      {verdict.rule.id}: {state}{silent}   {verdict.rule.origin}")
        for atom in verdict.atoms:
            say(f"            atom {atom!r}")
        for test in verdict.tests:
            say(f"            {'yes' if test.held else 'no ':3} {test.words}   (is {_shown(test.value)})")
        if verdict.matched and verdict.feeds:
            say(f"            counts for {', '.join(verdict.feeds)}")
    if not any(verdict.matched for verdict in verdicts):
        say("verdict   no rule matches")
