"""What one correlation run works on: matches in ingest order, and each rule's windows.
Counterpart: `correlate` keeps the rule states, `columnar` runs them, `report` words what fired."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from vedette.detections.match import Matches
from vedette.detections.windows import Fired, KeyWindow, WindowPlan
from vedette.model.batch import Int64, Origin
from vedette.model.events import Scalar, Value
from vedette.model.findings import Continuation, Finding
from vedette.model.rules import Rule

Key = tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Matches in ingest order with what is needed to name their records.

    origins[code] is where a record was read; codes: int64[m] (all zero for a single batch). highs:
    per origin the highest event time in this stretch. created: `event.created`. raw: the bytes of
    matched record i.
    """

    matches: Matches
    origins: Sequence[Origin]
    codes: Int64
    highs: Sequence[int]
    created: int
    raw: Callable[[int], bytes]


@dataclass(slots=True)
class Outcome:
    """Findings in the order of the records that made them (then rule order), and what only counts on.

    skewed: matched records whose time is so far from the time of reading that windows used the latter.
    """

    findings: list[Finding] = field(default_factory=list)
    continuations: list[Continuation] = field(default_factory=list)
    skewed: int = 0


@dataclass(slots=True)
class Firing:
    """A window that fired at matched record `index`."""

    index: int
    rule: int
    key: dict[str, Scalar]
    fired: Fired


@dataclass(slots=True)
class RuleState:
    """One correlation rule at work."""

    index: int
    rule: Rule
    plan: WindowPlan
    bases: list[int]
    fields: dict[int, tuple[str, ...]]
    windows: dict[Key, KeyWindow] = field(default_factory=dict)
    changed: set[Key] = field(default_factory=set)
    evicted: set[Key] = field(default_factory=set)
    swept_at: int = 0
    newest: int = 0


def group_by(rule: Rule) -> tuple[str, ...]:
    """The fields that make the key of a correlation rule."""
    return rule.correlate.group_by if rule.correlate is not None else ()


def scalar(value: Value) -> Scalar:
    """A value as part of a key; several values become one text."""
    return ", ".join(str(one) for one in value) if isinstance(value, tuple) else value
