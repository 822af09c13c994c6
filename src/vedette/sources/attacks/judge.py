"""The verdict on a scenario whose every expectation held: whether that means anything.
Counterpart: `run` comes here at the end; `evidence` knows programs, `expect` knows expectations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vedette.sources.attacks.actions import Cookies, Ends, ExitStatus, Expectation, How, Output
from vedette.sources.attacks.evidence import Proof, proof
from vedette.sources.attacks.expect import (
    Seen,
    is_negative,
    lone_lines,
    names_no_port,
    never_looked_at,
    observed_nothing,
    spaced_otherwise,
)
from vedette.sources.attacks.feature import Step
from vedette.sources.attacks.outcomes import Reason

_NOT_SCANNED = re.compile(r"Other addresses for .* \(not scanned\): .*")


@dataclass(frozen=True, slots=True)
class Met:
    """An expectation that held. after: the index of the last program run before it, -1 = none. step: its words."""

    step: Step
    expectation: Expectation
    after: int


@dataclass(frozen=True, slots=True)
class Vacuous:
    """Why all that held means nothing; step: the one that shows it, None = all of them. run: the program's index."""

    reason: Reason
    words: str
    step: Step | None = None
    run: int | None = None


def vacuity(seen: Seen, met: Sequence[Met], asserting: bool) -> tuple[Vacuous | None, list[str]]:
    """Why a scenario whose expectations all held shows nothing, None = it shows what it says; and notes for people.

    asserting: a step demanded that a program succeed.
    """
    if not met and not asserting:
        return Vacuous(Reason.NOTHING_EXPECTED, "nothing is expected: whatever happens, it would pass"), []
    if not seen.runs:
        return Vacuous(Reason.NOTHING_LAUNCHED, "no program was run"), []
    proofs = [proof(one) for one in seen.runs]
    for index, one in enumerate(proofs):
        if one.reason is not None and not (one.liftable and _lifted(index, met)):
            return Vacuous(one.reason, f"{one.words}; it would pass with nothing there", run=index), []
    for held in met:
        if observed_nothing(held.expectation, seen) and not _says_how_it_ends(held, met):
            words = "nothing was written, so nothing unwanted could be in it"
            return Vacuous(Reason.NO_OUTPUT, words, held.step, max(held.after, 0)), []
        if held.after >= 0 and proofs[held.after].idle and names_no_port(held.expectation):
            words = "no port was open, so none of nmap's scripts had anything to look at"
            return Vacuous(Reason.NOTHING_TESTED, words, held.step, held.after), []
        line = lone_lines(held.expectation, seen)
        if line is not None:
            words = f"{line!r} is there; the step holds only because not all its lines stand together"
            return Vacuous(Reason.LINES_NOT_TOGETHER, words, held.step, max(held.after, 0)), []
        if spaced_otherwise(held.expectation, seen):
            words = "it is there, with other spaces between, as nmap aligns its columns: write `\\s+` and match"
            return Vacuous(Reason.SPACED_OTHERWISE, words, held.step, max(held.after, 0)), []
    return _looked_at(seen, proofs, met)


def _lifted(index: int, met: Sequence[Met]) -> bool:
    """Whether something must be seen, or the end of the program is spelt out, for the program at `index`."""
    until = min((one.after for one in met if one.after > index), default=index)
    own = [one for one in met if one.after == index] or [one for one in met if one.after == until]
    return any(not is_negative(one.expectation) and not _wants_silence(one.expectation) for one in own)


def _wants_silence(expectation: Expectation) -> bool:
    return isinstance(expectation, Output) and expectation.how is How.EMPTY


def _says_how_it_ends(held: Met, met: Sequence[Met]) -> bool:
    """Whether the same program's end, or its having written nothing, is an expectation of its own."""
    return any(
        one.after == held.after
        and (isinstance(one.expectation, ExitStatus | Ends | Cookies) or _wants_silence(one.expectation))
        and not is_negative(one.expectation)
        for one in met
    )


def _looked_at(seen: Seen, proofs: Sequence[Proof], met: Sequence[Met]) -> tuple[Vacuous | None, list[str]]:
    notes: list[str] = []
    empty: list[Met] = []
    for held in met:
        known = [one.looked_at for one in proofs[: held.after + 1] if one.looked_at is not None]
        together = {
            protocol: frozenset[int]().union(*(one.get(protocol, frozenset()) for one in known))
            for protocol in {name for one in known for name in one}
        }
        missing = never_looked_at(held.expectation, together if known else None)
        if missing:
            notes.append(f"{held.step.at.line}: {', '.join(missing)} was not looked at")
            empty.append(held)
    for one in seen.runs:
        others = _NOT_SCANNED.search(one.stdout) if one.known_as == "nmap" else None
        if others is not None:
            notes.append(f"nmap looked at one address of the name alone: {others[0]}")
    if empty and len(empty) == len(met):
        words = f"{notes[0].partition(' ')[2]}: name it to nmap with -p"
        return Vacuous(Reason.NOT_LOOKED_AT, words, empty[0].step, max(empty[0].after, 0)), []
    return None, notes
