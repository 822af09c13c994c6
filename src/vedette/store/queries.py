"""What the faces may ask of the state, as plain values that need no database library.
Counterpart: `store.state` and `testing.state` answer, `cli` and `web` ask."""

from __future__ import annotations

from dataclasses import dataclass, field

from vedette.model.alerts import AlertState
from vedette.model.decisions import DecisionState
from vedette.model.levels import Level
from vedette.model.reasons import RefusalReason


@dataclass(frozen=True, slots=True)
class AlertFilter:
    """Which alerts; every part narrows. states: empty = all. level: this one and higher. since: updated at or after."""

    states: frozenset[AlertState] = frozenset()
    level: Level = Level.INFORMATIONAL
    rule_id: str = ""
    host_id: str = ""
    since: int = 0


@dataclass(frozen=True, slots=True)
class DecisionFilter:
    """Which decisions; every part narrows. states: empty = all. since: begun at or after. value: the exact target."""

    states: frozenset[DecisionState] = frozenset()
    value: str = ""
    owner: str = ""
    since: int = 0


@dataclass(slots=True)
class DecisionStats:
    """Decisions begun since a time. addresses: unique blocked addresses (prefixes and users not counted).

    total: all decisions. active: those in force now. by_state: state -> decisions. by_owner: owner
    (`rule:ID`, `operator:NAME`, `import:...`) -> (decisions, unique targets).
    """

    total: int = 0
    addresses: int = 0
    active: int = 0
    by_state: dict[DecisionState, int] = field(default_factory=dict)
    by_owner: dict[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RefusalCount:
    """How often a rule's response made no decision for this reason."""

    rule_id: str
    reason: RefusalReason
    count: int
