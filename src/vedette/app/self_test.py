"""Rules in service are tried: the lines of a case go in, and must come out as a finding of which nobody is told.
Counterpart: `app.up` carries each through the engine's thread, `app.pipeline` says which rule is dead."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import structlog

from vedette.app.detection import batch_of_lines, found_alone
from vedette.detections.match import Matcher
from vedette.model.protocols import Counter
from vedette.rules.cases import Case
from vedette.rules.settings import RulesSettings

log = structlog.get_logger()

YEAR = 2026
"""Of the first line of a case, as where cases are run beside their rules."""
FIRST_AFTER = 300.0
"""Seconds after the start; the first minutes belong to what waited meanwhile."""
PAUSE = 0.1
"""Seconds between two rules: batches come first."""

Load = Callable[[], Sequence[Case]]
Tried = Callable[[str, str], None]
"""Called with a rule's id and why it is dead, "" where it is not."""


def cases_of(settings: RulesSettings) -> Sequence[Case]:
    """The cases beside the rules that are in service. RuleError, OSError where they cannot be read."""
    # What compiles rules takes long to import.
    from vedette.rules.loading import load

    return load(settings.paths, packs=settings.packs, keep_going=True, settings=settings).cases


class SelfTest:
    """One thread, the engine's, calls `dead`; `run` goes on beside.

    matchers: those in service, with the parsers and automata they have now. What a case makes never meets what
    is true: it is correlated apart, and its findings are compared and forgotten.
    """

    def __init__(self, matchers: Sequence[Matcher], counter: Counter) -> None:
        self._matchers = {rule.id: matcher for matcher in matchers for rule in matcher.rules if not rule.silent}
        self._counter = counter

    def wanted(self, cases: Sequence[Case]) -> list[Case]:
        """One case for each rule in service that has one: the first that must make a finding of that rule."""
        first: dict[str, Case] = {}
        for case in cases:
            if case.positive and case.rule in self._matchers:
                first.setdefault(case.rule, case)
        return list(first.values())

    def dead(self, case: Case) -> str:
        """Why its rule is dead; "" where the case made its finding."""
        try:
            # Times of a case are of another year: nothing is wrong with the clock.
            batch = replace(batch_of_lines(case.lines, year=YEAR), spooled=True)
            found = found_alone(self._matchers[case.rule], batch)
        except Exception as error:  # noqa: BLE001 (whatever it is: this rule finds nothing, and the engine goes on)
            return f"{type(error).__name__}: {error}"
        if any(finding.rule_id == case.rule for finding in found):
            return ""
        return f"the case {case.name or case.location} made no finding"

    async def run(
        self,
        load: Load,
        every: float,
        send: Callable[[Callable[[], None]], None],
        tried: Tried,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Try all of them every so many seconds, until cancelled. load: reads the cases, in a thread of its own.

        send: has something done in the engine's thread. tried: called there.
        """
        await sleep(min(FIRST_AFTER, every))
        while True:
            try:
                cases = self.wanted(await asyncio.to_thread(load))
            except Exception as error:  # noqa: BLE001 (rules that cannot be read now are still in service)
                cases = []
                self._counter.add("self_tests", "unreadable")
                log.warning("rules cannot be tried", reason=f"{type(error).__name__}: {error}")
            for case in cases:
                await self._try(case, send, tried)
                await sleep(PAUSE)
            await sleep(every)

    async def _try(self, case: Case, send: Callable[[Callable[[], None]], None], tried: Tried) -> None:
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def here() -> None:
            why = self.dead(case)
            self._counter.add("self_tests", "dead" if why else "alive")
            tried(case.rule, why)
            loop.call_soon_threadsafe(done.set)

        send(here)
        await done.wait()
