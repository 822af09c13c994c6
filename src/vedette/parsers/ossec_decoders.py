"""Decoders of OSSEC and Wazuh, read from their files: which texts they know, and which fields they find in them.
Counterpart: `ossec` runs them over records; `text.ossec_xml` reads the files, `text.osregex` the patterns."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from pathlib import Path

import pcre2
import re2

from vedette.model.errors import Location, RuleError
from vedette.text.osregex import os_match_regex, os_regex_parts
from vedette.text.ossec_xml import Element, read_fragment

MATCH_LIMIT = 100_000
"""Backtracking steps of one search by PCRE2; a search that needs more finds nothing, and is counted."""

_SEPARATOR = re.compile(r"[,\s]+")
_ALIASES = {"user": "dstuser", "systemname": "system_name"}
_ELEMENTS = frozenset(
    [
        "parent",
        "program_name",
        "program_name_pcre2",
        "prematch",
        "prematch_pcre2",
        "regex",
        "pcre2",
        "order",
        "type",
        "use_own_name",
        "fts",
        "ftscomment",
        "accumulate",
        "plugin_decoder",
        "json_null_field",
        "json_array_structure",
        "lua",
    ]
)


class Offset(StrEnum):
    """Where a pattern begins to look."""

    BEGINNING = ""
    AFTER_PARENT = "after_parent"
    AFTER_PREMATCH = "after_prematch"
    AFTER_REGEX = "after_regex"


class Nulls(Enum):
    """What becomes of a null in JSON."""

    TEXT = "string"
    EMPTY = "empty"
    LEFT_OUT = "discard"


class Found(tuple[int, tuple[str, ...]]):
    """Where a match ends, and the groups that took part in it."""

    __slots__ = ()


Search = Callable[[str], tuple[int, tuple[str, ...]] | None]


class Expression:
    """One or more patterns tried in turn. ValueError where one is no pattern.

    undecided: searches that reached the match limit.
    """

    def __init__(self, kind: str, text: str) -> None:
        self.kind, self.text = kind, text
        self.undecided = 0
        self.linear = False
        """Whether RE2 takes its patterns, which are then `patterns`."""
        self.patterns: tuple[str, ...] = ()
        self._parts: list[Search] | None = None
        self._compile()

    def _compile(self) -> None:
        if self.kind == "osmatch":
            patterns = [os_match_regex(self.text)]
        elif self.kind == "pcre2":
            patterns = [self.text]
        elif self.kind == "caseless":
            # What OSSEC calls pcre2 does not heed case; Wazuh's type pcre2 does.
            patterns = [f"(?i){self.text}"]
        else:
            patterns = os_regex_parts(self.text)
        if self.kind in ("pcre2", "caseless"):
            self._parts = [self._pcre2(patterns[0])]
        else:
            self._parts = [_linear(pattern) for pattern in patterns]
            self.linear = True
        self.patterns = tuple(patterns)

    def _pcre2(self, pattern: str) -> Search:
        try:
            search = _linear(pattern)
            self.linear = True
            return search
        except ValueError as refused:
            try:
                backtrack = pcre2.compile(f"(*LIMIT_MATCH={MATCH_LIMIT}){pattern}").search
            except pcre2.error:
                raise refused from None

        def find(text: str) -> tuple[int, tuple[str, ...]] | None:
            try:
                found = backtrack(text)
            except pcre2.LibraryError:
                self.undecided += 1
                return None
            return None if found is None else (found.end(), tuple(one for one in found.groups() if one is not None))

        return find

    def find(self, text: str) -> tuple[int, tuple[str, ...]] | None:
        """The end of the match in `text` and its groups; None where it does not match."""
        assert self._parts is not None
        for search in self._parts:
            found = search(text)
            if found is not None:
                return found
        return None


class First:
    """The first of some expressions that matches a text, asked at once where RE2 takes them. None matches always."""

    _MEMORY = 64 << 20

    def __init__(self, expressions: Sequence[Expression | None]) -> None:
        end = next((at for at, one in enumerate(expressions) if one is None), len(expressions))
        self._always = end if end < len(expressions) else -1
        self._asked = [(at, one) for at, one in enumerate(expressions[:end]) if one is not None]
        self._together = None
        if len(self._asked) > 1 and all(one.linear for _at, one in self._asked):
            options = re2.Options()
            options.log_errors = False
            options.max_mem = self._MEMORY
            together = re2.Set.SearchSet(options)
            self._owners: list[int] = []
            for at, one in self._asked:
                for pattern in one.patterns:
                    together.Add(pattern)
                    self._owners.append(at)
            together.Compile()
            self._together = together

    def __call__(self, text: str) -> int:
        """Its place; -1 where none matches."""
        if self._together is not None:
            found = self._together.Match(text)
            return self._owners[min(found)] if found else self._always
        for at, one in self._asked:
            if one.find(text) is not None:
                return at
        return self._always


def _linear(pattern: str) -> Search:
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        raise ValueError(str(error.args[0] if error.args else "no pattern")) from None
    written = pattern.encode()
    plainly: list[re2._Regexp[bytes]] = []
    groups = compiled.groups

    def find(text: str) -> tuple[int, tuple[str, ...]] | None:
        if text.isascii():
            # Counting characters costs more than finding them: where each is a byte nobody need.
            if not plainly:
                plainly.append(re2.compile(written, options))
            bare = plainly[0].search(text.encode())
            if bare is None:
                return None
            if not groups:
                return bare.end(), ()
            return bare.end(), tuple([one.decode() for one in bare.groups() if one is not None])
        found = compiled.search(text)
        if found is None:
            return None
        if not groups:
            return found.end(), ()
        return found.end(), tuple([one for one in found.groups() if one is not None])

    return find


@dataclass(slots=True)
class Decoder:
    """One decoder. name: as its file says; shown: what rules and people call it (its parent, unless it has
    `use_own_name`). more: the next of its siblings goes on where this one ends."""

    name: str
    location: Location
    parent: str = ""
    shown: str = ""
    category: str = "syslog"
    program: Expression | None = None
    prematch: Expression | None = None
    prematch_offset: Offset = Offset.BEGINNING
    regex: Expression | None = None
    regex_offset: Offset = Offset.BEGINNING
    order: tuple[str, ...] = ()
    fts: tuple[str, ...] = ()
    plugin: str = ""
    plugin_offset: Offset = Offset.BEGINNING
    nulls: Nulls = Nulls.TEXT
    accumulate: bool = False
    more: bool = False
    children: list[Decoder] = field(default_factory=list)


@dataclass(slots=True)
class DecoderTable:
    """Decoders without a parent, in order: those that ask for a program, and the others."""

    named: list[Decoder]
    unnamed: list[Decoder]
    errors: list[RuleError]

    def names(self) -> set[str]:
        """What rules may call a decoder."""
        roots = [*self.named, *self.unnamed]
        return {one.shown for root in roots for one in (root, *root.children)}


def read_decoders(files: Iterable[Path]) -> DecoderTable:
    """The decoders in `files`, in order; what is broken is left out and told in `errors`."""
    table = DecoderTable([], [], [])
    children: list[Decoder] = []
    for path in files:
        try:
            elements = read_fragment(path)
        except RuleError as error:
            table.errors.append(error)
            continue
        for element in elements:
            if element.name != "decoder":
                continue
            try:
                decoder = _decoder(element, str(path))
            except RuleError as error:
                table.errors.append(error)
                continue
            if decoder.parent:
                children.append(decoder)
            else:
                (table.named if decoder.program else table.unnamed).append(decoder)
    roots: dict[str, list[Decoder]] = {}
    for root in (*table.named, *table.unnamed):
        roots.setdefault(root.name, []).append(root)
    for child in children:
        if child.parent not in roots:
            table.errors.append(RuleError(f"there is no decoder {child.parent!r}", location=child.location))
            continue
        _add_child(roots[child.parent], child)
    return table


def _add_child(parents: Sequence[Decoder], child: Decoder) -> None:
    for parent in parents:
        same = [one for one in parent.children if one.name == child.name]
        if same:
            same[-1].more = True
        parent.children.append(child)


def _decoder(element: Element, file: str) -> Decoder:
    where = Location(file, element.line)
    name = element.attributes.get("name", "")
    if not name:
        raise RuleError("a decoder without a name", location=where)
    decoder = Decoder(name, where, parent=element.first("parent"))
    for child in element.children:
        if child.name not in _ELEMENTS:
            raise RuleError(f"decoder {name}: unknown element {child.name!r}", location=Location(file, child.line))
    decoder.shown = decoder.parent if decoder.parent and not list(element.all("use_own_name")) else name
    decoder.category = element.first("type", "syslog")
    decoder.program = _expression(element, ("program_name", "program_name_pcre2"), "osmatch", file)
    decoder.prematch = _expression(element, ("prematch", "prematch_pcre2"), "osregex", file)
    decoder.prematch_offset = _offset(element, ("prematch", "prematch_pcre2"), file)
    decoder.regex = _expression(element, ("regex", "pcre2"), "osregex", file)
    decoder.regex_offset = _offset(element, ("regex", "pcre2"), file)
    decoder.order = _names(element.first("order"))
    decoder.fts = _names(element.first("fts"))
    decoder.plugin = element.first("plugin_decoder")
    decoder.plugin_offset = _offset(element, ("plugin_decoder",), file)
    decoder.accumulate = any(element.all("accumulate"))
    nulls = element.first("json_null_field", "string")
    if nulls not in {one.value for one in Nulls}:
        raise RuleError(f"decoder {name}: json_null_field is string, empty or discard", location=where)
    decoder.nulls = Nulls(nulls)
    if any(element.all("lua")):
        raise RuleError(f"decoder {name}: Lua decoders are not run", location=where)
    return decoder


def _names(text: str) -> tuple[str, ...]:
    return tuple(_ALIASES.get(word, word) for word in _SEPARATOR.split(text.strip().lower()) if word)


def _written(element: Element, names: Sequence[str]) -> Iterator[tuple[Element, str]]:
    for child in element.children:
        if child.name in names:
            yield child, "caseless" if child.name.endswith("pcre2") else child.attributes.get("type", "").lower()


def _expression(element: Element, names: Sequence[str], default: str, file: str) -> Expression | None:
    """Several elements are one pattern written in pieces; the last type that is said holds for all of it."""
    text, kind, line = "", default, 0
    for child, given in _written(element, names):
        text += child.text
        kind = given or (kind if not text else default if kind == default else kind)
        line = child.line
    if not line:
        return None
    if kind not in ("osmatch", "osregex", "pcre2", "caseless"):
        raise RuleError(f"there is no pattern type {kind!r}", location=Location(file, line))
    try:
        return Expression(kind, text)
    except ValueError as error:
        raise RuleError(f"no pattern: {error}", location=Location(file, line)) from None


def _offset(element: Element, names: Sequence[str], file: str) -> Offset:
    for child, _kind in _written(element, names):
        if "offset" in child.attributes:
            try:
                return Offset(child.attributes["offset"])
            except ValueError:
                raise RuleError(
                    f"there is no offset {child.attributes['offset']!r}",
                    location=Location(file, child.line),
                    hint="after_parent, after_prematch or after_regex",
                ) from None
    return Offset.BEGINNING
