"""Coverage by tags, and the layer held to the documented format 4.5 of the ATT&CK Navigator.
Counterpart: vedette.rules.coverage."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from vedette.model.levels import Level
from vedette.model.rules import Comparison, Correlate, CorrelationKind, LogSource, Rule, Threshold
from vedette.rules.coverage import By, coverage, layer, tactics_of, techniques_of, untagged
from vedette.rules.loading import load

SSHD = LogSource("linux", "", "sshd")
GUESS = Rule("guess", "Guess", Level.LOW, logsource=SSHD, tags=("attack.credential-access", "attack.t1110.001"))
LOGIN = Rule(
    "login", "Login", Level.HIGH, logsource=SSHD, tags=("attack.initial_access", "attack.T1078", "attack.t1110.001")
)
PLAIN = Rule("plain", "Plain", Level.LOW, tags=("cve.2024-1", "attack.s0001", "attack.g0010"))


def test_tags_are_read_as_attack_names_things():
    assert techniques_of(LOGIN) == ("T1078", "T1110.001")
    assert tactics_of(LOGIN) == ("initial-access",)
    assert (techniques_of(PLAIN), tactics_of(PLAIN)) == ((), ())


def test_rows_by_each():
    rules = [GUESS, LOGIN, PLAIN, replace(GUESS, id="silent", silent=True)]
    assert [(row.name, [rule.id for rule in row.rules]) for row in coverage(rules)] == [
        ("T1078", ["login"]),
        ("T1110.001", ["guess", "login"]),
    ]
    assert [row.name for row in coverage(rules, By.TACTIC)] == ["credential-access", "initial-access"]
    services = coverage(rules, By.SERVICE)
    assert [(row.name, len(row.rules), row.techniques) for row in services] == [
        ("any", 1, ()),
        ("linux/sshd", 2, ("T1078", "T1110.001")),
    ]
    assert services[1].level is Level.HIGH
    assert untagged(rules) == [PLAIN]


def test_a_correlation_looks_at_what_it_counts():
    correlate = Correlate(CorrelationKind.EVENT_COUNT, ("guess",), (), 1, (Threshold(Comparison.GTE, 5),))
    count = Rule("count", "Count", Level.LOW, correlate=correlate, tags=("attack.t1110",))
    assert [row.name for row in coverage([replace(GUESS, silent=True), count], By.SERVICE)] == ["linux/sshd"]


# What the format demands: name -> (type, required); objects by name of their own table.
FORMAT: dict[str, dict[str, tuple[Any, bool]]] = {
    "layer": {
        "versions": ("version", False),
        "name": (str, True),
        "description": (str, False),
        "domain": (re.compile("(enterprise|mobile|ics)-attack"), True),
        "customDataURL": (str, False),
        "filters": ("filter", False),
        "sorting": (int, False),
        "layout": ("layout", False),
        "hideDisabled": (bool, False),
        "techniques": (["technique"], False),
        "gradient": ("gradient", False),
        "legendItems": (["legend item"], False),
        "showTacticRowBackground": (bool, False),
        "tacticRowBackground": (str, False),
        "selectTechniquesAcrossTactics": (bool, False),
        "selectSubtechniquesWithParent": (bool, False),
        "selectVisibleTechniques": (bool, False),
        "metadata": (["metadata"], False),
        "links": (["link"], False),
    },
    "version": {
        "attack": (str, False),
        "navigator": (re.compile(r"(4\.9|[5-9]\.\d+)\.\d+"), True),
        "layer": (re.compile(r"4\.5"), True),
    },
    "filter": {"platforms": ([str], False)},
    "layout": {
        "layout": (re.compile("side|flat|mini"), False),
        "showID": (bool, False),
        "showName": (bool, False),
        "showAggregateScores": (bool, False),
        "countUnscored": (bool, False),
        "aggregateFunction": (re.compile("average|min|max|sum"), False),
        "expandedSubtechniques": (re.compile("none|all|annotated"), False),
    },
    "technique": {
        "techniqueID": (re.compile(r"T\d{4}(\.\d{3})?"), True),
        "tactic": (str, False),
        "comment": (str, False),
        "enabled": (bool, False),
        "score": (int, False),
        "color": (re.compile("#[0-9a-f]{6}"), False),
        "metadata": (["metadata"], False),
        "links": (["link"], False),
        "showSubtechniques": (bool, False),
    },
    "gradient": {
        "colors": ([re.compile("#[0-9a-f]{6}")], True),
        "minValue": (int, True),
        "maxValue": (int, True),
    },
    "legend item": {"label": (str, True), "color": (re.compile("#[0-9a-f]{6}"), True)},
    "metadata": {"name": (str, True), "value": (str, True)},
    "link": {"label": (str, True), "url": (re.compile("[a-z]+://.*"), True)},
}


def faults(value: Any, wanted: Any, path: str = "layer") -> list[str]:
    """Where a value is not as the format says."""
    if isinstance(wanted, list):
        if not isinstance(value, list):
            return [f"{path} is no list"]
        return [fault for at, one in enumerate(value) for fault in faults(one, wanted[0], f"{path}[{at}]")]
    if isinstance(wanted, re.Pattern):
        return [] if isinstance(value, str) and wanted.fullmatch(value) else [f"{path} is {value!r}"]
    if isinstance(wanted, str):
        if not isinstance(value, dict):
            return [f"{path} is no object"]
        table = FORMAT[wanted]
        found = [f"{path}.{name} is unknown" for name in value if name not in table]
        found += [f"{path}.{name} is missing" for name, (_, needed) in table.items() if needed and name not in value]
        return found + [
            fault for name in value if name in table for fault in faults(value[name], table[name][0], f"{path}.{name}")
        ]
    return [] if type(value) is wanted else [f"{path} is a {type(value).__name__}"]


def test_the_checker_of_this_file_finds_faults():
    assert faults({"domain": "x", "techniques": [{"score": "1"}], "extra": 1}, "layer") == [
        "layer.extra is unknown",
        "layer.name is missing",
        "layer.domain is 'x'",
        "layer.techniques[0].techniqueID is missing",
        "layer.techniques[0].score is a str",
    ]


def test_a_layer_is_as_the_navigator_documents_it():
    for rules in ([GUESS, LOGIN, PLAIN], [], load([], packs=True).rules):
        made = layer(rules)
        assert faults(made, "layer") == []
        gradient = made["gradient"]
        assert gradient["maxValue"] > gradient["minValue"]
        assert len(gradient["colors"]) >= 2


def test_scores_count_rules_and_comments_name_them():
    _, guessing = layer([GUESS, LOGIN])["techniques"]
    assert (guessing["techniqueID"], guessing["score"]) == ("T1110.001", 2)
    assert guessing["comment"] == "Guess (guess, low)\nLogin (login, high)"
    assert guessing["metadata"] == [
        {"name": "highest level", "value": "high"},
        {"name": "log source", "value": "linux/sshd"},
    ]
    many = [replace(GUESS, id=f"g-{number}") for number in range(25)]
    (one,) = layer(many)["techniques"]
    assert one["comment"].splitlines()[-1] == "and 5 more"
