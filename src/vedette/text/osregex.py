"""OSSEC's two pattern languages as regular expressions in linear time: OS_Match and OS_Regex.
Counterpart: decoders (`parsers`) and rules (`rules`) of OSSEC and Wazuh are written in them."""

from __future__ import annotations

import re
from enum import StrEnum

LONGEST = 20_480
"""Characters a pattern may have: what OSSEC itself takes."""
_ALTERNATIVES = 4096

_CLASSES = {
    "w": "[A-Za-z0-9@_-]",
    "W": "[^A-Za-z0-9@_-]",
    "d": "[0-9]",
    "D": "[^0-9]",
    "s": "[ ]",
    "S": "[^ ]",
    "t": "[\\t]",
    "p": "[()*+,.:;<=>?\\[\\]!\"'#%&$|{}-]",
    ".": "(?s:.)",
}


class Anchor(StrEnum):
    """Where a literal of OS_Match must stand."""

    ANYWHERE = "anywhere"
    START = "start"
    END = "end"
    WHOLE = "whole"


def os_match(pattern: str) -> list[tuple[Anchor, str]]:
    """The literals of an OS_Match pattern, one of which must stand where it says; case does not matter.

    ValueError for a pattern longer than any that OSSEC takes.
    """
    parts = pattern.split("|")
    if len(pattern) > LONGEST or len(parts) > _ALTERNATIVES:
        raise ValueError(f"a pattern of more than {LONGEST} characters")
    found = []
    for part in parts:
        start, end = part.startswith("^"), part.endswith("$")
        literal = part[start : len(part) - end if len(part) > start else len(part)]
        anchor = Anchor.WHOLE if start and end else Anchor.START if start else Anchor.END if end else Anchor.ANYWHERE
        found.append((anchor, literal))
    return found


def os_match_regex(pattern: str) -> str:
    """An OS_Match pattern as a regular expression."""
    ends = {
        Anchor.ANYWHERE: ("", ""),
        Anchor.START: (r"\A", ""),
        Anchor.END: ("", r"\z"),
        Anchor.WHOLE: (r"\A", r"\z"),
    }
    parts = [ends[anchor][0] + _quoted(literal) + ends[anchor][1] for anchor, literal in os_match(pattern)]
    return "(?i)(?:" + "|".join(parts) + ")"


def os_regex(pattern: str) -> str:
    """An OS_Regex pattern as one regular expression that says whether it matches."""
    return "(?i)(?:" + "|".join(_alternative(part) for part in _split(pattern)) + ")"


def os_regex_parts(pattern: str) -> list[str]:
    """Its alternatives, tried one after the other: the first that matches anywhere gives end and groups."""
    return ["(?i)" + _alternative(part) for part in _split(pattern)]


def _split(pattern: str) -> list[str]:
    if len(pattern) > LONGEST:
        raise ValueError(f"a pattern of more than {LONGEST} characters")
    parts, begin, at = [], 0, 0
    while at < len(pattern):
        if pattern[at] == "\\":
            at += 2
            continue
        if pattern[at] == "|":
            parts.append(pattern[begin:at])
            begin = at + 1
        at += 1
    parts.append(pattern[begin:])
    if len(parts) > _ALTERNATIVES:
        raise ValueError(f"more than {_ALTERNATIVES} alternatives")
    return parts


def _alternative(part: str) -> str:
    """Repeats take as little as they can, as OS_Regex tries what follows first; at the end they take all."""
    out: list[str] = []
    at, end, depth = 0, len(part), 0
    if part.startswith("^"):
        out.append(r"\A")
        at = 1
    closed = part.endswith("$") and not _escaped(part, end - 1) and end > at
    if closed:
        end -= 1
    while at < end:
        character = part[at]
        if character == "\\" and at + 1 < end:
            following = part[at + 1]
            at += 2
            if following not in _CLASSES:
                out.append(_quoted(following))
                continue
            out.append(_CLASSES[following])
            if at < end and part[at] in "+*":
                out.append(part[at])
                at += 1
                if part[at:end].strip(")"):
                    out.append("?")
        elif character in "()":
            depth += 1 if character == "(" else -1
            if depth < 0:
                raise ValueError("a ')' without '('")
            out.append(character)
            at += 1
        else:
            out.append(_quoted(character))
            at += 1
    if depth:
        raise ValueError("a '(' without ')'")
    return "".join(out) + (r"\z" if closed else "")


def _escaped(text: str, at: int) -> bool:
    before = at - 1
    while before >= 0 and text[before] == "\\":
        before -= 1
    return (at - 1 - before) % 2 == 1


def _quoted(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_ \x80-\U0010ffff]", lambda found: f"\\x{{{ord(found.group()):x}}}", text)
