"""The run behind the source `attacks`: files read anew each time, every scenario of theirs run, within own networks.
Counterpart: `sources.attacks.source` calls it on schedule; `app.attacks` does the running, `vedette attack run` too."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vedette.app.attacks import recognise_files, run_recognised
from vedette.inventory.yaml import read_policy_file
from vedette.model.clock import Clock
from vedette.model.errors import Location, VedetteError
from vedette.model.ports import Network
from vedette.sources.attacks.outcomes import AttackOutcome, Reason, Verdict
from vedette.sources.attacks.source import Scenario
from vedette.sources.settings import AttacksSettings, seconds
from vedette.text.escape import decode


@dataclass(frozen=True, slots=True)
class AttackRun:
    """Runs the scenarios of attack files. policy: of ports, whose own networks alone may be attacked; None = any.

    A file that breaks while it is watched is an outcome: nothing can be told of it.
    """

    settings: AttacksSettings
    clock: Clock
    policy: Path | None = None

    def check(self) -> int:
        """How many scenarios there are; VedetteError where a run could not begin with these files."""
        recognised = recognise_files(self.settings.files)
        if recognised.problems:
            first = recognised.problems[0]
            raise VedetteError(first.message, location=first.at, hint=first.hint)
        return len(recognised.scenarios)

    def __call__(self, wanted: frozenset[Scenario] | None, stop: threading.Event) -> Sequence[AttackOutcome]:
        """As `sources.attacks.source.Attack`."""
        out: list[AttackOutcome] = []
        try:
            own = self._own_networks()
        except VedetteError as error:
            return [self._unreadable(file, str(error)) for file in self.settings.files]
        for file in self.settings.files:
            recognised = recognise_files([file])
            if recognised.problems:
                first = recognised.problems[0]
                out.append(self._unreadable(file, f"{first.at}: {first.message}"))
                continue
            if wanted is None:
                out.append(self._readable(file, len(recognised.scenarios)))
            if wanted is not None:
                chosen = (
                    (one, steps)
                    for one, steps in recognised.scenarios
                    if (one.at.file, one.feature, one.name) in wanted
                )
                recognised = replace(recognised, scenarios=tuple(chosen))
            out += run_recognised(
                recognised,
                self.clock,
                tags=self.settings.tags,
                own_networks=own,
                timeout=seconds(self.settings.timeout),
                stop=stop,
            )
        # A run that we ended ourselves says nothing of anybody.
        return [one for one in out if one.reason is not Reason.STOPPED]

    def _own_networks(self) -> tuple[Network, ...] | None:
        return None if self.policy is None else read_policy_file(self.policy).policy.own_networks

    def _readable(self, file: Path, scenarios: int) -> AttackOutcome:
        """Of the file as a whole: what ends an alert that it could not be read."""
        words = f"{scenarios} scenarios, every step recognised"
        passed = Verdict.PASSED, Reason.AS_EXPECTED
        return AttackOutcome(Location(decode(os.fsencode(file))), "", "", (), *passed, words, self.clock.now())

    def _unreadable(self, file: Path, words: str) -> AttackOutcome:
        return AttackOutcome(
            Location(decode(os.fsencode(file))),
            "",
            "",
            (),
            Verdict.COULD_NOT_TELL,
            Reason.FILE_UNREADABLE,
            words,
            self.clock.now(),
        )
