"""`vedette attack run|check`: Gauntlt's attack files, run so that no pass is vacuous, or only understood.
Counterpart: `app.attacks` reads and runs them; docs/attacks.md lists the steps and what counts as proof."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from vedette.app.attacks import Recognised, recognise_files, run_recognised
from vedette.cli.options import Output
from vedette.cli.output import OK, WRONG, Format, errors_said, note, say, write_json
from vedette.inventory.yaml import read_policy_file
from vedette.model.clock import SystemClock
from vedette.model.errors import VedetteError
from vedette.sources.attacks.outcomes import AttackOutcome, Verdict, exit_code, outcome_fields, outcome_record
from vedette.sources.attacks.run import SHORT

app = typer.Typer(help="Attack files: run, check.", no_args_is_help=True)

Files = Annotated[list[Path], typer.Argument(help="attack files (Gherkin)")]


@app.command("run")
def run(
    files: Files,
    tags: Annotated[list[str] | None, typer.Option("--tags", help="@a, ~@a, @a,@b; given twice both must hold")] = None,
    policy: Annotated[Path | None, typer.Option("--policy", help="a port policy: its own_networks alone")] = None,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="seconds, for scenarios without @slow")] = SHORT,
    output: Output = Format.TEXT,
) -> None:
    """Run them. Exit 0 = all passed, 1 = some failed or passed vacuously, 2 = could not tell, or a bad file."""
    with errors_said():
        recognised = recognise_files(files)
        if recognised.problems:
            _say_problems(recognised, Format.TEXT)
            raise SystemExit(WRONG)
        own = read_policy_file(policy).policy.own_networks if policy is not None else None
        with _ended_whole():
            outcomes = run_recognised(
                recognised,
                SystemClock(),
                tags=tags or (),
                own_networks=own,
                timeout=timeout,
                told=_print_json if output is Format.JSON else _print_text,
            )
        if not outcomes:
            raise VedetteError("no scenario was run", hint=f"none has the tags {' '.join(tags or ())}")
        counted = dict.fromkeys([one.value for one in Verdict], 0)
        for one in outcomes:
            counted[one.verdict.value] += 1
        note(f"{len(outcomes)} scenarios: " + ", ".join(f"{count} {name}" for name, count in counted.items() if count))
        raise SystemExit(exit_code(outcomes))


@app.command("check")
def check(files: Files, output: Output = Format.TEXT) -> None:
    """Recognise every step and run nothing. Exit 0 = all can be run, 2 = some cannot, with file and line."""
    with errors_said():
        recognised = recognise_files(files)
        for step, words in recognised.notes:
            note(f"{step.at}: note: {words}")
        _say_problems(recognised, output)
        steps = sum(len(scenario.steps) for scenario, _ in recognised.scenarios)
        note(f"{len(recognised.scenarios)} scenarios, {steps} steps, {len(recognised.problems)} problems")
        raise SystemExit(WRONG if recognised.problems else OK)


@contextmanager
def _ended_whole() -> Iterator[None]:
    """Whoever ends us ends what we run: a program has a process group of its own, and no terminal tells it."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say_problems(recognised: Recognised, output: Format) -> None:
    for one in recognised.problems:
        if output is Format.JSON:
            write_json([{"file": one.at.file, "line": one.at.line or None, "message": one.message, "hint": one.hint}])
        else:
            note(f"vedette: {one}")


def _print_text(outcome: AttackOutcome) -> None:
    say(f"{outcome.verdict.value}: {outcome.location}: {outcome.scenario or outcome.feature}")
    if outcome.verdict.value != "passed":
        step = f" at line {outcome.step_at.line}, `{outcome.step}`" if outcome.step else ""
        say(f"    {outcome.reason.value}{step}: {outcome.detail}")
        if outcome.command:
            say(f"    command: {outcome.command}")
    for words in outcome.notes:
        say(f"    note: {words}")


def _print_json(outcome: AttackOutcome) -> None:
    event = outcome_record(outcome)
    record: dict[str, Any] = {
        "@timestamp": event["@timestamp"],
        "scenario": outcome.scenario,
        "file": outcome.location.file,
        "line": outcome.location.line,
        "verdict": outcome.verdict.value,
        "reason": outcome.reason.value,
        **{f"event.{name}": value for name, value in event["event"].items()},
        **outcome_fields(outcome),
    }
    write_json([record])
