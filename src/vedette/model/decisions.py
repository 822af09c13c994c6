"""A decision: block this target until then, for this reason, from this alert.
Counterpart: `respond` decides and enforcers carry out; `store` keeps every decision ever made."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vedette.model.reasons import RefusalReason


class TargetKind(StrEnum):
    """What is blocked."""

    ADDRESS = "address"
    PREFIX = "prefix"
    USER = "user"


class Rung(StrEnum):
    """How far a response has climbed the ladder."""

    OBSERVE = "observe"
    SIMULATE = "simulate"
    CANARY = "canary"
    """Enforced on named hosts; on the others simulated, or later where the rule is of the fleet."""
    ENFORCE = "enforce"


RUNG_WORDS = {
    Rung.OBSERVE: "observes",
    Rung.SIMULATE: "simulates",
    Rung.CANARY: "enforces on canary hosts",
    Rung.ENFORCE: "enforces",
}
"""What a rule does there, in words."""


class DecisionState(StrEnum):
    """Where a decision stands."""

    ACTIVE = "active"
    SIMULATED = "simulated"
    EXPIRED = "expired"
    LIFTED = "lifted"


class LiftReason(StrEnum):
    """Why a decision ended before its lease."""

    NONE = "none"
    OPERATOR = "operator"
    ALLOWLISTED = "allowlisted"
    REPLACED = "replaced"


@dataclass(frozen=True, slots=True)
class Target:
    """What is blocked; an address or prefix in canonical text, IPv4 /32 and IPv6 /128 without the length."""

    kind: TargetKind
    value: str


@dataclass(slots=True)
class Decision:
    """One decision. id: UUIDv7. owner: `rule:ID`, `operator:NAME` or `import:denyhosts`.

    reason: rule id or a person's words. evidence: record ids, at most 100. offence: 1 for the first
    decision on this target by this owner, 2 for the second, ... starts_at/expires_at: microseconds.
    override: a person's block of an allowlisted target (never of the hard floor).
    """

    id: str
    target: Target
    host_id: str
    owner: str
    reason: str
    starts_at: int
    expires_at: int
    state: DecisionState = DecisionState.ACTIVE
    alert_id: str = ""
    finding_id: str = ""
    evidence: tuple[str, ...] = ()
    offence: int = 1
    override: bool = False
    ended_at: int = 0
    ended_by: str = ""
    lift_reason: LiftReason = LiftReason.NONE


@dataclass(frozen=True, slots=True)
class Refusal:
    """A response that made no decision, and why; counted and shown."""

    rule_id: str
    target: str
    reason: RefusalReason
    finding_id: str = ""
