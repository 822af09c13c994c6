"""Rule languages compiled into model rules, and our own packs with their cases inside.
Counterpart: `detections` runs what comes out and knows no rule language."""

from vedette.rules.cases import Case, CaseResult, Expected, report, run_cases
from vedette.rules.lint import lint
from vedette.rules.loading import LoadResult, load, load_packs
from vedette.rules.problems import Problem, ProblemKind, Severity

__all__ = [
    "Case",
    "CaseResult",
    "Expected",
    "LoadResult",
    "Problem",
    "ProblemKind",
    "Severity",
    "lint",
    "load",
    "load_packs",
    "report",
    "run_cases",
]
