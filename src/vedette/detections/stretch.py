"""What one correlation run works on: matches in ingest order, and each rule's windows.
Counterpart: `correlate` keeps the rule states, `columnar` runs them, `report` words what fired."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from vedette.detections.matches import Matches
from vedette.detections.windows import Fired, KeyWindow, WindowPlan
from vedette.model.batch import Int64, Origin
from vedette.model.clock import BEGINNING
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
    """One correlation rule at work.

    seen: records counted so far, by which it is told when windows are swept. evicted: keys whose windows were
    given up while they lasted, with the time of their newest record; doubtful: there were more of them than
    are remembered, so any new key may be one.
    """

    index: int
    rule: Rule
    plan: WindowPlan
    bases: list[int]
    fields: dict[int, tuple[str, ...]]
    windows: dict[Key, KeyWindow] = field(default_factory=dict)
    changed: set[Key] = field(default_factory=set)
    evicted: dict[Key, int] = field(default_factory=dict)
    forgotten: int = BEGINNING
    doubtful: bool = False
    seen: int = 0
    swept_at: int = 0
    newest: int = 0

    @property
    def most(self) -> int:
        """How many windows there may be before it is worth while to look which of them have ended."""
        return max(1024, 2 * self.swept_at)


def group_by(rule: Rule) -> tuple[str, ...]:
    """The fields that make the key of a correlation rule."""
    return rule.correlate.group_by if rule.correlate is not None else ()


def scalar(value: Value) -> Scalar:
    """A value as part of a key; several values become one text."""
    return ", ".join(str(one) for one in value) if isinstance(value, tuple) else value
