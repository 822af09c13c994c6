"""OS_Match and OS_Regex as regular expressions: classes, anchors, what repeats take, what is refused."""

from __future__ import annotations

import pytest
import re2

from vedette.text.osregex import Anchor, os_match, os_match_regex, os_regex, os_regex_parts


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        (r"^Failed \w+ for", "failed password for root", True),
        (r"^Failed", "error: Failed", False),
        (r"port \d+$", "from 192.0.2.1 port 22", True),
        (r"port \d+$", "port 22 ssh2", False),
        (r"1.2.3.4", "1a2b3c4", False),
        (r"a\.b", "axb", True),
        (r"one|^two", "and one", True),
        (r"one|^two", "and two", False),
        (r"\(x\)", "(x)", True),
        (r"a|b\|c", "xb|cx", True),
        (r"\w\s\w", "a\tb", False),
        (r"\t", "a\tb", True),
        (r"\p\p", "a-.", True),
        (r"C:\\Windows", "c:\\windows", True),
        (r"100%", "100% sure", True),
        (r"cost+", "cost+", True),
        (r"cost+", "costt", False),
    ],
)
def test_os_regex_says_whether_a_text_matches(pattern: str, text: str, matches: bool):
    assert (re2.search(os_regex(pattern), text) is not None) is matches


def test_repeats_take_as_little_as_they_can_and_at_the_end_all():
    (part,) = os_regex_parts(r"user (\S+) from (\S+)")
    assert re2.search(part, "user a from b from 192.0.2.1x").groups() == ("a", "b")
    (part,) = os_regex_parts(r"^(\.+): (\d*)")
    assert re2.search(part, "one: two: 33").groups() == ("one", "")
    (part,) = os_regex_parts(r"(\.+): (\d+)")
    assert re2.search(part, "one: two: 33").groups() == ("one: two", "33")


def test_alternatives_are_patterns_of_their_own():
    assert len(os_regex_parts(r"^a(\d)|b(\d)$")) == 2


@pytest.mark.parametrize("pattern", ["(a", "a)", "x" * 30_000, "|" * 5_000])
def test_what_is_no_pattern_is_refused(pattern: str):
    with pytest.raises(ValueError, match=r"'\('|'\)'|more than"):
        os_regex(pattern)


def test_os_match_is_literals_with_a_place():
    assert os_match("^a|b$|^c$|d|") == [
        (Anchor.START, "a"),
        (Anchor.END, "b"),
        (Anchor.WHOLE, "c"),
        (Anchor.ANYWHERE, "d"),
        (Anchor.ANYWHERE, ""),
    ]
    assert re2.search(os_match_regex("^sshd$|cron"), "SSHD")
    assert not re2.search(os_match_regex("^sshd$|cron"), "sshd2")
    assert re2.search(os_match_regex("a.b"), "xa.bx")
    assert not re2.search(os_match_regex("a.b"), "axb")
