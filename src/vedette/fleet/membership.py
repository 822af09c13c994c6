"""What goes on while a host is a member: renewal on the agent, and the broker kept to what the roll says on the hub.
Counterpart: `transport` carries the renewal; `broker` is told who is in."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import structlog

from vedette.fleet.authority import new_key, request
from vedette.fleet.enrolment import Membership
from vedette.fleet.transport import AgentTransport
from vedette.model.clock import SECOND, Clock
from vedette.model.errors import StateError, VedetteError
from vedette.model.fleet import Agent, Roll
from vedette.model.protocols import Counter

_log = structlog.get_logger(__name__)

_LONGEST_SLEEP, _SHORTEST_SLEEP = 3600.0, 60.0


async def renew(transport: AgentTransport, membership: Membership, folder: Path) -> Membership:
    """Get the next certificate and go over to it without a gap; VedetteError where that did not work, OSError by disk.

    It is kept before it is used: after a crash in between the host has the new one, and both are good.
    """
    key = new_key()
    certificate = await transport.renew(request(key, membership.host_id))
    renewed = membership.renewed(key, certificate)
    renewed.save(folder)
    await transport.link.exchange(renewed.endpoint())
    return renewed


async def keep_renewed(
    transport: AgentTransport, membership: Membership, folder: Path, *, clock: Clock, counter: Counter
) -> None:
    """Renew at two thirds of the certificate's life, and again until it works, until cancelled."""
    due = membership.certificate.renew_at
    while True:
        left = (due - clock.now()) / SECOND
        if left > 0:
            await asyncio.sleep(min(left, _LONGEST_SLEEP))
            continue
        try:
            membership = await renew(transport, membership, folder)
            due = membership.certificate.renew_at
            counter.add("certificates_renewed")
        except (VedetteError, OSError) as error:
            counter.add("certificates_not_renewed")
            _log.warning("the certificate is not renewed yet", error=str(error))
            membership = Membership.load(folder) or membership
            await asyncio.sleep(random.uniform(_SHORTEST_SLEEP, 2 * _SHORTEST_SLEEP))


class Admits(Protocol):
    """What is told who is in: `Broker` or `Cluster`."""

    async def allow(self, agents: Iterable[Agent]) -> None:
        """Let exactly these in; returns once that is in force."""
        ...


class Admission:
    """Keeps the broker to what the roll says."""

    def __init__(self, roll: Roll, broker: Admits) -> None:
        self._roll = roll
        self._broker = broker
        # What was read first is told first: else one who just joined could be shut out again.
        self._one = asyncio.Lock()

    async def admit(self) -> None:
        """Tell the broker who is in the fleet now. StateError where that cannot be read."""
        async with self._one:
            await self._broker.allow(await asyncio.to_thread(self._roll.agents))

    async def keep(self, version: Callable[[], int], interval: float = 0.2) -> None:
        """Tell it whenever another process (the command line) changed something, until cancelled.

        version: changes with every foreign change (`State.foreign_version`); asked every `interval` seconds.
        """
        known: int | None = None
        while True:
            try:
                found = await asyncio.to_thread(version)
                if found != known:
                    await self.admit()
                    known = found
            except StateError as error:
                # Who is in stays as it was; whoever writes to the state says it loudly.
                _log.warning("who is in the fleet cannot be read", error=str(error))
                await asyncio.sleep(1)
            await asyncio.sleep(interval)
