"""Minutes are those of the clock, each counted once a host; words stay few.
Counterpart: src/vedette/model/coverage.py."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.model.clock import HOUR, MINUTE
from vedette.model.coverage import Gap, GapReason, Statement

SPANS = st.tuples(st.sampled_from("ab"), st.integers(-5 * MINUTE, 5 * MINUTE), st.integers(1, 3 * MINUTE))


def gap(host: str, since: int, until: int, stream: str = "") -> Gap:
    return Gap(host, "", stream, since, until, GapReason.SOURCE_STOPPED)


@settings(max_examples=100)
@given(st.lists(SPANS, max_size=8))
def test_minutes_are_those_that_any_gap_touches(spans: list[tuple[str, int, int]]) -> None:
    touched: dict[str, set[int]] = {}
    for host, since, length in spans:
        touched.setdefault(host, set()).update(range(since // MINUTE, (since + length - 1) // MINUTE + 1))
    found = Statement(-HOUR, HOUR, [gap(host, since, since + length) for host, since, length in spans])
    assert found.minutes == {host: len(minutes) for host, minutes in touched.items()}
    assert found.complete == (not spans)


def test_words_are_few() -> None:
    gaps = [gap(f"h{host}", 0, MINUTE, f"file:/{stream}") for host in range(30) for stream in range(5)]
    words = Statement(0, HOUR, gaps).words
    assert len(words) == 21
    assert words[0] == (
        "h0: 1 minute not covered: source stopped (file:/0), source stopped (file:/1), source stopped (file:/2) "
        "and 2 more"
    )
    assert words[-1] == "10 more hosts with gaps"


def test_most_minutes_come_first_and_nothing_missing_is_complete() -> None:
    found = Statement(0, HOUR, [gap("a", 0, MINUTE), gap("b", 0, 3 * MINUTE)])
    assert [words[:13] for words in found.words] == ["b: 3 minutes ", "a: 1 minute n"]
    assert str(Statement(0, HOUR)) == "complete"
