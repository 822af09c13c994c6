"""`vedette rules new`: what it writes passes lint and test as it stands.
Counterpart: vedette.cli.rules.beginning and vedette.app.scaffolding."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from tests.cli.parts import vedette

from vedette.app.scaffolding import begin
from vedette.parsers.registry import PatternFile
from vedette.parsers.written import read_patterns

SSH = "Mar  1 10:00:00 web1 sshd[812]: "
PASSWORD = SSH + "Accepted password for svc-web from 203.0.113.5 port 4022 ssh2"
KEY = SSH + "Accepted publickey for alice from 203.0.113.5 port 4022 ssh2: ED25519 SHA256:a"
EVENT = {
    "EventID": 1,
    "Channel": "Microsoft-Windows-Sysmon/Operational",
    "UtcTime": "2026-03-01 10:00:00.000",
    "Computer": "pc1",
    "Image": "C:\\Users\\eve\\evil.exe",
    "CommandLine": "evil.exe * ?",
}


def passes(file: Path) -> None:
    linted = vedette("rules", "lint", file, "--notes")
    assert linted.code == 0, linted.out
    tested = vedette("rules", "test", file)
    assert (tested.code, tested.out.splitlines()[-1].split(", ")[1]) == (0, "0 failed"), tested.out
    assert int(tested.out.split()[0]) >= 2


def test_what_is_written_passes_lint_and_test(tmp_path: Path):
    file = tmp_path / "rule.yml"
    ran = vedette(
        "rules", "new", "--from", PASSWORD, "--not", KEY, "--id", "svc-login", "--title", "Service login",
        "--level", "high", "--write", file,
    )  # fmt: skip
    assert (ran.code, ran.out) == (0, "")
    passes(file)
    tree = yaml.safe_load(file.read_text())
    assert (tree["id"], tree["title"], tree["level"]) == ("svc-login", "Service login", "high")
    assert tree["detection"]["selection"] == {"event.action": "ssh-login-succeeded", "vedette.ssh.method": "password"}
    assert tree["vedette"]["key"] == ["source.ip"]
    assert [case["expect"] for case in tree["vedette"]["cases"]] == [[{"source.ip": "203.0.113.5"}], []]
    (listed,) = vedette("rules", "list", file, "--output", "json").records
    assert listed["step"] == "store"
    again = vedette("rules", "new", "--from", PASSWORD, "--write", file)
    assert again.code == 2
    assert "is there already" in again.err


def test_files_of_lines_and_a_negative_made_up_where_none_is_given(tmp_path: Path):
    samples, file = tmp_path / "samples.log", tmp_path / "rule.yml"
    samples.write_text(PASSWORD + "\n\n" + PASSWORD.replace("svc-web", "svc-db") + "\n")
    ran = vedette("rules", "new", "--from", samples, "--output", "json")
    (record,) = ran.records
    assert (record["samples"], record["fields"], record["key"]) == (2, ["event.action"], ["source.ip"])
    file.write_text(record["yaml"])
    passes(file)


def test_a_json_event(tmp_path: Path):
    other = {**EVENT, "Image": "C:\\Windows\\good.exe"}
    samples, others, file = tmp_path / "evil.jsonl", tmp_path / "good.jsonl", tmp_path / "rule.yml"
    samples.write_text(json.dumps(EVENT) + "\n")
    others.write_text(json.dumps(other) + "\n")
    for words in (("--not", others), ()):
        ran = vedette("rules", "new", "--from", samples, *words)
        assert ran.code == 0, ran.err
        file.write_text(ran.out)
        passes(file)
        tree = yaml.safe_load(ran.out)
        assert tree["logsource"] == {"product": "windows", "category": "process_creation"}
        assert tree["detection"]["selection"] == {"Image|endswith": "\\evil.exe"}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--from", PASSWORD, "--not", PASSWORD), "nothing tells --not 1 from --from 1"),
        (("--from", '{"a": 1}'), "no log source can be named"),
        (("--from", PASSWORD, "--id", "No Slug"), "no slug"),
        (("--from", PASSWORD, "--level", "enormous"), "unknown level"),
        (("--from", PASSWORD, "--write", "/nowhere/at/all.yml"), "cannot write"),
        ((), "Missing option"),
    ],
)
def test_what_cannot_be_is_exit_2(words: tuple[object, ...], why: str):
    ran = vedette("rules", "new", *words)
    assert (ran.code, ran.out) == (2, "")
    assert why in ran.err


def test_hostile_samples_are_left_out_of_cases():
    hostile = SSH + "Accepted password for eve\x1b[2J from 203.0.113.5 port 4022 ssh2"
    assert vedette("rules", "new", "--from", hostile).code == 2
    ran = vedette("rules", "new", "--from", PASSWORD, "--from", hostile)
    assert ran.code == 0
    assert "x1b" not in ran.out


def audit_event(serial: int, *words: str, folder: str = "/srv") -> str:
    head = f"msg=audit(1795132800.005:{serial}):"
    arguments = " ".join(f'a{n}="{word}"' for n, word in enumerate(words))
    return (
        f'type=SYSCALL {head} arch=c000003e syscall=59 success=yes exit=0 pid=9 uid=0 comm="nc" exe="/usr/bin/nc"\n'
        f'type=EXECVE {head} argc={len(words)} {arguments}\ntype=CWD {head} cwd="{folder}"\n'
        f"type=PROCTITLE {head} proctitle=6E63\n"
    )


def test_events_of_audit_are_samples_of_several_lines(tmp_path: Path):
    wanted, made = tmp_path / "audit.log", tmp_path / "made.yml"
    wanted.write_text(audit_event(1, "nc", "-e", "/bin/sh") + audit_event(2, "nc", "-e", "/bin/bash"))
    unwanted = audit_event(3, "nc", "-l", "80")
    ran = vedette("rules", "new", "--from", wanted, "--not", unwanted, "--write", made)
    assert ran.code == 0, ran.err
    passes(made)
    (document,) = yaml.safe_load_all(made.read_text())
    assert document["detection"]["selection"] == {"CommandLine|startswith": "nc -e /bin/"}
    cases = document["vedette"]["cases"]
    assert [len(case["lines"]) for case in cases] == [4, 4, 4]
    assert cases[2]["lines"] == unwanted.splitlines()
    # Where events lie in one another, too.
    lines = wanted.read_text().splitlines(keepends=True)
    wanted.write_text("".join([lines[0], lines[4], *lines[1:4], *lines[5:]]))
    assert vedette("rules", "new", "--from", wanted, "--not", unwanted).out == made.read_text()


def test_a_json_event_with_hostile_text_is_written_in_ascii(tmp_path: Path):
    samples, file = tmp_path / "evil.jsonl", tmp_path / "rule.yml"
    hostile = {**EVENT, "CommandLine": "evil \u202e \x9b"}
    samples.write_text(json.dumps(hostile, ensure_ascii=False) + "\n")
    ran = vedette("rules", "new", "--from", samples)
    assert ran.code == 0, ran.err
    assert ran.out.isascii()
    file.write_text(ran.out)
    passes(file)


@pytest.mark.slow
def undrafted(file: PatternFile) -> list[str]:
    """Patterns for whose samples, against a sample of each other pattern of that program, no rule can be drafted."""
    failed = []
    program = file.programs[0]
    lines = {
        pattern.id: [f"Mar  1 10:00:00 web1 {program}[812]: ".encode() + one.message for one in pattern.samples]
        for pattern in file.patterns
    }
    for pattern, own in lines.items():
        others = [theirs[0] for name, theirs in lines.items() if name != pattern and theirs]
        if not own:
            continue
        try:
            begin([(line, pattern) for line in own], [(line, "other") for line in others])
        except Exception as error:  # noqa: BLE001 (all of them are told at once)
            failed.append(f"{pattern}: {error}")
    return failed


@pytest.mark.slow
def test_every_pattern_of_ours_makes_a_rule_against_the_others():
    assert [words for file in read_patterns().files for words in undrafted(file)] == []


def test_every_pattern_of_one_program_makes_a_rule_against_the_others():
    (su,) = (file for file in read_patterns().files if file.service == "su")
    assert len(su.patterns) > 1
    assert undrafted(su) == []
