"""Which log sources are covered by the parsers at hand, and what the scan looks for.
Counterpart: vedette.app.abilities."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vedette.app.abilities import abilities
from vedette.model.levels import Level
from vedette.model.rules import All, Any, LogSource, Node, Not, Op, Raw, Rule, Test
from vedette.rules.loading import load_packs


@pytest.mark.parametrize(
    ("source", "covered"),
    [
        (LogSource("linux", "", "sshd"), True),
        (LogSource("linux", "", "auth"), True),
        (LogSource("", "", "sudo"), True),
        (LogSource("windows", "process_creation"), True),
        (LogSource("windows", "registry_set"), True),
        (LogSource("windows", "", "security"), True),
        (LogSource("aws", "", "cloudtrail"), True),
        (LogSource("linux", "", "auditd"), True),
        (LogSource("linux", "process_creation"), True),
        (LogSource("", "", "nginx"), True),
        (LogSource("azure", "", "signinlogs"), True),
        (LogSource("", "webserver"), True),
        (LogSource("windows"), True),
        (LogSource("windows", "file_rename"), False),
        (LogSource("aws", "", "sshd"), False),
        (LogSource("plan9"), False),
    ],
)
def test_log_sources_that_some_parser_gives(source: LogSource, covered: bool):
    judge = abilities().covered
    assert judge is not None
    assert judge(source) is covered


def test_our_packs_are_covered_and_looked_up():
    able = abilities()
    assert able.covered is not None
    assert able.atoms is not None
    for rule in load_packs():
        if rule.correlate is None:
            assert able.covered(rule.logsource), rule.id
            assert able.atoms(rule), rule.id


@pytest.mark.parametrize(
    ("when", "atoms"),
    [
        (Test("f", Op.EQUALS, ("Abc",)), ("^abc$",)),
        (All((Test("f", Op.EXISTS, (True,)), Test("f", Op.ENDSWITH, ("/wall",)))), ("/wall$",)),
        (Any((Test("f", Op.CONTAINS, ("abcd",)), Not(Test("f", Op.CONTAINS, ("x",))))), ()),
        (Not(Raw("abcd")), ()),
        (Test("f", Op.NULL), ()),
    ],
)
def test_what_is_looked_for(when: Node, atoms: tuple[str, ...]):
    able = abilities()
    assert able.atoms is not None
    assert tuple(able.atoms(replace(Rule("r", "R", Level.LOW), when=when))) == atoms
