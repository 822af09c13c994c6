"""Matchers as in Alertmanager, and silences.
Counterpart: vedette.alerts.silences."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vedette.alerts.silences import (
    SilenceError,
    add,
    expire,
    is_active,
    matcher_text,
    matches,
    parse_matcher,
    parse_matchers,
    silenced_by,
)
from vedette.model.alerts import Matcher, MatchKind
from vedette.model.clock import DAY, HOUR
from vedette.testing.state import MemoryState


@pytest.mark.parametrize(
    ("text", "label", "kind", "value"),
    [
        ("rule.id=ssh-brute-force-address", "rule.id", "=", "ssh-brute-force-address"),
        (" level = high ", "level", "=", "high"),
        ('host.name="web 01"', "host.name", "=", "web 01"),
        ("host.name!=web01", "host.name", "!=", "web01"),
        ("level=~high|critical", "level", "=~", "high|critical"),
        ("level!~low", "level", "!~", "low"),
        ("rule.id=ssh-*", "rule.id", "=~", r"ssh\-.*"),
        ("rule.id!=ssh-*", "rule.id", "!~", r"ssh\-.*"),
        ('user.name="*"', "user.name", "=", "*"),
        ("user.name=", "user.name", "=", ""),
        ("user.name=a=b", "user.name", "=", "a=b"),
    ],
)
def test_what_people_write(text: str, label: str, kind: str, value: str):
    assert parse_matcher(text) == Matcher(label, MatchKind(kind), value)


@pytest.mark.parametrize(
    "text", ["", "level", "=high", "1x=y", 'a="open', 'a="b" c', "a=~(", "a!~[z-a]", "two words=x"]
)
def test_what_is_no_matcher_is_refused_with_a_hint(text: str):
    with pytest.raises(SilenceError, match="hint") as caught:
        parse_matcher(text)
    assert repr(text) in str(caught.value)


LABELS = {"rule.id": "ssh-brute-force", "level": "high", "user.name": "line\nbreak", "x.y": "a.b*c"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rule.id=ssh-*", True),
        ("rule.id=ssh", False),
        ("rule.id=*-force", True),
        ("rule.id=~ssh", False),
        ("rule.id=~ssh.*", True),
        ("rule.id!~ssh.*", False),
        ("rule.id!~ssh", True),
        ("level!=high", False),
        ("absent=", True),
        ("absent!=", False),
        ("absent=~", True),
        ("absent=~.+", False),
        ("absent!=x", True),
        ("user.name=line*", True),
        ("user.name=~line.break", True),
        ("x.y=a.b*c", True),
        ("x.y=aXb*", False),
        ('x.y="a.b*c"', True),
    ],
)
def test_matching(text: str, expected: bool):
    assert matches(parse_matcher(text), LABELS) is expected


values = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@given(st.sampled_from([MatchKind.EQUAL, MatchKind.NOT_EQUAL]), values, values)
def test_a_written_matcher_reads_back_and_equal_is_equal(kind: MatchKind, value: str, other: str):
    matcher = Matcher("user.name", kind, value)
    assert parse_matcher(matcher_text(matcher)) == matcher
    assert matches(matcher, {"user.name": other}) is ((other == value) is (kind is MatchKind.EQUAL))


@given(values.filter(lambda text: '"' not in text and not text.startswith("~")), values)
def test_an_unquoted_star_stands_for_anything_and_all_else_for_itself(value: str, middle: str):
    value = "a" + value.strip().replace("*", "")
    matcher = parse_matcher(f"user.name={value}*{value}")
    assert matches(matcher, {"user.name": f"{value}{middle}{value}"})
    assert not matches(matcher, {"user.name": f"{value}{middle}{value}!"})
    assert not matches(matcher, {"user.name": f"!{value}{middle}{value}"})


def test_a_silence_mutes_from_its_start_until_just_before_its_end():
    store = MemoryState()
    with store.transaction() as tx:
        made = add(tx, parse_matchers(["level=high"]), "ada", "works", 100, HOUR, longest=DAY, starts_at=500)
        assert [is_active(made, at) for at in (499, 500, 499 + HOUR, 500 + HOUR)] == [False, True, True, False]
        assert silenced_by(tx.silences(500), {"level": "high"}, 500) == made
        assert silenced_by(tx.silences(500), {"level": "low"}, 500) is None
        assert silenced_by(tx.silences(100), {"level": "high"}, 100) is None


def test_a_silence_can_be_ended_early_also_before_it_began():
    store = MemoryState()
    with store.transaction() as tx:
        for starts_at in (0, 500):
            made = add(tx, parse_matchers(["level=high"]), "ada", "", 100, HOUR, longest=DAY, starts_at=starts_at)
            ended = expire(tx, made.id, 200)
            assert not any(is_active(ended, at) for at in (200, 500, 501))
            with pytest.raises(SilenceError, match="hint"):
                expire(tx, made.id, 201)


@pytest.mark.parametrize("texts", [[], ["level=~.*"], ["absent="], ["level!=high"], ["level=*"]])
def test_a_silence_of_everything_is_refused(texts: list[str]):
    with MemoryState().transaction() as tx, pytest.raises(SilenceError, match="every alert"):
        add(tx, parse_matchers(texts), "ada", "", 0, HOUR, longest=DAY)


@pytest.mark.parametrize("duration", [0, -1, DAY + 1])
def test_a_silence_ends_and_not_too_late(duration: int):
    with MemoryState().transaction() as tx, pytest.raises(SilenceError, match="longest"):
        add(tx, parse_matchers(["level=high"]), "ada", "", 0, duration, longest=DAY)
