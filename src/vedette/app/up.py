"""`vedette up`: everything on this host, with embedded defaults; sources to people and blocks on one screen.
Counterpart: `app.pipeline` is the middle of it; `cli.up` starts it and prints what it says."""

from __future__ import annotations

import asyncio
import gc
import queue
import random
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from vedette.alerts.routing import Router
from vedette.app import own, upstream
from vedette.app.budget import budget_of
from vedette.app.counters import Counters
from vedette.app.detection import load_rules, matcher_of, warm_up
from vedette.app.guarding import GuardWatch
from vedette.app.head_mails import head_mails
from vedette.app.holding import Held, hold
from vedette.app.host import (
    ALLOWLIST_FILE,
    STATE_FILE,
)
from vedette.app.hub_engine import HubEngine, parted
from vedette.app.keep import Keep, Keeping, keep_in_lake
from vedette.app.knowing import Knowing
from vedette.app.login_chains import WATCHED as CHAINED
from vedette.app.login_chains import ChainWatch
from vedette.app.pacing import Pacing, is_paced
from vedette.app.pager import on_pager_event
from vedette.app.pipeline import LAKE, Pipeline
from vedette.app.reading import (
    Reading,
    check_attack_files,
    check_listening,
    check_port_policy,
    plan_sources,
)
from vedette.app.receivers import receiver_kinds
from vedette.app.saved_searches import rules_of
from vedette.app.self_test import SelfTest, cases_of
from vedette.app.settling import Settling
from vedette.config.settings import Settings
from vedette.detections.correlate import Correlator
from vedette.detections.engine import Engine
from vedette.detections.matches import Matches
from vedette.fleet.lanes import Lanes
from vedette.fleet.login_chains import LoginChains
from vedette.model.batch import Batch
from vedette.model.clock import MINUTE, SECOND, Clock
from vedette.model.decisions import RUNG_WORDS, Rung
from vedette.model.errors import VedetteError
from vedette.model.protocols import Notifier, Source
from vedette.model.rules import Rule
from vedette.notify.drill import Drill
from vedette.notify.heartbeat import Heartbeat
from vedette.notify.outbox import Outbox
from vedette.notify.pagerduty_webhook import PagerDutyListener
from vedette.notify.receivers import build
from vedette.notify.settings import DrillSettings
from vedette.respond.allowlist import Guard
from vedette.respond.enforcers import make_guard, tell_allowlist
from vedette.respond.known_logins import KnownLogins
from vedette.respond.policy import Policy
from vedette.sources.addresses import AddressesSource
from vedette.sources.news import NAME as NEWS
from vedette.store.saved_searches import SavedSearches
from vedette.store.state import State
from vedette.system.priority import LOOK_EVERY, Priority
from vedette.text.escape import terminal
from vedette.text.times import parse_duration

if TYPE_CHECKING:
    pass

log = structlog.get_logger()

SKEW_LIMIT = 5 * MINUTE
SWITCH = 0.0005
"""Seconds a thread may keep the interpreter while another wants it: the engine gives it back at every statement, and
the usual 5 ms each time would add up."""

CARRY_AGAIN = (1.0, 30.0)
"""Seconds until what goes on beside the engine is tried again: at first, and at most."""

CANCEL_AGAIN = (5.0, 1.0)
"""Seconds until what was cancelled and goes on is cancelled again: at first, and from then on."""

Say = Callable[[str], None]
_Waiting = tuple[Batch, asyncio.Event, int]
"""A batch, what is set when the engine takes it, and where it stands in the lake; DIRECT where it was just read."""
_Work = Callable[[], None]
"""What else is to be done in the engine's thread, between two batches."""
DIRECT = -1


def check(settings: Settings) -> None:
    """VedetteError where a run would refuse these settings; holds, starts and changes nothing."""
    rules = load_rules(settings.rules.paths, packs=settings.rules.packs, settings=settings.rules)
    matcher_of(rules, counter=Counters())
    make_guard(settings.responding)
    if settings.sources.ports is not None:
        check_port_policy(settings.sources.ports)
    if settings.sources.attacks is not None:
        check_attack_files(settings.sources.attacks)
    for listening in settings.sources.listening:
        check_listening(listening)
    Router(settings.alerts, receiver_kinds(settings.notify), Counters())


class Up:
    """The whole program. `run` until `stop` is set or something cannot go on; again with other settings to reload."""

    def __init__(self, *, clock: Clock, say: Say, priority: Priority | None = None, keep: Keep | None = None) -> None:
        """priority: claimed for this process, which must be the main thread's; None leaves it as it is.

        keep: where what is read stays, without which there is no going on; None = a lake here, if that can be.
        """
        self.counters = Counters()
        self._clock = clock
        self._say = say
        self._priority = priority
        self._held: Held | None = None
        self._queue: queue.SimpleQueue[_Waiting | _Work | None] = queue.SimpleQueue()
        self._failure: BaseException | None = None
        self._keep_by = keep
        self._keeping: Keeping | None = None
        self._settling: Settling | None = None
        self._pacing: Pacing | None = None

    async def run(self, settings: Settings, stop: asyncio.Event) -> None:
        """Start everything in order, run, end it in reverse order; raises what could not be mended."""
        folder = settings.data_folder()
        rules = load_rules(settings.rules.paths, packs=settings.rules.packs, settings=settings.rules)
        guard = make_guard(settings.responding, [folder / ALLOWLIST_FILE])
        held = self._held = self._held or hold(settings, self._say, self._priority)
        self._announce_rungs(settings, rules)
        state = State(settings.state_url or folder / STATE_FILE)
        try:
            rules = [*rules, *rules_of(SavedSearches(state).all(), say=self._say)]
            await self._run(settings, stop, state, rules, guard, held)
        finally:
            try:
                await self._end_keeping()
            finally:
                state.close()

    def close(self) -> None:
        """Give back lock and enforcers; what is enforced stays enforced until its lease ends."""
        if self._held is not None:
            self._held.close()

    def _announce_rungs(self, settings: Settings, rules: Sequence[Rule]) -> None:
        known = {rule.id for rule in rules}
        for rule_id, rung in sorted(settings.respond.items()):
            if rule_id in known:
                self._say(f"blocks: {rule_id} {RUNG_WORDS[rung]}")
            else:
                self._say(f"lacks: rule {rule_id}, which `respond:` names")
        if Rung.ENFORCE not in settings.respond.values():
            self._say("blocks: only what a person says; `respond: {RULE-ID: enforce}` lets a rule")

    async def _run(
        self,
        settings: Settings,
        stop: asyncio.Event,
        state: State,
        rules: Sequence[Rule],
        guard: Guard,
        held: Held,
    ) -> None:
        clock, counters, me = self._clock, self.counters, held.me
        # A batch of a source that was cancelled may still lie there, and is read again after a reload.
        self._queue = queue.SimpleQueue()
        keeping = self._keeping = self._keep(settings, me)
        leave = self._priority.leave if self._priority is not None else None
        self._settling = Settling(keeping.shelf, leave) if keeping is not None else None
        pacing = self._pacing = Pacing(self._put, Lanes(settings.shipping.lanes).hurries)
        held.listeners.only(settings.sources.places)
        reading = plan_sources(
            settings.sources,
            me.host_id,
            clock,
            counters,
            state.cursors(),
            keep=settings.data_folder(),
            inside=held.inside.view if held.inside is not None else None,
            listeners=held.listeners,
            kept=self._kept,
            watching=held.watching,
            rootkit=held.rootkit.look if held.rootkit is not None else None,
        )
        if keeping is not None:
            reading.sources += keeping.sources(state)
        if self._keep_by is not None:
            reading.sources.append(AddressesSource(host_id=me.host_id, host_name=me.host_name, clock=clock))
        here, fleet = parted(rules) if self._keep_by is not None else (list(rules), [])
        matcher = matcher_of([*here, own.LOGIN, *upstream.RULES], counter=counters, skew_limit=SKEW_LIMIT)
        warm_up(matcher)
        correlator = Correlator(matcher.rules, counter=counters, accept_forgeable=reading.accept_forgeable, track=True)
        receivers = receiver_kinds(settings.notify)
        router = Router(settings.alerts, receivers, counters)
        known = KnownLogins(settings.blocking.known_logins, rules)
        known.restore(state.correlation(), clock.now())
        knowing = Knowing(known, matcher.rules, own.LOGIN.id, reading.accept_forgeable)
        loggers = upstream.Upstream(matcher.rules)
        loggers.restore(state.correlation())
        if keeping is not None:
            keeping.told = loggers.told

        def watch_matches(batch: Batch, matches: Matches) -> None:
            knowing.see(batch, matches)
            loggers.see(batch, matches)

        host_engine = Engine(matcher, correlator, counters, watch=watch_matches)
        judged: Engine | HubEngine = host_engine
        chains: ChainWatch | None = None
        if keeping is not None and keeping.is_hub:
            matcher = matcher_of([*fleet, *CHAINED], counter=counters, skew_limit=SKEW_LIMIT)
            correlator = Correlator(
                matcher.rules, counter=counters, accept_forgeable=reading.accept_forgeable, track=True
            )
            chains = self._chains(keeping, settings, state, matcher.rules, me)
            judged = HubEngine(host_engine, Engine(matcher, correlator, counters, watch=chains.see))
        judged.correlator.restore(state.correlation())
        self_test = SelfTest([host_engine.matcher, matcher], counters)
        policy = Policy(settings.responding, rules, guard, me.host_id, known, host_name=me.host_name)
        watch = GuardWatch(
            guard,
            settings.responding,
            [settings.data_folder() / ALLOWLIST_FILE],
            clock.now(),
            partial(tell_allowlist, held.enforcers),
        )
        notifiers = build(settings.notify, clock, counters)
        outbox = Outbox(state, notifiers, settings.notify, clock, counters, random=random.random)
        heads = head_mails(keeping, settings, notifiers, state, outbox, clock, counters)
        pipeline = Pipeline(
            judged,
            state,
            rules,
            router,
            policy,
            [*held.enforcers, *(keeping.enforcers(state, rules) if keeping is not None else ())],
            clock=clock,
            counter=counters,
            me=me,
            quiet_period=parse_duration(settings.alerts.quiet_period),
            guard_changed=watch.changed,
            woken=outbox.wake,
            retention=settings.retention.ages(),
            known=known,
            chains=chains,
            loggers=loggers,
            budget=budget_of(settings.rules.page_budget, receivers, state, me.host_id, clock.now()),
            shelf=keeping.shelf if keeping is not None else None,
            stream=keeping.stream if keeping is not None else None,
            trouble=(lambda: keeping.trouble) if keeping is not None else lambda: "",
            bundle=keeping.bundle if keeping is not None else 0,
        )
        if keeping is not None:
            keeping.nudge, keeping.enforces = pipeline.nudge, bool(held.enforcers)
        pipeline.warm_up()
        self._announce(settings, reading, rules)
        loop = asyncio.get_running_loop()
        if self._priority is not None:
            loop.set_default_executor(ThreadPoolExecutor(4, "work", initializer=self._priority.leave))
            self._priority.join()
        sys.setswitchinterval(SWITCH)
        # What was made until now stays until the end: no collection needs to look at it again.
        gc.collect()
        gc.freeze()
        engine = threading.Thread(target=self._engine, args=(pipeline, loop, stop), name="engine")
        engine.start()
        others = asyncio.all_tasks()
        try:
            async with asyncio.TaskGroup() as tasks:
                background = [tasks.create_task(outbox.run())]
                if heads is not None:
                    background.append(tasks.create_task(heads.run(), name="ledger-heads"))
                if keeping is not None:
                    background.append(tasks.create_task(self._carry(keeping, state)))
                if isinstance(judged, HubEngine):
                    background.append(tasks.create_task(self._judge_stored(state)))
                background += [tasks.create_task(self._read(source)) for source in reading.sources]
                background.append(tasks.create_task(self._say_up(reading)))
                if settings.rules.self_test is not None:
                    every = parse_duration(settings.rules.self_test) / SECOND
                    cases = partial(cases_of, settings.rules)
                    trying = self_test.run(cases, every, self._queue.put_nowait, pipeline.tried)
                    background.append(tasks.create_task(trying, name="self-test"))
                background.append(tasks.create_task(self._look_at_priority()))
                if settings.notify.heartbeat is not None:
                    heartbeat = Heartbeat(settings.notify.heartbeat, lambda: pipeline.last_alive, clock, counters)
                    background.append(tasks.create_task(heartbeat.run()))
                if settings.notify.drill is not None:
                    drill = self._drill(settings.notify.drill, notifiers, pipeline, me)
                    background.append(tasks.create_task(drill.run(), name="drill"))
                if settings.notify.pagerduty_webhook is not None:
                    on_event = on_pager_event(state, router, clock, [pipeline.nudge, outbox.wake])
                    listener = PagerDutyListener(settings.notify.pagerduty_webhook, on_event, clock, counters)
                    background.append(tasks.create_task(listener.run()))
                await stop.wait()
                await self._cancel(background, others)
        finally:
            # Everything already read is judged and committed; the sources have stopped.
            pacing.close()
            self._queue.put(None)
            await asyncio.to_thread(engine.join)
            if self._settling is not None:
                await self._settling.close()
            await self._end_keeping()
            for notifier in notifiers.values():
                await notifier.close()
        if self._failure is not None:
            raise self._failure

    def _chains(
        self, keeping: Keeping, settings: Settings, state: State, rules: Sequence[Rule], me: own.Self
    ) -> ChainWatch:
        """What joins logins with sessions; a hub alone hears both ends."""
        from vedette.app.hub import HubKeeping

        assert isinstance(keeping, HubKeeping)
        chains = LoginChains(self.counters, settings.rules.ssh.unattended)
        chains.restore(state.correlation())
        keeping.addresses = chains.addresses
        return ChainWatch(chains, rules, me, lambda: keeping.missing)

    def _drill(
        self, settings: DrillSettings, notifiers: Mapping[str, Notifier], pipeline: Pipeline, me: own.Self
    ) -> Drill:
        def tell(receiver: str, why: str) -> None:
            self._queue.put_nowait(partial(pipeline.paged, receiver, why))

        notifier = notifiers[settings.receiver]
        return Drill(settings, notifier, tell, self._clock, self.counters, host=me.host_name)

    async def _cancel(self, background: Sequence[asyncio.Task[None]], others: set[asyncio.Task[Any]]) -> None:
        """End everything that began with this run, and nothing of `others`; again and again where it does not end.

        Libraries lose cancellations, and one lost would keep a reload from beginning, or a stop from ending, for ever.
        """
        for task in background:
            task.cancel()
        pause = CANCEL_AGAIN[0]
        while (await asyncio.wait(background, timeout=pause))[1]:
            pause = CANCEL_AGAIN[1]
            self.counters.add("cancelled_again")
            for task in asyncio.all_tasks() - others:
                log.warning("does not end, and is cancelled again", task=task.get_name())
                task.cancel()

    async def _read(self, source: Source) -> None:
        """Run one source; one that cannot go on does not stop the others."""
        pacing = self._pacing
        try:
            await source.run(pacing.emit if pacing is not None and is_paced(source.name) else self._emit)
        except OSError as error:
            self.counters.add("sources_failed", source.name)
            log.error("SOURCE STOPPED", source=source.name, reason=str(error))
        finally:
            source.begun.set()

    def _keep(self, settings: Settings, me: own.Self) -> Keeping | None:
        """What is read is kept, unless the settings or the disk say otherwise: that must not end what blocks."""
        if self._keep_by is not None:
            keeping = self._keep_by(settings, me, self._clock, self.counters)
        elif not settings.lake.enabled:
            return None
        else:
            try:
                keeping = keep_in_lake(settings, me, self._clock, self.counters)
            except (VedetteError, OSError) as error:
                self.counters.add("lake_unopened")
                self._say(f"lacks: a lake, so nothing is kept to be searched; {error}")
                return None
        self._say(keeping.words)
        return keeping

    async def _end_keeping(self) -> None:
        """Also where the start did not get far: its lake would be in the way of the next one."""
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            await asyncio.to_thread(keeping.close)

    async def _carry(self, keeping: Keeping, state: State) -> None:
        """Run what goes on beside; what breaks there is said and tried again, and ends nothing that blocks."""
        said = ""
        pause = CARRY_AGAIN[0]
        while True:
            try:
                await keeping.run(state)
            except Exception as error:  # noqa: BLE001 (whatever a broker, a hub or a network does)
                self.counters.add("keeping_failed")
                reason = "; ".join(_words_of(error))
                if reason != said:
                    log.error("WHAT IS KEPT IS NOT CARRIED ON, and is tried again", reason=reason)
                said = reason
            else:
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, CARRY_AGAIN[1])

    async def _judge_stored(self, state: State) -> None:
        """A hub's fleet rules see everything, in the order in which the lake has it."""
        from vedette.app.hub import HubKeeping

        assert isinstance(self._keeping, HubKeeping)
        async for one in self._keeping.follow(int(state.cursors().get(LAKE, 0))):
            if one.batch.origin.source == NEWS:
                await asyncio.to_thread(self._keeping.heard, one.batch)
            taken = asyncio.Event()
            self._queue.put_nowait((one.batch, taken, one.sequence))
            await taken.wait()

    async def _kept(self) -> None:
        """Until everything emitted so far is on the disk; OSError where it is not, so that senders send it again."""
        if self._settling is not None:
            await self._settling.kept()

    async def _look_at_priority(self) -> None:
        """The engine looks too; a thread that is stuck could not."""
        held = True
        while self._priority is not None and self._priority.allowed:
            await asyncio.sleep(LOOK_EVERY)
            self._priority.look()
            if held and not self._priority.held:
                self.counters.add("priority_given_back")
                log.warning("priority given back", reason="there is much to do", lasting=self._priority.lasting)
            held = self._priority.held

    async def _say_up(self, reading: Reading) -> None:
        """The last words: whatever happens from now on is seen."""
        for source in reading.sources:
            await source.begun.wait()
        self._say("up")

    async def _emit(self, batch: Batch) -> None:
        # One batch a source waits at most, and it reads on when the engine has taken that: its next batch grows.
        await self._put(batch).wait()

    def _put(self, batch: Batch) -> asyncio.Event:
        """To be judged and kept; what comes back is set once the engine takes it."""
        # On its way to the disk while it is judged: the commit waits for that.
        if self._keeping is not None:
            self._keeping.shelf.put(batch)
        taken = asyncio.Event()
        self._queue.put_nowait((batch, taken, DIRECT))
        return taken

    def _engine(self, pipeline: Pipeline, loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
        """The engine thread: batches as they come, ticks in between."""
        priority = self._priority or Priority()
        try:
            priority.join()
            wait = 0.0
            while True:
                with suppress(queue.Empty):
                    waiting = self._queue.get(timeout=wait) if wait > 0 else self._queue.get_nowait()
                    if waiting is None:
                        break
                    if callable(waiting):
                        waiting()
                    else:
                        batch, taken, sequence = waiting
                        loop.call_soon_threadsafe(taken.set)
                        if sequence == DIRECT:
                            pipeline.take(batch)
                        else:
                            pipeline.take_stored(batch, sequence)
                wait = pipeline.tick()
                priority.look()
            pipeline.close()
        except BaseException as error:  # noqa: BLE001 (whatever ends the engine ends the program, loudly)
            self._failure = error
            log.error("ENGINE STOPPED", reason=f"{type(error).__name__}: {error}")
            loop.call_soon_threadsafe(stop.set)
            while self._queue.get() is not None:
                pass
        finally:
            priority.leave()

    def _announce(self, settings: Settings, reading: Reading, rules: Sequence[Rule]) -> None:
        for line in reading.lines:
            self._say(line)
        self._say(f"judges: {len(rules)} rules")
        receivers = ", ".join(sorted(settings.notify.receivers)) or "nobody (no receiver is set; alerts are kept)"
        self._say(f"tells: {receivers}")


def _words_of(error: BaseException) -> list[str]:
    """What went wrong, of many tasks each."""
    if isinstance(error, BaseExceptionGroup):
        return [words for one in error.exceptions for words in _words_of(one)]
    return [terminal(str(error) or type(error).__name__)]
