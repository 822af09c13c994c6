"""YAML text to plain data in which every key still knows its line and column; bounded against hostile files.
Counterpart: `rules` and `inventory` read their files with it and point at places in them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from vedette.model.errors import Location, VedetteError

try:
    from yaml import CSafeLoader as _Loader
except ImportError:  # pragma: no cover (a PyYAML built without libyaml is eight times slower, not wrong)
    from yaml import SafeLoader as _Loader  # type: ignore[assignment]

Plain = str | int | float | bool | None
Yaml = Plain | list["Yaml"] | dict[str, "Yaml"]
Path_ = tuple[str | int, ...]

FILE_LIMIT = 4 * 1024 * 1024
DEPTH_LIMIT = 32
NODE_LIMIT = 200_000
"""Nodes of one file, what aliases stand for counted each time."""
INT_DIGITS = 40

_CORE = "tag:yaml.org,2002:"
_TAKEN = {None, "!", *(_CORE + name for name in ("str", "int", "float", "bool", "null", "seq", "map"))}

_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLS = frozenset(("true", "True", "TRUE", "false", "False", "FALSE"))
_NUMBER = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|0o[0-7]+|0x[0-9a-fA-F]+|"
    r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document of a file whose top is a mapping."""

    file: str
    data: dict[str, Yaml]
    start: Location
    marks: dict[Path_, tuple[int, int]] = field(repr=False)
    kind: type[VedetteError] = field(default=VedetteError, repr=False)

    def at(self, *path: str | int) -> Location:
        """The place of the key or element at `path`, else of the nearest thing around it that has one."""
        for length in range(len(path), 0, -1):
            mark = self.marks.get(path[:length])
            if mark is not None:
                return Location(self.file, *mark)
        return self.start

    def error(self, message: str, *path: str | int, hint: str = "") -> VedetteError:
        """An error about what stands at `path`, of the class that the reader asked for."""
        return self.kind(message, location=self.at(*path), hint=hint)

    def replaced(self, data: dict[str, Yaml]) -> Document:
        """The same document with other data."""
        return Document(self.file, data, self.start, self.marks, self.kind)


def parse_documents(
    raw: bytes, file: str, kind: type[VedetteError] = VedetteError, *, core: bool = False
) -> list[Document]:
    """The documents in `raw` (UTF-8); empty ones are left out. An error of class `kind` gives file:line:column.

    core: unquoted words are read as in the core schema of YAML 1.2 (section 10.3.2), where `no` is a word.
    """
    if len(raw) > FILE_LIMIT:
        raise kind(f"larger than {FILE_LIMIT} bytes", location=Location(file), hint="split the file")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - (raw.rfind(b"\n", 0, error.start) + 1) + 1
        raise kind("is not UTF-8", location=Location(file, line, column)) from error
    try:
        loader = _Loader(text)
    except yaml.YAMLError as error:
        raise _unreadable(error, file, text, kind) from error
    try:
        return list(_Reader(loader, file, kind, core=core).documents())
    except yaml.YAMLError as error:
        raise _unreadable(error, file, text, kind) from error
    finally:
        loader.dispose()


def _unreadable(error: yaml.YAMLError, file: str, text: str, kind: type[VedetteError]) -> VedetteError:
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        where = Location(file, mark.line + 1, mark.column + 1)
    else:
        position = getattr(error, "position", None)
        where = Location(file, text.count("\n", 0, position) + 1 if isinstance(position, int) else 0)
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or "not readable as YAML"
    return kind(f"no valid YAML: {what}", location=where)


def _place(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (0, 0) if mark is None else (mark.line + 1, mark.column + 1)


class _Reader:
    """Builds data out of parse events; one for a file."""

    def __init__(self, loader: _Loader, file: str, kind: type[VedetteError], *, core: bool) -> None:
        self.loader = loader
        self.core = core
        self.file = file
        self.kind = kind
        self.nodes = 0
        self.anchors: dict[str, tuple[Yaml, int]] = {}
        self.open: set[str] = set()
        self.marks: dict[Path_, tuple[int, int]] = {}

    def documents(self) -> Iterator[Document]:
        while True:
            event = self.next()
            if isinstance(event, yaml.StreamEndEvent):
                return
            if not isinstance(event, yaml.DocumentStartEvent):
                continue
            self.anchors, self.marks = {}, {}
            first = self.next()
            start = Location(self.file, *_place(first))
            data, _size = self.node(first, (), 0)
            if data is None:
                continue
            if not isinstance(data, dict):
                raise self.kind("a document is a mapping of keys to values", location=start)
            yield Document(self.file, data, start, self.marks, self.kind)

    def next(self) -> yaml.Event:
        event = self.loader.get_event()
        if event is None:  # pragma: no cover (the stream end comes before it)
            raise self.kind("ends too early", location=Location(self.file))
        return event

    def fail(self, message: str, event: yaml.Event, hint: str = "") -> VedetteError:
        return self.kind(message, location=Location(self.file, *_place(event)), hint=hint)

    def node(self, event: yaml.Event, path: Path_, depth: int) -> tuple[Yaml, int]:
        """The value that `event` begins, and how many nodes it stands for."""
        if depth > DEPTH_LIMIT:
            raise self.fail(f"nested deeper than {DEPTH_LIMIT}", event)
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event)
        assert isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent)
        if event.tag not in _TAKEN:
            raise self.fail(f"tag {event.tag!r} is not taken", event, "write the value without a tag")
        self.count(1, event)
        anchor = event.anchor
        if anchor is not None:
            self.open.add(anchor)
        value: Yaml
        if isinstance(event, yaml.ScalarEvent):
            value, size = self.scalar(event), 1
        elif isinstance(event, yaml.SequenceStartEvent):
            value, size = self.sequence(path, depth)
        else:
            value, size = self.mapping(path, depth)
        if anchor is not None:
            self.open.discard(anchor)
            self.anchors[anchor] = (value, size)
        return value, size

    def alias(self, event: yaml.AliasEvent) -> tuple[Yaml, int]:
        if event.anchor in self.open or event.anchor not in self.anchors:
            raise self.fail(f"alias *{event.anchor} names nothing that stands complete before it", event)
        value, size = self.anchors[event.anchor]
        self.count(size, event)
        return value, size

    def count(self, size: int, event: yaml.Event) -> None:
        self.nodes += size
        if self.nodes > NODE_LIMIT:
            raise self.fail(f"stands for more than {NODE_LIMIT} nodes, aliases written out", event)

    def sequence(self, path: Path_, depth: int) -> tuple[Yaml, int]:
        items: list[Yaml] = []
        total = 1
        while not isinstance(event := self.next(), yaml.SequenceEndEvent):
            here = (*path, len(items))
            self.marks[here] = _place(event)
            value, size = self.node(event, here, depth + 1)
            items.append(value)
            total += size
        return items, total

    def mapping(self, path: Path_, depth: int) -> tuple[Yaml, int]:
        items: dict[str, Yaml] = {}
        total = 1
        while not isinstance(event := self.next(), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise self.fail("a key is text", event)
            # A plain key that YAML 1.1 would read as yes, no, null or a number is still the word that was written.
            key = event.value
            if key == "<<" and event.implicit[0]:
                raise self.fail("merge keys are not taken", event, "write the keys out")
            if key in items:
                raise self.fail(f"key {key!r} is there twice", event)
            here = (*path, key)
            self.marks[here] = _place(event)
            value, size = self.node(self.next(), here, depth + 1)
            items[key] = value
            total += size + 1
            self.count(1, event)
        return items, total

    def scalar(self, event: yaml.ScalarEvent) -> Plain:
        text: str = event.value
        tag = event.tag
        if self.core and tag is None and event.implicit[0]:
            return self.word(text, event)
        if tag is None or tag == "!":
            tag = self.loader.resolve(yaml.ScalarNode, text, event.implicit)  # type: ignore[no-untyped-call]
        kind = tag.removeprefix(_CORE)
        # YAML 1.1 would read 22:30 as a number to base sixty, and dates as objects: nobody who writes a rule means it.
        if kind not in {"int", "float", "bool", "null"} or ":" in text:
            return text
        if kind in {"int", "float"} and len(text) > INT_DIGITS:
            raise self.fail(f"a number of more than {INT_DIGITS} digits", event, "quote it if it is text")
        node = yaml.ScalarNode(tag, text, None, None)
        try:
            value: Plain = self.loader.construct_object(node)
        except (ValueError, KeyError) as error:
            raise self.fail(f"{text!r} is no {kind}", event) from error
        if isinstance(value, float) and not math.isfinite(value):
            raise self.fail(f"{text!r} is not a finite number", event, "quote it if it is text")
        return value

    def word(self, text: str, event: yaml.Event) -> Plain:
        """An unquoted word, in the core schema."""
        if text in _NULLS:
            return None
        if text in _BOOLS:
            return text[0] in "tT"
        if not _NUMBER.fullmatch(text):
            return text
        if len(text) > INT_DIGITS:
            raise self.fail(f"a number of more than {INT_DIGITS} digits", event, "quote it if it is text")
        if text.startswith(("0o", "0x")):
            return int(text, 0)
        value = math.inf if text[-1] in "fFnN" else int(text) if text.lstrip("+-").isdigit() else float(text)
        if not math.isfinite(value):
            raise self.fail(f"{text!r} is not a finite number", event, "quote it if it is text")
        return value
