"""`vedette rules list|test|lint`: what is printed of good and broken files, and the exit code.
Counterpart: vedette.cli.rules."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.parts import HARMFUL, vedette

GOOD = """title: Root logged in
id: my-root-login
status: stable
level: low
logsource: {product: linux, service: sshd}
detection:
  login:
    event.action: ssh-login-succeeded
    user.name: root
  condition: login
vedette:
  advice: Ask who it was.
  cases:
    - name: root by key
      lines: ['Nov 24 04:00:00 h sshd[1]: Accepted publickey for root from 203.0.113.7 port 5 ssh2: ED25519 SHA256:a']
      expect: [{source.ip: 203.0.113.7}]
    - name: somebody else
      lines: ['Nov 24 04:00:00 h sshd[1]: Accepted publickey for bob from 203.0.113.7 port 5 ssh2: ED25519 SHA256:a']
      expect: []
"""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.yml"
    path.write_text(GOOD)
    return path


def test_the_list_has_what_loads(rules: Path):
    ran = vedette("rules", "list", rules, "--output", "json")
    assert ran.code == 0
    (record,) = ran.records
    assert (record["rule.id"], record["level"], record["kind"]) == ("my-root-login", "low", "event")
    assert record["step"] == "page"
    assert record["fields"] == ["event.action", "user.name"]
    assert (record["file"], record["line"]) == (str(rules), 1)
    text = vedette("rules", "list", rules).out.splitlines()
    assert text[0].split()[:2] == ["RULE", "LEVEL"]
    assert text[1].startswith("my-root-login  low")


def test_the_list_says_which_pipelines_were_applied(rules: Path):
    rules.write_text(
        "title: T\nid: 5f0d2a2e-0000-4000-8000-000000000001\nlogsource: {product: linux, category: process_creation}\n"
        "detection: {a: {Image: /bin/id}, condition: a}\nlevel: low\n"
    )
    assert "PIPELINES" not in vedette("rules", "list", rules).out
    named = ("rules", "list", rules, "--pipeline", "ecs")
    (record,) = vedette(*named, "--output", "json").records
    assert (record["pipelines"], record["fields"][-1]) == (["ecs"], "process.executable")
    assert "PIPELINES" in vedette(*named).out.splitlines()[0]


def test_every_field_a_correlation_counts_is_listed(rules: Path):
    rules.write_text(
        GOOD
        + "---\ntitle: Pairs\nid: my-pairs\ncorrelation: {type: value_count, rules: [my-root-login], timespan: 5m, "
        "group-by: [source.ip], condition: {field: [user.name, host.name], gte: 3}}\nlevel: low\n"
    )
    listed = {one["rule.id"]: one for one in vedette("rules", "list", rules, "--output", "json").records}
    assert listed["my-pairs"]["fields"] == ["source.ip", "user.name", "host.name"]


def test_our_packs_are_listed_where_nothing_is_named():
    ids = {one["rule.id"] for one in vedette("rules", "list", "--output", "json").records}
    assert {"ssh-brute-force-address", "logging-stopped"} <= ids


def test_a_broken_file_is_said_with_its_line_and_the_rest_is_listed(rules: Path):
    broken = rules.with_name("broken.yml")
    broken.write_text(GOOD.replace("my-root-login", "my-other").replace("user.name: root", "user.nmae: root"))
    ran = vedette("rules", "list", rules.parent, "--output", "json")
    assert ran.code == 2
    assert [one["rule.id"] for one in ran.records] == ["my-root-login"]
    assert f"{broken}:9" in ran.err
    linted = vedette("rules", "lint", broken, "--output", "json")
    assert linted.code == 2
    (error,) = [one for one in linted.records if one["severity"] == "error"]
    assert (error["file"], error["line"]) == (str(broken), 9)
    assert "user.name" in error["hint"]


def test_lint_is_silent_on_what_is_right_and_1_for_warnings(rules: Path):
    fine = vedette("rules", "lint", rules)
    assert (fine.code, fine.out, fine.err) == (0, "", "")
    rules.write_text(GOOD.replace("    user.name: root", "    user.name: root\n    process.command_line: id"))
    ran = vedette("rules", "lint", rules)
    assert ran.code == 1
    assert f"{rules}:10:5: warning: 'process.command_line' is not given by the parser of 'sshd'" in ran.out
    assert ran.err == "1 warning\n"


def test_what_is_only_worth_knowing_is_shown_when_asked_for(rules: Path):
    rules.write_text(GOOD.replace("  advice: Ask who it was.\n", ""))
    ran = vedette("rules", "lint", rules)
    assert (ran.code, ran.out, ran.err) == (0, "", "1 note (--notes shows them)\n")
    shown = vedette("rules", "lint", rules, "--notes")
    assert (shown.code, shown.err) == (0, "1 note\n")
    assert f"{rules}:1:1: note: no advice" in shown.out
    assert vedette("rules", "lint", rules, "--kind", "no-case").out == ""
    assert "no advice" in vedette("rules", "lint", rules, "--kind", "no-advice").out
    (record,) = vedette("rules", "lint", rules, "--output", "json").records
    assert (record["severity"], record["kind"], record["rule.id"]) == ("note", "no-advice", "my-root-login")
    assert (record["file"], record["line"], record["column"]) == (str(rules), 1, 1)


def test_cases_that_hold_are_counted_and_disagreements_have_a_line_each(rules: Path):
    fine = vedette("rules", "test", rules)
    assert (fine.code, fine.out) == (0, "2 passed, 0 failed\n")
    rules.write_text(GOOD.replace("for bob", "for root"))
    ran = vedette("rules", "test", rules)
    assert ran.code == 1
    *lines, last = ran.out.splitlines()
    assert last == "1 passed, 1 failed"
    assert len(lines) == 1
    assert str(rules) in lines[0]
    assert "somebody else" in lines[0]


def test_what_cannot_be_read_counts_as_failed(rules: Path):
    rules.write_text(GOOD.replace("level: low", "level: enormous"))
    ran = vedette("rules", "test", rules)
    assert ran.code == 1
    assert f"{rules}:4" in ran.out
    assert ran.out.splitlines()[-1] == "0 passed, 1 failed"


def test_cases_may_need_rules_that_stand_elsewhere(rules: Path):
    assert (
        vedette("rules", "test", rules, "--rules", rules.parent / "none.yml").out.splitlines()[-1].endswith("1 failed")
    )
    assert vedette("rules", "test", rules, "--dialect", "klingon").code == 2


def test_coverage_as_a_table_rows_and_a_layer(tmp_path: Path):
    text = vedette("rules", "coverage")
    assert text.code == 0
    assert text.out.splitlines()[0].split() == ["TECHNIQUE", "RULES", "LEVEL", "WHICH"]
    assert any(line.startswith("T1110.001") for line in text.out.splitlines())
    rows = vedette("rules", "coverage", "--by", "service", "--output", "json").records
    assert "T1110.001" in next(row for row in rows if row["service"] == "linux/sshd")["techniques"]
    file = tmp_path / "layer.json"
    assert vedette("rules", "coverage", "--output", file).out == ""
    made = json.loads(file.read_text())
    assert made["versions"]["layer"] == "4.5"
    assert json.loads(vedette("rules", "coverage", "--output", "-").out) == made
    assert vedette("rules", "coverage", "--output", tmp_path / "no" / "layer.json").code == 2


def test_no_title_acts_on_a_terminal(rules: Path):
    hostile = 'title: "Root \\u001b[2J\\u202e\\u009b\\u007f logged in"'
    rules.write_text(GOOD.replace("title: Root logged in", hostile + "\ntags: [attack.t1078]"))
    for words in (["list"], ["list", "--output", "json"], ["coverage", "--output", "-"], ["lint", "--notes"]):
        out = vedette("rules", words[0], rules, *words[1:]).out
        assert not [one for one in HARMFUL + "\x7f" if one in out]
