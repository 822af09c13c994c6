"""Every step of Gauntlt's and aruba's that attack files use, and what is said of those that are none.
Counterpart: vedette.sources.attacks.steps."""

from __future__ import annotations

import pytest

from vedette.model.errors import Location
from vedette.sources.attacks.actions import (
    Action,
    Cookies,
    Ends,
    ExitStatus,
    FileText,
    FileThere,
    FileXml,
    How,
    Installed,
    Launch,
    Output,
    Profile,
    SetVariables,
    Stream,
    VariableSet,
    Wait,
)
from vedette.sources.attacks.aliases import ALIASES
from vedette.sources.attacks.feature import read_feature
from vedette.sources.attacks.steps import ADAPTERS, DEFINITIONS, notes, recognise

DOC = '\n"""\nthis\n"""'


def recognised(*steps: str):
    text = "Feature: f\nScenario: s\n" + "".join(f"{step}\n" for step in steps)
    scenarios, problems = read_feature(text.encode(), "x.attack")
    assert not problems
    return recognise(scenarios[0])


def out(stream: str, how: How, wanted: str, negative: bool = False, of: str | None = None) -> Output:
    return Output(Stream(stream), how, wanted, negative, of)


STEPS: list[tuple[str, Action]] = [
    *[(f'Given "{name}" is installed', Installed(name)) for name in ADAPTERS if name != "generic"],
    ('Given "ruby" is installed in my path', Installed("ruby")),
    ('Given the "zap cli" command line binary is installed', Installed("zap cli")),
    ("Given the DIRB_WORDLISTS environment variable is set", VariableSet("DIRB_WORDLISTS")),
    ("Given the following profile:\n| name | value |\n| a | b |", Profile({"a": "b"})),
    (
        "Given the following environment variables:\n| name | environment_variable_name |\n| a | B |",
        Profile({"a": "B"}, secret=True),
    ),
    ("When I set the environment variables to:\n| variable | value |\n| A | b |", SetVariables({"A": "b"})),
    *[
        (f'When I launch a "{name}" attack with:{DOC}', Launch(name, "this", Location("x.attack", 5)))
        for name in ADAPTERS
    ],
    (f'When I launch an "nmap" attack with:{DOC}', Launch("nmap", "this", Location("x.attack", 5))),
    ("When I wait for 1 second", Wait(1)),
    ("Given I wait for 20 seconds", Wait(20)),
    ("When I run `ls -a`", Launch("generic", "ls -a", Location("x.attack", 3))),
    ("When I successfully run `ls`", Launch("generic", "ls", Location("x.attack", 3), must_succeed=True)),
    (
        "When I successfully run `ls` for up to 60 seconds",
        Launch("generic", "ls", Location("x.attack", 3), must_succeed=True, seconds=60),
    ),
    (
        'When I launch a "zap-api-scan" attack on the host "h" whose documentation is available in "http://d"',
        Launch("zap-api-scan", 'zap-api-scan -f openapi -O "h" -t "http://d"', Location("x.attack", 3)),
    ),
    (
        'When I launch a "zap-api-scan" attack on a web service whose documentation is available in "http://d"',
        Launch("zap-api-scan", 'zap-api-scan -f openapi -t "http://d"', Location("x.attack", 3)),
    ),
    ('Then the output should contain "a"', out("output", How.CONTAINS, "a")),
    ('Then the output should not contain "a"', out("output", How.CONTAINS, "a", True)),
    (f"Then the output should contain:{DOC}", out("output", How.CONTAINS, "this")),
    (f"Then the output should not contain:{DOC}", out("output", How.CONTAINS, "this", True)),
    ('Then the output should contain exactly "a"', out("output", How.EXACTLY, "a")),
    ('Then the output from "ls" should contain exactly "a"', out("output", How.EXACTLY, "a", of="ls")),
    (f"Then the output should contain exactly:{DOC}", out("output", How.EXACTLY, "this")),
    (f'Then the output from "ls" should contain exactly:{DOC}', out("output", How.EXACTLY, "this", of="ls")),
    (r"Then the output should match /80.tcp\s+open/", out("output", How.MATCHES, r"80.tcp\s+open")),
    ("Then the output should not match /a/", out("output", How.MATCHES, "a", True)),
    (f"Then the output should match:{DOC}", out("output", How.MATCHES, "this")),
    (f"Then the output should not match:{DOC}", out("output", How.MATCHES, "this", True)),
    ("Then the exit status should be 3", ExitStatus(3)),
    ("Then the exit status should not be 0", ExitStatus(0, True)),
    (f"Then it should pass with:{DOC}", Ends(True, How.CONTAINS, "this")),
    (f"Then it should fail with:{DOC}", Ends(False, How.CONTAINS, "this")),
    (f"Then it should fail with exactly:{DOC}", Ends(False, How.EXACTLY, "this")),
    (f"Then it should pass with regexp:{DOC}", Ends(True, How.MATCHES, "this")),
    (f"Then it should pass with regex:{DOC}", Ends(True, How.MATCHES, "this")),
    ('Then the stderr should contain "a"', out("stderr", How.CONTAINS, "a")),
    ('Then the stdout should contain exactly "a"', out("stdout", How.EXACTLY, "a")),
    ('Then the stderr from "ls" should contain exactly "a"', out("stderr", How.EXACTLY, "a", of="ls")),
    (f"Then the stderr should not contain:{DOC}", out("stderr", How.CONTAINS, "this", True)),
    (f'Then the stdout from "ls" should contain:{DOC}', out("stdout", How.CONTAINS, "this", of="ls")),
    (f"Then the stderr should contain exactly:{DOC}", out("stderr", How.EXACTLY, "this")),
    ("Then the stderr should not contain anything", out("stderr", How.EMPTY, "")),
    ("Then the stdout should not contain anything", out("stdout", How.EMPTY, "")),
    ('Then the stdout should not contain "a"', out("stdout", How.CONTAINS, "a", True)),
    ('Then a file "a" should contain "b"', FileText("a", "b")),
    ('Then the file "a" should not contain "b"', FileText("a", "b", True)),
    ('Then a file named "a" should exist', FileThere("a")),
    ('Then the file "a" should not exist', FileThere("a", True)),
    ('Then the file "a" should contain XML:\n| css |\n| b[c="d"] e |', FileXml("a", ('b[c="d"] e',))),
    ('Then the file "a" should not contain XML:\n| css |\n| b |\n| c |', FileXml("a", ("b", "c"), True)),
    (
        "Then the following cookies should be received:\n| name | secure |\n| sid | true |",
        Cookies(({"name": "sid", "secure": "true"},)),
    ),
]


@pytest.mark.parametrize(("step", "action"), STEPS, ids=[step.partition("\n")[0] for step, _ in STEPS])
def test_a_step_means_this(step: str, action: Action):
    meant, problems = recognised(step)
    assert problems == []
    assert [one.action for one in meant] == [action]


def test_no_definition_is_left_untried_and_every_example_is_one():
    for one in DEFINITIONS:
        assert one.pattern.fullmatch(one.example) or '""' in one.example, one.example
        texts = [step.partition("\n")[0].partition(" ")[2] for step, _ in STEPS]
        alias = one.example == 'I launch an "nmap-fast" attack'
        assert alias or any(one.pattern.fullmatch(text) for text in texts), one.example


@pytest.mark.parametrize("alias", ALIASES)
def test_an_alias_is_its_command_and_needs_its_values(alias: str):
    launch = f'When I launch an "{alias}" attack'
    _, problems = recognised(launch)
    assert problems[0].message.startswith("no value for <")
    names = ("host", "port", "url", "depth", "link_count", "auto_redundant")
    profile = "Given the following profile:\n| name | value |\n" + "".join(f"| {name} | 1 |\n" for name in names)
    meant, problems = recognised(profile, launch)
    assert problems == []
    assert meant[-1].action == Launch(alias.partition("-")[0], ALIASES[alias], meant[-1].step.at)


@pytest.mark.parametrize(
    ("step", "line", "said", "hint"),
    [
        (
            'When I lauch an "nmap" attack with:' + DOC,
            3,
            "unknown step",
            'did you mean: I launch a "nmap" attack with:',
        ),
        ('When I launch an "nmpa" attack with:' + DOC, 3, "unknown step", 'I launch a "nmap" attack with:'),
        ('When I launch an "nmap-fats" attack', 3, "unknown attack alias", "did you mean 'nmap-fast'"),
        ('Then the output should contains "x"', 3, "unknown step", 'the output should contain "x"'),
        ('Then the output shuold not contain "x"', 3, "unknown step", 'the output should not contain "x"'),
        ("Then the exit status should be one", 3, "unknown step", "the exit status should be 0"),
        ("Then all is well", 3, "unknown step", "docs/attacks.md"),
        ("Given the following profile:", 3, "no table", "| name | value |"),
        ("Given the following profile:\n| nam | value |\n| a | b |", 4, "no column 'name'", "| name | value |"),
        ("Given the following profile:\n| name | name | value |\n| a | b | c |", 4, "a column twice", "name"),
        ("Given the following profile:\n| name | value |", 4, "no rows", ""),
        ("Given the following profile:\n| name | value |\n| a | b |\n| | b |", 6, "name is empty", ""),
        ('When I launch an "nmap" attack with:', 3, "nothing stands under", '"""'),
        ('When I launch an "nmap" attack with:\n"""\n\n"""', 5, "no command", ""),
        ('When I launch an "nmap" attack with:\n"""\nnmap x | y\n"""', 5, "without a shell", ""),
        ('When I launch an "nmap" attack with:\n"""\nnmap <host>\n"""', 5, "no value for <host>", "profile"),
        ("When I run `nmap <host>`", 3, "no value for <host>", "profile"),
        ("Then the output should match /(/", 3, "no regular expression", ""),
        (r"Then the output should match /(?<=a+)b/", 3, "no regular expression", ""),
        ('Then it should pass with regexp:\n"""\n[\n"""', 3, "no regular expression", ""),
        ('Then the file "a" should contain XML:\n| css |\n| b[ |', 5, "no CSS selector", ""),
        ('Then the file "a" should contain XML:\n| xpath |\n| b |', 4, "no column 'css'", "css"),
        ("Then the following cookies should be received:\n| cookie |\n| b |", 4, "no column 'name'", "name"),
        ('Then the output should contain "a"' + DOC, 3, "takes nothing under it", "colon"),
        ("When I wait for 601 seconds", 3, "longer than 600", ""),
    ],
)
def test_what_cannot_be_meant_is_said_with_place_and_hint(step: str, line: int, said: str, hint: str):
    _, problems = recognised(step)
    assert len(problems) == 1
    assert problems[0].at == Location("x.attack", line)
    assert said in problems[0].message
    assert hint in problems[0].hint


def test_names_come_from_profile_environment_and_adapter():
    _, problems = recognised(
        "Given the following profile:\n| name | value |\n| a | b |",
        "And the following environment variables:\n| name | environment_variable_name |\n| c | D |",
        "When I run `x <a> <c>`",
        'And I launch a "sslyze" attack with:\n"""\npython <sslyze_path> <a>\n"""',
        'And I launch a "dirb" attack with:\n"""\ndirb <a> <dirb_wordlists_path>/x.txt\n"""',
    )
    assert problems == []


def test_what_a_person_should_know_though_it_is_right():
    meant, problems = recognised(
        "When I run `ls`",
        'Then the output should not contain:\n"""\n22/tcp\n25/tcp\n"""',
        'And the output should contain:\n"""\na\nb\n"""',
    )
    assert problems == []
    assert [(step.at.line, words) for step, words in notes(meant)] == [
        (4, "holds unless all 2 lines stand together; write a step for each")
    ]
    meant, _ = recognised("When I run `ls`")
    assert [words for _, words in notes(meant)] == ["nothing is expected in this scenario: it cannot pass"]
    assert notes(recognised("When I successfully run `ls`")[0]) == []


@pytest.mark.parametrize("steps", ["", '    Then the output should contain "x"\n'])
def test_a_step_whose_keyword_is_misspelt_is_not_taken_for_a_remark(steps: str):
    text = (
        "Feature: f\n  Scenario: s\n    This is for the shop\n    # and that\n"
        f'    Givn "nmap" is installed\n    wich is for the shop\n{steps}'
    )
    scenarios, problems = read_feature(text.encode(), "x.attack")
    assert bool(problems) == (not steps)
    _, problems = recognise(scenarios[0])
    assert [str(one) for one in problems] == ["x.attack:5: unknown keyword 'Givn' (hint: did you mean 'Given'?)"]
