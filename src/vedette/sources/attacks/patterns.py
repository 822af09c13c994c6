"""Regular expressions of attack files, which are Ruby's: by RE2 in linear time, else by PCRE2 within a limit.
Counterpart: `steps` refuses what is none, `expect` searches what programs wrote."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

import pcre2

from vedette.text.regex import compile_re2

MATCH_LIMIT = 1_000_000
"""Backtracking steps PCRE2 may take: a number and no clock, so that no verdict hangs on the machine."""
_PIECE = re.compile(r"\\.|\[\^?\]?|\]|[^\\\[\]]+", re.DOTALL)
_HEX = "0-9A-Fa-f"


@lru_cache(256)
def compiled(pattern: str) -> Callable[[str], bool | None]:
    r"""A search that says whether it found anything, None = not decided within the limit; ValueError where it is none.

    As in Ruby with `/m`: `^` and `$` are at every line, `.` takes a newline, `\h` is a hexadecimal digit.
    """
    pattern = _with_hex_spelt_out(pattern)
    try:
        linear = compile_re2(f"(?m:{pattern})", dot_newline=True).search
    except ValueError:
        return _backtracking(pattern)
    return lambda text: linear(text) is not None


def _with_hex_spelt_out(pattern: str) -> str:
    r"""`\h` and `\H` as RE2 and PCRE2 write them: to PCRE2 they are spaces."""
    if "\\h" not in pattern and "\\H" not in pattern:
        return pattern
    out, within = [], False
    for piece in _PIECE.findall(pattern):
        if piece == "\\h":
            piece = _HEX if within else f"[{_HEX}]"
        elif piece == "\\H":
            if within:
                raise ValueError("\\H within brackets")
            piece = f"[^{_HEX}]"
        elif piece[0] == "[":
            within = True
        elif piece == "]":
            within = False
        out.append(piece)
    return "".join(out)


def _backtracking(pattern: str) -> Callable[[str], bool | None]:
    try:
        search = pcre2.compile(f"(*LIMIT_MATCH={MATCH_LIMIT})(?ms:{pattern})").search
    except (pcre2.error, pcre2.LibraryError) as error:
        raise ValueError(str(error)) from None

    def found(text: str) -> bool | None:
        try:
            return search(text) is not None
        except pcre2.LibraryError:
            return None

    return found
