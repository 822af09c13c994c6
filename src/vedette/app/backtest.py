"""Runs one rule over the lake as it would have run then: whom it would have blocked, and who of them was a customer.
Counterpart: `cli.block` prints the report; `respond.policy` decides by the same guard, leases and known logins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Protocol

from vedette.app import own
from vedette.app.counters import Counters
from vedette.app.detection import matcher_of
from vedette.app.knowing import Knowing
from vedette.app.promotion import needed
from vedette.detections.correlate import Correlator
from vedette.detections.engine import Engine
from vedette.detections.matches import Matches
from vedette.model.batch import Batch
from vedette.model.clock import BEGINNING
from vedette.model.errors import VedetteError
from vedette.model.findings import Finding
from vedette.model.reasons import BlameReason, RefusalReason
from vedette.model.rules import Response, Rule, Scope
from vedette.respond.allowlist import Guard
from vedette.respond.known_logins import KnownLogins
from vedette.respond.ladder import lease_of
from vedette.respond.policy import REFUSED_BY_BLAME
from vedette.respond.settings import KnownLoginSettings
from vedette.store.lake.reader import Taken
from vedette.text.addresses import Network, parse_network

AT_ONCE = 100
LOGINS, ADDRESSES = 20, 100_000
"""Logins remembered of an address, the first and the last of them; addresses remembered."""
EVIDENCE = 10


class Stored(Protocol):
    """What is run over: the lake in ingest order."""

    def read(self, after: int, limit: int) -> list[Taken]:
        """At most `limit` batches behind sequence number `after`."""
        ...


@dataclass(frozen=True, slots=True)
class Login:
    """Somebody got in. time: microseconds."""

    time: int
    user: str
    address: str
    host_id: str


@dataclass(slots=True)
class Block:
    """One block there would have been: from, until (microseconds), on which host, and what it would have rested on.

    simulated: its records could be forged by a local user, so that it would only have been simulated. evidence: ids
    of the first records. before, after: successful logins from the target, by when it would have been blocked.
    """

    target: str
    host_id: str
    host_name: str
    at: int
    until: int
    findings: int
    count: int
    evidence: tuple[str, ...]
    offence: int
    simulated: bool
    before: list[Login] = field(default_factory=list)
    after: list[Login] = field(default_factory=list)

    @property
    def false(self) -> bool:
        """Whether somebody logged in successfully from there: then it would have hit a customer."""
        return bool(self.before or self.after)


@dataclass(slots=True)
class Report:
    """What a rule would have blocked. begin, end: `event.created` of the first and last; refused: why there was none.

    logins_cut: whether logins of more addresses were seen than are remembered.
    """

    rule_id: str
    batches: int = 0
    records: int = 0
    begin: int = 0
    end: int = 0
    findings: int = 0
    blocks: list[Block] = field(default_factory=list)
    refused: dict[RefusalReason, int] = field(default_factory=dict)
    logins: int = 0
    logins_cut: bool = False

    @property
    def false_blocks(self) -> list[Block]:
        """Those that would have hit a customer."""
        return [block for block in self.blocks if block.false]


def backtest(
    lake: Stored,
    rules: Sequence[Rule],
    rule: Rule,
    *,
    since: int,
    until: int,
    guard: Guard | None = None,
    known_logins: KnownLoginSettings | None = None,
    accept_forgeable: Callable[[str], bool] = lambda _source: False,
    hosts: frozenset[str] = frozenset(),
    progress: Callable[[Report], None] = lambda _: None,
) -> Report:
    """What `rule` would have blocked by the records read in since <= `event.created` < until, in ingest order.

    rules: those it needs and stands among. A rule of scope host is run once a host, as on its agent. VedetteError
    where the rule asks for no block.
    """
    response = rule.response
    if response is None:
        raise VedetteError(f"{rule.id} asks for no block", hint="`vedette rules list` says which rules do")
    run = _Run(rules, rule, response, guard or Guard(), known_logins or KnownLoginSettings(), accept_forgeable)
    after = 0
    while batches := lake.read(after, AT_ONCE):
        for taken in batches:
            after = taken.sequence
            if since <= taken.batch.read_at < until and (not hosts or taken.key.host_id in hosts):
                run.feed(taken.batch)
        progress(run.report)
    return run.finish()


class _Host:
    """The engine of one agent, and what it would have had in force."""

    def __init__(self, run: _Run) -> None:
        counter = Counters()
        self.known = KnownLogins(run.known_logins, run.rules)
        self.knowing = Knowing(self.known, run.matcher.rules, own.LOGIN.id, run.accept)
        correlator = Correlator(run.matcher.rules, counter=counter, accept_forgeable=run.accept)
        self.engine = Engine(run.matcher, correlator, counter, watch=self._watch)
        self.run = run
        self.high = BEGINNING
        self.blocks: dict[Network, Block] = {}

    def _watch(self, batch: Batch, matches: Matches) -> None:
        self.knowing.see(batch, matches)
        self.run.logged_in(batch, matches)
        self.high = max(self.high, matches.batch_high)


class _Run:
    def __init__(
        self,
        rules: Sequence[Rule],
        rule: Rule,
        response: Response,
        guard: Guard,
        known_logins: KnownLoginSettings,
        accept: Callable[[str], bool],
    ) -> None:
        self.rule, self.response, self.guard = rule, response, guard
        self.known_logins, self.accept = known_logins, accept
        self.rules = needed(rules, rule)
        self.matcher = matcher_of([*self.rules, own.LOGIN], counter=Counters())
        self.report = Report(rule.id)
        self._login = len(self.rules)
        self._hosts: dict[str, _Host] = {}
        self._logins: dict[str, list[Login]] = {}

    def feed(self, batch: Batch) -> None:
        """One batch, in ingest order."""
        host_id = batch.origin.host_id if self.rule.scope is Scope.HOST else ""
        host = self._hosts.get(host_id)
        if host is None:
            host = self._hosts[host_id] = _Host(self)
        self.report.batches += 1
        self.report.records += len(batch)
        self.report.begin = min(self.report.begin or batch.read_at, batch.read_at)
        self.report.end = max(self.report.end, batch.read_at)
        self._judge(host, host.engine.process(batch).findings)

    def finish(self) -> Report:
        """Windows that close by themselves are judged; logins are laid beside blocks."""
        for host in self._hosts.values():
            if host.high > BEGINNING:
                self._judge(host, host.engine.correlator.advance(host.high).findings)
        self.report.blocks.sort(key=lambda block: block.at)
        for block in self.report.blocks:
            network = parse_network(block.target)
            for login in self._from(network):
                (block.before if login.time <= block.at else block.after).append(login)
        return self.report

    def _from(self, network: Network) -> list[Login]:
        if network.prefixlen == network.max_prefixlen:
            return self._logins.get(str(network.network_address), [])
        inside = [
            login
            for address, logins in self._logins.items()
            if ip_address(address).version == network.version and ip_address(address) in network
            for login in logins
        ]
        return sorted(inside, key=lambda login: login.time)

    def logged_in(self, batch: Batch, matches: Matches) -> None:
        """Remember who got in, whatever the source: a customer is a customer."""
        hits = matches.hits.get(self._login)
        addresses, users = matches.fields.get("source.ip"), matches.fields.get("user.name")
        if hits is None or addresses is None or users is None:
            return
        for at in hits.tolist():
            address = addresses.value(at)
            if not isinstance(address, str):
                continue
            self.report.logins += 1
            logins = self._logins.get(address)
            if logins is None:
                if len(self._logins) >= ADDRESSES:
                    self.report.logins_cut = True
                    continue
                logins = self._logins[address] = []
            login = Login(int(matches.time[at]), str(users.value(at) or ""), address, batch.origin.host_id)
            if len(logins) < LOGINS:
                logins.append(login)
            else:
                logins[-1] = login

    def _judge(self, host: _Host, findings: Sequence[Finding]) -> None:
        for finding in findings:
            if finding.rule_id != self.rule.id:
                continue
            self.report.findings += 1
            reason = self._decide(host, finding)
            if reason is not None:
                self.report.refused[reason] = self.report.refused.get(reason, 0) + 1

    def _decide(self, host: _Host, finding: Finding) -> RefusalReason | None:
        """One more block, or why there would have been none."""
        simulated = finding.blame is BlameReason.SOURCE_FORGEABLE
        if finding.blame is not BlameReason.ALLOWED and not simulated:
            return REFUSED_BY_BLAME[finding.blame]
        value = finding.key.get(self.response.target)
        if value is None and self.response.target == "source.ip":
            value = finding.source_ip
        try:
            network = parse_network(str(value or ""))
        except ValueError:
            return RefusalReason.NO_TARGET
        if (refused := self.guard.refuses(network)) is not None:
            return refused
        single = network.prefixlen == network.max_prefixlen
        if single and host.known.holds_back(finding, str(network.network_address), finding.time):
            return RefusalReason.KNOWN_LOGIN
        if not single and host.known.covers(network, finding.time):
            return RefusalReason.KNOWN_LOGIN
        earlier = host.blocks.get(network)
        if earlier is not None and finding.time <= earlier.until:
            # The same offence: packets in flight make it no worse.
            earlier.findings += 1
            earlier.count += finding.count
            earlier.until = max(earlier.until, finding.time + lease_of(self.response, earlier.offence))
            return None
        offence = 1 if earlier is None else earlier.offence + 1
        made = Block(
            target=str(network.network_address) if single else str(network),
            host_id=finding.host_id,
            host_name=finding.host_name,
            at=finding.time,
            until=finding.time + lease_of(self.response, offence),
            findings=1,
            count=finding.count,
            evidence=tuple(record.record_id for record in finding.records[:EVIDENCE]),
            offence=offence,
            simulated=simulated,
        )
        host.blocks[network] = made
        self.report.blocks.append(made)
        return None
