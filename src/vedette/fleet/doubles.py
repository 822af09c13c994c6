"""Finds one identity used from two places: two sessions of a host that go on at the same time.
Counterpart: the hub feeds it every report it hears; `sources.liveness` makes events of what it finds."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from enum import StrEnum

from vedette.model.clock import SECOND
from vedette.model.shipping import Report

QUIET_AFTER = 60 * SECOND
"""A session that said nothing for so long is over."""
_MOST_SESSIONS = 8
_ENOUGH_SIGNS = 3
"""One late report of the session before gives two: itself, and the next of the new session behind it."""


class DoubleChange(StrEnum):
    """What changed about a host."""

    DOUBLED = "doubled"
    SINGLE = "single"
    """Only one of them goes on."""


@dataclass(frozen=True, slots=True)
class Doubled:
    """A change. sessions: those that go on, the one that began first in front. at: microseconds."""

    host_id: str
    change: DoubleChange
    sessions: tuple[str, ...]
    at: int


@dataclass(slots=True)
class _Session:
    started_at: int
    sequence: int
    heard_at: int


@dataclass(slots=True)
class _Host:
    sessions: OrderedDict[str, _Session] = field(default_factory=OrderedDict)
    signs: int = 0
    last_sign: int = 0
    doubled: bool = False


class Doubles:
    """Fed with reports as they come; says once when a host is double, and once when it is not any more.

    A restart is no double: the session before says nothing more once the next one has spoken. So the signs are an
    earlier session that speaks again after a later one did, and a number heard twice in one session (a copied machine
    that runs on). Three signs make a double, a minute without one ends it. Bounded: eight sessions a host.
    """

    def __init__(self) -> None:
        self._hosts: dict[str, _Host] = {}

    def hear(self, report: Report, now: int) -> Doubled | None:
        """A report that the hub heard at `now`, microseconds."""
        host = self._hosts.setdefault(report.host_id, _Host())
        known = host.sessions.get(report.session)
        if known is None:
            known = host.sessions[report.session] = _Session(report.started_at, report.sequence, now)
            if len(host.sessions) > _MOST_SESSIONS:
                host.sessions.popitem(last=False)
        else:
            # Told in order over one connection: what does not go up comes from a second place.
            again = report.sequence <= known.sequence or report.started_at != known.started_at
            if again or next(reversed(host.sessions)) != report.session:
                host.signs += 1
                host.last_sign = now
            known.sequence = max(known.sequence, report.sequence)
            known.heard_at = now
            host.sessions.move_to_end(report.session)
        change = self._judge(report.host_id, host, now)
        if report.stopping:
            host.sessions.pop(report.session, None)
        return change

    def look(self, now: int) -> list[Doubled]:
        """What changed because somebody fell silent; call it every few seconds."""
        found = [self._judge(host_id, host, now) for host_id, host in self._hosts.items()]
        return [one for one in found if one is not None]

    def forget(self, host_id: str) -> None:
        """The host was retired or revoked."""
        self._hosts.pop(host_id, None)

    def _judge(self, host_id: str, host: _Host, now: int) -> Doubled | None:
        for name in [name for name, one in host.sessions.items() if now - one.heard_at >= QUIET_AFTER]:
            del host.sessions[name]
        if now - host.last_sign >= QUIET_AFTER:
            host.signs = 0
        if host.doubled == (host.signs >= _ENOUGH_SIGNS):
            return None
        host.doubled = not host.doubled
        change = DoubleChange.DOUBLED if host.doubled else DoubleChange.SINGLE
        going_on = sorted(host.sessions, key=lambda name: (host.sessions[name].started_at, name))
        return Doubled(host_id, change, tuple(going_on), now)
