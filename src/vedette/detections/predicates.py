"""What one test of a rule means, value by value: the verdicts that everything faster must not change.
Counterpart: `scan` asks once per distinct value, and only for values that a literal of the rule has proposed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from vedette.detections import patterns
from vedette.detections.comparisons import judge_part
from vedette.model.errors import RuleError
from vedette.model.events import Scalar, Value
from vedette.model.rules import Op, Raw, Test
from vedette.text.addresses import parse_network, within

_NUMBER = re.compile(r"[ \t\n\r\f\v]*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[ \t\n\r\f\v]*", re.ASCII)

TextJudge = Callable[[str], bool]

# From this many literals on one automaton is faster than asking for each.
_MANY = 24


def fold(text: str) -> str:
    """Text as case-insensitive tests compare it: Unicode's full case folding (Unicode Standard, section 3.13, D144)."""
    return text.casefold()


def as_text(value: Scalar) -> str:
    """A value as tests on text see it: `1` equals `"1"`, booleans are `true` and `false`, null is empty."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def as_number(value: Scalar) -> float | None:
    """A number or numeric string as number; None for anything else."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, (int, float)):
        return float(value)
    # float() also takes "nan", "inf", "1_000" and the digits of other scripts, which no log means as numbers.
    if not _NUMBER.fullmatch(value):
        return None
    number = float(value)
    return number if np.isfinite(number) else None


def _contains_any(texts: tuple[str, ...]) -> TextJudge:
    if len(texts) == 1:
        wanted = texts[0]
        return lambda text: wanted in text
    if len(texts) >= _MANY:
        return patterns.any_literal(texts)

    def judge(text: str) -> bool:
        for wanted in texts:  # noqa: SIM110 - any() over a generator costs several times as much
            if wanted in text:
                return True
        return False

    return judge


def _every(judges: Sequence[TextJudge]) -> TextJudge:
    if len(judges) == 1:
        return judges[0]

    def judge(text: str) -> bool:
        for holds in judges:  # noqa: SIM110 - as above
            if not holds(text):
                return False
        return True

    return judge


def _some(judges: Sequence[TextJudge]) -> TextJudge:
    if len(judges) == 1:
        return judges[0]

    def judge(text: str) -> bool:
        for holds in judges:  # noqa: SIM110 - as above
            if holds(text):
                return True
        return False

    return judge


def _plain(test: Test) -> TextJudge:
    texts = tuple(as_text(value) if test.cased else fold(as_text(value)) for value in test.values)
    if test.op is Op.CONTAINS:
        return _every([_contains_any((text,)) for text in texts]) if test.all else _contains_any(texts)
    if test.op is Op.STARTSWITH:
        return (lambda text: all(map(text.startswith, texts))) if test.all else lambda text: text.startswith(texts)
    if test.op is Op.ENDSWITH:
        return (lambda text: all(map(text.endswith, texts))) if test.all else lambda text: text.endswith(texts)
    wanted = frozenset(texts)
    if test.all:
        return lambda text: all(text == one for one in wanted)
    return wanted.__contains__


def _bound(limit: Scalar) -> float:
    bound = as_number(limit)
    if bound is None:
        raise ValueError(f"{limit!r} is not a number")
    return bound


def _number_judge(op: Op, bound: float) -> Callable[[Scalar], bool]:
    compare: dict[Op, Callable[[float], bool]] = {
        Op.LT: lambda number: number < bound,
        Op.LTE: lambda number: number <= bound,
        Op.GT: lambda number: number > bound,
        Op.GTE: lambda number: number >= bound,
    }
    holds = compare[op]

    def judge(value: Scalar) -> bool:
        number = as_number(value)
        return number is not None and holds(number)

    return judge


class Predicate:
    """One compiled test. RuleError (without a place: the caller knows it) where its values cannot be used.

    folds: `text` wants its argument folded; absent: the verdict for a record without the field.
    """

    __slots__ = ("_limited", "_parts", "_scalars", "absent", "folds", "test", "text")

    def __init__(self, test: Test) -> None:
        self.test = test
        self.folds = False
        self.absent = test.op is Op.NULL or (test.op is Op.EXISTS and not test.values[0])
        self._scalars: list[Callable[[Scalar], bool]] = []
        self._limited: list[patterns.Backtracking] = []
        self._parts: list[Predicate] = []
        self.text: TextJudge
        try:
            self._compile()
        except ValueError as error:
            raise RuleError(f"field {test.field!r}: {error}") from None

    def _compile(self) -> None:
        test = self.test
        if test.part is not None:
            self._scalars = [partial(judge_part, test.part, test.op, _bound(value)) for value in test.values]
        elif test.op in (Op.EQUALS, Op.CONTAINS, Op.STARTSWITH, Op.ENDSWITH):
            self.folds = not test.cased
            self.text = _plain(test)
        elif test.op is Op.LIKE:
            self.folds = not test.cased
            texts = [as_text(value) if test.cased else fold(as_text(value)) for value in test.values]
            judges = [patterns.linear(patterns.like_to_regex(text)) for text in texts]
            self.text = _every(judges) if test.all else _some(judges)
        elif test.op is Op.REGEX:
            # A regex says itself whether case matters; `cased` concerns plain values.
            judges = [patterns.compile_regex(as_text(value)) for value in test.values]
            self._limited = [judge for judge in judges if isinstance(judge, patterns.Backtracking)]
            self.text = _every(judges) if test.all else _some(judges)
        elif test.op is Op.CIDR:
            networks = [parse_network(as_text(value)) for value in test.values]
            self.text = _every([within([network]) for network in networks]) if test.all else within(networks)
        elif test.op in (Op.LT, Op.LTE, Op.GT, Op.GTE):
            self._scalars = [_number_judge(test.op, _bound(value)) for value in test.values]
        else:
            self.text = lambda _: test.op is Op.EXISTS and bool(test.values[0])
        if self._scalars:
            combine = all if test.all else any
            self.text = lambda text: combine(judge(text) for judge in self._scalars)

    @property
    def plainly(self) -> bool:
        """Whether several texts satisfy the test when `text` says so of one of them."""
        test = self.test
        return test.op not in (Op.NULL, Op.EXISTS) and not (test.all and len(test.values) > 1)

    @property
    def limited(self) -> bool:
        """Whether some of its values may be left undecided."""
        return bool(self._limited)

    @property
    def undecided(self) -> int:
        """How many values could not be decided within the match limit; they count as not matching."""
        return sum(judge.undecided for judge in self._limited) + sum(part.undecided for part in self._parts)

    def holds(self, value: Value) -> bool:
        """Whether a present value satisfies the test; a tuple does when any of its values does."""
        test = self.test
        if isinstance(value, str):
            return self.text(fold(value) if self.folds else value)
        if test.op is Op.EXISTS:
            return bool(test.values[0])
        if test.op is Op.NULL:
            return value is None or value == ()
        if isinstance(value, tuple):
            # A null value equals nothing but Op.NULL; the empty string is a value.
            present = [one for one in value if one is not None]
            if test.all and len(test.values) > 1:
                return all(any(map(part.holds, present)) for part in self._every_part())
            return any(map(self.holds, present))
        if value is None:
            return False
        if self._scalars:
            return (all if test.all else any)(judge(value) for judge in self._scalars)
        text = as_text(value)
        return self.text(fold(text) if self.folds else text)

    def _every_part(self) -> list[Predicate]:
        """One predicate a value of the test: with `all` each may be satisfied by another value of the record."""
        if not self._parts:
            test = self.test
            self._parts = [Predicate(replace(test, values=(value,), all=False)) for value in test.values]
        return self._parts


def compile_keyword(raw: Raw) -> TextJudge:
    """The search of a keyword in one text as it stands in the record; RuleError where it is no pattern."""
    try:
        if raw.regex:
            return patterns.compile_regex(raw.pattern)
        if not any(character in raw.pattern for character in "*?\\"):
            wanted = raw.pattern if raw.cased else fold(raw.pattern)
            return (lambda text: wanted in text) if raw.cased else lambda text: wanted in fold(text)
        if raw.cased:
            return patterns.linear(patterns.like_to_regex(raw.pattern, anchored=False))
        search = patterns.linear(patterns.like_to_regex(fold(raw.pattern), anchored=False))
    except ValueError as error:
        raise RuleError(f"keyword {raw.pattern!r}: {error}") from None
    return lambda text: search(fold(text))
