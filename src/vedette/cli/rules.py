"""`vedette rules list|test|lint`: what is loaded, whether it does what its cases say, what is wrong with it.
Counterpart: the rules room finds and judges; here it is printed and becomes an exit code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vedette.app.detection import CaseEngine
from vedette.cli.output import FOUND, OK, WRONG, Format, errors_said, note, say, table, write_json
from vedette.model.rules import Rule
from vedette.rules import Severity, lint, load, report, run_cases

app = typer.Typer(help="Rules: list, test, lint.", no_args_is_help=True)

Output = Annotated[Format, typer.Option("--output", help="text or json")]
Paths = Annotated[list[Path] | None, typer.Argument(help="rule files or folders; none: our packs")]


@app.command("list")
def list_(paths: Paths = None, output: Output = Format.TEXT) -> None:
    """The rules that load, with level, kind and what they ask for."""
    with errors_said():
        result = load(paths or [], packs=not paths, keep_going=True)
        for problem in result.errors:
            note(str(problem))
        if output is Format.JSON:
            write_json(_record(rule) for rule in result.rules)
        else:
            table(
                ("RULE", "LEVEL", "KIND", "BLOCKS", "NAME"),
                [
                    (rule.id, rule.level.label, _kind(rule), rule.response.target if rule.response else "", rule.name)
                    for rule in result.rules
                ],
            )
        raise SystemExit(WRONG if result.errors else OK)


def _kind(rule: Rule) -> str:
    if rule.silent:
        return "silent"
    return rule.correlate.kind.value if rule.correlate else rule.kind.value


def _record(rule: Rule) -> dict[str, object]:
    return {
        "rule.id": rule.id,
        "rule.name": rule.name,
        "level": rule.level.label,
        "kind": _kind(rule),
        "logsource": {"product": rule.logsource.product, "service": rule.logsource.service},
        "key": list(rule.correlate.group_by if rule.correlate else rule.key),
        "response.target": rule.response.target if rule.response else None,
        "tags": list(rule.tags),
        "advice": rule.advice or None,
        "file": rule.origin.file,
        "line": rule.origin.line,
    }


@app.command("test")
def run_tests(
    paths: Paths = None,
    rules: Annotated[list[Path] | None, typer.Option("--rules", help="rules that the cases need besides")] = None,
    dialect: Annotated[str, typer.Option("--dialect", help="auto, ossec or wazuh")] = "auto",
) -> None:
    """Run the cases beside rules; every disagreement on its own line, last `N passed, N failed`."""
    with errors_said():
        if dialect not in ("auto", "ossec", "wazuh"):
            raise typer.BadParameter("auto, ossec or wazuh", param_hint="--dialect")
        # Cases of rules that need a setting are written for the example values their pack declares.
        tested = load(paths or [], packs=not paths, keep_going=True, examples=True)
        needed = load([*(rules or []), *(paths or [])], packs=not paths, keep_going=True, examples=True)
        results = run_cases(needed.rules, tested.cases, CaseEngine())
        lines = report(results, [problem.as_error() for problem in needed.errors])
        for line in lines:
            say(line)
        raise SystemExit(OK if len(lines) == 1 else FOUND)


@app.command("lint")
def lint_(paths: Paths = None, output: Output = Format.TEXT) -> None:
    """What is wrong with rules, by file and line; exit 2 for errors, 1 for warnings."""
    with errors_said():
        problems = lint(load(paths or [], packs=not paths, keep_going=True, examples=True))
        if output is Format.JSON:
            write_json(
                {
                    "severity": problem.severity.value,
                    "kind": problem.kind.value,
                    "rule.id": problem.rule_id or None,
                    "message": problem.message,
                    "hint": problem.hint or None,
                    "file": problem.location.file,
                    "line": problem.location.line,
                    "column": problem.location.column,
                }
                for problem in problems
            )
        else:
            for problem in problems:
                say(str(problem))
        if any(problem.severity is Severity.ERROR for problem in problems):
            raise SystemExit(WRONG)
        raise SystemExit(FOUND if problems else OK)
