"""One Sigma correlation document to one `Rule` whose `correlate` says what is measured over which window.
Counterpart: `sigma` hands it the document, `chains` and `linking` tie it to the rules it names."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

from sigma.correlations import SigmaCorrelationCondition, SigmaCorrelationTimespan

from vedette.model.clock import SECOND
from vedette.model.rules import Clause, Comparison, Correlate, CorrelationKind, Rule, Threshold
from vedette.rules.compiled import NOT_IN_KEYS, Compiled, check_keys
from vedette.rules.conditions import PYSIGMA_ERRORS, one_line
from vedette.rules.documents import Document, Yaml
from vedette.rules.expressions import Expression, ExpressionError, Join, Name, Negation, parse_expression
from vedette.rules.extras import Extras
from vedette.rules.problems import did_you_mean

CLAUSES_LIMIT = 64
"""So many ways one condition may hold in, its `or`s multiplied out."""
COUNT_LIMIT = 1_000_000

_CORRELATION_KEYS = ("type", "rules", "generate", "group-by", "timespan", "aliases", "condition")
_COMPARISONS = {comparison.value: comparison for comparison in Comparison}
_MEDIAN = "value_median"
_KINDS = {kind.value: kind for kind in CorrelationKind} | {_MEDIAN: CorrelationKind.VALUE_PERCENTILE}
_EXTENDED = {"temporal_extended": "temporal", "temporal_ordered_extended": "temporal_ordered"}
_TEMPORAL = (CorrelationKind.TEMPORAL, CorrelationKind.TEMPORAL_ORDERED)
_WHOLE = (CorrelationKind.EVENT_COUNT, CorrelationKind.VALUE_COUNT, *_TEMPORAL)
_CONDITION = ("correlation", "condition")


def correlation_rule(document: Document, base: Rule, name: str, extras: Extras, pack: str) -> Compiled:
    """The rule in a document with `correlation`; RuleError with the place of what is wrong."""
    found = document.data["correlation"]
    if not isinstance(found, dict):
        raise document.error("'correlation' is a mapping", "correlation")
    check_keys(document, found, _CORRELATION_KEYS, ("correlation",), all_known=True)
    for key in ("type", "timespan"):
        if key not in found:
            raise document.error(f"'correlation' has no {key!r}", "correlation")
    if extras.after is not None:
        raise document.error("'after' is for detection rules", "vedette", "after")
    kind = _kind(document, found["type"])
    compiled = Compiled(base, name, _generate(document, found), document, extras.cases, strict=bool(pack))
    measured = _condition(document, found, kind)
    for index, reference in enumerate(measured.of):
        where = document.at("correlation", "rules", index) if found.get("rules") else document.at(*_CONDITION)
        compiled.reference_paths.setdefault(reference, where)
    group_by = _word_list(document, found, "group-by")
    aliases = _aliases(document, found, measured.of)
    renamed = {alias for alias, _rule, _field in aliases}
    if unused := sorted(renamed - {*group_by, *measured.fields}):
        raise document.error(f"alias {unused[0]!r} is never used", "correlation", "aliases", unused[0])
    for index, one in enumerate(group_by):
        if one == NOT_IN_KEYS:
            raise document.error(f"{one!r} may be in no key", "correlation", "group-by", index)
        if one not in renamed:
            compiled.fields.append((one, document.at("correlation", "group-by", index)))
    for one in measured.fields:
        if one not in renamed:
            compiled.fields.append((one, document.at(*_CONDITION, "field")))
    for alias, rule, name_there in aliases:
        compiled.fields.append((name_there, document.at("correlation", "aliases", alias, rule)))
    if extras.key and extras.key != group_by:
        raise document.error("'key' differs from 'group-by', which is the key of a correlation", "vedette", "key")
    correlate = replace(
        measured, group_by=group_by, timespan=_timespan(document, found["timespan"]), aliases=tuple(aliases)
    )
    compiled.rule = replace(base, correlate=correlate, key=group_by)
    return compiled


def _kind(document: Document, kind: Yaml) -> CorrelationKind:
    if isinstance(kind, str) and kind in _KINDS:
        return _KINDS[kind]
    if isinstance(kind, str) and kind in _EXTENDED:
        hint = f"write type: {_EXTENDED[kind]}, and the expression as its condition"
    else:
        hint = did_you_mean(str(kind), _KINDS) or "one of " + ", ".join(_KINDS)
    raise document.error(f"unknown correlation type {kind!r}", "correlation", "type", hint=hint)


def _generate(document: Document, found: dict[str, Yaml]) -> bool:
    """Whether the rules counted are heard too; the specification has it in either place."""
    inside = "generate" in found
    generate = found["generate"] if inside else document.data.get("generate", False)
    if not isinstance(generate, bool):
        path = ("correlation", "generate") if inside else ("generate",)
        raise document.error("'generate' is true or false", *path)
    return generate


def _word_list(document: Document, found: dict[str, Yaml], key: str, *, twice: bool = False) -> tuple[str, ...]:
    value = found.get(key) or []
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
        raise document.error(f"{key!r} is a list of words", "correlation", key)
    words = tuple(map(str, value))
    if len(set(words)) != len(words) and not twice:
        raise document.error(f"{key!r} names something twice", "correlation", key)
    return words


def _timespan(document: Document, value: Yaml) -> int:
    try:
        return SigmaCorrelationTimespan(value).seconds * SECOND  # type: ignore[arg-type]
    except PYSIGMA_ERRORS as error:
        raise document.error(one_line(error), "correlation", "timespan", hint="10m, 1h or 2d for example") from error


# ----------------------------------------------------------------------------------------------------- conditions


def _condition(document: Document, found: dict[str, Yaml], kind: CorrelationKind) -> Correlate:
    """What is measured and what it is compared with; key and timespan are still to come."""
    rules = _word_list(document, found, "rules", twice=kind is CorrelationKind.TEMPORAL_ORDERED)
    value = found.get("condition")
    if isinstance(value, str) and kind in _TEMPORAL:
        return _expression(document, value, kind, rules)
    if not rules:
        raise document.error("'rules' names no rule", "correlation", "rules" if "rules" in found else "type")
    if value is None:
        if kind not in _TEMPORAL:
            raise document.error("'correlation' has no 'condition'", "correlation")
        return Correlate(kind, rules, (), 0)
    if not isinstance(value, dict):
        raise document.error(_what_a_condition_is(kind), *_CONDITION)
    check_keys(document, value, (*_COMPARISONS, "field", "percentile"), _CONDITION, all_known=True)
    threshold = _threshold(document, value, kind)
    if kind is CorrelationKind.TEMPORAL_ORDERED:
        if threshold != (Threshold(Comparison.GTE, len(rules)),):
            raise document.error("an order is not compared with a number", *_CONDITION, hint="leave the condition out")
        threshold = ()
    if kind in _TEMPORAL and any(one.value > len(set(rules)) for one in threshold if one.comparison in _FROM_BELOW):
        raise document.error(f"there are only {len(set(rules))} rules to match", *_CONDITION)
    fields = _fields(document, value, kind)
    percentile = _percentile(document, value, kind, median=found["type"] == _MEDIAN)
    return Correlate(kind, rules, (), 0, threshold, fields, percentile=percentile)


_FROM_BELOW = (Comparison.GTE, Comparison.EQ)


def _what_a_condition_is(kind: CorrelationKind) -> str:
    also = ", or an expression like 'rule_a and not rule_b'" if kind in _TEMPORAL else ""
    return f"'condition' of {kind.value} is a mapping, 'gte: 5' for example{also}"


def _threshold(document: Document, value: dict[str, Yaml], kind: CorrelationKind) -> tuple[Threshold, ...]:
    thresholds = []
    for key, count in value.items():
        if key not in _COMPARISONS:
            continue
        try:
            number = SigmaCorrelationCondition.from_dict({key: count}).count
        except (*PYSIGMA_ERRORS, OverflowError) as error:
            raise document.error(one_line(error), *_CONDITION, key) from error
        if isinstance(count, bool) or (kind in _WHOLE and (not isinstance(number, int) or number < 0)):
            raise document.error(f"{key!r} compares with a whole number", *_CONDITION, key)
        if kind in _WHOLE and number > COUNT_LIMIT:
            raise document.error(f"{key!r} compares with at most {COUNT_LIMIT}", *_CONDITION, key)
        thresholds.append(Threshold(_COMPARISONS[key], number))
    if not 1 <= len(thresholds) <= 2:
        raise document.error("'condition' has one comparison, or two", *_CONDITION)
    below = all(one.comparison in (Comparison.GTE, Comparison.GT) for one in thresholds)
    if kind in _WHOLE and below and max(one.value + (one.comparison is Comparison.GT) for one in thresholds) < 1:
        raise document.error("the condition would hold for nothing at all", *_CONDITION)
    return tuple(thresholds)


def _fields(document: Document, value: dict[str, Yaml], kind: CorrelationKind) -> tuple[str, ...]:
    found = value.get("field") or []
    fields = [found] if isinstance(found, str) else found
    if not isinstance(fields, list) or not all(isinstance(one, str) and one for one in fields):
        raise document.error("'field' is one field, or a list of fields", *_CONDITION, "field")
    names = tuple(map(str, fields))
    if len(set(names)) != len(names):
        raise document.error("'field' names something twice", *_CONDITION, "field")
    needs = kind not in (CorrelationKind.EVENT_COUNT, *_TEMPORAL)
    if needs != bool(names):
        raise document.error(f"{kind.value} needs a 'field'" if needs else f"{kind.value} has no 'field'", *_CONDITION)
    if len(names) > 1 and kind is not CorrelationKind.VALUE_COUNT:
        raise document.error(f"{kind.value} looks at one field", *_CONDITION, "field")
    return names


def _percentile(document: Document, value: dict[str, Yaml], kind: CorrelationKind, *, median: bool) -> float:
    found = value.get("percentile")
    if kind is not CorrelationKind.VALUE_PERCENTILE or median:
        if found is not None:
            raise document.error(f"{_MEDIAN if median else kind.value} has no 'percentile'", *_CONDITION, "percentile")
        return 50
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found <= 100:
        hint = "percentile: 95, or type: value_median"
        key = ("percentile",) if "percentile" in value else ()
        raise document.error("value_percentile needs a 'percentile' from 0 to 100", *_CONDITION, *key, hint=hint)
    return found


def _expression(document: Document, text: str, kind: CorrelationKind, rules: tuple[str, ...]) -> Correlate:
    """`rule_a and not rule_b`: every name is one of the rules, and every rule is named; no list: those named."""
    try:
        named: list[str] = []
        clauses = clauses_of(parse_expression(text), named)
    except ExpressionError as error:
        raise document.error(f"condition: {error}", *_CONDITION) from None
    names = tuple(dict.fromkeys(named))
    if rules:
        for name in names:
            if name not in rules:
                hint = did_you_mean(name, rules)
                raise document.error(f"{name!r} is not among the rules", *_CONDITION, hint=hint)
        for index, rule in enumerate(rules):
            if rule not in names:
                raise document.error(f"{rule!r} is not in the condition", "correlation", "rules", index)
        names = tuple(dict.fromkeys(rules))
    if kind is CorrelationKind.TEMPORAL:
        clauses = [Clause(tuple(dict.fromkeys(clause.needs)), clause.without) for clause in clauses]
    clauses = [clause for clause in dict.fromkeys(clauses) if not {*clause.needs} & {*clause.without}]
    if not clauses:
        raise document.error("the condition can never hold", *_CONDITION)
    return Correlate(kind, names, (), 0, clauses=tuple(clauses))


def clauses_of(expression: Expression, named: list[str], *, negated: bool = False) -> list[Clause]:
    """The ways an expression holds in, its `or`s multiplied out; needs in the order they are written.

    named: grows by the names met. ExpressionError for more than CLAUSES_LIMIT, and for `1 of ...`.
    """
    match expression:
        case Name(name):
            named.append(name)
            return [Clause((), (name,)) if negated else Clause((name,))]
        case Negation(of):
            return clauses_of(of, named, negated=not negated)
        case Join(every, parts):
            found = [clauses_of(part, named, negated=negated) for part in parts]
            if every is negated:
                clauses = [clause for part in found for clause in part]
            else:
                size = 1
                for part in found:
                    size *= len(part)
                    _check_size(size)
                clauses = [_joined(combination) for combination in product(*found)]
            _check_size(len(clauses))
            return clauses
        case _:
            raise ExpressionError(f"'{expression}' stands for no rule: name the rules")


def _check_size(size: int) -> None:
    if size > CLAUSES_LIMIT:
        raise ExpressionError(f"more than {CLAUSES_LIMIT} ways to hold, its 'or's multiplied out")


def _joined(clauses: tuple[Clause, ...]) -> Clause:
    needs = tuple(name for clause in clauses for name in clause.needs)
    without = tuple(dict.fromkeys(name for clause in clauses for name in clause.without))
    return Clause(needs, without)


def _aliases(document: Document, found: dict[str, Yaml], rules: tuple[str, ...]) -> list[tuple[str, str, str]]:
    value = found.get("aliases") or {}
    path = ("correlation", "aliases")
    if not isinstance(value, dict):
        raise document.error("'aliases' is a mapping of names to rules and their fields", *path)
    aliases = []
    for alias, mapping in value.items():
        if not isinstance(mapping, dict) or not mapping:
            raise document.error("an alias is a mapping of rules to their fields", *path, alias)
        for rule, name in mapping.items():
            if not isinstance(name, str) or not name:
                raise document.error("names a field", *path, alias, rule)
            if rule not in rules:
                raise document.error(
                    f"{rule!r} is not among the rules", *path, alias, rule, hint=did_you_mean(rule, rules)
                )
            aliases.append((alias, rule, name))
    return aliases
