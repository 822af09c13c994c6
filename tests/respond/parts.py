"""What the tests of this room share: a store in memory, findings and rules with defaults.
Counterpart: conftest.py makes fixtures of it."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from vedette.model.decisions import Decision, DecisionState, Refusal, Target
from vedette.model.findings import Evidence, Finding
from vedette.model.levels import Level
from vedette.model.reasons import BlameReason
from vedette.model.rules import Response, Rule
from vedette.respond.allowlist import Guard
from vedette.respond.policy import Outcome, Policy
from vedette.respond.settings import RespondSettings

NOW = 1_764_000_000_000_000
MINUTE = 60_000_000
HOUR = 60 * MINUTE
RULE = "ssh-brute-force-address"


class MemoryStore:
    """The decisions half of a Transaction; `transaction` rolls back when its block raises."""

    def __init__(self) -> None:
        self.decisions: dict[str, Decision] = {}
        self.refusals: list[Refusal] = []
        self.reads = 0

    @contextmanager
    def transaction(self) -> Iterator[MemoryStore]:
        kept = (copy.deepcopy(self.decisions), list(self.refusals))
        try:
            yield self
        except BaseException:
            self.decisions, self.refusals = kept
            raise

    def active_decisions(self, now: int) -> Sequence[Decision]:
        self.reads += 1
        return [
            copy.copy(one)
            for one in self.decisions.values()
            if one.state is DecisionState.ACTIVE and one.expires_at > now
        ]

    def decisions_on(self, target: Target) -> Sequence[Decision]:
        return [copy.copy(one) for one in self.decisions.values() if one.target == target]

    def save_decision(self, decision: Decision) -> None:
        self.decisions[decision.id] = copy.copy(decision)

    def save_refusals(self, refusals: Sequence[Refusal], at: int) -> None:
        self.refusals.extend(refusals)

    def of(self, state: DecisionState) -> dict[str, Decision]:
        return {one.target.value: one for one in self.decisions.values() if one.state is state}

    @property
    def active(self) -> dict[str, Decision]:
        return self.of(DecisionState.ACTIVE)


_serial = itertools.count()


def finding(address: str = "198.51.100.7", *, rule: str = RULE, time: int = NOW, **changes) -> Finding:
    values = {
        "id": f"finding-{next(_serial)}",
        "rule_id": rule,
        "rule_name": rule,
        "level": Level.HIGH,
        "time": time,
        "key": {"source.ip": address},
        "host_id": "h",
        "host_name": "web01",
        "source_ip": address,
        "user_name": "",
        "count": 5,
        "records": tuple(Evidence(f"h/journal/0:{n}", time) for n in range(5)),
        "blame": BlameReason.ALLOWED,
    }
    return Finding(**{**values, **changes})


def rule(identity: str = RULE, **response) -> Rule:
    return Rule(identity, identity, Level.HIGH, response=Response(**response))


class Bench:
    """A policy over a store in memory, committed after each call."""

    def __init__(self, *, rules=(), guard: Guard | None = None, **settings) -> None:
        settings.setdefault("rungs", {RULE: "enforce"})
        self.store = MemoryStore()
        self.guard = guard or Guard()
        self.rules = list(rules) or [rule()]
        self.settings = RespondSettings(**settings)
        self.policy = Policy(self.settings, self.rules, self.guard, "h")

    def decide(self, *findings: Finding, now: int = NOW) -> Outcome:
        return self.run("decide", findings, now=now)

    def decide_and_fail(self, *findings: Finding, now: int = NOW) -> None:
        """A commit that the disk refuses."""
        try:
            with self.store.transaction() as tx:
                self.policy.decide(findings, tx, now)
                raise OSError("disk full")
        except OSError:
            return

    def restarted(self) -> Bench:
        """The same store under a policy that knows nothing yet."""
        self.policy = Policy(self.settings, self.rules, self.guard, "h")
        return self

    def run(self, verb: str, *arguments, now: int = NOW, **named):
        with self.store.transaction() as tx:
            if verb == "decide":
                done = self.policy.decide(arguments[0], tx, now)
            elif verb in ("expire", "lift_guarded"):
                done = getattr(self.policy, verb)(tx, now, *arguments)
            else:
                done = getattr(self.policy, verb)(tx, *arguments, now, **named)
        self.policy.committed(done[1] if isinstance(done, tuple) else done)
        return done
