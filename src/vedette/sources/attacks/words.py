"""A command as words, split the way a shell splits them and no further; what would need a shell is refused.
Counterpart: `steps` checks every command with it, `run` fills in the profile and starts what comes out."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping

NO_SHELL = "commands are run without a shell"

_PLACEHOLDER = re.compile(r"<([^<>\s]+)>")
_TOKEN = re.compile(
    r"""(?P<space>\s+) | '(?P<single>[^']*)' | "(?P<double>(?:\\.|[^"\\])*)" | \\(?P<escaped>.)
      | <(?P<name>[^<>\s]+)> | (?P<plain>[^\s'"\\<]+) | (?P<odd>.)""",
    re.VERBOSE | re.DOTALL,
)
_EXPANDED = r"\$[A-Za-z_{(][^\s\"']*|`"
_IN_DOUBLE = re.compile(rf"""\\(?P<escaped>["\\$`]) | <(?P<name>[^<>\s]+)> | (?P<expanded>{_EXPANDED})""", re.VERBOSE)
_EXPANSION = re.compile(_EXPANDED)
_OPERATOR_FIRST = re.compile(r"[|&;]")
_OPERATOR_LAST = re.compile(r"[|&;]$")
_ASSIGNMENT = re.compile(r"(\w+)=")


def placeholders(template: str) -> Iterator[str]:
    """The names that stand as `<name>` in a command."""
    for found in _PLACEHOLDER.finditer(template):
        yield found.group(1)


def split_words(template: str, values: Mapping[str, str]) -> list[str]:
    """The words of a command, `<name>` filled in from `values`; ValueError where it means more than words.

    A value outside quotes is split like the rest of the command, as Gauntlt does it; between quotes it stays one
    piece whatever is in it. Nothing in a value is ever an operator. `*`, `~`, `#` and, inside a word, `&`, `|` and
    `;` are ordinary characters (aruba runs no shell either); pipes, lists, redirects and expansions are refused.
    """
    words: list[str] = []
    word: str | None = None
    for token in _TOKEN.finditer(template):
        match token.lastgroup:
            case "space":
                if word is not None:
                    words.append(word)
                word = None
                continue
            case "single":
                piece = _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), token["single"])
            case "double":
                piece = _between_doubles(token["double"], values)
            case "escaped":
                if token["escaped"] == "\n":
                    continue
                piece = token["escaped"]
            case "name":
                if token["name"] not in values:
                    raise ValueError(f"no value for <{token['name']}>")
                pieces = _pieces(values[token["name"]])
                if not pieces:
                    continue
                for one in pieces[:-1]:
                    words.append((word or "") + one)
                    word = None
                piece = pieces[-1]
            case "plain":
                piece = token["plain"]
                _refuse_operators(piece, begins=word is None, ends=template[token.end() : token.end() + 1].isspace())
            case _:
                raise ValueError(_odd(token["odd"]))
        word = (word or "") + piece
    if word is not None:
        words.append(word)
    assigned = _ASSIGNMENT.match(words[0]) if words else None
    if assigned:
        raise ValueError(f"{NO_SHELL}: set {assigned[1]} by a step of its own")
    return words


def _between_doubles(text: str, values: Mapping[str, str]) -> str:
    def filled(found: re.Match[str]) -> str:
        if found["expanded"]:
            raise ValueError(f"{NO_SHELL}: `{found['expanded']}` would be expanded by one")
        return found["escaped"] or values.get(found["name"], found[0])

    return _IN_DOUBLE.sub(filled, text)


def _refuse_operators(text: str, *, begins: bool, ends: bool) -> None:
    expanded = _EXPANSION.search(text)
    if expanded:
        raise ValueError(f"{NO_SHELL}: `{expanded[0]}` would be expanded by one")
    if ">" in text or (begins and _OPERATOR_FIRST.match(text)) or (ends and _OPERATOR_LAST.search(text)):
        raise ValueError(f"{NO_SHELL}: `{text}` is for one; quote it if it is meant as it stands")


def _pieces(value: str) -> list[str]:
    try:
        return shlex.split(value)
    except ValueError:
        return [value]


def _odd(char: str) -> str:
    if char in "'\"":
        return f"no closing {char}"
    if char == "\\":
        return "ends with a backslash"
    return f"{NO_SHELL}: `{char}` is for one; quote it if it is meant as it stands"
