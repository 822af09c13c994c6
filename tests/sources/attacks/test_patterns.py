"""Ruby's regular expressions on what programs wrote, in bounded time.
Counterpart: vedette.sources.attacks.patterns."""

from __future__ import annotations

import pytest

from vedette.sources.attacks.patterns import compiled


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        (r"80.tcp\s+open", "80/tcp open  http", True),
        ("^b$", "a\nb\nc", True),
        ("a.b", "a\nb", True),
        (r"\h\h:\h+$", "x be:9f", True),
        (r"[\h]z", "fz", True),
        (r"\H", "abc", False),
        (r"\\h", "x", False),
        (r"443/tcp\s+(?!closed)", "443/tcp  closed", True),
        (r"443/tcp\s++(?!closed)", "443/tcp  closed", False),
        (r"[]\h]+$", "]f", True),
        (r"x[^\h]\h$", "xz0", True),
        (r"(?<!un)open", "unopen", False),
        (r"(a)\1", "aa", True),
        (r"^x(?=\n)", "y\nx\n", True),
        ("é", "café", True),
    ],
)
def test_it_is_found_as_ruby_finds_it(pattern: str, text: str, found: bool):
    assert compiled(pattern)(text) is found


def test_what_takes_too_many_steps_is_undecided():
    assert compiled(r"^(a+)+$(?!b)")("a" * 60 + "!") is None
    assert compiled(r"^(a+)+$")("a" * 60 + "!") is False


@pytest.mark.parametrize("pattern", ["(", "[", "*a", "(?<=a+)b", "(?P<x", "a{2,1}"])
def test_what_is_no_pattern_is_refused(pattern: str):
    with pytest.raises(ValueError):
        compiled(pattern)
