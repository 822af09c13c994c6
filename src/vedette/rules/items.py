"""One `field|modifier: values` of a detection to tests: pySigma reads modifiers and values, we give them our meaning.
Counterpart: `conditions` joins them; pipelines may change an item between reading it and making tests of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod
from pathlib import Path
from typing import Any as Anything

import pcre2
from sigma.conditions import ConditionAND
from sigma.exceptions import SigmaError, SigmaRuleLocation
from sigma.modifiers import (
    SigmaCaseSensitiveModifier,
    modifier_mapping,
)
from sigma.policy import SigmaPolicy
from sigma.policy.regex_engine import RegexEngine
from sigma.rule.detection import SigmaDetectionItem
from sigma.types import (
    CompareOperators,
    Placeholder,
    SigmaBool,
    SigmaCasedString,
    SigmaCIDRExpression,
    SigmaCompareExpression,
    SigmaExists,
    SigmaExpansion,
    SigmaFieldReference,
    SigmaNull,
    SigmaNumber,
    SigmaRegularExpression,
    SigmaString,
    SigmaTimestampPart,
    SigmaType,
    SpecialChars,
    sigma_type,
)

from vedette.model.errors import Location, RuleError
from vedette.model.events import Scalar
from vedette.model.rules import All, Any, DatePart, Node, Not, Op, Raw, Test
from vedette.rules.documents import Document, Yaml
from vedette.rules.likes import escape_like
from vedette.rules.problems import did_you_mean
from vedette.text.regex import compile_re2

VALUES_LIMIT = 200_000
"""Values one item may stand for, what its modifiers make of each counted."""
TEXT_LIMIT = 65_536
"""Characters of one value."""
WILDCARD_LIMIT = 256
"""Wildcards of one value."""
REGEX_LIMIT = 4_096
"""Characters of one regular expression; compiling one takes up to 25 microseconds a character."""
REGEXES_LIMIT = 65_536
"""Characters of all regular expressions of one document."""

# pySigma checks much, but not every odd shape of a value: these are what it lets through from below.
PYSIGMA_ERRORS = (
    SigmaError,
    TypeError,
    ValueError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RecursionError,
    OverflowError,
)

Placeholders = Mapping[str, Sequence[str]]
"""What stands for a `%name%`, from the settings."""
FieldSeen = Callable[[str, Location], None]
"""Told of every field a rule tests, with the place; raises RuleError for one that may not be tested."""

# The specification's own name for what pySigma calls `wide`.
_MODIFIERS = {**modifier_mapping, "utf16le": modifier_mapping["wide"]}
_TEXT_MODIFIERS = {"contains", "startswith", "endswith"}
_DATE_PARTS = {part.value for part in DatePart}
_DASH = re.compile(r"\B[-/]\b")
_MOST_DASHES = 3
_COMPARE = {
    CompareOperators.LT: Op.LT,
    CompareOperators.LTE: Op.LTE,
    CompareOperators.GT: Op.GT,
    CompareOperators.GTE: Op.GTE,
}
_WILDCARDS = {SpecialChars.WILDCARD_MULTI: "*", SpecialChars.WILDCARD_SINGLE: "?"}


class UnsupportedError(Exception):
    """A value of a kind this engine does not run."""


class PatternError(Exception):
    """A regular expression that neither library takes."""


@lru_cache(maxsize=4096)
def check_regex(pattern: str) -> bool:
    """Whether RE2 takes a pattern (else PCRE2 does); PatternError where neither does."""
    if len(pattern) > REGEX_LIMIT:
        raise PatternError(f"more than {REGEX_LIMIT} characters")
    try:
        compile_re2(pattern)
    except ValueError as refused:
        try:
            pcre2.compile(pattern)
        except (pcre2.LibraryError, pcre2.error, ValueError):
            raise PatternError(str(refused)) from None
        return False
    return True


_FLAGS = {re.IGNORECASE: "i", re.MULTILINE: "m", re.DOTALL: "s"}


class _Engine(RegexEngine):
    """What pySigma asks whether a pattern is one: the two libraries that will run it."""

    def compile(self, pattern: str, flags: int = 0) -> Anything:
        flagged = "".join(letter for flag, letter in _FLAGS.items() if flags & flag)
        check_regex(f"(?{flagged}){pattern}" if flagged else pattern)
        return None  # it only wants to know whether one is refused

    @property
    def error(self) -> type[Exception]:
        return PatternError


POLICY = SigmaPolicy(regex_engine=_Engine())


# ------------------------------------------------------------------------------------------------ reading an item


@dataclass(slots=True)
class Reader:
    """Reads the items of one document. left_open: placeholders nobody knows may stay, for a pipeline that does."""

    document: Document
    placeholders: Placeholders
    left_open: bool = False
    regexes: int = 0
    """Characters of the regular expressions read so far."""

    def item(self, path: tuple[str | int, ...], key: str | None, value: Yaml) -> SigmaDetectionItem:
        """One `field|modifier: values` (or keywords, where `key` names no field); RuleError with its place."""
        document = self.document
        name, *modifiers = (key or "").split("|")
        values: list[Yaml] = value if isinstance(value, list) else [value]
        self._check(path, name, modifiers, value, values)
        given = [_given(one, modifiers) for one in values]
        if "expand" in modifiers:
            modifiers = [modifier for modifier in modifiers if modifier != "expand"]
            places = [(*path, at) for at in range(len(given))] if isinstance(value, list) else [path]
            left = VALUES_LIMIT
            for at, place in enumerate(places):
                one = self.expanded(place, given[at], raw="re" in modifiers, most=left)
                left -= len(one.values) if isinstance(one, SigmaExpansion) else 1
                given[at] = one
        anchors: set[str] = set()
        if "re" in modifiers:
            # A search is unanchored, so that where the match stands is said by the pattern itself.
            anchors = _TEXT_MODIFIERS & set(modifiers)
            modifiers = [modifier for modifier in modifiers if modifier not in anchors]
        _check_size(document, path, modifiers, given)
        where = document.at(*path)
        try:
            item = SigmaDetectionItem(
                name or None,
                [_MODIFIERS[modifier] for modifier in modifiers],
                given,
                source=SigmaRuleLocation(Path(where.file), where.line, where.column),
                policy=POLICY,
            )
            if anchors:
                item.value = [_anchored(one, anchors) for one in item.value]
        except PYSIGMA_ERRORS as error:
            raise document.error(one_line(error), *path) from error
        return item

    def expanded(self, path: tuple[str | int, ...], value: SigmaType, *, raw: bool, most: int) -> SigmaType:
        """The value with every `%name%` replaced by each value of that list: alternatives, whatever joins the values.

        raw: the values go in as they are written, wildcards being part of a regular expression. most: alternatives
        it may stand for.
        """
        if not isinstance(value, SigmaString):
            raise self.document.error("'expand' needs text", *path, hint="put the value in quotes")
        parts = value.insert_placeholders().s
        if not any(isinstance(part, Placeholder) for part in parts):
            return value
        choices: list[list[list[str | SpecialChars | Placeholder]]] = []
        for part in parts:
            if not isinstance(part, Placeholder) or (part.name not in self.placeholders and self.left_open and not raw):
                choices.append([[part]])
            elif part.name in self.placeholders:
                texts = self.placeholders[part.name]
                choices.append([[text] if raw else list(SigmaString(text).s) for text in texts])
            else:
                hint = did_you_mean(part.name, self.placeholders)
                hint = hint or f"list its values under 'rules: placeholders: {part.name}:'"
                raise self.document.error(f"nothing is set for the placeholder %{part.name}%", *path, hint=hint)
        if prod(map(len, choices)) > most:
            raise self.document.error(f"stands for more than {VALUES_LIMIT} values", *path)
        alternatives = [_string_of([part for some in chosen for part in some]) for chosen in product(*choices)]
        return alternatives[0] if len(alternatives) == 1 else SigmaExpansion(list(alternatives))

    def _check(
        self, path: tuple[str | int, ...], name: str, modifiers: list[str], value: Yaml, values: list[Yaml]
    ) -> None:
        """What pySigma would let through or would say less well."""
        document = self.document
        for modifier in modifiers:
            if modifier not in _MODIFIERS:
                raise document.error(f"unknown modifier {modifier!r}", *path, hint=did_you_mean(modifier, _MODIFIERS))
        chosen = set(modifiers)
        if not name and chosen & _OF_FIELDS:
            raise document.error(f"{modifiers[0]!r} needs a field", *path)
        for index, one in enumerate(values):
            wrong, hint = _wrong(one, chosen, modifiers)
            if isinstance(one, str) and "re" in chosen:
                self.regexes += len(one)
                if self.regexes > REGEXES_LIMIT:
                    wrong = f"regular expressions of more than {REGEXES_LIMIT} characters in one document"
            if wrong:
                where = (*path, index) if isinstance(value, list) else path
                raise document.error(wrong, *where, hint=hint)


_OF_FIELDS = _DATE_PARTS | {"exists", "fieldref", "cidr", "lt", "lte", "gt", "gte"}


def _wrong(value: Yaml, chosen: set[str], modifiers: list[str]) -> tuple[str, str]:
    """What is wrong with one value, and a hint; two empty texts for nothing."""
    if isinstance(value, dict | list):
        return "a value is text, a number, true, false or null", ""
    if isinstance(value, str):
        if len(value) > TEXT_LIMIT:
            return f"a value of more than {TEXT_LIMIT} characters", ""
        if "re" not in chosen and value.count("*") + value.count("?") > WILDCARD_LIMIT:
            return f"a value with more than {WILDCARD_LIMIT} wildcards", ""
    elif "re" in chosen:
        return "a regular expression is text", "put it in quotes"
    elif _TEXT_MODIFIERS & chosen:
        return f"{modifiers[0]!r} needs text", "put the value in quotes"
    if _DATE_PARTS & chosen and (isinstance(value, bool) or not isinstance(value, int)):
        return "a part of a time is a whole number", ""
    return "", ""


def _string_of(parts: list[str | SpecialChars | Placeholder]) -> SigmaString:
    found = SigmaString()
    found.s = parts
    found._merge_strs()
    found.original = "".join(_WILDCARDS[part] if isinstance(part, SpecialChars) else str(part) for part in found.s)
    return found


def _given(value: Yaml, modifiers: list[str]) -> SigmaType:
    if "re" in modifiers:
        return SigmaString.from_str(str(value))
    assert not isinstance(value, dict | list)
    return sigma_type(value)


def _check_size(
    document: Document, path: tuple[str | int, ...], modifiers: list[str], values: Sequence[SigmaType]
) -> None:
    """Refuse what its modifiers would blow up, before they do."""
    each = 3 ** modifiers.count("base64offset")
    flat = [inner for value in values for inner in (value.values if isinstance(value, SigmaExpansion) else [value])]
    if "windash" not in modifiers:
        total = each * len(flat)
    else:
        dashes = (
            sum(len(_DASH.findall(part)) for part in value.s if isinstance(part, str))
            for value in flat
            if isinstance(value, SigmaString)
        )
        total = each * sum(5 ** min(count, _MOST_DASHES) for count in dashes)
    if total > VALUES_LIMIT:
        raise document.error(f"stands for more than {VALUES_LIMIT} values", *path)


def _anchored(value: SigmaType, anchors: set[str]) -> SigmaType:
    if isinstance(value, SigmaExpansion):
        return SigmaExpansion([_anchored(one, anchors) for one in value.values])
    if not isinstance(value, SigmaRegularExpression) or "contains" in anchors:
        return value
    first = "\\A" if "startswith" in anchors else ""
    last = "\\z" if "endswith" in anchors else ""
    value.regexp = SigmaString(f"{first}(?:{value.regexp}){last}", escape=False)
    value.compile()
    return value


def one_line(error: BaseException) -> str:
    """What pySigma says, in one line."""
    if isinstance(error, SigmaError):
        return " ".join(str(error.args[0] if error.args else error).split()) or "not valid Sigma"
    return f"a value Sigma does not take ({type(error).__name__})"


# ----------------------------------------------------------------------------------------------- an item as tests


@dataclass(frozen=True, slots=True)
class _Leaf:
    """One value of a detection item: what a test does with it."""

    op: Op
    value: Scalar
    cased: bool = False
    part: DatePart | None = None


def item_node(item: SigmaDetectionItem, document: Document, seen: FieldSeen) -> Node:
    """The tests an item stands for; `seen` is told of every field. RuleError with its place."""
    where = place_of(item.source, document)
    name = item.field or ""
    if name:
        seen(name, where)
    cased_reference = SigmaCaseSensitiveModifier in item.modifiers
    try:
        groups = [_leaves(name, one, cased_reference) for one in item.value]
    except UnsupportedError as error:
        raise RuleError(str(error), location=where) from error
    for group in groups:
        for leaf in group:
            if leaf.op in _REFERENCES:
                seen(str(leaf.value), where)
    every = item.value_linking is ConditionAND
    if not groups:
        if not name:
            raise RuleError("looks for nothing", location=where)
        node: Node = Test(name, Op.NULL)
    elif every and any(len(group) > 1 for group in groups):
        # What a modifier expanded one value into are alternatives, whatever joins the values.
        node = joined(All, [_linked(name, group, every=False) for group in groups])
    else:
        node = _linked(name, [leaf for group in groups for leaf in group], every=every)
    return Not(node) if item.negated else node


def place_of(source: SigmaRuleLocation | None, document: Document) -> Location:
    """The place kept with an item; the start of the document where a pipeline made it."""
    if source is None or source.line is None:
        return document.start
    return Location(document.file, source.line, source.char or 0)


def joined(kind: type[All] | type[Any], parts: Iterable[Node]) -> Node:
    """The parts under one node, or the only one itself."""
    nodes = tuple(parts)
    return nodes[0] if len(nodes) == 1 else kind(nodes)


def _linked(name: str, leaves: list[_Leaf], *, every: bool) -> Node:
    """Tests on one field, those of the same operator together."""
    kind = All if every else Any
    if not name:
        return joined(kind, [Raw(str(leaf.value), regex=leaf.op is Op.REGEX, cased=leaf.cased) for leaf in leaves])
    grouped: dict[tuple[Op, bool, DatePart | None], list[Scalar]] = {}
    for leaf in leaves:
        grouped.setdefault((leaf.op, leaf.cased, leaf.part), []).append(leaf.value)
    tests: list[Node] = []
    for (op, cased, part), values in grouped.items():
        if op is Op.NULL:
            tests.append(Test(name, op))
        else:
            tests.append(Test(name, op, tuple(values), all=every and len(values) > 1, cased=cased, part=part))
    return joined(kind, tests)


def _leaves(name: str, value: SigmaType, cased_reference: bool) -> list[_Leaf]:
    """The alternatives one pySigma value stands for."""
    if isinstance(value, SigmaExpansion):
        return [leaf for one in value.values for leaf in _leaves(name, one, cased_reference)]
    if not name:
        return [_keyword(value)]
    return [_field_value(value, cased_reference)]


def _keyword(value: SigmaType) -> _Leaf:
    if isinstance(value, SigmaString):
        parts = _parts(value)
        many = SpecialChars.WILDCARD_MULTI
        pattern = _like(parts[parts[:1] == [many] : len(parts) - (parts[-1:] == [many])])
        if not pattern:
            raise UnsupportedError("a keyword of nothing but wildcards is in every record")
        return _Leaf(Op.LIKE, pattern, isinstance(value, SigmaCasedString))
    if isinstance(value, SigmaNumber) and not isinstance(value, SigmaTimestampPart):
        return _Leaf(Op.LIKE, str(value.number))
    if isinstance(value, SigmaRegularExpression):
        return _Leaf(Op.REGEX, _regex(value))
    raise UnsupportedError(f"a keyword is text, a number or a regular expression, not {_kind(value)}")


def _field_value(value: SigmaType, cased_reference: bool) -> _Leaf:
    match value:
        case SigmaString():
            return _string(value)
        case SigmaTimestampPart():
            return _Leaf(Op.EQUALS, value.number, part=_part(value))
        case SigmaNumber():
            return _Leaf(Op.EQUALS, value.number)
        case SigmaBool():
            return _Leaf(Op.EQUALS, value.boolean)
        case SigmaNull():
            return _Leaf(Op.NULL, None)
        case SigmaExists():
            return _Leaf(Op.EXISTS, value.exists)
        case SigmaRegularExpression():
            return _Leaf(Op.REGEX, _regex(value))
        case SigmaCIDRExpression():
            return _Leaf(Op.CIDR, str(value.network))
        case SigmaCompareExpression():
            if value.op not in _COMPARE:
                raise UnsupportedError(f"comparison {value.op.name.lower()} is not supported")
            number = value.number
            part = _part(number) if isinstance(number, SigmaTimestampPart) else None
            return _Leaf(_COMPARE[value.op], number.number, part=part)
        case SigmaFieldReference():
            op = _REFERENCE[value.starts_with, value.ends_with]
            return _Leaf(op, value.field, cased_reference)
    raise UnsupportedError(f"{_kind(value)} is not supported")


_REFERENCE = {
    (False, False): Op.FIELDREF,
    (True, False): Op.FIELDREF_STARTSWITH,
    (False, True): Op.FIELDREF_ENDSWITH,
    (True, True): Op.FIELDREF_CONTAINS,
}
_REFERENCES = frozenset(_REFERENCE.values())


def _part(value: SigmaTimestampPart) -> DatePart:
    return DatePart(value.timestamp_part.name.lower())


def _kind(value: SigmaType) -> str:
    return type(value).__name__.removeprefix("Sigma").lower()


def _regex(value: SigmaRegularExpression) -> str:
    if not isinstance(value.regexp, SigmaString):  # a pipeline may have anything behind `field|re`
        raise UnsupportedError("no regular expression: it is no text")
    if value.contains_placeholder():
        raise UnsupportedError("a placeholder that nothing replaces")
    flags = "".join(sorted(value.sigma_to_re_flag[flag] for flag in value.flags))
    pattern = (f"(?{flags})" if flags else "") + str(value.regexp)
    try:
        check_regex(pattern)
    except PatternError as error:
        raise UnsupportedError(f"no regular expression: {error}") from error
    return pattern


def _parts(value: SigmaString) -> list[str | SpecialChars]:
    """The parts of a string; a run of `*` is one."""
    parts: list[str | SpecialChars] = []
    for part in value.s:
        if isinstance(part, Placeholder):
            raise UnsupportedError(f"the placeholder %{part.name}% that nothing replaces")
        if part is SpecialChars.WILDCARD_MULTI and parts and parts[-1] is part:
            continue
        parts.append(part)
    return parts


def _string(value: SigmaString) -> _Leaf:
    """A string by the cheapest operator that means the same."""
    cased = isinstance(value, SigmaCasedString)
    many = SpecialChars.WILDCARD_MULTI
    match _parts(value):
        case []:
            return _Leaf(Op.EQUALS, "", cased)
        case [str() as text]:
            return _Leaf(Op.EQUALS, text, cased)
        case [SpecialChars() as first, str() as text, SpecialChars() as last] if first is many and last is many:
            return _Leaf(Op.CONTAINS, text, cased)
        case [str() as text, SpecialChars() as last] if last is many:
            return _Leaf(Op.STARTSWITH, text, cased)
        case [SpecialChars() as first, str() as text] if first is many:
            return _Leaf(Op.ENDSWITH, text, cased)
        case parts if all(isinstance(part, str) for part in parts):
            return _Leaf(Op.EQUALS, "".join(map(str, parts)), cased)
    return _Leaf(Op.LIKE, _like(_parts(value)), cased)


def _like(parts: list[str | SpecialChars]) -> str:
    """The parts of a string in the escape rules of Op.LIKE."""
    return "".join(escape_like(part) if isinstance(part, str) else _WILDCARDS[part] for part in parts)
