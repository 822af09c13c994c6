"""The XML that OSSEC and Wazuh write: fragments without a root, read with lines, bounded, and without entities.
Counterpart: `parsers` read decoders with it, `rules` read rules, `app` reads whole configurations."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vedette.model.errors import Location, RuleError

FILE_LIMIT = 16 * 1024 * 1024
_ELEMENTS = 500_000
_DEPTH = 12
_CONTENT = 65_536
_CHUNK = re.compile(r"<!--|<\?|<!|</?[A-Za-z_]|\\[\\<]", re.ASCII)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]*", re.ASCII)
_ATTRIBUTE = re.compile(r"""\s*([A-Za-z_][A-Za-z0-9_.:-]*)\s*=\s*("[^"]*"|'[^']*')""", re.ASCII)
_VARIABLE = re.compile(r"\$([A-Za-z0-9_]+)", re.ASCII)


@dataclass(slots=True)
class Element:
    """One element. text: what stands directly in it, as written; line: of its beginning, from 1."""

    name: str
    attributes: Mapping[str, str]
    line: int
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def all(self, name: str) -> Iterator[Element]:
        """The children of that name, in order."""
        return (child for child in self.children if child.name == name)

    def first(self, name: str, default: str = "") -> str:
        """The text of the first child of that name, without the space around it."""
        return next((child.text.strip() for child in self.all(name)), default)


def read_fragment(path: Path) -> list[Element]:
    """The elements of a file, its variables replaced; RuleError with file:line for what is no such XML."""
    try:
        if path.stat().st_size > FILE_LIMIT:
            raise RuleError(f"more than {FILE_LIMIT >> 20} MiB", location=Location(str(path)))
        text = path.read_bytes().decode("utf-8", "replace")
    except OSError as error:
        raise RuleError(f"cannot be read: {error.strerror}", location=Location(str(path))) from None
    return parse(text, str(path))


def parse(text: str, file: str) -> list[Element]:
    """As `read_fragment`, of a text at hand."""
    return _Reader(text, file).read()


class _Reader:
    def __init__(self, text: str, file: str) -> None:
        self._text, self._file = text, file
        self._line, self._counted = 1, 0
        self._elements = 0

    def _error(self, message: str, at: int, hint: str = "") -> RuleError:
        return RuleError(message, location=Location(self._file, self._line_of(at)), hint=hint)

    def _line_of(self, at: int) -> int:
        if at >= self._counted:
            self._line += self._text.count("\n", self._counted, at)
            self._counted = at
            return self._line
        return self._text.count("\n", 0, at) + 1

    def read(self) -> list[Element]:
        text, at = self._text, 0
        root = Element("", {}, 0)
        stack, pieces = [root], [list[str]()]
        while True:
            found = _CHUNK.search(text, at)
            pieces[-1].append(text[at : found.start() if found else len(text)])
            if found is None:
                break
            at, mark = found.start(), found.group()
            if mark[0] == "\\":
                pieces[-1].append("<" if mark[1] == "<" else mark)
                at += 2
            elif mark in ("<!--", "<?"):
                end = text.find("-->" if mark == "<!--" else "?>", at + len(mark))
                if end < 0:
                    raise self._error("a comment that does not end" if mark == "<!--" else "'<?' without '?>'", at)
                at = end + (3 if mark == "<!--" else 2)
            elif mark == "<!":
                raise self._error("document types and entities are not taken", at)
            elif mark.startswith("</"):
                at = self._close(at, stack, pieces)
            else:
                at = self._open(at, stack, pieces)
        if len(stack) > 1:
            raise self._error(f"<{stack[-1].name}> of line {stack[-1].line} is not closed", len(text))
        # OSSEC passes over text between elements; its own decoder.xml has some, left of a comment.
        if not root.children and "".join(pieces[0]).strip():
            raise self._error("no element at all", 0, "this is no rule or decoder file")
        _apply_variables(root, self._file)
        return root.children

    def _open(self, at: int, stack: list[Element], pieces: list[list[str]]) -> int:
        text, begin = self._text, at
        name = _NAME.match(text, at + 1)
        assert name is not None
        at = name.end()
        attributes: dict[str, str] = {}
        while attribute := _ATTRIBUTE.match(text, at):
            attributes[attribute[1].lower()] = attribute[2][1:-1]
            at = attribute.end()
        while at < len(text) and text[at].isspace():
            at += 1
        closed = text.startswith("/>", at)
        if not closed and not text.startswith(">", at):
            raise self._error(f"<{name.group()}> is not written right", begin, 'attributes are name="value"')
        self._elements += 1
        if self._elements > _ELEMENTS or len(stack) > _DEPTH:
            raise self._error("too many elements, or too deep in each other", begin)
        element = Element(name.group().lower(), attributes, self._line_of(begin))
        stack[-1].children.append(element)
        if closed:
            return at + 2
        stack.append(element)
        pieces.append([])
        return at + 1

    def _close(self, at: int, stack: list[Element], pieces: list[list[str]]) -> int:
        name = _NAME.match(self._text, at + 2)
        end = self._text.find(">", at)
        assert name is not None
        if end < 0 or len(stack) == 1 or stack[-1].name != name.group().lower():
            open_name = f"<{stack[-1].name}> of line {stack[-1].line} is open" if len(stack) > 1 else "nothing is open"
            raise self._error(f"</{name.group()}>, but {open_name}", at)
        stack.pop().text = "".join(pieces.pop())
        return end + 1


def _apply_variables(root: Element, file: str) -> None:
    """`$NAME` becomes what `<var name="NAME">` says, once: what it says is not looked through again."""
    values = {one.attributes.get("name", ""): one.text for one in root.children if one.name == "var"}
    root.children = [one for one in root.children if one.name != "var"]
    if not values:
        return
    waiting = list(root.children)
    while waiting:
        element = waiting.pop()
        waiting.extend(element.children)
        if any("$" in value for value in element.attributes.values()):
            element.attributes = {
                name: _VARIABLE.sub(lambda found: _value(found, values), value)[:_CONTENT]
                for name, value in element.attributes.items()
            }
        if "$" in element.text:
            text = _VARIABLE.sub(lambda found: _value(found, values), element.text)
            if len(text) > _CONTENT:
                raise RuleError("too long with its variables", location=Location(file, element.line))
            element.text = text


def _value(found: re.Match[str], values: Mapping[str, str]) -> str:
    name = found.group(1)
    # A variable's name ends where one is known: $(...) and a lone end-of-text sign stay as they are.
    return values.get(name, found.group())
