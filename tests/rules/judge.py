"""pySigma's own reading of a rule, run on one event: what our reading of it is held to.
Counterpart: `vedette.rules`; the trees that come out of there are run by tests/detections/reference.py."""

from __future__ import annotations

import re
from collections.abc import Mapping

import yaml
from sigma.conditions import (
    ConditionAND,
    ConditionFieldEqualsValueExpression,
    ConditionNOT,
    ConditionOR,
    ConditionValueExpression,
)
from sigma.rule import SigmaRule
from sigma.types import (
    Placeholder,
    SigmaBool,
    SigmaCasedString,
    SigmaExists,
    SigmaExpansion,
    SigmaNull,
    SigmaNumber,
    SigmaRegularExpression,
    SigmaString,
    SpecialChars,
)

Event = Mapping[str, str | int | bool | None]


def pysigma_rule(text: str) -> SigmaRule:
    """The rule as pySigma reads it."""
    return SigmaRule.from_dict(yaml.safe_load(text))


def verdict(rule: SigmaRule, event: Event) -> bool:
    """Whether one of the rule's conditions holds of the event."""
    return any(_holds(condition.parsed, event) for condition in rule.detection.parsed_condition)


def _holds(item: object, event: Event) -> bool:
    match item:
        case ConditionAND():
            return all(_holds(one, event) for one in item.args)
        case ConditionOR():
            return any(_holds(one, event) for one in item.args)
        case ConditionNOT():
            return not _holds(item.args[0], event)
        case ConditionFieldEqualsValueExpression():
            return _equals(item.value, item.field in event, event.get(item.field))
        case ConditionValueExpression():
            return any(_keyword(item.value, value) for value in event.values() if isinstance(value, str))
    raise AssertionError(f"a condition of another kind: {item!r}")


def _equals(wanted: object, there: bool, value: str | int | bool | None) -> bool:
    match wanted:
        case SigmaExpansion():
            return any(_equals(one, there, value) for one in wanted.values)
        case SigmaExists():
            return there is wanted.exists
        case SigmaNull():
            return value is None
    if value is None:
        return False
    text = str(value).lower() if isinstance(value, bool) else str(value)
    match wanted:
        case SigmaString():
            return _pattern(wanted).fullmatch(text) is not None
        case SigmaNumber():
            return str(wanted.number) == text
        case SigmaBool():
            return str(wanted.boolean).lower() == text
        case SigmaRegularExpression():
            flags = sum(wanted.sigma_to_python_flags[flag] for flag in wanted.flags)
            return re.search(str(wanted.regexp), text, flags) is not None
    raise AssertionError(f"a value of another kind: {wanted!r}")


def _keyword(wanted: object, text: str) -> bool:
    if isinstance(wanted, SigmaExpansion):
        return any(_keyword(one, text) for one in wanted.values)
    if isinstance(wanted, SigmaString):
        return _pattern(wanted).search(text) is not None
    return _equals(wanted, True, text)


def _pattern(wanted: SigmaString) -> re.Pattern[str]:
    written = {SpecialChars.WILDCARD_MULTI: ".*", SpecialChars.WILDCARD_SINGLE: "."}
    parts = []
    for part in wanted.s:
        assert not isinstance(part, Placeholder)
        parts.append(written[part] if isinstance(part, SpecialChars) else re.escape(part))
    return re.compile("".join(parts), re.DOTALL | (0 if isinstance(wanted, SigmaCasedString) else re.IGNORECASE))
