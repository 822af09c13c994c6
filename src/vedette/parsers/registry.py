"""Pattern files in memory: programs, constants, formats, samples, and the shapes of all of them in order.
Counterpart: `parsers.written` reads what people wrote, `parsers.shapes` runs what comes out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from vedette.model.errors import Location, RuleError
from vedette.model.events import Value
from vedette.parsers.formats import Piece, Shape, Step, given_by

T = TypeVar("T")

PATTERNS = Path(__file__).parent / "patterns"

CANDIDATES = "vedette.source.candidates"

BEGINNINGS = (b"pam_", b"PAM ", b"(pam_")
"""Messages that files with `any_program` are tried on, whatever the program: modules speak in its name."""

HEAD_LIMIT = 512
"""Bytes of a message that are looked at for what a program writes before it."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A message and exactly the fields a match must give, constants left out."""

    message: bytes
    fields: dict[str, Value]
    location: Location


@dataclass(frozen=True, slots=True)
class Format:
    """One way a message is written. constants: of file, pattern and format together."""

    text: str
    shapes: tuple[Shape, ...]
    constants: dict[str, Value]
    location: Location


@dataclass(frozen=True, slots=True)
class Pattern:
    """What a message means, however it is written. constants: of file and pattern.

    rest: a catch-all, tried only where no other pattern of the file matched; it gives no field of the source.
    """

    id: str
    formats: tuple[Format, ...]
    constants: dict[str, Value]
    samples: tuple[Sample, ...]
    not_samples: tuple[tuple[bytes, Location], ...]
    location: Location
    rest: bool = False


@dataclass(frozen=True, slots=True)
class PatternFile:
    """The patterns of one program family.

    any_program: also tried on what modules say in the name of other programs (BEGINNINGS). cut: the program
    cuts its messages at so many bytes, 0 = never: one of that length may end in text of the attacker's. head: what
    the program may write before its messages, time and thread for example; formats begin behind it.
    """

    service: str
    programs: tuple[str, ...]
    patterns: tuple[Pattern, ...]
    location: Location
    any_program: bool = False
    cut: int = 0
    head: re.Pattern[bytes] | None = None

    def head_length(self, message: bytes) -> int:
        """How many bytes of a message the program writes before what formats read; at most HEAD_LIMIT."""
        found = None if self.head is None else self.head.match(message[:HEAD_LIMIT])
        return 0 if found is None else found.end()

    def message_of(self, message: bytes) -> bytes:
        """A message without what the program writes before it."""
        return message[self.head_length(message) :]


@dataclass(frozen=True, slots=True)
class FlatShape:
    """A shape with where it comes from; its place in `PatternSet.shapes` is its number."""

    shape: Shape
    pattern: Pattern
    format: Format
    service: str
    constants: dict[str, Value]
    cut: int
    front: int
    back: int
    """Places in `PatternSet.fronts` and `.backs` of the last step of its beginning and of its ending."""


class Tree(Generic[T]):
    """Sequences that share their beginnings: entry n is (entry of what stands before, last item); 0 is empty."""

    __slots__ = ("_known", "entries")

    def __init__(self) -> None:
        self.entries: list[tuple[int, T | None]] = [(0, None)]
        self._known: dict[tuple[int, T], int] = {}

    def add(self, items: Sequence[T]) -> int:
        """The entry of a sequence."""
        place = 0
        for item in items:
            following = self._known.get((place, item))
            if following is None:
                following = self._known[place, item] = len(self.entries)
                self.entries.append((place, item))
            place = following
        return place


class PatternSet:
    """All pattern files. `shapes` in order: files by name, patterns and formats as written."""

    __slots__ = ("backs", "files", "fronts", "own", "shapes", "shapes_of", "universal")

    def __init__(self, files: tuple[PatternFile, ...]) -> None:
        self.files = files
        self.shapes: list[FlatShape] = []
        self.fronts: Tree[Step] = Tree()
        self.backs: Tree[Piece] = Tree()
        self.shapes_of: dict[str, tuple[int, ...]] = {}
        self.own: dict[str, PatternFile] = {}
        self.universal = tuple(file for file in files if file.any_program)
        ids: dict[str, Location] = {}
        for file in files:
            if file.service in self.shapes_of:
                raise RuleError(f"service {file.service!r} has two files", location=file.location)
            for program in file.programs:
                if program in self.own:
                    other = self.own[program].location
                    raise RuleError(f"program {program!r} is also in {other}", location=file.location)
                self.own[program] = file
            first = len(self.shapes)
            for pattern in file.patterns:
                if pattern.id in ids:
                    raise RuleError(
                        f"pattern id {pattern.id!r} is also at {ids[pattern.id]}", location=pattern.location
                    )
                ids[pattern.id] = pattern.location
                for written in pattern.formats:
                    for shape in written.shapes:
                        front, back = self.fronts.add(shape.front), self.backs.add(shape.pieces)
                        constants = written.constants
                        self.shapes.append(
                            FlatShape(shape, pattern, written, file.service, constants, file.cut, front, back)
                        )
            self.shapes_of[file.service] = tuple(range(first, len(self.shapes)))

    @property
    def fields(self) -> frozenset[str]:
        """Every field some pattern can give."""
        return self.fields_of(self.shapes_of)

    def fields_of(self, services: Iterable[str]) -> frozenset[str]:
        """Every field some pattern of these services can give."""
        flats = [self.shapes[number] for service in services for number in self.shapes_of.get(service, ())]
        return frozenset().union(*(flat.constants.keys() | given_by(flat.shape) for flat in flats))

    def file_of(self, program: str) -> PatternFile | None:
        """The file whose program this is.

        A path (`/usr/sbin/cron`) also counts by its last part. Of several instances (`postfix-out/smtpd`,
        `postfix/25/smtpd`, `httpd/shop`) the first part counts, with the last or alone; of a numbered process or
        instance (`auth-worker(812)`, `ovpn-server2`) what stands before the number.
        """
        found = self.own.get(program)
        if found is not None:
            return found
        first, _, rest = program.partition("/")
        if rest:
            last = rest.rpartition("/")[2]
            return self.own.get(f"{first.partition('-')[0]}/{last}") or self.own.get(first or last)
        name, _, number = program.partition("(")
        if number:
            return self.own.get(name) if number[-1] == ")" and number[:-1].isdecimal() else None
        return self.own.get(name.rstrip("0123456789"))
