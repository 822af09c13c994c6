"""What a hub controls on an agent: its bundle, blocks of the fleet; and the eye an agent keeps on its hub.
Counterpart: `app.hub_control` tells and answers; `app.agent` runs this beside what ships."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from vedette.app import own
from vedette.app.agent_blocks import AgentBlocks
from vedette.app.bundled import Starting, with_bundle
from vedette.app.hub_eye import HubEye
from vedette.fleet import subjects
from vedette.fleet.bundles import BundleError, BundleReason, Kept, Order
from vedette.fleet.control import Cosigned, HeadAsked, HeadTold, Noted, ask_bytes, read_answer
from vedette.fleet.enrolment import Membership
from vedette.fleet.link import LinkError
from vedette.fleet.transport import AgentTransport
from vedette.model.clock import SECOND, Clock
from vedette.model.errors import StateError, VedetteError
from vedette.model.fleet import LinkReason
from vedette.model.protocols import Counter
from vedette.sources.news import NewsSource
from vedette.store.ledger.notes import Checkpoint, NoteError, VerifierKey
from vedette.store.ledger.witness import RefusalToCosignError, Witness
from vedette.system.files import write_atomic
from vedette.text.times import parse_duration

if TYPE_CHECKING:
    from vedette.config.settings import Settings
    from vedette.store.state import State

log = structlog.get_logger()

TRIAL = 30.0
"""Seconds a bundle must have run until it is trusted."""
APPLY_EVERY = 30.0
"""Seconds between two looks whether what is wanted is in force: the allowlist may have changed, a lease ended."""
ASK_EVERY = 30.0
"""Seconds between two questions for the ledger's head, which tell as well that there is a hub."""
ASK_FIRST = 2.0
LOG_KEY = "witness.log"
CHECKPOINT_INCONSISTENT = "checkpoint-inconsistent"


class AgentControl:
    """Beside the shipper of one agent. reload: has the program begin again by other settings; from the loop."""

    def __init__(
        self,
        settings: Settings,
        me: own.Self,
        member: Membership,
        starting: Starting,
        news: NewsSource,
        *,
        clock: Clock,
        counter: Counter,
        reload: Callable[[], None],
        enforces: Callable[[], bool],
        nudge: Callable[[], None],
    ) -> None:
        self._own = starting.own or settings
        self._me, self._member = me, member
        self._folder = settings.data_folder()
        self._starting, self._news = starting, news
        self._clock, self._counter = clock, counter
        self._reload, self._nudge = reload, nudge
        self._kept = starting.kept or Kept(self._folder, member.host_id, member.identity.authority)
        self._values: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self._blocks = AgentBlocks(
            settings,
            member.host_id,
            member.identity.authority,
            clock=clock,
            counter=counter,
            say=self._news.say,
            enforces=enforces,
        )
        self._witness: Witness | None = None
        hub_lost = settings.shipping.hub_lost
        after = parse_duration(hub_lost.after) if hub_lost is not None else 0
        self._eye = HubEye(after, self._news.say, clock.now())
        self._ask_every = min(ASK_EVERY, max(after / SECOND / 4, 1.0)) if after else ASK_EVERY
        for number, reason, words in starting.given_up:
            self._say_bundle("bundle-returned", number, reason, words)
        starting.given_up.clear()

    @property
    def bundle(self) -> int:
        """The number in force."""
        return self._kept.number

    def on_value(self, bucket: str, _key: str, data: bytes) -> None:
        """A bucket's key has this value now; in the loop."""
        self._values.put_nowait((bucket, data))

    async def run(self, transport: AgentTransport, state: State) -> None:
        """Carry out what is told, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._take_values(state))
            group.create_task(self._keep_blocks(state))
            group.create_task(self._try_bundle())
            group.create_task(self._watch_hub(transport))

    def close(self) -> None:
        """This start ends on purpose."""
        self._kept.ended()

    # ------------------------------------------------------------------------------------------ what is told
    async def _take_values(self, state: State) -> None:
        while True:
            bucket, data = await self._values.get()
            try:
                if bucket == subjects.BUNDLES:
                    if await asyncio.to_thread(self._take_bundle, data):
                        self._reload()
                elif bucket == subjects.DECISIONS:
                    await asyncio.to_thread(self._take_blocks, data, state)
            except StateError as error:
                self._counter.add("fleet_control_failed")
                log.error("what the hub says cannot be kept", reason=str(error))

    def _take_bundle(self, signed: bytes) -> bool:
        """Whether the program has to begin again by another bundle."""
        order: Order | None = None
        try:
            order = self._kept.offered(signed)
            if order is None:
                return False
            if order.number == self._kept.number:
                self._kept.confirm(order, signed)
                return False
            # Laid out and loaded before it is taken: what does not load leaves what runs as it is.
            with_bundle(self._own, self._kept.lay_out(order), self._me.host_id)
        except BundleError as error:
            self._counter.add("bundles_refused", error.reason)
            self._say_bundle("bundle-refused", error.number, error.reason, error.words)
            return False
        except VedetteError as error:
            if order is None or isinstance(error, StateError):
                raise
            self._kept.pass_over(order)
            self._counter.add("bundles_refused", BundleReason.DOES_NOT_LOAD)
            self._say_bundle("bundle-refused", order.number, BundleReason.DOES_NOT_LOAD, str(error))
            return False
        self._kept.take(order, signed)
        words = f"returned to bundle {order.number}" if order.returns else f"takes bundle {order.number}"
        self._news.say("bundle-taken", words, {"number": order.number, "words": order.why})
        log.warning("another bundle", number=order.number, returns=order.returns, why=order.why)
        return True

    def _say_bundle(self, action: str, number: int, reason: BundleReason, words: str) -> None:
        about = {"number": number, "reason": reason.value, "words": words}
        verb = action.removeprefix("bundle-")
        self._news.say(action, f"bundle {number} {verb}: {reason.value}: {words}", about, outcome="failure")

    def _take_blocks(self, signed: bytes, state: State) -> None:
        if self._blocks.told(signed):
            self._apply(state)

    def _apply(self, state: State) -> None:
        if self._blocks.apply(state):
            self._nudge()

    async def _keep_blocks(self, state: State) -> None:
        while True:
            try:
                await asyncio.to_thread(self._apply, state)
            except VedetteError as error:
                self._counter.add("fleet_control_failed")
                log.error("blocks of the fleet cannot be looked at", reason=str(error))
            await asyncio.sleep(APPLY_EVERY)

    async def _try_bundle(self) -> None:
        await asyncio.sleep(TRIAL)
        await asyncio.to_thread(self._kept.prove)

    # ------------------------------------------------------------------------------------------ the hub
    async def _watch_hub(self, transport: AgentTransport) -> None:
        """Cosign its ledger's heads; miss it."""
        await asyncio.sleep(ASK_FIRST)
        task = asyncio.current_task()
        assert task is not None
        # A cancellation that meets an answer is lost in `wait_for` (Python 3.11); it is still counted.
        while not task.cancelling():
            answered = False
            try:
                await self._cosign(transport)
                answered = True
            except asyncio.CancelledError:
                if task.cancelling():
                    raise
                # The library gave up what was asked over a connection that was cut.
                self._counter.add("hub_unheard", LinkReason.CUT)
            except LinkError as error:
                self._counter.add("hub_unheard", error.reason)
            except (ValueError, NoteError, StateError) as error:
                answered = True
                self._counter.add("checkpoints_unread")
                log.warning("the hub's head cannot be read", reason=str(error))
            look = self._eye.answered if answered else self._eye.silent
            look(self._clock.now())
            await asyncio.sleep(self._ask_every)

    async def _cosign(self, transport: AgentTransport) -> None:
        seen = self._witness.last.size if self._witness is not None and self._witness.last is not None else 0
        told = read_answer(await transport.ask(ask_bytes(HeadAsked(seen))), HeadTold)
        if self._witness is None:
            self._witness = await asyncio.to_thread(self._open_witness, told.key)
            if self._witness.last is not None:
                # It was asked for before we knew what we had seen in an earlier run.
                told = read_answer(await transport.ask(ask_bytes(HeadAsked(self._witness.last.size))), HeadTold)
        new = Checkpoint.parse(told.checkpoint)
        witness = self._witness
        try:
            line = await asyncio.to_thread(witness.cosign, new, told.proof, self._clock.now() // SECOND)
        except RefusalToCosignError as error:
            self._counter.add("checkpoints_refused", error.verdict)
            about = {"reason": error.verdict.value, "words": str(error)}
            self._news.say(CHECKPOINT_INCONSISTENT, f"the hub's ledger: {error}", about, outcome="failure")
            log.error("THE HUB'S LEDGER DOES NOT GO ON FROM WHAT THIS HOST SAW", verdict=error.verdict.value)
            return
        answer = await transport.ask(ask_bytes(Cosigned(new.size, line, str(witness.key))))
        noted = read_answer(answer, Noted)
        self._counter.add("checkpoints_cosigned" if noted.kept else "cosignatures_refused")

    def _open_witness(self, key: str) -> Witness:
        """The log's key is believed at first sight, over the connection of this fleet, and no other ever after."""
        place = self._folder / LOG_KEY
        if place.exists():
            key = place.read_text(encoding="utf-8").strip()
        else:
            VerifierKey.parse(key)
            try:
                write_atomic(place, f"{key}\n".encode(), follow=False)
            except OSError as error:
                raise StateError(f"{place}: {error.strerror}") from None
        return Witness(self._folder, f"vedette/{self._me.host_id}", VerifierKey.parse(key))
