"""OSSEC and Wazuh rules compiled: conditions, places in the tree, dialects, and what is refused with its place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vedette.app.detection import load_rules
from vedette.model.errors import RuleError
from vedette.model.levels import Level
from vedette.model.rules import Op, Rule, Test
from vedette.model.rules import tests_of as leaves_of
from vedette.rules.files import rule_files
from vedette.rules.loading import load
from vedette.rules.ossec import Dialect, OssecRules, dialect_in, read_ossec
from vedette.rules.ossec_lists import ListStore, read_list
from vedette.rules.problems import Severity

ROOT = '<rule id="1" level="0" noalert="1"><category>syslog</category><description>all</description></rule>'


def read(folder: Path, rules: str, dialect: Dialect | None = None, **lists: str) -> OssecRules:
    (folder / "a.xml").write_text(
        f'<decoder name="d"><prematch>x</prematch></decoder>\n<group name="g,">{ROOT}{rules}</group>'
    )
    for name, text in lists.items():
        (folder / name).write_text(text)
    return read_ossec([folder / "a.xml"], [folder], dialect)


def rule_of(found: OssecRules, rule_id: str) -> Rule:
    return next(rule for rule in found.rules if rule.id == rule_id)


def wanted(rule: Rule) -> list[Test]:
    return [leaf for leaf in leaves_of(rule.when) if isinstance(leaf, Test)]


def test_a_rule_has_level_groups_tags_and_its_parent(tmp_path: Path):
    found = read(
        tmp_path,
        '<rule id="100" level="10"><match>^a|b$</match><description>one\n two</description><group>h,i</group>'
        "<mitre><id>T1110.001</id></mitre><info>https://example.org</info></rule>",
    )
    assert not [problem for problem in found.problems if problem.severity is Severity.ERROR]
    rule = rule_of(found, "100")
    assert (rule.level, rule.name, rule.parents) == (Level.MEDIUM, "one two", ("1",))
    assert rule.groups == ("g", "h", "i")
    assert (rule.tags, rule.references) == (("attack.t1110.001",), ("https://example.org",))
    assert {(test.op, test.values) for test in wanted(rule)} == {(Op.STARTSWITH, ("a",)), (Op.ENDSWITH, ("b",))}
    assert rule.branch is not None
    assert rule.branch.decoders == (str(tmp_path / "a.xml"),)


@pytest.mark.parametrize(
    ("dialect", "frequency", "before"),
    [
        (Dialect.OSSEC, 4, 5),
        (Dialect.OSSEC, None, 1),
        (Dialect.WAZUH, 4, 3),
        (Dialect.WAZUH, 2, 1),
        (Dialect.WAZUH, None, 1),
    ],
)
def test_frequency_means_two_more_in_ossec(tmp_path: Path, dialect: Dialect, frequency: int | None, before: int):
    said = f'frequency="{frequency}"' if frequency else ""
    found = read(
        tmp_path,
        '<rule id="100" level="5"><match>a</match></rule>'
        f'<rule id="101" level="10" {said} timeframe="60"><if_matched_sid>100</if_matched_sid><same_source_ip/></rule>',
        dialect,
    )
    rule = rule_of(found, "101")
    assert rule.branch is not None
    assert rule.branch.precedent is not None
    assert (rule.branch.precedent.count, rule.branch.precedent.timespan) == (before, 60_000_000)
    assert (rule.branch.precedent.of, rule.parents) == (("100",), ("100",))
    assert rule.branch.precedent.same == ("ossec.data.srcip",)
    assert rule.response is not None


def test_parents_may_stand_later_and_groups_are_found_by_their_text(tmp_path: Path):
    found = read(
        tmp_path,
        '<rule id="102" level="3"><if_sid>100, 101</if_sid></rule>'
        '<rule id="100" level="3"><match>a</match><group>login_failed,</group></rule>'
        '<rule id="101" level="5"><match>b</match></rule>'
        '<rule id="103" level="3"><if_group>login_failed</if_group></rule>'
        '<rule id="104" level="3"><if_level>4</if_level></rule>',
    )
    assert rule_of(found, "102").parents == ("100", "101")
    assert rule_of(found, "103").parents == ("100",)
    assert "101" in rule_of(found, "104").parents
    assert "100" not in rule_of(found, "104").parents


def test_overwrite_keeps_the_place_in_the_tree(tmp_path: Path):
    found = read(
        tmp_path,
        '<rule id="100" level="3"><match>a</match></rule>'
        '<rule id="101" level="3"><if_sid>100</if_sid><match>b</match></rule>'
        '<rule id="101" level="12" overwrite="yes"><match>c</match></rule>',
    )
    rule = rule_of(found, "101")
    assert (rule.level, rule.parents) == (Level.HIGH, ("100",))
    assert [test.values for test in wanted(rule)] == [("c",)]


def test_lists_are_found_by_base_name(tmp_path: Path):
    found = read(
        tmp_path,
        '<rule id="100" level="3"><list field="audit.key" lookup="match_key_value" '
        'check_value="write">etc/lists/keys</list></rule>'
        '<rule id="101" level="3"><list field="srcip" lookup="address_match_key">etc/lists/nets</list></rule>'
        '<rule id="102" level="3"><list field="user" lookup="not_match_key">lists/keys</list></rule>'
        '<rule id="103" level="3"><list field="user" lookup="match_key">lists/none</list></rule>',
        keys="a:write\nb:read\n# c\n",
        nets="192.0.2.0/24\n10.1.\n",
    )
    assert [(test.field, test.values) for test in wanted(rule_of(found, "100"))] == [("ossec.data.audit.key", ("a",))]
    assert {test.op for test in wanted(rule_of(found, "101"))} == {Op.CIDR, Op.STARTSWITH}
    assert [test.op for test in wanted(rule_of(found, "102"))] == [Op.EXISTS, Op.EQUALS]
    assert not any(rule.id == "103" for rule in found.rules)
    assert any("no list lists/none" in problem.message for problem in found.problems)


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (
            '<rule id="100" level="3"><if_sid>101</if_sid></rule><rule id="101" level="3"><if_sid>100</if_sid></rule>',
            "loop",
        ),
        ('<rule id="100" level="3"><if_sid>100</if_sid></rule>', "its own parent"),
        ('<rule id="100" level="3"><if_sid>999</if_sid></rule>', "no rule 999"),
        ('<rule id="100" level="17"/>', "no number from 0 to 16"),
        ('<rule id="100" level="3"><mtach>x</mtach></rule>', "unknown element"),
        ('<rule id="100" level="3" wrong="1"/>', "unknown attribute"),
        ('<rule id="100" level="3"><regex>(x</regex></rule>', "without"),
        ('<rule id="100" level="3"><pcre2>a(b</pcre2></rule>', "missing"),
        ('<rule id="100" level="3" frequency="3"><match>x</match></rule>', "no if_matched_sid"),
        ('<rule id="100" level="3"/><rule id="100" level="4"/>', "there twice"),
        ('<rule id="100" level="3" overwrite="yes"/>', "not there before it"),
        ('<rule id="100" level="3"><srcip>gateway</srcip></rule>', "no address"),
        ('<rule id="100" level="3"><time>noon</time></rule>', "span of the day"),
        ('<rule id="100" level="3"><weekday>someday</weekday></rule>', "no day"),
        ('<rule id="100" level="3"><if_matched_regex>x</if_matched_regex></rule>', "no equal"),
        ('<rule id="100" level="3"><compiled_rule>mine</compiled_rule></rule>', "no equal"),
    ],
)
def test_what_is_broken_is_refused_with_its_place_and_the_rest_loads(tmp_path: Path, rules: str, words: str):
    found = read(tmp_path, f'\n{rules}\n<rule id="200" level="3"><match>good</match></rule>', Dialect.OSSEC)
    errors = [problem for problem in found.problems if problem.severity is Severity.ERROR]
    assert any(words in error.message for error in errors)
    assert {(error.location.file, error.location.line) for error in errors} == {(str(tmp_path / "a.xml"), 3)}
    assert rule_of(found, "200").parents == ("1",)


def test_a_chain_of_thousands_of_parents_is_refused_and_its_beginning_loads(tmp_path: Path):
    rules = "".join(
        f'<rule id="{number}" level="3"><if_sid>{number - 1}</if_sid></rule>' for number in range(1001, 4000)
    )
    found = read(tmp_path, f'<rule id="1000" level="3"><match>a</match></rule>{rules}')
    assert len(found.rules) < 100
    assert any("above it" in problem.message for problem in found.problems)


def test_a_list_with_too_many_entries_is_refused(tmp_path: Path):
    (tmp_path / "many").write_text("".join(f"{number}:\n" for number in range(250_002)))
    with pytest.raises(RuleError, match="more than 250000 entries"):
        read_list(tmp_path / "many")


def test_what_is_no_plain_file_is_no_list(tmp_path: Path):
    (tmp_path / "keys").write_text("a:\n")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    assert [file.name for file in ListStore([tmp_path]).files()] == ["keys"]


def test_the_dialect_is_told_by_its_words(tmp_path: Path):
    read(tmp_path, '<rule id="100" level="3"><pcre2>x</pcre2></rule>')
    assert dialect_in([tmp_path]) is Dialect.OSSEC
    read(tmp_path, '<rule id="100" level="3"><match negate="yes">x</match><mitre><id>T1110</id></mitre></rule>')
    assert dialect_in([tmp_path]) is Dialect.WAZUH
    assert dialect_in([tmp_path], "ossec") is Dialect.OSSEC


def test_a_folder_gives_its_files_in_byte_order_and_no_deeper(tmp_path: Path):
    (tmp_path / "rules").mkdir()
    for name in ("b.xml", "a.xml", "c.xml"):
        (tmp_path / "rules" / name).write_text("<group/>")
    (tmp_path / "decoder.xml").write_text("<decoder/>")
    assert [file.name for file in rule_files(tmp_path)] == ["decoder.xml"]
    assert [file.name for file in rule_files(tmp_path / "rules")] == ["a.xml", "b.xml", "c.xml"]


def test_a_configuration_gives_what_it_includes_in_its_order(tmp_path: Path):
    rules = tmp_path / "rules"
    rules.mkdir()
    for name in ("b.xml", "a.xml", "c.xml"):
        (rules / name).write_text("<group/>")
    (tmp_path / "z.xml").write_text("<group/>")
    (tmp_path / "ossec.conf").write_text(
        "<ossec_config><rules><include>b.xml</include><!-- <include>c.xml</include> -->"
        "<include>a.xml</include></rules></ossec_config>"
    )
    assert [file.name for file in rule_files(tmp_path)] == ["z.xml", "b.xml", "a.xml"]
    assert [file.name for file in rule_files(tmp_path / "ossec.conf")] == ["z.xml", "b.xml", "a.xml"]
    # A folder beside it is a folder as any other, and so is one that holds it.
    assert [file.name for file in rule_files(rules)] == ["a.xml", "b.xml", "c.xml"]
    (rules / "ossec.conf").write_text("<ossec_config><rules><include>b.xml</include></rules></ossec_config>")
    assert [file.name for file in rule_files(rules)] == ["a.xml", "b.xml", "c.xml"]


def test_an_installation_is_found_from_its_folder_and_from_its_configuration(tmp_path: Path):
    for name in ("etc", "rules"):
        (tmp_path / name).mkdir()
    for name in ("rules/b.xml", "rules/a.xml", "etc/decoder.xml"):
        (tmp_path / name).write_text("<group/>")
    conf = tmp_path / "etc" / "ossec.conf"
    conf.write_text("<ossec_config><rules><include>b.xml</include><include>a.xml</include></rules></ossec_config>")
    for path in (tmp_path, tmp_path / "etc", conf):
        assert [file.name for file in rule_files(path)] == ["decoder.xml", "b.xml", "a.xml"]


def test_a_configuration_that_is_named_is_none_of_fail2ban(tmp_path: Path):
    read(tmp_path, '<rule id="100" level="3"><match>x</match></rule>')
    (tmp_path / "ossec.conf").write_text("<ossec_config><rules><include>a.xml</include></rules></ossec_config>")
    loaded = load([tmp_path / "ossec.conf"], keep_going=True)
    assert [rule.id for rule in loaded.rules if rule.branch and rule.id == "100"] == ["100"]
    assert not loaded.errors


def test_files_named_twice_are_read_once(tmp_path: Path):
    read(tmp_path, '<rule id="100" level="3"><match>x</match></rule>')
    assert len(load([tmp_path, tmp_path / "a.xml"]).rules) == 2


def test_what_is_kept_between_runs_heeds_the_lists(tmp_path: Path):
    read(tmp_path, '<rule id="100" level="3"><list field="user">lists/keys</list></rule>', keys="a:\n")
    for key in ("a", "b"):
        (tmp_path / "keys").write_text(f"{key}:\n")
        rules = load_rules([tmp_path], packs=False)
        assert [test.values for test in wanted(next(rule for rule in rules if rule.id == "100"))] == [(key,)]
