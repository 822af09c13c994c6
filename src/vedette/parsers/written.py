"""Pattern files as people write them, read into memory; every mistake with its place.
Counterpart: `patterns/*.yml` are the files; `parsers.registry` says what comes out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from vedette.model.errors import Location, RuleError
from vedette.model.events import Scalar, Value
from vedette.model.fields import FIELDS, Field, FieldType
from vedette.parsers.formats import SOURCE_FIELDS, compile_format
from vedette.parsers.registry import CANDIDATES, PATTERNS, Format, Pattern, PatternFile, PatternSet, Sample
from vedette.text.addresses import canonical


class _Reader:
    """YAML nodes with their places; mappings with unknown or doubled keys are refused."""

    def __init__(self, name: str) -> None:
        self.name = name

    def at(self, node: yaml.Node) -> Location:
        return Location(self.name, node.start_mark.line + 1, node.start_mark.column + 1)

    def mapping(self, node: yaml.Node, known: frozenset[str] | None = None) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            raise RuleError("a mapping is wanted here", location=self.at(node))
        entries: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = self.text(key)
            if name in entries:
                raise RuleError(f"{name!r} stands here twice", location=self.at(key))
            if known is not None and name not in known:
                raise RuleError(
                    f"unknown key {name!r}", location=self.at(key), hint=f"known are {', '.join(sorted(known))}"
                )
            entries[name] = value
        return entries

    def items(self, node: yaml.Node | None) -> list[yaml.Node]:
        if node is None:
            return []
        if not isinstance(node, yaml.SequenceNode):
            raise RuleError("a list is wanted here", location=self.at(node))
        return list(node.value)

    def text(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise RuleError("a text is wanted here", location=self.at(node))
        return str(node.value)

    def truth(self, node: yaml.Node) -> bool:
        text = self.text(node)
        if text not in ("true", "false"):
            raise RuleError(f"{text!r} is neither true nor false", location=self.at(node))
        return text == "true"

    def number(self, node: yaml.Node) -> int:
        text = self.text(node)
        if not text.isascii() or not text.isdigit():
            raise RuleError(f"{text!r} is no number", location=self.at(node))
        return int(text)

    def needed(self, entries: dict[str, yaml.Node], key: str, node: yaml.Node) -> yaml.Node:
        if key not in entries:
            raise RuleError(f"{key!r} is missing", location=self.at(node))
        return entries[key]

    def fields(self, node: yaml.Node | None) -> dict[str, Value]:
        """Field values, read as the registry's type says."""
        if node is None:
            return {}
        return {name: self._value(name, value) for name, value in self.mapping(node).items()}

    def _value(self, name: str, node: yaml.Node) -> Value:
        declared = FIELDS.get(name)
        if declared is None:
            raise RuleError(f"unknown field {name!r}", location=self.at(node), hint="model/fields.py names them all")
        if isinstance(node, yaml.SequenceNode) and name == CANDIDATES:
            return tuple(self.text(value) for value in node.value)
        return self._typed(name, declared, node)

    def _typed(self, name: str, declared: Field, node: yaml.Node) -> Scalar:
        text = self.text(node)
        value: Scalar = text
        match declared.type:
            case FieldType.BOOLEAN:
                value = {"true": True, "false": False}.get(text)
            case FieldType.LONG:
                value = int(text) if text.isascii() and text.isdigit() else None
            case FieldType.IP:
                value = text if canonical(text) == text else None
            case FieldType.DATE:
                value = None
            case _:
                pass
        if value is None:
            raise RuleError(f"{name} is a {declared.type}, {text!r} is none", location=self.at(node))
        return value


_FILE_KEYS = frozenset({"service", "program", "any_program", "cut", "head", "set", "patterns"})
_PATTERN_KEYS = frozenset({"id", "set", "rest", "formats", "samples", "not_samples"})
_FORMAT_KEYS = frozenset({"format", "set"})
_SAMPLE_KEYS = frozenset({"message", "fields"})


def read_patterns(folder: Path = PATTERNS) -> PatternSet:
    """Every `*.yml` of a folder in byte order. RuleError: the first mistake, with file, line and column."""
    paths = sorted(folder.glob("*.yml"), key=lambda path: path.name.encode())
    return PatternSet(tuple(read_file(path.read_bytes(), str(path)) for path in paths))


def read_file(text: bytes, name: str) -> PatternFile:
    """One pattern file. RuleError with file, line and column for whatever is wrong."""
    reader = _Reader(name)
    try:
        root = yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Location(name, mark.line + 1, mark.column + 1) if mark else Location(name)
        raise RuleError(str(error.problem or error.context), location=place) from None
    except yaml.YAMLError as error:
        raise RuleError(f"not YAML: {error}", location=Location(name)) from None
    if root is None:
        raise RuleError("the file is empty", location=Location(name))
    top = reader.mapping(root, _FILE_KEYS)
    named = reader.needed(top, "program", root)
    programs = [reader.text(named)] if isinstance(named, yaml.ScalarNode) else [*map(reader.text, reader.items(named))]
    constants = reader.fields(top.get("set"))
    patterns = tuple(_pattern(reader, node, constants) for node in reader.items(reader.needed(top, "patterns", root)))
    return PatternFile(
        service=reader.text(reader.needed(top, "service", root)),
        programs=tuple(programs),
        patterns=patterns,
        location=Location(name, 1),
        any_program="any_program" in top and reader.truth(top["any_program"]),
        cut=reader.number(top["cut"]) if "cut" in top else 0,
        head=_head(reader, top["head"]) if "head" in top else None,
    )


def _head(reader: _Reader, node: yaml.Node) -> re.Pattern[bytes]:
    try:
        return re.compile(reader.text(node).encode())
    except re.error as error:
        raise RuleError(f"no regular expression: {error}", location=reader.at(node)) from None


def _pattern(reader: _Reader, node: yaml.Node, outer: dict[str, Value]) -> Pattern:
    entries = reader.mapping(node, _PATTERN_KEYS)
    constants = outer | reader.fields(entries.get("set"))
    formats = tuple(_formats(reader, reader.items(reader.needed(entries, "formats", node)), constants))
    if not formats:
        raise RuleError("a pattern without formats", location=reader.at(node))
    rest = "rest" in entries and reader.truth(entries["rest"])
    if rest:
        fields = {capture.field for written in formats for shape in written.shapes for capture in shape.captures}
        if fields & SOURCE_FIELDS:
            raise RuleError("a pattern with `rest` gives no source.* field", location=reader.at(node))
    return Pattern(
        id=reader.text(reader.needed(entries, "id", node)),
        formats=formats,
        constants=constants,
        samples=tuple(_sample(reader, sample) for sample in reader.items(entries.get("samples"))),
        not_samples=tuple(
            (reader.text(text).encode(), reader.at(text)) for text in reader.items(entries.get("not_samples"))
        ),
        location=reader.at(node),
        rest=rest,
    )


def _formats(reader: _Reader, nodes: list[yaml.Node], outer: dict[str, Value]) -> Iterator[Format]:
    for node in nodes:
        entries: dict[str, yaml.Node] = (
            {"format": node} if isinstance(node, yaml.ScalarNode) else reader.mapping(node, _FORMAT_KEYS)
        )
        written = reader.needed(entries, "format", node)
        constants = outer | reader.fields(entries.get("set"))
        text = reader.text(written)
        shapes = compile_format(text, reader.at(written))
        for shape in shapes:
            twice = [capture.field for capture in shape.captures if capture.field in constants]
            if twice:
                raise RuleError(f"{twice[0]} is both captured and set", location=reader.at(written))
        yield Format(text=text, shapes=shapes, constants=constants, location=reader.at(written))


def _sample(reader: _Reader, node: yaml.Node) -> Sample:
    entries = reader.mapping(node, _SAMPLE_KEYS)
    message = reader.text(reader.needed(entries, "message", node)).encode()
    return Sample(message=message, fields=reader.fields(entries.get("fields")), location=reader.at(node))
