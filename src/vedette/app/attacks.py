"""Attack files, wired: read and recognised whole before anything runs, then run scenario by scenario.
Counterpart: `sources.attacks` knows the files; `cli.attack` prints outcomes, a schedule makes records of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vedette.app.ports import resolve
from vedette.model.clock import Clock
from vedette.model.errors import Location, VedetteError
from vedette.model.ports import Network
from vedette.sources.attacks.feature import FILE_LIMIT, Problem, Scenario, Step, read_feature
from vedette.sources.attacks.outcomes import AttackOutcome
from vedette.sources.attacks.run import SHORT, Bounds, environment_now, run_scenario
from vedette.sources.attacks.steps import Meant, notes, recognise
from vedette.text.escape import decode


@dataclass(frozen=True, slots=True)
class Recognised:
    """Attack files, every step of them understood. notes: steps that are right and may not say what they seem to."""

    scenarios: tuple[tuple[Scenario, tuple[Meant, ...]], ...]
    problems: tuple[Problem, ...]
    notes: tuple[tuple[Step, str], ...]


def recognise_files(files: Iterable[Path]) -> Recognised:
    """Read files and recognise every step, running nothing. What is wrong is in `problems`, each once."""
    scenarios: list[tuple[Scenario, tuple[Meant, ...]]] = []
    problems: list[Problem] = []
    said: list[tuple[Step, str]] = []
    for file in files:
        found, wrong = _read(file)
        problems += wrong
        for scenario in found:
            meant, wrong = recognise(scenario)
            problems += wrong
            said += notes(meant) if not wrong else []
            scenarios.append((scenario, tuple(meant)))
    # A background's step is in every scenario, and wrong once.
    seen_notes = {(step.at, words): (step, words) for step, words in said}
    return Recognised(tuple(scenarios), tuple(dict.fromkeys(problems)), tuple(seen_notes.values()))


def run_attacks(
    files: Iterable[Path],
    clock: Clock,
    *,
    tags: Sequence[str] = (),
    own_networks: Sequence[Network] | None = None,
    timeout: float = SHORT,
    stop: threading.Event | None = None,
    told: Callable[[AttackOutcome], None] | None = None,
) -> tuple[AttackOutcome, ...]:
    """Run every scenario of attack files, one after the other. Blocks; VedetteError where a file cannot be understood.

    tags: as for Cucumber, `@a` or `~@a`, commas within one for "or", several for "and". own_networks: a command that
    names a host outside is not run; None = nothing was declared. timeout: seconds for programs of scenarios without
    a tag. stop: ends the run early; what did not come to its end then is not among the outcomes. told: is called with
    each outcome as it comes.
    """
    recognised = recognise_files(files)
    if recognised.problems:
        first = recognised.problems[0]
        raise VedetteError(first.message, location=first.at, hint=first.hint)
    return run_recognised(
        recognised, clock, tags=tags, own_networks=own_networks, timeout=timeout, stop=stop, told=told
    )


def run_recognised(
    recognised: Recognised,
    clock: Clock,
    *,
    tags: Sequence[str] = (),
    own_networks: Sequence[Network] | None = None,
    timeout: float = SHORT,
    stop: threading.Event | None = None,
    told: Callable[[AttackOutcome], None] | None = None,
) -> tuple[AttackOutcome, ...]:
    """The same, of files that were recognised already and have no problems."""
    bounds = Bounds(environment_now(), resolve, own_networks, timeout, stop)
    out = []
    for scenario, meant in recognised.scenarios:
        if chosen(scenario.tags, tags):
            outcome = run_scenario(scenario, meant, bounds, clock)
            if stop is not None and stop.is_set():
                break
            out.append(outcome)
            if told is not None:
                told(outcome)
    return tuple(out)


def chosen(has: Sequence[str], tags: Sequence[str]) -> bool:
    """Whether a scenario with these tags is asked for by `--tags` expressions, all of which must hold."""
    return all(any(_one(has, word.strip()) for word in expression.split(",")) for expression in tags)


def _one(has: Sequence[str], word: str) -> bool:
    word, unwanted = (word[1:], True) if word.startswith("~") else (word, False)
    word = word if word.startswith("@") else f"@{word}"
    return (word in has) != unwanted


def _read(file: Path) -> tuple[list[Scenario], list[Problem]]:
    name = decode(os.fsencode(file))
    try:
        if file.is_dir():
            return [], [Problem(Location(name), "is a folder", "name the files in it")]
        with file.open("rb") as opened:
            raw = opened.read(FILE_LIMIT + 1)
    except OSError as error:
        return [], [Problem(Location(name), f"cannot be read: {error.strerror}")]
    return read_feature(raw, name)
