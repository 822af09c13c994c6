"""Attack files as scenarios: backgrounds, outlines, tags and places; and files that are none.
Counterpart: vedette.sources.attacks.feature."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.sources.attacks import feature
from vedette.sources.attacks.feature import FILE_LIMIT, read_feature

TEXT = '''@slow
Feature: shop
  Background:
    Given "curl" is installed

  @one
  Scenario: first
    When I launch a "curl" attack with:
      """
      curl <host>
        two
      """

  Scenario Outline: verbs
    Then the output should contain "<said> <kept>"
    And a table:
      | name | value  |
      | x    | <said> |
    Examples:
      | said |
      | 405  |
      | 404  |
'''


def test_backgrounds_stand_before_and_outlines_are_filled_in():
    scenarios, problems = read_feature(TEXT.encode(), "shop.attack")
    assert problems == []
    assert [(one.name, one.at.line, one.tags) for one in scenarios] == [
        ("first", 7, ("@slow", "@one")),
        ("verbs [row 1]", 21, ("@slow",)),
        ("verbs [row 2]", 22, ("@slow",)),
    ]
    assert {one.feature for one in scenarios} == {"shop"}
    first, row, _ = scenarios
    assert [(str(step), step.at.line) for step in first.steps] == [
        ('Given "curl" is installed', 4),
        ('When I launch a "curl" attack with:', 8),
    ]
    assert (first.steps[1].doc, str(first.steps[1].doc_at)) == ("curl <host>\n  two", "shop.attack:10")
    _, contains, table = row.steps
    assert contains.text == 'the output should contain "405 <kept>"'
    assert table.table == (("name", "value"), ("x", "405"))
    assert [place.line for place in table.rows_at] == [17, 18]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("", 1, "no feature"),
        ("# nothing but words\n", 1, "no feature"),
        ("Feature: a\n", 1, "no scenario"),
        ('Feature: a\n  Background:\n    Given "curl" is installed\n', 1, "no scenario"),
        ("Feature: a\n  Scenario: b\n  Scenario: c\n    Given d\n", 2, "scenario 'b' has no steps"),
        ("Feature: a\n  Scenario Outline: b\n    Given c\n", 2, "no rows"),
        ("Feature: a\n  Scenario Outline: b\n    Given c\n  Examples:\n   | d |\n", 2, "no rows"),
        ("# language: fr\nFonctionnalité: a\n  Plan du scénario: b\n    Quand c\n", 3, "no rows"),
        ("nmap -F host\n", 1, "expected: "),
        ("Feature: a\n  Scenario: b\n    Given x\n    Giben c\n", 4, "expected: "),
        ("Feature: a\n  Scenario: b\n    Given c:\n      | d | e |\n      | f |\n", 5, "inconsistent cell count"),
        ('Feature: a\n  Scenario: b\n    Given c:\n      """\n', 5, "unexpected end of file"),
        ("# language: xx\nFeature: a\n", 1, "Language not supported"),
    ],
)
def test_what_is_no_attack_file_is_said_with_its_line(text: str, line: int, said: str):
    scenarios, problems = read_feature(text.encode(), "x.attack")
    assert not any(one.steps for one in scenarios)
    assert problems[0].at.line == line
    assert said in problems[0].message
    assert str(problems[0]).startswith(f"x.attack:{line}")


def test_every_scenario_that_is_wrong_is_said():
    _, problems = read_feature(b"Feature: a\n  Scenario: b\n  Scenario: c\n", "x")
    assert [one.at.line for one in problems] == [2, 3]


def test_cells_of_outlines_are_no_regular_expressions():
    text = (
        "Feature: a\n  Scenario Outline: b <p(>\n    Then the output should match /<p(>/\n"
        "  Examples:\n    | p( |\n    | 80.tcp\\\\s+open\\\\d |\n"
    )
    (scenario,), problems = read_feature(text.encode(), "x")
    assert problems == []
    assert scenario.steps[0].text == r"the output should match /80.tcp\s+open\d/"


def test_no_two_scenarios_of_a_file_are_called_the_same():
    text = "Feature: a\n" + "  Scenario: {}\n    Given c\n" * 5
    scenarios, _ = read_feature(text.format("b", "b", "", "", "b").encode(), "x")
    assert [one.name for one in scenarios] == ["b", "b [2]", "unnamed scenario", "unnamed scenario [2]", "b [3]"]


def test_bytes_that_are_no_text_and_what_is_too_large(monkeypatch: pytest.MonkeyPatch):
    assert read_feature(b"Feature: a\n\xff\n", "x")[1][0].at.line == 2
    assert "larger" in read_feature(b"#" * (FILE_LIMIT + 1), "x")[1][0].message
    monkeypatch.setattr(feature, "STEP_LIMIT", 4)
    assert "more than 4 steps" in read_feature(TEXT.encode(), "x")[1][0].message


@given(
    st.lists(
        st.sampled_from([*TEXT.splitlines(), '  """', "  | a |", "# x", "  Rule: r", "\x00\x1b", "* x"]), max_size=25
    )
)
@settings(max_examples=40)
def test_any_text_gives_scenarios_or_problems_with_a_place(lines: list[str]):
    scenarios, problems = read_feature("\n".join(lines).encode(), "x")
    assert bool([one for one in scenarios if one.steps]) != bool(problems)
    assert all(one.at.line for one in problems)
    assert all(step.at.line for one in scenarios for step in one.steps)
