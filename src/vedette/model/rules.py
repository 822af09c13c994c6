"""The one rule every rule language is compiled into: a tree of tests, parents, and a correlation.
Counterpart: `rules` compiles into it, `detections` runs it and knows no rule language."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from vedette.model.errors import Location
from vedette.model.events import RecordKind, Scalar
from vedette.model.levels import Level
from vedette.model.linefilters import LineFilter


class Op(StrEnum):
    """What a test does with a field. Matching folds case unless the test is `cased` (regex: as written)."""

    EQUALS = "equals"
    CONTAINS = "contains"
    STARTSWITH = "startswith"
    ENDSWITH = "endswith"
    LIKE = "like"
    """`*` any run, `?` any one character, `\\` takes the next character literally; anchored both ends."""
    REGEX = "regex"
    """Unanchored search: in linear time where RE2 takes the pattern, else by PCRE2 within a match limit."""
    CIDR = "cidr"
    LT = "lt"
    LTE = "lte"
    GT = "gt"
    GTE = "gte"
    EXISTS = "exists"
    """values = (True,) or (False,): the field is present, even if null."""
    NULL = "null"
    """The field is absent, null or an empty list."""
    FIELDREF = "fieldref"
    """values name the field whose value must be equal."""
    FIELDREF_STARTSWITH = "fieldref-startswith"
    """values name the field with whose value this one begins."""
    FIELDREF_ENDSWITH = "fieldref-endswith"
    FIELDREF_CONTAINS = "fieldref-contains"


FIELDREFS = frozenset({Op.FIELDREF, Op.FIELDREF_STARTSWITH, Op.FIELDREF_ENDSWITH, Op.FIELDREF_CONTAINS})
"""The ops whose values are names of fields."""


class DatePart(StrEnum):
    """A part of a time, as a number, in UTC (Sigma's date modifiers)."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    """Of the month, from 1."""
    WEEK = "week"
    """Of the year by ISO 8601, 1 to 53."""
    MONTH = "month"
    YEAR = "year"


@dataclass(frozen=True, slots=True)
class Test:
    """A field satisfies `op` for any of `values` (for all of them where `all`).

    part: `op` (EQUALS, LT, LTE, GT or GTE) compares this part of the time that the field's value names; a value
    that names no time satisfies nothing.
    """

    __test__ = False  # not a test case, whatever its name says to pytest

    field: str
    op: Op
    values: tuple[Scalar, ...] = ()
    all: bool = False
    cased: bool = False
    part: DatePart | None = None


@dataclass(frozen=True, slots=True)
class Raw:
    """A pattern anywhere in a string value of the record (a Sigma keyword); as Op.REGEX, else as Op.LIKE unanchored."""

    pattern: str
    regex: bool = False
    cased: bool = False


@dataclass(frozen=True, slots=True)
class All:
    """Every part holds; empty = always true."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Any:
    """At least one part holds; empty = never true."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: Node


Node = All | Any | Not | Test | Raw


@dataclass(frozen=True, slots=True)
class LogSource:
    """Which records a rule looks at; an empty part looks at all of them."""

    product: str = ""
    category: str = ""
    service: str = ""

    def covers(self, kind: RecordKind) -> bool:
        """Whether records of `kind` are what a rule of this log source looks at."""
        return (
            self.product in ("", kind.product)
            and (not self.category or self.category in kind.categories)
            and (not self.service or self.service in kind.services)
        )


class RuleKind(StrEnum):
    """What its alerts are: intrusions a person closes, or conditions that end by themselves."""

    EVENT = "event"
    CONDITION = "condition"


class Scope(StrEnum):
    """Where a rule is evaluated."""

    HOST = "host"
    FLEET = "fleet"


class NotifyStep(StrEnum):
    """How far a rule's alerts may go; steps are earned, and the routes decide only up to the step."""

    STORE = "store"
    """Kept and searchable, nobody is told: where rules of other people start."""
    DIGEST = "digest"
    """Joined with others in a mail that may wait."""
    MAIL = "mail"
    PAGE = "page"
    """No limit: whatever the routes say."""

    @property
    def rank(self) -> int:
        """0 = store, 3 = page."""
        return tuple(NotifyStep).index(self)


class CorrelationKind(StrEnum):
    """What is measured over the window."""

    EVENT_COUNT = "event_count"
    """How many events, each as often as its `vedette.repeat` says."""
    VALUE_COUNT = "value_count"
    """How many distinct values (of several fields: distinct tuples)."""
    TEMPORAL = "temporal"
    """Which rules of `of` matched, in any order; compared with a number: how many of them."""
    TEMPORAL_ORDERED = "temporal_ordered"
    """Whether rules of `of` matched in that order, each step by a record of its own."""
    VALUE_SUM = "value_sum"
    VALUE_AVG = "value_avg"
    """The mean; a window without a number has none, and no comparison with it holds."""
    VALUE_PERCENTILE = "value_percentile"
    """The least value that so many percent of the values do not exceed (nearest rank)."""


class Firing(StrEnum):
    """When a correlation fires again; each dialect keeps its own."""

    SIGMA = "sigma"
    """Once when the condition becomes true; again after one timespan without a match of that key."""
    OSSEC = "ossec"
    """Each time the threshold is reached; counting then starts anew."""
    FAIL2BAN = "fail2ban"
    """Each time `maxretry` is reached; counting then starts anew."""


class Comparison(StrEnum):
    """How the count is compared."""

    GT = "gt"
    GTE = "gte"
    LT = "lt"
    LTE = "lte"
    EQ = "eq"
    NEQ = "neq"


@dataclass(frozen=True, slots=True)
class Threshold:
    """`count <comparison> value`; several of them are ANDed."""

    comparison: Comparison
    value: int | float


@dataclass(frozen=True, slots=True)
class Clause:
    """One way a temporal condition can hold: all of `needs` matched (TEMPORAL_ORDERED: in this order), none of
    `without`. Rule ids or groups, each one of `Correlate.of`."""

    needs: tuple[str, ...]
    without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Correlate:
    """Measure matches of the rules `of` per key over a closed sliding window.

    of: ids or groups of rules; of a correlation the events are its findings, with the fields of its key.
    group_by: fields that make the key. timespan: microseconds. threshold: compared with what is measured, of
    temporal kinds with the number of rules that matched. fields: what the value kinds look at, several only
    with VALUE_COUNT. percentile: 0 to 100, of VALUE_PERCENTILE. clauses: one of them must hold (temporal kinds;
    empty = all of `of`, unless there is a threshold). With `preceding` the window counts the records BEFORE the one
    that matches the rule's own `when` (OSSEC's if_matched: a success after many failures); without it the record
    that makes the condition true fires. aliases: (alias, rule id, field) for names that differ by rule.
    """

    kind: CorrelationKind
    of: tuple[str, ...]
    group_by: tuple[str, ...]
    timespan: int
    threshold: tuple[Threshold, ...] = ()
    fields: tuple[str, ...] = ()
    firing: Firing = Firing.SIGMA
    preceding: bool = False
    aliases: tuple[tuple[str, str, str], ...] = ()
    percentile: float = 50
    clauses: tuple[Clause, ...] = ()

    @property
    def field(self) -> str:
        """The first of `fields`, "" where there is none."""
        return self.fields[0] if self.fields else ""


@dataclass(frozen=True, slots=True)
class Response:
    """What a rule asks for when it may: block `target` for `lease` microseconds.

    target: the key field whose value is blocked. The lease of the n-th offence of one target is
    lease * factor**(n-1), at most `longest`.
    """

    target: str = "source.ip"
    lease: int = 3_600_000_000
    factor: int = 2
    longest: int = 604_800_000_000


@dataclass(frozen=True, slots=True)
class Precedent:
    """Records that must have come before, as a rule of a decision tree asks for them.

    At least `count` records of one host that the tree gave to rules of `of` (ids), not more than `timespan`
    (microseconds) before this one, with the same value of every field in `same` and another one of every field in
    `different` (with `told`: only where both have one). Once a rule of weight W has fired on them, they and what was
    before them count no more for rules of at most that weight.
    """

    of: tuple[str, ...]
    count: int
    timespan: int
    same: tuple[str, ...] = ()
    different: tuple[str, ...] = ()
    told: bool = False

    @property
    def fields(self) -> tuple[str, ...]:
        """What it looks at."""
        return (*self.same, *self.different)


@dataclass(frozen=True, slots=True)
class Branch:
    """A rule of a decision tree (OSSEC, Wazuh): a record belongs to one rule of the tree at most.

    Rules without parents are tried first, then the children of the one that holds, and so on down; the first
    sibling that holds wins. weight: the level in the tree's own language. passes: it is never the outcome; where no
    child wins, its siblings are asked. first: it holds only where this field has a value nobody has seen before.
    changed: only where this field has another value than on the last record that came so far. quiet: microseconds
    after a firing in which it says nothing. ignores, ignored: after a firing of a rule that `ignores` some fields, a
    rule that asks for those in `ignored` says nothing of records with the same values. decoders: the files that say
    how records get their fields.
    """

    weight: int
    passes: bool = False
    precedent: Precedent | None = None
    first: str = ""
    changed: str = ""
    quiet: int = 0
    ignores: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    decoders: tuple[str, ...] = ()

    @property
    def certain(self) -> bool:
        """Whether what it says of a record does not hang on the records before."""
        return not (self.precedent or self.first or self.changed)

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of records that it remembers."""
        own = (*filter(None, (self.first, self.changed)), *self.ignores, *self.ignored)
        return (*own, *(self.precedent.fields if self.precedent else ()))


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, whatever language it was written in (design, section 3).

    when: the condition on one record (All(()) where a correlation alone decides). parents: rule ids or
    groups one of which must have matched the record first; empty = root. order: siblings are tried highest
    first, ties by load order; stop: the first sibling that matches wins. silent: matches feed
    correlations and children but make no finding (Sigma base rules without `generate`, OSSEC level 0).
    key: fields the alert is keyed by (a correlation's is its group_by). clears: id of the condition rule
    whose alert this one's finding resolves. step: how far its alerts may go, whatever the routes say.
    lines: a filter over whole lines, whose verdict is in the field the rule tests (fail2ban). level_from: the field
    that names the level of a finding, where its record has one; else it is `level`.
    pipelines: names of the field pipelines that had something to say of it, in order. branch: of a rule in a decision
    tree, what trees have besides.
    """

    id: str
    name: str
    level: Level
    when: Node = All(())
    kind: RuleKind = RuleKind.EVENT
    scope: Scope = Scope.HOST
    logsource: LogSource = LogSource()
    parents: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    order: int = 0
    stop: bool = False
    silent: bool = False
    correlate: Correlate | None = None
    key: tuple[str, ...] = ()
    clears: str = ""
    level_from: str = ""
    response: Response | None = None
    lines: LineFilter | None = None
    branch: Branch | None = None
    step: NotifyStep = NotifyStep.PAGE
    advice: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    pipelines: tuple[str, ...] = ()
    origin: Location = field(default=Location("<made by hand>"))


def tests_of(node: Node) -> Iterator[Test | Raw]:
    """Every leaf of a condition, in order."""
    left: list[Node] = [node]
    while left:
        match left.pop():
            case All(parts) | Any(parts):
                left.extend(reversed(parts))
            case Not(part):
                left.append(part)
            case leaf:
                yield leaf
