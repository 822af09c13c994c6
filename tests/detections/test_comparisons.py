"""Parts of times and comparisons of two fields, value by value."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vedette.detections.comparisons import judge_part, judge_reference, moment_of, part_of
from vedette.model.events import Scalar
from vedette.model.rules import DatePart, Op

# A Sunday, and the last week of its ISO year.
MOMENT = datetime(2023, 12, 31, 22, 5, 9, 250_000, tzinfo=UTC)
SECONDS = 1_704_060_309.25


@pytest.mark.parametrize(
    "value",
    [
        "2023-12-31T22:05:09.250Z",
        "2023-12-31 22:05:09.250",
        "2023-12-31T22:05:09,25",
        "2023-12-31T22:05:09.250000000Z",
        "2024-01-01T00:05:09.2500000+02:00",
        " 2023-12-31T22:05:09.25+00:00 ",
        SECONDS,
        "1704060309.25",
        1_704_060_309_250,
        1_704_060_309_250_000,
        "1704060309250000000",
    ],
)
def test_every_way_to_write_a_time_names_the_same_moment(value: Scalar):
    assert moment_of(value) == MOMENT


@pytest.mark.parametrize(
    "value",
    [None, True, "", "yesterday", "12:30", "2023-13-01", "nan", "inf", "1_700_000_000", 1e30, "9" * 70, "0x10"],
)
def test_what_names_no_time_has_no_part(value: Scalar):
    assert [part_of(part, value) for part in DatePart] == [None] * 6


@pytest.mark.parametrize(
    ("part", "number"),
    [
        (DatePart.MINUTE, 5),
        (DatePart.HOUR, 22),
        (DatePart.DAY, 31),
        (DatePart.WEEK, 52),
        (DatePart.MONTH, 12),
        (DatePart.YEAR, 2023),
    ],
)
def test_parts(part: DatePart, number: int):
    assert part_of(part, SECONDS) == number
    held = {op for op in (Op.EQUALS, Op.LT, Op.LTE, Op.GT, Op.GTE) if judge_part(part, op, number, SECONDS)}
    assert held == {Op.EQUALS, Op.LTE, Op.GTE}
    assert judge_part(part, Op.LT, number + 1, SECONDS)
    assert judge_part(part, Op.GT, number - 1, SECONDS)


def test_a_value_without_a_time_satisfies_no_comparison():
    assert not any(judge_part(DatePart.HOUR, op, 0, "never") for op in (Op.EQUALS, Op.LT, Op.LTE, Op.GT, Op.GTE))


def test_the_last_days_of_a_year_may_be_of_the_first_week():
    assert part_of(DatePart.WEEK, "2024-12-30") == 1


@given(st.integers(200_000_000, 7_000_000_000))
def test_a_number_of_any_unit_is_the_time_it_counts(seconds: int):
    moment = datetime.fromtimestamp(seconds, UTC)
    assert {moment_of(seconds * unit) for unit in (1, 1_000, 1_000_000, 1_000_000_000)} == {moment}


@pytest.mark.parametrize(
    ("value", "other", "held"),
    [
        ("ab", "ab", {Op.FIELDREF, Op.FIELDREF_STARTSWITH, Op.FIELDREF_ENDSWITH, Op.FIELDREF_CONTAINS}),
        ("abc", "ab", {Op.FIELDREF_STARTSWITH, Op.FIELDREF_CONTAINS}),
        ("cab", "ab", {Op.FIELDREF_ENDSWITH, Op.FIELDREF_CONTAINS}),
        ("cabd", "ab", {Op.FIELDREF_CONTAINS}),
        ("ab", "abc", set()),
        ("ab", "", {Op.FIELDREF_STARTSWITH, Op.FIELDREF_ENDSWITH, Op.FIELDREF_CONTAINS}),
    ],
)
def test_references(value: str, other: str, held: set[Op]):
    ops = (Op.FIELDREF, Op.FIELDREF_STARTSWITH, Op.FIELDREF_ENDSWITH, Op.FIELDREF_CONTAINS)
    assert {op for op in ops if judge_reference(op, value, other)} == held


def test_other_ops_are_refused():
    with pytest.raises(ValueError, match="compares no fields"):
        judge_reference(Op.EQUALS, "a", "a")
    with pytest.raises(ValueError, match="does not compare numbers"):
        judge_part(DatePart.HOUR, Op.REGEX, 1, 0)
