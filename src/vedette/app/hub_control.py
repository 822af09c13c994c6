"""A hub's word to its agents: who runs by which bundle, who blocks what; and what they answered.
Counterpart: `app.agent_control` carries it out; `app.bundling` and `app.fleet_blocks` are what a person says."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson
import structlog

from vedette.app.bundling import Watch
from vedette.fleet import subjects
from vedette.fleet.blocks import BlockAnswer, Wanted, WantedBlock, wanted_bytes
from vedette.fleet.bundles import Order, order_bytes, unpacked
from vedette.fleet.control import PREFIX, Cosigned, HeadAsked, HeadTold, Noted, answer_bytes, read_ask
from vedette.fleet.link import LinkError
from vedette.fleet.signing import HubSigner, SignedKind
from vedette.fleet.transport import HubTransport
from vedette.model.batch import Batch
from vedette.model.clock import DAY, SECOND, Clock
from vedette.model.errors import StateError, VedetteError
from vedette.model.fleet import Agent, AgentState
from vedette.model.protocols import Counter
from vedette.sources.news import NewsSource
from vedette.store.agents import Agents
from vedette.store.bundles import Bundles
from vedette.store.fleet_blocks import RETURNED, FleetBlock, FleetBlocks, FleetBlockState, HostAnswer
from vedette.store.ledger.ledger import Ledger
from vedette.store.ledger.notes import NoteError, VerifierKey
from vedette.store.witnesses import Seen, Witnesses
from vedette.text.times import parse_rfc3339

if TYPE_CHECKING:
    from vedette.fleet.hub_settings import HubSettings
    from vedette.store.state import State

log = structlog.get_logger()

LOOK_EVERY = 0.2
"""Seconds between two looks whether a person said something."""
AGAIN_EVERY = 60.0
"""Seconds until everything is looked at without that: a broker may have lost what it was told, a lease has ended."""
HEAD_FOR = 10 * SECOND
"""How long agents are shown the same head, so that many of them cosign it."""
KEPT_FOR = 400 * DAY
_RAISED = frozenset({"bundle-refused", "bundle-returned"})


class HubControl:
    """Beside the transport of one hub. `heard` and `asked` come from other tasks and threads."""

    def __init__(
        self,
        settings: HubSettings,
        state: State,
        signer: HubSigner,
        ledger: Ledger,
        log_key: VerifierKey,
        news: NewsSource,
        *,
        clock: Clock,
        counter: Counter,
    ) -> None:
        self._settings = settings
        self._state = state
        self._signer, self._ledger, self._log_key = signer, ledger, log_key
        self._news, self._clock, self._counter = news, clock, counter
        self._roll, self._bundles, self._blocks = Agents(state), Bundles(state), FleetBlocks(state)
        self._witnesses = Witnesses(state)
        self._watch = Watch(settings, state, news, clock)
        self._ordered: dict[str, int] = {}
        self._wanted: dict[str, tuple[WantedBlock, ...]] = {}
        self._told_serial: dict[str, int] = {}
        self._began = False
        self._head: tuple[int, str, int] = (0, "", 0)
        self._nudged = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    async def run(self, transport: HubTransport) -> None:
        """Tell agents what holds, whenever it changes; until cancelled."""
        version: int | None = None
        due = 0.0
        while True:
            try:
                found = await asyncio.to_thread(self._state.foreign_version)
                if found != version or self._nudged.is_set() or self._loop.time() >= due:
                    self._nudged.clear()
                    await asyncio.to_thread(self._advance)
                    if self._loop.time() >= due:
                        await self._find_lost(transport)
                        due = self._loop.time() + AGAIN_EVERY
                    await self._tell_orders(transport)
                    await self._tell_blocks(transport)
                    version = found
            except (LinkError, StateError) as error:
                # It is tried again for as long as it takes.
                self._counter.add("fleet_control_failed")
                log.warning("agents cannot be told what holds", reason=str(error))
                await asyncio.sleep(1)
            await asyncio.sleep(LOOK_EVERY)

    def nudge(self) -> None:
        """Something was decided in this process. Safe from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._nudged.set)

    def _advance(self) -> None:
        now = self._clock.now()
        for block in self._blocks.advance(now):
            returned = block.ended_by.startswith(RETURNED)
            self._counter.add("fleet_blocks", "returned" if returned else block.state)
            about = {"decision": block.id, "target": block.target}
            if returned:
                host, _, reason = block.ended_by.removeprefix(RETURNED).partition(":")
                words = f"block of {block.target} by {block.reason} was returned: {reason} on {host}"
                self._news.say("block-returned", words, {**about, "reason": reason})
            if block.state is FleetBlockState.HELD:
                words = f"block of {block.target} stays on its first hosts: one refused it"
                self._news.say("block-held", words, about)
        self._blocks.forget(now - KEPT_FOR)
        self._watch.look(now)

    # ------------------------------------------------------------------------------------------ bundles
    async def _tell_orders(self, transport: HubTransport) -> None:
        newest = await asyncio.to_thread(self._bundles.newest)
        # One that joined later takes what holds for all; whoever is not in the fleet is told nothing.
        for target, (number, one) in sorted(newest.items(), key=lambda item: item[1][1].serial):
            if self._ordered.get(target) == one.serial:
                continue
            content = unpacked(await asyncio.to_thread(self._bundles.content, number)) if number else None
            order = Order(one.serial, target, number, content, one.returns, one.why, one.at)
            signed = await asyncio.to_thread(self._signer.sign, SignedKind.BUNDLE, order_bytes(order))
            await transport.put(subjects.BUNDLES, target, signed)
            self._ordered[target] = one.serial
            self._counter.add("bundles_ordered")
            log.info("agents are told which bundle to run by", target=target, number=number, returns=one.returns)

    async def _find_lost(self, transport: HubTransport) -> None:
        """What a broker whose store was lost does not have any more is told anew."""
        for bucket, told in ((subjects.BUNDLES, self._ordered), (subjects.DECISIONS, self._told_serial)):
            for target in list(told):
                if await transport.get(bucket, target) is None:
                    del told[target]
                    self._counter.add("values_told_again", bucket)

    # ------------------------------------------------------------------------------------------ blocks
    async def _tell_blocks(self, transport: HubTransport) -> None:
        agents, found, change = await asyncio.to_thread(self._standing)
        if not self._began:
            for agent in agents:
                # What a hub before this one told it must not outlast what holds now.
                if await transport.get(subjects.DECISIONS, agent.host_id) is not None:
                    self._wanted[agent.host_id] = ()
            self._began = True
        wanted = wanted_of(found, agents)
        targets = {*wanted, *self._wanted} | ({subjects.ALL} if change else set())
        # Those for all first: one that goes from a few hosts to every one is never let go in between.
        for target in sorted(targets, key=lambda one: one != subjects.ALL):
            blocks = wanted.get(target, ())
            if target in self._told_serial and self._wanted.get(target, ()) == blocks:
                continue
            now = self._clock.now()
            # Higher than any before, also where only a lease ended, or a hub began anew with the same changes.
            serial = max(change << 40 | now // SECOND, self._told_serial.get(target, 0) + 1)
            said = wanted_bytes(Wanted(serial, target, now, blocks))
            await transport.put(subjects.DECISIONS, target, self._signer.sign(SignedKind.DECISIONS, said))
            self._wanted[target], self._told_serial[target] = blocks, serial

    def _standing(self) -> tuple[Sequence[Agent], Sequence[FleetBlock], int]:
        active = [agent for agent in self._roll.agents() if agent.state is AgentState.ACTIVE]
        return active, self._blocks.in_force(self._clock.now()), self._blocks.change()

    # ------------------------------------------------------------------------------------------ what they say
    def heard(self, batch: Batch) -> None:
        """What an agent said of itself, in a batch of the lake; may be heard again after a crash. From any thread."""
        answers: list[HostAnswer] = []
        for row in range(len(batch)):
            said = _read(batch.raw(row))
            about = said.get("about", {})
            action = said.get("action", "")
            if action in _RAISED:
                self._watch.failed(batch.origin.host_id, about, self._clock.now())
            elif action.startswith("decision-"):
                state = action.removeprefix("decision-")
                if state in set(BlockAnswer) and isinstance(about.get("decision"), str):
                    reason = str(about.get("reason", ""))[:100]
                    answers.append(HostAnswer(about["decision"], batch.origin.host_id, said["at"], state, reason))
        if answers:
            self._blocks.answered(answers)
        self.nudge()

    async def asked(self, host_id: str, packed: bytes) -> bytes:
        """The answer to a question that begins with `PREFIX`; ValueError where it is none."""
        asked = read_ask(packed)
        if isinstance(asked, HeadAsked):
            try:
                return answer_bytes(await asyncio.to_thread(self._show_head, asked.size))
            except StateError as error:
                # A ledger that has not begun, or was damaged: the agent must know all the same that we are here.
                self._counter.add("heads_not_shown")
                return answer_bytes(Noted(False, str(error)))
        return answer_bytes(await asyncio.to_thread(self._note_cosignature, host_id, asked))

    def _show_head(self, seen: int) -> HeadTold:
        at, note, size = self._head
        now = self._clock.now()
        if not note or not at <= now < at + HEAD_FOR:
            found = self._ledger.checkpoint()
            at, note, size = self._head = (now, str(found), found.size)
        proof = tuple(self._ledger.consistency(seen, size)) if 0 < seen < size else ()
        return HeadTold(note, proof, str(self._log_key))

    def _note_cosignature(self, host_id: str, said: Cosigned) -> Noted:
        try:
            key = VerifierKey.parse(said.key)
            if key.name != f"vedette/{host_id}":
                raise NoteError("the key is of another name")
            known = self._witnesses.get(host_id)
            if known is not None and known.key != said.key:
                raise NoteError("another key than before")
            self._ledger.cosigned(said.size, said.line, key)
            self._witnesses.save(host_id, Seen(said.key, said.size, self._clock.now()))
        except (NoteError, VedetteError) as error:
            self._counter.add("cosignatures_refused")
            return Noted(False, str(error))
        self._counter.add("cosignatures")
        return Noted(True)


def is_control(packed: bytes) -> bool:
    """Whether a question is one of these."""
    return packed.startswith(PREFIX)


def wanted_of(blocks: Sequence[FleetBlock], agents: Sequence[Agent]) -> dict[str, tuple[WantedBlock, ...]]:
    """What each target is told: those for every host under `all`, the others by host id."""
    found: dict[str, list[WantedBlock]] = defaultdict(list)
    for one in blocks:
        said = WantedBlock(one.id, one.target, one.owner, one.reason, one.starts_at, one.expires_at)
        if one.state is FleetBlockState.EVERYWHERE and not one.group:
            found[subjects.ALL].append(said)
            continue
        for agent in agents:
            of_group = not one.group or agent.group == one.group
            if of_group and (one.state is FleetBlockState.EVERYWHERE or agent.host_id in one.canaries):
                found[agent.host_id].append(said)
    return {target: tuple(said) for target, said in found.items()}


def _read(raw: bytes) -> dict[str, Any]:
    """Action, time and what it is about; empty where the record is none of ours. An agent may have written anything."""
    try:
        said = orjson.loads(raw)
        about: Mapping[str, Any] = said["vedette"]["fleet"]
        action = said["event"]["action"]
        if isinstance(about, dict) and isinstance(action, str):
            return {"action": action, "about": about, "at": parse_rfc3339(said["@timestamp"])}
    except (ValueError, KeyError, TypeError):
        pass
    return {}
