"""One test of a rule, judged once per distinct value of a column instead of once per record.
Counterpart: `match` combines the row sets that come out of here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import re2

from vedette.model.batch import Bool
from vedette.model.errors import RuleError
from vedette.model.events import Column, Scalar, Value
from vedette.model.rules import Op, Raw, Test
from vedette.text.addresses import contains, parse_network
from vedette.text.regex import compile_re2

Judge = Callable[[Scalar], bool]

# Verdicts are remembered across batches; hostile values must not make that memory grow without end.
_MEMO_LIMIT = 65_536


def fold(text: str) -> str:
    """Text as case-insensitive tests compare it."""
    return text.lower()


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
    try:
        number = float(value)
    except ValueError:
        return None
    # float() also takes "nan", "inf" and "1_000", which no log means as numbers.
    return number if np.isfinite(number) and "_" not in value else None


def compile_regex(pattern: str) -> Callable[[str], bool]:
    """A linear-time unanchored search; ValueError with RE2's words where it is no pattern."""
    search = compile_re2(pattern).search
    return lambda text: search(text) is not None


def like_to_regex(pattern: str, *, anchored: bool = True) -> str:
    """An Op.LIKE pattern as RE2: `*` any run, `?` one character, `\\` takes the next one literally."""
    out: list[str] = []
    characters = iter(pattern)
    for character in characters:
        if character == "*":
            out.append(".*")
        elif character == "?":
            out.append(".")
        else:
            literal = next(characters, "\\") if character == "\\" else character
            out.append(re2.escape(literal))
    body = "(?s)" + "".join(out)
    return f"\\A(?:{body})\\z" if anchored else body


def _like_search(pattern: str, *, cased: bool, anchored: bool = True) -> Callable[[str], bool]:
    """The search for an Op.LIKE pattern; case is folded here, for RE2 takes other letters for the same than `fold`."""
    if cased:
        return compile_regex(like_to_regex(pattern, anchored=anchored))
    search = compile_regex(like_to_regex(fold(pattern), anchored=anchored))
    return lambda text: search(fold(text))


def like_literals(pattern: str) -> list[str]:
    """The literal runs of an Op.LIKE pattern."""
    runs, run = [], ""
    characters = iter(pattern)
    for character in characters:
        if character in "*?":
            runs.append(run)
            run = ""
        else:
            run += next(characters, "\\") if character == "\\" else character
    return [literal for literal in [*runs, run] if literal]


def _any_of(judges: Sequence[Judge]) -> Judge:
    return judges[0] if len(judges) == 1 else lambda value: any(judge(value) for judge in judges)


def _text_judge(op: Op, wanted: str, *, cased: bool) -> Judge:
    prepare: Callable[[Scalar], str] = as_text if cased else lambda value: fold(as_text(value))
    text = wanted if cased else fold(wanted)
    if op is Op.CONTAINS:
        return lambda value: text in prepare(value)
    if op is Op.STARTSWITH:
        return lambda value: prepare(value).startswith(text)
    if op is Op.ENDSWITH:
        return lambda value: prepare(value).endswith(text)
    return lambda value: prepare(value) == text


def _number_judge(op: Op, limit: Scalar) -> Judge:
    bound = as_number(limit)
    if bound is None:
        raise ValueError(f"{limit!r} is not a number")
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


def _judges(test: Test) -> list[Judge]:
    """One judge a value of the test, in order; ValueError where a value cannot be used."""
    judges: list[Judge] = []
    if test.op in (Op.EQUALS, Op.CONTAINS, Op.STARTSWITH, Op.ENDSWITH):
        if test.op is Op.EQUALS and not test.all:
            # Long lists are one set look-up.
            cased = test.cased
            wanted = frozenset(as_text(value) if cased else fold(as_text(value)) for value in test.values)
            return [lambda value: (as_text(value) if cased else fold(as_text(value))) in wanted]
        judges = [_text_judge(test.op, as_text(value), cased=test.cased) for value in test.values]
    elif test.op in (Op.LIKE, Op.REGEX):
        for value in test.values:
            pattern = as_text(value)
            # A regex says itself whether case matters; `cased` concerns plain values.
            search = compile_regex(pattern) if test.op is Op.REGEX else _like_search(pattern, cased=test.cased)
            judges.append(lambda value, search=search: search(as_text(value)))  # type: ignore[misc]
    elif test.op is Op.CIDR:
        networks = [parse_network(as_text(value)) for value in test.values]
        if test.all:
            judges = [lambda value, one=one: contains([one], as_text(value)) for one in networks]  # type: ignore[misc]
        else:
            judges = [lambda value: contains(networks, as_text(value))]
    elif test.op in (Op.LT, Op.LTE, Op.GT, Op.GTE):
        judges = [_number_judge(test.op, value) for value in test.values]
    return judges


class Predicate:
    """One compiled test. RuleError (without a place: the caller knows it) where its values cannot be used."""

    __slots__ = ("_judges", "_memo", "test")

    def __init__(self, test: Test) -> None:
        self.test = test
        self._memo: dict[str, bool] = {}
        try:
            self._judges = _judges(test)
        except ValueError as error:
            raise RuleError(f"field {test.field!r}: {error}") from None

    def holds(self, value: Value) -> bool:
        """Whether a present value satisfies the test; a tuple does when any of its values does."""
        test = self.test
        if test.op is Op.EXISTS:
            return bool(test.values[0])
        if test.op is Op.NULL:
            return value is None or value == ()
        values = value if isinstance(value, tuple) else (value,)
        # A null value equals nothing but Op.NULL; the empty string is a value.
        present = [one for one in values if one is not None]
        if test.all:
            return all(any(judge(one) for one in present) for judge in self._judges)
        judge = _any_of(self._judges) if self._judges else None
        return judge is not None and any(judge(one) for one in present)

    @property
    def absent_holds(self) -> bool:
        """Whether a record without the field satisfies the test."""
        if self.test.op is Op.EXISTS:
            return not self.test.values[0]
        return self.test.op is Op.NULL

    def verdicts(self, values: Sequence[Value]) -> Bool:
        """bool[len(values) + 1]; the last one is the verdict for absent, so code -1 finds it."""
        memo = self._memo
        if len(memo) > _MEMO_LIMIT:
            memo.clear()
        out = np.empty(len(values) + 1, dtype=np.bool_)
        for index, value in enumerate(values):
            # Only text is remembered: 1, 1.0 and True would be one dictionary key but are not one text.
            if isinstance(value, str):
                verdict = memo.get(value)
                if verdict is None:
                    verdict = memo[value] = self.holds(value)
            else:
                verdict = self.holds(value)
            out[index] = verdict
        out[-1] = self.absent_holds
        return out

    def rows(self, column: Column) -> Bool | None:
        """bool[n], or None where no record satisfies it."""
        verdicts = self.verdicts(column.values)
        if not verdicts.any():
            return None
        return verdicts[column.codes]


def fieldref_rows(left: Column, right: Column, *, cased: bool) -> Bool | None:
    """bool[n]: both fields present and equal, compared once per distinct pair; None where never."""
    both = (left.codes >= 0) & (right.codes >= 0)
    if not both.any():
        return None
    width = len(right.values)
    pairs, inverse = np.unique(
        left.codes[both].astype(np.int64) * width + right.codes[both].astype(np.int64), return_inverse=True
    )

    def texts(value: Value) -> set[str]:
        values = value if isinstance(value, tuple) else (value,)
        return {as_text(one) if cased else fold(as_text(one)) for one in values if one is not None}

    equal = np.fromiter(
        (bool(texts(left.values[pair // width]) & texts(right.values[pair % width])) for pair in pairs.tolist()),
        dtype=np.bool_,
        count=len(pairs),
    )
    out = np.zeros(len(left.codes), dtype=np.bool_)
    out[both] = equal[inverse]
    return out if out.any() else None


def raw_judge(raw: Raw) -> Callable[[str], bool]:
    """The confirming search of a keyword on one message; RuleError where it is no pattern."""
    try:
        if raw.regex:
            return compile_regex(raw.pattern)
        return _like_search(raw.pattern, cased=raw.cased, anchored=False)
    except ValueError as error:
        raise RuleError(f"keyword {raw.pattern!r}: {error}") from None
