from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from vedette.model.errors import RuleError
from vedette.model.rules import (
    All,
    Any,
    Comparison,
    Correlate,
    CorrelationKind,
    LogSource,
    Node,
    Not,
    Op,
    Raw,
    Response,
    Rule,
    RuleKind,
    Scope,
    Test,
    Threshold,
)
from vedette.rules.documents import parse_documents
from vedette.rules.loading import load
from vedette.rules.problems import ProblemKind, Severity
from vedette.rules.sigma import compile_document

HEAD = "title: T\nid: my-rule\nlevel: low\nlogsource: {product: linux, service: sshd}\n"


def rule(text: str, pack: str = "") -> Rule:
    (document,) = parse_documents(dedent(text).encode(), "r.yml")
    return compile_document(document, pack=pack).rule


def when(detection: str) -> Node:
    return rule(HEAD + "detection:\n" + dedent(detection).strip("\n").replace("\n", "\n  ").join(["  ", "\n"])).when


def one(item: str) -> Node:
    return when(f"s:\n  {item}\ncondition: s")


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("user.name: root", Test("user.name", Op.EQUALS, ("root",))),
        ("user.name: [root, adm]", Test("user.name", Op.EQUALS, ("root", "adm"))),
        ("user.name|cased: Root", Test("user.name", Op.EQUALS, ("Root",), cased=True)),
        ("user.name|contains: oo", Test("user.name", Op.CONTAINS, ("oo",))),
        ("user.name|contains|all: [a, b]", Test("user.name", Op.CONTAINS, ("a", "b"), all=True)),
        ("user.name|startswith|cased: Ad", Test("user.name", Op.STARTSWITH, ("Ad",), cased=True)),
        ("user.name: '*min'", Test("user.name", Op.ENDSWITH, ("min",))),
        ("user.name: 'a*b?c'", Test("user.name", Op.LIKE, ("a*b?c",))),
        (r"user.name: 'a\*b'", Test("user.name", Op.EQUALS, ("a*b",))),
        (r"user.name: 'a\*b*c'", Test("user.name", Op.LIKE, (r"a\*b*c",))),
        (r"user.name: 'a\b*c'", Test("user.name", Op.LIKE, (r"a\\b*c",))),
        ("user.name: '**a**'", Test("user.name", Op.CONTAINS, ("a",))),
        ("user.name: ''", Test("user.name", Op.EQUALS, ("",))),
        ("user.name: null", Test("user.name", Op.NULL)),
        ("user.name|exists: false", Test("user.name", Op.EXISTS, (False,))),
        ("user.name|re: '^a.*$'", Test("user.name", Op.REGEX, ("^a.*$",))),
        ("user.name|re|i|m|s: 'a+'", Test("user.name", Op.REGEX, ("(?ims)a+",))),
        ("user.name|fieldref: user.effective.name", Test("user.name", Op.FIELDREF, ("user.effective.name",))),
        ("source.ip|cidr: 192.0.2.0/24", Test("source.ip", Op.CIDR, ("192.0.2.0/24",))),
        ("source.ip|cidr: '2001:db8::/32'", Test("source.ip", Op.CIDR, ("2001:db8::/32",))),
        ("source.port|gte: 1024", Test("source.port", Op.GTE, (1024,))),
        ("source.port|lt: 1.5", Test("source.port", Op.LT, (1.5,))),
        ("source.port: 22", Test("source.port", Op.EQUALS, (22,))),
        ("vedette.ssh.preauth: true", Test("vedette.ssh.preauth", Op.EQUALS, (True,))),
        ("user.name|neq: root", Not(Test("user.name", Op.EQUALS, ("root",)))),
        ("message|base64: foo", Test("message", Op.EQUALS, ("Zm9v",))),
        ("message|wide: ab", Test("message", Op.EQUALS, ("a\0b\0",))),
        ("user.id: [a, 'b*']", Any((Test("user.id", Op.EQUALS, ("a",)), Test("user.id", Op.STARTSWITH, ("b",))))),
        ("user.name|re: ['a+', 'b+']", Test("user.name", Op.REGEX, ("a+", "b+"))),
        ("'|re': 'fo+'", Raw("fo+", regex=True)),
        ("'|contains|all': [foo, bar]", All((Raw("foo"), Raw("bar")))),
        (
            "message|windash|contains|all: [' -x', ' -y']",
            All(
                tuple(
                    Test("message", Op.CONTAINS, tuple(f" {dash}{letter}" for dash in "-/–—―")) for letter in "xy"
                )
            ),
        ),
    ],
)  # fmt: skip
def test_an_item_becomes_the_cheapest_test_that_means_the_same(item: str, expected: Node):
    assert one(item) == expected


@pytest.mark.parametrize(
    ("detection", "expected"),
    [
        ("k: [foo, 'b*r', 7]\ncondition: k", Any((Raw("foo"), Raw("b*r"), Raw("7")))),
        ("k: foo\ncondition: k", Raw("foo")),
        (r"k: ['*foo\**']" + "\ncondition: k", Raw(r"foo\*")),
        (
            "s:\n  user.name: a\n  user.id: b\ncondition: s",
            All((Test("user.name", Op.EQUALS, ("a",)), Test("user.id", Op.EQUALS, ("b",)))),
        ),
        (
            "s:\n  - user.name: a\n  - user.id: b\ncondition: s",
            Any((Test("user.name", Op.EQUALS, ("a",)), Test("user.id", Op.EQUALS, ("b",)))),
        ),
        ("a: x1\nb: y1\ncondition: a and not b", All((Raw("x1"), Not(Raw("y1"))))),
        ("a1: x1\na2: y1\nb: z1\ncondition: 1 of a* or b", Any((Any((Raw("x1"), Raw("y1"))), Raw("z1")))),
        ("a1: x1\na2: y1\ncondition: all of them", All((Raw("x1"), Raw("y1")))),
        ("a1: x1\na2: y1\ncondition: not (a1 or a2)", Not(Any((Raw("x1"), Raw("y1"))))),
        ("a1: x1\na2: y1\ncondition: [a1, a2]", Any((Raw("x1"), Raw("y1")))),
    ],
)
def test_conditions(detection: str, expected: Node):
    assert when(detection) == expected


def test_a_rule_has_all_that_was_written():
    found = rule("""
        title: Name of it
        id: 5F1b2c3d-0000-4000-8000-000000000001
        description: "  What it is.  "
        references: [https://example.com/a]
        tags: [attack.t1110.001]
        level: critical
        date: 2026-01-02
        logsource: {product: linux, service: sshd, definition: auth}
        my_own: kept
        detection:
          s: {user.name: root}
          condition: s
        vedette:
          kind: condition
          scope: fleet
          key: [source.ip, user.name]
          response: {target: source.ip, lease: 30m, factor: 3, longest: 1d}
          advice: >
            Look
            there.
          order: 7
          stop: true
          groups: [g]
        """)
    assert found.id == "5f1b2c3d-0000-4000-8000-000000000001"
    assert (found.name, found.level.label, found.description) == ("Name of it", "critical", "What it is.")
    assert found.logsource == LogSource("linux", "", "sshd")
    assert (found.kind, found.scope) == (RuleKind.CONDITION, Scope.FLEET)
    assert found.key == ("source.ip", "user.name")
    assert found.response == Response("source.ip", 1_800_000_000, 3, 86_400_000_000)
    assert (found.advice, found.order, found.stop, found.groups) == ("Look there.", 7, True, ("g",))
    assert (found.tags, found.references) == (("attack.t1110.001",), ("https://example.com/a",))
    assert str(found.origin) == "r.yml:2:1"


CORRELATION = """
title: C
id: my-count
level: medium
correlation:
  type: value_count
  rules: [my-rule, named]
  group-by: [who, source.ip]
  timespan: 1h
  aliases:
    who: {my-rule: user.name, named: user.effective.name}
  condition: {field: user.id, gte: 3, lt: 10}
---
"""
BASE = HEAD + "detection: {s: {user.name: a}, condition: s}\n"
NAMED = BASE.replace("id: my-rule", "id: 5f1b2c3d-0000-4000-8000-000000000001\nname: named").replace(
    "title: T", "title: U"
)


def loaded(tmp_path: Path, text: str, **options: bool):
    file = tmp_path / "r.yml"
    file.write_text(text, "utf-8")
    return load([file], **options)


def test_a_correlation_names_rules_by_id_or_name_and_silences_them(tmp_path: Path):
    result = loaded(tmp_path, CORRELATION + BASE + "---\n" + NAMED)
    count, base, named = result.rules
    assert count.correlate == Correlate(
        kind=CorrelationKind.VALUE_COUNT,
        of=("my-rule", named.id),
        group_by=("who", "source.ip"),
        timespan=3_600_000_000,
        threshold=(Threshold(Comparison.GTE, 3), Threshold(Comparison.LT, 10)),
        fields=("user.id",),
        aliases=(("who", "my-rule", "user.name"), ("who", named.id, "user.effective.name")),
    )
    assert count.key == ("who", "source.ip")
    assert (count.silent, base.silent, named.silent) == (False, True, True)


def test_with_generate_the_rules_counted_are_heard_too(tmp_path: Path):
    text = CORRELATION.replace("  timespan", "  generate: true\n  timespan") + BASE + "---\n" + NAMED
    assert [rule.silent for rule in loaded(tmp_path, text).rules] == [False, False, False]


def test_after_counts_what_came_before_and_silences_nothing(tmp_path: Path):
    text = BASE + "---\n" + BASE.replace("my-rule", "my-after").replace("title: T", "title: A")
    text += "vedette: {after: {rules: [my-rule], group-by: [source.ip], timespan: 10m, gte: 4}}\n"
    base, after = loaded(tmp_path, text).rules
    assert not base.silent
    assert after.when == Test("user.name", Op.EQUALS, ("a",))
    assert after.key == ("source.ip",)
    assert after.correlate == Correlate(
        CorrelationKind.EVENT_COUNT,
        ("my-rule",),
        ("source.ip",),
        600_000_000,
        (Threshold(Comparison.GTE, 4),),
        preceding=True,
    )


def detection(item: str) -> str:
    return HEAD + f"detection:\n  s:\n    {item}\n  condition: s\n"


BROKEN = {
    "typo in a key": (BASE.replace("level:", "levle:"), "3:1: unknown key 'levle'", "level"),
    "typo of detection": (BASE.replace("detection:", "detecton:"), "5:1: unknown key 'detecton'", "detection"),
    "typo of logsource": (BASE.replace("logsource:", "logsorce:"), "4:1: unknown key 'logsorce'", "logsource"),
    "typo in the log source": (BASE.replace("service:", "sevice:"), "4:29: unknown key 'sevice'", "service"),
    "unknown modifier": (detection("user.name|contians: a"), "7:5: unknown modifier 'contians'", "contains"),
    "unknown field": (detection("user.nmae: a"), "7:5: unknown field 'user.nmae'", "user.name"),
    "unknown level": (BASE.replace("low", "lwo"), "3:1: 'lwo' is not a valid Sigma rule level", ""),
    "unknown tag": (BASE + "tags: [nodots]\n", "6:1: Sigma tag", ""),
    "no title": (BASE.replace("title: T\n", ""), "1:1: Sigma rule must have a title", ""),
    "no id": (BASE.replace("id: my-rule\n", ""), "1:1: a rule needs an 'id'", ""),
    "odd id": (BASE.replace("my-rule", "My Rule"), "2:1: 'My Rule' is neither a UUID nor a slug", ""),
    "no log source": (BASE.replace(", service: sshd", "").replace("product: linux", ""), "names neither", ""),
    "bad regex": (detection("user.name|re: 'a('"), "7:5: Regular expression 'a(' is invalid", ""),
    "pattern of neither library": (detection("user.name|re: '(a)\\2'"), "7:5: Regular expression", ""),
    "bad network": (detection("source.ip|cidr: 192.0.2.1/24"), "7:5: Invalid CIDR", ""),
    "placeholder": (detection("user.name|expand: '%admins%'"), "7:5: nothing is set for the placeholder", "admins:"),
    "half a part of a time": (detection("'@timestamp|hour': 3.5"), "7:5: a part of a time is a whole number", ""),
    "number in contains": (detection("user.name|contains: 5"), "7:5: 'contains' needs text", "quotes"),
    "map as value": (detection("user.name: {a: b}"), "7:5: a value is text", ""),
    "reference to no field": (detection("user.name|fieldref: user.nmae"), "7:5: unknown field", "user.name"),
    "part of a keyword": (detection("'|hour': 3"), "7:5: 'hour' needs a field", ""),
    "keyword of wildcards": (HEAD + "detection: {k: ['*'], condition: k}\n", "nothing but wildcards", ""),
    "timeframe": (HEAD + "detection: {s: {user.name: a}, timeframe: 5m, condition: s}\n", "'timeframe' is not", ""),
    "no condition": (HEAD + "detection: {s: {user.name: a}}\n", "5:1: 'detection' has no 'condition'", ""),
    "condition names nothing": (BASE.replace("condition: s", "condition: sel"), "condition names 'sel'", ""),
    "selector finds nothing": (BASE.replace("condition: s", "condition: 1 of x*"), "names no part", ""),
    "old pipe": (BASE.replace("condition: s", "condition: 's | count() > 5'"), "condition not understood", ""),
    "broken condition": (BASE.replace("condition: s", "condition: 's and'"), "condition not understood", ""),
    "nested condition": (BASE.replace("condition: s", "condition: '" + "(" * 99 + "s" + ")" * 99 + "'"), "nested", ""),
    "both kinds": (BASE + "correlation: {}\n", "exactly one of", ""),
    "neither kind": ("title: T\nid: my-rule\n", "exactly one of", ""),
    "filter": ("title: T\nfilter: {}\n", "1:1: 'logsource' is a mapping", ""),
    "global": ("title: T\naction: global\n", "2:1: 'action' documents are no part", ""),
    "unknown extra": (BASE + "vedette: {advise: x}\n", "6:11: unknown key 'advise'", "advice"),
    "bad lease": (BASE + "vedette: {response: {lease: soon}}\n", "'lease' is a duration", ""),
    "target outside the key": (BASE + "vedette: {key: [user.name], response: {}}\n", "not in the key", ""),
    "candidates in a key": (BASE + "vedette: {key: [vedette.source.candidates]}\n", "may be in no key", ""),
    "unknown field in a key": (BASE + "vedette: {key: [source.pi]}\n", "6:17: unknown field 'source.pi'", "source.ip"),
    "unknown parent": (BASE + "vedette: {parents: [nobody]}\n", "6:11: there is no rule or group 'nobody'", ""),
    "clears nothing": (BASE + "vedette: {clears: nothing-there}\n", "no rule 'nothing-there' to clear", ""),
    "level from nowhere": (BASE + "vedette: {level-from: event.severity.name}\n", "is no declared field", ""),
    "level from an attacker": (BASE + "vedette: {level-from: user.name}\n", "an attacker may choose", ""),
    "level from many": (
        CORRELATION.replace("---\n", "vedette: {level-from: vedette.ports.level}\n---\n"),
        "13:11: a correlation has no one record",
        "'level'",
    ),
    "clears no condition": (BASE + "vedette: {clears: my-rule}\n", "is no condition", ""),
    "after nobody": (
        BASE + "vedette: {after: {rules: [nobody], timespan: 1m, gte: 2}}\n",
        "6:27: there is no rule 'nobody'",
        "",
    ),
    "temporal": (CORRELATION.replace("value_count", "temporal"), "there are only 2 rules", ""),
    "no correlation type": (CORRELATION.replace("value_count", "valu_count"), "unknown correlation", "value_count"),
    "typo in a correlation": (CORRELATION.replace("group-by", "groupby"), "8:3: unknown key 'groupby'", "group-by"),
    "bad timespan": (CORRELATION.replace("1h", "1 hour"), "9:3: Timespan '1 hour' is invalid", "10m"),
    "three comparisons": (CORRELATION.replace("gte: 3", "gte: 3, gt: 1"), "one comparison, or two", ""),
    "count of nothing": (CORRELATION.replace("gte: 3", "gte: many"), "is no valid Sigma correlation condition", ""),
    "value_count without a field": (CORRELATION.replace("field: user.id, ", ""), "needs a 'field'", ""),
    "rule not there": (CORRELATION, "7:11: there is no rule 'my-rule'", ""),
    "alias of a stranger": (CORRELATION.replace("named: user", "nmaed: user"), "'nmaed' is not among", "named"),
    "id twice": (BASE + "---\n" + BASE, "'my-rule' is there twice, first in", ""),
    "key twice": (BASE + "level: high\n", "6:1: key 'level' is there twice", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_told_with_its_place(name: str, tmp_path: Path):
    text, message, hint = BROKEN[name]
    with pytest.raises(RuleError) as caught:
        loaded(tmp_path, text)
    error = caught.value
    assert error.location is not None
    assert error.location.line > 0
    assert message in str(error)
    assert hint in error.hint
    kept = loaded(tmp_path, text, keep_going=True)
    assert str(kept.errors[0].as_error()) == str(error)


def test_what_leans_on_a_broken_rule_falls_with_it_and_the_rest_stands(tmp_path: Path):
    text = CORRELATION + BASE.replace("user.name", "user.nmae") + "---\n" + NAMED
    result = loaded(tmp_path, text, keep_going=True)
    assert [rule.name for rule in result.rules] == ["U"]
    assert [problem.kind for problem in result.errors] == [ProblemKind.BROKEN, ProblemKind.MISSING_REFERENCE]


def test_rules_for_other_products_keep_their_own_field_names(tmp_path: Path):
    text = BASE.replace("product: linux, service: sshd", "product: windows, category: process_creation")
    result = loaded(tmp_path, text.replace("user.name", "CommandLine"))
    assert len(result.rules) == 1
    assert [(problem.kind, problem.severity) for problem in result.problems] == [
        (ProblemKind.UNKNOWN_FIELD, Severity.WARNING)
    ]


def test_a_part_the_condition_never_names_is_a_warning(tmp_path: Path):
    result = loaded(tmp_path, BASE.replace("condition", "t: {user.id: x}, condition"))
    assert [problem.kind for problem in result.problems] == [ProblemKind.UNUSED_DETECTION]


def test_other_peoples_dollar_signs_are_left_alone(tmp_path: Path):
    (found,) = loaded(tmp_path, detection("message|contains: '${ssh.gateways}'")).rules
    assert found.when == Test("message", Op.CONTAINS, ("${ssh.gateways}",))


def test_folders_are_read_recursively_in_byte_order(tmp_path: Path):
    for number, name in enumerate(["b.yml", "a/z.yml", "a/.h.yaml", "B.yml", "a/no.txt"]):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(BASE.replace("my-rule", f"my-rule{number}"))
    assert [rule.id for rule in load([tmp_path]).rules] == ["my-rule3", "my-rule2", "my-rule1", "my-rule0"]


def test_a_path_that_is_not_there_is_an_error(tmp_path: Path):
    with pytest.raises(RuleError, match="no such file"):
        load([tmp_path / "none.yml"])
