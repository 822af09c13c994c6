"""Which findings are one alert, and what labels it has.
Counterpart: vedette.alerts.keys."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from tests.alerts.parts import HOST, RULES, finding

from vedette.alerts.keys import alert_key, finding_fields, key_fields, label_text, labels_of
from vedette.model.events import Scalar
from vedette.model.rules import Comparison, Correlate, CorrelationKind, Rule, Scope, Threshold

OTHER = "22222222-2222-7222-8222-222222222222"


def key_of(found_by: str, address: str, host_id: str) -> str:
    found = finding(found_by, address, 0, host_id=host_id)
    return alert_key(found.rule_id, finding_fields(found, RULES[found_by]))


def test_rule_and_each_key_field_make_the_key():
    keys = {key_of(rule_id, address, HOST) for rule_id in ("guess", "root") for address in ("192.0.2.1", "192.0.2.2")}
    assert len(keys) == 4
    assert key_of("guess", "192.0.2.1", HOST) == key_of("guess", "192.0.2.1", HOST)


def test_the_host_is_part_of_the_key_of_a_host_rule_only():
    assert key_of("guess", "192.0.2.1", HOST) != key_of("guess", "192.0.2.1", OTHER)
    assert key_of("fleet-wide", "192.0.2.1", HOST) == key_of("fleet-wide", "192.0.2.1", OTHER)


@pytest.mark.parametrize("rule", [None, *[replace(RULES[name], key=()) for name in ("fleet-wide", "guess")]])
def test_without_key_fields_the_host_and_the_first_of_the_usual_ones_are_the_key(rule: Rule | None):
    found = msgspec.structs.replace(finding("guess", "192.0.2.1", 0), key={}, user_name="ada")
    assert finding_fields(found, rule) == {"host.id": HOST, "source.ip": "192.0.2.1"}
    assert finding_fields(msgspec.structs.replace(found, source_ip=""), rule) == {"host.id": HOST, "user.name": "ada"}
    assert finding_fields(msgspec.structs.replace(found, source_ip="", user_name=""), rule) == {"host.id": HOST}


@pytest.mark.parametrize("rule", [replace(RULES[name], key=()) for name in ("fleet-wide", "guess")])
def test_a_default_key_that_the_finding_brings_along_has_the_host_too(rule: Rule):
    assert finding_fields(finding("guess", "192.0.2.1", 0), rule) == {"host.id": HOST, "source.ip": "192.0.2.1"}


@pytest.mark.parametrize(("scope", "expected"), [(Scope.HOST, {"host.id": HOST}), (Scope.FLEET, {})])
def test_a_correlation_of_everything_has_one_alert_whoever_made_it_fire(scope: Scope, expected: dict[str, str]):
    everything = Correlate(CorrelationKind.EVENT_COUNT, ("guess",), (), 60, (Threshold(Comparison.GTE, 5),))
    rule = replace(RULES["guess"], key=(), scope=scope, correlate=everything)
    found = msgspec.structs.replace(finding("guess", "192.0.2.1", 0), key={})
    assert finding_fields(found, rule) == expected
    assert key_fields(rule, {}, HOST, {}) == expected


def test_a_key_cannot_be_forged_by_what_stands_in_a_value():
    one = alert_key("r", {"a": 'x","b":"y'})
    other = alert_key("r", {"a": "x", "b": "y"})
    assert one != other


def test_labels_are_text_and_empty_ones_are_left_out():
    found = msgspec.structs.replace(
        finding("guess", "192.0.2.1", 0), host_name="", key={"source.port": 22, "user.name": None, "x": True}
    )
    assert labels_of(found, finding_fields(found, RULES["guess"])) == {
        "source.port": "22",
        "x": "true",
        "rule.id": "guess",
        "rule.name": "Guess",
        "level": "medium",
        "host.id": HOST,
    }


@pytest.mark.parametrize(("value", "text"), [(None, ""), (False, "false"), (7, "7"), (1.5, "1.5"), ("ä", "ä")])
def test_label_text(value: Scalar, text: str):
    assert label_text(value) == text


def test_a_key_field_cannot_stand_in_for_the_rule_or_level_label():
    found = msgspec.structs.replace(finding("guess", "192.0.2.1", 0), key={"level": "informational", "rule.id": "note"})
    labels = labels_of(found, finding_fields(found, RULES["guess"]))
    assert (labels["level"], labels["rule.id"]) == ("medium", "guess")
