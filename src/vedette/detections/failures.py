"""Lines of one connection joined to failures, as fail2ban does: what one line says pends until another names who.
Counterpart: `lines` says what each line is, `gate` puts failures in the place of lines before they are counted."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from vedette.detections.lines import Groups, who_of

MOST_CONNECTIONS = 10_000
_MOST_USERS = 100
LASTS = 300_000_000
"""Microseconds for which what is known of a connection is kept: as long as fail2ban keeps it."""


_RANKS = {"fid": 0, "ip4": 1, "ip6": 2, "dns": 3}
NOBODY = 9
"""The rank of a line that names nobody."""


@dataclass(slots=True)
class Connection:
    """What is known of the lines with one id.

    seen: when its first line came. who, rank: whom its lines name, best the filter's own id, then an address, then a
    name. quiet: the last line was no failure. pending: somebody failed, and nobody was named yet. matches: lines that
    make the failure; held: lines that were none and count as soon as one is. said: every group of its lines.
    """

    seen: int
    who: str | None = None
    rank: int = NOBODY
    quiet: bool = False
    pending: bool = False
    matches: int = 0
    held: int = 0
    users: set[str] | None = None
    said: Groups | None = None


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
        nofail, gained = bool(groups.get("nofail")), bool(groups.get("mlfgained"))
        if connection_id is None:
            who = who_of(groups)
            return None if nofail or who is None else Failure(who, groups, frozenset(), 1)
        name = next((name for name in _RANKS if name in groups), "")
        known = self.connections.get(connection_id)
        said = (known.said if known is not None and now - known.seen <= LASTS else None) or {}
        one = self.line(
            connection_id,
            groups.get(name),
            _RANKS.get(name, NOBODY),
            groups.get("user", ""),
            nofail,
            gained,
            bool(groups.get("mlfforget")),
            now,
        )
        said.update(groups)
        if (known := self.connections.get(connection_id)) is not None:
            known.said = said
        return None if one is None else Failure(one.who, dict(said), frozenset(one.users or ()), one.matches)

    def line(
        self,
        connection_id: str,
        who: str | None,
        rank: int,
        user: str,
        nofail: bool,
        gained: bool,
        forgets: bool,
        now: int,
    ) -> Connection | None:
        """The connection, where this line of it makes a failure; None where it makes none.

        nofail: the line is no failure; gained: somebody got in; forgets: the connection ends with it.
        """
        quiet = nofail or gained
        connections = self.connections
        known = connections.get(connection_id)
        if known is not None and now - known.seen > LASTS:
            del connections[connection_id]
            known = None
        if known is None:
            known = Connection(now, who, rank, quiet)
            if not forgets:
                if user:
                    known.users = {user}
                connections[connection_id] = known
                if len(connections) > MOST_CONNECTIONS:
                    connections.popitem(last=False)
        else:
            if user:
                if known.users is None:
                    known.users = {user}
                elif len(known.users) < _MOST_USERS:
                    known.users.add(user)
            if gained:
                known.pending = False
            if not known.quiet and not known.pending:
                known.matches = 0
            if rank <= known.rank:
                known.who, known.rank = who, rank
            known.quiet = quiet
            if forgets:
                del connections[connection_id]
        if known.pending or (known.users is not None and len(known.users) > 1):
            # Somebody who failed before, or who tries several names, is not excused by a line that is no failure.
            known.pending = known.quiet = quiet = gained = False
        if not quiet:
            known.matches += known.held + (0 if gained else 1)
            known.held = 0
        elif not forgets:
            known.held += 1
        if known.quiet:
            return None
        if known.who is None:
            known.pending = True
        return known
