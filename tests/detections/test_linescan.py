"""Lines judged by those before them that differ in digits alone get what each would get by itself.
Counterpart: `detections.linescan` and `detections.lines`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vedette.app.counters import Counters
from vedette.app.detection import batch_of_lines
from vedette.app.routed import routed_parser
from vedette.detections.lines import LineMatcher
from vedette.detections.linescan import LineScan, said_of
from vedette.model.errors import Location
from vedette.model.linefilters import LineFilter, LinePattern

ADDRESS = r"(?P<ip4>(?:\d{1,3}\.){3}\d{1,3})"
PATTERNS = (
    rf"^ bye {ADDRESS} port \d+:\s*11:",
    rf"^ bye {ADDRESS} port \d+:\s*3: .*: failed$",
    rf"^ bye {ADDRESS} (?P<user>\S+) by ssh2$",
    rf"^ bye {ADDRESS} (?P<user>\S+) 2$",
    rf"^ bye {ADDRESS} (?P<user>[a-f0-4]+) so$",
    rf"^ bye {ADDRESS} (?:code=(?:40[13]|500)) so$",
    rf"^ bye {ADDRESS} (?P<user>\w+) and (?P=user)$",
    rf"(?i)^ BYE {ADDRESS} level A1$",
    rf"^ bye {ADDRESS} (?!x7)\S+ end$",
    rf"^ bye {ADDRESS} code 1\n",
)
TAILS = (
    *("port 48472:11: Bye", "port 1:3: x: failed", "port 13:4: x: failed", "port 3: 3: 3: failed", "port 1: 11:"),
    *("a1 by ssh2", "a2 by ssh1", "a 2", "b 3", "ff41 so", "ff51 so", "code=401 so", "code=403 so", "code=404 so"),
    *("code 1", "code 2", "code=500 so", "u1 and u1", "u1 and u2", "level a1", "level A2", "LEVEL A1"),
    *("x7 end", "x8 end", "y7 end"),
)


def filter_of(patterns: list[str], ignored: list[str] | None = None) -> LineFilter:
    def made(texts: list[str]) -> tuple[LinePattern, ...]:
        return tuple(LinePattern(text, Location(Path("demo.conf"), 1)) for text in texts)

    return LineFilter("demo", made(patterns), made(ignored or []))


def together(wanted: LineFilter, lines: list[str]) -> list[object]:
    """What the column says of each line of one batch."""
    batch = batch_of_lines([f"Mar  1 10:00:00{line}".encode() for line in lines], year=2026)
    column = LineScan(wanted).column(routed_parser([], Counters()).parse(batch))
    return [column.value(row) for row in np.arange(len(lines))]


def each(wanted: LineFilter, lines: list[str]) -> list[object]:
    """What the patterns say of each line without any other."""
    matcher = LineMatcher(wanted)
    hits = [(matcher.match(line), line) for line in lines]
    return [None if hit is None else said_of(matcher, hit, line) for hit, line in hits]


LINES = st.lists(
    st.builds(
        lambda last, tail: f" bye 192.0.2.{last} {tail}",
        st.integers(0, 9),
        st.sampled_from(TAILS) | st.text("0123 :ax=", max_size=12),
    ),
    min_size=1,
    max_size=12,
)


@given(st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=4, unique=True), LINES)
@example([PATTERNS[0]], [" bye 192.0.2.1 port 11:12: Bye", " bye 192.0.2.1 port 11:11: Bye"])
@example([PATTERNS[0]], [" bye 192.0.2.1 port 11:11: Bye", " bye 192.0.2.1 port 12:12: Bye"])
@example([PATTERNS[-1]], [" bye 192.0.2.1 code 1", " bye 192.0.2.1 code 2"])
def test_each_line_gets_what_it_would_get_alone(patterns: list[str], lines: list[str]) -> None:
    wanted = filter_of(patterns)
    assert together(wanted, lines) == each(wanted, lines)


def test_what_is_ignored_may_hang_on_a_number() -> None:
    wanted = filter_of([rf"^ bye {ADDRESS} .*$"], [r"port 5:"])
    lines = [f" bye 192.0.2.1 port {port}: Bye" for port in (4, 5, 6)]
    said = together(wanted, lines)
    assert [one is None for one in said] == [False, True, False]
    assert said == each(wanted, lines)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        (r"^\d+ from [0-9a-f]+ \S*$", set()),
        (r"port \d+:\s*11:", {"11:"}),
        (r"ssh2$", {"h2"}),
        (r"code 1\n", {" 1"}),  # what ends a line is in none
        (r"x12y34z", {"x12y", "34z"}),
        (r"(?:40[13]|x)", None),  # a set of some digits
        (r"[0-4]", None),
        (r"a(?:3)?", None),  # nothing beside it
        (r"(\w+) (?:\1|x)", None),  # compares
        (r"a5(?=b6)(?!c7)(?<=d8)", {"a5", "b6", "c7", "d8"}),
        (r"A1", {"a1"}),
        (r"[^5]", None),
    ],
)
def test_numbers_a_pattern_tells_from_others(text: str, numbers: set[str] | None) -> None:
    found = LineMatcher(filter_of([text])).numbers([0])
    assert found == (None if numbers is None else frozenset(numbers))
