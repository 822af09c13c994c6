"""Regular expressions in linear time: RE2, quiet, with its words in a ValueError where a pattern is none.
Counterpart: rules, silences and sources compile through here, so that one text is refused everywhere alike."""

from __future__ import annotations

from typing import AnyStr

import re2


def compile_re2(
    pattern: AnyStr, *, cased: bool = True, dot_newline: bool = False, latin1: bool = False
) -> re2._Regexp[AnyStr]:
    """A compiled pattern that captures nothing; ValueError says why there is none.

    dot_newline: `.` takes a newline too. latin1: each byte is a character, for text that need not be UTF-8.
    """
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    options.case_sensitive = cased
    options.dot_nl = dot_newline
    if latin1:
        options.encoding = re2.Options.Encoding.LATIN1
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        why = error.args[0] if error.args else "not understood"
        raise ValueError(why.decode("utf-8", "replace") if isinstance(why, bytes) else str(why)) from None
