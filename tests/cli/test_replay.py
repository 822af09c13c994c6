"""`vedette replay` as the command contract has it: shape of a finding, exit codes, what goes where.
Counterpart: vedette.cli.replay."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest
from tests.cli.parts import HARMFUL, HOSTILE, vedette

from vedette.text.escape import encode

SUMMARY = re.compile(r"([0-9]+) records, [0-9.]+ seconds, [0-9]+ records/s, ([0-9]+) findings")


def guess(second: int, address: str = "203.0.113.7", user: str = "root", host: str = "web01") -> str:
    return f"Nov 24 04:00:{second:02d} {host} sshd[1]: Failed password for {user} from {address} port 5 ssh2"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Five guesses of one address among other lines; the fifth stands in line 7 and stands for two."""
    lines = [
        "Nov 24 04:00:00 web01 cron[9]: nothing",
        *(guess(second) for second in range(1, 4)),
        "Nov 24 04:00:04 web01 cron[9]: nothing",
        guess(5, "198.51.100.7"),
        "Nov 24 04:00:06 web01 sshd[1]: message repeated 2 times: "
        "[ Failed password for root from 203.0.113.7 port 5 ssh2]",
        guess(7),
    ]
    path = tmp_path / "auth.log"
    path.write_text("".join(line + "\n" for line in lines))
    return path


def test_a_finding_has_every_field_of_the_contract(log: Path):
    ran = vedette("replay", log, "--year", 2026, "--workers", 1, "--output", "json")
    assert ran.code == 0
    (found,) = [one for one in ran.records if one["rule.id"] == "ssh-brute-force-address"]
    assert len(found.pop("finding.id")) == 32
    assert found["rule.name"]
    assert found["level"] == "medium"
    assert found["@timestamp"] == "2026-11-24T04:00:06.000000Z"
    assert found["key"] == {"source.ip": "203.0.113.7"}
    assert (found["host.name"], found["source.ip"], found["user.name"]) == ("web01", "203.0.113.7", "root")
    assert found["count"] == 5
    assert found["records"] == [{"file": str(log), "line": line} for line in (2, 3, 4, 7)]
    summary = SUMMARY.fullmatch(ran.err.strip().splitlines()[-1])
    assert summary is not None
    assert summary.groups() == ("8", str(len(ran.records)))


def test_text_has_one_line_a_finding_and_says_where(log: Path):
    ran = vedette("replay", log, "--year", 2026, "--workers", 1)
    (line,) = [one for one in ran.out.splitlines() if "ssh-brute-force-address" in one]
    assert line.startswith("2026-11-24T04:00:06.000000Z  medium")
    assert line.endswith(f"source.ip=203.0.113.7  count=5  {log}:2")


def test_no_finding_is_exit_0_too(tmp_path: Path):
    log = tmp_path / "auth.log"
    log.write_text(guess(1) + "\n")
    ran = vedette("replay", log, "--year", 2026, "--workers", 1, "--output", "json")
    assert (ran.code, ran.out) == (0, "")
    assert SUMMARY.search(ran.err)


def test_files_are_merged_by_time_and_gzip_is_read(tmp_path: Path):
    new, old = tmp_path / "auth.log", tmp_path / "auth.log.2.gz"
    new.write_text("".join(guess(second) + "\n" for second in (3, 4, 5)))
    old.write_bytes(gzip.compress("".join(guess(second) + "\n" for second in (1, 2)).encode()))
    ran = vedette("replay", new, old, "--year", 2026, "--workers", 1, "--output", "json")
    (found,) = [one for one in ran.records if one["rule.id"] == "ssh-brute-force-address"]
    assert [(Path(one["file"]).name, one["line"]) for one in found["records"]] == [
        ("auth.log.2.gz", 1),
        ("auth.log.2.gz", 2),
        ("auth.log", 1),
        ("auth.log", 2),
        ("auth.log", 3),
    ]


def test_hostile_names_reach_neither_terminal_nor_shape_of_the_output(tmp_path: Path):
    name = HOSTILE.replace("\r\n", " ")
    lines = [guess(second, f"203.0.113.{second}", name) for second in range(1, 41)]
    log = tmp_path / "auth.log"
    log.write_bytes(b"".join(encode(line) + b"\n" for line in lines))
    for output in ("text", "json"):
        ran = vedette("replay", log, "--year", 2026, "--workers", 1, "--output", output)
        assert ran.code == 0
        assert "eve" in ran.out
        assert not [one for one in HARMFUL if one in ran.out + ran.err]


BROKEN = (
    "title: x\nid: x-y\nlevel: enormous\nlogsource: {product: linux}\ndetection: {a: {user.name: x}, condition: a}\n"
)


def test_a_broken_rule_runs_nothing_unless_told_to_go_on(log: Path, tmp_path: Path):
    rules = tmp_path / "rules.yml"
    rules.write_text(BROKEN)
    ran = vedette("replay", log, "--rules", rules, "--year", 2026, "--workers", 1, "--output", "json")
    assert (ran.code, ran.out) == (2, "")
    assert f"{rules}:3" in ran.err
    on = vedette("replay", log, "--rules", rules, "--keep-going", "--year", 2026, "--workers", 1, "--output", "json")
    assert on.code == 0
    assert on.records
    assert f"left out: {rules}:3" in on.err


def test_without_our_packs_only_what_is_named_runs(log: Path, tmp_path: Path):
    rules = tmp_path / "rules.yml"
    rules.write_text(BROKEN.replace("enormous", "low").replace("user.name: x", "user.name: root"))
    ran = vedette("replay", log, "--rules", rules, "--no-packs", "--year", 2026, "--workers", 1, "--output", "json")
    assert {one["rule.id"] for one in ran.records} == {"x-y"}


@pytest.mark.parametrize(
    "words",
    [
        ("--timezone", "Nowhere/Town"),
        ("--year", 12),
        ("--format", "xml"),
        ("--output", "xml"),
        ("--rules", "/none.yml"),
    ],
)
def test_what_cannot_be_used_is_exit_2(log: Path, words: tuple[object, ...]):
    ran = vedette("replay", log, *words)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err


def test_a_file_that_is_not_there_is_exit_2(tmp_path: Path):
    ran = vedette("replay", tmp_path / "none.log")
    assert ran.code == 2
    assert "none.log" in ran.err
