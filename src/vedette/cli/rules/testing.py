"""`vedette rules test`: whether rules do what the cases beside them say.
Counterpart: `rules.cases` reads and judges cases, `app.detection` runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vedette.app.detection import CaseEngine
from vedette.cli.options import RulePaths
from vedette.cli.output import FOUND, OK, errors_said, say
from vedette.rules import load, report, run_cases


def run_tests(
    paths: RulePaths = None,
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
