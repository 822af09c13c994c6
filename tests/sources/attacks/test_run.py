"""Scenarios run with programs of this test: verdicts, what makes a pass vacuous, time-outs, secrets, files.
Counterpart: vedette.sources.attacks.run, .judge and .expect; tests/scenarios/test_attacks.py has the real programs."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import astuple
from pathlib import Path

import pytest

from vedette.model.clock import SystemClock
from vedette.sources.attacks import run
from vedette.sources.attacks.feature import read_feature
from vedette.sources.attacks.outcomes import AttackOutcome, Reason, Verdict, exit_code, outcome_record
from vedette.sources.attacks.run import Bounds, run_scenario
from vedette.sources.attacks.steps import recognise
from vedette.text.addresses import parse_network

NMAP_UP = (
    '<nmaprun><scaninfo protocol="tcp" services="22,80"/><host><status state="up" reason="syn-ack"/></host>'
    '<runstats><finished exit="success"/><hosts total="1"/></runstats></nmaprun>'
)
NMAP_DOWN = NMAP_UP.replace('<host><status state="up" reason="syn-ack"/></host>', "")

Attack = Callable[..., AttackOutcome]


class Programs:
    """A folder of programs that come first on the path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def add(self, name: str, body: str) -> None:
        file = self.folder / name
        file.write_text(f"#!/bin/sh\n{body}\n")
        file.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(tmp_path / "bin")


def attack(
    programs: Programs,
    *steps: str,
    tags: str = "",
    environment: Mapping[str, str] | None = None,
    own: list[str] | None = None,
    timeout: float = 20.0,
    stop: threading.Event | None = None,
    sleep: Callable[[float], None] = lambda _: None,
) -> AttackOutcome:
    text = f"{tags}\nFeature: f\nScenario: s\n" + "".join(f"{step}\n" for step in steps)
    (scenario,), problems = read_feature(text.encode(), "x.attack")
    assert not problems
    meant, problems = recognise(scenario)
    assert not problems
    networks = None if own is None else [parse_network(one) for one in own]
    bounds = Bounds({"PATH": str(programs.folder), **(environment or {})}, lambda _: [], networks, timeout, stop, sleep)
    return run_scenario(scenario, meant, bounds, SystemClock())


def launch(command: str, adapter: str = "generic") -> str:
    return f'When I launch a "{adapter}" attack with:\n"""\n{command}\n"""'


def doc(step: str, text: str) -> str:
    return f'{step}\n"""\n{text}\n"""'


def profile(**values: str) -> str:
    rows = "".join(f"| {name} | {value} |\n" for name, value in values.items())
    return f"Given the following profile:\n| name | value |\n{rows}"


def secret(**names: str) -> str:
    rows = "".join(f"| {name} | {variable} |\n" for name, variable in names.items())
    return f"Given the following environment variables:\n| name | environment_variable_name |\n{rows}"


# ------------------------------------------------------------------------------------------- verdicts


def test_a_pass_says_where_what_and_how(programs: Programs):
    programs.add("show", 'echo "$@"; echo wrong >&2')
    found = attack(
        programs,
        profile(host="web1", more="-a -b"),
        launch("show <host> <more> '<host> <more>'"),
        'Then the output should contain "web1 -a -b web1 -a -b"',
        "And the output should match /^wrong$/",
        'And the stdout should not contain "wrong"',
        'And the stderr should contain exactly "wrong\\n"',
        "And the exit status should be 0",
        tags="@a @b",
    )
    assert (found.verdict, found.reason, found.detail) == (Verdict.PASSED, Reason.AS_EXPECTED, "5 expectations met")
    assert (found.feature, found.scenario, found.tags, str(found.location)) == ("f", "s", ("@a", "@b"), "x.attack:3")
    assert (found.command, found.exit_code, found.step) == ("show <host> <more> '<host> <more>'", 0, "")
    record = outcome_record(found)
    assert record["event"]["action"] == "attack-passed"
    assert record["vedette"]["attacks"]["verdict"] == "passed"
    assert exit_code((found,)) == 0


def test_a_fail_says_at_which_step_and_what_the_program_said(programs: Programs):
    programs.add("show", "echo on the wall; echo '\033[31mcannot' >&2; exit 3")
    found = attack(
        programs,
        launch("show"),
        'Then the output should contain "wall"',
        'And the output should contain "writing"',
        'And the output should contain "never asked"',
    )
    assert (found.verdict, found.reason) == (Verdict.FAILED, Reason.NOT_AS_EXPECTED)
    assert (found.step, found.step_at.line, found.exit_code) == ('And the output should contain "writing"', 9, 3)
    assert found.detail == "it does not; the program failed (exit status 3); it said: \x1b[31mcannot"
    assert outcome_record(found)["event"]["action"] == "attack-failed"
    assert exit_code((found,)) == 1


SHOWS = "echo open; exit {}"
ALIGNED = "echo '22/tcp   open ssh'"
TWO_OPEN = doc("the output should not contain:", "22/tcp open\n80/tcp open")
OPEN_22 = '<ports><port><state state="open"/></port></ports></host>'
AS_EXPECTED = Reason.AS_EXPECTED
TWO_LINES = doc("the output should not contain:", "22/tcp\n25/tcp")
XML = 'the file "f" should {} XML:\n| css |\n| a b |'
UP, DOWN = (f"echo '{xml}' > .vedette-evidence; echo done" for xml in (NMAP_UP, NMAP_DOWN))
BUSY = "echo 'HTTP/1.1 503 x' > .vedette-evidence; echo sorry"
NO_22, NO_23 = (rf"the output should not match /{port}.tcp\s+open/" for port in (22, 23))
NO_X, NOT_0 = 'the output should not contain "x"', "the exit status should not be 0"
IS_0 = "the exit status should be 0"
PASS, FAIL, VACUOUS, UNTOLD = Verdict.PASSED, Verdict.FAILED, Verdict.VACUOUS, Verdict.COULD_NOT_TELL
VERDICTS: list[tuple[str, str, list[str], Verdict, Reason]] = [
    # a program nothing is known of
    ("tool", SHOWS.format(0), [NO_X], PASS, Reason.AS_EXPECTED),
    ("tool", SHOWS.format(3), [NO_X], VACUOUS, Reason.PROGRAM_FAILED),
    ("tool", SHOWS.format(3), ['the output should contain "open"'], PASS, Reason.AS_EXPECTED),
    ("tool", SHOWS.format(3), [NO_X, "the exit status should be 3"], PASS, Reason.AS_EXPECTED),
    ("tool", SHOWS.format(3), [NO_X, NOT_0], PASS, Reason.AS_EXPECTED),
    ("tool", SHOWS.format(3), [NO_X, "the exit status should not be 1"], VACUOUS, Reason.PROGRAM_FAILED),
    ("tool", "kill -9 $$", [NOT_0], VACUOUS, Reason.PROGRAM_FAILED),
    ("tool", "exit 0", [NO_X], VACUOUS, Reason.NO_OUTPUT),
    ("tool", "exit 0", ["the output should not match /a/"], VACUOUS, Reason.NO_OUTPUT),
    ("tool", "echo a >&2", ['the stdout should not contain "b"'], VACUOUS, Reason.NO_OUTPUT),
    ("tool", "exit 0", ['the output should contain ""'], VACUOUS, Reason.NO_OUTPUT),
    ("tool", "exit 0", [NO_X, "the exit status should be 0"], PASS, Reason.AS_EXPECTED),
    ("tool", "exit 0", ["the stderr should not contain anything"], PASS, Reason.AS_EXPECTED),
    ("tool", "exit 1", ["the stderr should not contain anything"], VACUOUS, Reason.PROGRAM_FAILED),
    ("tool", "echo a", ['the stdout from "other" should not contain "x"', IS_0], FAIL, Reason.NOT_AS_EXPECTED),
    ("tool", "echo a", ['the stdout from "tool" should not contain "x"'], PASS, Reason.AS_EXPECTED),
    ("tool", "echo a >&2", ["the stderr should not contain anything"], FAIL, Reason.NOT_AS_EXPECTED),
    ("tool", "echo x", [], VACUOUS, Reason.NOTHING_EXPECTED),
    ("tool", "echo x", [doc("it should pass with:", "x")], PASS, Reason.AS_EXPECTED),
    ("tool", "echo x; exit 1", [doc("it should pass with:", "x")], FAIL, Reason.NOT_AS_EXPECTED),
    ("tool", "echo x; exit 1", [doc("it should fail with:", "x")], PASS, Reason.AS_EXPECTED),
    ("tool", "echo x; exit 1", [doc("it should fail with regexp:", "^x$")], PASS, Reason.AS_EXPECTED),
    # lines that only count together
    ("tool", "echo 22/tcp", [TWO_LINES], VACUOUS, Reason.LINES_NOT_TOGETHER),
    ("tool", ALIGNED, [TWO_LINES], VACUOUS, Reason.LINES_NOT_TOGETHER),
    ("tool", ALIGNED.replace("open", "closed"), [TWO_LINES], PASS, Reason.AS_EXPECTED),
    ("tool", "echo 80/tcp", [TWO_LINES], PASS, Reason.AS_EXPECTED),
    ("tool", "echo '22/tcp closed ssh'", [TWO_LINES], PASS, Reason.AS_EXPECTED),
    ("tool", "echo 22/tcp; echo 25/tcp", [TWO_LINES], FAIL, Reason.NOT_AS_EXPECTED),
    # files
    ("tool", "echo hello > f", ['a file "f" should contain "ell"'], PASS, Reason.AS_EXPECTED),
    ("tool", "echo hello > f", ['the file "f" should not contain "x"'], PASS, Reason.AS_EXPECTED),
    ("tool", "exit 0", ['the file "f" should not contain "x"'], FAIL, Reason.NOT_AS_EXPECTED),
    ("tool", ": > f", ['the file "f" should not contain "x"'], VACUOUS, Reason.NO_OUTPUT),
    ("tool", ": > f", ['the file "f" should not contain "x"', IS_0], PASS, Reason.AS_EXPECTED),
    ("tool", "exit 0", ['the file "f" should not exist'], PASS, Reason.AS_EXPECTED),
    ("tool", "exit 4", ['the file "f" should not exist'], VACUOUS, Reason.PROGRAM_FAILED),
    ("tool", "echo '<a><b/></a>' > f", [XML.format("contain")], PASS, Reason.AS_EXPECTED),
    ("tool", "echo '<a><b/></a>' > f", [XML.format("not contain")], FAIL, Reason.NOT_AS_EXPECTED),
    ("tool", "echo '<a><b>' > f", [XML.format("not contain")], UNTOLD, Reason.FILE_UNREADABLE),
    ("tool", "mkfifo f", ['the file "f" should not contain "x"'], UNTOLD, Reason.FILE_UNREADABLE),
    ("tool", "ln -s /dev/zero f", ['the file "f" should contain "x"'], UNTOLD, Reason.FILE_UNREADABLE),
    # patterns
    ("tool", f"echo {'a' * 60}b", ["the output should match /^(a+)+$(?!x)/"], UNTOLD, Reason.PATTERN_UNDECIDED),
    # the target
    ("curl", "printf 000; exit 7", [NO_X], VACUOUS, Reason.TARGET_DOWN),
    ("curl", "printf 000; exit 7", ['the output should contain "000"'], VACUOUS, Reason.TARGET_DOWN),
    ("curl", "printf 000; exit 28", ["the exit status should be 28"], VACUOUS, Reason.TARGET_DOWN),
    ("curl", "printf 000; exit 7", ['the output should contain "200"'], FAIL, Reason.NOT_AS_EXPECTED),
    ("curl", "echo tls >&2; exit 35", ["the exit status should be 35"], PASS, Reason.AS_EXPECTED),
    ("curl", "echo tls >&2; exit 35", [NO_X], VACUOUS, Reason.PROGRAM_FAILED),
    ("curl", BUSY, [NO_X], VACUOUS, Reason.TARGET_DOWN),
    ("curl", BUSY, ['the output should contain "sorry"'], PASS, Reason.AS_EXPECTED),
    ("dirb", "echo 'DOWNLOADED: 0 - FOUND: 0'", ['the output should contain "FOUND: 0"'], VACUOUS, Reason.UNPROVEN),
    ("arachni", "echo 0 issues.", ['the output should contain "0 issues"'], VACUOUS, Reason.UNPROVEN),
    ("nmap", UP, [NO_22], PASS, Reason.AS_EXPECTED),
    ("nmap", DOWN, [NO_22], VACUOUS, Reason.TARGET_DOWN),
    ("nmap", UP, [NO_23], VACUOUS, Reason.NOT_LOOKED_AT),
    ("nmap --script x", UP, [NO_X], VACUOUS, Reason.NOTHING_TESTED),
    ("nmap --script=x", UP, [NO_22], PASS, Reason.AS_EXPECTED),
    ("nmap --script x", UP.replace("</host>", OPEN_22), [NO_X], PASS, Reason.AS_EXPECTED),
    ("nmap --script x", UP.replace("</host>", "<hostscript><script/></hostscript></host>"), [NO_X], PASS, AS_EXPECTED),
    ("nmap", UP, [NO_X], PASS, Reason.AS_EXPECTED),
    ("nmap", f"{UP}; {ALIGNED}", ['the output should not contain "22/tcp open"'], VACUOUS, Reason.SPACED_OTHERWISE),
    ("nmap", f"{UP}; {ALIGNED}", ["the output should not match /22.tcp open/"], VACUOUS, Reason.SPACED_OTHERWISE),
    ("nmap", f"{UP}; {ALIGNED}", ['the output should not contain "22/tcp closed"'], PASS, Reason.AS_EXPECTED),
    ("nmap", f"{UP}; {ALIGNED}", ["the output should not match /80.tcp\\s+open/"], PASS, Reason.AS_EXPECTED),
    ("nmap", f"{UP}; {ALIGNED}", [TWO_OPEN], VACUOUS, Reason.LINES_NOT_TOGETHER),
    ("nmap", UP.replace("<scaninfo", "<other"), [NO_22], VACUOUS, Reason.NOT_LOOKED_AT),
    ("nmap", UP, ["the output should not match /(23.tcp|24.tcp)/"], VACUOUS, Reason.NOT_LOOKED_AT),
    ("nmap", UP, ["the output should not match /(23.tcp|22.tcp)/"], PASS, Reason.AS_EXPECTED),
    ("nmap", UP, ["the output should not match /[^8]0.tcp/"], PASS, Reason.AS_EXPECTED),
    ("nmap", "echo done", [NO_22], VACUOUS, Reason.PROGRAM_FAILED),
]


@pytest.mark.parametrize(("program", "body", "steps", "verdict", "reason"), VERDICTS)
def test_verdicts(programs: Programs, program: str, body: str, steps: list[str], verdict: Verdict, reason: Reason):
    programs.add(program.split()[0], body)
    found = attack(programs, launch(program, "generic"), *[f"Then {step}" for step in steps])
    assert (found.verdict, found.reason) == (verdict, reason), found.detail
    assert exit_code((found,)) == {Verdict.PASSED: 0, Verdict.COULD_NOT_TELL: 2}.get(verdict, 1)


def test_what_was_not_looked_at_is_told_where_the_rest_was(programs: Programs):
    programs.add("nmap", f"echo '{NMAP_UP}' > .vedette-evidence; echo done")
    found = attack(
        programs,
        launch("nmap x", "nmap"),
        r"Then the output should not match /22.tcp\s+open/",
        'And the output should not contain "443/tcp open"',
    )
    assert found.verdict is Verdict.PASSED
    assert [note for note in found.notes if note.endswith(": 443/tcp was not looked at")]


def test_what_must_be_seen_of_one_program_does_not_speak_for_another(programs: Programs):
    programs.add("good", "echo fine")
    programs.add("bad", "echo no; exit 2")
    positive, negative = 'Then the output should contain "fine"', 'Then the output should not contain "x"'
    assert attack(programs, launch("good"), positive, launch("bad"), negative).reason is Reason.PROGRAM_FAILED
    assert attack(programs, launch("bad"), launch("good"), positive, negative).verdict is Verdict.PASSED
    only = ['Then the output from "good" should contain exactly "fine\\n"', 'And the stdout should contain "no"']
    assert attack(programs, launch("good"), launch("bad"), *only).verdict is Verdict.PASSED


def test_nothing_run_and_nothing_expected_is_no_pass(programs: Programs):
    programs.add("tool", "exit 0")
    found = attack(programs, 'Given "tool" is installed in my path', 'Then the file "/nonexistent" should not exist')
    assert (found.verdict, found.reason) == (Verdict.VACUOUS, Reason.NOTHING_LAUNCHED)
    assert attack(programs, 'Given "tool" is installed in my path').reason is Reason.NOTHING_EXPECTED
    assert attack(programs, "When I successfully run `tool`").verdict is Verdict.PASSED
    programs.add("tool", "exit 1")
    assert attack(programs, "When I successfully run `tool`").verdict is Verdict.FAILED
    assert exit_code(()) == 2


# ------------------------------------------------------------------------------------------- what keeps it from telling


@pytest.mark.parametrize(
    ("steps", "reason", "said"),
    [
        (['Given "garmr" is installed'], Reason.NOT_INSTALLED, "garmr is not installed"),
        (['Given "no-such" is installed in my path'.replace("-", "")], Reason.NOT_INSTALLED, "nosuch"),
        (['Given the "no such" command line binary is installed'], Reason.NOT_INSTALLED, "no such"),
        ([launch("no-such-program x")], Reason.NOT_INSTALLED, "no-such-program is not installed"),
        (["Given the DIRB_WORDLISTS environment variable is set"], Reason.ENVIRONMENT_NOT_SET, "DIRB_WORDLISTS"),
        ([secret(key="NOBODY_SET_THIS")], Reason.ENVIRONMENT_NOT_SET, "NOBODY_SET_THIS"),
    ],
)
def test_what_is_missing(programs: Programs, steps: list[str], reason: Reason, said: str):
    found = attack(programs, *steps, 'Then the output should not contain "x"')
    assert (found.verdict, found.reason) == (Verdict.COULD_NOT_TELL, reason)
    assert said in found.detail
    assert found.step_at.line == 4


def test_a_program_that_hangs_is_ended_and_could_not_tell(programs: Programs, monkeypatch: pytest.MonkeyPatch):
    programs.add("tool", "echo open; exec sleep 600")
    steps = [launch("tool"), 'Then the output should contain "open"']
    found = attack(programs, *steps, timeout=0.2)
    assert (found.verdict, found.reason) == (Verdict.COULD_NOT_TELL, Reason.TIMED_OUT)
    assert "within 0.2 seconds" in found.detail
    monkeypatch.setattr(run, "SLOW", 0.4)
    monkeypatch.setattr(run, "REALLY_SLOW", 0.5)
    assert "within 0.4 seconds" in attack(programs, *steps, timeout=0.2, tags="@slow").detail
    assert "within 0.5 seconds" in attack(programs, *steps, timeout=0.2, tags="@slow @reallyslow").detail
    programs.add("tool", "sleep 0.4")
    assert (
        attack(programs, "When I successfully run `tool` for up to 20 seconds", timeout=0.1).verdict is Verdict.PASSED
    )


def test_output_that_was_not_kept_is_no_ground_for_anything(programs: Programs, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run, "OUTPUT_LIMIT", 1000)
    programs.add("tool", "echo first; while :; do echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyy; done")
    for step in ('should not contain "x"', 'should contain "x"', "should not match /x/", "should match /x/"):
        found = attack(programs, launch("tool"), f"Then the output {step}")
        assert (found.verdict, found.reason) == (Verdict.COULD_NOT_TELL, Reason.OUTPUT_CUT), step


def test_it_is_ended_early(programs: Programs):
    programs.add("tool", "exec sleep 600")
    stop = threading.Event()
    timer = threading.Timer(0.2, stop.set)
    timer.start()
    found = attack(programs, launch("tool"), 'Then the output should contain "x"', stop=stop)
    timer.join()
    assert (found.verdict, found.reason) == (Verdict.COULD_NOT_TELL, Reason.STOPPED)
    assert attack(programs, launch("tool"), stop=stop).reason is Reason.STOPPED


def test_targets_outside_one_s_own_are_left_alone(programs: Programs, tmp_path: Path):
    programs.add("nmap", f"touch {tmp_path}/was-run")
    found = attack(programs, profile(host="203.0.113.9"), launch("nmap <host>", "nmap"), own=["192.0.2.0/24"])
    assert (found.verdict, found.reason) == (Verdict.COULD_NOT_TELL, Reason.OUTSIDE_OWN_NETWORKS)
    assert not (tmp_path / "was-run").exists()
    attack(programs, launch("nmap 192.0.2.9", "nmap"), own=["192.0.2.0/24"])
    assert (tmp_path / "was-run").exists()


def test_addresses_that_nmap_left_out_are_said(programs: Programs):
    programs.add("nmap", f"{UP}; echo 'Other addresses for web1 (not scanned): 2001:db8::1'")
    found = attack(programs, secret(host="HOST"), launch("nmap <host>"), f"Then {NO_22}", environment={"HOST": "web1"})
    assert found.verdict is Verdict.PASSED
    assert found.notes[-1].endswith("alone: Other addresses for <host> (not scanned): 2001:db8::1")


def test_a_proxy_is_a_host_too(programs: Programs, tmp_path: Path):
    programs.add("curl", f"touch {tmp_path}/was-run")
    step = "Given I set the environment variables to:\n| variable | value |\n| {} | {} |"
    for name, value in (("http_proxy", "203.0.113.9:3128"), ("ALL_PROXY", "http://203.0.113.9")):
        found = attack(programs, step.format(name, value), launch("curl http://192.0.2.9/"), own=["192.0.2.0/24"])
        assert found.reason is Reason.OUTSIDE_OWN_NETWORKS, name
    assert not (tmp_path / "was-run").exists()
    attack(programs, step.format("no_proxy", "203.0.113.9"), launch("curl http://192.0.2.9/"), own=["192.0.2.0/24"])
    assert (tmp_path / "was-run").exists()


def test_a_command_is_found_by_its_values_too(programs: Programs):
    programs.add("nmap", UP)
    steps = [profile(host="web1"), launch("nmap <host>", "nmap")]
    for command in ("nmap <host>", "nmap web1"):
        found = attack(programs, *steps, f'Then the stdout from "{command}" should contain "done"')
        assert found.verdict is Verdict.PASSED, found.detail


# ------------------------------------------------------------------------------------------- surroundings


def test_a_program_gets_a_folder_and_an_environment_of_its_own(programs: Programs):
    programs.add("tool", "pwd; echo $HOME; env | cut -d= -f1 | sort; ls -A; touch left")
    steps = [
        "When I set the environment variables to:\n| variable | value |\n| COLOUR | red |",
        launch("tool"),
        'Then the stdout should contain "COLOUR"',
        'And the stdout should not contain "SECRET"',
        'And the stdout should not contain "left"',
    ]
    for _ in range(2):
        assert attack(programs, *steps, environment={"SECRET": "x"}).verdict is Verdict.PASSED


SECRET = "s3cr3t w0rd/&"


def test_a_value_of_the_environment_is_never_shown(programs: Programs):
    programs.add(
        "tool",
        'echo "got $2" >&2; echo "Authorization: Basic czNjcjN0" >&2; echo "at $2 and s3cr3t%20w0rd%2F%26" >&2; exit 1',
    )
    given = {"KEY": SECRET, "PROGRAM": SECRET}
    start = [secret(key="KEY"), launch('tool -k "<key>"')]
    outcomes = [
        attack(programs, *start, 'Then the output should contain "nothing"', environment=given),
        attack(programs, *start, 'Then the output should not contain "nothing"', environment=given),
        attack(programs, *start, f'Then the output should contain "{SECRET[:3]}"', environment=given),
        attack(programs, secret(program="PROGRAM"), launch('"<program>" x'), environment=given),
        attack(programs, secret(key="KEY"), launch('tool "http://<key>/"'), own=[], environment=given),
        attack(programs, secret(key="KEY"), launch('tool "<key>.example.org"'), own=[], environment={"KEY": "s3cr3t"}),
        attack(programs, secret(program="PROGRAM"), launch("<program> x"), environment=given),
    ]
    assert outcomes[0].detail.endswith("it said: at <key> and <key>")
    assert outcomes[0].command == 'tool -k "<key>"'
    assert outcomes[3].detail == "<program> is not installed"
    assert outcomes[5].detail == "a host it names does not resolve"
    assert outcomes[6].detail == "<program> is not installed"
    for one in outcomes:
        assert "s3cr3t" not in repr(astuple(one)).replace(f'"{SECRET[:3]}"', "")
        assert "czNjcjN0" not in repr(astuple(one))


def test_a_file_that_was_there_before_proves_nothing(programs: Programs, tmp_path: Path):
    file = tmp_path / "report.xml"
    file.write_text("<a/>")
    programs.add("tool", "echo done")
    for step in (
        f'a file "{file}" should contain "a"',
        f'the file "{file}" should exist',
        f'the file "{file}" should not contain XML:\n| css |\n| b |',
    ):
        found = attack(programs, launch("tool"), f"Then {step}")
        assert (found.verdict, found.reason) == (Verdict.VACUOUS, Reason.STALE_FILE), step
    programs.add("tool", f"echo '<a></a>' > {file}")
    assert attack(programs, launch("tool"), f'Then a file "{file}" should contain "a"').verdict is Verdict.PASSED


def test_a_scan_of_before_is_no_evidence_of_this_one(programs: Programs, tmp_path: Path):
    file = tmp_path / "scan.xml"
    file.write_text(NMAP_UP)
    programs.add("nmap", "echo QUITTING")
    steps = [launch(f"nmap -oX {file} x"), r"Then the output should not match /22.tcp\s+open/"]
    assert attack(programs, *steps).reason is Reason.PROGRAM_FAILED
    programs.add("nmap", f"echo done; echo '{NMAP_UP}' > {file}")
    assert attack(programs, *steps).verdict is Verdict.PASSED


def test_scripts_that_gauntlt_runs_with_python(programs: Programs, tmp_path: Path):
    programs.add("sslyze", 'echo " SCAN RESULTS FOR $1"')
    steps = [
        'Given "sslyze" is installed',
        profile(host="web1"),
        launch("python <sslyze_path> <host>:443", "sslyze"),
        'Then the output should contain "FOR web1:443"',
    ]
    assert attack(programs, *steps).verdict is Verdict.PASSED
    script = tmp_path / "sslyze.py"
    script.write_text("import sys; print(' SCAN RESULTS FOR', sys.argv[1])\n")
    (programs.folder / "sslyze").unlink()
    path = os.environ["PATH"]
    found = attack(programs, *steps, environment={"SSLYZE_PATH": str(script), "PATH": path})
    assert found.verdict is Verdict.PASSED, found.detail


def test_dirb_takes_its_wordlists_from_the_environment(programs: Programs):
    programs.add("dirb", 'echo "with $1"; echo "GENERATED WORDS: 1"; echo "DOWNLOADED: 1 - FOUND: 0"')
    found = attack(
        programs,
        "Given the DIRB_WORDLISTS environment variable is set",
        profile(dirb_wordlists_path="Overwritten by it"),
        launch("dirb <dirb_wordlists_path>/x.txt", "dirb"),
        'Then the output should contain "with /lists/x.txt"',
        environment={"DIRB_WORDLISTS": "/lists"},
    )
    assert found.verdict is Verdict.PASSED, found.detail


def test_waiting_is_done_by_the_clock_it_is_given(programs: Programs):
    programs.add("tool", "echo a")
    waited: list[float] = []
    steps = ["Given I wait for 20 seconds", launch("tool"), 'Then the output should contain "a"']
    assert attack(programs, *steps, sleep=waited.append).verdict is Verdict.PASSED
    assert waited == [20]


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        ("| name |\n| sid |", Verdict.PASSED),
        (
            "| name | value | secure | max-age | path |\n| sid | a=b | true | | / |".replace("max-age", "max_age"),
            Verdict.PASSED,
        ),
        ("| name | httponly |\n| sid | |\n| lang | true |", Verdict.PASSED),
        ("| name | secure |\n| lang | true |", Verdict.FAILED),
        ("| name |\n| other |", Verdict.FAILED),
        ("| name | value |\n| sid | a |", Verdict.FAILED),
    ],
)
def test_cookies(programs: Programs, rows: str, verdict: Verdict):
    programs.add(
        "curl",
        r"printf 'HTTP/1.1 200 OK\r\nSet-Cookie: sid=a=b; Path=/; Secure\r\nset-cookie: lang=en; HttpOnly\r\n\r\n'",
    )
    found = attack(programs, launch("curl -I x", "curl"), f"Then the following cookies should be received:\n{rows}")
    assert found.verdict is verdict, found.detail


@pytest.mark.parametrize(("tags", "verdict"), [("", Verdict.PASSED), ("@ansi", Verdict.FAILED)])
def test_colours_are_taken_out_unless_asked_for(programs: Programs, tags: str, verdict: Verdict):
    programs.add("tool", r"printf '\033[31mred\033[0m hat'")
    assert attack(programs, launch("tool"), 'Then the output should contain "red hat"', tags=tags).verdict is verdict


def test_without_a_folder_to_run_in_nothing_can_be_told(programs: Programs, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tempfile.tempdir", str(programs.folder / "gone"))
    found = attack(programs, launch("true"), "Then the exit status should be 0")
    assert (found.verdict, found.reason) == (Verdict.COULD_NOT_TELL, Reason.COMMAND_UNUSABLE)
    assert "No such file" in found.detail
