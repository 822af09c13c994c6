"""Lines of one connection joined to failures, as fail2ban does: what one line says pends until another names who.
Counterpart: `lines` says what each line is, `gate` puts failures in the place of lines before they are counted."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from vedette.detections.lines import Groups, who_of

MOST_CONNECTIONS = 10_000
LASTS = 300_000_000
"""Microseconds for which what is known of a connection is kept: as long as fail2ban keeps it."""

_FLAGS = ("nofail", "mlfgained")


@dataclass(slots=True)
class Connection:
    """What is known of the lines with one id. seen: when its first line came. matches: failures that are to be told."""

    seen: int
    groups: Groups = field(default_factory=dict)
    users: set[str] = field(default_factory=set)
    pending: bool = False
    matches: int = 0
    quiet: int = 0
    """Lines that were no failure so far, and count as soon as one is."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Somebody failed. who: an address, a name or an id of the filter's own; None while nobody has been named.

    attempts: how many lines it stands for.
    """

    who: str | None
    groups: Groups
    users: frozenset[str]
    attempts: int


class Failures:
    """The connections of one filter. Not safe for two threads at once."""

    def __init__(self) -> None:
        self.connections: OrderedDict[str, Connection] = OrderedDict()

    def take(self, groups: Groups, now: int) -> Failure | None:
        """The failure that a matched line makes, or ends; None while it is none. now: event time, microseconds."""
        connection_id = groups.get("mlfid")
        if connection_id is None:
            if groups.get("nofail"):
                return None
            who = who_of(groups)
            return None if who is None else Failure(who, groups, frozenset(), 1)
        return self._joined(connection_id, dict(groups), now)

    def _known(self, connection_id: str, now: int) -> Connection | None:
        known = self.connections.get(connection_id)
        if known is not None and now - known.seen > LASTS:
            del self.connections[connection_id]
            return None
        return known

    def _joined(self, connection_id: str, groups: Groups, now: int) -> Failure | None:
        gained = bool(groups.get("mlfgained"))
        if gained:
            groups.setdefault("nofail", groups["mlfgained"])
        quiet = gained or bool(groups.get("nofail"))
        forgets = bool(groups.pop("mlfforget", ""))
        known = self._known(connection_id, now)
        if known is not None:
            if user := groups.get("user"):
                known.users.add(user)
            was_quiet = any(known.groups.pop(name, "") for name in _FLAGS)
            if gained:
                known.pending = False
            if not was_quiet and not known.pending:
                known.matches = 0
            known.groups.update(groups)
            if forgets:
                del self.connections[connection_id]
        else:
            known = Connection(now, groups)
            if not forgets:
                if user := groups.get("user"):
                    known.users.add(user)
                self.connections[connection_id] = known
                if len(self.connections) > MOST_CONNECTIONS:
                    self.connections.popitem(last=False)
        if known.pending or len(known.users) > 1:
            # Somebody who failed before, or who tries several names, is not excused by a line that is no failure.
            known.pending = False
            for name in _FLAGS:
                known.groups.pop(name, None)
            quiet = gained = False
        if not quiet:
            known.matches += known.quiet + (0 if gained else 1)
            known.quiet = 0
        elif not forgets:
            known.quiet += 1
        if known.groups.get("nofail"):
            return None
        who = who_of(known.groups)
        if who is None:
            known.pending = True
        return Failure(who, dict(known.groups), frozenset(known.users), known.matches)
