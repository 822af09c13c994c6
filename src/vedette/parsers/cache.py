"""Compiled pattern files as bytes, so that a start need not compile what has not changed.
Counterpart: `written` compiles them; `app.detection` asks for the kept ones first."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from vedette import __version__
from vedette.model.errors import Location
from vedette.model.events import Value
from vedette.parsers.formats import Capture, CaptureType, Element, Literal, Piece, Shape, Step, Take
from vedette.parsers.registry import PATTERNS, Format, Pattern, PatternFile, PatternSet
from vedette.system import kept

_NAME, _VERSION = "vedette-patterns", 4
_MOST = 4

T = TypeVar("T", bound=Hashable)


def load(where: Path, folder: Path = PATTERNS) -> PatternSet:
    """As `written.read_patterns`, but without samples, and from what is kept in `where` as long as no file changed."""
    paths = sorted(folder.glob("*.yml"), key=lambda path: path.name.encode())
    name = kept.key_of(paths, _NAME, _VERSION, __version__) + ".patterns"
    files = unpack(kept.read(name, where) or b"")
    if files is not None:
        return PatternSet(files)
    # A start from what was kept needs no YAML.
    from vedette.parsers.written import read_patterns

    patterns = read_patterns(folder)
    kept.write(name, pack(patterns.files), where, most=_MOST)
    return patterns


class _Pool(Generic[T]):
    """Equal things once, by number."""

    def __init__(self) -> None:
        self.numbers: dict[T, int] = {}

    def number(self, thing: T) -> int:
        return self.numbers.setdefault(thing, len(self.numbers))

    def all(self, things: Sequence[T]) -> list[int]:
        return [self.number(thing) for thing in things]


def pack(files: Sequence[PatternFile]) -> bytes:
    """Pattern files as bytes, without their samples."""
    elements, steps, pieces = _Pool[Element](), _Pool[Step](), _Pool[Piece]()

    def shape(one: Shape) -> list[Any]:
        return [
            elements.all(one.elements),
            steps.all(one.front),
            [steps.all(middle) for middle in one.middles],
            pieces.all(one.pieces),
            *(getattr(one, name) for name in _PLAIN),
        ]

    plain = [
        [
            [
                file.service,
                file.programs,
                file.any_program,
                file.cut,
                file.head.pattern if file.head else None,
                *_place(file.location),
            ],
            [
                [
                    [one.id, one.constants, one.rest, *_place(one.location)[1:]],
                    [
                        [
                            written.text,
                            written.constants,
                            *_place(written.location)[1:],
                            list(map(shape, written.shapes)),
                        ]
                        for written in one.formats
                    ],
                ]
                for one in file.patterns
            ],
        ]
        for file in files
    ]
    chunks = [[steps.all(piece.steps), piece.literal, piece.after, piece.until] for piece in pieces.numbers]
    taken = [
        step.text if isinstance(step, Literal) else [elements.number(step.capture), step.stop, step.suffix]
        for step in steps.numbers
    ]
    made = [one.text if isinstance(one, Literal) else [one.type.value, one.field] for one in elements.numbers]
    return msgspec.msgpack.encode([_NAME, _VERSION, made, taken, chunks, plain])


_PLAIN = ("texts", "head", "tail", "atom", "least", "gives_address", "address", "between", "holds_cut")


def _place(location: Location) -> tuple[str, int, int]:
    return location.file, location.line, location.column


def unpack(data: bytes) -> tuple[PatternFile, ...] | None:
    """What `pack` packed; None where it is something else, or of another version."""
    try:
        name, version, *parts = msgspec.msgpack.decode(data)
        return _files(*parts) if (name, version) == (_NAME, _VERSION) else None
    except (msgspec.MsgspecError, ValueError, TypeError, KeyError, IndexError):
        return None


def _files(made: list[Any], taken: list[Any], chunks: list[Any], plain: list[Any]) -> tuple[PatternFile, ...]:
    elements: list[Element] = [
        Literal(one) if isinstance(one, bytes) else Capture(CaptureType(one[0]), one[1]) for one in made
    ]
    steps: list[Step] = []
    for one in taken:
        if isinstance(one, bytes):
            steps.append(Literal(one))
        else:
            capture = elements[one[0]]
            if not isinstance(capture, Capture):
                raise TypeError
            steps.append(Take(capture, one[1], one[2]))
    pieces = [Piece(tuple(steps[at] for at in own), literal, after, until) for own, literal, after, until in chunks]

    def shape(row: list[Any]) -> Shape:
        own = tuple([elements[at] for at in row[0]])
        return Shape(
            own,
            tuple([one for one in own if type(one) is Capture]),
            tuple([steps[at] for at in row[1]]),
            tuple([tuple([steps[at] for at in middle]) for middle in row[2]]),
            tuple([pieces[at] for at in row[3]]),
            *row[4:],
        )

    files = []
    for (service, programs, any_program, cut, head, *place), patterns in plain:
        location = Location(*place)
        name = location.file
        found = []
        for (pattern_id, constants, rest, *pattern_place), formats in patterns:
            written = tuple(
                Format(text, tuple(map(shape, shapes)), _constants(own), Location(name, line, column))
                for text, own, line, column, shapes in formats
            )
            found.append(
                Pattern(pattern_id, written, _constants(constants), (), (), Location(name, *pattern_place), rest)
            )
        before = None if head is None else re.compile(head)
        files.append(PatternFile(service, tuple(programs), tuple(found), location, any_program, cut, before))
    return tuple(files)


def _constants(plain: dict[str, Any]) -> dict[str, Value]:
    return {name: tuple(value) if type(value) is list else value for name, value in plain.items()}
