"""What became of a scenario of an attack file, and why; as a record with the fields rules see.
Counterpart: `run` and `judge` conclude it; `cli.attack` prints it, a rule pack gives it a level."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from vedette.model.errors import Location
from vedette.model.ports import NOWHERE
from vedette.text.times import rfc3339

DATASET = "vedette.attacks"
PASSED, FAILED, REMOVED = "attack-passed", "attack-failed", "attack-removed"

Record = dict[str, Any]


class Verdict(StrEnum):
    """What a run of a scenario came to."""

    PASSED = "passed"
    FAILED = "failed"
    VACUOUS = "vacuous"
    """Every expectation held, and would have held with nothing there to be tested: counts as failed."""
    COULD_NOT_TELL = "could-not-tell"
    REMOVED = "removed"
    """What did not pass before is in its file no more, or no longer asked for: it was not run."""


class Reason(StrEnum):
    """Why a scenario got its verdict."""

    AS_EXPECTED = "as-expected"
    NOT_AS_EXPECTED = "not-as-expected"
    # vacuous
    TARGET_DOWN = "target-down"
    PROGRAM_FAILED = "program-failed"
    NOTHING_TESTED = "nothing-tested"
    """The program ran, and did not test what it was started for."""
    UNPROVEN = "unproven"
    """Nothing the program wrote shows that it reached the target."""
    NO_OUTPUT = "no-output"
    NOT_LOOKED_AT = "not-looked-at"
    """What must not be seen was not among what was looked at."""
    LINES_NOT_TOGETHER = "lines-not-together"
    """Of lines that must not be there some are; the step holds only because not all stand together."""
    SPACED_OTHERWISE = "spaced-otherwise"
    """A port that must not be open is, and only the spaces of the step are not those of nmap."""
    STALE_FILE = "stale-file"
    NOTHING_EXPECTED = "nothing-expected"
    NOTHING_LAUNCHED = "nothing-launched"
    # could not tell
    NOT_INSTALLED = "not-installed"
    ENVIRONMENT_NOT_SET = "environment-not-set"
    TIMED_OUT = "timed-out"
    OUTPUT_CUT = "output-cut"
    PATTERN_UNDECIDED = "pattern-undecided"
    FILE_UNREADABLE = "file-unreadable"
    COMMAND_UNUSABLE = "command-unusable"
    NAME_UNRESOLVED = "name-unresolved"
    OUTSIDE_OWN_NETWORKS = "outside-own-networks"
    STOPPED = "stopped"
    # removed
    NOT_THERE = "not-there"


@dataclass(frozen=True, slots=True)
class AttackOutcome:
    """One scenario (of an outline: one row), run once.

    scenario: its name, for a row of an outline with the row's number. location: where it stands; step and step_at:
    the step that decided, empty = all of them together. command: as written, values of the environment not filled
    in. notes: what a person should know though it decided nothing. at: microseconds UTC when it began; seconds: how
    long it took. Nothing in it holds a value of the environment.
    """

    location: Location
    feature: str
    scenario: str
    tags: tuple[str, ...]
    verdict: Verdict
    reason: Reason
    detail: str
    at: int
    seconds: float = 0.0
    step: str = ""
    step_at: Location = NOWHERE
    command: str = ""
    exit_code: int | None = None
    notes: tuple[str, ...] = ()


_ACTIONS = {Verdict.PASSED: PASSED, Verdict.REMOVED: REMOVED}
_OUTCOMES = {Verdict.PASSED: "success", Verdict.COULD_NOT_TELL: "unknown", Verdict.REMOVED: "unknown"}


def outcome_fields(outcome: AttackOutcome) -> Record:
    """What is known of an outcome, by field name; null where there is nothing."""
    return {
        "vedette.attacks.file": outcome.location.file,
        "vedette.attacks.line": outcome.location.line,
        "vedette.attacks.feature": outcome.feature,
        "vedette.attacks.scenario": outcome.scenario,
        "vedette.attacks.tags": list(outcome.tags) or None,
        "vedette.attacks.verdict": outcome.verdict.value,
        "vedette.attacks.reason": outcome.reason.value,
        "vedette.attacks.detail": outcome.detail,
        "vedette.attacks.step": outcome.step or None,
        "vedette.attacks.step_line": outcome.step_at.line or None,
        "vedette.attacks.command": outcome.command or None,
        "vedette.attacks.exit_code": outcome.exit_code,
        "vedette.attacks.notes": list(outcome.notes) or None,
    }


def outcome_record(outcome: AttackOutcome) -> Record:
    """The record of an outcome, message first: `attack-passed`, `attack-removed`, or else `attack-failed`.

    Key of its alert: vedette.attacks.file, vedette.attacks.feature and vedette.attacks.scenario, so that a later
    `attack-passed` is of the same key.
    """
    words = f"{outcome.location}: {outcome.scenario or outcome.feature}: {outcome.verdict.value}: {outcome.detail}"
    record: Record = {
        "message": words,
        "@timestamp": rfc3339(outcome.at),
        "event": {
            "kind": "state",
            "category": ["network"],
            "action": _ACTIONS.get(outcome.verdict, FAILED),
            "outcome": _OUTCOMES.get(outcome.verdict, "failure"),
            "dataset": DATASET,
        },
        "vedette": {"attacks": {}},
    }
    for name, value in outcome_fields(outcome).items():
        if value is not None:
            record["vedette"]["attacks"][name.rpartition(".")[2]] = value
    return record


def exit_code(outcomes: list[AttackOutcome] | tuple[AttackOutcome, ...]) -> int:
    """0 = all passed, 1 = some failed or were vacuous, 2 = could not tell (nothing ran too)."""
    verdicts = {one.verdict for one in outcomes}
    if verdicts & {Verdict.FAILED, Verdict.VACUOUS}:
        return 1
    return 2 if not verdicts or Verdict.COULD_NOT_TELL in verdicts else 0
