"""Findings with one key over time, and how a person closed them.
Counterpart: `alerts` run the lifecycle, `store` keeps it, `notify` tells people of changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from vedette.model.levels import Level
from vedette.model.rules import RuleKind


class AlertState(StrEnum):
    """Where an alert stands."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


class Disposition(StrEnum):
    """What a person says it was; NONE until then, and for conditions that ended by themselves."""

    NONE = "none"
    TRUE_POSITIVE = "true-positive"
    FALSE_POSITIVE = "false-positive"
    BENIGN = "benign"


class ResolveReason(StrEnum):
    """Why an alert was resolved."""

    NONE = "none"
    OPERATOR = "operator"
    CLEARED = "cleared"
    QUIET = "quiet"
    PAGER = "pager"


class ChangeKind(StrEnum):
    """What happened to an alert; past tense."""

    OPENED = "opened"
    UPDATED = "updated"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


@dataclass(slots=True)
class Alert:
    """One alert. id: UUIDv7. key: `findings.key_text` of rule id and key fields; at most one unresolved alert a key.

    labels: what routes, silences and inhibitions match on: `rule.id`, `level`, `host.id`, `host.name` and
    the key fields, as text. count: events over all findings and continuations. finding_ids: the first 100.
    Times are microseconds, 0 = not yet.
    """

    id: str
    key: str
    rule_id: str
    rule_name: str
    level: Level
    kind: RuleKind
    labels: dict[str, str]
    state: AlertState = AlertState.OPEN
    opened_at: int = 0
    updated_at: int = 0
    last_event_at: int = 0
    acknowledged_at: int = 0
    acknowledged_by: str = ""
    resolved_at: int = 0
    resolved_by: str = ""
    resolve_reason: ResolveReason = ResolveReason.NONE
    disposition: Disposition = Disposition.NONE
    note: str = ""
    count: int = 0
    finding_count: int = 0
    finding_ids: list[str] = field(default_factory=list)
    summary: str = ""
    sample: str = ""
    advice: str = ""


@dataclass(frozen=True, slots=True)
class AlertChange:
    """An alert after a change, and which change it was."""

    alert: Alert
    kind: ChangeKind
    at: int


class MatchKind(StrEnum):
    """How a matcher compares (Alertmanager's four)."""

    EQUAL = "="
    NOT_EQUAL = "!="
    REGEX = "=~"
    NOT_REGEX = "!~"


@dataclass(frozen=True, slots=True)
class Matcher:
    """One label test; an absent label is the empty string; regexes are anchored both ends (RE2)."""

    label: str
    kind: MatchKind
    value: str


@dataclass(frozen=True, slots=True)
class Silence:
    """Mutes notifications of alerts that all `matchers` match, from starts_at until ends_at."""

    id: str
    matchers: tuple[Matcher, ...]
    starts_at: int
    ends_at: int
    created_by: str
    comment: str
    created_at: int = 0
