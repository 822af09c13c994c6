"""Findings and people's commands become decisions and refusals; pure over a transaction and a time.
Counterpart: `detections` say whom a finding may blame, the caller commits and THEN hands the outcome to enforcers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from vedette.model.clock import SECOND
from vedette.model.decisions import Decision, DecisionState, LiftReason, Refusal, Rung, Target
from vedette.model.errors import VedetteError
from vedette.model.findings import EVIDENCE_LIMIT, Finding
from vedette.model.ids import uuid7
from vedette.model.protocols import Transaction
from vedette.model.reasons import BlameReason, RefusalReason
from vedette.model.rules import Response, Rule, Scope
from vedette.respond.active import ActiveIndex, network_of, target_of, wide_of
from vedette.respond.allowlist import Entry, Guard
from vedette.respond.known_logins import KnownLogins
from vedette.respond.ladder import Fuse, FuseBlown, FuseLimit, is_canary, lease_of, rung_of
from vedette.respond.settings import RespondSettings
from vedette.text.addresses import Network, parse_network
from vedette.text.escape import shorten, terminal
from vedette.text.times import duration_text, parse_duration

REFUSED_BY_BLAME = {
    BlameReason.NO_ADDRESS: RefusalReason.NO_TARGET,
    BlameReason.AMBIGUOUS: RefusalReason.AMBIGUOUS,
    BlameReason.ATTACKER_TEXT: RefusalReason.ATTACKER_TEXT,
    BlameReason.SOURCE_FORGEABLE: RefusalReason.SOURCE_FORGEABLE,
    BlameReason.SOURCE_NETWORK: RefusalReason.SOURCE_NETWORK,
}
OPERATOR_HINTS = {
    RefusalReason.HARD_FLOOR: "own addresses, gateways, resolvers, the pager and prefixes shorter than /8 or /32 are "
    "never blocked",
    RefusalReason.ALLOWLISTED: "take it off the allowlist, or block it with an override and a short lease",
    RefusalReason.FUSE_BLOWN: "lift blocks that are not needed any more, or raise the fuse's limit on active decisions",
}

_EXAMPLES = ("192.0.2.1", "198.51.100.1", "203.0.113.1")
"""Of the networks for documentation (RFC 5737)."""


class BlockRefusedError(VedetteError):
    """A person's command that was not carried out; `reason` says why, as an enum."""

    def __init__(self, message: str, reason: RefusalReason, *, hint: str = "") -> None:
        super().__init__(message, hint=hint or OPERATOR_HINTS.get(reason, ""))
        self.reason = reason


@dataclass(slots=True)
class Outcome:
    """What was decided within one transaction. After the commit: `Enforcer.add(enforce)`, then `remove(remove)`.

    enforce: new and prolonged decisions. simulated: decisions that block nothing. refusals: saved already,
    for the counter. fuse_blown: at most one, to be told as an event of level high.
    """

    enforce: list[Decision] = field(default_factory=list)
    remove: list[Target] = field(default_factory=list)
    simulated: list[Decision] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    fuse_blown: FuseBlown | None = None


class Policy:
    """Decides. Every method writes through the transaction it is given and returns what is to be enforced.

    staged: owners of decisions that are for agents alone, and for some of them first.

    The decisions in force are read from the first transaction and then kept beside it. The caller says
    `committed(outcome)` after the commit; where it does not (the commit failed), or says `forget()`
    (another process wrote decisions), they are read again at the next call. One call per transaction.
    """

    def __init__(
        self,
        settings: RespondSettings,
        rules: Iterable[Rule],
        guard: Guard,
        host_id: str,
        known: KnownLogins | None = None,
        *,
        host_name: str = "",
    ) -> None:
        self.guard = guard
        self._host_name = host_name
        self._known = known
        self._host_id = host_id
        self._enforced = ActiveIndex()
        self._simulated = ActiveIndex()
        self._in_step = False
        self._last: Outcome | None = None
        self._latest = 0
        self.configure(settings, rules)

    def configure(self, settings: RespondSettings, rules: Iterable[Rule]) -> None:
        """Take other settings and rules from now on (reload)."""
        self._settings = settings
        rules = list(rules)
        self._responses: dict[str, Response] = {rule.id: rule.response for rule in rules if rule.response is not None}
        self._fuse = Fuse(settings.fuse)
        self._canary = is_canary(settings.canary_hosts, self._host_id, self._host_name)
        of_fleet = {rule.id for rule in rules if rule.scope is Scope.FLEET}
        self.staged = frozenset(
            f"rule:{rule_id}" for rule_id in of_fleet if rung_of(settings.rungs, rule_id) is Rung.CANARY
        )
        self._in_step = False

    def committed(self, outcome: Outcome) -> None:
        """The transaction that `outcome` came from has been committed."""
        if outcome is self._last:
            self._in_step, self._last = True, None

    def example(self, finding: Finding) -> Finding:
        """`finding` as one that goes all the way to a decision, where any can: to be tried and rolled back."""
        by_rung = sorted(
            self._responses, key=lambda rule_id: -tuple(Rung).index(rung_of(self._settings.rungs, rule_id))
        )
        free = (text for text in _EXAMPLES if self.guard.refuses(parse_network(text)) is None)
        return msgspec.structs.replace(
            finding,
            rule_id=next(iter(by_rung), finding.rule_id),
            key={"source.ip": next(free, _EXAMPLES[0])},
            blame=BlameReason.ALLOWED,
        )

    def learn(self, tx: Transaction, now: int) -> Outcome:
        """Read what is in force, so that the first decision need not wait for that; `committed` as for the others."""
        outcome = Outcome()
        self._begin(tx, now, outcome)
        return outcome

    def forget(self) -> None:
        """What is in force may have changed behind our back: read it again."""
        self._abandon()
        self._in_step = False

    def active(self, tx: Transaction, now: int) -> list[Decision]:
        """Enforced decisions with a lease left, what `Enforcer.sync` wants."""
        return [
            decision
            for decision in tx.active_decisions(now)
            if decision.state is DecisionState.ACTIVE and decision.expires_at > now
        ]

    # ------------------------------------------------------------------------------------------ findings
    def decide(
        self, findings: Sequence[Finding], tx: Transaction, now: int, alert_ids: Mapping[str, str] | None = None
    ) -> Outcome:
        """Decisions and refusals for findings that were not judged before, in order.

        alert_ids: finding id -> alert id, for the decision to name. now: microseconds.
        """
        outcome = Outcome()
        if not any(finding.rule_id in self._responses for finding in findings):
            return outcome
        self._begin(tx, now, outcome)
        self._expire(tx, now, outcome)
        for finding in findings:
            response = self._responses.get(finding.rule_id)
            if response is not None:
                alert_id = (alert_ids or {}).get(finding.id, "")
                self._judge(finding, response, alert_id, tx, now, outcome)
        if outcome.refusals:
            tx.save_refusals(outcome.refusals, now)
        return outcome

    def _judge(
        self, finding: Finding, response: Response, alert_id: str, tx: Transaction, now: int, outcome: Outcome
    ) -> None:
        text = _target_text(finding, response)

        def refuse(reason: RefusalReason) -> None:
            outcome.refusals.append(Refusal(finding.rule_id, shorten(terminal(text), 100), reason, finding.id))

        rung = self._rung(finding.rule_id)
        if finding.blame is BlameReason.SOURCE_FORGEABLE and rung is not Rung.OBSERVE:
            refuse(RefusalReason.SOURCE_FORGEABLE)
            rung = Rung.SIMULATE
        elif finding.blame is not BlameReason.ALLOWED:
            return refuse(REFUSED_BY_BLAME[finding.blame])
        try:
            network = parse_network(text)
        except ValueError:
            return refuse(RefusalReason.NO_TARGET)
        if (guarded := self.guard.refuses(network)) is not None:
            return refuse(guarded)
        owner = f"rule:{finding.rule_id}"
        if rung is Rung.OBSERVE:
            return refuse(RefusalReason.RULE_OBSERVES)
        earlier = tx.decisions_on(target_of(network))
        enforced = rung is Rung.ENFORCE
        index = self._enforced if enforced else self._simulated
        wide = wide_of(network)
        # The decision this finding would prolong, and the one that blocks its target longest already.
        ours = index.get(network) or (index.get(wide) if wide is not None else None)
        longest = index.covering(network)
        around = tx.decisions_on(target_of(wide)) if wide is not None else ()
        if any(one.finding_id == finding.id for one in (*earlier, *around)):
            # Read again (a copied or restored log): a person may have lifted that block meanwhile.
            return refuse(RefusalReason.ALREADY_ACTIVE)
        # A second finding while blocked is the same offence: packets in flight must not make it worse.
        offence = ours.offence if ours and ours.owner == owner else _offences(earlier, owner, enforced) + 1
        lease = lease_of(response, offence)
        if finding.time + lease <= now:
            return refuse(RefusalReason.RECORD_TOO_OLD)
        if self._known is not None and self._is_known(finding, network, now, self._known):
            return refuse(RefusalReason.KNOWN_LOGIN)
        if not enforced and finding.blame is BlameReason.ALLOWED:
            refuse(RefusalReason.RULE_SIMULATES)
        if longest is not None and longest.expires_at >= now + lease:
            return refuse(RefusalReason.ALREADY_ACTIVE)
        if ours is not None:
            # One decision a target: the longer lease wins.
            self._save(tx, index, replace(ours, expires_at=now + lease), outcome)
            return refuse(RefusalReason.ALREADY_ACTIVE)
        if enforced and (limit := self._fuse.check(now, len(index))) is not None:
            self._blow(limit, finding.rule_id, text, now, outcome)
            return refuse(RefusalReason.FUSE_BLOWN)
        replaced: set[Network] = set()
        spared = wide is None or self.guard.refuses(wide) is not None
        if wide is not None and not spared:
            neighbours = index.neighbours(wide)
            # Asked last, of the few that would be widened: it goes through every address that is known.
            enough = len(neighbours | {network}) >= self._settings.widen_at
            if enough and not (self._known is not None and self._known.covers(wide, now)):
                network, replaced = wide, neighbours
                offence = _offences(around, owner, enforced) + 1
                lease = max(lease, lease_of(response, offence))
        decision = Decision(
            id=uuid7(now),
            target=target_of(network),
            host_id=self._host_id,
            owner=owner,
            reason=finding.rule_id,
            starts_at=now,
            expires_at=now + lease,
            state=DecisionState.ACTIVE if enforced else DecisionState.SIMULATED,
            alert_id=alert_id,
            finding_id=finding.id,
            evidence=tuple(record.record_id for record in finding.records[:EVIDENCE_LIMIT]),
            offence=offence,
        )
        for neighbour in replaced:
            # A wider block may not end before one it takes the place of.
            decision.expires_at = max(decision.expires_at, self._end_of(index, neighbour))
        for neighbour in replaced:
            self._lift(tx, index, neighbour, owner, LiftReason.REPLACED, now, outcome)
        self._save(tx, index, decision, outcome)
        if enforced:
            self._fuse.count(now)
            self._fuse.blown = False
        return None

    def _rung(self, rule_id: str) -> Rung:
        """What a rule's rung comes to here: on the rung canary it enforces on some hosts only."""
        rung = rung_of(self._settings.rungs, rule_id)
        if rung is not Rung.CANARY:
            return rung
        return Rung.ENFORCE if self._canary or f"rule:{rule_id}" in self.staged else Rung.SIMULATE

    @staticmethod
    def _is_known(finding: Finding, network: Network, now: int, known: KnownLogins) -> bool:
        if network.prefixlen < network.max_prefixlen:
            return known.covers(network, now)
        return known.holds_back(finding, str(network.network_address), now)

    def _blow(self, limit: FuseLimit, rule_id: str, target: str, now: int, outcome: Outcome) -> None:
        if not self._fuse.blown:
            self._fuse.blown = True
            outcome.fuse_blown = FuseBlown(limit, self._fuse.allowed(limit), now, rule_id, target)

    # ------------------------------------------------------------------------------------------ time and guard
    def expire(self, tx: Transaction, now: int) -> Outcome:
        """Mark decisions whose lease has ended by `now` as EXPIRED; the kernel has let go of them by itself."""
        outcome = Outcome()
        self._begin(tx, now, outcome)
        self._expire(tx, now, outcome)
        return outcome

    def _expire(self, tx: Transaction, now: int, outcome: Outcome) -> None:
        self._simulated.ended(now)
        for decision in self._enforced.ended(now):
            tx.save_decision(replace(decision, state=DecisionState.EXPIRED, ended_at=decision.expires_at))
            outcome.remove.append(decision.target)

    def lift_guarded(self, tx: Transaction, now: int, operator: str = "") -> Outcome:
        """Lift what floor or allowlist (changed since) refuse; a person's override passes the allowlist only."""
        outcome = Outcome()
        self._begin(tx, now, outcome)
        for decision in self._enforced:
            refused = self.guard.refuses(network_of(decision.target))
            if refused is RefusalReason.HARD_FLOOR or (refused is not None and not decision.override):
                self._lift(
                    tx, self._enforced, network_of(decision.target), operator, LiftReason.ALLOWLISTED, now, outcome
                )
        return outcome

    # ------------------------------------------------------------------------------------------ people
    def allow(self, tx: Transaction, entry: Entry, operator: str, now: int) -> Outcome:
        """Put an entry on the allowlist in force and lift the blocks on it; keeping the file is the caller's."""
        self.guard.allow(entry)
        return self.lift_guarded(tx, now, f"operator:{operator}")

    def block(
        self,
        tx: Transaction,
        target: str,
        lease: int,
        reason: str,
        operator: str,
        now: int,
        *,
        override: bool = False,
        owner: str = "",
    ) -> tuple[Decision, Outcome]:
        """A person's block of an address or network for `lease` microseconds.

        BlockRefusedError: target is none, on the hard floor, or allowlisted without `override` (which wants a
        short lease); no reason; no lease. An existing block keeps its owner and takes the longer lease.
        owner: `operator:NAME` unless an import says otherwise.
        """
        try:
            network = parse_network(target)
        except ValueError as error:
            raise BlockRefusedError(str(error), RefusalReason.NO_TARGET, hint="names are never resolved") from None
        shown = target_of(network).value
        if not reason.strip() or lease <= 0:
            raise BlockRefusedError(f"a block of {shown} needs a reason and a lease", RefusalReason.NO_TARGET)
        guarded = self.guard.refuses(network)
        if guarded is RefusalReason.HARD_FLOOR:
            raise BlockRefusedError(f"{shown} is on the hard floor", guarded)
        if guarded is not None and not override:
            comment = self.guard.comment_for(network)
            raise BlockRefusedError(f"{shown} is on the allowlist{f' ({comment})' if comment else ''}", guarded)
        longest = parse_duration(self._settings.override_longest)
        if guarded is not None and lease > longest:
            raise BlockRefusedError(
                f"a block that overrides the allowlist lasts at most {duration_text(longest)}",
                guarded,
                hint="shorten it",
            )
        outcome = Outcome()
        self._begin(tx, now, outcome)
        self._expire(tx, now, outcome)
        owner = owner or f"operator:{operator}"
        current = self._enforced.get(network)
        if current is not None:
            if current.expires_at < now + lease:
                current = replace(current, expires_at=now + lease, override=current.override or guarded is not None)
                self._save(tx, self._enforced, current, outcome)
            return current, outcome
        if len(self._enforced) >= self._settings.fuse.active:
            raise BlockRefusedError(f"{len(self._enforced)} blocks are active", RefusalReason.FUSE_BLOWN)
        decision = Decision(
            id=uuid7(now),
            target=target_of(network),
            host_id=self._host_id,
            owner=owner,
            reason=reason,
            starts_at=now,
            expires_at=now + lease,
            offence=_offences(tx.decisions_on(target_of(network)), owner, True) + 1,
            override=guarded is not None,
        )
        self._save(tx, self._enforced, decision, outcome)
        return decision, outcome

    def adopt(self, tx: Transaction, decisions: Iterable[Decision], now: int) -> Outcome:
        """Take in decisions made elsewhere (an import), each with its own lease; floor and allowlist win.

        A target that is blocked already keeps its decision and takes the longer lease.
        """
        outcome = Outcome()
        self._begin(tx, now, outcome)
        self._expire(tx, now, outcome)
        for decision in decisions:
            network = network_of(decision.target)
            refused = self.guard.refuses(network)
            current = self._enforced.get(network)
            if decision.expires_at <= now:
                refused = refused or RefusalReason.RECORD_TOO_OLD
            elif current is not None:
                refused = refused or RefusalReason.ALREADY_ACTIVE
            elif len(self._enforced) >= self._settings.fuse.active:
                refused = refused or RefusalReason.FUSE_BLOWN
            if refused is None:
                self._save(tx, self._enforced, replace(decision, state=DecisionState.ACTIVE), outcome)
                continue
            if refused is RefusalReason.ALREADY_ACTIVE and current and current.expires_at < decision.expires_at:
                self._save(tx, self._enforced, replace(current, expires_at=decision.expires_at), outcome)
            outcome.refusals.append(Refusal(decision.owner, decision.target.value, refused))
        if outcome.refusals:
            tx.save_refusals(outcome.refusals, now)
        return outcome

    def unblock(self, tx: Transaction, target: str, operator: str, now: int) -> Outcome:
        """Lift the block on exactly `target`.

        BlockRefusedError where there is none; where a wider prefix is blocked, the hint names it.
        """
        try:
            network = parse_network(target)
        except ValueError as error:
            raise BlockRefusedError(str(error), RefusalReason.NO_TARGET) from None
        outcome = Outcome()
        self._begin(tx, now, outcome)
        self._expire(tx, now, outcome)
        if self._enforced.get(network) is None:
            around = self._enforced.covering(network)
            hint = f"it lies in {around.target.value}, which is blocked: lift that" if around else ""
            raise BlockRefusedError(f"{target_of(network).value} is not blocked", RefusalReason.NO_TARGET, hint=hint)
        self._lift(tx, self._enforced, network, f"operator:{operator}", LiftReason.OPERATOR, now, outcome)
        return outcome

    def unblock_all(self, tx: Transaction, operator: str, now: int) -> Outcome:
        """Lift every block."""
        outcome = Outcome()
        self._begin(tx, now, outcome)
        self._expire(tx, now, outcome)
        for decision in self._enforced:
            network = network_of(decision.target)
            self._lift(tx, self._enforced, network, f"operator:{operator}", LiftReason.OPERATOR, now, outcome)
        return outcome

    # ------------------------------------------------------------------------------------------ inside
    def _begin(self, tx: Transaction, now: int, outcome: Outcome) -> None:
        """Read what is in force unless we are in step; from here on we are ahead until `committed(outcome)`."""
        self._abandon()
        if now < self._latest - SECOND:
            self._in_step = False  # the clock was set back: what began in our future is among what is in force
        self._latest = now
        if not self._in_step:
            # Asked for time 0, so that what ended while we were down is still among them and is marked so.
            stored = [one for one in tx.active_decisions(0) if one.state is DecisionState.ACTIVE]
            self._enforced = ActiveIndex(self._from_now(one, tx, now) for one in stored)
            self._fuse.reload(one.starts_at for one in stored if one.owner.startswith("rule:"))
        self._in_step, self._last = False, outcome

    def _from_now(self, decision: Decision, tx: Transaction, now: int) -> Decision:
        """A decision made in our future lasts as long as it was meant to, and not until that future has come."""
        if decision.starts_at <= now + SECOND:
            return decision
        lease = decision.expires_at - decision.starts_at
        mended = replace(decision, starts_at=now, expires_at=now + lease)
        tx.save_decision(mended)
        return mended

    def _abandon(self) -> None:
        """The last call was never committed: nobody was told that its fuse blew, and what it simulated is not kept."""
        if self._last is not None:
            if self._last.fuse_blown is not None:
                self._fuse.blown = False
            self._simulated = ActiveIndex()
        self._last = None

    def _save(self, tx: Transaction, index: ActiveIndex, decision: Decision, outcome: Outcome) -> None:
        tx.save_decision(decision)
        index.put(decision)
        if decision.state is DecisionState.ACTIVE:
            outcome.enforce = [one for one in outcome.enforce if one.target != decision.target] + [decision]
            # Its last lease may have ended in this very call: what is added last holds.
            outcome.remove = [target for target in outcome.remove if target != decision.target]
        else:
            outcome.simulated.append(decision)

    def _end_of(self, index: ActiveIndex, network: Network) -> int:
        decision = index.get(network)
        return decision.expires_at if decision else 0

    def _lift(
        self,
        tx: Transaction,
        index: ActiveIndex,
        network: Network,
        by: str,
        why: LiftReason,
        now: int,
        outcome: Outcome,
    ) -> None:
        decision = index.drop(network)
        if decision is None:
            return
        enforced = decision.state is DecisionState.ACTIVE
        # A simulated one stays told apart, so that it never makes a real block longer.
        state = DecisionState.LIFTED if enforced else DecisionState.SIMULATED
        tx.save_decision(replace(decision, state=state, ended_at=now, ended_by=by, lift_reason=why))
        if enforced:
            outcome.enforce = [one for one in outcome.enforce if one.target != decision.target]
            outcome.remove.append(decision.target)


def _target_text(finding: Finding, response: Response) -> str:
    """What the response names, as text; "" where the finding has no such field."""
    value = finding.key.get(response.target)
    if value is None and response.target == "source.ip":
        value = finding.source_ip
    return "" if value is None or isinstance(value, bool) else str(value)


def _offences(earlier: Iterable[Decision], owner: str, enforced: bool) -> int:
    """How many of these are of `owner`; those that blocked nothing do not make a real one longer."""
    return sum(one.owner == owner and (not enforced or one.state is not DecisionState.SIMULATED) for one in earlier)
