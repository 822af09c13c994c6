"""Sigma's `detection` to a tree of tests; pySigma reads modifiers, values and conditions, we give them our meaning.
Counterpart: `sigma` calls this for each rule; `detections` runs the tree."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sigma.conditions import (
    ConditionAND,
    ConditionIdentifier,
    ConditionNOT,
    ConditionOR,
    ConditionSelector,
    SigmaCondition,
)
from sigma.exceptions import SigmaError
from sigma.modifiers import SigmaCaseSensitiveModifier, modifier_mapping
from sigma.rule.detection import EmptySigmaDetections, SigmaDetection, SigmaDetectionItem
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
)

from vedette.model.errors import Location, RuleError
from vedette.model.events import Scalar
from vedette.model.rules import All, Any, Node, Not, Op, Raw, Test
from vedette.rules.documents import Document, Yaml
from vedette.rules.problems import did_you_mean

CONDITION_LIMIT = 4096
CONDITION_DEPTH = 32

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

_DATE_PARTS = {"minute", "hour", "day", "week", "month", "year"}
_TEXT_MODIFIERS = {"contains", "startswith", "endswith"}
_COMPARE = {
    CompareOperators.LT: Op.LT,
    CompareOperators.LTE: Op.LTE,
    CompareOperators.GT: Op.GT,
    CompareOperators.GTE: Op.GTE,
}
_WILDCARDS = {SpecialChars.WILDCARD_MULTI: "*", SpecialChars.WILDCARD_SINGLE: "?"}

FieldSeen = Callable[[str, Location], None]
"""Told of every field a rule tests, with the place; raises RuleError for one that may not be tested."""


@dataclass(frozen=True, slots=True)
class _Leaf:
    """One value of a detection item: what a test does with it."""

    op: Op
    value: Scalar
    cased: bool = False


@dataclass(frozen=True, slots=True)
class Detection:
    """A compiled `detection`: the condition on a record, and the named parts it never used."""

    when: Node
    unused: tuple[str, ...]


def compile_detection(document: Document, seen: FieldSeen) -> Detection:
    """The `detection` of a document; RuleError with the place of what is wrong."""
    detection = document.data.get("detection")
    if not isinstance(detection, dict):
        raise document.error("'detection' is a mapping of names to what they look for", "detection")
    if "timeframe" in detection:
        raise document.error(
            "'timeframe' is not supported", "detection", "timeframe", hint="write a correlation of type event_count"
        )
    if "condition" not in detection:
        raise document.error("'detection' has no 'condition'", "detection")
    parts: dict[str, Node] = {}
    for name, definition in detection.items():
        if name != "condition":
            parts[name] = _definition(document, ("detection", name), definition, seen)
    if not parts:
        raise document.error("'detection' has nothing to look for besides its condition", "detection")
    conditions = detection["condition"]
    several = conditions if isinstance(conditions, list) else [conditions]
    if not several:
        raise document.error("'condition' is empty", "detection", "condition")
    used: set[str] = set()
    nodes = []
    for index, text in enumerate(several):
        path = ("detection", "condition", index) if isinstance(conditions, list) else ("detection", "condition")
        nodes.append(_condition(document, path, text, parts, used))
    when = nodes[0] if len(nodes) == 1 else Any(tuple(nodes))
    return Detection(when, tuple(name for name in parts if name not in used))


# ------------------------------------------------------------------------------------------ what is looked for


def _definition(document: Document, path: tuple[str | int, ...], definition: Yaml, seen: FieldSeen) -> Node:
    if isinstance(definition, dict):
        if not definition:
            raise document.error("looks for nothing", *path)
        return _joined(All, [_item(document, (*path, key), key, value, seen) for key, value in definition.items()])
    if isinstance(definition, list):
        if not definition:
            raise document.error("looks for nothing", *path)
        if not any(isinstance(element, dict | list) for element in definition):
            return _item(document, path, None, definition, seen)
        return _joined(Any, [_definition(document, (*path, i), element, seen) for i, element in enumerate(definition)])
    return _item(document, path, None, definition, seen)


def _joined(kind: type[All] | type[Any], parts: Iterable[Node]) -> Node:
    nodes = tuple(parts)
    return nodes[0] if len(nodes) == 1 else kind(nodes)


def _item(document: Document, path: tuple[str | int, ...], key: str | None, value: Yaml, seen: FieldSeen) -> Node:
    """One `field|modifier: values` (or keywords, where `key` names no field)."""
    name, *modifiers = (key or "").split("|")
    for modifier in modifiers:
        if modifier in _DATE_PARTS:
            raise document.error(f"modifier {modifier!r} is not supported yet", *path)
        if modifier not in modifier_mapping:
            hint = did_you_mean(modifier, modifier_mapping)
            raise document.error(f"unknown modifier {modifier!r}", *path, hint=hint)
    values = value if isinstance(value, list) else [value]
    for index, one in enumerate(values):
        where = (*path, index) if isinstance(value, list) else path
        if isinstance(one, dict | list):
            raise document.error("a value is text, a number, true, false or null", *where)
        if "re" in modifiers and not isinstance(one, str):
            raise document.error("a regular expression is text", *where, hint="put it in quotes")
        if _TEXT_MODIFIERS & set(modifiers) and not isinstance(one, str):
            raise document.error(f"{modifiers[0]!r} needs text", *where, hint="put the value in quotes")
    if name:
        seen(name, document.at(*path))
    try:
        item = SigmaDetectionItem.from_mapping(key, values)  # type: ignore[arg-type]
    except PYSIGMA_ERRORS as error:
        raise document.error(one_line(error), *path) from error
    cased_reference = SigmaCaseSensitiveModifier in item.modifiers
    try:
        groups = [_leaves(name, one, cased_reference) for one in item.value]
    except UnsupportedError as error:
        raise document.error(str(error), *path) from error
    every = item.value_linking is ConditionAND
    if not groups:
        if not name:
            raise document.error("looks for nothing", *path)
        node: Node = Test(name, Op.NULL)
    elif every and any(len(group) > 1 for group in groups):
        # What a modifier expanded one value into are alternatives, whatever joins the values.
        node = _joined(All, [_linked(name, group, every=False) for group in groups])
    else:
        node = _linked(name, [leaf for group in groups for leaf in group], every=every)
    return Not(node) if item.negated else node


class UnsupportedError(Exception):
    """A value of a kind this engine does not run."""


def _linked(name: str, leaves: list[_Leaf], *, every: bool) -> Node:
    """Tests on one field, those of the same operator together."""
    kind = All if every else Any
    if not name:
        return _joined(kind, [Raw(str(leaf.value), regex=leaf.op is Op.REGEX, cased=leaf.cased) for leaf in leaves])
    grouped: dict[tuple[Op, bool], list[Scalar]] = {}
    for leaf in leaves:
        grouped.setdefault((leaf.op, leaf.cased), []).append(leaf.value)
    tests: list[Node] = []
    for (op, cased), values in grouped.items():
        if op is Op.NULL:
            tests.append(Test(name, op))
        elif every:
            tests.append(Test(name, op, tuple(values), all=len(values) > 1, cased=cased))
        else:
            tests.append(Test(name, op, tuple(values), cased=cased))
    return _joined(kind, tests)


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
    if isinstance(value, SigmaTimestampPart):
        raise UnsupportedError("date parts are not supported yet")
    if isinstance(value, SigmaNumber):
        return _Leaf(Op.LIKE, str(value.number))
    if isinstance(value, SigmaRegularExpression):
        return _Leaf(Op.REGEX, _regex(value))
    raise UnsupportedError(f"a keyword is text, a number or a regular expression, not {_kind(value)}")


def _field_value(value: SigmaType, cased_reference: bool) -> _Leaf:
    match value:
        case SigmaString():
            return _string(value)
        case SigmaTimestampPart():
            raise UnsupportedError("date parts are not supported yet")
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
                raise UnsupportedError(f"comparison {value.op.name.lower()} is not supported yet")
            return _Leaf(_COMPARE[value.op], value.number.number)
        case SigmaFieldReference():
            if value.starts_with or value.ends_with:
                raise UnsupportedError("fieldref with contains, startswith or endswith is not supported yet")
            return _Leaf(Op.FIELDREF, value.field, cased_reference)
    raise UnsupportedError(f"{_kind(value)} is not supported yet")


def _kind(value: SigmaType) -> str:
    return type(value).__name__.removeprefix("Sigma").lower()


def _regex(value: SigmaRegularExpression) -> str:
    if value.contains_placeholder():
        raise UnsupportedError("placeholders (modifier expand) are not supported yet")
    flags = "".join(sorted(value.sigma_to_re_flag[flag] for flag in value.flags))
    return (f"(?{flags})" if flags else "") + str(value.regexp)


def _parts(value: SigmaString) -> list[str | SpecialChars]:
    """The parts of a string; a run of `*` is one."""
    parts: list[str | SpecialChars] = []
    for part in value.s:
        if isinstance(part, Placeholder):
            raise UnsupportedError("placeholders (modifier expand) are not supported yet")
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


def escape_like(text: str) -> str:
    """Literal text in the escape rules of Op.LIKE."""
    return text.replace("\\", "\\\\").replace("*", "\\*").replace("?", "\\?")


def one_line(error: BaseException) -> str:
    """What pySigma says, in one line."""
    if isinstance(error, SigmaError):
        return " ".join(str(error.args[0] if error.args else error).split()) or "not valid Sigma"
    return f"a value Sigma does not take ({type(error).__name__})"


# ------------------------------------------------------------------------------------------------- the condition


def _condition(
    document: Document, path: tuple[str | int, ...], text: Yaml, parts: dict[str, Node], used: set[str]
) -> Node:
    if not isinstance(text, str) or not text.strip():
        raise document.error("a condition is text", *path)
    if len(text) > CONDITION_LIMIT:
        raise document.error(f"a condition of more than {CONDITION_LIMIT} characters", *path)
    depth = deepest = 0
    for character in text:
        depth += (character == "(") - (character == ")")
        deepest = max(deepest, depth)
    if deepest > CONDITION_DEPTH:
        raise document.error(f"a condition nested deeper than {CONDITION_DEPTH}", *path)
    names = EmptySigmaDetections()
    names.detections = {name: SigmaDetection([SigmaDetectionItem(None, [], [SigmaString(name)])]) for name in parts}
    try:
        parsed = SigmaCondition(text, names).parse(postprocess=False)
    except PYSIGMA_ERRORS as error:
        raise document.error(f"condition not understood: {one_line(error)}", *path) from error

    def build(item: object) -> Node:
        match item:
            case ConditionSelector():
                found = [one.identifier for one in item.resolve_referenced_detections(names)]
                if not found:
                    raise document.error(f"{item.args[0]!r} of {item.pattern!r} names no part of this rule", *path)
                used.update(found)
                return _joined(All if item.cond_class is ConditionAND else Any, [parts[name] for name in found])
            case ConditionIdentifier():
                if item.identifier not in parts:
                    hint = did_you_mean(item.identifier, parts)
                    raise document.error(f"condition names {item.identifier!r}, which is not there", *path, hint=hint)
                used.add(item.identifier)
                return parts[item.identifier]
            case ConditionNOT():
                return Not(build(item.args[0]))
            case ConditionAND():
                return _joined(All, [build(arg) for arg in item.args])
            case ConditionOR():
                return _joined(Any, [build(arg) for arg in item.args])
        raise document.error("condition not understood", *path)  # pragma: no cover (pySigma has no other items)

    try:
        return build(parsed)
    except RuleError:
        raise
    except PYSIGMA_ERRORS as error:
        raise document.error(f"condition not understood: {one_line(error)}", *path) from error
