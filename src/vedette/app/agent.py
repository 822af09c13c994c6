"""`vedette agent`: this host judged and blocked here, kept at its hub.
Counterpart: `app.hub` takes what is shipped; everything but the keeping is `app.up`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from vedette import __version__
from vedette.app import own
from vedette.app.agent_control import AgentControl
from vedette.app.bundled import Starting
from vedette.app.findings_stream import FindingsStream
from vedette.app.keeping import LAST, SPOOL, lanes, masks
from vedette.fleet.enrolment import Membership
from vedette.fleet.membership import keep_renewed
from vedette.fleet.shipper import Self, Shipper
from vedette.fleet.spool import Spool
from vedette.fleet.transport import AgentTransport
from vedette.model.batch import Batch
from vedette.model.clock import Clock
from vedette.model.errors import VedetteError
from vedette.model.protocols import Counter, Enforcer, Source
from vedette.model.rules import Rule
from vedette.model.shipping import SourceState
from vedette.sources.news import NewsSource

if TYPE_CHECKING:
    from vedette.config.settings import Settings
    from vedette.store.state import State


class AgentKeeping:
    """The shelf of an agent, and what empties it: shipping to the hub. VedetteError where it belongs to none."""

    def __init__(
        self,
        settings: Settings,
        me: own.Self,
        *,
        clock: Clock,
        counter: Counter,
        starting: Starting | None = None,
        reload: Callable[[], None] = lambda: None,
    ) -> None:
        """starting: how its settings were made; reload: has the program begin again by others."""
        self._folder = settings.data_folder()
        self._window = settings.shipping.window
        member = Membership.load(self._folder)
        if member is None:
            raise VedetteError("this host belongs to no fleet", hint="`vedette enrol https://HUB:8443 TOKEN` joins one")
        if member.host_id != me.host_id:
            raise VedetteError(
                "the membership here is of another host id", hint="`vedette enrol --again` with a new token"
            )
        self._member, self._me = member, me
        self.told: Callable[[Mapping[str, SourceState]], Mapping[str, SourceState]] = dict
        self._clock, self._counter = clock, counter
        self.shelf = Spool(
            self._folder / SPOOL,
            me.host_id,
            clock=clock,
            counter=counter,
            settings=settings.shipping.spool,
            split=lanes(settings.shipping, counter),
            mask=masks(settings.shipping, counter),
            ask=True,
        )
        self.stream: FindingsStream | None = FindingsStream(me.host_id, clock.now())
        self.nudge: Callable[[], None] = lambda: None
        self.enforces = False
        self._news = NewsSource(me.host_id, clock)
        self._control = AgentControl(
            settings,
            me,
            member,
            starting or Starting(),
            self._news,
            clock=clock,
            counter=counter,
            reload=reload,
            enforces=lambda: self.enforces,
            nudge=lambda: self.nudge(),
        )

    @property
    def bundle(self) -> int:
        """The number of the rules and policy in force."""
        return self._control.bundle

    def enforcers(self, _state: State, _rules: Sequence[Rule]) -> list[Enforcer]:
        """None of its own."""
        return []

    def heard(self, batch: Batch) -> None:
        """Nobody ships here."""

    is_hub = False
    trouble = ""

    @property
    def words(self) -> str:
        """What a person is told of it."""
        return f"ships: everything that is read, to {' '.join(self._member.urls)}"

    def sources(self, _state: State) -> list[Source]:
        """Sources of its own: what it has to say of the fleet's control."""
        return [self._news]

    async def run(self, state: State) -> None:
        """Ship, report and renew until cancelled; a hub that is away is waited for."""
        shipper: Shipper | None = None

        def confirmed(packed: bytes) -> None:
            if shipper is not None:
                shipper.confirmed(packed)

        def connected() -> None:
            if shipper is not None:
                shipper.connected()

        transport = AgentTransport(
            self._me.host_id,
            self._member.endpoint(),
            self._counter,
            on_confirm=confirmed,
            on_value=self._control.on_value,
            on_connected=connected,
        )
        me = Self(
            self._me.host_id,
            self._me.host_name,
            __version__,
            lambda: self.told(self.shelf.states()),
            lambda: self._control.bundle,
        )
        shipper = Shipper(self.shelf, transport, me, clock=self._clock, counter=self._counter, window=self._window)
        async with transport, asyncio.TaskGroup() as group:
            group.create_task(shipper.run())
            group.create_task(self._control.run(transport, state))
            group.create_task(
                keep_renewed(transport, self._member, self._folder, clock=self._clock, counter=self._counter)
            )

    def close(self) -> None:
        """Put down everything that was read; the next start ships it."""
        self._control.close()
        self.shelf.settled(LAST)
        self.shelf.close()
