"""`vedette attack`: exit codes, places of what is wrong, one object a line, and nothing hostile on the terminal.
Counterpart: vedette.cli.attack and vedette.app.attacks; programs are scripts of this test."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.cli.parts import HARMFUL, vedette

from vedette.app.attacks import chosen, run_attacks
from vedette.model.clock import SystemClock
from vedette.model.errors import VedetteError
from vedette.model.fields import FIELDS

GOOD = """Feature: shop
  Background:
    Given "show" is installed in my path
  @quick
  Scenario: fine
    When I run `show open`
    Then the output should contain "open"
  Scenario: wrong
    When I run `show open`
    Then the output should contain "shut"
  Scenario: empty
    When I run `show`
    Then the output should not contain "shut"
  Scenario: missing
    When I run `nosuchprogram`
    Then the output should not contain "shut"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "show"
    program.write_text('#!/bin/sh\nprintf "$*"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "shop.attack").write_text(GOOD)
    return tmp_path


def test_check_of_what_is_right(folder: Path):
    ran = vedette("attack", "check", folder / "shop.attack", folder / "shop.attack")
    assert (ran.code, ran.out) == (0, "")
    assert ran.err == "8 scenarios, 24 steps, 0 problems\n"


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ('contain "open"', "contains open", 7, "unknown step"),
        ("When I run `nosuchprogram`", "Wen I run `nosuchprogram`", 15, "unknown keyword 'Wen'"),
        ("I run `show`", "I run `show | cat`", 12, "without a shell"),
        (
            "    When I run `show open`\n",
            "    When a table:\n      | a | b |\n      | c |\n",
            8,
            "inconsistent cell count",
        ),
        (GOOD, "Feature: shop\n", 1, "no scenario"),
        (GOOD, "Feature: shop\n  Scenario: a\n", 2, "has no steps"),
        (GOOD, "", 1, "no feature"),
    ],
)
@pytest.mark.parametrize("command", ["check", "run"])
def test_what_is_wrong_is_said_with_file_and_line(folder: Path, command: str, old: str, new: str, line: int, said: str):
    file = folder / "shop.attack"
    assert old in GOOD
    file.write_text(GOOD.replace(old, new, 1))
    ran = vedette("attack", command, file)
    assert (ran.code, ran.out) == (2, "")
    first = ran.err.splitlines()[0]
    assert first.startswith(f"vedette: {file}:{line}")
    assert said in first


def test_files_that_cannot_be_read(folder: Path):
    for name in ("nosuch.attack", "."):
        ran = vedette("attack", "check", folder / "shop.attack", folder / name)
        assert ran.code == 2
        assert str(folder / name) in ran.err


def test_problems_and_notes_as_objects(folder: Path):
    (folder / "shop.attack").write_text(GOOD.replace("show", "show >x", 1).replace('contain "open"', "contains"))
    ran = vedette("attack", "check", folder / "shop.attack", "--output", "json")
    assert [(one["line"], one["message"].partition(":")[0]) for one in ran.records] == [
        (3, "unknown step"),
        (7, "unknown step"),
    ]
    assert all(one["file"].endswith("shop.attack") and one["hint"] for one in ran.records)


def test_run_says_every_verdict(folder: Path):
    ran = vedette("attack", "run", folder / "shop.attack")
    assert ran.code == 1
    file = folder / "shop.attack"
    lines = [line for line in ran.out.splitlines() if not line.startswith(" ")]
    assert lines == [
        f"passed: {file}:5: fine",
        f"failed: {file}:8: wrong",
        f"vacuous: {file}:11: empty",
        f"could-not-tell: {file}:14: missing",
    ]
    assert 'not-as-expected at line 10, `Then the output should contain "shut"`' in ran.out
    assert "no-output at line 13" in ran.out
    assert "command: nosuchprogram" in ran.out
    assert ran.err == "4 scenarios: 1 passed, 1 failed, 1 vacuous, 1 could-not-tell\n"


def test_run_as_objects_with_declared_fields(folder: Path):
    ran = vedette("attack", "run", folder / "shop.attack", "--output", "json")
    assert [(one["scenario"], one["line"], one["verdict"], one["reason"]) for one in ran.records] == [
        ("fine", 5, "passed", "as-expected"),
        ("wrong", 8, "failed", "not-as-expected"),
        ("empty", 11, "vacuous", "no-output"),
        ("missing", 14, "could-not-tell", "not-installed"),
    ]
    assert [one["event.outcome"] for one in ran.records] == ["success", "failure", "failure", "unknown"]
    assert {one["event.action"] for one in ran.records[1:]} == {"attack-failed"}
    for one in ran.records:
        assert {name for name in one if name.startswith("vedette.")} <= FIELDS.keys()
        assert one["vedette.attacks.file"] == one["file"] == str(folder / "shop.attack")


@pytest.mark.parametrize(
    ("tags", "code", "ran_"), [("@quick", 0, 1), ("~@quick", 1, 3), ("@nosuch", 2, 0), ("quick,@x", 0, 1)]
)
def test_tags_choose(folder: Path, tags: str, code: int, ran_: int):
    ran = vedette("attack", "run", folder / "shop.attack", "--tags", tags, "--output", "json")
    assert (ran.code, len(ran.records)) == (code, ran_)


def test_tag_expressions():
    assert chosen(("@a", "@b"), ("@a,@c", "@b"))
    assert not chosen(("@a",), ("@a", "@b"))
    assert not chosen(("@a", "@slow"), ("@a", "~@slow"))
    assert chosen((), ())


def test_could_not_tell_alone_is_exit_2(folder: Path):
    (folder / "shop.attack").write_text(
        "Feature: a\nScenario: b\nWhen I run `nosuchprogram`\nThen the exit status should be 0\n"
    )
    assert vedette("attack", "run", folder / "shop.attack").code == 2


def test_only_one_s_own_with_a_policy(folder: Path):
    policy = folder / "ports.yml"
    policy.write_text("version: 1\nown_networks: [192.0.2.0/24]\nhosts:\n  me: {addresses: [192.0.2.1]}\n")
    policy.chmod(0o600)
    text = 'Feature: a\nScenario: b\nWhen I run `show {}`\nThen the output should contain "open"\n'
    for address, code in (("192.0.2.9 open", 0), ("203.0.113.9 open", 2)):
        (folder / "shop.attack").write_text(text.format(address))
        ran = vedette("attack", "run", folder / "shop.attack", "--policy", policy)
        assert ran.code == code, ran.out
    assert "outside-own-networks" in ran.out
    assert vedette("attack", "run", folder / "shop.attack", "--policy", folder / "nosuch.yml").code == 2


def test_what_programs_write_cannot_act_on_the_terminal(folder: Path):
    hostile = r"\033[2J\233\r\n\342\200\256evil"
    program = folder / "show"
    program.write_text(f"#!/bin/sh\nprintf '{hostile}'\n")
    (folder / "shop.attack").write_text(
        'Feature: a\x1b[2J\nScenario: \u202eb\nWhen I run `show`\nThen the output should contain "x"\n'
    )
    for more in ((), ("--output", "json")):
        ran = vedette("attack", "run", folder / "shop.attack", *more)
        assert ran.code == 1
        assert "evil" in ran.out
        assert not set(ran.out + ran.err) & set(HARMFUL)


@pytest.mark.slow
def is_gone(pid: int) -> bool:
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_whoever_ends_it_ends_what_it_runs(folder: Path):
    (folder / "show").write_text(f"#!/bin/sh\necho $$ > {folder}/pid\nexec sleep 600\n")
    command = [sys.executable, "-m", "vedette", "attack", "run", folder / "shop.attack", "--timeout", "600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        for _ in range(2000):
            if (folder / "pid").exists() and (folder / "pid").read_text():
                break
            time.sleep(0.01)
        pid = int((folder / "pid").read_text())
        process.terminate()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    # The kernel may need a moment to carry out what it was told.
    assert any(is_gone(pid) for _ in range(1000) if not time.sleep(0.01))


def test_what_was_not_finished_is_no_outcome(folder: Path):
    stop = threading.Event()
    outcomes = run_attacks([folder / "shop.attack"], SystemClock(), stop=stop, told=lambda _: stop.set())
    assert [one.scenario for one in outcomes] == ["fine"]


def test_a_bad_file_is_an_error_to_a_schedule_too(folder: Path):
    (folder / "shop.attack").write_text("Feature: a\nScenario: b\nWhen all is well\n")
    with pytest.raises(VedetteError, match=r"shop.attack:3: unknown step: all is well"):
        run_attacks([folder / "shop.attack"], SystemClock())


@pytest.mark.corpus
def test_every_step_of_the_examples_is_recognised(corpus: Path):
    files = [
        path for path in sorted((corpus / "gauntlt" / "examples").rglob("*")) if path.suffix in (".attack", ".example")
    ]
    assert len(files) >= 13
    ran = vedette("attack", "check", *files)
    assert ran.code == 0, ran.err
    assert "20 scenarios" in ran.err
    assert " 0 problems" in ran.err


@pytest.mark.corpus
def test_every_alias_that_is_shipped_is_known_by_the_same_command(corpus: Path):
    import json

    from vedette.sources.attacks.aliases import ALIASES

    shipped = {}
    for file in sorted((corpus / "gauntlt" / "attack_aliases").glob("*.json")):
        shipped |= {name: one["command"] for name, one in json.loads(file.read_text()).items()}
    assert len(shipped) > 10
    assert dict(ALIASES) == shipped
