"""Who is connected to a listener, and who gives way where all connections are taken: strangers cannot lock others out.
Counterpart: syslog.py, relp.py and http_server.py serve the connections; the table in docs/sources.md."""

from __future__ import annotations

import asyncio
import time
from collections import Counter as Tally
from collections.abc import Callable
from enum import StrEnum

from vedette.text.addresses import prefix

QUIET = 30.0
"""Seconds without a byte after which a connection counts as silent."""
_ROOM_AGAIN = 0.9
"""Full is said once, and once more after no more than this share was taken."""


class ConnectionEnd(StrEnum):
    """How a connection ended, or why there was none."""

    CLOSED = "closed"
    CUT_OFF = "cut-off"
    """In the middle of a record; what there was of it is one."""
    RESET = "reset"
    IDLE = "idle"
    HANDSHAKE_FAILED = "handshake-failed"
    TOO_MANY = "too-many"
    TOO_MANY_OF_ADDRESS = "too-many-of-address"
    GAVE_WAY = "gave-way"
    """All were taken, and its neighbours had the most of them."""
    BAD_FRAME = "bad-frame"
    UNREAD = "unread"
    """It does not read our answers."""
    STOPPED = "stopped"
    DEFECT = "defect"


class Connection:
    """One that was taken. It says when it waits for its peer, and when something came.

    neighbours: of whom it is one, where somebody has to give way: the IPv6 network of length 64, for whoever has one
    address of it has all; the address itself by IPv4.
    """

    __slots__ = ("_of", "address", "gave_way", "known", "neighbours", "task")

    def __init__(self, of: Connections, address: str) -> None:
        self._of = of
        self.address = address
        self.neighbours = neighbours_of(address)
        self.task: asyncio.Task[None] | None = None
        self.known = False
        self.gave_way = False

    def waits(self) -> None:
        """From now on it is for the peer to say something."""
        self._of.waiting(self)

    def heard(self) -> None:
        """Something came of the peer, and is being worked on."""
        self._of.busy(self)

    def is_known(self) -> None:
        """The peer proved who it is: it never gives way."""
        self._of.know(self)


class Connections:
    """At most `most` at once, `most_of_address` of them from one address.

    Where all are taken, a newcomer takes the place of the one that was silent longest among the connections of the
    neighbours who have most of them; not of a peer that proved who it is, nor of one whose records are being worked on.
    What was silent for less than QUIET gives way only where its neighbours stay with at least as many as the
    newcomer's: so those who talk cannot be driven out by newcomers from ever more addresses.
    """

    def __init__(self, most: int, most_of_address: int, now: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._most_of_address = most_of_address
        self._now = now
        self._all: dict[Connection, None] = {}
        self._by_address: Tally[str] = Tally()
        self._strangers: Tally[str] = Tally()
        # Of all neighbours those that wait and since when, the longest first.
        self._waiting: dict[str, dict[Connection, float]] = {}
        self._full = False

    def __len__(self) -> int:
        return len(self._all)

    def take(self, address: str) -> Connection | ConnectionEnd:
        """A place for a newcomer, or why there is none. Whoever gives way for it is cancelled."""
        if self._by_address[address] >= self._most_of_address:
            return ConnectionEnd.TOO_MANY_OF_ADDRESS
        if len(self._all) >= self._most:
            other = self._gives_way(neighbours_of(address))
            if other is None:
                return ConnectionEnd.TOO_MANY
            self.leave(other)
            other.gave_way = True
            if other.task is not None:
                other.task.cancel()
        made = Connection(self, address)
        self._all[made] = None
        self._by_address[address] += 1
        self._strangers[made.neighbours] += 1
        self.waiting(made)
        return made

    def leave(self, one: Connection) -> None:
        """It is over; said a second time it changes nothing."""
        if one not in self._all:
            return
        self.busy(one)
        del self._all[one]
        _less(self._by_address, one.address)
        if not one.known:
            _less(self._strangers, one.neighbours)
        if len(self._all) <= self._most * _ROOM_AGAIN:
            self._full = False

    def became_full(self) -> str:
        """The neighbours with the most connections, the first time all are taken; else nothing."""
        if self._full or len(self._all) < self._most:
            return ""
        self._full = True
        return Tally(one.neighbours for one in self._all).most_common(1)[0][0]

    # ------------------------------------------------------------------------------------------ of one connection

    def waiting(self, one: Connection) -> None:
        """See `Connection.waits`."""
        if one.known or one not in self._all:
            return
        of = self._waiting.setdefault(one.neighbours, {})
        of.pop(one, None)
        of[one] = self._now()

    def busy(self, one: Connection) -> None:
        """See `Connection.heard`."""
        of = self._waiting.get(one.neighbours)
        if of is not None and of.pop(one, None) is not None and not of:
            del self._waiting[one.neighbours]

    def know(self, one: Connection) -> None:
        """See `Connection.is_known`."""
        if not one.known and one in self._all:
            self.busy(one)
            one.known = True
            _less(self._strangers, one.neighbours)

    def _gives_way(self, newcomer: str) -> Connection | None:
        mine, silent_since = self._strangers[newcomer], self._now() - QUIET
        found, best = None, (False, 0, 0.0)
        for neighbours, waiting in self._waiting.items():
            count = self._strangers[neighbours]
            one, since = next(iter(waiting.items()))
            silent = since <= silent_since
            if count > mine + (not silent) and (found is None or (silent, count, -since) > best):
                found, best = one, (silent, count, -since)
        return found


def neighbours_of(address: str) -> str:
    """As `Connection.neighbours`; what is no address is by itself."""
    if ":" not in address:
        return address
    try:
        return prefix(address, 32, 64).removesuffix("/32")
    except ValueError:
        return address


def _less(of: Tally[str], key: str) -> None:
    of[key] -= 1
    if not of[key]:
        del of[key]
