"""`vedette rules test`: whether rules do what the cases beside them say.
Counterpart: `rules.cases` reads and judges cases, `app.detection` runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vedette.app.detection import CaseEngine
from vedette.app.failjson import run_failjson
from vedette.app.ossec_testing import run_ossec
from vedette.cli.options import Pipelines, RulePaths
from vedette.cli.output import FOUND, OK, errors_said, note, say
from vedette.model.errors import RuleError
from vedette.rules import failjson, ossec_tests, regression
from vedette.rules.cases import CaseResult, report, run_cases
from vedette.rules.loading import load


def run_tests(
    paths: RulePaths = None,
    rules: Annotated[list[Path] | None, typer.Option("--rules", help="rules that the cases need besides")] = None,
    pipeline: Pipelines = None,
    dialect: Annotated[str, typer.Option("--dialect", help="auto, ossec or wazuh")] = "auto",
) -> None:
    """Run the cases beside rules; every disagreement on its own line, last `N passed, N failed`."""
    with errors_said():
        if dialect not in ("auto", "ossec", "wazuh"):
            raise typer.BadParameter("auto, ossec or wazuh", param_hint="--dialect")
        logs, given = failjson.split(paths or [])
        sessions, given = ossec_tests.split(given)
        infos, others = regression.split(given)
        results, unreadable = _beside_rules(others, rules or [], pipeline or []) if others or not paths else ([], [])
        if logs:
            results += run_failjson(logs, rules or [], unreadable)
        if sessions:
            results += run_ossec(sessions, rules or [], dialect, unreadable)
        if infos:
            found = regression.read(infos, rules or [])
            for place in found.untested:
                note(f"{place}: names no sample")
            results += run_cases(found.rules.rules, found.cases, CaseEngine())
            unreadable += [*found.errors, *(problem.as_error() for problem in found.rules.errors)]
        lines = report(results, unreadable)
        for line in lines:
            say(line)
        raise SystemExit(OK if len(lines) == 1 else FOUND)


def _beside_rules(
    paths: list[Path], rules: list[Path], pipelines: list[str]
) -> tuple[list[CaseResult], list[RuleError]]:
    """The cases of our packs, or of rules in `paths`, and what could not be read."""
    # Cases of rules that need a setting are written for the example values their pack declares.
    tested = load(paths, packs=not paths, keep_going=True, examples=True, pipelines=pipelines)
    needed = load([*rules, *paths], packs=not paths, keep_going=True, examples=True, pipelines=pipelines)
    results = run_cases(needed.rules, tested.cases, CaseEngine())
    return results, [problem.as_error() for problem in needed.errors]
