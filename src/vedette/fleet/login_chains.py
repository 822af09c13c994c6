"""Which login on one host came from a session on another, and from which: nobody logs in from where nobody is.
Counterpart: `app.login_chains` hands in what hosts logged, in the lake's order, and makes findings of what ripens."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from vedette.model.clock import DAY, HOUR, MINUTE, SECOND
from vedette.model.errors import StateError
from vedette.model.findings import key_text
from vedette.model.protocols import Counter

OWNER = "vedette-login-chains"
"""Under this name, which no rule has, its rows stand among the state of correlations; one row a host."""
VERSION = 1
SETTLE = MINUTE
"""How long after a login it is judged: what the other host logged before it may come later than the login."""
PATIENCE = HOUR
"""How long it is waited for a host of which something is missing."""
SLACK = 5 * SECOND
"""How far the clocks of two hosts may be apart."""
KNOWN_AFTER = DAY
"""How long a host must have been heard until it is believed that no session is open from before."""
_REMEMBER = PATIENCE + SETTLE
_HOSTS, _SESSIONS, _ADDRESSES, _PENDING = 20_000, 1_000, 200, 50_000
_PENDING_KEY = ""
"""In the place of a host id, of the row of those that wait."""


class ChainVerdict(StrEnum):
    """What is known of the place a login came from."""

    PERSON = "person"
    """Somebody had a session there."""
    NOBODY = "nobody"
    """The host was heard all along, and nobody had."""
    UNKNOWN = "unknown"
    """Something of that host is missing, or it was not heard for long enough."""


class ChainLoss(StrEnum):
    """Why something was not taken; nothing is claimed of a host because of it."""

    TOO_MANY_HOSTS = "too-many-hosts"
    TOO_MANY_SESSIONS = "too-many-sessions"
    TOO_MANY_LOGINS = "too-many-logins"
    ADDRESS_MOVED = "address-moved"
    """Nobody has the address any more that a login came from."""


@dataclass(frozen=True, slots=True)
class Login:
    """One ssh login. address: where from; record_id: its evidence. Time in microseconds."""

    host_id: str
    host_name: str
    user: str
    address: str
    at: int
    record_id: str


@dataclass(frozen=True, slots=True)
class Chain:
    """A login and what came of it. via_id, via_name: the host it came from. people: users with a session there."""

    login: Login
    via_id: str
    via_name: str
    verdict: ChainVerdict
    people: tuple[str, ...]


class _Session(msgspec.Struct):
    user: str
    opened: int
    closed: int = 0


class _Host(msgspec.Struct):
    name: str
    since: int
    addresses: list[str] = []
    sessions: dict[str, _Session] = {}
    closed: list[_Session] = []
    version: int = VERSION


class _Pending(msgspec.Struct):
    logins: list[tuple[str, str, str, str, int, str]]
    version: int = VERSION


class LoginChains:
    """Of a fleet; one thread owns it. unattended: `USER@HOST` whose logins no person makes, `*` for any."""

    def __init__(self, counter: Counter, unattended: Iterable[str] = ()) -> None:
        self._counter = counter
        self._unattended = frozenset(unattended)
        self._hosts: dict[str, _Host] = {}
        self._by_address: dict[str, str] = {}
        self._pending: list[Login] = []
        self._changed: set[str] = set()

    # ------------------------------------------------------------------------------------------ what happens
    def has(self, host_id: str, name: str, addresses: Iterable[str], at: int) -> None:
        """A host says which addresses are its own."""
        host = self._host(host_id, name, at)
        if host is None:
            return
        host.name = name or host.name
        host.addresses = sorted(set(addresses))[:_ADDRESSES]
        self._changed.add(host_id)
        self._index()

    def addresses(self) -> dict[str, list[str]]:
        """What each host says its own addresses are, by host id."""
        return {host_id: host.addresses for host_id, host in self._hosts.items()}

    def opened(self, host_id: str, name: str, session: str, user: str, at: int) -> None:
        """Somebody's session began."""
        host = self._host(host_id, name, at)
        if host is None:
            return
        if session in host.sessions:
            # The number is used again: the end of the one before was not seen.
            self.closed(host_id, session, at)
        if len(host.sessions) < _SESSIONS:
            host.sessions[session] = _Session(user, at)
        else:
            self._counter.add("login_chains_lost", ChainLoss.TOO_MANY_SESSIONS)
            # Who is there is not known any more, as of a host that is new.
            host.since = at
        self._changed.add(host_id)

    def closed(self, host_id: str, session: str, at: int) -> None:
        """It ended."""
        host = self._hosts.get(host_id)
        ended = host.sessions.pop(session, None) if host is not None else None
        if host is None or ended is None:
            return
        ended.closed = max(at, ended.opened)
        host.closed = [one for one in host.closed if one.closed > at - _REMEMBER][-_SESSIONS:]
        host.closed.append(ended)
        self._changed.add(host_id)

    def began(self, host_id: str, at: int) -> None:
        """The host was switched on: no session of before is left."""
        for session in list(self._hosts[host_id].sessions) if host_id in self._hosts else ():
            self.closed(host_id, session, at)

    def login(self, login: Login) -> None:
        """Somebody logged in; judged when it is ripe. From elsewhere than the fleet it is no chain."""
        via = self._by_address.get(login.address, "")
        if not via or via == login.host_id:
            return
        if len(self._pending) >= _PENDING:
            self._counter.add("login_chains_lost", ChainLoss.TOO_MANY_LOGINS)
            return
        self._pending.append(login)
        self._changed.add(_PENDING_KEY)

    # ------------------------------------------------------------------------------------------ what comes of it
    def ripe(self, now: int, missing: Collection[str]) -> list[Chain]:
        """Logins that can be judged by now. missing: hosts of which something may still come."""
        if not self._pending:
            return []
        made: list[Chain] = []
        left: list[Login] = []
        for login in self._pending:
            via = self._by_address.get(login.address, "")
            age = now - login.at
            if not via:
                self._counter.add("login_chains_lost", ChainLoss.ADDRESS_MOVED)
                continue
            if age < SETTLE or (via in missing and age < PATIENCE):
                left.append(login)
                continue
            chain = self._judge(login, via, via in missing)
            if chain is not None:
                made.append(chain)
        if len(left) != len(self._pending):
            self._changed.add(_PENDING_KEY)
        self._pending = left
        return made

    def _judge(self, login: Login, via: str, is_missing: bool) -> Chain | None:
        host = self._hosts[via]
        people = tuple(sorted(self._there(host, login.at)))
        if people:
            return Chain(login, via, host.name, ChainVerdict.PERSON, people)
        if {f"{login.user}@{host.name}", f"*@{host.name}", f"{login.user}@*"} & self._unattended:
            return None
        is_new = login.at - host.since < KNOWN_AFTER
        verdict = ChainVerdict.UNKNOWN if is_missing or is_new else ChainVerdict.NOBODY
        return Chain(login, via, host.name, verdict, ())

    @staticmethod
    def _there(host: _Host, at: int) -> set[str]:
        users = {one.user for one in host.sessions.values() if one.opened <= at + SLACK}
        return users | {one.user for one in host.closed if one.opened <= at + SLACK and one.closed >= at - SLACK}

    # ------------------------------------------------------------------------------------------ what is kept
    def changes(self) -> dict[tuple[str, str], bytes | None]:
        """What changed since it was last asked, to be stored."""
        made: dict[tuple[str, str], bytes | None] = {}
        for name in self._changed:
            row = OWNER, key_text({"host.id": name})
            if name == _PENDING_KEY:
                rows = [(o.host_id, o.host_name, o.user, o.address, o.at, o.record_id) for o in self._pending]
                made[row] = msgspec.json.encode(_Pending(rows)) if rows else None
            else:
                made[row] = msgspec.json.encode(self._hosts[name])
        self._changed.clear()
        return made

    def restore(self, stored: Iterable[tuple[str, str, bytes]]) -> None:
        """Take up what `changes` gave; StateError where it cannot be read or is of a newer version."""
        for owner, key, state in stored:
            if owner != OWNER:
                continue
            try:
                name = dict(msgspec.json.decode(key, type=list[tuple[str, str]]))["host.id"]
                if name == _PENDING_KEY:
                    pending = msgspec.json.decode(state, type=_Pending)
                    version = pending.version
                    self._pending = [Login(*row) for row in pending.logins]
                else:
                    host = msgspec.json.decode(state, type=_Host)
                    version = host.version
                    self._hosts[name] = host
            except (msgspec.MsgspecError, KeyError) as error:
                raise StateError(f"the state of login chains cannot be read: {error}") from error
            if version > VERSION:
                raise StateError("login chains were stored by a newer version", hint="install that version again")
        self._index()

    def _host(self, host_id: str, name: str, at: int) -> _Host | None:
        host = self._hosts.get(host_id)
        if host is not None:
            return host
        if len(self._hosts) >= _HOSTS:
            self._counter.add("login_chains_lost", ChainLoss.TOO_MANY_HOSTS)
            return None
        host = self._hosts[host_id] = _Host(name, at)
        self._changed.add(host_id)
        return host

    def _index(self) -> None:
        """Who claims an address first keeps it while they do: nobody can take another's place."""
        self._by_address = {}
        for host_id, host in sorted(self._hosts.items(), key=lambda item: (item[1].since, item[0])):
            for address in host.addresses:
                self._by_address.setdefault(address, host_id)
