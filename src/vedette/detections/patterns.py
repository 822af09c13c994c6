"""Regular expressions and lists of literals as searches: in linear time by RE2, else by PCRE2 within a limit.
Counterpart: `predicates` asks them about one value; `atoms` knows what their text must contain."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pcre2
import re2

from vedette.text.regex import compile_re2

MATCH_LIMIT = 100_000
"""Backtracking steps PCRE2 may take on one value: a number and no clock, so that no verdict hangs on the machine."""


class Backtracking:
    """A search by PCRE2 for patterns RE2 has no words for (look-around, back references).

    undecided: how often the limit was reached; such a value is taken not to match, and counted.
    """

    def __init__(self, pattern: str) -> None:
        try:
            self._search = pcre2.compile(f"(*LIMIT_MATCH={MATCH_LIMIT}){pattern}").search
        except pcre2.error as error:
            raise ValueError(str(error)) from None
        self.undecided = 0

    def __call__(self, text: str) -> bool:
        try:
            return self._search(text) is not None
        except pcre2.LibraryError:
            self.undecided += 1
            return False


def linear(pattern: str) -> Callable[[str], bool]:
    """An unanchored search by RE2; ValueError with its words where it refuses the pattern."""
    # On bytes the library need not translate places in the text, which nobody asks for.
    search = compile_re2(pattern.encode()).search
    return lambda text: search(text.encode()) is not None


def compile_regex(pattern: str) -> Callable[[str], bool]:
    """An unanchored search; ValueError with RE2's words where neither library takes the pattern."""
    try:
        return linear(pattern)
    except ValueError as refused:
        try:
            return Backtracking(pattern)
        except ValueError:
            raise refused from None


def like_to_regex(pattern: str, *, anchored: bool = True) -> str:
    """An Op.LIKE pattern as RE2: `*` any run, `?` one character, `\\` takes the next one literally."""
    out: list[str] = []
    characters = iter(pattern)
    for character in characters:
        if character == "*":
            out.append(".*")
        elif character == "?":
            out.append(".")
        else:
            literal = next(characters, "\\") if character == "\\" else character
            out.append(re2.escape(literal))
    body = "(?s)" + "".join(out)
    return f"\\A(?:{body})\\z" if anchored else body


def any_literal(texts: Sequence[str]) -> Callable[[str], bool]:
    """Whether any of many literals occurs, in one pass over the text."""
    try:
        return linear("|".join(re2.escape(text) for text in texts))
    except ValueError:  # more than one automaton may hold
        half = len(texts) // 2
        if not half:
            raise
        left, right = any_literal(texts[:half]), any_literal(texts[half:])
        return lambda text: left(text) or right(text)
