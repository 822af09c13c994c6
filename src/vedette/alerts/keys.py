"""What makes findings one alert: its key, and the labels that routes and silences match on.
Counterpart: `alerts.lifecycle`, which finds the alert of a finding by it."""

from __future__ import annotations

from collections.abc import Mapping

from vedette.model.events import Scalar
from vedette.model.findings import Finding, key_text
from vedette.model.rules import NotifyStep, Rule, Scope

STEP = "rule.step"
"""The label that says how far an alert may go; only there where that is not all the way."""

DEFAULT_FIELDS = ("source.ip", "user.name", "file.path")


def key_fields(
    rule: Rule | None, key: Mapping[str, Scalar], host_id: str, given: Mapping[str, Scalar]
) -> dict[str, Scalar]:
    """The fields that key an alert: the finding's own, else the first DEFAULT_FIELDS that `given` has.

    A correlation's key is its group_by, empty too. The host is part of the key of a rule of scope host, of one
    that names no fields, and of a rule we do not have; only a fleet rule with a key of its own joins hosts.
    """
    fields = dict(key)
    own = rule is not None and (rule.correlate is not None or bool(rule.key))
    if not fields and not own:
        fields.update(next(([(name, given[name])] for name in DEFAULT_FIELDS if given.get(name)), []))
    if rule is None or rule.scope is Scope.HOST or not own:
        fields.setdefault("host.id", host_id)
    return fields


def finding_fields(finding: Finding, rule: Rule | None) -> dict[str, Scalar]:
    """The key fields of a finding's alert."""
    given: dict[str, Scalar] = {"source.ip": finding.source_ip, "user.name": finding.user_name}
    return key_fields(rule, finding.key, finding.host_id, given)


def alert_key(rule_id: str, fields: Mapping[str, Scalar]) -> str:
    """The key as one text: rule id and fields, canonical."""
    return key_text({**fields, "rule.id": rule_id})


def label_text(value: Scalar) -> str:
    """A field's value as a label: null is the empty text, true and false as YAML writes them."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def labels_of(finding: Finding, fields: Mapping[str, Scalar], rule: Rule | None = None) -> dict[str, str]:
    """The labels of a finding's alert; a label that would be empty is left out, as in Alertmanager."""
    labels = {name: label_text(value) for name, value in fields.items()}
    labels |= {
        "rule.id": finding.rule_id,
        "rule.name": finding.rule_name,
        "level": finding.level.label,
        "host.id": finding.host_id,
        "host.name": finding.host_name,
        STEP: rule.step.value if rule is not None and rule.step is not NotifyStep.PAGE else "",
    }
    return {name: value for name, value in labels.items() if value}


def step_of(labels: Mapping[str, str]) -> NotifyStep:
    """How far an alert with these labels may go; where they do not say, or say what nobody knows, all the way."""
    try:
        return NotifyStep(labels.get(STEP, NotifyStep.PAGE))
    except ValueError:
        return NotifyStep.PAGE
