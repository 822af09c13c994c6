"""`vedette explain`: what each stage made of each kind of line, and whom it may blame.
Counterpart: vedette.cli.explain."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path

import pytest
from tests.cli.parts import HARMFUL, HOSTILE, vedette

from vedette.app.counters import Counters
from vedette.app.detection import load_matcher, parser_of
from vedette.model.rules import LogSource
from vedette.text.escape import encode

A = "203.0.113.7"
SSH = "Nov 24 04:00:00 web01 sshd[1]: "
GUESS = ["ssh-guess", "ssh-guess-known-user"]
LINES = {
    "failed password": (SSH + f"Failed password for root from {A} port 5 ssh2", "ssh-login-failed", A, GUESS),
    "unknown user": (
        SSH + f"Failed password for invalid user bob from {A} port 5 ssh2",
        "ssh-login-failed",
        A,
        ["ssh-guess", "ssh-unknown-user-tried"],
    ),
    "key offered": (SSH + f"Failed publickey for bob from {A} port 5 ssh2: RSA SHA256:a", "ssh-login-failed", A, []),
    "login": (
        SSH.replace("sshd", "sshd-session") + f"Accepted password for bob from {A} port 5 ssh2",
        "ssh-login-succeeded",
        A,
        ["ssh-success-after-failures"],
    ),
    "invalid user": (SSH + f"Invalid user bob from {A} port 5", "ssh-user-unknown", A, ["ssh-unknown-user-tried"]),
    "attacker's goodbye": (
        SSH + f"Received disconnect from {A} port 5:11: Bye from 198.51.100.9 port 22 ssh2 [preauth]",
        "ssh-disconnected",
        A,
        ["ssh-probe"],
    ),
    "closed": (SSH + f"Connection closed by {A} port 5 [preauth]", "ssh-connection-closed", A, ["ssh-probe"]),
    "repeated": (
        SSH + f"message repeated 3 times: [ Failed password for root from {A} port 5 ssh2]",
        "ssh-login-failed",
        A,
        GUESS,
    ),
    "sudo": (
        "Nov 24 04:00:00 web01 sudo:   bob : TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/ls",
        "sudo-command-run",
        None,
        [],
    ),
    "su": ("Nov 24 04:00:00 web01 su[1]: FAILED SU (to root) bob on pts/0", "su-failed", None, ["privilege-su-failed"]),
    "new user": (
        "Nov 24 04:00:00 web01 useradd[1]: new user: name=eve, UID=1001, GID=1001, home=/home/eve, shell=/bin/sh",
        "user-created",
        None,
        ["privilege-user-created"],
    ),
    "session": ("Nov 24 04:00:00 web01 systemd-logind[1]: New session 3 of user bob.", "session-opened", None, []),
    "another program": ("Nov 24 04:00:00 web01 cron[1]: whatever", None, None, []),
}


@pytest.fixture(autouse=True)
def _loaded_once(monkeypatch: pytest.MonkeyPatch):
    """Patterns and rules are the same for every line of this file."""
    monkeypatch.setattr("vedette.cli.explain.load_matcher", lambda rules, **_: _matcher())
    monkeypatch.setattr("vedette.cli.explain.parser_of", lambda *_: _parser())


@lru_cache
def _parser():
    return parser_of([LogSource()], Counters())


@lru_cache
def _matcher():
    return load_matcher([], packs=True, counter=Counters())


@pytest.mark.parametrize("kind", LINES)
def test_each_kind_of_line(kind: str):
    line, pattern, address, rules = LINES[kind]
    ran = vedette("explain", line, "--year", 2026, "--output", "json")
    assert ran.code == 0
    (record,) = ran.records
    assert record["header.ok"] is True
    assert record["@timestamp"] == "2026-11-24T04:00:00.000000Z"
    assert record["pattern.id"] == pattern
    assert record["fields"].get("source.ip") == address
    assert record["blame"] == ("allowed" if address else "no-address")
    assert [one["rule.id"] for one in record["rules"] if one["matched"]] == rules
    assert record["vedette.repeat"] == (3 if kind == "repeated" else 1)
    text = vedette("explain", line, "--year", 2026).out
    assert f"blame     {record['blame']}" in text
    assert ("pattern   none matches" in text) is (pattern is None)
    for rule in rules:
        assert f"rule      {rule}: MATCHES" in text
    assert ("verdict   no rule matches" in text) is (not rules)


def test_whose_text_it_is_and_what_the_rule_asked_is_said():
    text = vedette("explain", LINES["unknown user"][0], "--year", 2026).out
    assert "field     user.name = 'bob'   (attacker's text)" in text
    assert f"field     source.ip = '{A}'\n" in text
    assert f"counts for ssh-brute-force-address: event_count gte 5 by source.ip '{A}' in 10m" in text
    assert "yes event.action" in text
    assert ": other log source " not in text
    assert ": other log source " in vedette("explain", LINES["sudo"][0], "--all").out


def test_rules_nothing_was_found_of_are_counted_and_shown_when_asked_for():
    text = vedette("explain", LINES["failed password"][0]).out
    assert "rule      ssh-root-login:" not in text
    assert re.search(r"rules     not looked at: \d+ nothing of theirs is in it, \d+ of other log sources", text)
    everything = vedette("explain", LINES["failed password"][0], "--all").out
    assert "rule      ssh-root-login: no " in everything
    assert "not looked at" not in everything
    record = vedette("explain", LINES["failed password"][0], "--output", "json").records[0]
    assert {one["rule.id"] for one in record["rules"]} >= {"ssh-guess"}
    assert record["rules_not_looked_at"]["of other log sources"] > 0


def test_a_line_without_a_header_is_said_to_have_none():
    ran = vedette("explain", "not a syslog line at all", "--output", "json")
    assert ran.records[0]["header.ok"] is False
    assert ran.records[0]["message"] == "not a syslog line at all"
    assert "header    could not be read" in vedette("explain", "not a syslog line at all").out


def test_an_address_in_the_attackers_text_is_never_the_source():
    hostile = f"Failed password for invalid user x from 198.51.100.9 port 1 ssh2 from {A} port 5 ssh2"
    (record,) = vedette("explain", SSH + hostile, "--output", "json").records
    assert record["fields"].get("source.ip") in (A, None)
    assert "198.51.100.9" in record["fields"]["user.name"]


def test_standard_input_gives_bytes_that_no_argument_can():
    raw = encode(SSH + f"Invalid user {HOSTILE} from {A} port 5\nnext line").replace(b"\r\n", b" ", 1)
    ran = vedette("explain", "-", "--year", 2026, stdin=raw)
    assert ran.code == 0
    assert r"user.name = 'eve\x1b[2J\x9b31m Accepted \u{202e}for root\u{2028}\x9b'   (attacker's text)" in ran.out
    assert "next line" not in ran.out
    assert not [one for one in HARMFUL if one in ran.out]
    (record,) = vedette("explain", "-", "--year", 2026, "--output", "json", stdin=raw).records
    assert record["fields"]["user.name_b64"]


@pytest.mark.parametrize("words", [("--timezone", "Nowhere/Town"), ("--year", 3), ("--output", "xml")])
def test_what_cannot_be_used_is_exit_2(words: tuple[object, ...]):
    ran = vedette("explain", "x", *words)
    assert (ran.code, ran.out) == (2, "")


# ---------------------------------------------------------------------------------------------- other formats

SYSMON = {
    "Event": {
        "System": {
            "Provider": {"#attributes": {"Name": "Microsoft-Windows-Sysmon"}},
            "EventID": 1,
            "TimeCreated": {"#attributes": {"SystemTime": "2026-03-01T10:00:00.5Z"}},
            "Channel": "Microsoft-Windows-Sysmon/Operational",
            "Computer": "pc1",
        },
        "EventData": {
            "Image": "C:\\Windows\\cmd.exe",
            "CommandLine": "cmd /c \x1b[2J\u202ewhoami",
            "User": "PC1\\eve",
        },
    }
}
RULES = """title: A shell asks who it is
id: shell-whoami
level: high
logsource: {product: windows, category: process_creation}
detection:
  shell: {Image|endswith: \\cmd.exe, CommandLine|contains: whoami}
  fine: {User|startswith: 'NT AUTHORITY\\'}
  condition: shell and not fine
vedette: {groups: [shells]}
---
title: By eve
id: shell-whoami-eve
level: high
logsource: {product: windows, category: process_creation}
detection: {eve: {User|endswith: \\eve}, condition: eve}
vedette: {parents: [shells]}
---
title: By eve, of nothing
id: shell-other-eve
level: high
logsource: {product: windows, category: process_creation}
detection: {eve: {User|endswith: \\eve}, condition: eve}
vedette: {parents: [shell-other]}
---
title: Another shell
id: shell-other
level: high
logsource: {product: windows, category: process_creation}
detection: {other: {Image|endswith: \\pwsh.exe}, condition: other}
"""


@pytest.fixture
def shells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("vedette.cli.explain.load_matcher", load_matcher)
    (tmp_path / "rules.yml").write_text(RULES)
    return tmp_path / "rules.yml"


@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_event_on_one_line_or_many(shells: Path, indent: int | None):
    raw = json.dumps(SYSMON, indent=indent).encode() + b"\n" + json.dumps(SYSMON).encode()
    ran = vedette("explain", "-", "--rules", shells, "--no-packs", stdin=raw)
    assert ran.code == 0
    assert "format    json\ntime      2026-03-01T10:00:00.500000Z\n" in ran.out
    assert "source    product windows; category process_creation; service sysmon" in ran.out
    assert r"field     CommandLine = 'cmd /c \x1b[2J\u{202e}whoami'" in ran.out
    assert not [one for one in HARMFUL if one in ran.out]
    assert "blame     no-address" in ran.out
    assert "rule      shell-whoami-eve: MATCHES, high, up to page" in ran.out
    assert "no  not: User startswith 'NT AUTHORITY" in ran.out
    assert "asks for no block" in ran.out


def test_a_child_whose_parent_did_not_match_does_not_match(shells: Path):
    ran = vedette("explain", "-", "--rules", shells, "--no-packs", "--all", stdin=json.dumps(SYSMON).encode())
    assert "rule      shell-other-eve: no " in ran.out
    assert "its condition holds, but none of its parents matched: shell-other" in ran.out
    json_out = vedette(
        "explain", "-", "--rules", shells, "--no-packs", "--all", "--output", "json", stdin=json.dumps(SYSMON).encode()
    )
    (record,) = json_out.records
    found = {one["rule.id"]: (one["matched"], one["parent_missing"]) for one in record["rules"]}
    assert found["shell-whoami-eve"] == (True, False)
    assert found["shell-other-eve"] == (False, True)
    assert found["shell-other"] == (False, False)
    assert record["fields"]["EventID"] == 1
    assert (record["product"], record["categories"]) == ("windows", ["process_creation"])
    assert "CommandLine" in record["attacker_text"]
    (test,) = [
        test for one in record["rules"] if one["rule.id"] == "shell-whoami" for test in one["tests"] if test["negated"]
    ]
    assert test["held"] is False


def test_whom_a_matching_rule_asks_to_block():
    line = SSH + f"Accepted password for root from {A} port 5 ssh2"
    assert "asks for no block" in vedette("explain", line).out


def test_nothing_on_standard_input_is_a_line_without_a_header():
    ran = vedette("explain", "-", stdin=b"")
    assert "header    could not be read" in ran.out
