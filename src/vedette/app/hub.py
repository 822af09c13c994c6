"""`vedette hub`: as `up`, and the place that agents ship to: door, broker, and one lake for all of them.
Counterpart: `app.agent` ships; `app.hub_engine` judges what is in the lake; `fleet` carries."""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

import structlog

from vedette import __version__
from vedette.app import own
from vedette.app.arriving import Refused, gap_of, known_reason, refusal, report_refusal
from vedette.app.fleet_blocks import FleetEnforcer
from vedette.app.fleet_operating import BROKER_FOLDER, authority_of
from vedette.app.hub_control import HubControl, is_control
from vedette.app.keeping import LakeKeeping
from vedette.app.liveness import judge_of
from vedette.app.odd_watch import odd_source
from vedette.app.pipeline import LAKE as LAKE_CURSOR
from vedette.fleet.authority import Authority
from vedette.fleet.broker import Broker
from vedette.fleet.cluster import Cluster
from vedette.fleet.completeness import Completeness
from vedette.fleet.door import Door
from vedette.fleet.enrolment import Registrar
from vedette.fleet.link import LinkError
from vedette.fleet.membership import Admission
from vedette.fleet.messages import Confirm, MessageError, pack_confirm, unpack_event, unpack_report
from vedette.fleet.signing import HubSigner
from vedette.fleet.transport import Arrival, HubTransport, StreamLimits
from vedette.model.batch import Batch
from vedette.model.clock import SECOND, Clock
from vedette.model.errors import StateError, VedetteError
from vedette.model.fleet import Agent, AgentState, Sighting
from vedette.model.protocols import Counter, Enforcer, Source
from vedette.model.rules import Rule
from vedette.model.shipping import BatchKey, Dropped, Report
from vedette.sources.integrity.odd import NAME as ODD
from vedette.sources.liveness import NAME as LIVENESS
from vedette.sources.liveness import LivenessSource
from vedette.sources.news import NewsSource
from vedette.store.agents import Agents
from vedette.store.lake.reader import Taken
from vedette.text.escape import terminal

if TYPE_CHECKING:
    from vedette.config.settings import Settings
    from vedette.store.state import State

log = structlog.get_logger()

MOST_WAITING = 64 << 20
"""Bytes in memory on their way to the disk; then nothing more is fetched, and the broker keeps it."""
MOST_STREAMS = 20_000
"""Of one host, that the lake keeps: more than its sources make, and a bound for whoever owns it."""
READ_BATCHES = 16
"""Read at once for the fleet's rules; each may be some megabytes."""
BEYOND = 1000
"""Ranges behind a gap that a confirm names at most, a stream."""
AGAIN = 0.5
"""Seconds until what the disk refused is tried again, and between two looks at the lake without news."""
SEEN_EVERY = 10.0
DOOR_AGAIN = 10.0
"""Seconds until a door that could not be opened is tried again."""
ROLL_EVERY = 5 * SECOND


class HubKeeping(LakeKeeping):
    """The lake of a fleet. What was stored and synced is confirmed; a broker's word frees nothing."""

    def __init__(self, settings: Settings, me: own.Self, *, clock: Clock, counter: Counter) -> None:
        self._loop = asyncio.get_running_loop()
        self._arrived: dict[BatchKey, list[Arrival]] = defaultdict(list)
        self._safe: asyncio.Queue[Sequence[BatchKey]] = asyncio.Queue()
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._seen: dict[str, Sighting] = {}
        self.judge: Completeness | None = None
        self.missing: frozenset[str] = frozenset()
        """Hosts of which something may still come, or never will."""
        self.addresses: Callable[[], Mapping[str, Sequence[str]]] = dict
        """What each host says its own addresses are, by host id; for the engine's thread."""
        self._streams: dict[str, set[str]] = {}
        self._overfull: set[str] = set()
        self._news_of = NewsSource(me.host_id, clock)
        self._control: HubControl | None = None
        super().__init__(settings, me, clock=clock, counter=counter)

    is_hub = True

    @property
    def words(self) -> str:
        """What a person is told of it."""
        hub = self.settings.hub
        where = " ".join(hub.broker.urls) or hub.broker.listen
        return f"hub: agents enrol at {hub.enrol}, ship to {where}; everything is kept in {self.lake.folder}"

    def flushed(self, keys: Sequence[BatchKey]) -> None:
        """In the lake's thread: what is safe now is confirmed by the loop."""
        if keys and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._safe.put_nowait, keys)

    async def run(self, state: State) -> None:
        """Let agents in, take what they ship, confirm what is stored, send it on; until cancelled."""
        settings, clock, counter = self.settings.hub, self._clock, self._counter
        authority = authority_of(self.settings.data_folder())
        roll = Agents(state)
        async with self._broker(authority) as broker:
            admission = Admission(roll, broker)
            await admission.admit()
            registrar = Registrar(
                authority,
                roll,
                lambda: broker.told(settings.advertise),
                clock=clock,
                counter=counter,
                changed=admission.admit,
            )

            async def renewed(host_id: str, csr: bytes) -> bytes:
                return await asyncio.to_thread(registrar.renew, host_id, csr)

            transport = HubTransport(
                broker.hub_endpoint(),
                counter,
                on_report=self._on_report,
                on_ask=self._on_ask,
                on_renew=renewed,
                limits=StreamLimits(replicas=settings.broker.replicas, most_bytes=settings.broker.most_bytes),
            )
            control = self._control or self._controlling(state, authority)
            async with transport, asyncio.TaskGroup() as group:
                group.create_task(control.run(transport))
                group.create_task(self._let_in(registrar))
                group.create_task(admission.keep(state.foreign_version))
                group.create_task(self._take_arrivals(transport))
                group.create_task(self._confirm(transport))
                group.create_task(self._note_seen(roll))
                group.create_task(super().run(state))

    def _broker(self, authority: Authority) -> Broker | Cluster:
        """Our own server, or the cluster that is named."""
        folder, settings = self.settings.data_folder() / BROKER_FOLDER, self.settings.hub.broker
        if settings.urls:
            return Cluster(folder, authority, settings)
        return Broker(folder, authority, settings, clock=self._clock, counter=self._counter)

    def _controlling(self, state: State, authority: Authority) -> HubControl:
        """What tells agents by which rules to run and whom to block."""
        return HubControl(
            self.settings.hub,
            state,
            HubSigner.open(self.settings.data_folder(), authority),
            self.ledger,
            self.log_key,
            self._news_of,
            clock=self._clock,
            counter=self._counter,
        )

    def enforcers(self, state: State, rules: Sequence[Rule]) -> list[Enforcer]:
        """What has agents block whom rules of the fleet decide on."""
        return [
            FleetEnforcer(
                state,
                rules,
                self.settings.hub.blocks,
                clock=self._clock,
                counter=self._counter,
                nudge=self._nudge_control,
                addresses=lambda: self.addresses(),
                responding=self.settings.responding,
            )
        ]

    def _nudge_control(self) -> None:
        if self._control is not None:
            self._control.nudge()

    def heard(self, batch: Batch) -> None:
        """What an agent said of itself, in the lake's order."""
        if self._control is not None:
            self._control.heard(batch)

    async def _let_in(self, registrar: Registrar) -> None:
        """Who joins comes by the door; while it cannot be opened those who are in ship on."""
        said = ""
        while True:
            try:
                async with Door(registrar, self.settings.hub, clock=self._clock, counter=self._counter):
                    await asyncio.Event().wait()
            except VedetteError as error:
                self._counter.add("door_shut")
                if str(error) != said:
                    said = str(error)
                    log.error("NOBODY CAN JOIN, and it is tried again", reason=said)
            await asyncio.sleep(DOOR_AGAIN)

    # ------------------------------------------------------------------------------------------ what comes
    async def _take_arrivals(self, transport: HubTransport) -> None:
        async for arrival in transport.arrivals():
            while self.lake.waiting > MOST_WAITING:
                self._room.clear()
                await self._room.wait()
            try:
                event = unpack_event(arrival.packed)
            except MessageError as error:
                await self._note_refused(arrival, error.reason)
                continue
            reason = refusal(event, arrival.host_id)
            key = BatchKey(event.host_id, event.stream, event.last) if isinstance(event, Dropped) else event[0]
            if reason is not None:
                await self._note_refused(arrival, reason)
            elif not self._has_room(key):
                await self._note_one_too_many(key, arrival, transport)
            elif isinstance(event, Dropped):
                await self._note_dropped(event, arrival)
            else:
                await self._note_batch(*event, arrival)

    async def _note_refused(self, arrival: Arrival, reason: StrEnum) -> None:
        """Sent again it would be refused again: it is a gap that is named, and its agent lets it go."""
        self._counter.add("batches_refused", reason)
        gap = gap_of(arrival.packed, arrival.host_id, self._clock.now())
        if gap is None:
            await arrival.ack()
            return
        if not self._has_room(BatchKey(gap.host_id, gap.stream, gap.last)):
            self._counter.add("batches_refused", Refused.TOO_MANY_STREAMS)
            await arrival.ack()
            return
        log.error("A BATCH WAS REFUSED", host_id=gap.host_id, stream=terminal(gap.stream), reason=reason.value)
        await self._note_dropped(gap, arrival)

    def _has_room(self, key: BatchKey) -> bool:
        """Whether a host may have this stream: each costs memory, and a row that is kept for ever."""
        known = self._streams.get(key.host_id)
        if known is None:
            known = self._streams[key.host_id] = set(self.lake.streams_of(key.host_id))
        if key.stream not in known and len(known) >= MOST_STREAMS:
            return False
        known.add(key.stream)
        return True

    async def _note_one_too_many(self, key: BatchKey, arrival: Arrival, transport: HubTransport) -> None:
        """Not kept, not as a gap either, and its agent lets it go: what it has besides must not wait behind it."""
        self._counter.add("batches_refused", Refused.TOO_MANY_STREAMS)
        if key.host_id not in self._overfull:
            self._overfull.add(key.host_id)
            log.error("A HOST HAS TOO MANY STREAMS: new ones are not kept", host_id=key.host_id, most=MOST_STREAMS)
        await arrival.ack()
        try:
            confirm = Confirm(key.host_id, self._clock.now(), {key.stream: key.number}, {}, last={})
            await transport.confirm(key.host_id, pack_confirm(confirm))
        except (LinkError, MessageError) as error:
            # It comes again.
            self._counter.add("confirms_unsent", error.reason)

    async def _note_batch(self, key: BatchKey, batch: Batch, arrival: Arrival) -> None:
        if self.lake.has(key):
            self._counter.add("lake_repeats")
            await arrival.ack()
            self._safe.put_nowait([key])
            return
        waiting = self._arrived[key]
        # Handed out again while the disk refuses: the last word to the broker is enough, and holds no more memory.
        waiting[:] = [arrival]
        try:
            await asyncio.to_thread(self.take_in, key, batch)
        except Exception as error:  # noqa: BLE001 (one batch of one host must not end what is done for all)
            self._arrived.pop(key, None)
            log.error("A BATCH COULD NOT BE TAKEN IN", host_id=key.host_id, stream=key.stream, reason=repr(error))
            if not isinstance(error, StateError | OSError | MemoryError):
                await self._note_refused(arrival, Refused.DEFECT)
                return
            self._counter.add("batches_refused", Refused.DEFECT)
            # With the broker it would only be in the way; its agent keeps it.
            await arrival.ack()

    async def _note_dropped(self, dropped: Dropped, arrival: Arrival) -> None:
        dropped = replace(dropped, reason=known_reason(dropped))
        try:
            await asyncio.to_thread(self.lake.drop, dropped)
        except (StateError, OSError) as error:
            # It stays with the broker, and comes again.
            log.warning("a gap could not be noted", reason=str(error))
            return
        await arrival.ack()
        self._safe.put_nowait([BatchKey(dropped.host_id, dropped.stream, dropped.last)])

    async def _confirm(self, transport: HubTransport) -> None:
        while True:
            keys = [*(await self._safe.get())]
            while not self._safe.empty():
                keys += self._safe.get_nowait()
            self._news.set()
            self._room.set()
            touched: dict[str, set[str]] = defaultdict(set)
            for key in keys:
                for arrival in self._arrived.pop(key, ()):
                    await arrival.ack()
                if key.host_id != self.me.host_id:
                    touched[key.host_id].add(key.stream)
            for host_id, streams in touched.items():
                try:
                    await transport.confirm(host_id, self._confirmation(host_id, streams))
                except (LinkError, MessageError) as error:
                    # The agent asks for it.
                    self._counter.add("confirms_unsent", error.reason)

    def _confirmation(self, host_id: str, streams: set[str], last: Mapping[str, int] = MappingProxyType({})) -> bytes:
        through = {stream: self.lake.stored_through(host_id, stream) for stream in streams}
        beyond = {
            stream: found
            for stream, last in through.items()
            if (found := self.lake.stored_beyond(host_id, stream, last, BEYOND))
        }
        return pack_confirm(Confirm(host_id, self._clock.now(), through, beyond, last=dict(last)))

    # ------------------------------------------------------------------------------------------ who says what
    def _on_report(self, host_id: str, packed: bytes) -> None:
        try:
            report = unpack_report(packed)
        except MessageError as error:
            self._counter.add("reports_refused", error.reason)
            return
        if (reason := report_refusal(report, host_id)) is not None:
            self._counter.add("reports_refused", reason)
            return
        now = self._clock.now()
        self._seen[host_id] = Sighting(
            now, report.version, report.bundle, report.spooled, report.session, report.stopping
        )
        if self.judge is not None:
            self.judge.report(report, now)

    async def _on_ask(self, host_id: str, packed: bytes) -> bytes:
        if is_control(packed):
            assert self._control is not None
            return await self._control.asked(host_id, packed)
        self._on_report(host_id, packed)
        streams = self.lake.streams_of(host_id)
        return self._confirmation(host_id, set(streams), streams)

    async def _note_seen(self, roll: Agents) -> None:
        while True:
            await asyncio.sleep(SEEN_EVERY)
            seen, self._seen = self._seen, {}
            try:
                if seen:
                    await asyncio.to_thread(roll.saw, seen)
            except StateError as error:
                log.warning("who was seen cannot be kept", reason=str(error))

    def sources(self, state: State) -> list[Source]:
        """What tells who is absent, what is missing, which hosts differ from the others, and when that is over."""
        self._begin(state)
        roll = Agents(state)
        # Before anything of the lake is judged: what agents said of themselves must not be passed over.
        self._control = self._controlling(state, authority_of(self.settings.data_folder()))
        judge = self.judge = judge_of(
            self.settings.sources.liveness, self._clock.now(), state.cursors().get(LIVENESS, "")
        )
        looked_at = sequence = 0
        session, began = secrets.token_hex(8), self._clock.now()

        def kept() -> tuple[Sequence[Agent], Sequence[Dropped]]:
            return roll.agents(), self.lake.dropped()

        async def gather(now: int) -> None:
            nonlocal looked_at, sequence
            judge.storage(self.waiting_since)
            if 0 <= now - looked_at < ROLL_EVERY:
                return
            looked_at = now
            sequence += 1
            # The hub is a host as well, and nobody else reports of it.
            states = self.told(self.shelf.states())
            judge.report(
                Report(
                    self.me.host_id,
                    self.me.host_name,
                    session,
                    sequence,
                    now,
                    began,
                    __version__,
                    states,
                    spooled=self.shelf.waiting,
                ),
                now,
            )
            try:
                agents, dropped = await asyncio.to_thread(kept)
                for agent in agents:
                    judge.member(agent.host_id, agent.name, now, retired=agent.state is not AgentState.ACTIVE)
                judge.stored(self.lake.stored(), dropped, now)
                self.missing = frozenset(event.host_id for event in judge.standing(now))
            except (StateError, OSError) as error:
                log.warning("who belongs to the fleet cannot be read", reason=str(error))

        return [
            self._news_of,
            LivenessSource(judge, host_id=self.me.host_id, clock=self._clock, counter=self._counter, gather=gather),
            odd_source(
                self.lake,
                roll.agents,
                host_id=self.me.host_id,
                clock=self._clock,
                counter=self._counter,
                cursor=state.cursors().get(ODD, ""),
            ),
        ]

    # ------------------------------------------------------------------------------------------ what is in the lake
    def _begin(self, state: State) -> None:
        """At a hub's first start what the lake held before is history: it is not judged as if it came now.

        Kept at once: what agents ship from now on is behind it, over whatever kill.
        """
        if LAKE_CURSOR in state.cursors():
            return
        last = self.lake.last()
        with state.transaction() as tx:
            tx.save_cursor(LAKE_CURSOR, str(last))
        if last:
            log.warning("rules of the fleet begin behind what this lake held before", batches=last)

    async def follow(self, after: int) -> AsyncIterator[Taken]:
        """Everything in the lake behind this sequence, in the order it was taken in, for ever."""
        failing = False
        while True:
            self._news.clear()
            try:
                taken = await asyncio.to_thread(self.lake.read, after, READ_BATCHES)
            except Exception as error:  # noqa: BLE001 (a file that is damaged must not end what blocks)
                self._counter.add("lake_reads_failed")
                if not failing:
                    failing = True
                    log.error("THE LAKE CANNOT BE READ: rules of the fleet wait", reason=repr(error))
                await asyncio.sleep(AGAIN)
                continue
            failing = False
            for one in taken:
                yield one
                after = one.sequence
            if not taken:
                try:
                    async with asyncio.timeout(AGAIN * 10):
                        await self._news.wait()
                except TimeoutError:
                    continue
