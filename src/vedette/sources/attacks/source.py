"""The source `attacks`: runs attack files on schedule, failed scenarios twice before it says so, outcomes as records.
Counterpart: `app.attacks` gives the run; `outcomes` has the records, `rules/packs/attacks.yml` judges them."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import orjson

from vedette.model.clock import Clock
from vedette.model.errors import Location
from vedette.model.protocols import Counter, Emit
from vedette.sources.attacks.outcomes import AttackOutcome, Reason, Verdict, outcome_record
from vedette.sources.settings import AttacksSettings, seconds
from vedette.sources.told import Teller

NAME = "attacks"
Scenario = tuple[str, str, str]
"""File, feature, scenario."""
Attack = Callable[[frozenset[Scenario] | None, threading.Event], Sequence[AttackOutcome]]
"""Runs every scenario (None) or those named; blocks, and ends early when the event is set."""


class AttacksSource:
    """Emits one record for each scenario of each run: `attack-passed` or `attack-failed`.

    Of one that did not pass, and is not there any more when its file is read again, `attack-removed`: its next pass,
    which would end its alert, will never come.

    A run every `every`, which varies by a tenth. begin: called in the thread that runs programs, before the first.
    """

    def __init__(
        self,
        settings: AttacksSettings,
        attack: Attack,
        *,
        host_id: str,
        clock: Clock,
        counter: Counter,
        cursor: str = "",
        begin: Callable[[], None] = lambda: None,
        chance: random.Random | None = None,
    ) -> None:
        self.name = NAME
        self.begun = asyncio.Event()
        self._settings = settings
        self._attack = attack
        self._teller = Teller(host_id, NAME, clock.now())
        self._clock = clock
        self._counter = counter
        self._position, self._wrong = _restored(cursor)
        self._begin = begin
        self._chance = chance or random.SystemRandom()
        self._stop = threading.Event()

    async def run(self, emit: Emit) -> None:
        """Run and emit until cancelled; a program that runs then is ended with its process group."""
        self.begun.set()
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, NAME, initializer=self._begin) as thread:
            try:
                while True:
                    outcomes = await loop.run_in_executor(thread, self._attack, None, self._stop)
                    wrong = frozenset(_key(one) for one in outcomes if one.verdict is not Verdict.PASSED)
                    if wrong:
                        await asyncio.sleep(seconds(self._settings.confirm_after))
                        again = await loop.run_in_executor(thread, self._attack, wrong, self._stop)
                        better = {_key(one): one for one in again}
                        outcomes = [better.get(_key(one), one) for one in outcomes]
                    outcomes = [*outcomes, *self._removed(outcomes)]
                    for one in outcomes:
                        self._counter.add("attacks_run", one.verdict)
                    if outcomes:
                        first, self._position = self._position, self._position + len(outcomes)
                        records = [outcome_record(one) for one in outcomes]
                        await emit(self._teller.batch(records, first, self._cursor(), self._clock.now()))
                    await asyncio.sleep(seconds(self._settings.every) * self._chance.uniform(0.9, 1.1))
            finally:
                self._stop.set()

    def _removed(self, outcomes: Sequence[AttackOutcome]) -> list[AttackOutcome]:
        """What did not pass before and was not among what was run; of a file that cannot be read that is not known."""
        ran = {_key(one): one for one in outcomes}
        removed = []
        for key in sorted(self._wrong - ran.keys()):
            file = ran.get((key[0], "", ""))
            if file is None or file.verdict is Verdict.PASSED:
                words = "it is not in its file any more, or not asked for"
                told = Verdict.REMOVED, Reason.NOT_THERE, words, self._clock.now()
                removed.append(AttackOutcome(Location(key[0]), key[1], key[2], (), *told))
        self._wrong -= {_key(one) for one in removed}
        for key, one in ran.items():
            (self._wrong.discard if one.verdict is Verdict.PASSED else self._wrong.add)(key)
        return removed

    def _cursor(self) -> str:
        return orjson.dumps({"position": self._position, "wrong": sorted(self._wrong)}).decode()


def _restored(cursor: str) -> tuple[int, set[Scenario]]:
    """How many records there were, so that no id comes twice, and what did not pass; once it was the number alone."""
    found = orjson.loads(cursor or "0")
    if isinstance(found, int):
        return found, set()
    return found["position"], {(file, feature, name) for file, feature, name in found["wrong"]}


def _key(outcome: AttackOutcome) -> Scenario:
    return (outcome.location.file, outcome.feature, outcome.scenario)
