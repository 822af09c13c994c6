"""The pattern language: a format is compiled into flat shapes.
Counterpart: `patterns/*.yml` are written in it; `parsers.readings` matches messages, `parsers.shapes` whole blocks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import dropwhile, product

from vedette.model.errors import Location, RuleError
from vedette.model.fields import FIELDS, FieldType, is_attacker_text

OPTIONALS_LIMIT = 3
ADDRESS_FIELD = "source.address"

COLON = 0x3A


class CaptureType(StrEnum):
    """What a capture may hold."""

    WORD = "word"
    """One byte or more, no space."""
    OPT = "opt"
    """Any number of bytes, no space."""
    INT = "int"
    """1 to 20 ASCII digits."""
    IP = "ip"
    """An IPv4 or IPv6 address, given in canonical text."""
    ADDR = "addr"
    """A word: an address or a host name."""
    TEXT = "text"
    """Any bytes, spaces included, also none."""


@dataclass(frozen=True, slots=True)
class Literal:
    """Bytes that must stand there."""

    text: bytes


@dataclass(frozen=True, slots=True)
class Capture:
    """A part of the message; `field` "" gives no field."""

    type: CaptureType
    field: str = ""


@dataclass(frozen=True, slots=True)
class Take:
    """How a capture ends: before the first `stop` byte, or, -1, `suffix` bytes before the end of its chunk.

    A chunk ends before a space or at the limit; no capture but `text` runs past its chunk.
    """

    capture: Capture
    stop: int = -1
    suffix: int = 0

    @property
    def before_port(self) -> bool:
        """Whether it is an address before `:` and a port: one of IPv6 ends before the last colon, not the first."""
        return self.stop == COLON and self.capture.type is CaptureType.IP


Element = Literal | Capture
Step = Literal | Take
Span = tuple[int, int]

SOURCE_FIELDS = frozenset({"source.ip", "source.address", "source.domain"})


@dataclass(frozen=True, slots=True)
class Piece:
    """A step from the right: a literal, or a space-delimited chunk read left to right, or (joined) one capture.

    A capture joined to the text before it begins after the last `after` before its end, and holds neither
    that byte nor `until`.
    """

    steps: tuple[Step, ...]
    literal: bytes = b""
    after: int = -1
    until: int = -1


@dataclass(frozen=True, slots=True)
class Shape:
    """A format without optionals. `front` is read from the left; `pieces`, in order, from the right.

    captures: in order of appearance; spans of a match have the same order. texts: how many `text` captures;
    with none, `front` reaches the end. With two or more, `middles` stand between them.
    head: the literal it begins with, b"" for none; tail: the literal it ends with. least: shortest match.
    """

    elements: tuple[Element, ...]
    captures: tuple[Capture, ...]
    front: tuple[Step, ...]
    middles: tuple[tuple[Step, ...], ...]
    pieces: tuple[Piece, ...]
    texts: int
    head: bytes
    tail: bytes
    atom: bytes
    """Its longest literal: what is not in a message cannot match it."""
    least: int

    gives_address: bool
    """Whether a match may set source.ip."""
    address: int
    """The capture that may set it, -1 for none."""
    between: bytes
    """The longest literal between two texts, b"" where there are no two."""
    holds_cut: bool
    """No field of the source stands behind what an attacker may choose, be it one word: a name made of several could
    have pushed the true one off the end. So it is right even where the message lost its tail."""


# ------------------------------------------------------------------------------------------------ compiling

_TOKEN = re.compile(
    r"(?P<escaped>\{\{|\}\}|<<|>>)|\{(?P<field>[^{}:]*):(?P<type>[^{}:]*)\}|(?P<open><)|(?P<close>>)"
    r"|(?P<bad>[{}])|(?P<text>[^{}<>]+)"
)


def compile_format(text: str, location: Location) -> tuple[Shape, ...]:
    """The flat shapes of a format, without its optional parts last. RuleError says what is wrong with it."""
    parts = _parse(text, location)
    optional = [number for number, (_, chosen) in enumerate(parts) if chosen]
    if len(optional) > OPTIONALS_LIMIT:
        raise RuleError(
            f"{len(optional)} optional parts", location=location, hint=f"at most {OPTIONALS_LIMIT}: write two formats"
        )
    shapes = []
    for choice in product((True, False), repeat=len(optional)):
        left_out = {number for number, taken in zip(optional, choice, strict=True) if not taken}
        elements = [element for number, (some, _) in enumerate(parts) if number not in left_out for element in some]
        shapes.append(_shape(elements, text, location))
    return tuple(dict.fromkeys(shapes))


def _parse(text: str, location: Location) -> list[tuple[list[Element], bool]]:
    """Runs of elements, and whether each run is optional."""
    parts: list[tuple[list[Element], bool]] = [([], False)]
    optional = False
    for match in _TOKEN.finditer(text):
        if match["open"]:
            if optional:
                raise RuleError(f"optional part inside an optional part at offset {match.start()}", location=location)
            optional = True
            parts.append(([], True))
        elif match["close"]:
            if not optional:
                raise RuleError(f"'>' without '<' at offset {match.start()}", location=location, hint="write '>>'")
            optional = False
            parts.append(([], False))
        elif match["bad"]:
            raise RuleError(
                f"stray {match['bad']!r} at offset {match.start()}",
                location=location,
                hint="a capture is {field:type}; a brace itself is written twice",
            )
        elif match["type"] is not None:
            parts[-1][0].append(_capture(match["field"], match["type"], location))
        else:
            literal = match["escaped"][0] if match["escaped"] else match["text"]
            if any(ord(char) < 0x20 for char in literal):
                raise RuleError("control character in a literal", location=location)
            parts[-1][0].append(Literal(literal.encode()))
    if optional:
        raise RuleError("'<' without '>'", location=location, hint="a literal '<' is written '<<'")
    return parts


_FITS = {
    CaptureType.WORD: (FieldType.KEYWORD, FieldType.TEXT),
    CaptureType.OPT: (FieldType.KEYWORD, FieldType.TEXT),
    CaptureType.TEXT: (FieldType.KEYWORD, FieldType.TEXT),
    CaptureType.ADDR: (FieldType.KEYWORD,),
    CaptureType.INT: (FieldType.LONG, FieldType.KEYWORD),
    CaptureType.IP: (FieldType.IP,),
}


def _capture(field: str, type_name: str, location: Location) -> Capture:
    try:
        kind = CaptureType(type_name)
    except ValueError:
        known = ", ".join(CaptureType)
        raise RuleError(f"unknown type {type_name!r}", location=location, hint=f"one of {known}") from None
    if field:
        declared = FIELDS.get(field)
        if declared is None:
            raise RuleError(f"unknown field {field!r}", location=location, hint="model/fields.py names them all")
        if declared.type not in _FITS[kind]:
            raise RuleError(f"{field} is a {declared.type} and cannot be captured as {kind}", location=location)
    if kind is CaptureType.ADDR and field not in ("", ADDRESS_FIELD):
        raise RuleError(f"type addr gives {ADDRESS_FIELD}, not {field}", location=location)
    return Capture(kind, field)


def _shape(elements: list[Element], text: str, location: Location) -> Shape:
    joined: list[Element] = []
    for element in elements:
        before = joined[-1] if joined else None
        if isinstance(element, Literal) and isinstance(before, Literal):
            joined[-1] = Literal(before.text + element.text)
            continue
        if isinstance(element, Capture) and isinstance(before, Capture):
            raise RuleError(
                f"two captures touch in {text!r}", location=location, hint="a literal byte must stand between them"
            )
        joined.append(element)
    captures = tuple(element for element in joined if isinstance(element, Capture))
    fields = [capture.field for capture in captures if capture.field]
    if len(fields) != len(set(fields)):
        raise RuleError(f"a field is captured twice in {text!r}", location=location)
    if not joined:
        raise RuleError("empty format", location=location)
    places = [n for n, e in enumerate(joined) if isinstance(e, Capture) and e.type is CaptureType.TEXT]
    bounds = [*places, len(joined)]
    segments = [tuple(joined[start + 1 : end]) for start, end in zip([-1, *places], bounds, strict=True)]
    first, last = joined[0], joined[-1]
    address = [place for place, capture in enumerate(captures) if capture.field in ("source.ip", ADDRESS_FIELD)]
    if len(address) > 1:
        raise RuleError(f"source.ip and {ADDRESS_FIELD} are both captured in {text!r}", location=location)
    return Shape(
        elements=tuple(joined),
        captures=captures,
        front=_steps(segments[0], closed=not places),
        middles=tuple(_steps(segment, closed=False) for segment in segments[1:-1]),
        pieces=_pieces(segments[-1]) if places else (),
        texts=len(places),
        head=first.text if isinstance(first, Literal) else b"",
        tail=last.text if isinstance(last, Literal) else b"",
        atom=max((element.text for element in joined if isinstance(element, Literal)), key=len, default=b""),
        least=sum(_least(element) for element in joined),
        gives_address=bool(address),
        address=address[0] if address else -1,
        between=max(
            (element.text for segment in segments[1:-1] for element in segment if isinstance(element, Literal)),
            key=len,
            default=b"",
        ),
        holds_cut=not any(
            isinstance(e, Capture) and e.field in SOURCE_FIELDS for e in dropwhile(lambda e: not _chosen(e), joined)
        ),
    )


def _chosen(element: Element) -> bool:
    """Whether whoever is logged may choose what stands here."""
    if not isinstance(element, Capture):
        return False
    if element.type is CaptureType.TEXT:
        return True
    return (
        element.field not in SOURCE_FIELDS
        and element.type in (CaptureType.WORD, CaptureType.OPT)
        and is_attacker_text(element.field)
    )


def _steps(elements: Sequence[Element], *, closed: bool) -> tuple[Step, ...]:
    """How to read elements from the left; `closed`: they reach the end of the message or chunk."""
    steps: list[Step] = []
    for number, element in enumerate(elements):
        if isinstance(element, Literal):
            steps.append(element)
            continue
        following = elements[number + 1] if number + 1 < len(elements) else None
        if not isinstance(following, Literal):
            steps.append(Take(element))
            continue
        suffix, space, _ = following.text.partition(b" ")
        if space or (closed and number + 2 == len(elements)):
            steps.append(Take(element, suffix=len(suffix)))
        else:
            steps.append(Take(element, stop=following.text[0]))
    return tuple(steps)


def _least(element: Element) -> int:
    if isinstance(element, Literal):
        return len(element.text)
    return {CaptureType.TEXT: 0, CaptureType.OPT: 0, CaptureType.IP: 2}.get(element.type, 1)


def _pieces(back: tuple[Element, ...]) -> tuple[Piece, ...]:
    """What stands after the last text, cut at its spaces, in order from the right."""
    chunks: list[list[Element]] = [[]]
    for element in back:
        if isinstance(element, Capture):
            chunks[-1].append(element)
            continue
        for number, part in enumerate(element.text.split(b" ")):
            if number:
                chunks.append([])
            if part:
                chunks[-1].append(Literal(part))
    pieces: list[Piece] = []

    def literal(text: bytes) -> None:
        if pieces and not pieces[-1].steps:
            pieces[-1] = Piece((), text + pieces[-1].literal)
        elif text:
            pieces.append(Piece((), text))

    for chunk in reversed(chunks[1:]):
        if any(isinstance(element, Capture) for element in chunk):
            pieces.append(Piece(_steps(chunk, closed=True)))
        elif chunk:
            assert isinstance(chunk[0], Literal)
            literal(chunk[0].text)
        literal(b" ")
    beside = chunks[0]
    for number in range(len(beside) - 1, -1, -1):
        element = beside[number]
        if isinstance(element, Literal):
            literal(element.text)
            continue
        before = beside[number - 1]
        following = beside[number + 1] if number + 1 < len(beside) else None
        assert isinstance(before, Literal)
        until = following.text[0] if isinstance(following, Literal) else -1
        pieces.append(Piece((Take(element),), after=before.text[-1], until=until))
    return tuple(pieces)


def given_by(shape: Shape) -> frozenset[str]:
    """The fields that captures of a shape may give."""
    names = {capture.field for capture in shape.captures if capture.field}
    return frozenset(names | ({"source.ip", "source.domain"} if ADDRESS_FIELD in names else set()))
