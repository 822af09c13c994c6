"""One Sigma correlation document to one `Rule` whose `correlate` says what is counted over which window.
Counterpart: `sigma` hands it the document, `loading` links the rules it names."""

from __future__ import annotations

from dataclasses import replace

from sigma.correlations import SigmaCorrelationCondition, SigmaCorrelationTimespan

from vedette.model.clock import SECOND
from vedette.model.rules import Comparison, Correlate, CorrelationKind, Rule, Threshold
from vedette.rules.compiled import NOT_IN_KEYS, Compiled, check_keys
from vedette.rules.conditions import PYSIGMA_ERRORS, one_line
from vedette.rules.documents import Document, Yaml
from vedette.rules.extras import Extras
from vedette.rules.problems import did_you_mean

_CORRELATION_KEYS = ("type", "rules", "generate", "group-by", "timespan", "aliases", "condition")
_COMPARISONS = {comparison.value: comparison for comparison in Comparison}
_KINDS = {kind.value: kind for kind in CorrelationKind}
_SIGMA_KINDS = (
    "event_count",
    "value_count",
    "temporal",
    "temporal_ordered",
    "temporal_extended",
    "temporal_ordered_extended",
    "value_sum",
    "value_avg",
    "value_percentile",
    "value_median",
)


def correlation_rule(document: Document, base: Rule, name: str, extras: Extras, pack: str) -> Compiled:
    """The rule in a document with `correlation`; RuleError with the place of what is wrong."""
    found = document.data["correlation"]
    if not isinstance(found, dict):
        raise document.error("'correlation' is a mapping", "correlation")
    check_keys(document, found, _CORRELATION_KEYS, ("correlation",), all_known=True)
    for key in ("type", "rules", "timespan", "condition"):
        if key not in found:
            raise document.error(f"'correlation' has no {key!r}", "correlation")
    if extras.after is not None:
        raise document.error("'after' is for detection rules", "vedette", "after")
    kind = found["type"]
    if not isinstance(kind, str) or kind not in _KINDS:
        if isinstance(kind, str) and kind in _SIGMA_KINDS:
            raise document.error(f"correlation type {kind!r} is not supported yet", "correlation", "type")
        hint = did_you_mean(str(kind), _SIGMA_KINDS)
        raise document.error(f"unknown correlation type {kind!r}", "correlation", "type", hint=hint)
    generate = found.get("generate", False)
    if not isinstance(generate, bool):
        raise document.error("'generate' is true or false", "correlation", "generate")
    compiled = Compiled(base, name, generate, document, extras.cases, strict=bool(pack))
    rules = _word_list(document, found, "rules")
    if not rules:
        raise document.error("'rules' names no rule", "correlation", "rules")
    for index, reference in enumerate(rules):
        compiled.reference_paths[reference] = document.at("correlation", "rules", index)
    group_by = _word_list(document, found, "group-by")
    aliases = _aliases(document, found, rules)
    threshold, counted = _threshold(document, found["condition"], _KINDS[kind])
    renamed = {alias for alias, _rule, _field in aliases}
    if unused := sorted(renamed - {*group_by, counted}):
        raise document.error(f"alias {unused[0]!r} is never used", "correlation", "aliases", unused[0])
    for index, one in enumerate(group_by):
        if one == NOT_IN_KEYS:
            raise document.error(f"{one!r} may be in no key", "correlation", "group-by", index)
        if one not in renamed:
            compiled.fields.append((one, document.at("correlation", "group-by", index)))
    if counted and counted not in renamed:
        compiled.fields.append((counted, document.at("correlation", "condition", "field")))
    for alias, rule, name_there in aliases:
        compiled.fields.append((name_there, document.at("correlation", "aliases", alias, rule)))
    if extras.key and extras.key != group_by:
        raise document.error("'key' differs from 'group-by', which is the key of a correlation", "vedette", "key")
    correlate = Correlate(
        kind=_KINDS[kind],
        of=rules,
        group_by=group_by,
        timespan=_timespan(document, found["timespan"]),
        threshold=threshold,
        fields=(counted,) if counted else (),
        aliases=aliases,
    )
    compiled.rule = replace(base, correlate=correlate, key=group_by)
    return compiled


def _word_list(document: Document, found: dict[str, Yaml], key: str) -> tuple[str, ...]:
    value = found.get(key) or []
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
        raise document.error(f"{key!r} is a list of words", "correlation", key)
    words = tuple(map(str, value))
    if len(set(words)) != len(words):
        raise document.error(f"{key!r} names something twice", "correlation", key)
    return words


def _timespan(document: Document, value: Yaml) -> int:
    try:
        return SigmaCorrelationTimespan(value).seconds * SECOND  # type: ignore[arg-type]
    except PYSIGMA_ERRORS as error:
        raise document.error(one_line(error), "correlation", "timespan", hint="10m, 1h or 2d for example") from error


def _threshold(document: Document, value: Yaml, kind: CorrelationKind) -> tuple[tuple[Threshold, ...], str]:
    path = ("correlation", "condition")
    if not isinstance(value, dict):
        raise document.error("'condition' is a mapping, 'gte: 5' for example", *path)
    check_keys(document, value, (*_COMPARISONS, "field", "percentile"), path, all_known=True)
    if "percentile" in value:
        raise document.error("'percentile' is not supported yet", *path, "percentile")
    thresholds = []
    for key, count in value.items():
        if key not in _COMPARISONS:
            continue
        try:
            condition = SigmaCorrelationCondition.from_dict({key: count})
        except PYSIGMA_ERRORS as error:
            raise document.error(one_line(error), *path, key) from error
        if isinstance(count, bool) or not isinstance(condition.count, int) or condition.count < 0:
            raise document.error(f"{key!r} compares with a whole number", *path, key)
        thresholds.append(Threshold(_COMPARISONS[key], condition.count))
    if not 1 <= len(thresholds) <= 2:
        raise document.error("'condition' has one comparison, or two", *path)
    counted = value.get("field", "")
    if not isinstance(counted, str):
        raise document.error("'field' is one field; several are not supported yet", *path, "field")
    if (kind is CorrelationKind.VALUE_COUNT) != bool(counted):
        wrong = "value_count needs a 'field'" if not counted else "event_count has no 'field'"
        raise document.error(wrong, *path)
    return tuple(thresholds), counted


def _aliases(document: Document, found: dict[str, Yaml], rules: tuple[str, ...]) -> tuple[tuple[str, str, str], ...]:
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
    return tuple(aliases)
