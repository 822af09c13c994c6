import pytest
from hypothesis import given
from hypothesis import strategies as st

from vedette.text import times


@given(st.integers(min_value=-62_135_596_800_000_000, max_value=253_402_300_799_999_999))
def test_rfc3339_there_and_back(time: int) -> None:
    assert times.parse_rfc3339(times.rfc3339(time)) == time


def test_rfc3339_form() -> None:
    assert times.rfc3339(0) == "1970-01-01T00:00:00.000000Z"
    assert times.rfc3339(1_795_489_425_000_001) == "2026-11-24T03:03:45.000001Z"
    assert times.rfc3339(10**20).startswith("9999-12-31")


@pytest.mark.parametrize("text", ["2026-11-24T03:03:45", "yesterday", ""])
def test_no_zone_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"zone|Invalid"):
        times.parse_rfc3339(text)


def test_positive_durations() -> None:
    assert times.positive_duration("1m") == "1m"
    for bad in ("0s", "soon"):
        with pytest.raises(ValueError, match="duration"):
            times.positive_duration(bad)


def test_durations() -> None:
    assert times.parse_duration("1h30m") == 5_400_000_000
    assert times.parse_duration("250ms") == 250_000
    assert times.duration_text(5_400_000_000) == "1h30m"
    assert times.duration_text(0) == "0s"
    for bad in ("", "10", "m", "1h 30m", "-5m", "1y"):
        with pytest.raises(ValueError, match="duration"):
            times.parse_duration(bad)
