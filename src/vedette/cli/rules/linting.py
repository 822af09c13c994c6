"""`vedette rules lint`: what is wrong with rules, by file and line, as an exit code.
Counterpart: `rules.lint` finds it; `app.abilities` says what parsers can give."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer

from vedette.app.abilities import abilities
from vedette.cli.options import Output, Pipelines, RulePaths
from vedette.cli.output import FOUND, OK, WRONG, Format, errors_said, note, say, write_json
from vedette.rules.lint import lint
from vedette.rules.loading import load
from vedette.rules.problems import Problem, ProblemKind, Severity


def lint_rules(
    paths: RulePaths = None,
    pipeline: Pipelines = None,
    notes: Annotated[bool, typer.Option("--notes", help="also what is only worth knowing")] = False,
    kind: Annotated[list[ProblemKind] | None, typer.Option("--kind", help="only problems of this kind")] = None,
    output: Output = Format.TEXT,
) -> None:
    """What is wrong with rules, by file and line; exit 2 for errors, 1 for warnings, 0 for notes alone."""
    with errors_said():
        problems = lint(
            load(paths or [], packs=not paths, keep_going=True, examples=True, pipelines=pipeline or ()), abilities()
        )
        if kind:
            problems = [problem for problem in problems if problem.kind in kind]
        if output is Format.JSON:
            write_json(_record(problem) for problem in problems)
        else:
            for problem in problems:
                if notes or kind or problem.severity is not Severity.NOTE:
                    say(str(problem))
        found = Counter(problem.severity for problem in problems)
        if found:
            note(_summary(found, notes=notes or bool(kind) or output is Format.JSON))
        if found[Severity.ERROR]:
            raise SystemExit(WRONG)
        raise SystemExit(FOUND if found[Severity.WARNING] else OK)


def _summary(found: Counter[Severity], *, notes: bool) -> str:
    counts = ", ".join(
        f"{found[severity]} {severity.value}{'' if found[severity] == 1 else 's'}"
        for severity in Severity
        if found[severity]
    )
    return counts + (" (--notes shows them)" if found[Severity.NOTE] and not notes else "")


def _record(problem: Problem) -> dict[str, object]:
    return {
        "severity": problem.severity.value,
        "kind": problem.kind.value,
        "rule.id": problem.rule_id or None,
        "message": problem.message,
        "hint": problem.hint or None,
        "file": problem.location.file,
        "line": problem.location.line,
        "column": problem.location.column,
    }
