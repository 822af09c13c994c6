"""OSSEC's XML fragments: what its own files have, and what hostile ones may not do."""

from __future__ import annotations

from pathlib import Path

import pytest

from vedette.model.errors import RuleError
from vedette.text.ossec_xml import parse, read_fragment


def test_a_fragment_has_elements_with_lines_attributes_and_their_text():
    group, other = parse(
        '<?xml version="1.0"?>\n<!-- <x> -->\n<group name="a,">\n  <rule id=\'1\'>\n    <match>\\<b> &amp; c</match>\n'
        "    <if_fts />\n  </rule>\n</group>\nleft over\n<group/>",
        "rules.xml",
    )
    (rule,) = group.all("rule")
    assert (group.attributes["name"], rule.attributes["id"], rule.line) == ("a,", "1", 4)
    assert rule.first("match") == "<b> &amp; c"
    assert [child.name for child in rule.children] == ["match", "if_fts"]
    assert other.children == []


def test_a_backslash_before_a_bracket_that_is_itself_escaped_ends_the_text():
    (field,) = parse(r"<field>E:\\</field>", "x")
    assert field.text == r"E:\\"


def test_variables_are_put_in_once():
    (group,) = parse(
        '<var name="A">$B</var><var name="B">b</var><group name="$B"><match>$A|$C|$(x)$</match></group>', "x"
    )
    assert group.first("match") == "$B|$C|$(x)$"
    assert group.attributes["name"] == "b"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("<group>\n<rule>\n</group>", 3, "of line 2 is open"),
        ("<group>\n", 2, "not closed"),
        ("\n</group>", 2, "nothing is open"),
        ('<!DOCTYPE x [<!ENTITY a "b">]>', 1, "entities"),
        ("\n<group name=>", 2, "not written right"),
        ("<!-- \n", 1, "does not end"),
        ("no element", 1, "no element"),
        ("<a>" * 20, 1, "too deep"),
    ],
)
def test_what_is_no_such_file_is_refused_with_its_line(text: str, line: int, words: str):
    with pytest.raises(RuleError, match=words) as caught:
        parse(text, "rules.xml")
    assert caught.value.location is not None
    assert (caught.value.location.file, caught.value.location.line) == ("rules.xml", line)


def test_variables_do_not_grow_without_end():
    with pytest.raises(RuleError, match="too long"):
        parse('<var name="A">' + "x" * 1000 + "</var><match>" + "$A " * 100 + "</match>", "x")


def test_a_file_that_is_not_there_is_an_error_with_its_name(tmp_path: Path):
    with pytest.raises(RuleError, match="cannot be read"):
        read_fragment(tmp_path / "none.xml")
