"""The query line: what it means, and what is said of one that means nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.app.counters import Counters
from vedette.app.detection import batch_of_lines, matcher_of
from vedette.model import rules as model_rules
from vedette.model.errors import RuleError
from vedette.model.levels import Level
from vedette.model.rules import Rule, Test
from vedette.rules.query import DEEPEST, EVERYTHING, LONGEST, MOST, parse_query
from vedette.text.times import parse_rfc3339

LINES = [
    b"Jan  1 00:00:01 web01 sshd[1]: Failed password for root from 192.0.2.1 port 22 ssh2",
    b"Jan  1 00:00:02 web01 sshd[2]: Failed password for invalid user adm*n from 192.0.2.77 port 4000 ssh2",
    b"Jan  1 00:00:03 web02 sshd[3]: Accepted publickey for alice from 198.51.100.7 port 50000 ssh2",
    b"Jan  1 00:00:04 web02 sshd[4]: Failed password for bob from 2001:db8::9 port 1 ssh2",
    b"no header at all, 192.0.2.1 and Failed too",
]


def found(query: str) -> list[int]:
    """Which of the lines, from 0, the engine finds for the query."""
    rule = Rule("search", "search", Level.INFORMATIONAL, when=parse_query(query).node)
    matches = matcher_of([rule], counter=Counters()).match(batch_of_lines(LINES, year=2026))
    return [int(row) for row in matches.rows]


@pytest.mark.parametrize(
    ("query", "lines"),
    [
        ("", [0, 1, 2, 3, 4]),
        ("*", [0, 1, 2, 3, 4]),
        ("failed", [0, 1, 3, 4]),
        ("web01", [0, 1]),
        ("192.0.2.1", [0, 4]),
        ("failed 192.0.2.1", [0, 4]),
        ("failed AND NOT root", [1, 3, 4]),
        ("failed -root -header", [1, 3]),
        ("alice OR bob", [2, 3]),
        ('"password for root"', [0]),
        ('"no header"', [4]),
        ("source.ip:192.0.2.1", [0]),
        ("source.ip:192.0.2.0/24", [0, 1]),
        ("source.ip:192.0.2.*", [0, 1]),
        ("source.ip:[192.0.2.2 TO 192.0.2.80]", [1]),
        ("source.ip:{192.0.2.1 TO 192.0.2.77}", []),
        ('source.ip:"2001:db8::/32"', [3]),
        ('source.ip:"2001:DB8:0::9"', [3]),
        ("source.ip:(192.0.2.1 OR 198.51.100.7)", [0, 2]),
        ("source.port:[22 TO 4000]", [0, 1]),
        ("source.port:{22 TO 4000]", [1]),
        ("source.port:>4000", [2]),
        ("source.port:<=22", [0, 3]),
        ("user.name:*", [0, 1, 2, 3]),
        ("NOT user.name:*", [4]),
        ("user.name:adm\\*n", [1]),
        ('user.name:"adm*n"', [1]),
        ("user.name:a*", [1, 2]),
        ("user.name:?ob", [3]),
        ("USER.NAME:root", []),
        ("user.name:ROOT", [0]),
        ("message:publickey", [2]),
        ("/port [0-9]{5} /", [2]),
        ("user.name:/^(alice|bob)$/", [2, 3]),
        ("event.outcome:failure AND (source.port:22 OR user.name:bob)", [0, 3]),
    ],
)
def test_a_query_means_what_a_rule_means(query: str, lines: list[int]) -> None:
    assert found(query) == lines


@pytest.mark.parametrize(
    ("query", "place", "words"),
    [
        ("(a", "query:1:3", "ends too soon"),
        ("a )", "query:1:3", "not expected"),
        ("source.ip:2001:db8::1", "query:1:20", "in quotes"),
        ("x source.ip:nobody", "query:1:13", "not an address"),
        ("source.port:ssh", "query:1:13", "is a number"),
        ("a~2", "query:1:1", "similar words"),
        ("user.name:[a TO b]", "query:1:11", "no number"),
        ("[1 TO 2]", "query:1:1", "name the field"),
        ("a OR @timestamp:[2026-01-01 TO *]", "query:1:17", "within OR or NOT"),
        ("@timestamp:2026-01-01", "query:1:12", "as a range"),
        ("@timestamp:[yesterday TO *]", "query:1:12", "is no time"),
        ("/(/", "query:1:1", "no regular expression"),
        ("a AND b:(c:d)", "query:1:10", "a field within"),
    ],
)
def test_a_query_that_means_nothing_is_said_with_its_column(query: str, place: str, words: str) -> None:
    with pytest.raises(RuleError) as caught:
        parse_query(query)
    assert str(caught.value).startswith(f"{place}: ")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "query",
    [
        "a" * (LONGEST + 1),
        "(" * (DEEPEST + 1) + "a" + ")" * (DEEPEST + 1),
        "NOT " * 900 + "a",
        "a " * (MOST + 1),
    ],
)
def test_a_query_without_end_is_refused(query: str) -> None:
    with pytest.raises(RuleError):
        parse_query(query)


def test_a_range_of_time_goes_for_the_whole_query() -> None:
    query = parse_query("@timestamp:[2026-01-02 TO 2026-01-03T00:00:00Z} failed")
    assert query.since == parse_rfc3339("2026-01-02T00:00:00Z")
    assert query.until == parse_rfc3339("2026-01-03T00:00:00Z")
    assert {leaf.field for leaf in model_rules.tests_of(query.node) if isinstance(leaf, Test)} == {"event.original"}
    whole = parse_query("@timestamp:[2026-01-02 TO 2026-01-02]")
    assert whole.node == EVERYTHING
    assert whole.since is not None
    assert whole.until is not None
    assert whole.until - whole.since == 86_400_000_000


def assert_placed(error: RuleError) -> None:
    assert error.location is not None
    assert 1 <= error.location.column <= LONGEST + 1


@settings(max_examples=40, deadline=None)
@given(st.text(alphabet='ab:()[]{}"/\\*? ~^-+!<>&|.09\n\x00é', max_size=24))
def test_any_text_is_a_query_or_an_error_of_ours(text: str) -> None:
    try:
        query = parse_query(text)
    except RuleError as error:
        assert_placed(error)
    else:
        matcher_of([Rule("search", "search", Level.INFORMATIONAL, when=query.node)], counter=Counters())
