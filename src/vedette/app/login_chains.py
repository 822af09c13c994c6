"""Feeds login chains with what the fleet logged, and makes findings of those that are ripe.
Counterpart: `fleet.login_chains` knows who was where; `app.up` gives this to a hub's engine and pipeline."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

import msgspec
import numpy as np

from vedette.app import own
from vedette.detections.matches import Matches
from vedette.fleet.login_chains import Chain, ChainVerdict, Login, LoginChains
from vedette.model.batch import Batch, Trust
from vedette.model.clock import SECOND
from vedette.model.findings import Evidence, Finding, finding_id
from vedette.model.levels import Level
from vedette.model.rules import LogSource, Op, Rule, Scope, Test

NOBODY = Rule(
    id="login-chains-nobody",
    name="SSH login from a host on which nobody is",
    level=Level.CRITICAL,
    scope=Scope.FLEET,
    key=("host.name", "source.ip", "user.name"),
    tags=("attack.lateral-movement", "attack.t1021.004", "attack.t1563.001"),
    advice="A process on the host it came from used a key or password while nobody was logged in there. Look at that "
    "host first, as if it were taken over. Logins that programs make are named under `rules: ssh: unattended:`.",
)
UNKNOWN = Rule(
    id="login-chains-unknown",
    name="SSH login from a host that is not fully heard",
    level=Level.LOW,
    scope=Scope.FLEET,
    key=("host.name", "source.ip"),
    tags=("attack.lateral-movement", "attack.t1021.004"),
    advice="Whether somebody was on the host it came from cannot be told, for something of its log is missing. "
    "`vedette fleet coverage` says what.",
)
PERSON = Rule(
    id="login-chains-person",
    name="SSH login from a session on another host",
    level=Level.INFORMATIONAL,
    scope=Scope.FLEET,
    key=("host.name", "source.ip", "user.name"),
)
RULES = (NOBODY, UNKNOWN, PERSON)
_OF = {ChainVerdict.NOBODY: NOBODY, ChainVerdict.UNKNOWN: UNKNOWN, ChainVerdict.PERSON: PERSON}

_ID = "vedette-login-chains-"
ADDRESSES, OPENED, CLOSED, LOGIN, ENDED = (
    "host-addresses",
    "pam-session-opened",
    "pam-session-closed",
    "ssh-login-succeeded",
    ("system-powered-off", "system-rebooted"),
)
_WANTED = ("event.action", "host.name", "process.pid", "user.name", "source.ip", "vedette.pam.service", "host.ip")
WATCHED = tuple(
    Rule(
        id=f"{_ID}{name}",
        name="What login chains are made of",
        level=Level.INFORMATIONAL,
        when=Test("event.action", Op.EQUALS, actions),
        logsource=logsource,
        # Not for alerts, it makes none: what is wanted of its records.
        key=_WANTED,
        silent=True,
    )
    for name, actions, logsource in (
        ("logins", (LOGIN,), LogSource(product="linux", service="sshd")),
        ("sessions", (OPENED, CLOSED), LogSource(product="linux")),
        ("ends", ENDED, LogSource(product="linux", service="systemd-logind")),
        ("addresses", (ADDRESSES,), LogSource(product="vedette", service="addresses")),
    )
)
"""Given to the fleet's matcher beside its rules; silent, and no rule counts them."""
PEOPLE = frozenset({"sshd", "login", "gdm-password", "lightdm", "sddm", "xrdp-sesman", "cockpit"})
"""PAM services through which a person sits at a host; cron and sudo open sessions too."""


class ChainWatch:
    """`see` for every batch of the lake, `findings` whenever time has passed; the engine's thread owns it.

    missing: host ids of which something may still come. Only what those who wrote it could not make up is believed.
    """

    def __init__(
        self, chains: LoginChains, rules: Sequence[Rule], me: own.Self, missing: Callable[[], Collection[str]]
    ) -> None:
        self.chains = chains
        self._rules = {index for index, rule in enumerate(rules) if rule.id.startswith(_ID)}
        self._me = me
        self._missing = missing
        self._looked_at = 0

    def see(self, batch: Batch, matches: Matches) -> None:
        """The records of one batch, in order."""
        found = [matches.hits[index] for index in self._rules & matches.hits.keys()]
        if not found:
            return
        for row in np.unique(np.concatenate(found)).tolist():
            if matches.trust[row] < Trust.ATTESTED or matches.ambiguous[row]:
                continue
            self._record(batch, matches, row)

    def _record(self, batch: Batch, matches: Matches, row: int) -> None:
        values = {name: column.value(row) for name in _WANTED if (column := matches.fields.get(name)) is not None}
        host_id, at = batch.origin.host_id, min(int(matches.time[row]), batch.read_at)
        action, name = values.get("event.action"), _text(values.get("host.name"))
        user, session = _text(values.get("user.name")), str(values.get("process.pid"))
        if action == ADDRESSES and batch.origin.source.startswith("addresses"):
            self.chains.has(host_id, name, _list(values.get("host.ip")), at)
        elif action == OPENED and values.get("vedette.pam.service") in PEOPLE:
            self.chains.opened(host_id, name, session, user, at)
        elif action == CLOSED and values.get("vedette.pam.service") in PEOPLE:
            self.chains.closed(host_id, session, at)
        elif action in ENDED:
            self.chains.began(host_id, at)
        elif action == LOGIN:
            record_id = batch.origin.record_id(int(matches.position[row]))
            self.chains.login(Login(host_id, name, user, _text(values.get("source.ip")), at, record_id))

    def findings(self, now: int) -> list[Finding]:
        """What is ripe; looked at once a second."""
        if 0 <= now - self._looked_at < SECOND:
            return []
        self._looked_at = now
        return [self._finding(chain, now) for chain in self.chains.ripe(now, self._missing())]

    def _finding(self, chain: Chain, now: int) -> Finding:
        login, rule = chain.login, _OF[chain.verdict]
        key = {"host.name": login.host_name, "source.ip": login.address, "user.name": login.user}
        key = {name: key[name] for name in rule.key}
        made = self._me.finding(rule, dict(key), login.at, _words(chain))
        return msgspec.structs.replace(
            made,
            id=finding_id(rule.id, made.key, login.at, login.record_id.encode(), 0),
            host_id=login.host_id,
            host_name=login.host_name,
            source_ip=login.address,
            user_name=login.user,
            records=(Evidence(login.record_id, login.at),),
            created=now,
        )


def _words(chain: Chain) -> str:
    login = chain.login
    what = f"{login.user} logged in on {login.host_name} from {chain.via_name} ({login.address})"
    if chain.verdict is ChainVerdict.NOBODY:
        return f"{what} while nobody was logged in there"
    if chain.verdict is ChainVerdict.UNKNOWN:
        return f"{what}; whether somebody was there cannot be told"
    return f"{what}, where {', '.join(chain.people)} had a session"


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _list(value: object) -> Iterable[str]:
    if isinstance(value, (list, tuple)):
        return [one for one in value if isinstance(one, str)]
    return [value] if isinstance(value, str) else []
