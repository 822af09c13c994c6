"""One message and all its readings by the shapes of formats, in plain, obvious code; what a captured span means.
Counterpart: `parsers.shapes` does the same to whole blocks and must agree; `parsers.formats` made the shapes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from vedette.model.events import Value
from vedette.model.fields import FIELDS, FieldType
from vedette.parsers.formats import Capture, CaptureType, Literal, Piece, Shape, Span, Step, Take
from vedette.text.addresses import canonical
from vedette.text.escape import decode

READINGS_LIMIT = 64
"""A message with more readings than this is ambiguous without looking further."""
TRIES_LIMIT = 256
"""Places a literal between two texts is tried at; more of them make the message ambiguous as well."""

GROUP_LENGTH = 4
"""Bytes before the first colon of an IPv6 address, at most."""
_ADDRESS_RUN = re.compile(rb"[0-9A-Fa-f.:]*[0-9A-Fa-f.]")


class Message:
    """One message, and how the beginnings and endings of shapes, which many share, were found in it."""

    __slots__ = ("_backs", "_fronts", "text")

    def __init__(self, text: bytes) -> None:
        self.text = text
        self._fronts: dict[int, tuple[int, list[Span]] | None] = {}
        self._backs: dict[int, tuple[int, list[Span]] | None] = {}

    def readings(self, shape: Shape, front: int, back: int) -> tuple[list[tuple[Span, ...]], bool]:
        """As `readings`. front, back: numbers that shapes with the same beginning and the same ending have."""
        message, limit = self.text, len(self.text)
        if (
            limit < shape.least
            or not message.startswith(shape.head)
            or not message.endswith(shape.tail)
            or shape.atom not in message
        ):
            return [], False
        if front in self._fronts:
            begun = self._fronts[front]
        else:
            begun = self._fronts[front] = _forward(shape.front, message, 0, limit)
        if begun is None:
            return [], False
        if shape.texts == 0:
            return ([tuple(begun[1])] if begun[0] == limit else []), False
        if back in self._backs:
            ended = self._backs[back]
        else:
            ended = self._backs[back] = _backward(shape.pieces, message, limit)
        if ended is None or ended[0] < begun[0]:
            return [], False
        found: list[tuple[Span, ...]] = []
        tries = [0]
        for spans in _between(shape.middles, message, begun[0], ended[0], tries):
            found.append((*begun[1], *spans, *ended[1]))
            if len(found) > READINGS_LIMIT:
                return found, True
        return found, tries[0] > TRIES_LIMIT


def readings(shape: Shape, message: bytes) -> tuple[list[tuple[Span, ...]], bool]:
    """All readings of `message` as spans in order of the captures, and whether there were too many to list."""
    return Message(message).readings(shape, 0, 0)


def _between(
    middles: tuple[tuple[Step, ...], ...], message: bytes, start: int, end: int, tries: list[int]
) -> Iterator[tuple[Span, ...]]:
    """Spans of the texts, and of the captures between them, that fill [start, end)."""
    if not middles:
        yield ((start, end),)
        return
    first = middles[0][0]
    assert isinstance(first, Literal)
    at = message.find(first.text, start, end)
    while at >= 0:
        tries[0] += 1
        if tries[0] > TRIES_LIMIT:
            return
        middle = _middle(middles[0], message, at, end)
        if middle is not None:
            for rest in _between(middles[1:], message, middle[0], end, tries):
                yield ((start, at), *middle[1], *rest)
        at = message.find(first.text, at + 1, end)


_CHUNKS = {CaptureType.INT: rb"([0-9]{1,20}+)", CaptureType.OPT: rb"([^ ]*+)", CaptureType.IP: rb"([^ ]*+)"}
_MOST_KNOWN = 4096
_Known = tuple[tuple[Step, ...], re.Pattern[bytes] | None, tuple[int, ...]]
_known: dict[int, _Known] = {}
"""By the id of the steps, which are kept alive here: to hash them costs more than to read them."""


def _compiled(steps: tuple[Step, ...]) -> _Known:
    """`_forward` as one expression without backtracking, where all captures are whole chunks; which are addresses."""
    takes = [step for step in steps if isinstance(step, Take)]
    if any(take.stop >= 0 or take.suffix or take.capture.type is CaptureType.TEXT for take in takes):
        return steps, None, ()
    parts = [
        re.escape(step.text) if isinstance(step, Literal) else _CHUNKS.get(step.capture.type, rb"([^ ]++)")
        for step in steps
    ]
    addresses = tuple(at for at, take in enumerate(takes, 1) if take.capture.type is CaptureType.IP)
    return steps, re.compile(b"".join(parts), re.DOTALL), addresses


def _middle(steps: tuple[Step, ...], message: bytes, position: int, limit: int) -> tuple[int, list[Span]] | None:
    """As `_forward`, for what is tried often and begins with a literal."""
    known = _known.get(id(steps))
    if known is None or known[0] is not steps:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        known = _known[id(steps)] = _compiled(steps)
    _, expression, addresses = known
    if expression is None:
        return _forward(steps, message, position, limit)
    match = expression.match(message, position, limit)
    if match is None or not all(address_of(match[at]) is not None for at in addresses):
        return None
    # The first span is that of the whole.
    return match.end(), list(match.regs[1:])


def _forward(steps: tuple[Step, ...], message: bytes, position: int, limit: int) -> tuple[int, list[Span]] | None:
    """Where the steps end, read from `position` on, and their spans."""
    spans = []
    for step in steps:
        if isinstance(step, Literal):
            if not message.startswith(step.text, position, limit):
                return None
            position += len(step.text)
            continue
        end = message.find(b" ", position, limit)
        if end < 0:
            end = limit
        if step.stop >= 0:
            stop = message.find(bytes((step.stop,)), position, end)
            if step.before_port and 0 <= stop - position <= GROUP_LENGTH:
                run = _ADDRESS_RUN.match(message, position, end)
                stop = message.rfind(b":", position, run.end()) if run else stop
            end = stop if stop >= 0 else end
        end -= step.suffix
        if end < position or not _holds(step.capture, message[position:end]):
            return None
        spans.append((position, end))
        position = end
    return position, spans


def _backward(pieces: tuple[Piece, ...], message: bytes, position: int) -> tuple[int, list[Span]] | None:
    """Where the pieces begin, read backwards from `position`, and their spans in order."""
    spans: list[Span] = []
    for piece in pieces:
        if not piece.steps:
            if not message.endswith(piece.literal, 0, position):
                return None
            position -= len(piece.literal)
            continue
        start = message.rfind(b" ", 0, position) + 1
        if piece.after < 0:
            found = _forward(piece.steps, message, start, position)
            if found is None or found[0] != position:
                return None
            spans[:0] = found[1]
        else:
            start = message.rfind(bytes((piece.after,)), start, position) + 1 or start
            word = message[start:position]
            if not _holds(only(piece), word) or (piece.until >= 0 and piece.until in word):
                return None
            spans.insert(0, (start, position))
        position = start
    return position, spans


def only(piece: Piece) -> Capture:
    """The capture of a piece joined to the text."""
    step = piece.steps[0]
    assert isinstance(step, Take)
    return step.capture


def _holds(capture: Capture, word: bytes) -> bool:
    match capture.type:
        case CaptureType.INT:
            return 1 <= len(word) <= 20 and word.isdigit()
        case CaptureType.IP:
            return address_of(word) is not None
        case CaptureType.OPT | CaptureType.TEXT:
            return True
        case _:
            return word != b""


# ------------------------------------------------------------------------------------------------ values


def address_of(word: bytes) -> str | None:
    """The canonical address `word` is, or None."""
    if not 2 <= len(word) <= 64 or not word.isascii():
        return None
    return canonical(word.decode("ascii"))


def value_of(field: str, word: bytes) -> Value:
    """What a captured span means for a field: a number, an address, or text (U+FFFD for what is not UTF-8)."""
    match FIELDS[field].type:
        case FieldType.LONG:
            return int(word)
        case FieldType.IP:
            return address_of(word)
        case _:
            return decode(word)
