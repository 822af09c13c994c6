"""The source `attacks`: runs attack files on schedule, failed scenarios twice before it says so, outcomes as records.
Counterpart: `app.attacks` gives the run; `outcomes` has the records, `rules/packs/attacks.yml` judges them."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from vedette.model.clock import Clock
from vedette.model.protocols import Counter, Emit
from vedette.sources.attacks.outcomes import AttackOutcome, Verdict, outcome_record
from vedette.sources.settings import AttacksSettings, seconds
from vedette.sources.told import Teller

NAME = "attacks"
Scenario = tuple[str, str, str]
"""File, feature, scenario."""
Attack = Callable[[frozenset[Scenario] | None, threading.Event], Sequence[AttackOutcome]]
"""Runs every scenario (None) or those named; blocks, and ends early when the event is set."""


class AttacksSource:
    """Emits one record for each scenario of each run: `attack-passed` or `attack-failed`.

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
        self._teller = Teller(host_id, NAME)
        self._clock = clock
        self._counter = counter
        # All the cursor says is how many records there were: a record id never comes twice.
        self._position = int(cursor or 0)
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
                    for one in outcomes:
                        self._counter.add("attacks_run", one.verdict)
                    if outcomes:
                        first, self._position = self._position, self._position + len(outcomes)
                        records = [outcome_record(one) for one in outcomes]
                        await emit(self._teller.batch(records, first, str(self._position), self._clock.now()))
                    await asyncio.sleep(seconds(self._settings.every) * self._chance.uniform(0.9, 1.1))
            finally:
                self._stop.set()


def _key(outcome: AttackOutcome) -> Scenario:
    return (outcome.location.file, outcome.feature, outcome.scenario)
