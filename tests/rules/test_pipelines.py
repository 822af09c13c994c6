"""Pipelines: ours on records with the names they are for, and what pySigma's do to a rule."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.detections.reference import holds

from vedette.model.errors import RuleError
from vedette.model.rules import All, Any, LogSource, Not, Op, Rule, Test
from vedette.rules.files import pipeline_names as names
from vedette.rules.loading import load
from vedette.rules.pipelines import load_pipelines
from vedette.rules.settings import RulesSettings

PROCESS = """\
title: T
id: 5f0d2a2e-0000-4000-8000-000000000001
name: base
level: high
logsource: {product: PRODUCT, category: process_creation}
detection:
  selection:
    Image|endswith: /nc
    CommandLine|contains: ' -e '
  filter: {User: backup}
  condition: selection and not filter
"""


def one(tmp_path: Path, text: str, *pipelines: str) -> Rule:
    (tmp_path / "r.yml").write_text(text)
    return load([tmp_path / "r.yml"], pipelines=pipelines).rules[0]


def linux(text: str) -> str:
    return text.replace("PRODUCT", "linux")


# -------------------------------------------------------------------------------------------------------- ours

WEB = """\
title: T
id: 5f0d2a2e-0000-4000-8000-000000000001
level: high
logsource: {category: webserver}
detection: {selection: {cs-uri-query|contains: /etc/passwd, sc-status: 200}, condition: selection}
"""
SUDO = """\
title: T
id: 5f0d2a2e-0000-4000-8000-000000000001
level: high
logsource: {product: linux, service: sudo}
detection: {selection: {Image|endswith: /sudo}, condition: selection}
"""
HASHES = """\
title: T
id: 5f0d2a2e-0000-4000-8000-000000000001
level: high
logsource: {product: windows, category: process_creation}
detection: {selection: {Hashes|contains: [MD5=0F, IMPHASH=AA]}, condition: selection}
"""
ANYTHING = LogSource()
OURS = [
    (
        "ecs",
        linux(PROCESS),
        ANYTHING,
        {
            "event.category": "process",
            "event.type": ("info", "start"),
            "host.os.type": "linux",
            "process.executable": "/bin/nc",
            "process.command_line": "nc -e sh",
            "user.name": "jo",
        },
        {"event.type": "end", "host.os.type": "windows", "user.name": "backup", "process.executable": "/bin/ncat"},
    ),
    (
        "ecs",
        HASHES,
        ANYTHING,
        {"event.category": "process", "event.type": "start", "host.os.type": "windows", "process.hash.md5": "0f"},
        {"process.hash.md5": "0fab", "host.os.type": "linux"},
    ),
    (
        "sysmon",
        PROCESS.replace("PRODUCT", "windows"),
        LogSource("windows", "", "sysmon"),
        {"EventID": 1, "Image": "/nc", "CommandLine": "nc -e sh", "User": "jo"},
        {"EventID": 5, "User": "backup"},
    ),
    (
        "linux-auditd",
        linux(PROCESS),
        ANYTHING,
        {"syscall": "59", "exe": "/bin/nc", "proctitle": "nc -e sh", "uid": "0"},
        {"syscall": "42", "exe": "/bin/ncat", "uid": "backup"},
    ),
    (
        "journald",
        SUDO,
        ANYTHING,
        {"SYSLOG_IDENTIFIER": "sudo", "_EXE": "/usr/bin/sudo"},
        {"SYSLOG_IDENTIFIER": "su", "_EXE": "/usr/bin/su"},
    ),
    (
        "web",
        WEB,
        ANYTHING,
        {"http.request.method": "GET", "url.query": "f=/etc/passwd", "http.response.status_code": 200},
        {"url.query": "f=x", "http.response.status_code": 404, "http.request.method": None},
    ),
]


def test_every_pipeline_of_ours_is_tried_here():
    assert sorted({name for name, *_ in OURS}) == names() == ["ecs", "journald", "linux-auditd", "sysmon", "web"]


@pytest.mark.parametrize(("name", "text", "logsource", "event", "others"), OURS, ids=[one[0] for one in OURS])
def test_ours_bring_rules_to_records_with_other_names(
    tmp_path: Path, name: str, text: str, logsource: LogSource, event: dict[str, object], others: dict[str, object]
):
    rule = one(tmp_path, text, name)
    assert rule.logsource == logsource
    assert holds(rule.when, event, "")
    for field, value in others.items():
        changed = {key: one for key, one in {**event, field: value}.items() if one is not None}
        assert not holds(rule.when, changed, ""), field


def test_what_a_pipeline_is_not_for_stays_as_it_is(tmp_path: Path):
    for name in names():
        other = PROCESS.replace("PRODUCT", "aix").replace("process_creation", "ps_module")
        rule, plain = one(tmp_path, other, name), one(tmp_path, other)
        if name != "ecs":
            assert (rule.when, rule.logsource) == (plain.when, plain.logsource)
        else:  # names are names, whatever the log source
            assert rule.logsource == plain.logsource


def test_pipelines_leave_our_packs_alone():
    plain = load((), packs=True, settings=RulesSettings()).rules
    assert load((), packs=True, settings=RulesSettings(pipelines=tuple(names()))).rules == plain


# -------------------------------------------------------------------------------------------- what pySigma's do


def pipeline(tmp_path: Path, text: str, name: str = "p.yml") -> str:
    file = tmp_path / name
    file.write_text(text)
    return str(file)


def transformed(tmp_path: Path, *items: str, extra: str = "") -> Rule:
    text = f"name: p\n{extra}transformations:\n" + "".join(f"  - {item}\n" for item in items)
    return one(tmp_path, linux(PROCESS), pipeline(tmp_path, text))


IMAGE = Test("Image", Op.ENDSWITH, ("/nc",))
LINE = Test("CommandLine", Op.CONTAINS, (" -e ",))
BACKUP = Not(Test("User", Op.EQUALS, ("backup",)))


def test_one_field_may_become_several(tmp_path: Path):
    rule = transformed(tmp_path, "{type: field_name_mapping, mapping: {User: [user.name, uid]}}")
    either = Any((Test("user.name", Op.EQUALS, ("backup",)), Test("uid", Op.EQUALS, ("backup",))))
    assert rule.when == All((All((IMAGE, LINE)), Not(either)))


@pytest.mark.parametrize(
    ("item", "when"),
    [
        ("{type: field_name_prefix, prefix: win.}", All((
            All((Test("win.Image", Op.ENDSWITH, ("/nc",)), Test("win.CommandLine", Op.CONTAINS, (" -e ",)))),
            Not(Test("win.User", Op.EQUALS, ("backup",))),
        ))),
        ("{type: drop_detection_item, field_name_conditions: [{type: include_fields, fields: [User]}]}",
         All((IMAGE, LINE))),
        ("{type: add_condition, conditions: {type: a}, name: x}",
         All((Test("type", Op.EQUALS, ("a",)), All((All((IMAGE, LINE)), BACKUP))))),
        ("{type: replace_string, regex: '^.*/nc$', replacement: '*/ncat', interpret_special: true}",
         All((All((Test("Image", Op.ENDSWITH, ("/ncat",)), LINE)), BACKUP))),
        ("{type: set_state, key: a, val: b}", All((All((IMAGE, LINE)), BACKUP))),
    ],
)  # fmt: skip
def test_transformations(tmp_path: Path, item: str, when: All):
    assert transformed(tmp_path, item).when == when


def test_a_pipeline_of_lower_priority_goes_first(tmp_path: Path):
    first = pipeline(
        tmp_path, "priority: 1\ntransformations: [{type: field_name_mapping, mapping: {User: a}}]", "first.yml"
    )
    second = pipeline(
        tmp_path, "priority: 2\ntransformations: [{type: field_name_mapping, mapping: {a: b, User: c}}]", "second.yml"
    )
    for order in [(first, second), (second, first)]:
        rule = one(tmp_path, linux(PROCESS), *order)
        assert rule.when == All((All((IMAGE, LINE)), Not(Test("b", Op.EQUALS, ("backup",)))))


def test_placeholders_may_come_from_a_pipeline_or_the_settings(tmp_path: Path):
    text = linux(PROCESS).replace("User: backup", "User|expand: ['%ours%', '%theirs%']")
    (tmp_path / "r.yml").write_text(text)
    vars_of = pipeline(tmp_path, "vars: {theirs: [di, 'e*']}\ntransformations: [{type: value_placeholders}]")
    settings = RulesSettings(placeholders={"ours": ("jo",)}, pipelines=(vars_of,))
    (rule,) = load([tmp_path / "r.yml"], settings=settings).rules
    users = Any((Test("User", Op.EQUALS, ("jo", "di")), Test("User", Op.STARTSWITH, ("e",))))
    assert rule.when == All((All((IMAGE, LINE)), Not(users)))
    with pytest.raises(RuleError, match="%theirs%"):
        load([tmp_path / "r.yml"], settings=RulesSettings(placeholders={"ours": ("jo",)}, pipelines=("web",)))


KEYED = """
vedette: {key: [User]}
---
title: Many
id: my-many
level: high
correlation:
  type: value_count
  rules: [base]
  group-by: [User, other]
  timespan: 5m
  condition: {gte: 3, field: Image}
  aliases: {other: {base: CommandLine}}
"""


def test_keys_and_correlations_follow(tmp_path: Path):
    words = pipeline(
        tmp_path, "transformations: [{type: field_name_mapping, mapping: {User: u, Image: i, CommandLine: c}}]"
    )
    (tmp_path / "r.yml").write_text(linux(PROCESS) + KEYED)
    base, many = load([tmp_path / "r.yml"], pipelines=[words]).rules
    assert base.key == ("u",)
    assert many.correlate is not None
    assert (many.correlate.group_by, many.key) == (("u", "other"), ("u", "other"))
    assert many.correlate.fields == ("i",)
    assert many.correlate.aliases == (("other", base.id, "c"),)


def test_a_key_of_several_fields_or_of_other_names_for_each_rule_is_an_error(tmp_path: Path):
    text = linux(PROCESS) + KEYED
    words = pipeline(tmp_path, "transformations: [{type: field_name_mapping, mapping: {User: [a, b]}}]")
    (tmp_path / "r.yml").write_text(text)
    with pytest.raises(RuleError, match="maps 'User' to several fields: a, b"):
        load([tmp_path / "r.yml"], pipelines=[words])
    second = linux(PROCESS).replace("linux", "aix").replace("0001", "0002").replace("name: base", "name: second")
    (tmp_path / "r.yml").write_text(
        text.replace("[base]", "[base, second]").replace("vedette: {key: [User]}\n", "") + "---\n" + second
    )
    mapping = "{type: field_name_mapping, mapping: {User: u}, rule_conditions: [{type: logsource, product: aix}]}"
    words = pipeline(tmp_path, f"transformations: [{mapping}]")
    with pytest.raises(RuleError, match="call 'User' differently"):
        load([tmp_path / "r.yml"], pipelines=[words])


BROKEN = {
    "no such name": (None, "no such pipeline", "ecs"),
    "not yaml": ("a: [", "no valid YAML", ""),
    "a list": ("- a\n", "a document is a mapping", ""),
    "two documents": ("name: a\n---\nname: b\n", "a pipeline is one document", ""),
    "typo in a key": ("transformatons: []\n", "1:1: unknown key 'transformatons'", "transformations"),
    "no list": ("transformations: {a: b}\n", "1:1: 'transformations' is a list", ""),
    "unknown transformation": (
        "transformations:\n  - type: set_state\n    key: a\n    val: b\n  - type: fly\n",
        "5:5: ",
        "",
    ),
    "no type": ("transformations:\n  - {mapping: {}}\n", "2:5: ", ""),
    "no mapping": ("transformations:\n  - {type: field_name_mapping}\n", "2:5: ", ""),
    "text for an item": ("transformations: [a]\n", "1:19: ", ""),
    "a command": (
        "transformations:\n  - {type: command_placeholders, command: id}\n",
        "reaches outside",
        "placeholders",
    ),
    "a nested one": (
        "transformations:\n  - {type: nest, items: [{type: http_placeholders, url: 'http://192.0.2.1/'}]}\n",
        "2:5: 'http_placeholders' reaches outside",
        "",
    ),
    "priority": ("priority: high\n", "'priority' is a whole number", ""),
    "vars": ("vars: [a]\n", "'vars' is a mapping", ""),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_pipeline_is_told_with_its_place(tmp_path: Path, name: str):
    text, message, hint = BROKEN[name]
    word = "esc" if text is None else pipeline(tmp_path, text)
    with pytest.raises(RuleError) as caught:
        one(tmp_path, linux(PROCESS), word)
    assert message in str(caught.value)
    assert hint in caught.value.hint
    assert caught.value.location is not None


def test_a_rule_that_a_pipeline_fails_is_told_and_the_rest_runs(tmp_path: Path):
    failing = "{type: rule_failure, message: not here, rule_conditions: [{type: logsource, product: linux}]}"
    words = pipeline(tmp_path, f"transformations: [{failing}]")
    other = PROCESS.replace("PRODUCT", "aix").replace("0001", "0002").replace("name: base", "name: second")
    (tmp_path / "r.yml").write_text(linux(PROCESS) + "---\n" + other)
    result = load([tmp_path / "r.yml"], pipelines=[words], keep_going=True)
    assert [rule.logsource.product for rule in result.rules] == ["aix"]
    assert [(problem.location.line, "not here" in problem.message) for problem in result.errors] == [(1, True)]


def test_nothing_left_of_a_rule_is_an_error(tmp_path: Path):
    with pytest.raises(RuleError, match="leave nothing of this condition"):
        transformed(tmp_path, "{type: drop_detection_item}")


def test_no_pipelines_are_none_and_nothing_that_fetches_is_imported():
    assert load_pipelines([]) is None
    assert not {name for name in sys.modules if name.startswith(("sigma.data", "sigma.validators"))}


@pytest.mark.corpus
@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_every_rule_of_sigmahq_goes_through_ours(corpus: Path, name: str):
    result = load([corpus / "sigma" / "rules"], keep_going=True, pipelines=[name])
    assert not result.errors
    assert len(result.rules) > 3000


def test_a_rule_says_which_pipelines_had_something_to_say_of_it(tmp_path: Path):
    assert one(tmp_path, linux(PROCESS)).pipelines == ()
    assert one(tmp_path, linux(PROCESS), "web", "ecs").pipelines == ("ecs",)
    # Of two that rename the same the first one has the word.
    assert one(tmp_path, linux(PROCESS), "linux-auditd", "ecs").pipelines == ("linux-auditd", "ecs")
