"""The source `addresses`: tells which addresses this host has, at the start, when they change and once a day.
Counterpart: `app.login_chains` finds by them from which host of the fleet a login came."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from ipaddress import IPv4Address, IPv6Address

from vedette.model.clock import DAY, Clock
from vedette.model.protocols import Emit
from vedette.sources.told import Teller
from vedette.system.own_addresses import own_addresses
from vedette.text.times import rfc3339

NAME = "addresses"
DATASET = "vedette.addresses"
ACTION = "host-addresses"
LOOK_EVERY = 60.0
_MOST = 200


class AddressesSource:
    """Emits one record with all of them. Addresses nobody else can reach this host by are left out."""

    def __init__(
        self,
        *,
        host_id: str,
        host_name: str,
        clock: Clock,
        look: Callable[[], Collection[IPv4Address | IPv6Address]] = own_addresses,
        every: float = LOOK_EVERY,
    ) -> None:
        """every: seconds between two looks."""
        self.name = NAME
        self.begun = asyncio.Event()
        self._host_id, self._host_name = host_id, host_name
        self._clock = clock
        self._look = look
        self._every = every
        self._teller = Teller(host_id, NAME, clock.now())
        self._position = 0

    async def run(self, emit: Emit) -> None:
        """Look and emit until cancelled."""
        self.begun.set()
        told: list[str] = []
        told_at = 0
        while True:
            now = self._clock.now()
            found = await asyncio.to_thread(self._found)
            if found != told or not 0 <= now - told_at < DAY:
                told, told_at = found, now
                record = {
                    "message": f"{self._host_name} has {', '.join(found) or 'no address'}",
                    "@timestamp": rfc3339(now),
                    "event": {"kind": "state", "category": ["host"], "action": ACTION, "dataset": DATASET},
                    "host": {"id": self._host_id, "name": self._host_name, "ip": found},
                    "vedette": {"addresses": {"count": len(found)}},
                }
                await emit(self._teller.batch([record], self._position, "", now))
                self._position += 1
            await asyncio.sleep(self._every)

    def _found(self) -> list[str]:
        reachable = [one for one in self._look() if not (one.is_loopback or one.is_link_local or one.is_unspecified)]
        return [str(one) for one in sorted(reachable, key=lambda one: (one.version, int(one)))[:_MOST]]
